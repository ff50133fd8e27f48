//! Addresses of repositories behind ssh: `ssh://user@host:port/path`, and `user@host:path` as git has it too.

use super::GitError;
use reqwest::Url;

/// Where ssh is spoken unless the address says otherwise.
const PORT: u16 = 22;

/// A repository behind ssh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Who logs in.
    pub user: String,
    /// In lower case, as files of known hosts have it.
    pub host: String,
    /// 22 unless given.
    pub port: u16,
    /// As the server understands it.
    pub path: String,
}

impl Address {
    /// Whether an address is one of ssh.
    pub fn is_ssh(url: &str) -> bool {
        url.starts_with("ssh://") || !url.contains("://")
    }

    /// Understands an address.
    pub fn read(url: &str) -> Result<Self, GitError> {
        let bad = |why: &str| GitError::Invalid(format!("source.git.url: {}: {why}", cultivar_data::public(url)));
        let address = if url.starts_with("ssh://") { with_scheme(url) } else { short(url) };
        let address = address
            .filter(|address| !address.host.is_empty() && !address.user.is_empty() && !address.path.is_empty())
            .ok_or_else(|| bad("over ssh it is ssh://user@host:port/path or user@host:path"))?;
        // The server's shell reads it, and git takes what begins with a dash for an option.
        if address.path.starts_with('-') || address.path.contains(char::is_control) {
            return Err(bad("this is no path of a repository"));
        }
        Ok(address)
    }

    /// What the server is to run.
    pub fn command(&self) -> String {
        format!("git-upload-pack '{}'", self.path.replace('\'', "'\\''"))
    }
}

fn with_scheme(url: &str) -> Option<Address> {
    let url = Url::parse(url).ok().filter(|url| url.password().is_none())?;
    let decoded = |text: &str| crate::mlflow::percent_decoded(text);
    let path = decoded(url.path());
    let user = Some(url.username()).filter(|user| !user.is_empty()).map_or("git".to_owned(), decoded);
    Some(Address {
        user,
        host: url.host_str()?.trim_matches(['[', ']']).to_lowercase(),
        port: url.port().unwrap_or(PORT),
        // `/~user/path` is a path from a user's home.
        path: path.strip_prefix("/~").map(|rest| format!("~{rest}")).unwrap_or(path),
    })
}

fn short(text: &str) -> Option<Address> {
    let (host, path) = text.split_once(':')?;
    let (user, host) = host.split_once('@').unwrap_or(("git", host));
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    plain.then(|| Address { user: user.to_owned(), host: host.to_lowercase(), port: PORT, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood() {
        for (url, user, host, port, command) in [
            ("ssh://git@GitHub.com/acme/train.git", "git", "github.com", 22, "git-upload-pack '/acme/train.git'"),
            ("ssh://host:2222/a/b c", "git", "host", 2222, "git-upload-pack '/a/b c'"),
            ("ssh://me@[::1]:22/~me/it's", "me", "::1", 22, "git-upload-pack '~me/it'\\''s'"),
            ("git@github.com:acme/train.git", "git", "github.com", 22, "git-upload-pack 'acme/train.git'"),
            ("host:/abs", "git", "host", 22, "git-upload-pack '/abs'"),
        ] {
            let address = Address::read(url).unwrap();
            assert!(Address::is_ssh(url), "{url}");
            assert_eq!((address.user.as_str(), address.host.as_str(), address.port), (user, host, port), "{url}");
            assert_eq!(address.command(), command, "{url}");
        }
        for url in ["ssh://git:word@host/a", "ssh:///a", "nothing", "@host:a", "host:-x", "a b:c", "ssh://h/a%0ab"] {
            let error = Address::read(url).unwrap_err().to_string();
            assert!(error.starts_with("source.git.url: ") && !error.contains("word"), "{url}: {error}");
        }
        assert!(!Address::is_ssh("https://host/a") && !Address::is_ssh("file:///etc"));
    }
}

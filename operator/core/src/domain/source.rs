//! `source` of a template as stored JSON: which of its fields hold text, what it must have, and the commit that it is pinned to.

use serde_json::{Map, Value};

/// The fields that hold text, as pointers into a template.
pub const TEXTS: [&str; 11] = [
    "/source/python/requirements",
    "/source/path",
    "/source/subdirectory",
    "/source/git/url",
    "/source/git/revision",
    "/source/git/commit",
    "/source/git/secret",
    "/source/packed/uri",
    "/source/packed/digest",
    "/source/packed/remote",
    "/source/packed/commit",
];

/// What is wrong with a complete template's source, in words. A clone's own spec may lack something: its source has it.
#[must_use]
pub fn fault(template: &Value) -> Option<&'static str> {
    let source = template.get("source")?;
    let arm = |name: &str| source.get(name).filter(|value| !value.is_null());
    match (arm("git"), arm("packed")) {
        (None, None) => Some("it does not say where the code comes from: set git or packed"),
        (Some(_), Some(_)) => Some("the code comes from one place: git or packed"),
        (Some(git), None) => match git.get("url").and_then(Value::as_str) {
            None => Some("git.url is missing: the address of the repository"),
            Some(url) if url.contains("${") => None,
            Some(url) if is_ssh(url) && git.get("secret").is_none_or(Value::is_null) => Some(NO_KEY),
            Some(url) => bad_url(url),
        },
        (None, Some(_)) => None,
    }
}

/// Nobody is let in over ssh without a key.
pub const NO_KEY: &str = "git.secret is missing: over ssh it names a Secret with ssh-privatekey and known_hosts; public code is fetched over https";

/// Whether an address is one of ssh: `ssh://git@host/path`, or `git@host:path`.
#[must_use]
pub fn is_ssh(url: &str) -> bool {
    url.starts_with("ssh://") || !url.contains("://") && url.split_once('@').is_some_and(|(_, rest)| rest.contains(':'))
}

/// Why a repository's address, its references resolved, cannot be used.
#[must_use]
pub fn bad_url(url: &str) -> Option<&'static str> {
    let ssh = is_ssh(url);
    let rest = ["https://", "http://", "ssh://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let Some(rest) = rest.or(ssh.then_some(url)) else {
        return Some("git.url: git is fetched over https://, http:// or ssh://");
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // Over ssh it is who logs in, and no secret; a password would be one.
    let secret = match host.rsplit_once('@') {
        Some((user, _)) => !ssh || user.contains(':'),
        None => false,
    };
    if secret {
        return Some(
            "git.url: user and password do not belong into it: put them into a Secret and name it in git.secret",
        );
    }
    if rest.contains(['?', '#']) || rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("git.url: it is the plain address of a repository, without query, fragment and spaces");
    }
    None
}

/// Whether a branch, a tag or a commit may be called so.
#[must_use]
pub fn is_revision(name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c);
    !name.is_empty() && name.len() <= 250 && !name.starts_with('-') && !name.contains(odd) && !name.contains("..")
}

/// Whether this is a commit in full.
#[must_use]
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Writes into a template which commit its code was, so that a retry and a clone run the same. True when that is new.
pub fn pin(template: &mut Value, commit: &str) -> bool {
    let Some(Value::Object(git)) = template.pointer_mut("/source/git") else { return false };
    if git.contains_key("commit") || !is_commit(commit) {
        return false;
    }
    git.insert("commit".to_owned(), commit.into());
    true
}

/// Takes out the commit of what a clone chooses anew: another url or revision, or none, or other params where those
/// decide.
pub fn unpin(template: &mut Map<String, Value>, unset: &[String], overrides: &Map<String, Value>) {
    let Some(git) = template.get_mut("source").and_then(|source| source.get_mut("git")).and_then(Value::as_object_mut)
    else {
        return;
    };
    let set = overrides.get("source").and_then(|source| source.get("git"));
    let chosen = ["url", "revision"].iter().any(|field| set.is_some_and(|git| git.get(*field).is_some()));
    let referred = |field: &str| git.get(field).and_then(Value::as_str).is_some_and(|text| text.contains("${"));
    let by_reference = ["url", "revision"].iter().any(|field| referred(field));
    let others = ["params", "inputs"].iter().any(|field| overrides.contains_key(*field));
    let unset = unset.iter().any(|path| matches!(path.as_str(), "source.git.url" | "source.git.revision"));
    if unset || chosen || by_reference && others {
        git.remove("commit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_fetched_is_said_before_anything_runs() {
        let git = |url: &str| fault(&json!({"source": {"git": {"url": url}}})).unwrap_or_default();
        for (url, words) in [
            ("https://github.com/acme/train.git", ""),
            ("http://git.team.svc:3000/a/b", ""),
            ("https://${params.host}/a", ""),
            ("https://host/with@sign", ""),
            ("ssh://git@github.com/acme/train", "git.secret is missing"),
            ("git@github.com:acme/train.git", "git.secret is missing"),
            ("file:///etc", "https://"),
            ("/srv/code", "https://"),
            ("host:code", "https://"),
            ("https://token@github.com/acme/train", "git.secret"),
            ("https://user:word@github.com", "git.secret"),
            ("https://host/a?token=x", "without query"),
            ("https://host/a b", "spaces"),
        ] {
            assert!(git(url).contains(words) && git(url).is_empty() == words.is_empty(), "{url}: {}", git(url));
        }
        let with = |url: &str| fault(&json!({"source": {"git": {"url": url, "secret": "s"}}})).unwrap_or_default();
        for (url, words) in [
            ("ssh://git@github.com/acme/train", ""),
            ("ssh://host:2222/a", ""),
            ("git@github.com:acme/train.git", ""),
            ("ssh://git:word@host/a", "do not belong"),
            ("me:word@host:a", "do not belong"),
            ("ssh://git@host/a b", "spaces"),
        ] {
            assert!(with(url).contains(words) && with(url).is_empty() == words.is_empty(), "{url}: {}", with(url));
        }
        assert!(fault(&json!({"source": {"path": "/x"}})).unwrap().contains("git or packed"));
        assert!(fault(&json!({"source": {"git": {}}})).unwrap().contains("git.url"));
        assert!(fault(&json!({"source": {"git": {"url": "https://x"}, "packed": {}}})).unwrap().contains("one place"));
        assert_eq!(fault(&json!({"image": "x"})), None);
    }

    #[test]
    fn a_pinned_commit_stays() {
        let commit = "c".repeat(40);
        let mut template = json!({"source": {"git": {"url": "https://x"}}});
        assert!(!pin(&mut template, "main") && pin(&mut template, &commit));
        assert!(!pin(&mut template, &"d".repeat(40)));
        assert_eq!(template["source"]["git"]["commit"], commit.as_str());
        assert!(!pin(&mut json!({"source": {"packed": {}}}), &commit) && !pin(&mut json!({}), &commit));
    }

    #[test]
    fn revisions_have_names_of_git() {
        for name in ["main", "v1.2", "feature/x", "refs/heads/main", "HEAD"] {
            assert!(is_revision(name), "{name}");
        }
        for name in ["", "-x", "a b", "a\nb", "a~1", "a^", "a..b", "a:b"] {
            assert!(!is_revision(name), "{name:?}");
        }
    }
}

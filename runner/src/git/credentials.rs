//! Who asks: what a mounted Secret has for the address.

use super::GitError;
use super::address::Address;
use std::fmt;
use std::path::{Path, PathBuf};

/// Who asks.
#[derive(Clone)]
pub enum Credentials {
    /// Over HTTP.
    Password {
        /// Servers that take a token as the password take any name.
        username: String,
        /// Or a token.
        password: String,
    },
    /// Over ssh.
    Key {
        /// The private key, as ssh-keygen writes it.
        key: String,
        /// The file with the keys of servers.
        known_hosts: PathBuf,
    },
}

// Nothing of them belongs into a log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// Of the files of a mounted Secret: `username` and `password` for HTTP, `ssh-privatekey` and `known_hosts` for ssh.
    ///
    /// # Errors
    /// When what the address needs is not there.
    pub fn read(folder: &Path, url: &str) -> Result<Self, GitError> {
        let word = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).ok()?;
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            (!text.is_empty()).then_some(text)
        };
        let missing = |text: &str| GitError::Invalid(format!("source.git.secret: the Secret has no key {text}"));
        if !Address::is_ssh(url) {
            let password = word("password").ok_or_else(|| {
                missing("password; for https it has username and password, and a token is a password")
            })?;
            return Ok(Self::Password { username: word("username").unwrap_or_else(|| "git".to_owned()), password });
        }
        let key = word("ssh-privatekey")
            .ok_or_else(|| missing("ssh-privatekey; for ssh it has ssh-privatekey and known_hosts"))?;
        if word("known_hosts").is_none() {
            return Err(missing(
                "known_hosts; over ssh nobody is believed to be the server unseen: put in what `ssh-keyscan HOST` prints, once it is compared with what the server's owner publishes",
            ));
        }
        Ok(Self::Key { key, known_hosts: folder.join("known_hosts") })
    }
}

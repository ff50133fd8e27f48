//! The ssh transport: one channel on which the server runs `git-upload-pack`.
//!
//! The server must be one that the Secret's known_hosts name, by a key that stands there: there is no first use to trust.
//! Only kinds of keys that stand there for it are asked of the server, as `ssh` does it, so that a server with several keys
//! shows one that is known.

use super::address::Address;
use super::packets::said;
use super::{Credentials, GitError};
use bytes::Bytes;
use russh::client::{self, Handle as Session, Msg};
use russh::keys::known_hosts::known_host_keys_path;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, decode_secret_key};
use russh::{Channel, ChannelMsg, Preferred};
use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long a server may take to let us in, and how long it may be silent: it may have to pack what it sends first.
const CONNECT: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(60);
/// What is kept of what the server writes for people.
const MAX_WORDS: usize = 1024;

/// A repository behind ssh.
pub struct Server {
    address: Address,
    key: Arc<PrivateKey>,
    known: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
    handle: Handle,
    talk: Option<Arc<Mutex<Talk>>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.name())
    }
}

impl Server {
    /// At this address, for who has the key.
    pub fn new(address: Address, credentials: Option<Credentials>, handle: Handle) -> Result<Self, GitError> {
        let Some(Credentials::Key { key, known_hosts }) = credentials else {
            return Err(GitError::Invalid(
                "source.git.secret: over ssh it names a Secret with ssh-privatekey and known_hosts".to_owned(),
            ));
        };
        let key = private_key(&key)?;
        let known = known_keys(&address, &known_hosts)?;
        let revoked = revoked_keys(&known_hosts);
        Ok(Self { address, key: Arc::new(key), known, revoked, handle, talk: None })
    }

    /// The address.
    pub fn name(&self) -> String {
        let Address { user, host, port, path } = &self.address;
        let (host, slash) = (
            if host.contains(':') { format!("[{host}]") } else { host.clone() },
            if path.starts_with('/') { "" } else { "/" },
        );
        match port {
            22 => format!("ssh://{user}@{host}{slash}{path}"),
            port => format!("ssh://{user}@{host}:{port}{slash}{path}"),
        }
    }

    /// What the server has.
    pub fn advertisement(&mut self) -> Result<Body, GitError> {
        let mut talk = self.handle.block_on(self.connect())?;
        // A repository that is not there, or not for us, is said for people, and then there is nothing.
        match self.handle.block_on(talk.more()) {
            Ok(true) => {}
            Ok(false) => {
                let words = said(&talk.words);
                let why = if words.is_empty() { "git-upload-pack says nothing".to_owned() } else { words };
                return Err(GitError::NoRepository { url: self.name(), why });
            }
            Err(why) => return Err(self.away(&why)),
        }
        let talk = Arc::new(Mutex::new(talk));
        self.talk = Some(Arc::clone(&talk));
        Ok(Body { talk, handle: self.handle.clone() })
    }

    /// Asks for something, in the same conversation.
    pub fn ask(&mut self, request: Vec<u8>) -> Result<Body, GitError> {
        let talk = self.talk.clone().ok_or_else(|| self.away("there is no conversation"))?;
        {
            let talk = talk.lock().unwrap_or_else(PoisonError::into_inner);
            let sent = self.handle.block_on(timeout(SILENCE, talk.channel.data_bytes(request)));
            sent.map_err(|_| self.away("it takes nothing"))?.map_err(|error| self.away(&error.to_string()))?;
        }
        Ok(Body { talk, handle: self.handle.clone() })
    }

    fn away(&self, why: &str) -> GitError {
        GitError::Unavailable(format!("{} does not answer: {why}", self.name()))
    }

    async fn connect(&self) -> Result<Talk, GitError> {
        let at = (self.address.host.as_str(), self.address.port);
        let late = |_| self.away(&format!("not within {} s", CONNECT.as_secs()));
        let stream = timeout(CONNECT, TcpStream::connect(at)).await.map_err(late)?;
        let stream = stream.map_err(|error| self.away(&error.to_string()))?;
        let check = Check { known: self.known.clone(), revoked: self.revoked.clone() };
        let session = timeout(CONNECT, client::connect_stream(Arc::new(self.config()), stream, check)).await;
        let mut session = session.map_err(late)?.map_err(|broken| self.not_let_in(broken))?;
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.key), None);
        let entered = timeout(CONNECT, session.authenticate_publickey(&self.address.user, key)).await;
        if !entered.map_err(late)?.map_err(|error| self.away(&error.to_string()))?.success() {
            return Err(GitError::Denied {
                url: self.name(),
                why: "the server does not take the key".to_owned(),
                todo: "add the public half of the Secret's ssh-privatekey to the repository's deploy keys, or check the user in the address",
            });
        }
        let opened = async {
            let channel = session.channel_open_session().await?;
            // Servers that do not let it be set speak the older version.
            channel.set_env(false, "GIT_PROTOCOL", "version=2").await?;
            channel.exec(true, self.address.command()).await?;
            Ok::<_, russh::Error>(channel)
        };
        let channel = timeout(CONNECT, opened).await.map_err(late)?.map_err(|error| self.away(&error.to_string()))?;
        Ok(Talk { channel, _session: session, chunk: Bytes::new(), words: Vec::new() })
    }

    fn config(&self) -> client::Config {
        let kinds = Preferred::DEFAULT.key.iter().filter(|kind| self.known.iter().any(|key| key.algorithm() == **kind));
        let preferred = Preferred { key: Cow::Owned(kinds.cloned().collect()), ..Preferred::DEFAULT };
        client::Config { preferred, keepalive_interval: Some(SILENCE / 4), nodelay: true, ..client::Config::default() }
    }

    fn not_let_in(&self, broken: Broken) -> GitError {
        match broken {
            Broken::Stranger(fingerprint) => GitError::Invalid(format!(
                "source.git.secret: known_hosts has other keys for {} than the one that it shows, {fingerprint}: somebody may stand in between, or the server has a new key, which its owner publishes",
                self.address.host
            )),
            Broken::Revoked => GitError::Invalid(format!(
                "source.git.secret: the key that {} shows is marked @revoked in known_hosts",
                self.address.host
            )),
            Broken::Ssh(russh::Error::NoCommonAlgo { kind: russh::AlgorithmKind::Key, .. }) => {
                GitError::Invalid(format!(
                    "source.git.secret: {} has no key of a kind that known_hosts has for it ({}); put in what `ssh-keyscan {}` prints",
                    self.address.host,
                    self.known.iter().map(|key| key.algorithm().to_string()).collect::<Vec<_>>().join(", "),
                    self.address.host
                ))
            }
            Broken::Ssh(error) => self.away(&error.to_string()),
        }
    }
}

fn private_key(text: &str) -> Result<PrivateKey, GitError> {
    let bad = |why: &str| GitError::Invalid(format!("source.git.secret: ssh-privatekey cannot be used: {why}"));
    let key = decode_secret_key(text, None).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => bad("it needs a passphrase, and nobody is here to type it"),
        _ if text.contains("RSA PRIVATE KEY") => bad(NO_RSA),
        error => bad(&error.to_string()),
    })?;
    if key.is_encrypted() {
        return Err(bad("it needs a passphrase, and nobody is here to type it"));
    }
    if is_rsa(&key.algorithm()) { Err(bad(NO_RSA)) } else { Ok(key) }
}

const NO_RSA: &str = "RSA keys are not supported; make one with `ssh-keygen -t ed25519`";

fn is_rsa(kind: &Algorithm) -> bool {
    matches!(kind, Algorithm::Rsa { .. })
}

// The keys that stand for the address, by name or hashed.
fn known_keys(address: &Address, known_hosts: &Path) -> Result<Vec<PublicKey>, GitError> {
    let bad = |why: String| GitError::Invalid(format!("source.git.secret: known_hosts {why}"));
    let host = &address.host;
    let keys = known_host_keys_path(host, address.port, known_hosts);
    let keys = keys.map_err(|error| bad(format!("cannot be read: {error}")))?;
    let name = if address.port == 22 { host.clone() } else { format!("[{host}]:{}", address.port) };
    if keys.is_empty() {
        return Err(bad(format!(
            "has no key for {name}, under this name: put in what `ssh-keyscan -p {} {host}` prints, once it is compared with what the server's owner publishes",
            address.port
        )));
    }
    let usable: Vec<PublicKey> = keys.into_iter().map(|(_, key)| key).filter(|key| !is_rsa(&key.algorithm())).collect();
    if usable.is_empty() {
        return Err(bad(format!(
            "has only RSA keys for {name}, which are not supported: `ssh-keyscan -t ed25519 {host}`"
        )));
    }
    Ok(usable)
}

fn revoked_keys(known_hosts: &Path) -> Vec<PublicKey> {
    let text = std::fs::read_to_string(known_hosts).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix("@revoked"));
    lines.filter_map(|line| russh::keys::parse_public_key_base64(line.split_whitespace().nth(2)?).ok()).collect()
}

/// Looks at who answers.
struct Check {
    known: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

/// Why there is no conversation.
#[derive(Debug)]
enum Broken {
    Stranger(String),
    Revoked,
    Ssh(russh::Error),
}

impl From<russh::Error> for Broken {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for Check {
    type Error = Broken;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Broken> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            return Err(Broken::Stranger("a certificate".to_owned()));
        };
        // The comment is not the key.
        let same = |other: &PublicKey| other.key_data() == key.key_data();
        if self.revoked.iter().any(same) {
            return Err(Broken::Revoked);
        }
        if self.known.iter().any(same) {
            return Ok(true);
        }
        Err(Broken::Stranger(format!("{} {}", key.algorithm(), key.fingerprint(russh::keys::HashAlg::Sha256))))
    }
}

/// The conversation.
struct Talk {
    channel: Channel<Msg>,
    // The connection ends with it.
    _session: Session<Check>,
    chunk: Bytes,
    words: Vec<u8>,
}

impl Talk {
    // Waits until there is something to read; false at the end.
    async fn more(&mut self) -> Result<bool, String> {
        while self.chunk.is_empty() {
            let message = timeout(SILENCE, self.channel.wait()).await;
            match message.map_err(|_| format!("silent for {} s", SILENCE.as_secs()))? {
                Some(ChannelMsg::Data { data }) => self.chunk = data,
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    let room = MAX_WORDS.saturating_sub(self.words.len()).min(data.len());
                    self.words.extend_from_slice(&data[..room]);
                }
                Some(ChannelMsg::Failure) => return Err("it does not run git-upload-pack".to_owned()),
                Some(ChannelMsg::Close) | None => return Ok(false),
                Some(_) => {}
            }
        }
        Ok(true)
    }
}

/// What comes next in a conversation.
pub struct Body {
    talk: Arc<Mutex<Talk>>,
    handle: Handle,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.handle.block_on(talk.more()).map_err(io::Error::other)? {
            return Ok(0);
        }
        let count = buffer.len().min(talk.chunk.len());
        buffer[..count].copy_from_slice(&talk.chunk.split_to(count));
        Ok(count)
    }
}

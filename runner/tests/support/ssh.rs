//! A server of ssh that runs what it is asked to, as sshd does, for one key; and keys of both sides.

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// A key that is the same each time.
pub fn key(seed: u8) -> PrivateKey {
    let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
    let key = PrivateKey::from(pair);
    assert_eq!(key.algorithm(), Algorithm::Ed25519);
    key
}

/// As `ssh-keygen` writes it.
pub fn private(key: &PrivateKey) -> String {
    key.to_openssh(LineEnding::LF).unwrap().to_string()
}

/// As `ssh-keygen` writes the other half, and as known_hosts have it.
pub fn public(key: &PrivateKey) -> String {
    key.public_key().to_openssh().unwrap()
}

/// A running server.
pub struct Server {
    pub port: u16,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    /// With a key of its own, for who has another; `old` lets no variable be set, so that git speaks version 0.
    pub fn start(own: PrivateKey, theirs: &PrivateKey, old: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = server::Config {
            keys: vec![own],
            auth_rejection_time: std::time::Duration::ZERO,
            ..server::Config::default()
        };
        let (config, theirs) = (Arc::new(config), theirs.public_key().clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let guest = Guest { key: theirs.clone(), old, channel: None, variables: Vec::new() };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = server::run_stream(config, stream, guest).await {
                        // A client that hangs up is none of the server's concern.
                        let _ = session.await;
                    }
                });
            }
        });
        Self { port, _runtime: runtime }
    }
}

struct Guest {
    key: PublicKey,
    old: bool,
    channel: Option<Channel<Msg>>,
    variables: Vec<(String, String)>,
}

impl server::Handler for Guest {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let right = user == "git" && key.public_key.key_data() == self.key.key_data();
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn env_request(
        &mut self,
        _: ChannelId,
        name: &str,
        value: &str,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if !self.old {
            self.variables.push((name.to_owned(), value.to_owned()));
        }
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        session.channel_success(id)?;
        let command = String::from_utf8(command.to_vec()).unwrap();
        let (channel, variables) = (self.channel.take().unwrap(), self.variables.clone());
        tokio::spawn(async move {
            let mut child = tokio::process::Command::new("sh")
                .args(["-c", &command])
                .envs(variables)
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", "safe.directory")
                .env("GIT_CONFIG_VALUE_0", "*")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let (mut input, mut output, mut words) =
                (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
            let (mut read, write) = channel.split();
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut read.make_reader(), &mut input).await;
            });
            let _ = tokio::io::copy(&mut output, &mut write.make_writer()).await;
            let mut err = write.make_writer_ext(Some(1));
            let _ = tokio::io::copy(&mut words, &mut err).await;
            let _ = err.flush().await;
            let code = child.wait().await.unwrap().code().unwrap_or(1);
            let _ = write.exit_status(code.unsigned_abs()).await;
            let _ = write.eof().await;
            let _ = write.close().await;
        });
        Ok(())
    }
}

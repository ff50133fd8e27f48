//! A repository behind an address, whatever carries the conversation.

use super::address::Address;
use super::{Credentials, GitError, Wanted, http, ssh};
use std::io::{self, Read};
use tokio::runtime::Handle;

/// A repository behind an address.
#[derive(Debug)]
pub enum Server {
    /// Each question is a request of its own.
    Http(http::Server),
    /// One conversation.
    Ssh(ssh::Server),
}

impl Server {
    /// At this address. Nothing is asked of it yet.
    pub fn new(wanted: &Wanted, handle: Handle) -> Result<Self, GitError> {
        let credentials = wanted.credentials.clone();
        if Address::is_ssh(&wanted.url) {
            return Ok(Self::Ssh(ssh::Server::new(Address::read(&wanted.url)?, credentials, handle)?));
        }
        let named = credentials.and_then(|credentials| match credentials {
            Credentials::Password { username, password } => Some((username, password)),
            Credentials::Key { .. } => None,
        });
        Ok(Self::Http(http::Server::new(&wanted.url, named, handle)?))
    }

    /// The address, without what is secret in it.
    pub fn name(&self) -> String {
        match self {
            Self::Http(server) => server.name(),
            Self::Ssh(server) => server.name(),
        }
    }

    /// What the server has.
    pub fn advertisement(&mut self) -> Result<Body, GitError> {
        Ok(match self {
            Self::Http(server) => Body::Http(server.advertisement()?),
            Self::Ssh(server) => Body::Ssh(server.advertisement()?),
        })
    }

    /// Asks for something.
    pub fn ask(&mut self, request: Vec<u8>) -> Result<Body, GitError> {
        Ok(match self {
            Self::Http(server) => Body::Http(server.ask(request)?),
            Self::Ssh(server) => Body::Ssh(server.ask(request)?),
        })
    }
}

/// What the server says, while it arrives.
#[derive(Debug)]
pub enum Body {
    /// To its end.
    Http(http::Body),
    /// What comes next in the conversation.
    Ssh(ssh::Body),
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Http(body) => body.read(buffer),
            Self::Ssh(body) => body.read(buffer),
        }
    }
}

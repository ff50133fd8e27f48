//! The smart HTTP transport (gitprotocol-http): two addresses below the repository's, and who may ask there.

use super::GitError;
use super::packets::said;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header};
use std::fmt;
use std::io::{self, Read};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a server may be silent: it may have to pack what it sends first.
const SILENCE: Duration = Duration::from_secs(60);
const ADVERTISEMENT: &str = "/info/refs";
const QUERY: &str = "service=git-upload-pack";

/// A repository behind an address.
#[derive(Debug)]
pub struct Server {
    client: Client,
    handle: Handle,
    // User and password.
    named: Option<(String, String)>,
    // As it was given, and where redirections have led.
    given: Url,
    base: Url,
}

impl Server {
    /// At this address.
    pub fn new(url: &str, named: Option<(String, String)>, handle: Handle) -> Result<Self, GitError> {
        let bad = |why: String| GitError::Invalid(format!("source.git.url: {}: {why}", cultivar_data::public(url)));
        let given = Url::parse(url.trim_end_matches('/')).map_err(|error| bad(error.to_string()))?;
        let client = cultivar_data::client(SILENCE).map_err(|error| bad(error.to_string()))?;
        Ok(Self { client, handle, named, base: given.clone(), given })
    }

    /// The address, without what is secret in it.
    pub fn name(&self) -> String {
        cultivar_data::public(self.given.as_str())
    }

    /// What the server has.
    pub fn advertisement(&mut self) -> Result<Body, GitError> {
        self.base = self.given.clone();
        let mut url = below(&self.base, ADVERTISEMENT);
        url.set_query(Some(QUERY));
        let answer = self.send(self.client.get(url))?;
        self.follow(answer.url())?;
        self.body(answer, "application/x-git-upload-pack-advertisement")
    }

    /// Asks for something.
    pub fn ask(&mut self, request: Vec<u8>) -> Result<Body, GitError> {
        let post = self
            .client
            .post(below(&self.base, "/git-upload-pack"))
            .header(header::CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(header::ACCEPT, "application/x-git-upload-pack-result")
            .body(request);
        let answer = self.send(post)?;
        self.body(answer, "application/x-git-upload-pack-result")
    }

    fn send(&self, request: RequestBuilder) -> Result<Response, GitError> {
        let mut request = request.header("Git-Protocol", "version=2");
        // Whoever a redirection leads to is not whom the user trusts. The client drops them too when it follows one.
        if let Some((user, password)) = self.named.as_ref().filter(|_| self.base.origin() == self.given.origin()) {
            request = request.basic_auth(user, Some(password));
        }
        let answer = self.handle.block_on(request.send()).map_err(|error| {
            let why = format!("{} does not answer: {}", self.name(), cultivar_data::reason(&error));
            if error.is_redirect() { GitError::Protocol(why) } else { GitError::Unavailable(why) }
        })?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refused(answer)) }
    }

    fn refused(&self, answer: Response) -> GitError {
        let status = answer.status();
        let url = self.name();
        // Forges say in plain text what is wrong; a page for browsers says nothing here.
        let plain = kind(&answer).starts_with("text/plain");
        let words = if plain { said(&self.handle.block_on(beginning(answer))) } else { String::new() };
        let why = if words.is_empty() { status.to_string() } else { format!("{status}: {words}") };
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => GitError::NoRepository { url, why },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let todo = match self.named {
                    Some(_) => {
                        "check username, password and what they allow in the Secret that source.git.secret names"
                    }
                    None => {
                        "check the address; for a private repository name a Secret with username and password in source.git.secret"
                    }
                };
                GitError::Denied { url, why, todo }
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                GitError::Unavailable(format!("{url} answers {why}"))
            }
            status if status.is_server_error() => GitError::Unavailable(format!("{url} answers {why}")),
            _ => GitError::Protocol(format!("{url} answers {why}")),
        }
    }

    // Where the rest of the conversation goes.
    fn follow(&mut self, to: &Url) -> Result<(), GitError> {
        let elsewhere =
            || GitError::Protocol(format!("{} leads to {}", self.name(), cultivar_data::public(to.as_str())));
        let path = to.path().strip_suffix(ADVERTISEMENT).ok_or_else(elsewhere)?;
        if self.given.scheme() == "https" && to.scheme() != "https" {
            return Err(GitError::Protocol(format!("{} leads to an address without encryption", self.name())));
        }
        let mut base = to.clone();
        base.set_path(path);
        base.set_query(None);
        base.set_fragment(None);
        self.base = base;
        Ok(())
    }

    fn body(&self, answer: Response, expected: &str) -> Result<Body, GitError> {
        let found = kind(&answer);
        if found != expected {
            let why = format!("the answer is {found:?}, as of a page and not of a repository");
            return Err(GitError::NoRepository { url: self.name(), why });
        }
        let stream = answer.bytes_stream().map(|chunk| chunk.map_err(|error| cultivar_data::reason(&error))).boxed();
        Ok(Body { stream, chunk: Bytes::new(), handle: self.handle.clone() })
    }
}

fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

fn kind(answer: &Response) -> String {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_owned()
}

async fn beginning(answer: Response) -> Vec<u8> {
    let mut stream = answer.bytes_stream();
    let mut text = Vec::new();
    while let Some(Ok(chunk)) = stream.next().await {
        text.extend_from_slice(&chunk);
        if text.len() > 1024 {
            break;
        }
    }
    text
}

/// The body of an answer, while it arrives.
pub struct Body {
    stream: BoxStream<'static, Result<Bytes, String>>,
    chunk: Bytes,
    handle: Handle,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.handle.block_on(self.stream.next()) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(why)) => return Err(io::Error::other(why)),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

//! The conversation with a server: what it has, what a name means there, and the pack of one commit.
//!
//! Protocol version 2 (gitprotocol-v2) where the server speaks it, else version 0 (gitprotocol-pack), which some still do.

use super::packets::{Band, Packet, Packets, put, said};
use super::transport::{Body, Server};
use super::{GitError, Wanted};
use gix_hash::ObjectId;
use std::io::Read;

/// Names of references that may be meant, the best first.
#[derive(Debug)]
pub struct Names {
    revision: String,
    commit: Option<String>,
    candidates: Vec<String>,
}

impl Names {
    /// Of what is wanted. A branch comes before a tag, as for `git clone --branch`.
    pub fn of(wanted: &Wanted) -> Self {
        let is_commit = |text: &&String| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let revision = wanted.revision.clone().unwrap_or_else(|| "HEAD".to_owned());
        let commit = wanted.commit.as_ref().or(wanted.revision.as_ref().filter(is_commit)).map(|id| id.to_lowercase());
        let candidates = match revision.as_str() {
            "HEAD" => vec!["HEAD".to_owned()],
            name if name.starts_with("refs/") => vec![name.to_owned()],
            name => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
        };
        Self { revision, commit, candidates }
    }

    /// The commit, where nothing needs to be looked up.
    pub fn commit(&self) -> Option<String> {
        self.commit.clone()
    }

    // Keeps a reference when it is one of those that may be meant.
    fn take(&self, line: &[u8], found: &mut Vec<(String, String)>) -> Result<(), GitError> {
        let text = String::from_utf8_lossy(line);
        let (id, rest) = text.split_once(' ').ok_or_else(|| odd(line))?;
        let name = rest.split(' ').next().unwrap_or_default();
        if self.candidates.iter().any(|candidate| candidate == name) {
            found.push((name.to_owned(), id.to_owned()));
        }
        Ok(())
    }

    fn best(&self, found: &[(String, String)]) -> Result<String, GitError> {
        let id = |candidate: &String| found.iter().find(|(name, _)| name == candidate).map(|(_, id)| id.clone());
        self.candidates.iter().find_map(id).ok_or_else(|| {
            GitError::NoRevision(match self.revision.as_str() {
                "HEAD" => "source.git.url: the repository has no commit that its HEAD leads to; name a revision".to_owned(),
                name => format!(
                    "source.git.revision: the repository has neither a branch nor a tag {name:?}; a commit is given in full, with 40 digits"
                ),
            })
        })
    }
}

/// What a server has said of itself.
#[derive(Debug)]
pub struct Advertised {
    second: bool,
    capabilities: Vec<String>,
    // Of version 0: the references come along.
    found: Vec<(String, String)>,
}

impl Advertised {
    fn can(&self, name: &str) -> bool {
        self.capabilities.iter().any(|capability| capability == name)
    }

    // Whether one of the words after `name=` is this one.
    fn offers(&self, name: &str, word: &str) -> bool {
        let words = self.capabilities.iter().find_map(|capability| capability.strip_prefix(name)?.strip_prefix('='));
        words.is_some_and(|words| words.split(' ').any(|offered| offered == word))
    }
}

fn odd(line: &[u8]) -> GitError {
    GitError::Protocol(format!("{:?} is not expected here", said(line)))
}

/// Asks what the server is.
pub fn advertised(server: &mut Server, names: &Names) -> Result<Advertised, GitError> {
    let mut packets = Packets::new(server.advertisement()?);
    let advertised = read_advertised(&mut packets, names)?;
    if advertised.capabilities.iter().any(|capability| capability == "object-format=sha256") {
        return Err(GitError::Protocol(format!("{} is a SHA-256 repository, and SHA-1 is understood", server.name())));
    }
    Ok(advertised)
}

fn read_advertised(packets: &mut Packets<impl Read>, names: &Names) -> Result<Advertised, GitError> {
    let mut advertised = Advertised { second: false, capabilities: Vec::new(), found: Vec::new() };
    let mut first = true;
    loop {
        let line = match packets.line()? {
            Packet::Data(line) => line,
            // After the service's name; and at the end, which nothing may be said before in an empty repository.
            Packet::Flush if first => {
                first = false;
                continue;
            }
            _ => return Ok(advertised),
        };
        if line.starts_with(b"# service=") {
            continue;
        }
        first = false;
        if line == b"version 2" {
            advertised.second = true;
        } else if advertised.second {
            advertised.capabilities.push(String::from_utf8_lossy(line).into_owned());
        } else if line != b"version 1" {
            let mut parts = line.splitn(2, |byte| *byte == 0);
            names.take(parts.next().unwrap_or_default(), &mut advertised.found)?;
            if let Some(capabilities) = parts.next() {
                let words = String::from_utf8_lossy(capabilities);
                advertised.capabilities = words.split(' ').map(str::to_owned).collect();
            }
        }
    }
}

/// What the revision is there: a commit, or a tag of one.
pub fn resolve(server: &mut Server, advertised: &Advertised, names: &Names) -> Result<String, GitError> {
    if !advertised.second {
        return names.best(&advertised.found);
    }
    let mut request = Vec::new();
    put("command=ls-refs\n", &mut request);
    request.extend_from_slice(b"0001");
    for candidate in &names.candidates {
        put(&format!("ref-prefix {candidate}\n"), &mut request);
    }
    request.extend_from_slice(b"0000");
    let mut packets = Packets::new(server.ask(request)?);
    let mut found = Vec::new();
    loop {
        match packets.line()? {
            Packet::Data(line) => names.take(line, &mut found)?,
            Packet::Flush => return names.best(&found),
            _ => return Err(GitError::Unavailable(format!("{} ends its list of references early", server.name()))),
        }
    }
}

/// Asks for one commit, or the tag of one, and what belongs to it; without history where the server can do so.
pub fn fetch(server: &mut Server, advertised: &Advertised, tip: &ObjectId) -> Result<Band<Body>, GitError> {
    let request = if advertised.second { second(advertised, tip) } else { first(advertised, tip)? };
    let mut packets = Packets::new(server.ask(request)?);
    loop {
        let begins = match packets.line().map_err(|error| unknown(error, tip))? {
            Packet::Data(line) if advertised.second => line == b"packfile",
            Packet::Data(line) => line == b"NAK" || line.starts_with(b"ACK "),
            Packet::Flush if !advertised.second => false,
            Packet::Delimiter => false,
            Packet::Flush | Packet::End => {
                return Err(GitError::Unavailable(format!("{} ends its answer before the pack", server.name())));
            }
        };
        if begins {
            return Ok(Band::new(packets));
        }
    }
}

fn second(advertised: &Advertised, tip: &ObjectId) -> Vec<u8> {
    let mut request = Vec::new();
    put("command=fetch\n", &mut request);
    if advertised.can("object-format=sha1") {
        put("object-format=sha1\n", &mut request);
    }
    request.extend_from_slice(b"0001");
    put("ofs-delta\n", &mut request);
    put("no-progress\n", &mut request);
    if advertised.offers("fetch", "shallow") {
        put("deepen 1\n", &mut request);
    }
    put(&format!("want {tip}\n"), &mut request);
    put("done\n", &mut request);
    request.extend_from_slice(b"0000");
    request
}

fn first(advertised: &Advertised, tip: &ObjectId) -> Result<Vec<u8>, GitError> {
    if !advertised.can("side-band-64k") {
        return Err(GitError::Protocol("it is too old: it cannot send a pack in bands (side-band-64k)".to_owned()));
    }
    let wished = ["multi_ack_detailed", "side-band-64k", "ofs-delta", "no-progress"];
    let capabilities: Vec<&str> = wished.into_iter().filter(|name| advertised.can(name)).collect();
    let mut request = Vec::new();
    put(&format!("want {tip} {}\n", capabilities.join(" ")), &mut request);
    if advertised.can("shallow") {
        put("deepen 1\n", &mut request);
    }
    request.extend_from_slice(b"0000");
    put("done\n", &mut request);
    Ok(request)
}

// What a server says of an object that it does not have, or does not give.
fn unknown(error: GitError, tip: &ObjectId) -> GitError {
    match error {
        GitError::Refused(words) => GitError::NoRevision(format!(
            "source.git: the repository does not give commit {tip}: {words}; it may be gone, or only what a branch or tag names may be fetched there"
        )),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn names(revision: Option<&str>) -> Names {
        let revision = revision.map(str::to_owned);
        Names::of(&Wanted { url: String::new(), revision, commit: None, credentials: None })
    }

    fn advert(lines: &[&str], revision: Option<&str>) -> Result<Advertised, GitError> {
        let mut bytes = Vec::new();
        for line in lines {
            if line.is_empty() { bytes.extend_from_slice(b"0000") } else { put(line, &mut bytes) }
        }
        read_advertised(&mut Packets::new(&bytes[..]), &names(revision))
    }

    #[test]
    fn both_versions_are_understood() {
        let second =
            advert(&["# service=git-upload-pack\n", "", "version 2\n", "fetch=shallow filter\n", ""], None).unwrap();
        assert!(second.second && second.offers("fetch", "shallow") && !second.offers("fetch", "x"));
        let head = format!("{ID} HEAD\0side-band-64k shallow\n");
        let dev = format!("{ID} refs/heads/dev\n");
        for lines in [
            &["# service=git-upload-pack\n", "", head.as_str(), dev.as_str(), ""][..],
            &["version 1\n", head.as_str(), dev.as_str(), ""],
        ] {
            let first = advert(lines, Some("dev")).unwrap();
            assert!(!first.second && first.can("shallow"), "{first:?}");
            assert_eq!(first.found, [("refs/heads/dev".to_owned(), ID.to_owned())]);
        }
        let empty = advert(&["# service=git-upload-pack\n", "", ""], None).unwrap();
        assert!(names(None).best(&empty.found).unwrap_err().to_string().contains("HEAD"));
    }

    #[test]
    fn a_branch_comes_before_a_tag_and_a_commit_needs_no_name() {
        let found = [("refs/tags/v1".to_owned(), "t".to_owned()), ("refs/heads/v1".to_owned(), "b".to_owned())];
        assert_eq!(names(Some("v1")).best(&found).unwrap(), "b");
        assert_eq!(names(Some("refs/tags/v1")).best(&found).unwrap(), "t");
        assert!(names(Some("v2")).best(&found).unwrap_err().to_string().contains("\"v2\""));
        assert_eq!(names(Some(ID)).commit().as_deref(), Some(ID));
        assert_eq!(names(Some("0123456")).commit(), None);
    }
}

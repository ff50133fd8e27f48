//! Packets: the frames of git's protocol (gitprotocol-common), and the pack that comes in one band of them
//! (gitprotocol-pack).

use super::GitError;
use std::io::{self, Read};

/// The largest frame, its four digits included.
const MAX_FRAME: usize = 65520;

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Its content; that of a line without the line's end.
    Data(&'a [u8]),
    /// The end of a message.
    Flush,
    /// The end of a section.
    Delimiter,
    /// The end of what the server says.
    End,
}

/// Frames out of a stream.
#[derive(Debug)]
pub struct Packets<R> {
    stream: R,
    frame: Vec<u8>,
}

impl<R: Read> Packets<R> {
    /// Of this stream.
    pub fn new(stream: R) -> Self {
        Self { stream, frame: Vec::new() }
    }

    /// The next one.
    pub fn next(&mut self) -> Result<Packet<'_>, GitError> {
        let mut digits = [0; 4];
        if !self.fill(&mut digits)? {
            return Ok(Packet::End);
        }
        let size = std::str::from_utf8(&digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let size = size.and_then(|text| usize::from_str_radix(text, 16).ok());
        match size {
            Some(0) => Ok(Packet::Flush),
            Some(1) => Ok(Packet::Delimiter),
            Some(2) => Ok(Packet::End),
            Some(size) if (4..=MAX_FRAME).contains(&size) => {
                let mut frame = std::mem::take(&mut self.frame);
                frame.resize(size - 4, 0);
                let whole = self.fill(&mut frame)?;
                self.frame = frame;
                if !whole && size > 4 {
                    return Err(broken("the answer ends within a frame"));
                }
                Ok(Packet::Data(&self.frame))
            }
            _ => Err(GitError::Protocol(format!("{:?} is no length of a frame", String::from_utf8_lossy(&digits)))),
        }
    }

    /// The next one, where a line of text is due: what the server refuses is an error.
    pub fn line(&mut self) -> Result<Packet<'_>, GitError> {
        match self.next()? {
            Packet::Data(data) => {
                let line = data.strip_suffix(b"\n").unwrap_or(data);
                match line.strip_prefix(b"ERR ") {
                    Some(words) => Err(GitError::Refused(said(words))),
                    None => Ok(Packet::Data(line)),
                }
            }
            other => Ok(other),
        }
    }

    // False at the end of the stream.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, GitError> {
        let mut at = 0;
        while at < buffer.len() {
            match self.stream.read(&mut buffer[at..]) {
                Ok(0) if at == 0 => return Ok(false),
                Ok(0) => return Err(broken("the answer ends within a frame")),
                Ok(count) => at += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error.to_string())),
            }
        }
        Ok(true)
    }
}

fn broken(why: &str) -> GitError {
    GitError::Unavailable(format!("the connection to the server broke: {why}"))
}

/// What a server says, for a message: one line, short, harmless on a terminal.
pub fn said(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cultivar_protocol::cut(&text, 300)
}

/// Writes a frame.
pub fn put(line: &str, request: &mut Vec<u8>) {
    request.extend_from_slice(format!("{:04x}{line}", line.len() + 4).as_bytes());
}

/// The pack in the first band; the second is for people and is skipped, the third says why there is no more.
#[derive(Debug)]
pub struct Band<R> {
    packets: Packets<R>,
    data: Vec<u8>,
    at: usize,
    left: u64,
    ended: bool,
    /// Why it broke off.
    pub failed: Option<GitError>,
}

impl<R: Read> Band<R> {
    /// Of at most so many bytes.
    pub fn new(packets: Packets<R>) -> Self {
        Self { packets, data: Vec::new(), at: 0, left: u64::MAX, ended: false, failed: None }
    }

    /// The same, with a limit.
    pub fn limited(self, bytes: u64) -> Self {
        Self { left: bytes, ..self }
    }

    fn more(&mut self) -> Result<(), GitError> {
        while self.at == self.data.len() && !self.ended {
            match self.packets.next()? {
                Packet::Data([1, data @ ..]) => {
                    self.left = self
                        .left
                        .checked_sub(data.len() as u64)
                        .ok_or_else(|| GitError::TooLarge("the commit takes more bytes than are allowed".to_owned()))?;
                    self.data.clear();
                    self.data.extend_from_slice(data);
                    self.at = 0;
                }
                Packet::Data([2, ..]) => {}
                Packet::Data([3, words @ ..]) => return Err(GitError::Refused(said(words))),
                Packet::Data(_) => return Err(GitError::Protocol("a frame of the pack has no band".to_owned())),
                Packet::Flush => self.ended = true,
                Packet::Delimiter | Packet::End => return Err(broken("the answer ends within the pack")),
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Band<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(error) = self.more() {
            let text = error.to_string();
            self.failed = Some(error);
            return Err(io::Error::other(text));
        }
        let count = buffer.len().min(self.data.len() - self.at);
        buffer[..count].copy_from_slice(&self.data[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written() {
        let mut bytes = Vec::new();
        put("want x\n", &mut bytes);
        bytes.extend_from_slice(b"000000010004000dERR gone\n");
        let mut packets = Packets::new(&bytes[..]);
        assert_eq!(packets.line().unwrap(), Packet::Data(b"want x"));
        assert_eq!(packets.next().unwrap(), Packet::Flush);
        assert_eq!(packets.next().unwrap(), Packet::Delimiter);
        assert_eq!(packets.next().unwrap(), Packet::Data(b""));
        assert!(matches!(packets.line(), Err(GitError::Refused(words)) if words == "gone"));
        assert_eq!(packets.next().unwrap(), Packet::End);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for bytes in [&b"<htm"[..], b"0003", b"fff1", b"+00a", b"0010abc", b"00"] {
            assert!(Packets::new(bytes).next().is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn whatever_comes_it_ends_and_keeps_to_its_limit(mut bytes: Vec<u8>, frames: bool) {
            if frames {
                let size = format!("{:04x}", bytes.len() + 5);
                bytes = [size.as_bytes(), &[1], &bytes, size.as_bytes()].concat();
            }
            let mut packets = Packets::new(&bytes[..]);
            while packets.line().is_ok_and(|packet| packet != Packet::End) {}
            let mut band = Band::new(Packets::new(&bytes[..])).limited(20);
            let mut out = Vec::new();
            let _ = io::copy(&mut band, &mut out);
            proptest::prop_assert!(out.len() <= 20);
        }
    }

    #[test]
    fn the_pack_is_one_band() {
        let read = |bytes: &[u8], most: u64| {
            let mut band = Band::new(Packets::new(bytes)).limited(most);
            let mut out = Vec::new();
            let done = io::copy(&mut band, &mut out);
            (out, done.is_ok(), band.failed)
        };
        assert!(matches!(read(b"0007\x01ab000a\x02hello0006\x01c0000rest", 9), (out, true, None) if out == b"abc"));
        assert!(matches!(read(b"0007\x01ab0009\x03out\n!", 9).2, Some(GitError::Refused(words)) if words == "out"));
        assert!(matches!(read(b"0007\x01ab", 9).2, Some(GitError::Unavailable(_))));
        assert!(matches!(read(b"0007\x01ab0007\x01cd0000", 3).2, Some(GitError::TooLarge(_))));
    }
}

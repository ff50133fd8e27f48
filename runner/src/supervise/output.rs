//! The program's output: passed on at once and unchanged, and seen by a [`Tee`].

use crate::logs::LogInlet;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long the pipes may stay open when every process is dead.
const DRAIN: Duration = Duration::from_secs(2);

/// Sees everything the program writes, in the order in which it arrives.
#[derive(Debug, Default)]
pub struct Tee {
    tail: Mutex<Vec<u8>>,
    log: Option<LogInlet>,
}

impl Tee {
    /// One that also feeds a log.
    #[must_use]
    pub fn new(log: Option<LogInlet>) -> Self {
        Self { tail: Mutex::default(), log }
    }

    /// Takes a piece of output.
    fn push(&self, piece: &[u8]) {
        if let Some(log) = &self.log {
            log.push(piece);
        }
        let most = cultivar_protocol::MAX_TAIL;
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let piece_tail = &piece[piece.len().saturating_sub(most)..];
        let keep = most - piece_tail.len();
        let drop = tail.len().saturating_sub(keep);
        tail.drain(..drop);
        tail.extend_from_slice(piece_tail);
    }

    /// The last 2 KiB.
    #[must_use]
    pub fn tail(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&tail);
        cultivar_protocol::last_bytes(text.trim_end(), cultivar_protocol::MAX_TAIL).to_owned()
    }
}

/// The two threads that carry output.
#[derive(Debug)]
pub struct Pumps {
    done: Receiver<()>,
}

impl Pumps {
    /// Starts to carry the program's output to the runner's own.
    ///
    /// # Errors
    /// When the runner's own output is closed, or no thread can be started.
    pub fn start(out: OwnedFd, err: OwnedFd, tee: &Arc<Tee>) -> io::Result<Self> {
        let (sender, done) = channel();
        let own_out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let own_err = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        for (from, to) in [(File::from(out), own_out), (File::from(err), own_err)] {
            let (sender, tee) = (sender.clone(), Arc::clone(tee));
            thread::Builder::new().name("output".to_owned()).stack_size(256 * 1024).spawn(move || {
                pump(from, to, &tee);
                let _ = sender.send(());
            })?;
        }
        Ok(Self { done })
    }

    /// Waits until everything that was written has been passed on. False when a pipe stays open.
    #[must_use]
    pub fn finish(self) -> bool {
        (0..2).all(|_| self.done.recv_timeout(DRAIN).is_ok())
    }
}

// Reads until the last writer is gone. Once nobody reads our own output any more it still reads, so that the program
// goes on and the log is kept.
fn pump(mut from: File, mut to: File, tee: &Tee) {
    let mut buffer = vec![0; 64 * 1024];
    let mut open = true;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(size) => {
                open = open && to.write_all(&buffer[..size]).is_ok();
                tee.push(&buffer[..size]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end() {
        let tee = Tee::default();
        for n in 0..1000 {
            tee.push(format!("line {n} ü\n").as_bytes());
        }
        let tail = tee.tail();
        assert!(tail.len() <= 2048 && tail.len() > 2000 && tail.ends_with("line 999 ü"), "{tail}");
        tee.push(&[b'x'; 10_000]);
        assert_eq!(tee.tail(), "x".repeat(2048));
    }
}

//! A network that behaves badly, between a client and a store: it cuts, refuses and dawdles, as it is told.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// What it does to which connections, in this order.
#[derive(Clone, Copy, Default)]
pub struct Manners {
    /// The first connections are cut, so many of them, …
    pub cut: usize,
    /// … once so many bytes went through, whichever way.
    pub after: u64,
    /// The next so many are closed before a byte went through. The ones after them pass.
    pub refuse: usize,
    /// How long 64 KiB take at least.
    pub delay: Duration,
}

/// A running one.
pub struct Proxy {
    /// Where clients find it.
    pub address: String,
    seen: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts one before a store. It ends with the test's process.
    pub fn start(store: &str, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(AtomicUsize::new(0));
        let (store, counter) = (store.to_owned(), Arc::clone(&seen));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let most = match number {
                    _ if number < manners.cut => manners.after,
                    _ if number - manners.cut < manners.refuse => continue,
                    _ => u64::MAX,
                };
                let Ok(server) = TcpStream::connect(&store) else { continue };
                let passed = Arc::new(AtomicU64::new(0));
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let passed = Arc::clone(&passed);
                    thread::spawn(move || pass(from, to, &passed, most, manners.delay));
                }
            }
        });
        Self { address, seen }
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

// One direction; `passed` is of both.
fn pass(mut from: TcpStream, mut to: TcpStream, passed: &AtomicU64, most: u64, delay: Duration) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        thread::sleep(delay);
        let before = passed.fetch_add(read as u64, Ordering::SeqCst);
        let left = usize::try_from(most.saturating_sub(before)).unwrap_or(usize::MAX).min(read);
        if to.write_all(&buffer[..left]).is_err() || left < read {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// An address at which nothing listens.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

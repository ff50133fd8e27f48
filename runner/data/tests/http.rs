//! Fetching over HTTP from a server that fails, stalls, cuts connections, and lies.

use cultivar_data::{DataError, Fetched, Mover, Remote, digest_of};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How the server behaves.
#[derive(Clone, Copy, Default)]
struct Manners {
    /// Ranges are answered.
    ranges: bool,
    /// The first requests get this status instead.
    fail: (usize, u16),
    /// The first requests with a body are cut after so many bytes.
    cut: (usize, usize),
    /// The ETag changes from this request on.
    changes_at: usize,
}

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|n| u8::try_from((n * 7 + n / 251) % 256).unwrap()).collect()
}

fn serve(body: Vec<u8>, manners: Manners) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://user:secret@{}/x?sig=secret", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let (body, counter) = (Arc::new(body), Arc::clone(&requests));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (body, counter) = (Arc::clone(&body), Arc::clone(&counter));
            thread::spawn(move || answer(stream, &body, manners, &counter));
        }
    });
    (address, requests)
}

fn answer(mut stream: TcpStream, body: &[u8], manners: Manners, requests: &AtomicUsize) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut line, mut range) = (String::new(), None);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            let (from, to) = value.trim().split_once('-')?;
            range = Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()? + 1));
        }
    }
    let number = requests.fetch_add(1, Ordering::SeqCst);
    if number < manners.fail.0 {
        return write!(stream, "HTTP/1.1 {} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", manners.fail.1).ok();
    }
    let etag = if manners.changes_at > 0 && number >= manners.changes_at { "W/\"2\"" } else { "W/\"1\"" };
    let (status, part, more) = match range.filter(|_| manners.ranges) {
        Some((from, _)) if from >= body.len() => {
            let head = format!("HTTP/1.1 416 Range\r\ncontent-range: bytes */{}\r\n", body.len());
            return write!(stream, "{head}content-length: 0\r\nconnection: close\r\n\r\n").ok();
        }
        Some((from, to)) => {
            let to = to.min(body.len());
            ("206 Partial", &body[from..to], format!("content-range: bytes {from}-{}/{}\r\n", to - 1, body.len()))
        }
        None => ("200 OK", body, String::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{more}etag: {etag}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        part.len()
    )
    .ok()?;
    let cut = if number < manners.cut.0 { manners.cut.1.min(part.len()) } else { part.len() };
    stream.write_all(&part[..cut]).ok()
}

async fn fetch(address: &str, expect: Option<&str>) -> (Result<Fetched, DataError>, Vec<u8>) {
    let root = tempfile::tempdir().unwrap();
    let to = root.path().join("file");
    let done = Mover::default().fetch(&Remote::http(address).unwrap(), &to, expect).await;
    (done, std::fs::read(to).unwrap_or_default())
}

#[tokio::test]
async fn sizes_with_and_without_ranges() {
    for size in [0, 1, 1000, 20_000_000] {
        for ranges in [false, true] {
            let body = body(size);
            let (address, _) = serve(body.clone(), Manners { ranges, ..Manners::default() });
            let (done, bytes) = fetch(&address, Some(&digest_of(&body))).await;
            assert_eq!(done.unwrap().size, size as u64, "{size} {ranges}");
            assert!(bytes == body, "{size} {ranges}");
        }
    }
}

#[tokio::test]
async fn a_cut_connection_is_resumed_where_it_broke() {
    let body = body(13_000_000);
    let manners = Manners { ranges: true, cut: (8, 700_000), fail: (2, 503), ..Manners::default() };
    let (address, requests) = serve(body.clone(), manners);
    let (done, bytes) = fetch(&address, None).await;
    assert_eq!(done.unwrap().digest, digest_of(&body));
    assert!(bytes == body);
    // Two refused, a look, three parts, and one more for each that was cut.
    assert!(requests.load(Ordering::SeqCst) <= 2 + 1 + 3 + 6, "{requests:?}");
}

#[tokio::test]
async fn without_ranges_it_begins_again() {
    let body = body(5_000_000);
    let (address, _) = serve(body.clone(), Manners { cut: (3, 4_000_000), ..Manners::default() });
    let (done, bytes) = fetch(&address, None).await;
    assert_eq!(done.unwrap().digest, digest_of(&body));
    assert!(bytes == body);
}

#[tokio::test]
async fn what_changes_or_is_wrong_is_told() {
    let (address, _) = serve(body(20_000_000), Manners { ranges: true, changes_at: 2, ..Manners::default() });
    assert!(matches!(fetch(&address, None).await.0, Err(DataError::Changed(_))));
    let (address, _) = serve(body(10), Manners::default());
    let error = fetch(&address, Some(&digest_of(b"other"))).await.0.unwrap_err();
    assert!(matches!(error, DataError::Corrupt { .. }) && !error.to_string().contains("secret"), "{error}");
    for (status, expected) in [(404, "nothing at"), (403, "refused"), (400, "no use")] {
        let (address, _) = serve(Vec::new(), Manners { fail: (9, status), ..Manners::default() });
        let error = fetch(&address, None).await.0.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{error}");
    }
}

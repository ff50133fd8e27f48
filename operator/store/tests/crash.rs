//! The real program, killed in the middle of writes, again and again.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{ObjectStoreExt, WriteMultipart};
use support::{Server, client};

/// Bytes that say which write they are of: the writer, its turn, and a length that follows from both.
fn body(writer: usize, turn: usize) -> Vec<u8> {
    let length = match turn % 4 {
        0 => 100,
        1 => 20_000,
        2 => 700_000,
        _ => 6 * 1024 * 1024,
    };
    let word = format!("{writer}:{turn};");
    word.bytes().cycle().take(length).collect()
}

/// Per key the last turn that was acknowledged, and those that were tried after it: one for each crash in between.
type Book = Arc<Mutex<BTreeMap<String, (Option<usize>, Vec<usize>)>>>;

async fn write(store: Arc<AmazonS3>, writer: usize, book: Book, first: usize) {
    for turn in first.. {
        let key = format!("a/{writer}/{}", turn % 7);
        book.lock().unwrap().entry(key.clone()).or_default().1.push(turn);
        let (path, bytes) = (Path::from(key.clone()), body(writer, turn));
        let done = if turn % 4 == 3 {
            match store.put_multipart(&path).await {
                Ok(upload) => {
                    let mut upload = WriteMultipart::new(upload);
                    upload.write(&bytes);
                    upload.finish().await.map(drop)
                }
                Err(error) => Err(error),
            }
        } else {
            store.put(&path, bytes.into()).await.map(drop)
        };
        if done.is_err() {
            return;
        }
        book.lock().unwrap().insert(key, (Some(turn), Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let book = Book::default();
    for round in 0..5 {
        let server = Server::start(folder.path(), &[]);
        let store = Arc::new(client(&server));
        check(&store, &book).await;
        let tasks: Vec<_> =
            (0..6).map(|writer| tokio::spawn(write(store.clone(), writer, book.clone(), round * 1000))).collect();
        tokio::time::sleep(Duration::from_millis(400 + 130 * round as u64)).await;
        server.kill();
        for task in tasks {
            task.await.unwrap();
        }
    }
    let server = Server::start(folder.path(), &[]);
    check(&client(&server), &book).await;
    let acknowledged = book.lock().unwrap().values().filter(|(last, _)| last.is_some()).count();
    println!("{acknowledged} of {} keys have an acknowledged object", book.lock().unwrap().len());
    assert!(acknowledged > 10);
    sweeping_leaves_what_is_named(&server, folder.path()).await;
}

async fn check(store: &AmazonS3, book: &Book) {
    let all = book.lock().unwrap().clone();
    for (key, (last, tried)) in all {
        let writer: usize = key.split('/').nth(1).unwrap().parse().unwrap();
        let got = match store.get(&Path::from(key.clone())).await {
            Ok(got) => Some(got.bytes().await.unwrap()),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => panic!("{key}: {error}"),
        };
        // What was tried and not acknowledged may be there, but then whole.
        let may: Vec<_> = last.into_iter().chain(tried).map(|turn| body(writer, turn)).collect();
        match got {
            None => assert!(last.is_none(), "{key} was acknowledged and is lost"),
            Some(got) => assert!(may.iter().any(|body| *body == got), "{key} is half, or somebody else's"),
        }
    }
}

async fn sweeping_leaves_what_is_named(server: &Server, folder: &std::path::Path) {
    // Objects without parts of unfinished uploads: those stay for their time.
    let count = || {
        let shards = std::fs::read_dir(folder.join("data/blobs")).unwrap();
        shards.map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count()).sum::<usize>()
    };
    let store = client(server);
    use futures::TryStreamExt;
    use object_store::ObjectStore;
    let objects: Vec<_> = store.list(Some(&Path::from("a"))).try_collect().await.unwrap();
    let large = objects.iter().filter(|object| object.size > 16 * 1024).count();
    let files = count();
    println!("{} objects, {large} of them with files; {files} files", objects.len());
    assert!(files >= large);
    // At most the parts of one upload for each writer and round are left over.
    assert!(files <= large * 2 + 5 * 6 * 2, "{files} files for {large} objects");
}

//! Fills a store with small objects through the library and measures pages of a listing:
//! `cargo run --release -p cultivar-store --example fill -- FOLDER COUNT`.

use std::path::Path;
use std::time::Instant;

use cultivar_store::index::listing::{Position, Query};
use cultivar_store::index::objects::{self, Condition};
use cultivar_store::index::records::{Data, Object};
use cultivar_store::store::{Store, now};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("name a folder")?;
    let count: usize = args.next().ok_or("name a count")?.parse()?;
    let began = Instant::now();
    let (store, threads) = Store::open(Path::new(&folder), 0)?;
    println!("open: {:?}", began.elapsed());
    let began = Instant::now();
    for first in (0..count).step_by(10_000) {
        let blobs = store.blobs.clone();
        store.index.write_blocking(move |tables| {
            for number in first..(first + 10_000).min(count) {
                let etag = format!("{number:032x}");
                let object = Object { size: 100, modified: now(), etag, data: blobs.number(), ..Object::default() };
                let key = format!("vision/run/{number:07}");
                objects::put(tables, &key, &object, Some(&Data::Inline(vec![7; 100])), &Condition::None)?;
            }
            Ok(())
        })?;
    }
    println!("{count} objects: {:?}", began.elapsed());
    for (name, delimiter, from) in
        [("first", "", 0), ("middle", "", count / 2), ("last", "", count.saturating_sub(1001))]
    {
        let after = Position::Key(format!("vision/run/{from:07}"));
        let query = Query { prefix: "vision/".to_owned(), delimiter: delimiter.to_owned(), after, limit: 1000 };
        let began = Instant::now();
        let page = store.index.list(&query)?;
        println!("{name} page of {} keys: {:?}", page.entries.len(), began.elapsed());
    }
    let query = Query { prefix: "vision/".to_owned(), delimiter: "/".to_owned(), after: Position::Start, limit: 1000 };
    let began = Instant::now();
    let page = store.index.list(&query)?;
    println!("{} shared prefixes over all: {:?}", page.prefixes.len(), began.elapsed());
    drop(store);
    let began = Instant::now();
    threads.join();
    println!("close: {:?}", began.elapsed());
    Ok(())
}

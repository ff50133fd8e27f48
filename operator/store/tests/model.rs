//! The index against a model: whatever is done in whatever order, both give the same answers, and no file is left over.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;

use cultivar_store::index::listing::{Page, Position, Query};
use cultivar_store::index::objects::{self, Condition, Copy};
use cultivar_store::index::records::{Data, Object};
use cultivar_store::index::{Index, IndexError, Tables};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Put(String, u64, bool),
    Delete(String),
    Copy(String, String),
    List(String, String, String, usize),
    Reopen,
}

fn key() -> impl Strategy<Value = String> {
    // Few letters, so that keys meet; slashes and dots, since they mean nothing; a letter of two bytes.
    prop::collection::vec(prop::sample::select(vec!["a", "b", "/", "..", "ü", "\u{10ffff}"]), 1..6)
        .prop_map(|parts| parts.concat())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), 0..40_000_u64, any::<bool>()).prop_map(|(key, size, absent)| Step::Put(key, size, absent)),
        3 => key().prop_map(Step::Delete),
        2 => (key(), key()).prop_map(|(from, to)| Step::Copy(from, to)),
        4 => ("[ab/]{0,2}", prop::sample::select(vec!["", "/", "a", ".."]), "[ab/]{0,3}", 1..5_usize)
            .prop_map(|(prefix, delimiter, after, limit)| Step::List(prefix, delimiter.to_owned(), after, limit)),
        1 => Just(Step::Reopen),
    ]
}

/// All pages of a listing, one after the other: the keys with their sizes, and the shared prefixes.
fn all_pages(index: &Index, query: &Query) -> (Vec<(String, u64)>, Vec<String>) {
    let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
    let mut query = query.clone();
    loop {
        let page: Page<Object> = index.list(&query).unwrap();
        assert!(page.entries.len() + page.prefixes.len() <= query.limit);
        keys.extend(page.entries.into_iter().map(|(key, object)| (key, object.size)));
        prefixes.extend(page.prefixes);
        match page.next {
            Some(next) => query.after = next,
            None => return (keys, prefixes),
        }
    }
}

/// What a listing has to say.
fn expected(model: &BTreeMap<String, u64>, query: &Query, after: &str) -> (Vec<(String, u64)>, Vec<String>) {
    let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
    for (key, size) in model.iter().filter(|(key, _)| key.starts_with(&query.prefix) && key.as_str() > after) {
        let rest = &key[query.prefix.len()..];
        let cut = (!query.delimiter.is_empty()).then(|| rest.find(&query.delimiter)).flatten();
        match cut {
            None => keys.push((key.clone(), *size)),
            Some(at) => {
                let shared = key[..query.prefix.len() + at + query.delimiter.len()].to_owned();
                if prefixes.last() != Some(&shared) && shared != after {
                    prefixes.push(shared);
                }
            }
        }
    }
    (keys, prefixes)
}

struct World {
    index: Index,
    writer: std::thread::JoinHandle<()>,
    gone: mpsc::Receiver<Vec<u64>>,
}

fn open(path: &Path) -> World {
    let (sender, gone) = mpsc::channel();
    let (index, writer) = Index::open(path, sender).unwrap();
    World { index, writer, gone }
}

impl World {
    fn close(self) -> Vec<u64> {
        drop(self.index);
        self.writer.join().unwrap();
        self.gone.iter().flatten().collect()
    }
}

fn run(steps: &[Step]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index.redb");
    let mut world = open(&path);
    let mut model: BTreeMap<String, u64> = BTreeMap::new();
    let (mut files, mut removed, mut number) = (Vec::new(), Vec::new(), 1_000_u64);
    for step in steps {
        match step.clone() {
            Step::Put(key, size, absent) => {
                number += 1;
                let file = size > 16 * 1024;
                let data = if file { Data::File(size) } else { Data::Inline(vec![0; size as usize]) };
                let object = Object { size, data: if size == 0 { 0 } else { number }, ..Object::default() };
                let condition = if absent { Condition::Absent } else { Condition::None };
                let name = key.clone();
                let put = move |tables: &mut Tables<'_>| {
                    objects::put(tables, &name, &object, (size > 0).then_some(&data), &condition)
                };
                let done = world.index.write_blocking(put);
                if absent && model.contains_key(&key) {
                    assert!(matches!(done, Err(IndexError::Precondition)), "{done:?}");
                    continue;
                }
                done.unwrap();
                if file {
                    files.push(number);
                }
                model.insert(key, size);
            }
            Step::Delete(key) => {
                model.remove(&key);
                world.index.write_blocking(move |tables| objects::delete(tables, &key, &Condition::None)).unwrap();
            }
            Step::Copy(from, to) => {
                let (source, target) = (from.clone(), to.clone());
                let copy = move |tables: &mut Tables<'_>| objects::copy(tables, &source, &target, Copy::default());
                let done = world.index.write_blocking(copy);
                match model.get(&from).copied() {
                    None => assert!(matches!(done, Err(IndexError::NoObject)), "{done:?}"),
                    Some(size) => {
                        assert_eq!(done.unwrap().size, size);
                        model.insert(to, size);
                    }
                }
            }
            Step::List(prefix, delimiter, after, limit) => {
                let position = if after.is_empty() { Position::Start } else { Position::Key(after.clone()) };
                let query = Query { prefix, delimiter, after: position, limit };
                assert_eq!(all_pages(&world.index, &query), expected(&model, &query, &after), "{query:?}");
            }
            Step::Reopen => {
                removed.extend(world.close());
                world = open(&path);
            }
        }
    }
    for (key, size) in &model {
        let found = world.index.find(key).unwrap().unwrap();
        assert_eq!(found.object.size, *size);
        assert_eq!(found.data.is_none(), *size == 0);
    }
    let totals = world.index.totals();
    assert_eq!(totals.objects.load(std::sync::atomic::Ordering::Relaxed), model.len() as u64);
    assert_eq!(totals.bytes.load(std::sync::atomic::Ordering::Relaxed), model.values().sum::<u64>());
    let keys: Vec<String> = model.into_keys().collect();
    let clear =
        move |tables: &mut Tables<'_>| keys.iter().try_for_each(|key| objects::delete(tables, key, &Condition::None));
    world.index.write_blocking(clear).unwrap();
    assert!(world.index.has_data(&files).unwrap().iter().all(|there| !there), "a row of data is left over");
    removed.extend(world.close());
    removed.sort_unstable();
    assert_eq!(removed, files, "every file goes exactly once");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_index_answers_as_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}

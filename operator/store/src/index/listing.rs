//! Pages of keys, in order.
//!
//! Comes in: a prefix, a delimiter, where to go on, how many. Goes out: one page. Keys that share a prefix up to the
//! delimiter are jumped over in one step, so a page costs as much as it shows, whatever the store holds.

use super::records::{Object, Upload, from_row};
use super::{Index, IndexError, OBJECTS, UPLOADS};

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Keys that start with this.
    pub prefix: String,
    /// Keys are shown up to the first of these after the prefix, each once.
    pub delimiter: String,
    /// Where the page begins.
    pub after: Position,
    /// The most entries of a page: keys and shared prefixes together.
    pub limit: usize,
}

/// A place between keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// Before all keys.
    #[default]
    Start,
    /// After this key.
    Key(String),
    /// After all keys that start with this.
    Prefix(String),
}

impl Position {
    /// The first key that may follow, and whether that one itself may.
    fn bound(&self) -> (Vec<u8>, bool) {
        match self {
            Self::Start => (Vec::new(), true),
            Self::Key(key) => (key.as_bytes().to_vec(), false),
            Self::Prefix(prefix) => successor(prefix.as_bytes()),
        }
    }
}

/// The first text that does not start with `prefix` and comes after those that do. No text has the byte 0xff.
fn successor(prefix: &[u8]) -> (Vec<u8>, bool) {
    let mut bound = prefix.to_vec();
    bound.push(0xff);
    (bound, true)
}

/// One page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page<T> {
    /// Entries, in order; shared prefixes apart.
    pub entries: Vec<(String, T)>,
    /// Shared prefixes, in order.
    pub prefixes: Vec<String>,
    /// Where the next page begins; none after the last.
    pub next: Option<Position>,
}

impl<T> Page<T> {
    fn full(&self, limit: usize) -> bool {
        self.entries.len() + self.prefixes.len() >= limit
    }
}

/// The part of `key` up to the first delimiter after the prefix, with the delimiter.
fn shared<'k>(key: &'k str, query: &Query) -> Option<&'k str> {
    if query.delimiter.is_empty() {
        return None;
    }
    let rest = key.get(query.prefix.len()..)?;
    let at = rest.find(&query.delimiter)?;
    Some(&key[..query.prefix.len() + at + query.delimiter.len()])
}

fn text(key: &[u8]) -> Result<&str, IndexError> {
    std::str::from_utf8(key).map_err(|_| IndexError::Damaged("a key is no text".to_owned()))
}

impl Index {
    /// A page of objects.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list(&self, query: &Query) -> Result<Page<Object>, IndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(OBJECTS)?;
            let mut page = Page::default();
            let (mut from, mut inclusive) = query.after.bound();
            if from.as_slice() < query.prefix.as_bytes() {
                (from, inclusive) = (query.prefix.clone().into_bytes(), true);
            }
            let told = match &query.after {
                // The marker of a client's own may be a prefix that an earlier page has shown.
                Position::Key(key) => key.clone(),
                Position::Start | Position::Prefix(_) => String::new(),
            };
            let mut last = None;
            'jump: loop {
                let bound = if inclusive {
                    std::ops::Bound::Included(from.as_slice())
                } else {
                    std::ops::Bound::Excluded(from.as_slice())
                };
                for row in table.range::<&[u8]>((bound, std::ops::Bound::Unbounded))? {
                    let (key, row) = row?;
                    let key = text(key.value())?;
                    if !key.starts_with(&query.prefix) {
                        break 'jump;
                    }
                    let group = shared(key, query);
                    if group.is_some_and(|group| group == told) {
                        (from, inclusive) = successor(told.as_bytes());
                        continue 'jump;
                    }
                    if page.full(query.limit) {
                        page.next = last;
                        break 'jump;
                    }
                    if let Some(group) = group {
                        page.prefixes.push(group.to_owned());
                        last = Some(Position::Prefix(group.to_owned()));
                        (from, inclusive) = successor(group.as_bytes());
                        continue 'jump;
                    }
                    page.entries.push((key.to_owned(), from_row(row.value())?));
                    last = Some(Position::Key(key.to_owned()));
                }
                break;
            }
            Ok(page)
        })
    }

    /// A page of uploads under way, after the upload `after`. A shared prefix is found by walking over its uploads:
    /// there are few of them, and they end after some days.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list_uploads(&self, query: &Query, after: Option<u64>) -> Result<Page<(u64, Upload)>, IndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(UPLOADS)?;
            let mut page = Page::default();
            let mut last = None;
            for row in table.range((query.prefix.as_bytes(), 0)..)? {
                let (key, row) = row?;
                let (key, id) = key.value();
                let key = text(key)?;
                if !key.starts_with(&query.prefix) {
                    break;
                }
                let group = shared(key, query);
                let before = match &query.after {
                    Position::Start => false,
                    Position::Prefix(prefix) => key.starts_with(prefix) || key < prefix.as_str(),
                    Position::Key(marker) if group.is_some() && group == Some(marker) => true,
                    Position::Key(marker) => {
                        key < marker.as_str() || (key == marker && after.is_none_or(|after| id <= after))
                    }
                };
                if before || group.is_some_and(|group| page.prefixes.last().is_some_and(|last| last == group)) {
                    continue;
                }
                if page.full(query.limit) {
                    page.next = last;
                    break;
                }
                if let Some(group) = group {
                    page.prefixes.push(group.to_owned());
                    last = Some(Position::Prefix(group.to_owned()));
                } else {
                    page.entries.push((key.to_owned(), (id, from_row(row.value())?)));
                    last = Some(Position::Key(key.to_owned()));
                }
            }
            Ok(page)
        })
    }
}

//! Which experiments do the same work: by namespace and digest, in the same time however many there are.

use std::collections::HashMap;

use super::store::Name;

/// Experiments by their digests.
#[derive(Default)]
pub struct Identical {
    // The head of a digest; what it finds is compared in full.
    by_digest: HashMap<u128, Vec<Name>>,
}

// The first half of `sha256:` and 64 hex digits.
fn head(digest: &str) -> Option<u128> {
    u128::from_str_radix(digest.strip_prefix("sha256:")?.get(..32)?, 16).ok()
}

impl Identical {
    /// An experiment's digest is another one; none: it has none, or is gone.
    pub fn set(&mut self, name: &Name, before: Option<&str>, now: Option<&str>) {
        let (before, now) = (before.and_then(head), now.and_then(head));
        if before == now {
            return;
        }
        if let Some(before) = before
            && let Some(names) = self.by_digest.get_mut(&before)
        {
            names.retain(|other| other != name);
            if names.is_empty() {
                self.by_digest.remove(&before);
            }
        }
        if let Some(now) = now {
            let names = self.by_digest.entry(now).or_default();
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }

    /// Those of a namespace that may have this digest, without `except`.
    pub fn of<'i>(&'i self, namespace: &'i str, digest: &str, except: &'i str) -> impl Iterator<Item = &'i Name> {
        let all = head(digest).and_then(|head| self.by_digest.get(&head)).into_iter().flatten();
        all.filter(move |(within, name)| within == namespace && name != except)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experiment_is_found_by_its_newest_digest_in_its_namespace() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let name = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        let mut index = Identical::default();
        index.set(&name("n", "a"), None, Some(&digest("a")));
        index.set(&name("n", "b"), None, Some(&digest("a")));
        index.set(&name("m", "c"), None, Some(&digest("a")));
        let of = |index: &Identical, letter: &str| {
            index.of("n", &digest(letter), "a").map(|(_, name)| name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(&index, "a"), ["b"]);
        index.set(&name("n", "b"), Some(&digest("a")), Some(&digest("b")));
        assert_eq!((of(&index, "a"), of(&index, "b")), (vec![], vec!["b".to_owned()]));
        index.set(&name("n", "b"), Some(&digest("b")), None);
        assert!(of(&index, "b").is_empty());
    }
}

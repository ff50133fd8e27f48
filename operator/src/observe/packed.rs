//! Objects that are kept small: as JSON, deflated against the JSON of another one of their family.
//!
//! Experiments of one namespace differ in a name, a few times and a few numbers: a thousand waiting clones take little more
//! than a thousand times that.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::Arc;

/// Packs objects.
#[derive(Default)]
pub struct Packer {
    // Making one anew for each object takes longer than the packing; kinds of which nothing is packed need none.
    deflate: Option<Compress>,
    families: HashMap<Box<str>, Arc<[u8]>>,
}

/// One object, packed.
pub struct Packed {
    bytes: Box<[u8]>,
    /// Bytes that it has unpacked.
    size: usize,
    /// What it was deflated against.
    like: Option<Arc<[u8]>>,
}

impl Packer {
    /// Packs an object beside others of its family. Nothing if it has no JSON.
    pub fn pack(&mut self, family: &str, object: &impl Serialize) -> Option<Packed> {
        // At once: an encoder that is handed every bit of JSON by itself takes three times as long.
        let text = serde_json::to_vec(object).ok()?;
        if let Some(like) = self.families.get(family).cloned() {
            let bytes = self.deflate(&text, Some(&like))?;
            if bytes.len() <= text.len() / 4 {
                return Some(Packed { bytes, size: text.len(), like: Some(like) });
            }
        }
        // The first one, or one unlike the others, is what the next ones are compared with: fashions change.
        let packed = Packed { bytes: self.deflate(&text, None)?, size: text.len(), like: None };
        self.families.insert(family.into(), text.into());
        Some(packed)
    }

    /// Forgets families of which nothing is packed any more.
    pub fn tidy(&mut self) {
        self.families.retain(|_, like| Arc::strong_count(like) > 1);
    }

    fn deflate(&mut self, text: &[u8], like: Option<&[u8]>) -> Option<Box<[u8]>> {
        let deflate = self.deflate.get_or_insert_with(|| Compress::new(Compression::fast(), false));
        deflate.reset();
        if let Some(like) = like {
            deflate.set_dictionary(like).ok()?;
        }
        // What cannot be deflated takes a few bytes for each 16 KiB.
        let mut bytes = Vec::with_capacity(text.len() + text.len() / 1024 + 64);
        let end = deflate.compress_vec(text, &mut bytes, FlushCompress::Finish).ok()?;
        (end == Status::StreamEnd).then(|| bytes.into())
    }
}

impl Packed {
    /// The object again.
    pub fn unpack<T: DeserializeOwned>(&self) -> T {
        #[expect(clippy::expect_used, reason = "the bytes are ours, and never leave this process")]
        self.read().expect("what was packed here can be unpacked")
    }

    fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let mut inflate = Decompress::new(false);
        if let Some(like) = &self.like {
            inflate.set_dictionary(like).ok()?;
        }
        let mut text = Vec::with_capacity(self.size);
        inflate.decompress_vec(&self.bytes, &mut text, FlushDecompress::Finish).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn clone(number: usize, note: &str) -> Value {
        let spec = json!({"image": "registry.example/team/train:v7", "command": ["python", "train.py"],
            "params": {"learning_rate": 0.001, "epochs": 40, "note": note}, "queue": "research"});
        json!({"name": format!("train-{number}"), "spec": spec.clone(), "template": spec})
    }

    #[test]
    fn what_resembles_its_family_takes_little_more_than_what_it_differs_in() {
        let mut packer = Packer::default();
        let first = packer.pack("n", &clone(0, "")).unwrap();
        let second = packer.pack("n", &clone(1, "")).unwrap();
        assert!(second.bytes.len() * 4 < first.bytes.len(), "{} of {}", second.bytes.len(), first.bytes.len());
        assert_eq!(second.unpack::<Value>(), clone(1, ""));
        let other = packer.pack("another", &clone(2, "")).unwrap();
        assert!(other.like.is_none(), "nothing is known of that namespace");
        // A new fashion becomes the measure, and the old one stays for those that follow it.
        let numbers =
            std::iter::successors(Some(1_u32), |n| Some(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)));
        let noise: String = numbers.take(400).map(|n| char::from(b'a' + n.to_be_bytes()[0] % 26)).collect();
        let odd = packer.pack("n", &noise).unwrap();
        assert!(odd.like.is_none());
        assert_eq!((odd.unpack::<String>(), second.unpack::<Value>()), (noise, clone(1, "")));
    }

    #[test]
    fn what_is_larger_than_the_window_comes_back_too() {
        let mut packer = Packer::default();
        let text: String = (0..20_000).map(|n| format!("{:x}", n * n)).collect();
        let large = [clone(0, &text), clone(1, &text), clone(2, "")];
        let packed: Vec<Packed> = large.iter().map(|object| packer.pack("n", object).unwrap()).collect();
        for (object, packed) in large.iter().zip(&packed) {
            assert_eq!(&packed.unpack::<Value>(), object);
        }
    }

    #[test]
    fn a_family_of_which_nothing_is_left_is_forgotten() {
        let mut packer = Packer::default();
        let _first = packer.pack("n", &clone(0, ""));
        let second = packer.pack("n", &clone(1, ""));
        packer.tidy();
        assert_eq!(packer.families.len(), 1);
        drop(second);
        packer.tidy();
        assert!(packer.families.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back_as_it_was(objects in prop::collection::vec((any::<usize>(), ".{0,200}"), 1..6)) {
            let mut packer = Packer::default();
            let objects: Vec<Value> = objects.iter().map(|(number, note)| clone(*number, note)).collect();
            let packed: Vec<Packed> = objects.iter().map(|object| packer.pack("n", object).unwrap()).collect();
            for (object, packed) in objects.iter().zip(&packed) {
                prop_assert_eq!(&packed.unpack::<Value>(), object);
            }
        }
    }
}

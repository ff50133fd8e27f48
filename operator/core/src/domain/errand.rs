//! Errands: work outside the API server that takes its time. It goes on beside the passes, and its outcome stands in the
//! next snapshot.

use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

use super::data::StoreAccess;
use super::time;

/// Something to be done for one experiment or run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errand {
    /// Read a result, or another small document, that lies in the store.
    ReadResult(Document),
    /// Read the record that an experiment is made from, and check the artifacts that it names.
    ReadRecord(Document),
    /// Delete what an experiment left in the store.
    DeleteArtifacts(Leftovers),
    /// Write where an output lies into a ConfigMap.
    Publish(Publication),
    /// Look whether the namespace has a LocalQueue of Kueue of this name.
    FindLocalQueue(String),
    /// Look whether artifacts are still where they lay. Brings the first uri with nothing at it, or nothing.
    FindArtifacts(Presence),
    /// Ask a registry for the digest of an image. Asked once: what begins waits for it.
    ResolveImage(ImageTag),
}

/// An image that a tag names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageTag {
    /// As it is written.
    pub image: String,
    /// Names of the Secrets that the pod pulls it with.
    pub pull_secrets: Vec<String>,
    /// The service account whose pull secrets the API server gives to the pod: to one that names none itself.
    pub service_account: Option<String>,
}

/// Artifacts in a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Presence {
    /// How it is reached.
    pub store: StoreAccess,
    /// Where they lie; a folder's ends in a slash.
    pub uris: Vec<String>,
}

/// A document in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Document {
    /// Where.
    pub uri: String,
    /// `sha256:…` of its bytes.
    pub digest: String,
    /// How it is reached; nothing: it lies in no store that the namespace has.
    pub store: Option<StoreAccess>,
}

/// What an experiment left.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftovers {
    /// How it is reached; nothing: it lies in no store that the namespace has.
    pub store: Option<StoreAccess>,
    /// Uris that go: files, and folders, which end in a slash.
    pub delete: Vec<String>,
    /// Uris below these that stay.
    pub keep: Vec<String>,
}

/// An entry of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Publication {
    /// Name of the ConfigMap.
    pub config_map: String,
    /// The entries.
    pub data: BTreeMap<String, String>,
}

/// How an errand went the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it brought, or why nothing.
    pub result: Result<String, String>,
    /// When.
    pub at: Timestamp,
    /// When it was first tried.
    pub since: Timestamp,
    /// How often it has been tried.
    pub tries: u32,
}

/// What to do about an errand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Run it, now; why it failed before, if it was tried.
    Run(Option<&'a str>),
    /// It was tried, and is to be tried again then.
    Wait(Timestamp, &'a str),
    /// It is done.
    Done(&'a str),
    /// It was tried for long enough.
    GivenUp(&'a str),
}

/// How often, and for how long, an errand is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between two tries.
    pub pause: Duration,
    /// From the first try to the last.
    pub limit: Duration,
}

/// The outcomes of an experiment's errands so far.
pub type Errands = BTreeMap<Errand, Outcome>;

impl Patience {
    /// What to do about `errand` now.
    #[must_use]
    pub fn step<'a>(&self, errands: &'a Errands, errand: &Errand, now: Timestamp) -> Step<'a> {
        let Some(outcome) = errands.get(errand) else { return Step::Run(None) };
        let why = match &outcome.result {
            Ok(brought) => return Step::Done(brought),
            Err(why) => why,
        };
        let again = time::after(outcome.at, self.pause);
        if again >= time::after(outcome.since, self.limit) {
            Step::GivenUp(why)
        } else if now >= again {
            Step::Run(Some(why))
        } else {
            Step::Wait(again, why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errand_is_tried_again_for_a_while() {
        let patience = Patience { pause: Duration::from_secs(10), limit: Duration::from_secs(60) };
        let errand = Errand::Publish(Publication::default());
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        assert_eq!(patience.step(&Errands::new(), &errand, at(0)), Step::Run(None));
        let failed = |seconds: i64| {
            let why = Err("away".to_owned());
            Errands::from([(errand.clone(), Outcome { result: why, at: at(seconds), since: at(0), tries: 1 })])
        };
        assert_eq!(patience.step(&failed(0), &errand, at(5)), Step::Wait(at(10), "away"));
        assert_eq!(patience.step(&failed(0), &errand, at(10)), Step::Run(Some("away")));
        assert_eq!(patience.step(&failed(50), &errand, at(60)), Step::GivenUp("away"));
        let done = Outcome { result: Ok("text".to_owned()), at: at(1), since: at(0), tries: 2 };
        assert_eq!(patience.step(&Errands::from([(errand.clone(), done)]), &errand, at(9)), Step::Done("text"));
    }
}

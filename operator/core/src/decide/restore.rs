//! Restored objects: what is done carries its verdict in an annotation, so that a backup that drops `status` loses nothing
//! that counts.
//!
//! Comes in: what ended, or an object without a status that carries a verdict. Goes out: the text of the annotation, or
//! the status that it speaks of. A verdict counts for the object that it was written for only: the same namespace, name
//! and spec. A copy under another name, or with another spec, is new work.

use cultivar_crds::labels;
use jiff::Timestamp;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;

use super::{Action, Plan};
use crate::clone;
use crate::domain::{Meta, time};

/// How long after the end a verdict is written: until then the API server has what is waited for.
const PAUSE: Duration = Duration::from_secs(10);

/// The longest verdict, in bytes; all annotations of an object share 256 KiB.
const LONGEST: usize = 32 * 1024;

/// What may change in a spec without making other work of it.
const CHANGES_NOTHING: [&str; 5] = ["cancel", "cancelMode", "priority", "suspend", "ttlAfterFinished"];

#[derive(Serialize, Deserialize)]
struct Verdict<S> {
    version: u32,
    namespace: String,
    name: String,
    spec: String,
    status: S,
}

const VERSION: u32 = 1;

fn digest(spec: &Value) -> String {
    let fields = super::object(Some(spec)).into_iter().filter(|(key, _)| !CHANGES_NOTHING.contains(&key.as_str()));
    clone::digest(&Value::Object(fields.collect::<Map<_, _>>()))
}

/// Notes what has come of an object, some time after it ended, where that is not written yet: of its status the essence, and of one that is too long the `dispensable` fields not, the first first.
pub fn note<S, T: Serialize>(
    plan: &mut Plan<S>,
    (meta, spec): (&Meta, &Value),
    (essence, dispensable): (impl FnOnce(&S) -> T, &[&str]),
    (ended, now): (Timestamp, Timestamp),
) {
    let written = meta.annotations.get(labels::VERDICT);
    // It stands for a verdict that counts: see `shorten`.
    if written == Some(&meta.uid) {
        return;
    }
    let due = time::after(ended, PAUSE);
    if now < due {
        return plan.wake(due);
    }
    let verdict = text(meta, spec, &essence(&plan.status), dispensable).filter(|verdict| written != Some(verdict));
    plan.actions.extend(verdict.map(|verdict| Action::NoteVerdict { verdict }));
}

/// The text of an object's verdict; nothing where even the least of it is too long.
#[must_use]
pub fn text<T: Serialize>(meta: &Meta, spec: &Value, status: &T, dispensable: &[&str]) -> Option<String> {
    let mut verdict = Verdict {
        version: VERSION,
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        spec: digest(spec),
        status: serde_json::to_value(status).ok()?,
    };
    let mut dispensable = dispensable.iter();
    loop {
        let text = serde_json::to_string(&verdict).ok()?;
        if text.len() <= LONGEST {
            return Some(text);
        }
        verdict.status.as_object_mut()?.remove(*dispensable.next()?);
    }
}

// The verdict that an object carries, if it was written for it.
fn carried<T: DeserializeOwned>(meta: &Meta, spec: &Value) -> Option<Verdict<T>> {
    let verdict: Verdict<T> = serde_json::from_str(meta.annotations.get(labels::VERDICT)?).ok()?;
    let same = verdict.namespace == meta.namespace && verdict.name == meta.name && verdict.spec == digest(spec);
    (same && verdict.version == VERSION).then_some(verdict)
}

/// What came of an object in its earlier life, if it carries that.
#[must_use]
pub fn of<T: DeserializeOwned>(meta: &Meta, spec: &Value) -> Option<T> {
    carried(meta, spec).map(|verdict| verdict.status)
}

/// Puts the object's uid in the place of a verdict that counts: of what has a status, nobody asks for more.
pub fn shorten(meta: &mut Meta, spec: &Value) {
    if meta.annotations.contains_key(labels::VERDICT) {
        let short = carried::<IgnoredAny>(meta, spec).map(|_| meta.uid.clone()).unwrap_or_default();
        meta.annotations.insert(labels::VERDICT.to_owned(), short);
    }
}

/// The words of a status that was read from a verdict.
#[must_use]
pub fn words(message: Option<String>) -> String {
    let restored = "restored from the verdict of an earlier life; it is not run again";
    match message {
        None => restored.to_owned(),
        Some(message) if message.ends_with(restored) => message,
        Some(message) => format!("{message}; {restored}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meta() -> Meta {
        Meta { namespace: "n".into(), name: "e".into(), uid: "u".into(), ..Meta::default() }
    }

    fn with(meta: &Meta, text: &str) -> Meta {
        Meta { annotations: [(labels::VERDICT.to_owned(), text.to_owned())].into(), uid: "v".into(), ..meta.clone() }
    }

    #[test]
    fn it_counts_for_the_same_object_only() {
        let (spec, status) = (json!({"image": "i", "params": {"lr": 1}}), json!({"phase": "Completed"}));
        let text = text(&meta(), &spec, &status, &[]).unwrap();
        let back = with(&meta(), &text);
        assert_eq!(of::<Value>(&back, &spec), Some(status));
        let later = json!({"image": "i", "params": {"lr": 1}, "cancel": true, "priority": 3, "ttlAfterFinished": "1d"});
        assert!(of::<Value>(&back, &later).is_some(), "what changes nothing");
        assert!(of::<Value>(&back, &json!({"image": "i", "params": {"lr": 2}})).is_none(), "another spec");
        assert!(of::<Value>(&Meta { name: "f".into(), ..back.clone() }, &spec).is_none(), "a copy");
        assert!(of::<Value>(&Meta { namespace: "m".into(), ..back.clone() }, &spec).is_none(), "elsewhere");
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert!(of::<Value>(&with(&meta(), &newer), &spec).is_none(), "of a newer operator");
        assert!(of::<Value>(&with(&meta(), "no JSON"), &spec).is_none(), "garbage");
    }

    #[test]
    fn what_is_too_long_loses_what_can_be_done_without() {
        let status = json!({"phase": "Failed", "a": "x".repeat(LONGEST), "b": "y".repeat(LONGEST), "c": "z"});
        let text = text(&meta(), &json!({}), &status, &["b", "a", "c"]).unwrap();
        assert_eq!(of::<Value>(&with(&meta(), &text), &json!({})), Some(json!({"phase": "Failed", "c": "z"})));
        assert_eq!(super::text(&meta(), &json!({}), &status, &["b"]), None, "what cannot be done without is too long");
    }

    #[test]
    fn it_is_written_once_some_time_after_the_end() {
        let (meta, spec, status) = (meta(), json!({}), json!({"phase": "Completed"}));
        let ended = Timestamp::UNIX_EPOCH;
        let later = time::after(ended, Duration::from_secs(11));
        let plan = |meta: &Meta, now| {
            let mut plan = Plan::new(());
            note(&mut plan, (meta, &spec), (|()| status.clone(), &[]), (ended, now));
            plan
        };
        let early = plan(&meta, ended);
        assert!(early.actions.is_empty() && early.wake_at == Some(time::after(ended, PAUSE)));
        let due = plan(&meta, later);
        let [Action::NoteVerdict { verdict }] = due.actions.as_slice() else { panic!("{:?}", due.actions) };
        let mut noted = with(&meta, verdict);
        let mut copy = Meta { name: "copy".into(), ..noted.clone() };
        assert_eq!(plan(&noted, later), Plan::new(()), "in another life too");
        shorten(&mut noted, &spec);
        assert_eq!(noted.annotations[labels::VERDICT], "v");
        assert_eq!(plan(&noted, later), Plan::new(()));
        shorten(&mut copy, &spec);
        assert_eq!(copy.annotations[labels::VERDICT], "");
        assert_eq!(plan(&copy, later).actions.len(), 1);
    }
}

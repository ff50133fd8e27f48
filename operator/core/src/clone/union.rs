//! Fields of which only one may be set: setting one by an override removes the others.
//!
//! In: the name of the list or object they stand in. Out: the base without the arms that the override switches off.

use serde_json::{Map, Value};

/// The arms: keys of one arm belong together.
enum Arms {
    /// These groups exclude each other.
    Groups(&'static [&'static [&'static str]]),
    /// Every key but these is an arm of its own.
    AllBut(&'static [&'static str]),
}

/// The union that members of the list, or the object, called `field` are.
fn arms(field: &str) -> Option<Arms> {
    Some(match field {
        "env" => Arms::Groups(&[&["value"], &["valueFrom"]]),
        "restore" => Arms::Groups(&[&["uri"], &["experiment"]]),
        "inputs" => Arms::Groups(&[&["uri"], &["uris"], &["experiment", "artifact"]]),
        "source" => Arms::Groups(&[&["git"], &["packed"]]),
        "valueFrom" => Arms::AllBut(&[]),
        "volumes" => Arms::AllBut(&["name"]),
        _ => return None,
    })
}

/// Removes from `base`, a member of `field`, the arms that `patch` replaces by setting another one. Null sets nothing.
pub(super) fn switch(field: &str, base: &mut Map<String, Value>, patch: &Map<String, Value>) {
    let Some(arms) = arms(field) else { return };
    let sets = |key: &str| patch.get(key).is_some_and(|value| !value.is_null());
    let set: Vec<&str> = patch.keys().map(String::as_str).filter(|key| !key.starts_with('$') && sets(key)).collect();
    match arms {
        Arms::Groups(groups) => {
            let is_set = |group: &[&str]| group.iter().any(|key| sets(key));
            if groups.iter().any(|group| is_set(group)) {
                base.retain(|key, _| !groups.iter().any(|group| !is_set(group) && group.contains(&key.as_str())));
                if field == "inputs" {
                    // It was the digest of what is replaced.
                    base.remove("digest");
                }
            }
        }
        Arms::AllBut(shared) => {
            if set.iter().any(|key| !shared.contains(key)) {
                base.retain(|key, _| shared.contains(&key.as_str()) || set.contains(&key.as_str()));
            }
        }
    }
}

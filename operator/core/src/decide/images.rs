//! Images that tags name: their digests are looked up before what names them is frozen, so that what begins keeps what it
//! began with.
//!
//! Comes in: a template, and what registries have said. Goes out: the template with digests beside the tags; what is still to
//! be asked for; what stays a tag, and why.

use cultivar_crds::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;
use std::time::Duration;

use super::Action;
use crate::domain::conditions::{Conditions, kind};
use crate::domain::errand::ImageTag;
use crate::domain::{Errand, Errands, Image, image, text, time};
use crate::render::MAIN;

/// How old an answer may be: something else may be waited for in between.
const FRESH: Duration = Duration::from_secs(60);
/// Pull secrets of a pod that are looked at.
pub const MAX_SECRETS: usize = 8;
/// Images that a message names.
const NAMED: usize = 4;

/// The images of what is about to be frozen.
pub struct Lookup<'e> {
    errands: &'e Errands,
    now: Timestamp,
    asking: Vec<ImageTag>,
    loose: Vec<String>,
    pinned: bool,
}

impl<'e> Lookup<'e> {
    /// With what has been asked so far.
    pub fn new(errands: &'e Errands, now: Timestamp) -> Self {
        Self { errands, now, asking: Vec::new(), loose: Vec::new(), pinned: false }
    }

    /// Pins the images of a template as far as their digests are known. `of` names whose they are, or is empty.
    pub fn pin(&mut self, template: &mut Value, of: &str) {
        let (pull_secrets, service_account) = (pull_secrets(template), service_account(template));
        let as_whom = ImageTag {
            service_account: pull_secrets.is_empty().then_some(service_account),
            pull_secrets,
            ..ImageTag::default()
        };
        for image in images(template) {
            let Some(text) = image.as_str().filter(|text| !text.is_empty()) else { continue };
            match self.digest(text, &as_whom) {
                Ok(Some(digest)) => *image = image::pinned(text, digest).into(),
                Ok(None) => {}
                Err(why) if of.is_empty() => self.loose.push(format!("{text}: {why}")),
                Err(why) => self.loose.push(format!("{of}: {text}: {why}")),
            }
        }
    }

    // The digest that a name is to get, if it is known already.
    fn digest(&mut self, text: &str, as_whom: &ImageTag) -> Result<Option<&'e str>, String> {
        if text.contains("${") {
            return Err("it is an expression, and none is looked up".to_owned());
        }
        let parsed = Image::parse(text)?;
        if parsed.digest.is_some() {
            self.pinned |= image::is_pinned(text);
            return if image::is_pinned(text) { Ok(None) } else { Err("its digest is no sha256".to_owned()) };
        }
        let tag = ImageTag { image: text.to_owned(), ..as_whom.clone() };
        // Whether it is tried again is the registry client's to decide: what begins waits once.
        let outcome = self.errands.get(&Errand::ResolveImage(tag.clone()));
        let outcome = outcome.filter(|outcome| time::after(outcome.at, FRESH) > self.now);
        match outcome.map(|outcome| &outcome.result) {
            None => {
                if !self.asking.contains(&tag) {
                    self.asking.push(tag);
                }
                Ok(None)
            }
            Some(Ok(digest)) => {
                self.pinned = true;
                Ok(Some(digest))
            }
            Some(Err(why)) => Err(why.clone()),
        }
    }

    /// What is to be asked before anything is frozen, and the words for that; nothing: it can be.
    pub fn asks(&self) -> Option<(impl Iterator<Item = Action> + use<>, String)> {
        let names: Vec<&str> = self.asking.iter().map(|tag| tag.image.as_str()).collect();
        let words = format!("asks registries for the digests of {}", text::some_of(&names, NAMED));
        let errands = self.asking.clone().into_iter().map(|tag| Action::Run(Errand::ResolveImage(tag)));
        (!self.asking.is_empty()).then_some((errands, words))
    }

    /// What stays a tag, in words; nothing: every image is pinned.
    pub fn loose(&self) -> Option<String> {
        (!self.loose.is_empty()).then(|| text::some_of(&self.loose, NAMED))
    }

    /// Says in a run's conditions whether its images are pinned.
    pub fn tell(&self, conditions: &mut Vec<Condition>, generation: i64) {
        let mut set = Conditions::new(conditions, generation, self.now);
        match self.loose() {
            Some(loose) => {
                let words =
                    format!("{loose}; what the tag means may change while the run goes on, and nothing is reused");
                set.set(kind::IMAGES_PINNED, false, Reason::ImageUnpinned, words);
            }
            None if self.pinned => {
                set.set(kind::IMAGES_PINNED, true, Reason::ImagePinned, "");
            }
            None => {}
        }
    }
}

// What the kubelet pulls by the names that stand here. What is never pulled is on the node and nowhere else.
fn images(template: &mut Value) -> Vec<&mut Value> {
    let never = |container: &Value| container["imagePullPolicy"] == "Never";
    let patches = template.pointer("/podTemplate/spec/containers").and_then(Value::as_array);
    let is_main = |container: &&Value| container["name"] == MAIN;
    let main_is_there = patches.into_iter().flatten().filter(is_main).any(never);
    let Some(fields) = template.as_object_mut() else { return Vec::new() };
    let mut images = Vec::new();
    for (field, value) in fields {
        match field.as_str() {
            "image" if !main_is_there => images.push(value),
            "podTemplate" => {
                let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) else { continue };
                let lists =
                    spec.iter_mut().filter(|(field, _)| matches!(field.as_str(), "initContainers" | "containers"));
                let containers = lists.filter_map(|(_, list)| list.as_array_mut()).flatten();
                images.extend(
                    containers.filter(|container| !never(container)).filter_map(|container| container.get_mut("image")),
                );
            }
            _ => {}
        }
    }
    images
}

fn pull_secrets(template: &Value) -> Vec<String> {
    let named = template.pointer("/podTemplate/spec/imagePullSecrets").and_then(Value::as_array);
    let names = named.into_iter().flatten().filter_map(|secret| secret.get("name")?.as_str());
    names.take(MAX_SECRETS).map(str::to_owned).collect()
}

fn service_account(template: &Value) -> String {
    let named = template.pointer("/podTemplate/spec/serviceAccountName").and_then(Value::as_str);
    named.unwrap_or("default").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::errand::Outcome;
    use serde_json::json;

    fn known(images: &[(&str, Result<&str, &str>)], secrets: &[&str]) -> Errands {
        let outcome = |(image, result): &(&str, Result<&str, &str>)| {
            let pull_secrets = secrets.iter().map(|name| (*name).to_owned()).collect();
            let result = result.map(str::to_owned).map_err(str::to_owned);
            let at = Timestamp::UNIX_EPOCH;
            let tag = ImageTag { image: (*image).to_owned(), pull_secrets, service_account: None };
            (Errand::ResolveImage(tag), Outcome { result, at, since: at, tries: 1 })
        };
        images.iter().map(outcome).collect()
    }

    #[test]
    fn every_image_that_is_pulled_by_its_tag_is_asked_for_once() {
        let mut template = json!({"image": "a:1", "podTemplate": {"spec": {
            "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
            "initContainers": [{"name": "i", "image": "b"}],
            "containers": [{"name": "main", "args": []}, {"name": "side", "image": "a:1"},
                {"name": "here", "image": "c:1", "imagePullPolicy": "Never"}, {"name": "is", "image": "d@sha256:1"}],
        }}});
        let none = Errands::new();
        let mut lookup = Lookup::new(&none, Timestamp::UNIX_EPOCH);
        lookup.pin(&mut template, "stage a");
        let (asked, words) = lookup.asks().unwrap();
        assert_eq!((asked.count(), words.as_str()), (2, "asks registries for the digests of a:1, b"));
        let known = known(&[("a:1", Ok("sha256:a")), ("b", Err("away"))], &["one", "two"]);
        let mut lookup = Lookup::new(&known, Timestamp::UNIX_EPOCH);
        lookup.pin(&mut template, "stage a");
        assert!(lookup.asks().is_none());
        assert_eq!(lookup.loose().as_deref(), Some("stage a: b: away"));
        assert_eq!(template["image"], "a:1@sha256:a");
        let containers = &template["podTemplate"]["spec"]["containers"];
        let images: Vec<_> =
            containers.as_array().unwrap().iter().filter_map(|container| container["image"].as_str()).collect();
        assert_eq!(images, ["a:1@sha256:a", "c:1", "d@sha256:1"]);
        assert_eq!(template["podTemplate"]["spec"]["initContainers"][0]["image"], "b");
        let mut lookup = Lookup::new(&known, Timestamp::from_second(60).unwrap());
        lookup.pin(&mut json!({"image": "a:1", "podTemplate": {"spec": {"imagePullSecrets": [{"name": "one"}, {"name": "two"}]}}}), "");
        assert!(lookup.asks().is_some(), "that was a minute ago");
    }

    // The API server gives a pod those of its service account only where it names none itself.
    #[test]
    fn a_pod_that_names_no_pull_secret_has_those_of_its_service_account() {
        for (spec, account) in [
            (json!({}), Some("default")),
            (json!({"serviceAccountName": "trainer"}), Some("trainer")),
            (json!({"serviceAccountName": "trainer", "imagePullSecrets": []}), Some("trainer")),
            (json!({"serviceAccountName": "trainer", "imagePullSecrets": [{"name": "one"}]}), None),
        ] {
            let none = Errands::new();
            let mut lookup = Lookup::new(&none, Timestamp::UNIX_EPOCH);
            lookup.pin(&mut json!({"image": "a:1", "podTemplate": {"spec": spec}}), "");
            assert_eq!(lookup.asking[0].service_account.as_deref(), account, "{spec}");
        }
    }

    #[test]
    fn what_cannot_be_asked_for_is_said_at_once() {
        let none = Errands::new();
        for (image, part) in
            [("${params.image}", "it is an expression"), ("Train:1", "no repository"), ("train@sha512:ab", "no sha256")]
        {
            let mut lookup = Lookup::new(&none, Timestamp::UNIX_EPOCH);
            lookup.pin(&mut json!({"image": image}), "");
            assert!(lookup.asks().is_none(), "{image}");
            let loose = lookup.loose().unwrap();
            assert!(loose.starts_with(image) && loose.contains(part), "{loose}");
        }
        let mut lookup = Lookup::new(&none, Timestamp::UNIX_EPOCH);
        let never = json!({"spec": {"containers": [{"name": "main", "imagePullPolicy": "Never"}]}});
        lookup.pin(&mut json!({"image": "a:1", "podTemplate": never}), "");
        assert!(lookup.asks().is_none() && lookup.loose().is_none(), "it is on the node");
    }
}

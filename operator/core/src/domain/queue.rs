//! Queues as deciding knows them: amounts, limits, flavors, and what is held.
//!
//! Comes in: the spec of a Queue. Goes out: [`QueueConfig`] in whole numbers, so that sums of a ledger are exact.

use cultivar_crds::queue::{Flavor as FlavorSpec, NodeFit, Quantity, Share, Stop};
use cultivar_crds::{QueueSpec, labels};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::quantity::amount;
use super::time::parse_duration;

/// An interned name: of a resource, a flavor, a queue, a namespace.
pub type Word = Arc<str>;
/// How much, by resource: thousandths of `cpu`, else whole units or bytes.
pub type Amounts = BTreeMap<Word, i64>;

/// What a queue has of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Never lent.
    pub reserved: i64,
    /// The queue's own.
    pub quota: i64,
    /// Never more, borrowed or not.
    pub cap: Option<i64>,
}

/// A sort of node, and what a queue has of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flavor {
    /// Its name; empty where the queue has none.
    pub name: Word,
    /// By resource.
    pub limits: BTreeMap<Word, Limit>,
    /// Labels of its nodes.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of its pods.
    pub tolerations: Vec<Value>,
    /// Whether some node must be able to take a pod.
    pub node_fit: bool,
}

/// A Queue, ready to decide with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueConfig {
    /// Its name.
    pub name: Word,
    /// Its uid.
    pub uid: String,
    /// Those that lend each other.
    pub cohort: Option<Word>,
    /// Its part when several want to borrow the same.
    pub weight: u32,
    /// Which namespaces may use it; nothing: all.
    pub namespaces: Option<LabelSelector>,
    /// What one namespace may hold.
    pub namespace_limits: Amounts,
    /// A priority counts for at most this.
    pub max_priority: i32,
    /// Longest that a program may run.
    pub max_runtime: Option<Duration>,
    /// Most that wait in it.
    pub max_queued: Option<usize>,
    /// How long a run is left alone.
    pub min_runtime: Duration,
    /// How often one experiment can be stopped for others.
    pub preemption_limit: Option<u32>,
    /// What its pods get.
    pub pod: Option<Arc<PodDefaults>>,
    /// Whether it admits.
    pub stop: Stop,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// In the order in which they are tried; never empty.
    pub flavors: Vec<Flavor>,
}

impl QueueConfig {
    /// A flavor, by its name.
    #[must_use]
    pub fn flavor(&self, name: &str) -> Option<&Flavor> {
        self.flavors.iter().find(|flavor| *flavor.name == *name)
    }
}

/// What a queue adds to the pods of its runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodDefaults {
    /// A strategic-merge patch.
    pub patch: Value,
    /// Whether it wins over what a run says itself.
    pub enforce: bool,
}

/// Where an attempt was admitted to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// The queue.
    pub queue: Word,
    /// Its flavor; empty where the queue has none.
    pub flavor: Word,
    /// When.
    pub since: Timestamp,
    /// Labels of the flavor's nodes.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the flavor.
    pub tolerations: Vec<Value>,
    /// What the queue adds to the pods.
    pub pod: Option<Arc<PodDefaults>>,
}

/// What a Job or Pod says that it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Name of the queue.
    pub queue: Word,
    /// Name of the flavor.
    pub flavor: Word,
    /// What one pod holds.
    pub amounts: Amounts,
}

/// What a Job or Pod holds, and since when: its annotation `cultivar.dev/holds` and its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Of which queue, and how much one pod holds.
    pub claim: Claim,
    /// How many pods there are.
    pub pods: u32,
    /// When it was admitted.
    pub since: Timestamp,
}

/// The annotation's JSON.
#[derive(Serialize, Deserialize)]
struct Noted {
    since: Timestamp,
    pods: u32,
    amounts: BTreeMap<String, i64>,
}

impl Holding {
    /// The annotation of a Job and of its pods.
    #[must_use]
    pub fn note(placement: &Placement, pods: u32, amounts: &Amounts) -> String {
        let amounts = amounts.iter().map(|(resource, amount)| (resource.to_string(), *amount)).collect();
        serde_json::to_string(&Noted { since: placement.since, pods, amounts }).unwrap_or_default()
    }

    /// Of labels and annotations; nothing for what no queue admitted.
    #[must_use]
    pub fn read(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Option<Self> {
        let queue = labels.get(labels::QUEUE)?.as_str().into();
        let flavor = labels.get(labels::FLAVOR).map_or("", String::as_str).into();
        let noted: Noted = serde_json::from_str(annotations.get(labels::HOLDS)?).ok()?;
        let amounts = noted.amounts.into_iter().map(|(resource, amount)| (resource.into(), amount)).collect();
        Some(Self { claim: Claim { queue, flavor, amounts }, pods: noted.pods, since: noted.since })
    }
}

/// What an attempt holds of its queue: what its live Job and unfinished pods ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// Of which queue, and how much.
    pub claim: Claim,
    /// Number of the attempt.
    pub attempt: u32,
    /// Since when.
    pub since: Timestamp,
    /// Whether it was told to end.
    pub leaving: bool,
}

/// A Queue's spec in whole numbers. What does not parse was refused when applied; here it is nothing.
#[must_use]
pub fn config(name: &str, uid: &str, deleting: bool, spec: &QueueSpec) -> QueueConfig {
    let preemption = spec.preemption.clone().unwrap_or_default();
    let duration = |text: Option<&String>| text.and_then(|text| parse_duration(text).ok());
    let flavors = match spec.flavors.as_slice() {
        [] => {
            let node_fit = spec.node_fit.unwrap_or_default() == NodeFit::Enforce;
            vec![Flavor { limits: limits(&spec.resources), node_fit, ..Flavor::default() }]
        }
        some => some.iter().map(flavor).collect(),
    };
    QueueConfig {
        name: name.into(),
        uid: uid.to_owned(),
        cohort: spec.cohort.as_deref().map(Into::into),
        weight: spec.weight.unwrap_or(1).max(1),
        namespaces: spec.namespaces.clone(),
        namespace_limits: spec
            .namespace_limits
            .iter()
            .map(|(name, most)| (name.as_str().into(), units(name, most)))
            .collect(),
        max_priority: spec.max_priority.unwrap_or(i32::MAX),
        max_runtime: duration(spec.max_runtime.as_ref()),
        max_queued: spec.max_queued.and_then(|most| usize::try_from(most).ok()),
        min_runtime: duration(preemption.min_runtime.as_ref()).unwrap_or_default(),
        preemption_limit: preemption.limit,
        pod: spec.pod_template.clone().map(|patch| {
            let enforce = spec.enforce.unwrap_or_default();
            Arc::new(PodDefaults { patch, enforce })
        }),
        stop: spec.stop.unwrap_or_default(),
        deleting,
        flavors,
    }
}

fn flavor(spec: &FlavorSpec) -> Flavor {
    Flavor {
        name: spec.name.as_str().into(),
        limits: limits(&spec.resources),
        node_selector: spec.node_selector.clone(),
        node_fit: spec.node_fit.unwrap_or_default() == NodeFit::Enforce,
        tolerations: spec.tolerations.iter().filter_map(|toleration| serde_json::to_value(toleration).ok()).collect(),
    }
}

fn limits(resources: &BTreeMap<String, Share>) -> BTreeMap<Word, Limit> {
    let limit = |name: &String, share: &Share| Limit {
        reserved: share.reserved.as_ref().map_or(0, |part| units(name, part)),
        quota: units(name, &share.quota),
        cap: share.cap.as_ref().map(|most| units(name, most)),
    };
    resources.iter().map(|(name, share)| (name.as_str().into(), limit(name, share))).collect()
}

fn units(resource: &str, quantity: &Quantity) -> i64 {
    amount(resource, &quantity.to_string()).unwrap_or(0)
}

/// Adds amounts, resource by resource.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (resource, amount) in more {
        let entry = sum.entry(Arc::clone(resource)).or_default();
        *entry = entry.saturating_add(*amount);
    }
}

/// Amounts times a number.
#[must_use]
pub fn times(amounts: &Amounts, factor: u32) -> Amounts {
    amounts.iter().map(|(resource, amount)| (Arc::clone(resource), amount.saturating_mul(i64::from(factor)))).collect()
}

/// Whether a resource is one that somebody added to Kubernetes' own: a GPU, a network card.
#[must_use]
pub fn is_extended(resource: &str) -> bool {
    resource.contains('/') && !resource.starts_with("kubernetes.io/")
}

/// Whether a label selector takes these labels.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = labels.get(&expression.key);
            let among = || value.is_some_and(|value| expression.values.iter().flatten().any(|one| one == value));
            match expression.operator.as_str() {
                "In" => among(),
                "NotIn" => !among(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                // The API server knows no other; one from the future selects nothing.
                _ => false,
            }
        })
}

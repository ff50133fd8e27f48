//! Kind Queue: whose GPUs, how many, in what order.

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::schema::{self, object_name};

/// Whose GPUs, how many, in what order: a share of the cluster for the experiments that name it.
///
/// Experiments wait in it until what their pods ask for fits. What a queue does not list, it does not limit.
#[derive(CustomResource, Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "cultivar.dev",
    version = "v1alpha1",
    kind = "Queue",
    plural = "queues",
    shortname = "cvq",
    category = "cultivar",
    status = "QueueStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Whose GPUs, how many, in what order: a share of the cluster for the experiments that name it. What a queue does not list, it does not limit.",
    printcolumn(name = "Cohort", type_ = "string", json_path = ".spec.cohort"),
    printcolumn(name = "Waiting", type_ = "integer", json_path = ".status.waiting"),
    printcolumn(name = "Admitted", type_ = "integer", json_path = ".status.admitted"),
    printcolumn(name = "Stop", type_ = "string", json_path = ".spec.stop"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = object_name(63),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.resources) != has(self.flavors)").message("say what the queue has: either resources, or flavors with resources of their own"))]
pub struct QueueSpec {
    /// Queues of one cohort lend each other what they do not use of their quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_name")]
    pub cohort: Option<String>,

    /// This queue's part when several want to borrow the same: one of weight 2 gets twice as much as one of 1, the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: Option<u32>,

    /// Which namespaces may use it, by their labels; all when absent. A namespace's default queue is its label
    /// `cultivar.dev/default-queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,

    /// What one namespace may hold of the queue at a time, by resource, whatever the flavor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub namespace_limits: BTreeMap<String, Quantity>,

    /// A run's `priority` counts for at most this much here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_priority: Option<i32>,

    /// Longest that a program may run here; the shorter of this and its own `timeouts.run`. Then: DeadlineExceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub max_runtime: Option<String>,

    /// Most experiments that wait in it; without end by default. Newer ones stay Pending with the reason QueueFull, and join
    /// when one of those that wait starts or leaves. Who was admitted before, and asks again, is always taken; what
    /// no queue or node could ever take is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queued: Option<u32>,

    /// What the queue has, by resource, where all nodes are alike: `nvidia.com/gpu`, `cpu`, `memory`, `pods` or any other.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub resources: BTreeMap<String, Share>,

    /// Whether some node must be able to take each pod before its run is admitted; for flavors, each says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_fit: Option<NodeFit>,

    /// What the queue has, by sort of node; the first flavor that a run fits into is the one it gets. Queues of a cohort
    /// that use the same name mean the same nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub flavors: Vec<Flavor>,

    /// When runs may be stopped for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption: Option<Preemption>,

    /// Strategic-merge patch for the pods of the queue's runs (`metadata` and `spec`; the program's container is called
    /// `main`). A run's own values win, unless `enforce` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_object")]
    pub pod_template: Option<serde_json::Value>,

    /// Whether `podTemplate` wins over what runs say themselves; false by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce: Option<bool>,

    /// Hold admits nothing more; Drain also stops what runs, which goes back into the queue. None by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
}

/// A quantity of Kubernetes, as a number or as text: `8`, `"500m"`, `"64Gi"`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(untagged)]
pub enum Quantity {
    /// A whole number.
    Number(i64),
    /// With a suffix.
    Text(String),
}

impl Default for Quantity {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "minimum": 0,
            "pattern": r"^(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$",
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// What a queue has of one resource: reserved ≤ quota ≤ cap.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.reserved) || quantity(string(self.reserved)).compareTo(quantity(string(self.quota))) <= 0").message("reserved is a part of quota: it cannot be more"))]
#[x_kube(validation = Rule::new("!has(self.cap) || quantity(string(self.cap)).compareTo(quantity(string(self.quota))) >= 0").message("cap includes quota: it cannot be less"))]
pub struct Share {
    /// The part of the quota that is never lent; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Quantity>,
    /// What is the queue's own: lent to its cohort while it is idle, and taken back by preemption.
    pub quota: Quantity,
    /// Never more than this, borrowed or not; unset: the quota and whatever the cohort lends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<Quantity>,
}

/// A sort of node, and what the queue has of it.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Flavor {
    /// Its name, the same for every queue of the cohort.
    #[schemars(schema_with = "schema::label_name")]
    pub name: String,
    /// Labels of its nodes; every pod that is admitted to it gets them as its node selector.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations that every pod gets that is admitted to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Whether some node of it must be able to take each pod before its run is admitted. Ignore where an autoscaler grows
    /// the pool from zero; Enforce by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_fit: Option<NodeFit>,
    /// What the queue has of it, by resource.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub resources: BTreeMap<String, Share>,
}

/// Whether the nodes that there are decide who can be admitted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeFit {
    /// What no node could take, were no run of a queue on it, waits with the reason NoNodeFits and takes no quota. What pods
    /// outside the queues hold of an extended resource that a Queue lists counts as not there.
    #[default]
    Enforce,
    /// Nodes are not looked at.
    Ignore,
}

/// When runs may be stopped for others. A run is stopped for one of the queue's own quota only: to take back what was
/// lent, or for one of higher priority within it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Preemption {
    /// How long a run of this queue is left alone after it was admitted; not at all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub min_runtime: Option<String>,
    /// How often one experiment can be stopped for others before it is left alone; without end by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub limit: Option<u32>,
}

/// Whether a queue admits.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// It does.
    #[default]
    None,
    /// It admits nothing more; what runs goes on.
    Hold,
    /// It admits nothing more, and what runs is stopped and goes back into the queue.
    Drain,
}

/// How the queue stands; written at most once a second.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: it admits. Stalled: it admits nothing without a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Experiments that wait in it.
    #[serde(default)]
    pub waiting: u32,
    /// Experiments that wait for a place in it, for `maxQueued` do already.
    #[serde(default)]
    pub outside: u32,
    /// Experiments that hold something of it.
    #[serde(default)]
    pub admitted: u32,
    /// Since when the first of them waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub oldest_wait: Option<String>,
    /// What is in use, by flavor and resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<Usage>,
    /// What each namespace holds: the fifty that hold most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<NamespaceUsage>,
}

/// Use of one resource.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The flavor; absent where the queue has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// The resource.
    pub resource: String,
    /// The queue's own.
    pub quota: String,
    /// What its runs hold.
    pub used: String,
    /// What of that is beyond the quota.
    pub borrowed: String,
    /// What of the quota others of the cohort hold: of all that is borrowed there, the part that this queue has of what is
    /// idle.
    pub lent: String,
}

/// What one namespace holds.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceUsage {
    /// The namespace.
    pub namespace: String,
    /// By resource, whatever the flavor.
    pub used: BTreeMap<String, String>,
}

//! Nodes, as far as it matters whether a pod could land on one.

use serde_json::Value;
use std::collections::BTreeMap;

use super::queue::Amounts;

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints that keep pods away.
    pub taints: Vec<Taint>,
    /// What it has for pods.
    pub allocatable: Amounts,
}

/// A pod that no queue admitted, as far as it takes up room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outsider {
    /// The node that it is on.
    pub node: String,
    /// What it holds there.
    pub amounts: Amounts,
}

/// What keeps pods away that do not tolerate it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// NoSchedule or NoExecute.
    pub effect: String,
}

/// What one pod asks of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodShape {
    /// What it asks for.
    pub amounts: Amounts,
    /// Labels that its node must have.
    pub node_selector: BTreeMap<String, String>,
    /// What it tolerates.
    pub tolerations: Vec<Toleration>,
}

/// What a pod tolerates; nothing given means anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Toleration {
    key: Option<String>,
    exists: bool,
    value: String,
    effect: Option<String>,
}

impl Toleration {
    /// As it is written in a pod.
    #[must_use]
    pub fn read(toleration: &Value) -> Self {
        let text =
            |key: &str| toleration.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        Self {
            key: text("key"),
            exists: toleration["operator"] == "Exists",
            value: text("value").unwrap_or_default(),
            effect: text("effect"),
        }
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        let key = self.key.as_ref().map_or(self.exists, |key| *key == taint.key);
        let effect = self.effect.as_ref().is_none_or(|effect| *effect == taint.effect);
        key && effect && (self.exists || self.value == taint.value)
    }
}

impl Node {
    /// Whether it has these labels.
    #[must_use]
    pub fn is_selected(&self, selector: &BTreeMap<String, String>) -> bool {
        selector.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }

    /// Whether the pod may go here at all, with what its flavor adds.
    #[must_use]
    pub fn admits(&self, pod: &PodShape, selector: &BTreeMap<String, String>, tolerations: &[Value]) -> bool {
        let tolerated = |taint: &Taint| {
            pod.tolerations.iter().any(|toleration| toleration.tolerates(taint))
                || tolerations.iter().any(|toleration| Toleration::read(toleration).tolerates(taint))
        };
        self.is_selected(&pod.node_selector) && self.is_selected(selector) && self.taints.iter().all(tolerated)
    }

    /// What is left of a resource once `taken` is gone.
    #[must_use]
    pub fn left(&self, resource: &str, taken: Option<&Amounts>) -> i64 {
        let has = self.allocatable.get(resource).copied().unwrap_or(0);
        has.saturating_sub(taken.and_then(|taken| taken.get(resource)).copied().unwrap_or(0)).max(0)
    }

    /// Whether it has what the pod asks for once `taken` is gone.
    #[must_use]
    pub fn has(&self, pod: &PodShape, taken: Option<&Amounts>) -> bool {
        pod.amounts.iter().all(|(resource, amount)| self.left(resource, taken) >= *amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_taint_is_tolerated_as_kubernetes_says() {
        let taint =
            |key: &str, value: &str| Taint { key: key.into(), value: value.into(), effect: "NoSchedule".into() };
        for (toleration, taint, wanted) in [
            (json!({"key": "gpu", "operator": "Exists"}), taint("gpu", "a100"), true),
            (json!({"key": "gpu", "value": "a100"}), taint("gpu", "a100"), true),
            (json!({"key": "gpu", "operator": "Equal", "value": "h100"}), taint("gpu", "a100"), false),
            (json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}), taint("gpu", ""), false),
            (json!({"key": "spot", "operator": "Exists"}), taint("gpu", ""), false),
            (json!({"operator": "Exists"}), taint("anything", "x"), true),
        ] {
            assert_eq!(Toleration::read(&toleration).tolerates(&taint), wanted, "{toleration}");
        }
    }
}

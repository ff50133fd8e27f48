//! What a rendered pod asks for, as the scheduler counts it.
//!
//! Containers run side by side, and init containers one after the other beside the sidecars that were started before
//! them: the most that is asked for at any moment counts, with the overhead of the pod's runtime class. The name
//! `pods` counts the pod itself.
//! Source: <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>

use serde_json::Value;
use std::sync::Arc;

use super::pod::as_text;
use crate::domain::quantity::amount;
use crate::domain::queue::{Amounts, add};

/// The amounts of one pod.
#[must_use]
pub fn of_pod(pod: &Value) -> Amounts {
    let list = |key: &str| pod["spec"].get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut sidecars = Amounts::new();
    let mut most = Amounts::new();
    for container in list("initContainers") {
        let asked = of_container(&container["resources"]);
        if container["restartPolicy"] == "Always" {
            add(&mut sidecars, &asked);
            at_least(&mut most, &sidecars);
        } else {
            let mut beside = sidecars.clone();
            add(&mut beside, &asked);
            at_least(&mut most, &beside);
        }
    }
    let mut running = sidecars;
    list("containers").iter().for_each(|container| add(&mut running, &of_container(&container["resources"])));
    at_least(&mut most, &running);
    // Where the pod as a whole says what it needs, that counts.
    for (resource, needed) in of_container(&pod["spec"]["resources"]) {
        most.insert(resource, needed);
    }
    add(&mut most, &quantities(&pod["spec"]["overhead"]));
    most.insert("pods".into(), 1);
    most.retain(|_, amount| *amount > 0);
    most
}

// A limit without a request is the request.
fn of_container(resources: &Value) -> Amounts {
    let mut asked = quantities(&resources["limits"]);
    asked.extend(quantities(&resources["requests"]));
    asked
}

fn quantities(map: &Value) -> Amounts {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.as_str().into(), amount(name, &as_text(value))?))).collect()
}

fn at_least(most: &mut Amounts, other: &Amounts) {
    for (resource, amount) in other {
        let entry = most.entry(Arc::clone(resource)).or_default();
        *entry = (*entry).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(requests: &[(&str, &str)]) -> Value {
        json!({"resources": {"requests": requests.iter().copied().collect::<std::collections::BTreeMap<_, _>>()}})
    }

    #[test]
    fn the_most_that_is_asked_for_at_any_moment_counts() {
        let cpu = |amount| with(&[("cpu", amount)]);
        let mut sidecar = cpu("250m");
        sidecar["restartPolicy"] = "Always".into();
        for (name, pod, wanted) in [
            ("side by side", json!({"containers": [cpu("1"), cpu("500m")]}), 1500),
            ("one after the other", json!({"initContainers": [cpu("2"), cpu("3")], "containers": [cpu("1")]}), 3000),
            ("a sidecar stays", json!({"initContainers": [sidecar, cpu("1")], "containers": [cpu("1")]}), 1250),
            ("overhead", json!({"containers": [cpu("1")], "overhead": {"cpu": "100m"}}), 1100),
            ("limits", json!({"containers": [{"resources": {"limits": {"cpu": 2}}}]}), 2000),
            ("both", json!({"containers": [{"resources": {"limits": {"cpu": 2}, "requests": {"cpu": 1}}}]}), 1000),
            ("of the pod", json!({"containers": [cpu("1")], "resources": {"requests": {"cpu": "3"}}}), 3000),
        ] {
            let amounts = of_pod(&json!({"spec": pod}));
            assert_eq!(amounts.get("cpu"), Some(&wanted), "{name}");
            assert_eq!(amounts.get("pods"), Some(&1), "{name}");
        }
    }
}

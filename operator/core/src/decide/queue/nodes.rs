//! Nodes: whether some node could take a pod, were it empty.
//!
//! What cannot land anywhere must not hold quota that others could use. What runs now is not looked at: runs end, and the
//! quota is what limits them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::engine::Engine;
use super::ledger::Line;
use super::pending::Class;
use crate::domain::node::{Node, PodShape};
use crate::domain::quantity;
use crate::domain::queue::{Flavor, Word};

/// Most answers that are kept.
const MOST_KNOWN: usize = 10_000;

/// Every node, and what was found out about them.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<String, Node>,
    told: bool,
    // By flavor (its selector and tolerations as text) and pod; until a node changes.
    known: RefCell<BTreeMap<(String, PodShape), bool>>,
}

impl Nodes {
    /// Whether this changes anything.
    pub fn set(&mut self, name: &str, node: Option<Node>) -> bool {
        let news = match node {
            Some(node) if self.nodes.get(name) == Some(&node) => false,
            Some(node) => self.nodes.insert(name.to_owned(), node).is_none_or(|_| true),
            None => self.nodes.remove(name).is_some(),
        };
        let first = !std::mem::replace(&mut self.told, true);
        if news || first {
            self.known.borrow_mut().clear();
        }
        news || first
    }

    /// Whether some node of a flavor could take a pod.
    pub fn take(&self, flavor: &Flavor, pod: &PodShape) -> bool {
        if !flavor.node_fit || !self.told {
            return true;
        }
        let key = (format!("{:?}{:?}", flavor.node_selector, flavor.tolerations), pod.clone());
        if let Some(known) = self.known.borrow().get(&key) {
            return *known;
        }
        let fits = self.of(flavor, pod).any(|node| node.has(pod));
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(key, fits);
        fits
    }

    fn of<'a>(&'a self, flavor: &'a Flavor, pod: &'a PodShape) -> impl Iterator<Item = &'a Node> {
        self.nodes.values().filter(|node| node.admits(pod, &flavor.node_selector, &flavor.tolerations))
    }
}

impl Engine {
    /// Why no node takes a pod, of the flavor that comes nearest.
    pub(super) fn no_node(&self, line: &Line, class: &Class) -> String {
        let pod = &class.pod;
        let flavors = line.config.flavors.iter().filter(|flavor| flavor.node_fit);
        let nearest = flavors.max_by_key(|flavor| self.nodes.of(flavor, pod).count());
        let Some(flavor) = nearest else { return "no node could take one of its pods".to_owned() };
        let matching = self.nodes.of(flavor, pod).count();
        let all = self.nodes.nodes.len();
        if matching == 0 {
            return format!(
                "none of the {all} nodes has the labels and tolerated taints of queue {}{}",
                line.config.name,
                of_flavor(&flavor.name)
            );
        }
        let most = |resource: &Word| {
            self.nodes
                .of(flavor, pod)
                .map(|node| node.allocatable.get(resource).copied().unwrap_or(0))
                .max()
                .unwrap_or(0)
        };
        let short = pod.amounts.iter().find(|(resource, amount)| most(resource) < **amount);
        match short {
            Some((resource, amount)) => format!(
                "a pod asks for {} {resource}, and the largest of {matching} nodes that may take it has {}{}",
                quantity::text(resource, *amount),
                quantity::text(resource, most(resource)),
                of_flavor(&flavor.name)
            ),
            None => format!(
                "no single one of {matching} nodes has all that a pod asks for{}; make the pod smaller, or add larger nodes",
                of_flavor(&flavor.name)
            ),
        }
    }
}

fn of_flavor(name: &Word) -> String {
    if name.is_empty() { String::new() } else { format!(" (flavor {name})") }
}

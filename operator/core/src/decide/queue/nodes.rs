//! Nodes: whether some node could take a pod, were no run of a queue on it.
//!
//! What cannot land anywhere must not hold quota that others could use. Runs of queues are not looked at: they end, and the
//! quota is what limits them; their pods are in the ledger and in no sum here. Pods that no queue admitted are another
//! matter: nobody here knows when they end, and no quota speaks of them. So what they hold of a node is not there.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::engine::Engine;
use super::ledger::Line;
use super::model::Class;
use crate::domain::node::{Node, Outsider, PodShape};
use crate::domain::quantity;
use crate::domain::queue::{Amounts, Flavor, Word, is_extended};

/// Most answers that are kept.
const MOST_KNOWN: usize = 10_000;

/// Every node, and what was found out about them.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<String, Node>,
    told: bool,
    // By namespace and name.
    outsiders: BTreeMap<String, Outsider>,
    // What they hold together, by node; never zero.
    taken: BTreeMap<String, Amounts>,
    // By flavor (its selector and tolerations as text) and pod; until a node or what is taken of it changes.
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

    /// A pod that no queue admitted holds this, or holds nothing any more; whether there is more room than before.
    pub fn set_outsider(&mut self, name: &str, outsider: Option<Outsider>) -> bool {
        if self.outsiders.get(name) == outsider.as_ref() {
            return false;
        }
        let before = self.outsiders.remove(name);
        let freed = before.is_some();
        if let Some(before) = before {
            self.take_up(&before, -1);
        }
        if let Some(outsider) = outsider {
            self.take_up(&outsider, 1);
            self.outsiders.insert(name.to_owned(), outsider);
        }
        self.known.borrow_mut().clear();
        freed
    }

    /// The pods that no queue admitted and that hold something.
    pub fn outsiders(&self) -> impl Iterator<Item = &String> {
        self.outsiders.keys()
    }

    fn take_up(&mut self, outsider: &Outsider, sign: i64) {
        let taken = self.taken.entry(outsider.node.clone()).or_default();
        for (resource, amount) in &outsider.amounts {
            *taken.entry(Arc::clone(resource)).or_default() += sign * amount;
        }
        taken.retain(|_, amount| *amount != 0);
        if taken.is_empty() {
            self.taken.remove(&outsider.node);
        }
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
        let fits = self.of(flavor, pod).any(|(name, node)| node.has(pod, self.taken.get(name)));
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(key, fits);
        fits
    }

    /// The most that pods outside the queues leave of each extended resource on one node with these labels. Its taints are
    /// not looked at: a pod may tolerate more than its flavor does.
    pub fn largest_free(&self, selector: &BTreeMap<String, String>) -> Amounts {
        let mut largest = Amounts::new();
        for (name, node) in self.nodes.iter().filter(|(_, node)| node.is_selected(selector)) {
            for resource in node.allocatable.keys().filter(|resource| is_extended(resource)) {
                let free = node.left(resource, self.taken.get(name));
                let most = largest.entry(Arc::clone(resource)).or_default();
                *most = free.max(*most);
            }
        }
        largest
    }

    /// Whether anybody tells of nodes.
    pub fn are_told(&self) -> bool {
        self.told
    }

    fn of<'a>(&'a self, flavor: &'a Flavor, pod: &'a PodShape) -> impl Iterator<Item = (&'a String, &'a Node)> {
        self.nodes.iter().filter(|(_, node)| node.admits(pod, &flavor.node_selector, &flavor.tolerations))
    }
}

impl Nodes {
    // Where some node is large enough: how much of it the others hold.
    fn taken_up(&self, flavor: &Flavor, pod: &PodShape) -> Option<String> {
        let (mut matching, mut large) = (0_usize, Vec::new());
        for (name, node) in self.of(flavor, pod) {
            matching += 1;
            large.extend(node.has(pod, None).then_some((node, self.taken.get(name))));
        }
        // The resource that is short on most of them, and on any that it is short on: there is one, or the pod would fit.
        let short = |resource: &Word, need: i64| large.iter().filter(|(n, t)| n.left(resource, *t) < need).count();
        let (resource, need) = pod
            .amounts
            .iter()
            .filter(|(resource, need)| short(resource, **need) > 0)
            .max_by_key(|(resource, need)| (short(resource, **need), Reverse(Arc::clone(resource))))?;
        let (node, taken) = large.iter().max_by_key(|(node, taken)| node.left(resource, *taken))?;
        let held = taken.and_then(|taken| taken.get(resource)).copied().unwrap_or(0);
        let text = |amount: i64| quantity::text(resource, amount);
        Some(format!(
            "needs {} {resource} on one node; the largest free block of {matching} nodes that may take it is {}: {} are held there by pods outside the queues{}",
            text(*need),
            text(node.left(resource, *taken)),
            text(held),
            of_flavor(&flavor.name)
        ))
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
        let most =
            |resource: &Word| self.nodes.of(flavor, pod).map(|(_, node)| node.left(resource, None)).max().unwrap_or(0);
        let short = pod.amounts.iter().find(|(resource, amount)| most(resource) < **amount);
        match short {
            Some((resource, amount)) => format!(
                "a pod asks for {} {resource}, and the largest of {matching} nodes that may take it has {}{}",
                quantity::text(resource, *amount),
                quantity::text(resource, most(resource)),
                of_flavor(&flavor.name)
            ),
            None => self.nodes.taken_up(flavor, pod).unwrap_or_else(|| {
                format!(
                    "no single one of {matching} nodes has all that a pod asks for{}; make the pod smaller, or add larger nodes",
                    of_flavor(&flavor.name)
                )
            }),
        }
    }
}

fn of_flavor(name: &Word) -> String {
    if name.is_empty() { String::new() } else { format!(" (flavor {name})") }
}

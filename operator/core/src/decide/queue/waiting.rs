//! Reasons: everything that waits is told why, and told again only when that changes.

use cultivar_crds::Reason;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::engine::Engine;
use super::ledger::Line;
use super::model::{Class, Id, Outcome, Wait};
use super::pass::{Block, Seen};
use crate::domain::quantity;
use crate::domain::queue::{Amounts, Word};

/// How many of those who hold something a message names.
const NAMED: usize = 3;
/// How many places are told anew at a time, over all queues.
const PLACES_TOLD: usize = 50;

impl Engine {
    pub(super) fn tell(&mut self, queue: &Word, seen: Seen, outcome: &mut Outcome) {
        let blocked = match self.stopped(queue) {
            // Nobody was looked at.
            Some(reason) => {
                let classes = self.ledger.lines.get(queue).map(|line| line.pending.classes()).unwrap_or_default();
                classes.into_iter().map(|class| (class, Block { reason, short: None })).collect()
            }
            None => seen.blocked,
        };
        let Some(line) = self.ledger.lines.get(queue) else { return };
        let mut news: Vec<(Id, Wait)> = Vec::new();
        let mut messages: BTreeMap<&(Word, Arc<Class>), Word> = BTreeMap::new();
        for (class, block) in &blocked {
            if line.told.get(class).is_some_and(|told| told.reason == block.reason) {
                continue;
            }
            let message: Word = self.message(line, block, &class.0, &class.1).into();
            news.extend(line.pending.of_class(&class.0, &class.1).map(|id| (id.clone(), wait(queue, block, &message))));
            messages.insert(class, message);
        }
        for id in &line.fresh {
            let Some(asked) = self.asks.get(id).filter(|asked| asked.queue.as_ref() == Some(queue)) else { continue };
            if line.outside.contains(&(Reverse(asked.priority), asked.ask.since, id.clone())) {
                news.push((id.clone(), full(queue)));
                continue;
            }
            let class = (Arc::clone(&id.namespace), Arc::clone(&asked.ask.class));
            let Some((known, block)) = blocked.get_key_value(&class) else { continue };
            let message = messages.entry(known).or_insert_with(|| self.message(line, block, &known.0, &known.1).into());
            news.push((id.clone(), wait(queue, block, message)));
        }
        for (id, wait) in news {
            let position = self.waits.get(&id).and_then(|known| known.position);
            // It may have been told so already, as one of its class.
            if self.waits.get(&id).is_none_or(|known| known.reason != wait.reason) {
                outcome.changed.insert(id.clone());
                self.waits.insert(id.clone(), Wait { position, ..wait });
            }
        }
        if let Some(line) = self.ledger.lines.get_mut(queue) {
            line.fresh.clear();
            line.told = blocked;
        }
    }

    pub(super) fn tell_promised(&mut self, queue: &Word, id: &Id, stopped: &[String], outcome: &mut Outcome) {
        let message = if stopped.is_empty() {
            "others were told to stop already, and are ending; it gets what they leave".to_owned()
        } else {
            format!("{} is stopped for it, and is ending", crate::domain::text::some_of(stopped, NAMED))
        };
        let wait = Wait {
            queue: Some(Arc::clone(queue)),
            reason: Reason::WaitingForPreemption,
            message: message.into(),
            position: Some(1),
        };
        self.waits.insert(id.clone(), wait);
        if let Some(line) = self.ledger.lines.get_mut(queue) {
            line.fresh.remove(id);
        }
        outcome.changed.insert(id.clone());
    }

    /// Counts who stands where; to be asked from time to time. Some places at most are told anew, the most outdated ones
    /// first: in a long queue every place changes with each that starts, and each that is told is a write.
    pub fn count_places(&mut self, now: Timestamp) -> Outcome {
        let mut outcome = Outcome::default();
        let mut moved = Vec::new();
        for line in self.ledger.lines.values() {
            let order = line.pending.all(|namespace| line.share_of(namespace, now));
            let last = u32::try_from(order.len()).unwrap_or(u32::MAX);
            for (place, id) in (1..).zip(order) {
                let Some(wait) = self.waits.get(&id).filter(|wait| wait.position != Some(place)) else { continue };
                // Who was never told may think that all others come first.
                moved.push((outdated(wait.position.unwrap_or(last), place), place, id, line));
            }
        }
        moved.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, &a.2).cmp(&(b.1, &b.2))));
        moved.truncate(PLACES_TOLD);
        let news: Vec<_> =
            moved.into_iter().map(|(_, place, id, line)| (self.message_of(line, &id), place, id)).collect();
        for (message, place, id) in news {
            let Some(wait) = self.waits.get_mut(&id) else { continue };
            wait.position = Some(place);
            if let Some(message) = message {
                wait.message = message.into();
            }
            outcome.changed.insert(id);
        }
        outcome
    }

    // The particulars of its class as they are now.
    fn message_of(&self, line: &Line, id: &Id) -> Option<String> {
        let ask = &self.asks.get(id)?.ask;
        let class = (Arc::clone(&id.namespace), Arc::clone(&ask.class));
        let block = line.told.get(&class)?;
        Some(self.message(line, block, &id.namespace, &class.1))
    }

    fn message(&self, line: &Line, block: &Block, namespace: &Word, class: &Class) -> String {
        let queue = &line.config.name;
        match block.reason {
            Reason::QueueHeld if line.config.deleting => format!("queue {queue} is being deleted"),
            Reason::QueueHeld => format!("queue {queue} admits nothing (spec.stop: {:?})", line.config.stop),
            Reason::FlavorConflict => format!("queue {queue}: {}", line.conflict.as_deref().unwrap_or_default()),
            Reason::WaitingForTurn => {
                format!("others of queue {queue} come first, and would start later if this one overtook them")
            }
            Reason::NoNodeFits => self.no_node(line, class),
            _ => self.shortage(line, block, namespace, &class.amounts),
        }
    }

    fn shortage(&self, line: &Line, block: &Block, namespace: &Word, amounts: &Amounts) -> String {
        let queue = &line.config.name;
        let Some((flavor, resource)) = &block.short else { return format!("queue {queue} has no room") };
        let place = (Arc::clone(flavor), Arc::clone(resource));
        let text = |amount: i64| quantity::text(resource, amount);
        let need = text(amounts.get(resource).copied().unwrap_or(0));
        let what = if flavor.is_empty() { resource.to_string() } else { format!("{resource} of flavor {flavor}") };
        let limit = line.limit(&place).unwrap_or_default();
        if block.reason == Reason::ExceedsCap {
            let most = self.ledger.reach(queue, &place).unwrap_or(0);
            return format!(
                "asks for {need} {what}, and queue {queue} can never have more than {} of it for one run: change the run's resources or the queue",
                text(most)
            );
        }
        let held = line.by_namespace.get(namespace).and_then(|held| held.get(resource)).copied().unwrap_or(0);
        if let Some(most) = line
            .config
            .namespace_limits
            .get(resource)
            .filter(|most| held + amounts.get(resource).copied().unwrap_or(0) > **most)
        {
            return format!(
                "asks for {need} {resource}; namespace {namespace} holds {} of the {} that one namespace may have of queue {queue}",
                text(held),
                text(*most)
            );
        }
        let own = format!("queue {queue} uses {} of its quota of {}", text(line.used(&place)), text(limit.quota));
        let cap = limit.cap.map_or(String::new(), |cap| format!(" (cap {})", text(cap)));
        let idle = match &line.config.cohort {
            Some(cohort) => format!(", cohort {cohort} lends no more"),
            None => String::new(),
        };
        let holders = self.holders(line, &place);
        format!("asks for {need} {what}; {own}{cap}{idle}; held by {holders}")
    }

    // Who holds most of a place in this group.
    fn holders(&self, line: &Line, place: &(Word, Word)) -> String {
        let members = self.ledger.members.get(&super::ledger::Group::of(&line.config));
        let lines = members.into_iter().flatten().filter_map(|name| self.ledger.lines.get(name));
        let keys = lines.flat_map(|line| &line.holds);
        let holds = keys.filter_map(|key| Some((&key.0, &self.holds.get(key)?.hold.claim)));
        let granted = self
            .grants
            .iter()
            .map(|(id, grant)| (id, &grant.claim))
            .filter(|(_, claim)| members.is_some_and(|members| members.contains(&claim.queue)));
        let of_place = |(id, claim): (&Id, &crate::domain::Claim)| {
            let amount = claim.amounts.get(&place.1).filter(|_| claim.flavor == place.0).copied()?;
            (amount > 0).then(|| (amount, id.clone()))
        };
        let mut held: Vec<(i64, Id)> = holds.chain(granted).filter_map(of_place).collect();
        held.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let names: Vec<String> =
            held.iter().map(|(amount, id)| format!("{id} ({})", quantity::text(&place.1, *amount))).collect();
        if names.is_empty() { "nobody".to_owned() } else { crate::domain::text::some_of(&names, NAMED) }
    }
}

fn full(queue: &Word) -> Wait {
    let message = format!(
        "queue {queue} has as many waiting as it takes (maxQueued); this one joins when one of them starts or leaves, or when maxQueued is raised"
    );
    Wait { queue: Some(Arc::clone(queue)), reason: Reason::QueueFull, message: message.into(), position: None }
}

fn wait(queue: &Word, block: &Block, message: &Word) -> Wait {
    Wait { queue: Some(Arc::clone(queue)), reason: block.reason, message: Arc::clone(message), position: None }
}

// How far what was told of a place is from the truth: by what factor.
fn outdated(told: u32, place: u32) -> f64 {
    f64::from(told.max(place)) / f64::from(told.min(place).max(1))
}

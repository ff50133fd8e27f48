//! A stage that fans out: which of its members have ended, which start now, and how the whole stands.
//!
//! Comes in: the board and a stage with a matrix or count. Goes out: one state for the stage, and actions for members. At
//! most `maxParallel` members are there at once; the status counts them and keeps sets of indexes, never a list.

use cultivar_crds::{CancelMode, MemberEnds, MembersStatus, Phase, Reason, StageStatus};
use serde_json::Value;
use std::collections::BTreeMap;

use super::board::{Board, Place, failed, state, unwanted};
use super::child::Child;
use super::matrix::{Coordinates, FanOut};
use super::{FrozenStage, values};
use crate::domain::{Member, ranges, text};
use crate::refs::{Expression, Head};

/// Members that are there at once where `maxParallel` does not say.
const WINDOW: u32 = 500;
/// Experiments that one pass makes of one fan-out: the next pass follows when they are there.
const PER_PASS: usize = 250;

/// The members of a fan-out as a pass finds and leaves them.
struct Members<'a> {
    stage: &'a FrozenStage,
    fan_out: &'a FanOut,
    recorded: MembersStatus,
    /// Those that are there.
    known: BTreeMap<u32, &'a Child>,
    /// Those that have ended.
    ends: BTreeMap<u32, Phase>,
}

impl Members<'_> {
    fn live(&self) -> impl Iterator<Item = &Child> {
        // After a crash a member may be recorded as ended here before it is so itself.
        let live = self.known.iter().filter(|(index, child)| !child.has_ended() && !self.ends.contains_key(index));
        live.map(|(_, child)| *child)
    }

    fn count(&self, phase: Phase) -> u32 {
        u32::try_from(self.ends.values().filter(|end| **end == phase).count()).unwrap_or(u32::MAX)
    }

    fn has_failed(&self) -> bool {
        self.ends.values().any(|end| matches!(end, Phase::Failed | Phase::Cancelled))
    }

    fn problem(&mut self, index: u32, words: &str) {
        let member = Member::of(&self.stage.name, index);
        self.recorded.problem.get_or_insert_with(|| text::message(format!("{member}: {words}")));
        self.ends.insert(index, Phase::Failed);
    }

    // What they were made from is gone meanwhile: those that are there go on, the others cannot be made.
    fn give_up(&mut self, words: &str) {
        let seen = self.known.keys().chain(self.ends.keys()).max().map_or(0, |last| last + 1);
        self.recorded.total = self.recorded.total.max(seen);
        for index in self.recorded.started..self.recorded.total {
            if !self.known.contains_key(&index) && !self.ends.contains_key(&index) {
                self.problem(index, words);
            }
        }
        self.recorded.started = self.recorded.total;
    }

    fn status(&self) -> MembersStatus {
        let which = |phase| ranges::print(self.ends.iter().filter(|(_, end)| **end == phase).map(|(index, _)| *index));
        MembersStatus {
            live: u32::try_from(self.live().count()).unwrap_or(u32::MAX),
            completed: self.count(Phase::Completed),
            failed: self.count(Phase::Failed),
            cancelled: self.count(Phase::Cancelled),
            skipped: self.count(Phase::Skipped),
            ends: MemberEnds {
                completed: which(Phase::Completed),
                failed: which(Phase::Failed),
                cancelled: which(Phase::Cancelled),
                skipped: which(Phase::Skipped),
            },
            ..self.recorded.clone()
        }
    }

    // Who failed, and why, for a person.
    fn failures(&self) -> String {
        let bad = self.ends.iter().filter(|(_, end)| matches!(end, Phase::Failed | Phase::Cancelled));
        let told = bad.filter_map(|(index, end)| {
            let reason = self.known.get(index)?.reason();
            let reason = reason.map_or_else(|| end.as_str().to_owned(), |reason| reason.to_string());
            Some(format!("{} ({reason})", Member::of(&self.stage.name, *index)))
        });
        let told: Vec<String> = self.recorded.problem.iter().cloned().chain(told).collect();
        let bad = self.count(Phase::Failed) + self.count(Phase::Cancelled);
        format!("{bad} of {} members did not complete: {}", self.recorded.total, text::some_of(&told, 4))
    }
}

impl<'a> Board<'a> {
    fn members_of<'s>(&self, stage: &'s FrozenStage, fan_out: &'s FanOut) -> Members<'s>
    where
        'a: 's,
    {
        let known: BTreeMap<u32, &Child> = self.children_of(stage).collect();
        let mut recorded = self.recorded(stage).and_then(|recorded| recorded.members.clone()).unwrap_or_default();
        let mut ends = values::ends(&recorded);
        for (index, child) in known.iter().filter(|(_, child)| child.has_ended()) {
            ends.entry(*index).or_insert(child.phase());
        }
        // After a crash more of them may be there than was recorded.
        let there = |index: u32| known.contains_key(&index) || ends.contains_key(&index);
        while recorded.started < recorded.total && there(recorded.started) {
            recorded.started += 1;
        }
        Members { stage, fan_out, recorded, known, ends }
    }

    /// Moves a fan-out on whose stage may run.
    pub(super) fn fan_out(&mut self, stage: &FrozenStage, fan_out: &FanOut) -> StageStatus {
        let mut members = self.members_of(stage, fan_out);
        // None at all would have ended the stage: it is not known yet how many there are.
        let open = members.recorded.total == 0
            || members.recorded.started < members.recorded.total
                && (self.gives_up(&members) || self.room_for(&members) > 0);
        if open && !self.may_go_on(stage) {
            return self.underway(&members, members.status());
        }
        let known = match open.then(|| self.readable_by(stage)) {
            Some(Err(state)) if members.known.is_empty() && members.ends.is_empty() => return *state,
            Some(Err(_)) => return self.underway(&members, members.status()),
            Some(Ok(known)) => Some(known),
            None => None,
        };
        if let Some(known) = &known {
            match fan_out.members(&self.names(known)) {
                Ok(coordinates) => {
                    members.recorded.total = u32::try_from(coordinates.len()).unwrap_or(u32::MAX);
                    self.start_members(&mut members, &coordinates, known);
                }
                Err(words) if members.known.is_empty() && members.ends.is_empty() => {
                    return failed(&stage.name, Reason::ReferenceUnresolved, words);
                }
                Err(words) => members.give_up(&words),
            }
        }
        self.look_for_the_lost(&mut members);
        if fan_out.fail_fast && members.has_failed() {
            self.end_all(&members);
        }
        self.conclude(&members)
    }

    // Whether no more members are started, and those that are not have ended with that.
    fn gives_up(&self, members: &Members<'_>) -> bool {
        self.cancel || self.stopping || members.fan_out.fail_fast && members.has_failed()
    }

    // How many members this pass may start.
    fn room_for(&self, members: &Members<'_>) -> usize {
        let most = members.fan_out.max_parallel.unwrap_or(WINDOW) as usize;
        let room = most.saturating_sub(members.live().count()).min(PER_PASS);
        self.room.map_or(room, |of_the_run| room.min(of_the_run))
    }

    // In the order of their indexes, as far as there is room.
    fn start_members(&mut self, members: &mut Members<'_>, all: &[Coordinates], known: &Value) {
        let stage = members.stage;
        let (gives_up, mut room) = (self.gives_up(members), self.room_for(members));
        let reads_coordinates = stage.when.as_deref().is_some_and(reads_coordinates);
        for (index, coordinates) in (0_u32..).zip(all).skip(members.recorded.started as usize) {
            if !members.known.contains_key(&index) && !members.ends.contains_key(&index) {
                if gives_up {
                    members.ends.insert(index, Phase::Cancelled);
                } else if room == 0 {
                    break;
                } else {
                    let member = Member::of(&stage.name, index);
                    match self.start_member(stage, known, member, coordinates, reads_coordinates) {
                        Ok(true) => room -= 1,
                        Ok(false) => drop(members.ends.insert(index, Phase::Skipped)),
                        Err(words) => members.problem(index, &words),
                    }
                }
            }
            members.recorded.started = index + 1;
        }
    }

    // False: `when` leaves the member out.
    fn start_member(
        &mut self,
        stage: &FrozenStage,
        known: &Value,
        member: Member,
        coordinates: &Coordinates,
        reads_coordinates: bool,
    ) -> Result<bool, String> {
        if let Some(words) = self.refusal(&member) {
            return Err(words);
        }
        let mut matrix = coordinates.clone();
        matrix.insert("index".to_owned(), member.index.into());
        let matrix = Value::Object(matrix);
        if reads_coordinates && !self.is_wanted(stage, &self.names(known).with(Head::Matrix, &matrix))? {
            return Ok(false);
        }
        self.create(stage, known, member, &Place::Member(coordinates, &matrix))?;
        Ok(true)
    }

    // Recorded as started, and neither there nor ended: the API server itself is asked before that is believed.
    fn look_for_the_lost(&mut self, members: &mut Members<'_>) {
        let recorded = self.recorded(members.stage).and_then(|recorded| recorded.members.as_ref());
        let started = recorded.map_or(0, |recorded| recorded.started);
        let is_lost = |index: &u32| !members.known.contains_key(index) && !members.ends.contains_key(index);
        let lost: Vec<u32> = (0..started).filter(is_lost).collect();
        for index in lost {
            let member = Member::of(&members.stage.name, index);
            if self.snapshot.confirmed_gone.contains(&member) {
                members.problem(index, "it was deleted before it ended");
            } else {
                self.confirm(members.stage, member);
            }
        }
    }

    fn end_all(&mut self, members: &Members<'_>) {
        let mode = CancelMode::default();
        let live = members.live().filter(|child| !child.is_asked_to_end(mode));
        self.actions.extend(live.filter_map(|child| child.cancel(mode)));
    }

    fn conclude(&self, members: &Members<'_>) -> StageStatus {
        let (name, status) = (&members.stage.name, members.status());
        let ended = u32::try_from(members.ends.len()).unwrap_or(u32::MAX);
        let whole = if status.total == 0 {
            state(name, Phase::Skipped, Reason::NoMembers, "the fan-out has no members")
        } else if ended < status.total {
            return self.underway(members, status);
        } else if self.cancel && status.cancelled > 0 {
            self.ended_with_the_run(name, "ended")
        } else if members.has_failed() {
            failed(name, Reason::MemberFailed, members.failures())
        } else if status.skipped == status.total {
            unwanted(members.stage)
        } else {
            StageStatus { name: name.clone(), phase: Phase::Completed, ..StageStatus::default() }
        };
        StageStatus { members: Some(status), ..whole }
    }

    fn underway(&self, members: &Members<'_>, status: MembersStatus) -> StageStatus {
        let name = &members.stage.name;
        let mut told = members.live().map(Child::standing);
        let whole = match told.next() {
            _ if members.has_failed() => state(name, Phase::Running, Reason::MemberFailed, members.failures()),
            // All of them wait: the first one says for what.
            Some((phase @ (Phase::Pending | Phase::Queued), reason, message))
                if told.all(|(phase, ..)| phase != Phase::Running) =>
            {
                let message = message.map(str::to_owned);
                StageStatus { name: name.clone(), phase, reason, message, ..StageStatus::default() }
            }
            None if self.room == Some(0) && status.ends == MemberEnds::default() => self.waits_for_room(name),
            _ => StageStatus { name: name.clone(), phase: Phase::Running, ..StageStatus::default() },
        };
        StageStatus { members: Some(status), ..whole }
    }
}

// Where it does not, one answer holds for all members.
pub(super) fn reads_coordinates(when: &str) -> bool {
    Expression::parse(when).is_ok_and(|when| when.uses().iter().any(|path| path.head == Head::Matrix))
}

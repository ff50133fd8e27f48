//! A stage that is a loop: one turn after the other, each seeing what the one before brought.
//!
//! Comes in: the board and a stage with `repeat`. Goes out: one state for the stage, and the next turn when one has
//! completed and the condition does not hold yet.

use cultivar_crds::{Phase, Reason, Repeat, StageStatus};
use serde_json::{Value, json};

use super::FrozenStage;
use super::board::{Board, Place, failed, state, summary};
use super::child::Child;
use super::contents::uses_of;
use crate::domain::Member;
use crate::refs::{Head, eval_bool};

impl Board<'_> {
    /// Moves a loop on whose stage may run.
    pub(super) fn repeat(&mut self, stage: &FrozenStage, repeat: &Repeat) -> StageStatus {
        let recorded = self.recorded(stage).and_then(|recorded| recorded.turn).map(|turn| turn.saturating_sub(1));
        let Some(turn) = self.children_of(stage).map(|(index, _)| index).max().max(recorded) else {
            return self.turn(stage, 0, Value::Null);
        };
        let member = Member::of(&stage.name, turn);
        let snapshot = self.snapshot;
        let Some(child) = snapshot.children.get(&member) else {
            return self.lost_turn(stage, member, turn);
        };
        let at_turn = |state: StageStatus| StageStatus { turn: Some(turn + 1), ..named(state, child) };
        let told = summary(stage, child);
        if told.phase != Phase::Completed {
            return at_turn(told);
        }
        if !self.may_go_on(stage) {
            return at_turn(StageStatus { phase: Phase::Running, ..told });
        }
        match self.holds(stage, repeat, turn, child) {
            Err(words) => at_turn(failed(&stage.name, Reason::ReferenceUnresolved, words)),
            Ok(true) => at_turn(told),
            Ok(false) if turn + 1 >= repeat.max => {
                let until = repeat.until.as_deref().unwrap_or_default();
                let words = format!("after {} turns this does not hold: {until}", repeat.max);
                at_turn(failed(&stage.name, Reason::RepeatLimit, words))
            }
            Ok(false) if self.cancel => at_turn(self.ended_with_the_run(&stage.name, "ended")),
            Ok(false) if self.stopping => {
                let words = "another stage failed between two turns, and onFailure is Stop";
                at_turn(state(&stage.name, Phase::Cancelled, Reason::StageFailed, words))
            }
            Ok(false) if self.room == Some(0) => {
                let waits = self.waits_for_room(&stage.name);
                at_turn(StageStatus { phase: Phase::Running, ..waits })
            }
            Ok(false) => self.turn(stage, turn + 1, child.value()),
        }
    }

    // Whether the loop is over: its condition holds, or there is none and this was the last turn.
    fn holds(&self, stage: &FrozenStage, repeat: &Repeat, turn: u32, child: &Child) -> Result<bool, String> {
        let Some(until) = &repeat.until else { return Ok(turn + 1 >= repeat.max) };
        let known = self.known_to(stage, &uses_of(stage));
        let about = json!({"index": turn, "last": child.value()});
        let holds = eval_bool(until, &self.names(&known).with(Head::Repeat, &about));
        holds.map_err(|error| format!("repeat.until: {error}"))
    }

    fn turn(&mut self, stage: &FrozenStage, turn: u32, last: Value) -> StageStatus {
        let member = Member::of(&stage.name, turn);
        if let Some(words) = self.refusal(&member) {
            let words = format!("turn {}: {words}", turn + 1);
            return StageStatus { turn: Some(turn + 1), ..failed(&stage.name, Reason::InvalidTemplate, words) };
        }
        let known = match self.readable_by(stage) {
            Ok(known) => known,
            Err(state) => return StageStatus { turn: (turn > 0).then_some(turn), ..*state },
        };
        // Before the first turn nothing was brought: what is read of it is absent.
        let last = if last.is_null() { json!({"metrics": {}, "artifacts": {}, "outputs": {}}) } else { last };
        let about = json!({"index": turn, "last": last});
        let made = self.create(stage, &known, member, &Place::Turn(&about));
        let state = match made {
            Ok(made) => StageStatus { phase: if turn == 0 { Phase::Pending } else { Phase::Running }, ..made },
            Err(words) => failed(&stage.name, Reason::ReferenceUnresolved, format!("turn {}: {words}", turn + 1)),
        };
        StageStatus { turn: Some(turn + 1), ..state }
    }

    fn lost_turn(&mut self, stage: &FrozenStage, member: Member, turn: u32) -> StageStatus {
        let state = if self.snapshot.confirmed_gone.contains(&member) {
            let words = format!("turn {} was deleted before it ended", turn + 1);
            failed(&stage.name, Reason::ExperimentDeleted, words)
        } else {
            self.confirm(stage, member);
            self.recorded(stage).cloned().unwrap_or_default()
        };
        StageStatus { name: stage.name.clone(), turn: Some(turn + 1), ..state }
    }
}

/// The state with the name of what stands for the stage.
pub(super) fn named(state: StageStatus, child: &Child) -> StageStatus {
    let name = Some(child.meta().name.clone());
    match child {
        Child::Experiment(experiment) => {
            let reused_from = experiment.status.reused_from.as_ref().map(|from| from.name.clone());
            StageStatus { experiment: name, reused_from, ..state }
        }
        Child::Run(_) => StageStatus { run: name, ..state },
    }
}

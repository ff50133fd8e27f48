//! A stage that is a gate: it runs nothing, and waits until somebody says yes or no, or until its time is over.
//!
//! Comes in: the board, a stage with `gate`, and the Approvals of the run. Goes out: its state; what was answered stands in it
//! for good.

use cultivar_crds::approval::MAX_VALUES;
use cultivar_crds::{Answer, Gate, GateStatus, OnTimeout, Phase, Reason, StageStatus};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

use super::FrozenStage;
use super::board::{Board, failed, state};
use crate::domain::{ApprovalRecord, text, time};
use crate::refs::{Insert, Scope, resolve_text};
use crate::validate;

/// How long a gate waits that does not say it.
const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Most bytes of what is asked, so that there is room for how to answer.
const MOST: usize = 400;

impl Board<'_> {
    /// What is known of a gate for good: what was recorded, else what the run had recorded that this one resumes.
    pub(super) fn answered(&self, stage: &FrozenStage) -> Option<StageStatus> {
        let recorded = self.recorded(stage);
        if let Some(ended) = recorded.filter(|recorded| recorded.phase.is_terminal()) {
            return Some(ended.clone());
        }
        let old = self.snapshot.resumed.as_ref()?.status.stages.iter().find(|old| old.name == stage.name)?;
        (old.phase == Phase::Completed && recorded.is_none_or(|recorded| recorded.gate.is_none())).then(|| old.clone())
    }

    /// Opens a gate.
    pub(super) fn open(&mut self, stage: &FrozenStage, gate: &Gate, known: &Value) -> StageStatus {
        let asked = gate.message.as_deref().map(|message| {
            // For a person, not for a program: what references bring stands there as it is, in one line.
            let resolved = resolve_text(message, Scope::Outer, &self.names(known), Insert::Plain)?;
            Ok(resolved.as_str().map_or_else(|| resolved.to_string(), str::to_owned))
        });
        match asked.transpose() {
            Err::<_, crate::refs::RefError>(error) => {
                failed(&stage.name, Reason::ReferenceUnresolved, format!("gate.message: {error}"))
            }
            Ok(message) => {
                let opened_at = time::stamp(self.snapshot.now);
                let message = message.map(|message| in_one_line(&message));
                self.gate(stage, gate, GateStatus { opened_at, message, ..GateStatus::default() })
            }
        }
    }

    /// Where a gate stands that is open.
    pub(super) fn gate(&mut self, stage: &FrozenStage, gate: &Gate, open: GateStatus) -> StageStatus {
        let name = &stage.name;
        if self.cancel {
            return StageStatus { gate: Some(open), ..self.ended_with_the_run(name, "was answered") };
        }
        if self.stopping {
            let words = "another stage failed before the gate was answered, and onFailure is Stop";
            return StageStatus { gate: Some(open), ..state(name, Phase::Cancelled, Reason::StageFailed, words) };
        }
        let opened = time::read(Some(&open.opened_at)).unwrap_or(self.snapshot.now);
        let longest = gate.timeout.as_deref().and_then(|text| time::parse_duration(text).ok()).unwrap_or(TIMEOUT);
        let deadline = time::after(opened, longest);
        let (answer, misfits) = self.answer(stage, gate, deadline);
        // After a crash the gate may be known to be open before what it was opened after is known to have ended.
        if self.may_go_on(stage) {
            if let Some(answer) = answer {
                return answered(name, open, &answer, opened);
            }
            if self.snapshot.now >= deadline {
                return timed_out(name, gate, open, deadline, longest);
            }
        }
        self.wake = Some(self.wake.map_or(deadline, |wake| wake.min(deadline)));
        let words = self.question(stage, gate, &open, deadline, &misfits);
        StageStatus { gate: Some(open), ..state(name, Phase::Pending, Reason::WaitingForApproval, words) }
    }

    // The Approval that counts, and why others do not.
    fn answer(
        &self,
        stage: &FrozenStage,
        gate: &Gate,
        deadline: Timestamp,
    ) -> (Option<Arc<ApprovalRecord>>, Vec<String>) {
        let mut said: Vec<_> =
            self.snapshot.approvals.iter().filter(|approval| approval.spec.stage == stage.name).collect();
        said.sort_by_key(|approval| (approval.created, &approval.name));
        let mut misfits = Vec::new();
        for approval in said {
            match self.counts(approval, gate, deadline) {
                Ok(()) => return (Some(Arc::clone(approval)), misfits),
                Err(why) => misfits.push(format!("Approval {} does not count: {why}", approval.name)),
            }
        }
        (None, misfits)
    }

    fn counts(&self, approval: &ApprovalRecord, gate: &Gate, deadline: Timestamp) -> Result<(), String> {
        // Names of runs come again when a pipeline is deleted and made anew.
        if approval.created < self.snapshot.run.meta.created {
            return Err("it is older than the run".to_owned());
        }
        if approval.created.is_some_and(|created| created > deadline) {
            return Err("it came too late".to_owned());
        }
        if approval.spec.verdict == Answer::Reject {
            return Ok(());
        }
        let size = Value::Object(approval.spec.values.clone()).to_string().len();
        if size > MAX_VALUES {
            return Err(format!("its values have {size} bytes, and {MAX_VALUES} are taken: hand on a uri"));
        }
        validate::gate_values(&gate.values, &approval.spec.values).refusal().map_or(Ok(()), Err)
    }

    fn question(
        &self,
        stage: &FrozenStage,
        gate: &Gate,
        open: &GateStatus,
        deadline: Timestamp,
        misfits: &[String],
    ) -> String {
        let asked = open.message.as_deref().unwrap_or("waits for an Approval");
        let names: Vec<String> = gate.values.keys().map(|name| format!("{name}: …")).collect();
        let values =
            if names.is_empty() { String::new() } else { format!(", values: {{{}}}", text::some_of(&names, 6)) };
        let (run, name) = (&self.snapshot.run.meta.name, &stage.name);
        let after = match gate.on_timeout.unwrap_or_default() {
            OnTimeout::Fail => "fails",
            OnTimeout::Approve => "passes",
        };
        let mut words = format!(
            "{asked}; to answer: kubectl create -f - <<< '{{apiVersion: cultivar.dev/v1alpha1, kind: Approval, metadata: {{generateName: {name}-}}, \
             spec: {{run: {run}, stage: {name}, verdict: Approve, by: YOUR-USER-NAME{values}}}}}' (or verdict: Reject; kubectl auth whoami \
             tells the name); without an answer it {after} at {deadline:.0}"
        );
        if !misfits.is_empty() {
            words = format!("{}; {words}", text::some_of(misfits, 2));
        }
        words
    }

    fn has_news(&self, stage: &StageStatus, is_news: impl Fn(&GateStatus) -> bool) -> bool {
        if !stage.gate.as_ref().is_some_and(&is_news) {
            return false;
        }
        let is_recorded = |recorded: &StageStatus| recorded.gate.as_ref().is_some_and(&is_news);
        let recorded = self.snapshot.run.status.stages.iter().find(|recorded| recorded.name == stage.name);
        !recorded.is_some_and(is_recorded)
    }

    fn is_answer(&self, stage: &StageStatus) -> bool {
        self.has_news(stage, |gate| gate.ended_at.is_some())
    }

    /// Whether a gate has an answer that is not recorded yet.
    pub fn answers_a_gate(&self) -> bool {
        self.states.values().any(|state| self.is_answer(state))
    }

    /// Whether a gate opens now.
    pub fn opens_a_gate(&self) -> bool {
        self.states.values().any(|state| self.has_news(state, |_| true))
    }

    /// A stage as it is recorded, but for a gate that has an answer now.
    pub fn recorded_or_answered(&self, stage: &FrozenStage) -> Option<StageStatus> {
        let answer = self.states.get(&stage.name).filter(|state| self.is_answer(state));
        answer.or_else(|| self.recorded(stage)).cloned()
    }

    /// A stage as the status lists it. After a crash a gate of the end may be known to be open before it is known that all others
    /// have ended: it stays open since then.
    pub fn told(&self, stage: &FrozenStage) -> Option<StageStatus> {
        let open = || self.recorded(stage).filter(|recorded| recorded.gate.is_some());
        self.states.get(&stage.name).or_else(open).cloned()
    }

    /// Whether every gate was answered by then.
    pub fn gates_ended_by(&self, deadline: Timestamp) -> bool {
        let ends = self.states.values().filter_map(|state| time::read(state.gate.as_ref()?.ended_at.as_deref()));
        ends.into_iter().all(|ended| ended <= deadline)
    }
}

/// What a run says while nothing but a gate is to be told.
pub fn told(stages: &[StageStatus]) -> (Option<Reason>, Option<String>) {
    let waits = |stage: &&StageStatus| stage.reason == Some(Reason::WaitingForApproval) && !stage.phase.is_terminal();
    let open: Vec<&str> = stages.iter().filter(waits).map(|stage| stage.name.as_str()).collect();
    if open.is_empty() {
        return (None, None);
    }
    let words =
        format!("waits for an Approval of {}: its entry in status.stages says how to answer", text::some_of(&open, 8));
    (Some(Reason::WaitingForApproval), Some(text::message(words)))
}

fn answered(name: &str, open: GateStatus, answer: &ApprovalRecord, opened: Timestamp) -> StageStatus {
    let spec = &answer.spec;
    let said = spec.comment.as_deref().map(in_one_line).filter(|comment| !comment.is_empty());
    let comment = said.as_ref().map_or_else(String::new, |comment| format!(": {comment}"));
    let approved = spec.verdict == Answer::Approve;
    let gate = GateStatus {
        // One may have been given before the gate opened.
        ended_at: Some(time::stamp(answer.created.map_or(opened, |created| created.max(opened)))),
        approval: Some(answer.name.clone()),
        by: Some(spec.by.clone()),
        comment: said,
        values: if approved { spec.values.clone() } else { Map::new() },
        ..open
    };
    let ended = if approved {
        let message = Some(text::message(format!("approved by {}{comment}", spec.by)));
        StageStatus { name: name.to_owned(), phase: Phase::Completed, message, ..StageStatus::default() }
    } else {
        failed(name, Reason::Rejected, format!("rejected by {}{comment}", spec.by))
    };
    StageStatus { gate: Some(gate), ..ended }
}

fn timed_out(name: &str, gate: &Gate, open: GateStatus, deadline: Timestamp, longest: Duration) -> StageStatus {
    let open = GateStatus { ended_at: Some(time::stamp(deadline)), ..open };
    let words = format!("nobody answered within {}", time::human(longest));
    let ended = match gate.on_timeout.unwrap_or_default() {
        OnTimeout::Fail => failed(name, Reason::DeadlineExceeded, words),
        OnTimeout::Approve => {
            let message = Some(format!("{words}, and onTimeout is Approve"));
            StageStatus { name: name.to_owned(), phase: Phase::Completed, message, ..StageStatus::default() }
        }
    };
    StageStatus { gate: Some(open), ..ended }
}

// A line of its own could pass for the operator's words.
fn in_one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > MOST {
        let mut end = MOST;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line
}

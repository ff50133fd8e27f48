//! Experiment: snapshot → decide → act.

use cultivar_core::decide::Action;
use cultivar_core::decide::experiment::decide;
use jiff::Timestamp;

use super::run_loop::{Context, wake_at};
use crate::act::{ActError, Done};
use crate::observe::Key;

pub async fn reconcile(context: &Context, key: &Key) -> Result<Done, ActError> {
    let now = Timestamp::now();
    let Some(view) = context.index.experiment(key, now) else {
        context.queues.withdraw(key);
        return Ok(Done::default());
    };
    let plan = decide(&view.snapshot);
    // Who neither asks nor starts wants nothing of a queue, and gives back what it may have.
    let wants = |action: &Action| matches!(action, Action::Ask(_) | Action::StartAttempt { .. });
    if !plan.actions.iter().any(wants) {
        context.queues.withdraw(key);
    }
    if view.snapshot.stores.named.is_none() && !plan.status.phase.is_terminal() {
        context.act.greet(&key.namespace);
    }
    let planned = plan.wake_at;
    let done = context.act.carry_out(key, &view.stored, plan).await?;
    Ok(Done { wake_at: wake_at(&done, planned, now), ..done })
}

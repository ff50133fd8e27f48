//! Schedule: snapshot → decide → act.

use cultivar_core::decide::schedule::decide;
use jiff::Timestamp;

use super::run_loop::{Context, wake_at};
use crate::act::{ActError, Done};
use crate::observe::Key;

pub async fn reconcile(context: &Context, key: &Key) -> Result<Done, ActError> {
    let now = Timestamp::now();
    let Some(view) = context.index.schedule(key, now) else { return Ok(Done::default()) };
    let plan = decide(&view.snapshot);
    let planned = plan.wake_at;
    let done = context.act.carry_out(key, &view.stored, plan).await?;
    Ok(Done { wake_at: wake_at(&done, planned, now), ..done })
}

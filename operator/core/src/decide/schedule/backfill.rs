//! The runs for days in the past: one for each time on them, oldest first, a few at once.

use cultivar_crds::schedule::{Backfill, BackfillStatus};
use cultivar_crds::{ScheduleStatus, labels};

use super::times::{Days, Times, before};
use super::{Made, Snapshot, is_unfinished};
use crate::decide::Plan;
use crate::domain::{names, time};

/// Goes on with a backfill; returns the runs to be made.
pub fn advance(
    snapshot: &Snapshot,
    plan: &mut Plan<ScheduleStatus>,
    backfill: &Backfill,
    times: &Times,
    being_made: &[Made],
) -> Vec<Made> {
    let Some(days) = Days::of(backfill, times) else { return Vec::new() };
    let range = format!("{}/{}", backfill.from, backfill.to);
    let known = plan.status.backfill.take().filter(|known| known.range == range);
    // What is still to come when it begins has its run at its time.
    let mut progress = known.unwrap_or_else(|| BackfillStatus {
        range: range.clone(),
        until: time::stamp(days.end.min(snapshot.now)),
        ..BackfillStatus::default()
    });
    let until = time::read(Some(&progress.until)).unwrap_or(days.end);
    let last = time::read(progress.last_time.as_deref());
    let mut made = Vec::new();
    if !progress.done {
        let of_it = |run: &&super::Run| run.meta.annotations.contains_key(labels::BACKFILL) && is_unfinished(run);
        let unfinished = snapshot.runs.iter().filter(of_it).count();
        let most = usize::try_from(backfill.max_parallel.unwrap_or(1)).unwrap_or(usize::MAX);
        let mut free = most.saturating_sub(unfinished);
        progress.done = true;
        for time in times.after(last.unwrap_or(before(days.first))).take_while(|time| *time < until) {
            let name = names::scheduled_run(&snapshot.schedule.meta.name, time);
            // Made before, by this backfill whose progress was not stored, or when it was time.
            let exists = snapshot.runs.iter().any(|run| run.meta.name == name)
                || being_made.iter().any(|made| made.name == name);
            if !exists && free == 0 {
                progress.done = false;
                break;
            }
            if !exists {
                free -= 1;
                made.push(Made { name, time, backfill: Some(range.clone()) });
            }
            progress.made += 1;
            progress.last_time = Some(time::stamp(time));
        }
    }
    plan.status.backfill = Some(progress);
    made
}

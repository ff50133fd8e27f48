//! Schedules: runs for days in the past with their dates, one at its time, what is suspended and what is refused.

use std::collections::BTreeMap;

use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, condition, name, root, stage, with};

// Says what day its run is for.
async fn daily(case: &Case) -> Result<()> {
    let date = "${= date(pipeline.scheduledTime, '%Y-%m-%d', '-1d')}";
    let spec = json!({
        "runOn": "Demand",
        "params": {"lr": 1},
        "stages": [stage("train", with(root(&[]), json!({"args": ["--date", date, "lr=${pipeline.params.lr}"]})))],
    });
    case.pipeline("daily", spec).await.map(drop)
}

async fn schedule(case: &Case, name: &str, spec: Value) -> Result<()> {
    case.server.apply(&case.manifest("Schedule", name, &spec)).await.map(drop)
}

async fn runs_of(case: &Case, schedule: &str) -> Result<Vec<Value>> {
    case.server.list("PipelineRun", &case.namespace, &format!("cultivar.dev/schedule={schedule}")).await
}

/// A backfill of three days makes a run for each, with its date; once.
pub async fn a_backfill_makes_a_run_for_each_day(case: &Case) -> Result<()> {
    daily(case).await?;
    let spec = json!({
        "pipeline": "daily", "cron": ["30 2 * * *"], "timeZone": "Europe/Berlin", "params": {"lr": 2},
        "backfill": {"from": "2026-03-28", "to": "2026-03-30"},
    });
    schedule(case, "past", spec.clone()).await?;
    let done =
        |schedule: &Value| schedule["status"]["backfill"]["done"] == true && schedule["status"]["activeCount"] == 0;
    let seen = case.wait("Schedule", "past", done).await?;
    ensure!(seen["status"]["backfill"]["made"] == 3 && seen["status"]["missed"] == 0, "{}", seen["status"]);
    let mut dates = BTreeMap::new();
    for run in runs_of(case, "past").await? {
        let run = case.run_ends(&name(&run), "Completed").await?;
        let train = case.stage(&name(&run), "train").await?;
        let args = train["spec"]["args"].clone();
        dates.insert(name(&run), (run["metadata"]["annotations"]["cultivar.dev/scheduled-time"].clone(), args));
    }
    // The clock is put forward on the 29th: 02:30 is 03:00 there.
    let wanted = [
        ("past-202603280130", "2026-03-28T02:30:00+01:00[Europe/Berlin]", "2026-03-27"),
        ("past-202603290100", "2026-03-29T03:00:00+02:00[Europe/Berlin]", "2026-03-28"),
        ("past-202603300030", "2026-03-30T02:30:00+02:00[Europe/Berlin]", "2026-03-29"),
    ];
    let wanted = wanted.map(|(run, time, date)| (run.to_owned(), (json!(time), json!(["--date", date, "lr=2"]))));
    ensure!(dates == BTreeMap::from(wanted), "{dates:?}");
    // Who says the same again asks for nothing.
    schedule(case, "past", with(spec, json!({"startingDeadline": "5m"}))).await?;
    let generation = json!(2);
    case.wait("Schedule", "past", |schedule| schedule["status"]["observedGeneration"] == generation).await?;
    let runs = runs_of(case, "past").await?.len();
    ensure!(runs == 3, "{runs} runs");
    // The runs are their pipeline's: they outlive the schedule.
    case.server.delete("Schedule", &case.namespace, "past").await?;
    ensure!(runs_of(case, "past").await?.len() == 3, "the schedule took its runs along");
    Ok(())
}

/// A suspended schedule makes nothing; one that is wrong says where.
pub async fn a_suspended_or_wrong_schedule_makes_no_run(case: &Case) -> Result<()> {
    daily(case).await?;
    let backfill = json!({"from": "2026-03-01", "to": "2026-03-02"});
    let spec = json!({"pipeline": "daily", "cron": ["* * * * *"], "suspend": true, "backfill": backfill});
    schedule(case, "still", spec).await?;
    let suspended = |schedule: &Value| condition(schedule, "Ready")["reason"] == "Suspended";
    case.wait("Schedule", "still", suspended).await?;
    schedule(case, "wrong", json!({"pipeline": "daily", "cron": ["0 2 * * *", "0 25 * * *"]})).await?;
    let refused = |schedule: &Value| condition(schedule, "Accepted")["status"] == "False";
    let wrong = case.wait("Schedule", "wrong", refused).await?;
    let message = condition(&wrong, "Accepted")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("spec.cron[1]: the hour \"25\" is not within 0-23"), "{message}");
    schedule(case, "alone", json!({"pipeline": "nobody", "cron": ["@daily"]})).await?;
    let waits = |schedule: &Value| condition(schedule, "Ready")["reason"] == "PipelineNotFound";
    case.wait("Schedule", "alone", waits).await?;
    let runs = case.server.list("PipelineRun", &case.namespace, "").await?;
    ensure!(runs.is_empty(), "{} runs", runs.len());
    Ok(())
}

/// At its time a run is made, once, also when the operator is not there at that moment.
pub async fn a_run_is_made_at_its_time(case: &Case) -> Result<()> {
    daily(case).await?;
    schedule(case, "often", json!({"pipeline": "daily", "cron": ["* * * * *"], "concurrencyPolicy": "Allow"})).await?;
    let ready = |schedule: &Value| condition(schedule, "Ready")["status"] == "True";
    let seen = case.wait("Schedule", "often", ready).await?;
    let next = seen["status"]["next"][0].as_str().unwrap_or_default().to_owned();
    case.kill_operator();
    let moment = next.split_once('[').map(|(moment, _)| moment.replace("+00:00", "Z")).unwrap_or_default();
    let moment: jiff::Timestamp = moment.parse().map_err(|_| cultivar_e2e::error::Error::new(next.clone()))?;
    let left = moment.duration_since(jiff::Timestamp::now());
    tokio::time::sleep(std::time::Duration::try_from(left).unwrap_or_default()).await;
    case.start_operator()?;
    let made = |schedule: &Value| schedule["status"]["lastRun"].is_string();
    let seen = case.wait("Schedule", "often", made).await?;
    let suspend = json!({"spec": {"suspend": true}});
    case.server.patch("Schedule", &case.namespace, "often", &suspend).await?;
    let first = format!("often-{}", moment.strftime("%Y%m%d%H%M"));
    case.run_ends(&first, "Completed").await?;
    ensure!(seen["status"]["missed"] == 0, "{}", seen["status"]);
    Ok(())
}

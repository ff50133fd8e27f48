//! The wiring of the operator, as code: who feeds whom.
//!
//! ```text
//! watches → index → queue → control (decide) → act → API server
//!                     ↑_______________________↓ (answers go into the index at once)
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cultivar_core::domain::StoreAccess;
use cultivar_core::render::STORE_SECRET;
use futures::FutureExt;
use futures::future::select_all;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::act::{Act, Calls, Stores, WriteLimit};
use crate::control::wakeups::Wakeups;
use crate::control::{self, Context};
use crate::images::Images;
use crate::leader::Elector;
use crate::observe::{DataPlane, Index, watch};
use crate::queues::{self, Loop, Queues};
use crate::settings::Settings;
use crate::shutdown::Tasks;
use crate::telemetry::health::Heartbeat;
use crate::telemetry::{Health, Metrics, http};
use crate::webhook;

/// A loop that does not beat for this long is taken for dead.
const STANDSTILL: Duration = Duration::from_secs(60);

/// How often what has become history is packed.
const PACK_EVERY: Duration = Duration::from_secs(2);
/// The same, while there is more of it than is packed at once.
const PACK_MORE: Duration = Duration::from_millis(200);

/// Starts every task of the operator.
pub fn start(client: Client, settings: &Settings, metrics: Metrics, tasks: &mut Tasks) {
    let health = Health::new();
    let queue = Arc::new(Wakeups::default());
    let queues = Arc::new(Queues::new(settings.queues));
    let index = Arc::new(Index::new(Arc::clone(&queue), Arc::clone(&queues), data_plane(settings)));
    let counted = Arc::clone(&index);

    let (elector, claim) = Elector::new(client.clone(), &settings.leader);
    let leading = claim.clone();
    metrics.on_scrape(move |metrics| {
        count(&counted, metrics);
        // Asked at every scrape: a claim also ends by time, which no message tells.
        metrics.set_leader(leading.borrow().holds(Instant::now()));
    });
    let (told, leading) = (Arc::clone(&queues), claim.clone());
    metrics.on_scrape(move |metrics| {
        // Only the leader is asked, and knows who waits.
        let leads = leading.borrow().holds(Instant::now());
        metrics.queues().set(&if leads { told.readings() } else { BTreeMap::new() });
    });
    let beat = health.heartbeat("leader election", STANDSTILL);
    tasks.spawn_last("leader election", elector.run(tasks.last(), move || beat.beat()));

    let mut watches = watch::all(&client, &settings.namespaces, &index, &health, &tasks.stop());
    if settings.queues {
        watches.extend(watch::of_the_cluster(&client, &index, &queues, &health, &tasks.stop()));
    }
    let synced = health.clone();
    let stop = tasks.stop();
    tasks.spawn("watches", async move {
        // Each in a task of its own: one that is slow to convert slows no other.
        let spawned = watches.into_iter().map(|(name, life)| tokio::spawn(life).map(move |ended| (name, ended)));
        let ((name, ended), _, others) = select_all(spawned.map(FutureExt::boxed)).await;
        if stop.is_cancelled() {
            futures::future::join_all(others).await;
            return Ok(());
        }
        Err(match ended {
            Ok(()) => format!("the watch of {name} ended"),
            Err(error) => format!("the watch of {name} panicked: {error}"),
        })
    });

    let limit = settings.write_limit.map(|a_second| Arc::new(WriteLimit::new(a_second)));
    let calls = || {
        let (client, claim, metrics) = (client.clone(), claim.clone(), metrics.clone());
        Calls::new(client, claim, metrics, settings.leader.identity.clone(), limit.clone())
    };
    let admission = Loop {
        queues: Arc::clone(&queues),
        index: Arc::clone(&index),
        wakeups: Arc::clone(&queue),
        calls: calls(),
        metrics: metrics.clone(),
    };
    let beat = health.heartbeat("admission loop", STANDSTILL);
    let (stop, leads, known) = (tasks.stop(), claim.clone(), synced.clone());
    tasks.spawn("admission loop", async move {
        // What is held must be known before anything is admitted.
        wait_for(&known, &beat, &stop).await;
        queues::run(admission, leads, beat, stop).await
    });
    let (history, stop) = (Arc::clone(&index), tasks.stop());
    tasks.spawn("history", async move {
        let mut wait = PACK_EVERY;
        while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
            wait = if history.pack() { PACK_MORE } else { PACK_EVERY };
        }
        Ok::<_, Infallible>(())
    });
    let stores = Stores::new(settings.store.clone());
    let images = Images::new(settings.images.clone());
    let act = Act::new(calls(), Arc::clone(&index), metrics.clone(), stores, images, Arc::clone(&queues));
    let context = Arc::new(Context::new(index, queue, act, queues, metrics.clone()));
    let beat = health.heartbeat("control loop", STANDSTILL);
    let (stop, concurrency, leads) = (tasks.stop(), usize::from(settings.concurrency), claim.clone());
    tasks.spawn("control loop", async move {
        // Deciding on half of what exists would start things twice.
        wait_for(&synced, &beat, &stop).await;
        control::run(context, leads, concurrency, beat, stop).await
    });
    if let Some(webhook) = settings.webhook.clone() {
        let served = webhook::run(client, webhook, claim.clone(), health.clone(), tasks.last());
        tasks.spawn_last("webhook", served);
    }
    tasks.spawn_last("http", http::run(settings.http_bind, health, metrics, tasks.last()));
}

async fn wait_for(synced: &Health, beat: &Heartbeat, stop: &CancellationToken) {
    while !synced.synced().ok && !stop.is_cancelled() {
        beat.beat();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn data_plane(settings: &Settings) -> DataPlane {
    let store = settings.store.as_ref().map(|store| StoreAccess {
        url: store.url.clone(),
        options: BTreeMap::from([
            ("aws_endpoint".to_owned(), store.endpoint.clone()),
            ("aws_region".to_owned(), "us-east-1".to_owned()),
            ("aws_allow_http".to_owned(), store.endpoint.starts_with("http://").to_string()),
            ("aws_virtual_hosted_style_request".to_owned(), "false".to_owned()),
        ]),
        secret: Some(STORE_SECRET.to_owned()),
        own: true,
    });
    DataPlane { runner_image: settings.runner_image.clone(), store, resolve_images: settings.images.resolve }
}

fn count(index: &Index, metrics: &Metrics) {
    for (kind, phases) in index.phases() {
        metrics.set_objects(kind.measured(), phases.into_iter().map(|phase| (phase, 1)));
    }
}

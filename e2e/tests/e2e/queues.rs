//! Queues: who starts, who waits and why, who is stopped for whom. They are of the whole cluster, so each case runs alone.

use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, SOON, condition, name, root, with};

const GPU: &str = "nvidia.com/gpu";

/// A Queue of the cluster; its name tells whose case it is.
async fn queue(case: &Case, name: &str, spec: Value) -> Result<()> {
    let manifest =
        json!({"apiVersion": "cultivar.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": spec});
    case.server.apply(&manifest).await.map(|_| ())
}

async fn remove(case: &Case, names: &[&str]) -> Result<()> {
    for name in names {
        case.server.delete("Queue", "", name).await?;
        case.server.wait("Queue", "", name, SOON, Value::is_null).await?;
    }
    Ok(())
}

fn run(queue: &str, gpus: u32, duration: &str) -> Value {
    let more = json!({"queue": queue, "resources": {"limits": {GPU: gpus}}});
    with(root(&[("duration", duration)]), more)
}

async fn waits(case: &Case, name: &str, reason: &str) -> Result<Value> {
    let holds = |object: &Value| object["status"]["phase"] == "Queued" && object["status"]["reason"] == reason;
    case.wait("Experiment", name, holds).await
}

async fn runs(case: &Case, name: &str) -> Result<Value> {
    case.wait("Experiment", name, |object| object["status"]["phase"] == "Running").await
}

/// What fits starts; what does not waits, says for what and who holds it, and starts when that ends.
pub async fn a_run_waits_until_it_fits(case: &Case) -> Result<()> {
    queue(case, "fits", json!({"resources": {GPU: {"quota": 8}}})).await?;
    case.experiment("first", run("fits", 6, "1h")).await?;
    let first = runs(case, "first").await?;
    ensure!(first["status"]["attempts"][0]["queue"] == "fits", "the attempt does not say where: {}", first["status"]);
    case.experiment("second", run("fits", 4, "200ms")).await?;
    let second = waits(case, "second", "WaitingForQuota").await?;
    let message = second["status"]["message"].as_str().unwrap_or_default();
    let holder = format!("{}/first (6)", case.namespace);
    ensure!(message.contains(&holder) && message.contains("uses 6 of its quota of 8"), "{message}");
    ensure!(case.jobs("second").await?.is_empty(), "it has a Job although it waits");
    let queue = case.server.wait("Queue", "", "fits", SOON, |queue| queue["status"]["waiting"] == 1).await?;
    let usage = &queue["status"]["usage"][0];
    ensure!(usage["used"] == "6" && usage["quota"] == "8", "the queue says {usage}");
    ensure!(condition(&queue, "Ready")["status"] == "True", "{}", queue["status"]);
    let patch = json!({"spec": {"cancel": true}});
    case.server.patch("Experiment", &case.namespace, "first", &patch).await?;
    case.ends("second", "Completed").await?;
    case.server.wait("Queue", "", "fits", SOON, |queue| queue["status"]["usage"][0]["used"] == "0").await?;
    remove(case, &["fits"]).await
}

/// Who waits and for whom nothing changes is not written, whatever others do.
pub async fn who_waits_in_vain_is_not_written(case: &Case) -> Result<()> {
    queue(case, "still", json!({"resources": {GPU: {"quota": 1}}})).await?;
    queue(case, "busy", json!({"resources": {GPU: {"quota": 2}}})).await?;
    case.experiment("holds", run("still", 1, "1h")).await?;
    runs(case, "holds").await?;
    let waiters = ["first", "second", "third"];
    for (index, waiter) in waiters.into_iter().enumerate() {
        case.experiment(waiter, run("still", 1, "200ms")).await?;
        let place = |object: &Value| object["status"]["queue"]["position"] == index + 1;
        case.wait("Experiment", waiter, place).await?;
    }
    let versions = || async {
        let mut versions = Vec::new();
        for waiter in waiters {
            versions.push(case.get("Experiment", waiter).await?["metadata"]["resourceVersion"].take());
        }
        Ok::<_, cultivar_e2e::error::Error>(versions)
    };
    let before = versions().await?;
    // Places are told every ten seconds: that time comes twice.
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(22);
    let mut others = 0;
    while tokio::time::Instant::now() < until {
        let names = [format!("a-{others}"), format!("b-{others}"), format!("c-{others}")];
        for name in &names {
            case.experiment(name, run("busy", 1, "200ms")).await?;
        }
        for name in &names {
            case.ends(name, "Completed").await?;
        }
        others += 1;
    }
    let after = versions().await?;
    ensure!(
        before == after,
        "{others} times three runs of another queue, and who waits was written: {before:?} {after:?}"
    );
    case.server.patch("Experiment", &case.namespace, "holds", &json!({"spec": {"cancel": true}})).await?;
    for waiter in waiters {
        case.ends(waiter, "Completed").await?;
    }
    remove(case, &["still", "busy"]).await
}

/// Two teams: what one does not use the other borrows, and gives back when it is wanted; the run that is stopped for it
/// goes back into its queue, spends no retry and completes.
pub async fn what_is_lent_is_taken_back(case: &Case) -> Result<()> {
    for name in ["lender", "borrower"] {
        queue(case, name, json!({"cohort": "two-teams", "resources": {GPU: {"quota": 4}}})).await?;
    }
    case.experiment("own", run("borrower", 4, "1h")).await?;
    runs(case, "own").await?;
    case.experiment("borrowed", run("borrower", 4, "5s")).await?;
    runs(case, "borrowed").await?;
    case.experiment("wanted", run("lender", 2, "200ms")).await?;
    case.ends("wanted", "Completed").await?;
    let borrowed = case.ends("borrowed", "Completed").await?;
    let attempts = &borrowed["status"]["attempts"];
    ensure!(attempts[0]["reason"] == "Preempted", "it was not stopped: {attempts}");
    let message = attempts[0]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("queue lender takes back 2 nvidia.com/gpu"), "{message}");
    ensure!(borrowed["status"]["retries"].is_null(), "it spent {}", borrowed["status"]["retries"]);
    let own = runs(case, "own").await?;
    ensure!(own["status"]["attempt"] == 1, "a run within its quota was stopped: {}", own["status"]["attempts"]);
    case.server.patch("Experiment", &case.namespace, "own", &json!({"spec": {"cancel": true}})).await?;
    case.ends("own", "Cancelled").await?;
    remove(case, &["lender", "borrower"]).await
}

/// A new operator knows what is held: it neither admits more nor forgets who waits.
pub async fn a_crash_of_the_operator_leaks_nothing(case: &Case) -> Result<()> {
    queue(case, "crash", json!({"resources": {GPU: {"quota": 2}}})).await?;
    for index in 0..6 {
        case.experiment(&format!("run-{index}"), run("crash", 1, "3s")).await?;
    }
    case.server.wait("Queue", "", "crash", SOON, |queue| queue["status"]["waiting"] == 4).await?;
    case.kill_operator();
    case.start_operator()?;
    for index in 0..6 {
        let done = case.ends(&format!("run-{index}"), "Completed").await?;
        ensure!(done["status"]["attempt"] == 1, "run-{index} ran {} times", done["status"]["attempt"]);
    }
    ensure!(at_once(case).await? <= 2, "more ran at once than the quota has");
    remove(case, &["crash"]).await
}

// The most pods of the case that ran at once, by their own times, which are whole seconds: what ends in a second is over
// before what starts in it.
async fn at_once(case: &Case) -> Result<usize> {
    let pods = case.server.list("Pod", &case.namespace, "").await?;
    let mut turns = Vec::new();
    for pod in &pods {
        let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        turns.push((text(&end["finishedAt"]), 0));
        turns.push((text(&end["startedAt"]), 1));
    }
    turns.sort();
    let (mut now, mut most) = (0_usize, 0);
    for (_, starts) in turns {
        now = if starts == 1 { now + 1 } else { now.saturating_sub(1) };
        most = most.max(now);
    }
    Ok(most)
}

/// A Queue that is deleted while its runs hold something of it stays until they have ended, and admits nothing more.
pub async fn a_queue_in_use_stays_until_it_is_empty(case: &Case) -> Result<()> {
    queue(case, "leaves", json!({"resources": {GPU: {"quota": 2}}})).await?;
    case.experiment("holds", run("leaves", 1, "1h")).await?;
    runs(case, "holds").await?;
    case.server.delete("Queue", "", "leaves").await?;
    let leaving = |queue: &Value| condition(queue, "Ready")["reason"] == "QueueHeld";
    let queue = case.server.wait("Queue", "", "leaves", SOON, leaving).await?;
    let message = condition(&queue, "Ready")["message"].as_str().unwrap_or_default();
    ensure!(message.contains("1 hold something of it"), "{message}");
    case.experiment("late", run("leaves", 1, "200ms")).await?;
    waits(case, "late", "QueueHeld").await?;
    let patch = json!({"spec": {"cancel": true}});
    case.server.patch("Experiment", &case.namespace, "holds", &patch).await?;
    case.server.wait("Queue", "", "leaves", SOON, Value::is_null).await?;
    let late = waits(case, "late", "QueueNotFound").await?;
    ensure!(
        late["status"]["message"].as_str().is_some_and(|text| text.contains("no Queue is called leaves")),
        "{late}"
    );
    Ok(())
}

/// A pipeline's stages stand in its queue, of which a flavor decides the nodes; a run that names none waits for one.
pub async fn stages_go_to_the_flavor_of_their_queue(case: &Case) -> Result<()> {
    let flavors = json!([
        {"name": "full", "nodeSelector": {"no": "such-node"}, "resources": {GPU: {"quota": 0}}},
        {"name": "open", "nodeSelector": {"kubernetes.io/os": "linux"}, "resources": {GPU: {"quota": 2}}},
    ]);
    queue(case, "flavored", json!({"flavors": flavors})).await?;
    let gpu = json!({"resources": {"limits": {GPU: 1}}});
    let stages = json!([with(json!({"name": "train"}), with(root(&[]), gpu.clone()))]);
    case.pipeline("queued", json!({"queue": "flavored", "priority": 3, "stages": stages})).await?;
    case.run_ends("queued-1", "Completed").await?;
    let train = case.stage("queued-1", "train").await?;
    let train = case.ends(&name(&train), "Completed").await?;
    ensure!(train["spec"]["priority"] == 3 && train["spec"]["queue"] == "flavored", "{}", train["spec"]);
    ensure!(train["status"]["attempts"][0]["flavor"] == "open", "{}", train["status"]["attempts"]);
    let jobs = case.server.list("Job", &case.namespace, "cultivar.dev/flavor=open").await?;
    let selector = &jobs[0]["spec"]["template"]["spec"]["nodeSelector"];
    ensure!(selector["kubernetes.io/os"] == "linux", "the pod may go to {selector}");
    case.experiment("lost", root(&[])).await?;
    waits(case, "lost", "QueueRequired").await?;
    remove(case, &["flavored"]).await?;
    // With the last queue gone it just runs.
    case.ends("lost", "Completed").await.map(|_| ())
}

/// A gang is admitted whole or not at all, and what it holds is what all of its pods ask for.
pub async fn a_gang_is_admitted_whole(case: &Case) -> Result<()> {
    queue(case, "gangs", json!({"resources": {GPU: {"quota": 8}}})).await?;
    case.experiment("small", run("gangs", 2, "1h")).await?;
    runs(case, "small").await?;
    // Its pods run until they are told to end: a Queue's status is written once a second, or later on a busy machine.
    let gang = json!({"queue": "gangs", "workers": 2, "resources": {"limits": {GPU: 4}}});
    case.experiment("gang", with(root(&[("outcome", "hang")]), gang)).await?;
    let waiting = waits(case, "gang", "WaitingForQuota").await?;
    let message = waiting["status"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("asks for 8 nvidia.com/gpu"), "{message}");
    ensure!(case.jobs("gang").await?.is_empty(), "half of it has started");
    case.server.patch("Experiment", &case.namespace, "small", &json!({"spec": {"cancel": true}})).await?;
    case.server.wait("Queue", "", "gangs", SOON, |queue| queue["status"]["usage"][0]["used"] == "8").await?;
    runs(case, "gang").await?;
    let pods = case.server.list("Pod", &case.namespace, "cultivar.dev/experiment=gang").await?;
    ensure!(pods.len() == 2, "it has {} pods", pods.len());
    for pod in &pods {
        let end = json!({"metadata": {"annotations": {"sim/outcome": "succeed"}}});
        case.server.patch("Pod", &case.namespace, &name(pod), &end).await?;
    }
    case.ends("gang", "Completed").await?;
    let services = case.server.list("Service", &case.namespace, "cultivar.dev/experiment=gang").await?;
    ensure!(services.len() == 1 && services[0]["spec"]["clusterIP"] == "None", "services: {services:?}");
    case.server.wait("Queue", "", "gangs", SOON, |queue| queue["status"]["usage"][0]["used"] == "0").await?;
    remove(case, &["gangs"]).await
}

/// What no node could take waits and holds nothing; a pool that grows from zero gets its pods all the same.
pub async fn what_no_node_could_take_waits(case: &Case) -> Result<()> {
    let flavors = json!([{"name": "none", "nodeSelector": {"no": "such-node"}, "resources": {GPU: {"quota": 8}}}]);
    queue(case, "large", json!({"resources": {GPU: {"quota": 16}}})).await?;
    queue(case, "nowhere", json!({"flavors": flavors})).await?;
    case.experiment("nine", run("large", 9, "200ms")).await?;
    let nine = waits(case, "nine", "NoNodeFits").await?;
    let message = nine["status"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("asks for 9 nvidia.com/gpu, and the largest of"), "{message}");
    case.completed("eight", run("large", 8, "200ms")).await?;
    case.experiment("lost", run("nowhere", 1, "200ms")).await?;
    waits(case, "lost", "NoNodeFits").await?;
    let growing = json!([{"name": "none", "nodeSelector": {"no": "such-node"}, "nodeFit": "Ignore", "resources": {GPU: {"quota": 8}}}]);
    queue(case, "nowhere", json!({"flavors": growing})).await?;
    // An autoscaler sees the pod, which no node takes yet.
    let starts =
        |object: &Value| object["status"]["phase"] == "Starting" && object["status"]["reason"] == "WaitingForNode";
    case.wait("Experiment", "lost", starts).await?;
    for name in ["lost", "nine"] {
        case.server.patch("Experiment", &case.namespace, name, &json!({"spec": {"cancel": true}})).await?;
        case.ends(name, "Cancelled").await?;
    }
    remove(case, &["large", "nowhere"]).await
}

/// What a pod outside the queues holds of a node is not there for the queues: who needs it waits, says so, and starts when it
/// goes. The queue's own pods are not counted a second time.
pub async fn what_others_hold_of_a_node_is_not_there(case: &Case) -> Result<()> {
    let size = json!({GPU: "8", "cpu": "32", "memory": "64Gi", "pods": "110"});
    let mine = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": case.namespace,
            "labels": {"type": "kwok", "pool": case.namespace},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"providerID": format!("kwok://{}", case.namespace)},
        "status": {"capacity": size, "allocatable": size},
    });
    case.server.create(&mine).await?;
    let flavors = json!([{"name": "mine", "nodeSelector": {"pool": case.namespace}, "resources": {GPU: {"quota": 8}}}]);
    queue(case, "others", json!({ "flavors": flavors })).await?;
    let notebook = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": "notebook", "namespace": case.namespace, "annotations": {"sim/duration": "1h"},
    }, "spec": {
        "nodeSelector": {"pool": case.namespace},
        "containers": [{"name": "main", "image": "none", "resources": {"limits": {GPU: 3}}}],
    }});
    case.wait("ServiceAccount", "default", |account| !account.is_null()).await?;
    case.server.create(&notebook).await?;
    case.wait("Pod", "notebook", |pod| pod["spec"]["nodeName"].is_string()).await?;
    case.experiment("five", run("others", 5, "1h")).await?;
    runs(case, "five").await?;
    case.experiment("eight", run("others", 8, "200ms")).await?;
    let eight = waits(case, "eight", "NoNodeFits").await?;
    let message = eight["status"]["message"].as_str().unwrap_or_default();
    let words = "the largest free block of 1 nodes that may take it is 5: 3 are held there by pods outside the queues";
    ensure!(message.contains(words), "{message}");
    let five = |queue: &Value| queue["status"]["usage"][0]["used"] == "5" && queue["status"]["waiting"] == 1;
    case.server.wait("Queue", "", "others", SOON, five).await?;
    case.server.delete("Pod", &case.namespace, "notebook").await?;
    // There is a node for it now; its own queue's run is what it waits for.
    waits(case, "eight", "WaitingForQuota").await?;
    case.server.patch("Experiment", &case.namespace, "five", &json!({"spec": {"cancel": true}})).await?;
    case.ends("eight", "Completed").await?;
    case.server.delete("Node", "", &case.namespace).await?;
    remove(case, &["others"]).await
}

/// A queue takes only as many that wait as it says: newer ones stay Pending and can still be edited, join in their order, and
/// a new operator finds everybody where they were.
pub async fn a_full_queue_takes_no_newer_ones(case: &Case) -> Result<()> {
    queue(case, "full", json!({"maxQueued": 1, "resources": {GPU: {"quota": 1}}})).await?;
    case.experiment("first", run("full", 1, "1h")).await?;
    runs(case, "first").await?;
    case.experiment("second", run("full", 1, "1h")).await?;
    waits(case, "second", "WaitingForQuota").await?;
    for name in ["third", "fourth"] {
        case.experiment(name, run("full", 1, "200ms")).await?;
        let refused =
            |object: &Value| object["status"]["phase"] == "Pending" && object["status"]["reason"] == "QueueFull";
        case.wait("Experiment", name, refused).await?;
    }
    let counted = |queue: &Value| queue["status"]["waiting"] == 1 && queue["status"]["outside"] == 2;
    case.server.wait("Queue", "", "full", SOON, counted).await?;
    let edit = json!({"spec": {"resources": {"limits": {GPU: 1, "cpu": "1"}}}});
    case.server.patch("Experiment", &case.namespace, "third", &edit).await?;
    let frozen = |object: &Value| object["status"]["template"]["resources"]["limits"]["cpu"] == "1";
    case.wait("Experiment", "third", frozen).await?;
    case.kill_operator();
    case.start_operator()?;
    case.server.patch("Experiment", &case.namespace, "first", &json!({"spec": {"cancel": true}})).await?;
    runs(case, "second").await?;
    waits(case, "third", "WaitingForQuota").await?;
    let fourth = case.get("Experiment", "fourth").await?;
    ensure!(fourth["status"]["reason"] == "QueueFull", "{}", fourth["status"]);
    case.server.patch("Experiment", &case.namespace, "second", &json!({"spec": {"cancel": true}})).await?;
    for name in ["third", "fourth"] {
        let done = case.ends(name, "Completed").await?;
        ensure!(done["status"]["attempt"] == 1, "{name} ran {} times", done["status"]["attempt"]);
    }
    remove(case, &["full"]).await
}

//! Kustomize with our openapi file: patches of ours and of Kubernetes' own kinds.

use std::fs;

use cultivar_e2e::chart::repository;
use cultivar_e2e::error::{Context as _, Result};
use cultivar_e2e::{exec, gitops, tools};
use serde::Deserialize as _;
use serde_json::{Value, json};

const BASE: &str = "
apiVersion: cultivar.dev/v1alpha1
kind: Pipeline
metadata: {name: digits}
spec:
  params: {lr: 0.1, epochs: 5}
  stages:
    - {name: prepare, image: prepare:1}
    - name: train
      image: train:1
      after: [{stage: prepare}]
      params: {lr: 0.1, epochs: 3}
      env: [{name: A, value: one}, {name: B, value: two}]
      podTemplate: {spec: {containers: [{name: main, env: [{name: C, value: one}, {name: D, value: two}]}, {name: side, image: side:1}]}}
---
apiVersion: cultivar.dev/v1alpha1
kind: Experiment
metadata: {name: root}
spec: {image: train:1, outputs: [{name: model, path: /out/model}, {name: log, path: /out/log}]}
---
apiVersion: cultivar.dev/v1alpha1
kind: Queue
metadata: {name: research}
spec: {flavors: [{name: a100, nodeSelector: {gpu: a100}, resources: {nvidia.com/gpu: {quota: 3}}}, {name: h100, nodeSelector: {gpu: h100}, resources: {nvidia.com/gpu: {quota: 1}}}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, image: web:1}, {name: side, image: side:1}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}, {name: metrics, port: 9090}]}
";

const PATCH: &str = "
apiVersion: cultivar.dev/v1alpha1
kind: Pipeline
metadata: {name: digits}
spec:
  stages:
    - name: train
      params: {lr: 0.5}
      env: [{name: B, value: patched}]
      podTemplate: {spec: {containers: [{name: main, env: [{name: D, value: patched}]}]}}
---
apiVersion: cultivar.dev/v1alpha1
kind: Experiment
metadata: {name: root}
spec: {outputs: [{name: log, optional: true}]}
---
apiVersion: cultivar.dev/v1alpha1
kind: Queue
metadata: {name: research}
spec: {flavors: [{name: h100, resources: {nvidia.com/gpu: {quota: 2}}}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, image: web:2}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80, targetPort: 8080}]}
";

/// What `kubectl kustomize` makes of the base and the patch, by kind.
fn kustomized(case: &str, with_openapi: bool) -> Result<Value> {
    let dir = std::env::temp_dir().join(format!("cultivar-kustomize-{}-{case}-{with_openapi}", std::process::id()));
    fs::create_dir_all(&dir).doing(|| format!("cannot make {}", dir.display()))?;
    let mut kustomization =
        json!({"namespace": "vision", "resources": ["base.yaml"], "patches": [{"path": "patch.yaml"}]});
    if with_openapi {
        kustomization["openapi"] = json!({"path": "openapi.json"});
    }
    let openapi = fs::read_to_string(repository().join(gitops::OPENAPI)).doing(|| "cannot read our openapi file")?;
    let files = [
        ("base.yaml", BASE),
        ("patch.yaml", PATCH),
        ("openapi.json", &openapi),
        ("kustomization.yaml", &kustomization.to_string()),
    ];
    for (name, text) in files {
        fs::write(dir.join(name), text).doing(|| format!("cannot write {name}"))?;
    }
    let made = exec::run(tools::kubectl()?, &["kustomize".as_ref(), dir.as_os_str()])?;
    fs::remove_dir_all(&dir).doing(|| format!("cannot remove {}", dir.display()))?;
    let mut by_kind = json!({});
    for document in serde_yaml::Deserializer::from_str(&made) {
        let object = Value::deserialize(document).doing(|| "kustomize writes no YAML")?;
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        by_kind[kind] = object;
    }
    Ok(by_kind)
}

/// The member of a list with this name.
fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array().and_then(|list| list.iter().find(|one| one["name"] == name)).unwrap_or(&Value::Null)
}

#[test]
fn kustomize_merges_lists_by_name_with_our_file() -> Result<()> {
    let made = kustomized("ours", true)?;
    let stages = &made["Pipeline"]["spec"]["stages"];
    assert_eq!(named(stages, "prepare"), &json!({"name": "prepare", "image": "prepare:1"}));
    let train = named(stages, "train");
    assert_eq!(train["params"], json!({"lr": 0.5, "epochs": 3}));
    assert_eq!((&train["image"], &train["after"]), (&json!("train:1"), &json!([{"stage": "prepare"}])));
    assert_eq!(train["env"].as_array().map(Vec::len), Some(2));
    assert_eq!(named(&train["env"], "B")["value"], "patched");
    let containers = &train["podTemplate"]["spec"]["containers"];
    assert_eq!(named(containers, "side")["image"], "side:1");
    let env = &named(containers, "main")["env"];
    assert_eq!((&named(env, "C")["value"], &named(env, "D")["value"]), (&json!("one"), &json!("patched")));
    let outputs = &made["Experiment"]["spec"]["outputs"];
    assert_eq!(named(outputs, "log"), &json!({"name": "log", "path": "/out/log", "optional": true}));
    assert_eq!(named(outputs, "model")["path"], "/out/model");
    let h100 = named(&made["Queue"]["spec"]["flavors"], "h100");
    assert_eq!(
        (&h100["nodeSelector"]["gpu"], &h100["resources"]["nvidia.com/gpu"]["quota"]),
        (&json!("h100"), &json!(2))
    );
    assert_eq!(named(&made["Queue"]["spec"]["flavors"], "a100")["nodeSelector"]["gpu"], "a100");
    // Kinds of a cluster have no namespace.
    assert!(made["Queue"]["metadata"]["namespace"].is_null() && made["Pipeline"]["metadata"]["namespace"] == "vision");
    Ok(())
}

#[test]
fn kustomize_does_with_kubernetes_kinds_what_it_does_without_our_file() -> Result<()> {
    let (with, without) = (kustomized("theirs", true)?, kustomized("theirs", false)?);
    for kind in ["Deployment", "Service"] {
        assert_eq!(with[kind], without[kind]);
    }
    let containers = &with["Deployment"]["spec"]["template"]["spec"]["containers"];
    assert_eq!(
        (&named(containers, "web")["image"], &named(containers, "side")["image"]),
        (&json!("web:2"), &json!("side:1"))
    );
    // Without it the list is replaced: what this file is for.
    assert_eq!(without["Pipeline"]["spec"]["stages"].as_array().map(Vec::len), Some(1));
    Ok(())
}

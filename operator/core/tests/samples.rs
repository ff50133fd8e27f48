//! The samples: each is accepted as it is written.

use cultivar_core::validate;
use cultivar_crds::ApprovalSpec;
use serde::Deserialize;
use serde_yaml::{Deserializer, Value};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn every_sample_is_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/samples");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        for document in Deserializer::from_str(&std::fs::read_to_string(&path).unwrap()) {
            let object = Value::deserialize(document).unwrap();
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            let spec = serde_json::to_value(&object["spec"]).unwrap();
            let refusal = match kind.as_str() {
                "Experiment" => validate::experiment(&spec).refusal(),
                "Pipeline" => validate::pipeline(&spec).refusal(),
                "PipelineRun" => validate::pipeline_run(&spec).refusal(),
                "Approval" => ApprovalSpec::deserialize(&spec).err().map(|error| error.to_string()),
                _ => None,
            };
            assert_eq!(refusal, None, "{}", path.display());
            *seen.entry(kind).or_default() += 1;
        }
    }
    for kind in ["Experiment", "Pipeline", "PipelineRun", "Approval"] {
        assert!(seen.contains_key(kind), "no sample has a {kind}: {seen:?}");
    }
}

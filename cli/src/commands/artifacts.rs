//! `artifacts`: what an experiment left, and fetching it.

use cultivar_core::domain::ExperimentRecord;
use cultivar_crds::experiment::Artifact;
use cultivar_data::{DataError, Mover, Place, Remote, Store};
use std::path::{Path, PathBuf};

use crate::args::Format;
use crate::cluster::{Cluster, experiment};
use crate::error::{Error, Result};
use crate::output;
use crate::recorded;
use crate::store::{self, Operator};

/// What an experiment left.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar artifacts train-7f3a\n  kubectl cultivar artifacts train-7f3a get model --to out/"
)]
pub struct Artifacts {
    /// Name of the experiment.
    id: String,
    #[command(flatten)]
    operator: Operator,
    #[command(subcommand)]
    then: Option<Then>,
}

#[derive(clap::Subcommand)]
enum Then {
    /// Fetch artifacts into a folder, checked by their digests.
    Get {
        /// Names of the artifacts; all by default.
        names: Vec<String>,
        /// The folder; it is made.
        #[arg(long, default_value = ".")]
        to: PathBuf,
    },
}

pub async fn artifacts(cluster: &Cluster, format: Option<Format>, asked: &Artifacts) -> Result<()> {
    let (object, _) = recorded::get(cluster, &asked.operator, &asked.id).await?;
    let record = experiment(&object)?;
    let Some(Then::Get { names, to }) = &asked.then else {
        match format {
            Some(Format::Json) => println!("{:#}", object["status"]["artifacts"]),
            Some(Format::Yaml) => print!("{}", output::yaml(&object["status"]["artifacts"])?),
            Some(Format::Name) => record.status.artifacts.iter().for_each(|one| println!("{}", one.name)),
            None | Some(Format::Wide) => print!("{}", table(&record)),
        }
        return Ok(());
    };
    let chosen = chosen(&record, names)?;
    let reached = store::reach(cluster, &asked.operator).await?;
    for artifact in chosen {
        let (store, key) = reached.of_object(&artifact.uri)?;
        let path = fetch(&store, &key, artifact, to).await?;
        println!("{}", path.display());
    }
    Ok(())
}

fn table(record: &ExperimentRecord) -> String {
    let rows = record.status.artifacts.iter().map(|one| {
        let size = one.size.map(|size| size.to_string()).unwrap_or_default();
        vec![one.name.clone(), one.type_.clone().unwrap_or_default(), size, one.uri.clone()]
    });
    output::table(&["NAME", "TYPE", "BYTES", "URI"], rows.collect())
}

fn chosen<'a>(record: &'a ExperimentRecord, names: &[String]) -> Result<Vec<&'a Artifact>> {
    let all = &record.status.artifacts;
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let find = |name: &String| {
        all.iter().find(|one| one.name == *name).ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
            let has =
                if known.is_empty() { "it left none".to_owned() } else { format!("it left {}", known.join(", ")) };
            Error::not_found(format!("{} has no artifact {name}", record.meta.name)).hint(has)
        })
    };
    names.iter().map(find).collect()
}

// Visible only when whole; the name is the last part of where it lies.
async fn fetch(store: &Store, key: &str, artifact: &Artifact, folder: &Path) -> Result<PathBuf> {
    let failed = |error: DataError| Error::new(format!("artifact {} cannot be fetched", artifact.name)).why(error);
    let plain = key.trim_end_matches('/');
    let name = plain.rsplit('/').next().filter(|name| !matches!(*name, "" | "." | "..")).unwrap_or(&artifact.name);
    let target = folder.join(name);
    if target.symlink_metadata().is_ok() {
        let what = format!("{} is there already", target.display());
        return Err(Error::refused(what).hint("remove it, or name another folder: --to"));
    }
    let place = Place::of(&target).map_err(failed)?;
    let (mover, expect) = (Mover::default(), artifact.digest.as_deref().filter(|digest| digest.starts_with("sha256:")));
    let done = if artifact.uri.ends_with('/') {
        mover.fetch_tree(store, plain, place.part(), expect).await
    } else {
        mover.fetch(&Remote::Object(store.clone(), plain.to_owned()), place.part(), expect).await
    };
    done.map_err(failed)?;
    place.done().map_err(failed)?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_data::digest_of;
    use cultivar_protocol::StoreSpec;
    use serde_json::json;

    fn record() -> ExperimentRecord {
        let artifacts = json!([{"name": "model", "type": "Model", "uri": "s3://b/m.pkl", "size": 3}, {"name": "log", "uri": "s3://b/l"}]);
        experiment(&json!({"metadata": {"name": "train"}, "status": {"artifacts": artifacts}})).unwrap()
    }

    #[test]
    fn artifacts_are_listed_and_an_unknown_one_is_answered_with_those_that_are() {
        let record = record();
        assert!(table(&record).contains("model   Model   3       s3://b/m.pkl\n"), "{}", table(&record));
        assert_eq!(chosen(&record, &[]).unwrap().len(), 2);
        let error = chosen(&record, &["modle".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("modle") && error.contains("model, log"), "{error}");
    }

    #[tokio::test]
    async fn what_is_fetched_has_its_digest_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/store", folder.path().display());
        let store = Store::open(&StoreSpec { url: url.clone(), ..StoreSpec::default() }).unwrap();
        store.put("ns/m.pkl", "abc").await.unwrap();
        let uri = format!("{url}/ns/m.pkl");
        let right = Artifact { name: "model".into(), uri, digest: Some(digest_of(b"abc")), ..Artifact::default() };
        let wrong = Artifact { digest: Some(digest_of(b"x")), ..right.clone() };
        let to = folder.path().join("to");
        assert!(fetch(&store, "ns/m.pkl", &wrong, &to).await.is_err());
        assert!(!to.join("m.pkl").exists());
        let path = fetch(&store, "ns/m.pkl", &right, &to).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "abc");
        let again = fetch(&store, "ns/m.pkl", &right, &to).await.unwrap_err().to_string();
        assert!(again.contains("there already"), "{again}");
    }
}

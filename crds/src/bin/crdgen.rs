//! Prints the CustomResourceDefinitions as YAML, or with `--write DIR` writes one file per kind, and `reference.md`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let target = match (args.next().as_deref(), args.next()) {
        (None, None) => None,
        (Some("--write"), Some(dir)) => Some(PathBuf::from(dir)),
        _ => {
            eprintln!("usage: crdgen [--write DIR]");
            return ExitCode::from(2);
        }
    };
    for (name, document) in cultivar_crds::manifest::all() {
        let yaml = serde_yaml::to_string(&document).expect("plain JSON is YAML");
        match &target {
            None => print!("---\n{yaml}"),
            Some(dir) => {
                let path = dir.join(format!("{name}.yaml"));
                if let Err(error) = std::fs::write(&path, yaml) {
                    eprintln!("cannot write {}: {error}", path.display());
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    if let Some(dir) = &target {
        let path = dir.join("reference.md");
        if let Err(error) = std::fs::write(&path, cultivar_crds::reference::markdown()) {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

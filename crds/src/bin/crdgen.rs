//! Prints the CustomResourceDefinitions as YAML; with `--write DIR` writes one file per kind, and `reference.md`; with
//! `--openapi FILE` writes the document for kustomize.

use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {
            cultivar_crds::manifest::all().iter().for_each(|(_, document)| print!("---\n{}", yaml(document)));
            Ok(())
        }
        ["--write", dir] => definitions(Path::new(dir)),
        ["--openapi", file] => write(Path::new(file), &cultivar_crds::merge_keys::text()),
        _ => {
            eprintln!("usage: crdgen [--write DIR | --openapi FILE]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn definitions(dir: &Path) -> Result<(), String> {
    for (name, document) in cultivar_crds::manifest::all() {
        write(&dir.join(format!("{name}.yaml")), &yaml(&document))?;
    }
    write(&dir.join("reference.md"), &cultivar_crds::reference::markdown())
}

fn yaml(document: &Value) -> String {
    serde_yaml::to_string(document).expect("plain JSON is YAML")
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

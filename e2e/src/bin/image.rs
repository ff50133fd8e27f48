//! Builds one of the project's images without Docker and prints where it is:
//! `image busybox`, `image digits`, `image operator`, `image operator-debug`.

use std::process::ExitCode;

use cultivar_e2e::error::Result;
use cultivar_e2e::image::{Build, busybox_image, digits_image, operator_image, read_oci_tar};

fn main() -> ExitCode {
    let say = |line: &str| eprintln!("{line}");
    let version = env!("CARGO_PKG_VERSION");
    let built = match std::env::args().nth(1).as_deref() {
        Some("busybox") => busybox_image(&say),
        Some("digits") => digits_image(&say),
        Some("operator") => operator_image(version, Build::Static, &say),
        Some("operator-debug") => operator_image(version, Build::Debug, &say),
        _ => {
            eprintln!("usage: image busybox|digits|operator|operator-debug");
            return ExitCode::from(2);
        }
    };
    match built.and_then(|path| show(&path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn show(path: &std::path::Path) -> Result<()> {
    let image = read_oci_tar(path)?;
    eprintln!(
        "{} {}: {} bytes in {} layers",
        image.reference,
        image.digest,
        image.layers.iter().sum::<u64>(),
        image.layers.len()
    );
    println!("{}", path.display());
    Ok(())
}

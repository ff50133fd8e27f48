//! How registries are asked for the digests of images.
//!
//! Comes in: the flags. Goes out: [`ImageSettings`], checked.

use cultivar_core::domain::Image;
use reqwest::Url;
use std::collections::BTreeMap;

use super::{SettingsError, on, wrong};

/// The flags as clap sees them.
#[derive(clap::Args, Clone, Debug)]
pub struct ImageArgs {
    /// Whether registries are asked for the digests of images that tags name, when a run begins: on or off.
    #[arg(long, env = "CULTIVAR_RESOLVE_IMAGES", value_name = "on|off", default_value = "on")]
    resolve_images: String,

    /// Where a registry's images are asked for instead, such as docker.io=https://mirror.example.com/hub, or over plain
    /// http; may be given several times. Where such a server says to ask for a token or to look elsewhere counts as before.
    #[arg(long, env = "CULTIVAR_IMAGE_MIRROR", value_name = "REGISTRY=URL", value_delimiter = ',')]
    image_mirror: Vec<String>,
}

/// How registries are asked.
#[derive(Clone, Debug, Default)]
pub struct ImageSettings {
    /// False: none is.
    pub resolve: bool,
    /// By registry: the address that is asked instead.
    pub mirrors: BTreeMap<String, Url>,
}

impl TryFrom<&ImageArgs> for ImageSettings {
    type Error = SettingsError;

    fn try_from(args: &ImageArgs) -> Result<Self, SettingsError> {
        let mirrors = args.image_mirror.iter().map(|text| mirror(text)).collect::<Result<_, _>>()?;
        Ok(Self { resolve: on("resolve-images", &args.resolve_images)?, mirrors })
    }
}

fn mirror(text: &str) -> Result<(String, Url), SettingsError> {
    const TODO: &str = "write the registry's host as it stands in names of images, = and an address, as in docker.io=https://mirror.example.com";
    let wrong = |why: &str| wrong("image-mirror", text, why, TODO);
    let (registry, url) = text.split_once('=').ok_or_else(|| wrong("there is no ="))?;
    if !Image::parse(&format!("{registry}/image")).is_ok_and(|image| image.registry == registry) {
        return Err(wrong("what stands before the = is no registry"));
    }
    let url = Url::parse(url).map_err(|error| wrong(&format!("what stands after the = is no address: {error}")))?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !matches!(url.scheme(), "http" | "https") || !plain || url.host_str().is_none() {
        return Err(wrong("the address is not http:// or https:// and a host, with at most a path"));
    }
    Ok((registry.to_owned(), url))
}

//! Names of images: which registry, which repository in it, and by what an image there is meant.
//!
//! Comes in: the text that stands in a pod. Goes out: its parts as a container runtime reads them, with those that people
//! leave out.

/// The registry that a name without one means.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where its repositories without an owner lie.
const DEFAULT_OWNER: &str = "library";
/// The tag that a name without one means.
const DEFAULT_TAG: &str = "latest";
/// Longest registry and repository together, and longest tag.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A name of an image, in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Image {
    /// Host of the registry, with a port where one is given; in lower case.
    pub registry: String,
    /// Path within the registry.
    pub repository: String,
    /// The tag; nothing: there is a digest and no tag.
    pub tag: Option<String>,
    /// What stands after the `@`.
    pub digest: Option<String>,
}

impl Image {
    /// Reads a name.
    ///
    /// # Errors
    /// It is none that a runtime could pull, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, digest) = match text.split_once('@') {
            Some((_, "")) => return Err("nothing stands after its @".to_owned()),
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (text, None),
        };
        // A colon before the last slash is a port's.
        let colon = name.rfind(':').filter(|colon| !name[*colon..].contains('/'));
        let (name, tag) = match colon {
            Some(colon) => (&name[..colon], Some(&name[colon + 1..])),
            None => (name, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!("{tag:?} is no tag: up to {MAX_TAG} letters, digits, dots, dashes and underscores"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first.to_ascii_lowercase(), rest.to_owned()),
            _ => (DEFAULT_REGISTRY.to_owned(), name.to_owned()),
        };
        if !is_authority(&registry) {
            return Err(format!("{registry:?} is no host of a registry"));
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY.to_owned() } else { registry };
        let repository =
            if registry == DEFAULT_REGISTRY && !path.contains('/') { format!("{DEFAULT_OWNER}/{path}") } else { path };
        if registry.len() + repository.len() >= MAX_NAME || !repository.split('/').all(is_component) {
            return Err(format!(
                "{repository:?} is no repository: lower-case letters and digits, with single dots, dashes or underscores between"
            ));
        }
        let tag = tag.or(digest.is_none().then_some(DEFAULT_TAG)).map(str::to_owned);
        Ok(Self { registry, repository, tag, digest })
    }

    /// `docker.io/library/busybox` of `busybox:1.37`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

// As Docker tells a host from the first part of a path.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn is_authority(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", rest),
        Some(_) => return false,
        None => authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon)),
    };
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    is_port && host.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let ends = label.starts_with('-') || label.ends_with('-');
    !label.is_empty() && !ends && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_tag(tag: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    !tag.is_empty() && tag.len() <= MAX_TAG && !tag.starts_with(['.', '-']) && tag.bytes().all(inside)
}

// Letters and digits, with one dot, one or two underscores or any dashes between.
fn is_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().copied().is_some_and(is_word) && bytes.last().copied().is_some_and(is_word);
    let mut separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && separators
        .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

/// Whether the name says by its digest which image it means.
#[must_use]
pub fn is_pinned(image: &str) -> bool {
    image.split_once('@').is_some_and(|(_, digest)| digest.starts_with("sha256:") && !digest.contains("${"))
}

/// The name with the digest that its tag stood for; the tag stays, for people.
#[must_use]
pub fn pinned(image: &str, digest: &str) -> String {
    format!("{image}@{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_left_out_is_what_a_runtime_takes() {
        for (text, registry, repository, tag) in [
            ("busybox", "docker.io", "library/busybox", Some("latest")),
            ("busybox:1.37", "docker.io", "library/busybox", Some("1.37")),
            ("acme/train:1", "docker.io", "acme/train", Some("1")),
            ("docker.io/busybox", "docker.io", "library/busybox", Some("latest")),
            ("index.docker.io/acme/train", "docker.io", "acme/train", Some("latest")),
            ("ghcr.io/acme/deep/er/train:v1_2-3", "ghcr.io", "acme/deep/er/train", Some("v1_2-3")),
            ("localhost/train", "localhost", "train", Some("latest")),
            ("localhost:5000/train:1", "localhost:5000", "train", Some("1")),
            ("10.0.0.1:5000/a/b", "10.0.0.1:5000", "a/b", Some("latest")),
            ("[fd00::1]:5000/a", "[fd00::1]:5000", "a", Some("latest")),
            ("GHCR.io/acme/train", "ghcr.io", "acme/train", Some("latest")),
            ("ghcr.io/a__b/c--d.e:1", "ghcr.io", "a__b/c--d.e", Some("1")),
            ("busybox@sha256:ab", "docker.io", "library/busybox", None),
            ("ghcr.io/acme/train:1@sha256:ab", "ghcr.io", "acme/train", Some("1")),
        ] {
            let image = Image::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            let parts = (image.registry.as_str(), image.repository.as_str(), image.tag.as_deref());
            assert_eq!(parts, (registry, repository, tag), "{text}");
        }
    }

    #[test]
    fn what_no_runtime_would_pull_is_said() {
        for (text, part) in [
            ("", "no repository"),
            ("Train:1", "no repository"),
            ("ghcr.io/Acme/train", "no repository"),
            ("Acme/train", "no repository"),
            ("ghcr.io/acme//train", "no repository"),
            ("ghcr.io/acme/tr___ain", "no repository"),
            ("ghcr.io/acme/../train", "no repository"),
            ("ghcr.io/acme/train?x=1", "no repository"),
            ("acme/train:", "no tag"),
            ("acme/train:-1", "no tag"),
            ("acme/train:a b", "no tag"),
            ("ghcr.io:port/train:1", "no host"),
            ("ghcr.io:99999/train:1", "no host"),
            ("-ghcr.io/train", "no host"),
            ("user:pass.x/train", "no host"),
            ("[fe80::1/train", "no host"),
            ("busybox@", "after its @"),
        ] {
            let why = Image::parse(text).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn a_digest_is_what_pins() {
        assert!(is_pinned("a:1@sha256:ab") && is_pinned("a@sha256:ab"));
        assert!(!is_pinned("a:1") && !is_pinned("a@sha512:ab") && !is_pinned("a@sha256:${params.digest}"));
        let image = pinned("ghcr.io/acme/train:1", "sha256:ab");
        assert_eq!(Image::parse(&image).unwrap().digest.as_deref(), Some("sha256:ab"));
        assert!(is_pinned(&image));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_is_safe_in_an_address(text in "[a-zA-Z0-9./:@_\\-\\[\\]?#% ü]{0,40}") {
            if let Ok(image) = Image::parse(&text) {
                let safe = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:[]".contains(&byte));
                prop_assert!(safe(&image.registry) && safe(&image.repository) && image.tag.as_deref().is_none_or(safe));
                prop_assert!(image.repository.split('/').all(|part| !part.is_empty() && part != ".."));
                // In full it means the same.
                let again = Image::parse(&format!("{}:{}", image.name(), image.tag.as_deref().unwrap_or("latest"))).unwrap();
                prop_assert_eq!((again.registry, again.repository), (image.registry, image.repository));
            }
        }
    }
}

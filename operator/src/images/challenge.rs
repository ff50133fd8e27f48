//! How a registry asks who is there: the header WWW-Authenticate.

use std::collections::BTreeMap;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A name and a password.
    Basic,
    /// A token of the server at `realm`.
    Bearer {
        /// Address of that server.
        realm: String,
        /// The service that the token is for.
        service: Option<String>,
    },
}

impl Challenge {
    /// The first of these headers that can be answered.
    pub fn read<'h>(headers: impl IntoIterator<Item = &'h str>) -> Option<Self> {
        headers.into_iter().find_map(Self::parse)
    }

    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(char::is_whitespace).unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut fields = parameters(rest);
        let realm = fields.remove("realm").filter(|realm| !realm.is_empty())?;
        Some(Self::Bearer { realm, service: fields.remove("service") })
    }
}

// `a="b,c", d=e` as a map; what cannot be read ends it.
fn parameters(mut rest: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches(|c: char| c == ',' || c.is_whitespace()).to_ascii_lowercase();
        let after = after.trim_start();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let (value, left) = after.split_once(',').unwrap_or((after, ""));
                (value.trim().to_owned(), left)
            }
        };
        fields.entry(name).or_insert(value);
        rest = left;
    }
    fields
}

// Up to the closing quote, and what follows it.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(Challenge::read([docker]), bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        assert_eq!(Challenge::read([r#"bearer service=x, realm="https://h/t""#]), bearer("https://h/t", Some("x")));
        assert_eq!(Challenge::read([r#"Bearer realm="a\"b""#]), bearer("a\"b", None));
        assert_eq!(Challenge::read(["Negotiate", r#"Basic realm="r""#]), Some(Challenge::Basic));
        for none in ["", "Bearer", r#"Bearer service="x""#, "Bearer realm=", "Digest realm=x"] {
            assert_eq!(Challenge::read([none]), None, "{none}");
        }
        assert_eq!(Challenge::read([r#"Bearer realm="open"#]), bearer("open", None));
    }
}

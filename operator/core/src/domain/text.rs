//! Text for status: bounded, so that no message can wedge an object.

use cultivar_crds::schema::MAX_MESSAGE;

/// Longest tail of a log that an attempt keeps, in bytes.
pub const MAX_TAIL: usize = 2048;

/// The text, cut to what a status message may hold; a cut shows as `…`.
#[must_use]
pub fn message(text: impl Into<String>) -> String {
    short(text, MAX_MESSAGE)
}

/// The text, cut to so many bytes; a cut shows as `…`.
#[must_use]
pub fn short(text: impl Into<String>, most: usize) -> String {
    let mut text = text.into();
    if text.len() > most {
        let mut end = most.saturating_sub('…'.len_utf8());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The last [`MAX_TAIL`] bytes of a log, at a character's border.
#[must_use]
pub fn tail(log: &str) -> String {
    let mut start = log.len().saturating_sub(MAX_TAIL);
    while !log.is_char_boundary(start) {
        start += 1;
    }
    log[start..].to_owned()
}

/// `a, b and 3 more`.
#[must_use]
pub fn some_of<S: AsRef<str>>(names: &[S], most: usize) -> String {
    let shown: Vec<&str> = names.iter().take(most).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_characters() {
        let long = "ü".repeat(2000);
        assert!(message(long.clone()).len() <= MAX_MESSAGE);
        assert!(tail(&long).len() <= MAX_TAIL);
        assert_eq!(message("short"), "short");
    }
}

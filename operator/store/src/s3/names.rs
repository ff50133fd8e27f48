//! How things are written: hexadecimal, base64, percent signs, tokens.
//!
//! Comes in: bytes and texts. Goes out: the same in another writing. What clients send is read with care: anything that
//! we did not write ourselves is none.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use s3s::dto::Timestamp;

use crate::index::listing::Position;

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes from hexadecimal.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes in base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Bytes from base64 with padding.
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 {
        return None;
    }
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// A key in the writing that `encoding-type=url` asks for.
pub fn percent(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => out.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

/// A continuation token.
pub fn token(position: &Position) -> String {
    match position {
        Position::Start => "s".to_owned(),
        Position::Key(key) => format!("k{}", hex(key.as_bytes())),
        Position::Prefix(prefix) => format!("p{}", hex(prefix.as_bytes())),
    }
}

/// A continuation token of ours.
pub fn untoken(token: &str) -> Option<Position> {
    let text = |hex: &str| unhex(hex).and_then(|bytes| String::from_utf8(bytes).ok());
    match token.split_at_checked(1)? {
        ("s", "") => Some(Position::Start),
        ("k", key) => text(key).map(Position::Key),
        ("p", prefix) => text(prefix).map(Position::Prefix),
        _ => None,
    }
}

/// The id of an upload as clients see it.
pub fn upload_id(id: u64) -> String {
    format!("{id:016x}")
}

/// The id of an upload.
pub fn un_upload_id(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// A time of ours as the library has it.
pub fn timestamp(millis: i64) -> Timestamp {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_writings() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xff\xfe", "//4=")]
        {
            assert_eq!(base64(bytes), text);
            assert_eq!(unbase64(text).unwrap(), bytes);
        }
        for bad in ["Z", "Zg=", "====", "Zm9%", "Zm9vA==="] {
            assert_eq!(unbase64(bad), None, "{bad}");
        }
        assert_eq!(percent("a b/ü+\u{1}"), "a%20b/%C3%BC%2B%01");
        assert_eq!(untoken("x61"), None);
        assert_eq!(untoken("kff"), None, "no text");
        assert_eq!(untoken(""), None);
        assert_eq!(untoken("ük"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(bytes: Vec<u8>, text: String) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(unbase64(&base64(&bytes)), Some(bytes));
            for position in [Position::Key(text.clone()), Position::Prefix(text.clone()), Position::Start] {
                prop_assert_eq!(untoken(&token(&position)), Some(position));
            }
        }
    }
}

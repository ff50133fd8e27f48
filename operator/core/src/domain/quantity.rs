//! Kubernetes quantities as whole numbers, so that sums of a ledger are exact.
//!
//! Comes in: a resource's name and a quantity's text. Goes out: thousandths for `cpu`, whole units or bytes for
//! everything else. What is finer is rounded up, as the scheduler does; what is larger than an `i64` saturates.

/// Amount of a resource in its own unit: thousandths of a core for `cpu`, else units or bytes.
///
/// `None` when the text is no quantity or is negative: nothing can ask for less than nothing.
#[must_use]
pub fn amount(resource: &str, text: &str) -> Option<i64> {
    let scale = if resource == "cpu" { 1000 } else { 1 };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (up, down) = multiplier(suffix)?;
    let fraction = fraction.trim_end_matches('0');
    let mantissa = format!("{whole}{fraction}");
    let mantissa = mantissa.trim_start_matches('0');
    if mantissa.is_empty() {
        return Some(0);
    }
    // More digits than this are beyond i64 or below its unit, whatever the suffix; the text is bounded upstream.
    if mantissa.len() > 30 || fraction.len() > 18 {
        return None;
    }
    let mantissa: u128 = mantissa.parse().ok()?;
    let above = mantissa.saturating_mul(up).saturating_mul(scale);
    let below = 10_u128.pow(u32::try_from(fraction.len()).ok()?).saturating_mul(down);
    Some(i64::try_from(above.div_ceil(below)).unwrap_or(i64::MAX))
}

/// An amount as people write it: `1500m` and `2` of cpu, `512Gi` of bytes, else a whole number.
#[must_use]
pub fn text(resource: &str, amount: i64) -> String {
    if resource == "cpu" {
        return if amount % 1000 == 0 { (amount / 1000).to_string() } else { format!("{amount}m") };
    }
    // Only what is counted in bytes has sizes that these divide.
    let bytes = ["memory", "ephemeral-storage"].contains(&resource) || resource.starts_with("hugepages-");
    let suffixes = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)].into_iter();
    let fits = |(_, bits): &(&str, u32)| bytes && amount != 0 && amount % (1_i64 << bits) == 0;
    suffixes
        .filter(fits)
        .map(|(suffix, bits)| format!("{}{suffix}", amount >> bits))
        .next()
        .unwrap_or_else(|| amount.to_string())
}

/// What a suffix multiplies and divides by.
fn multiplier(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => return exponent(suffix),
    })
}

/// `e3`, `E-2`: powers of ten, as far as they matter to an `i64`.
fn exponent(suffix: &str) -> Option<(u128, u128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let ten = 10_u128.checked_pow(power.unsigned_abs()).filter(|_| power.unsigned_abs() <= 18)?;
    Some(if power < 0 { (1, ten) } else { (ten, 1) })
}

#[cfg(test)]
mod tests {
    use super::{amount, text};

    #[test]
    fn amounts_are_written_as_people_do() {
        for (resource, amount, wanted) in [
            ("cpu", 1500, "1500m"),
            ("cpu", 2000, "2"),
            ("memory", 3 << 30, "3Gi"),
            ("memory", 1, "1"),
            ("memory", 0, "0"),
            ("nvidia.com/gpu", 1024, "1024"),
        ] {
            assert_eq!(text(resource, amount), wanted);
        }
    }

    #[test]
    fn quantities_become_whole_numbers_rounded_up() {
        for (resource, text, wanted) in [
            ("cpu", "1", Some(1000)),
            ("cpu", "0.5", Some(500)),
            ("cpu", "250m", Some(250)),
            ("cpu", "100u", Some(1)),
            ("memory", "1Gi", Some(1 << 30)),
            ("memory", "1.5Ki", Some(1536)),
            ("memory", "1e3", Some(1000)),
            ("memory", "1E", Some(1_000_000_000_000_000_000)),
            ("memory", "128m", Some(1)),
            ("memory", "99E", Some(i64::MAX)),
            ("nvidia.com/gpu", "8", Some(8)),
            ("nvidia.com/gpu", "0.0", Some(0)),
            ("cpu", "", None),
            ("cpu", ".", None),
            ("cpu", "-1", None),
            ("cpu", "1.2.3", None),
            ("cpu", "1x", None),
            ("cpu", "1e99", None),
        ] {
            assert_eq!(amount(resource, text), wanted, "{resource}: {text:?}");
        }
    }
}

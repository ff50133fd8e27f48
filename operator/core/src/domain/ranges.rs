//! Sets of indexes as text: `0-41,43`, so that ten thousand members fit into a status.

/// The set as text; `indexes` must ascend.
pub fn print(indexes: impl IntoIterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => ranges.push((index, index)),
        }
    }
    let text = |(first, last): (u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// The indexes of a set, those beyond `most` and what is no range left out.
pub fn parse(text: &str, most: u32) -> impl Iterator<Item = u32> {
    let range = move |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(most))
    };
    text.split(',').filter_map(range).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        for set in [vec![], vec![0], vec![0, 1, 2], vec![0, 2, 3, 4, 9], vec![7, 8]] {
            let text = print(set.iter().copied());
            assert_eq!(parse(&text, 100).collect::<Vec<_>>(), set, "{text}");
        }
        assert_eq!(print([0, 1, 2, 4]), "0-2,4");
    }

    #[test]
    fn a_status_that_somebody_spoiled_costs_nothing() {
        assert_eq!(parse("0-4000000000,x,-,3", 2).collect::<Vec<_>>(), [0, 1, 2]);
    }
}

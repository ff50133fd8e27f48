//! Order statistics of small samples.

/// The value that `share` of the sample is not above (nearest rank); nothing of an empty sample.
pub fn percentile(sample: &[f64], share: f64) -> Option<f64> {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

/// The mean of the sample; nothing of an empty sample is 0.
pub fn mean(sample: &[f64]) -> f64 {
    let count: u32 = sample.len().try_into().unwrap_or(u32::MAX);
    sample.iter().sum::<f64>() / f64::from(count.max(1))
}

/// The middle of the sample: of a few rounds, the one that luck touched least.
pub fn median(sample: &[f64]) -> Option<f64> {
    percentile(sample, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_nearest() {
        let sample: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&sample, 0.5), Some(50.0));
        assert_eq!(percentile(&sample, 0.99), Some(99.0));
        assert_eq!(percentile(&[7.0], 0.99), Some(7.0));
        assert_eq!(median(&[]), None);
        assert_eq!([mean(&sample), mean(&[])].map(|mean| mean.to_string()), ["50.5", "0"]);
    }
}

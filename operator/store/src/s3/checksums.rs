//! Checksums: what a client promises about a body, held against what came.
//!
//! Comes in: the checksums of a request's headers and trailers, and those of the bytes. Goes out: the checksum to keep,
//! or a refusal. Of an object in parts, the checksum is made of the parts' ones, as S3 does it.

use crc_fast::{CrcAlgorithm, checksum_combine};
use hyper::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{Checksum as Checksums, ChecksumAlgorithm, ChecksumType};
use s3s::{S3Result, s3_error};

use super::names::{base64, hex, unbase64, unhex};
use crate::index::records::{Algorithm, Checksum, Part, Upload};

/// All, with the name of each one's header.
const ALL: [(Algorithm, &str); 5] = [
    (Algorithm::Crc64Nvme, "x-amz-checksum-crc64nvme"),
    (Algorithm::Crc32c, "x-amz-checksum-crc32c"),
    (Algorithm::Crc32, "x-amz-checksum-crc32"),
    (Algorithm::Sha256, "x-amz-checksum-sha256"),
    (Algorithm::Sha1, "x-amz-checksum-sha1"),
];

/// The algorithm of a name such as `CRC32`.
///
/// # Errors
/// When S3 has no such algorithm.
pub fn algorithm(name: &ChecksumAlgorithm) -> S3Result<Algorithm> {
    Ok(match name.as_str() {
        ChecksumAlgorithm::CRC32 => Algorithm::Crc32,
        ChecksumAlgorithm::CRC32C => Algorithm::Crc32c,
        ChecksumAlgorithm::CRC64NVME => Algorithm::Crc64Nvme,
        ChecksumAlgorithm::SHA1 => Algorithm::Sha1,
        ChecksumAlgorithm::SHA256 => Algorithm::Sha256,
        other => return Err(s3_error!(InvalidRequest, "{other:?} is no checksum algorithm")),
    })
}

/// The name of an algorithm.
pub fn algorithm_name(algorithm: Algorithm) -> ChecksumAlgorithm {
    ChecksumAlgorithm::from_static(match algorithm {
        Algorithm::Crc32 => ChecksumAlgorithm::CRC32,
        Algorithm::Crc32c => ChecksumAlgorithm::CRC32C,
        Algorithm::Crc64Nvme => ChecksumAlgorithm::CRC64NVME,
        Algorithm::Sha1 => ChecksumAlgorithm::SHA1,
        Algorithm::Sha256 => ChecksumAlgorithm::SHA256,
    })
}

fn field(sums: &mut Checksums, algorithm: Algorithm) -> &mut Option<String> {
    match algorithm {
        Algorithm::Crc32 => &mut sums.checksum_crc32,
        Algorithm::Crc32c => &mut sums.checksum_crc32c,
        Algorithm::Crc64Nvme => &mut sums.checksum_crc64nvme,
        Algorithm::Sha1 => &mut sums.checksum_sha1,
        Algorithm::Sha256 => &mut sums.checksum_sha256,
    }
}

/// A checksum as the answer carries it.
pub fn shown(checksum: Option<&Checksum>) -> Checksums {
    let mut sums = Checksums::default();
    if let Some(checksum) = checksum {
        *field(&mut sums, checksum.algorithm) = Some(checksum.value.clone());
        let kind = if checksum.composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
        sums.checksum_type = Some(ChecksumType::from_static(kind));
    }
    sums
}

/// What a request promises about its body.
#[derive(Default)]
pub struct Promise {
    sums: Checksums,
    asked: Option<Algorithm>,
    md5: Option<String>,
}

impl Promise {
    /// From the request's headers.
    ///
    /// # Errors
    /// When the algorithm is unknown.
    pub fn new(sums: Checksums, asked: Option<&ChecksumAlgorithm>, md5: Option<String>) -> S3Result<Self> {
        Ok(Self { sums, asked: asked.map(algorithm).transpose()?, md5 })
    }

    /// Computes what is promised, and what is asked for.
    pub fn hasher(&mut self, also: Option<Algorithm>) -> ChecksumHasher {
        let mut hasher = ChecksumHasher::default();
        for (algorithm, _) in ALL {
            let promised = field(&mut self.sums, algorithm).is_some();
            if promised || self.asked == Some(algorithm) || also == Some(algorithm) {
                start(&mut hasher, algorithm);
            }
        }
        hasher
    }

    /// Holds the promise against what came. Goes out: the checksum to keep, of those that were computed.
    ///
    /// # Errors
    /// When something else came.
    pub fn verify(
        mut self,
        trailers: Option<&HeaderMap>,
        md5: &[u8; 16],
        came: &mut Checksums,
    ) -> S3Result<Option<Checksum>> {
        if self.md5.as_deref().is_some_and(|promised| unbase64(promised).as_deref() != Some(&md5[..])) {
            return Err(s3_error!(BadDigest, "the body's MD5 is not what Content-MD5 says"));
        }
        let mut kept = None;
        for (algorithm, header) in ALL {
            let came = field(came, algorithm).take();
            let trailer = trailers.and_then(|trailers| trailers.get(header)).and_then(|value| value.to_str().ok());
            let promises = [trailer.map(str::to_owned), field(&mut self.sums, algorithm).take()];
            for promised in promises.into_iter().flatten() {
                if came.as_deref() != Some(promised.as_str()) {
                    return Err(s3_error!(BadDigest, "the body's checksum is not what {header} says"));
                }
            }
            kept = kept.or(came.map(|value| Checksum { algorithm, value, composite: false }));
        }
        Ok(kept)
    }
}

fn start(hasher: &mut ChecksumHasher, algorithm: Algorithm) {
    match algorithm {
        Algorithm::Crc32 => hasher.crc32 = Some(Crc32::new()),
        Algorithm::Crc32c => hasher.crc32c = Some(Crc32c::new()),
        Algorithm::Crc64Nvme => hasher.crc64nvme = Some(Crc64Nvme::new()),
        Algorithm::Sha1 => hasher.sha1 = Some(Sha1::new()),
        Algorithm::Sha256 => hasher.sha256 = Some(Sha256::new()),
    }
}

/// The first of the computed checksums, to keep.
pub fn kept(came: &mut Checksums) -> Option<Checksum> {
    let first = |(algorithm, _)| field(came, algorithm).take().map(|value| (algorithm, value));
    let (algorithm, value) = ALL.into_iter().find_map(first)?;
    Some(Checksum { algorithm, value, composite: false })
}

/// All checksums that are there.
pub fn all_of(sums: &mut Checksums) -> Vec<(Algorithm, String)> {
    ALL.into_iter().filter_map(|(algorithm, _)| field(sums, algorithm).take().map(|value| (algorithm, value))).collect()
}

/// A hasher of one algorithm or none.
pub fn hasher_of(algorithm: Option<Algorithm>) -> ChecksumHasher {
    Promise::default().hasher(algorithm)
}

/// The ETag of an object in parts, `<md5 of md5s>-<parts>`, and its checksum if every part has one.
pub fn summary(upload: &Upload, parts: &[Part]) -> (String, Option<Checksum>) {
    let md5s: Vec<u8> = parts.iter().flat_map(|part| unhex(&part.etag).unwrap_or_default()).collect();
    let etag = format!("{}-{}", hex(&Md5::checksum(&md5s)), parts.len());
    (etag, upload.algorithm.and_then(|algorithm| checksum_of(algorithm, upload.full_object, parts)))
}

fn checksum_of(algorithm: Algorithm, full_object: bool, parts: &[Part]) -> Option<Checksum> {
    let of = |part: &Part| {
        let sum = part.checksum.as_ref().filter(|sum| sum.algorithm == algorithm)?;
        Some((unbase64(&sum.value)?, part.size))
    };
    let sums: Vec<(Vec<u8>, u64)> = parts.iter().map(of).collect::<Option<_>>()?;
    if full_object {
        return combined(algorithm, &sums).map(|value| Checksum { algorithm, value, composite: false });
    }
    let mut hasher = hasher_of(Some(algorithm));
    sums.iter().for_each(|(sum, _)| hasher.update(sum));
    let value = field(&mut hasher.finalize(), algorithm).take()?;
    Some(Checksum { algorithm, value: format!("{value}-{}", parts.len()), composite: true })
}

/// The checksum of all bytes, from those of the parts: only the CRCs can do that.
fn combined(algorithm: Algorithm, sums: &[(Vec<u8>, u64)]) -> Option<String> {
    let (kind, width) = match algorithm {
        Algorithm::Crc32 => (CrcAlgorithm::Crc32IsoHdlc, 4),
        Algorithm::Crc32c => (CrcAlgorithm::Crc32Iscsi, 4),
        Algorithm::Crc64Nvme => (CrcAlgorithm::Crc64Nvme, 8),
        Algorithm::Sha1 | Algorithm::Sha256 => return None,
    };
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let mut sums = sums.iter().map(|(sum, size)| (number(sum), *size));
    let (first, _) = sums.next()?;
    let all = sums.fold(first, |all, (sum, size)| checksum_combine(kind, all, sum, size));
    Some(base64(&all.to_be_bytes()[8 - width..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(algorithm: Algorithm, bytes: &[u8]) -> String {
        let mut hasher = hasher_of(Some(algorithm));
        hasher.update(bytes);
        field(&mut hasher.finalize(), algorithm).take().unwrap()
    }

    fn part(algorithm: Algorithm, bytes: &[u8]) -> Part {
        Part {
            size: bytes.len() as u64,
            modified: 0,
            etag: hex(&Md5::checksum(bytes)),
            data: 1,
            checksum: Some(Checksum { algorithm, value: of(algorithm, bytes), composite: false }),
        }
    }

    #[test]
    fn crcs_of_parts_combine_to_that_of_the_whole() {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts = [part(algorithm, b"hello "), part(algorithm, b""), part(algorithm, b"world")];
            let whole = checksum_of(algorithm, true, &parts).unwrap();
            assert_eq!(whole.value, of(algorithm, b"hello world"), "{algorithm:?}");
            assert!(!whole.composite);
        }
        assert_eq!(checksum_of(Algorithm::Sha256, true, &[part(Algorithm::Sha256, b"x")]), None);
    }

    /// Both values computed with Python: hashlib over the concatenated digests.
    #[test]
    fn composite_checksums_and_etags_are_those_of_s3() {
        let parts = [part(Algorithm::Sha256, b"hello "), part(Algorithm::Sha256, b"world")];
        let upload = Upload {
            initiated: 0,
            about: crate::index::records::About::default(),
            algorithm: Some(Algorithm::Sha256),
            full_object: false,
        };
        let (etag, sum) = summary(&upload, &parts);
        assert_eq!(etag, "e09e4fd6265b36115fe3db32df945d84-2");
        assert_eq!(sum.unwrap().value, "Zhie15keHg/OBlOZxcoF/BXCgYZaeimRvdZnwUZqkaQ=-2");
    }

    #[test]
    fn a_broken_promise_is_refused() {
        let md5 = Md5::checksum(b"x");
        let promise = |value: &str| Promise {
            sums: Checksums { checksum_crc32: Some(value.to_owned()), ..Checksums::default() },
            ..Promise::default()
        };
        let came = || Checksums { checksum_crc32: Some("AAAA".to_owned()), ..Checksums::default() };
        assert!(promise("AAAA").verify(None, &md5, &mut came()).unwrap().is_some());
        assert!(promise("BBBB").verify(None, &md5, &mut came()).is_err());
        let mut trailers = HeaderMap::new();
        trailers.insert("x-amz-checksum-crc32", "CCCC".parse().unwrap());
        assert!(promise("AAAA").verify(Some(&trailers), &md5, &mut came()).is_err());
        let of_md5 = |md5: &str| Promise { md5: Some(md5.to_owned()), ..Promise::default() };
        assert!(of_md5(&base64(&md5)).verify(None, &md5, &mut Checksums::default()).is_ok());
        assert!(of_md5("bad").verify(None, &md5, &mut Checksums::default()).is_err());
    }
}

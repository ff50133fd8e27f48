//! The webhook's certificates: what is in the Secret, what should happen to it, and doing that to its contents.
//!
//! Comes in: the Secret's contents, the time, the names that the certificate must have. Goes out: a [`Plan`], and the
//! contents after it. Nothing here reads a clock or talks to anybody; keys are the only thing made of randomness.
//!
//! Rotation never breaks a connection, because each step waits for the one before it to be known everywhere:
//! 1. A new authority is put first in `ca.crt`; the leaf stays the old one's. The caBundle follows.
//! 2. Once the caBundle has been right for [`TRUST_WAIT`], a leaf of the new authority is issued. Replicas serve it when
//!    they next read the Secret; the old leaf stays valid meanwhile.
//! 3. [`DROP_WAIT`] later the old authority leaves `ca.crt`. Its key was gone after step 1.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Life of an authority.
const AUTHORITY_DAYS: i32 = 365;
/// Life of a leaf. Less than a third of an authority's, so that no leaf outlives the authority that issued it.
const LEAF_DAYS: i32 = 90;
/// How far certificates are dated back, for API servers whose clock is behind.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);
/// Time from the caBundle with a new authority to the first leaf that needs it.
pub const TRUST_WAIT: SignedDuration = SignedDuration::from_mins(2);
/// Time from the first leaf of a new authority to the end of the old one.
pub const DROP_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// Why certificates could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A part of the Secret is missing or is not what it should be.
    #[error("{0} of the Secret cannot be used: {1}; the leader replaces it")]
    Contents(&'static str, String),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}; check --webhook-service and --webhook-url-host")]
    Make(#[from] rcgen::Error),
}

/// What is known of an authority besides its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Its subject; unique.
    pub name: String,
    /// When it was made.
    pub issued: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// What is known of the leaf besides its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Name of the authority that signed it.
    pub authority: String,
    /// When it was made.
    pub issued: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// DNS names and addresses, sorted.
    pub names: Vec<String>,
}

/// Kept beside the certificates, so that nothing has to be read out of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// In the order of the certificates in `ca.crt`: the newest first.
    pub authorities: Vec<Authority>,
    /// Of `tls.crt`.
    pub leaf: Leaf,
}

/// What the Secret holds. All texts are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The record.
    pub record: Record,
    /// Certificates of the authorities: what goes into the caBundle.
    pub authorities: Vec<String>,
    /// Private key of the newest authority.
    pub authority_key: String,
    /// The leaf's certificate.
    pub leaf: String,
    /// The leaf's private key.
    pub leaf_key: String,
}

/// What should happen to the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Keep,
    /// There is nothing that could be used: make an authority and a leaf.
    IssueAll,
    /// Make a leaf by the newest authority.
    IssueLeaf,
    /// Put a new authority beside those that are trusted.
    AddAuthority,
    /// Forget all authorities but the newest.
    DropAuthorities,
}

/// What should happen to `contents` at `now`, for a leaf of `names` (sorted). `trusted_since` is when the caBundle was
/// first seen to be the authorities of these contents.
#[must_use]
pub fn plan(contents: Option<&Contents>, now: Timestamp, names: &[String], trusted_since: Option<Timestamp>) -> Plan {
    let Some(contents) = contents else { return Plan::IssueAll };
    let (Record { authorities, leaf }, Some(newest)) = (&contents.record, contents.record.authorities.first()) else {
        return Plan::IssueAll;
    };
    let can_issue = newest.expires > now + DAY && contents.authority_is_whole();
    if contents.verify(now).is_err() {
        // Nobody can connect as it is, so there is nobody to wait for.
        return if can_issue { Plan::IssueLeaf } else { Plan::IssueAll };
    }
    if leaf.authority != newest.name {
        let known = trusted_since.is_some_and(|since| now.duration_since(since) >= TRUST_WAIT);
        return if known && can_issue { Plan::IssueLeaf } else { Plan::Keep };
    }
    if !can_issue || past_two_thirds(newest.issued, newest.expires, now) {
        return Plan::AddAuthority;
    }
    if leaf.names != names || past_two_thirds(leaf.issued, leaf.expires, now) {
        return Plan::IssueLeaf;
    }
    if authorities.len() > 1 && now.duration_since(leaf.issued) >= DROP_WAIT {
        return Plan::DropAuthorities;
    }
    Plan::Keep
}

fn past_two_thirds(issued: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
    now.duration_since(issued) >= expires.duration_since(issued) * 2 / 3
}

/// The contents after `plan`; `None` when nothing changes.
///
/// # Errors
/// When a certificate cannot be made, or one that is needed is not there.
pub fn carry_out(
    plan: Plan,
    contents: Option<&Contents>,
    now: Timestamp,
    names: &[String],
) -> Result<Option<Contents>, CertsError> {
    let old = || contents.ok_or(CertsError::Contents("everything", "it is not there".to_owned()));
    Ok(match plan {
        Plan::Keep => None,
        Plan::IssueAll => Some(issue_all(now, names)?),
        Plan::IssueLeaf => Some(issue_leaf(old()?, now, names)?),
        Plan::AddAuthority => Some(add_authority(old()?, now)?),
        Plan::DropAuthorities => {
            let mut contents = old()?.clone();
            contents.authorities.truncate(1);
            contents.record.authorities.truncate(1);
            Some(contents)
        }
    })
}

fn issue_all(now: Timestamp, names: &[String]) -> Result<Contents, CertsError> {
    let (authority, pem, key) = make_authority(now)?;
    let (leaf, certificate, leaf_key) = make_leaf(&authority, &key, now, names)?;
    Ok(Contents {
        record: Record { authorities: vec![authority], leaf },
        authorities: vec![pem],
        authority_key: key,
        leaf: certificate,
        leaf_key,
    })
}

fn issue_leaf(old: &Contents, now: Timestamp, names: &[String]) -> Result<Contents, CertsError> {
    let missing = || CertsError::Contents("ca.crt", "it is empty".to_owned());
    let newest = old.record.authorities.first().ok_or_else(missing)?;
    let (leaf, certificate, leaf_key) = make_leaf(newest, &old.authority_key, now, names)?;
    let record = Record { leaf, ..old.record.clone() };
    Ok(Contents { record, leaf: certificate, leaf_key, ..old.clone() })
}

fn add_authority(old: &Contents, now: Timestamp) -> Result<Contents, CertsError> {
    let (authority, pem, key) = make_authority(now)?;
    let mut contents = Contents { authority_key: key, ..old.clone() };
    contents.authorities.insert(0, pem);
    contents.record.authorities.insert(0, authority);
    Ok(contents)
}

/// An authority: its record, its certificate and its key.
fn make_authority(now: Timestamp) -> Result<(Authority, String, String), CertsError> {
    let name = format!("cultivar-webhook-{}", now.as_millisecond());
    let expires = now + DAY * AUTHORITY_DAYS;
    let key = KeyPair::generate()?;
    let mut params = authority_params(&name);
    set_life(&mut params, now, expires);
    let pem = params.self_signed(&key)?.pem();
    Ok((Authority { name, issued: now, expires }, pem, key.serialize_pem()))
}

/// What an authority's certificate says of it. The same again when it signs: the leaf repeats the name and the key's
/// identifier, and both follow from the name and the key.
fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A leaf of `authority`: its record, its certificate and its key.
fn make_leaf(
    authority: &Authority,
    authority_key: &str,
    now: Timestamp,
    names: &[String],
) -> Result<(Leaf, String, String), CertsError> {
    let expires = (now + DAY * LEAF_DAYS).min(authority.expires);
    let issuer = Issuer::new(authority_params(&authority.name), KeyPair::from_pem(authority_key)?);
    let key = KeyPair::generate()?;
    // Names that are addresses become addresses.
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "cultivar-webhook");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_life(&mut params, now, expires);
    let pem = params.signed_by(&key, &issuer)?.pem();
    let leaf = Leaf { authority: authority.name.clone(), issued: now, expires, names: names.to_vec() };
    Ok((leaf, pem, key.serialize_pem()))
}

/// Sets the life of a certificate. rcgen's dates are those of a crate that nothing else here needs, so this counts from
/// a date that rcgen makes.
fn set_life(params: &mut CertificateParams, issued: Timestamp, expires: Timestamp) {
    let seconds = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + seconds(issued - BACKDATE);
    params.not_after = epoch + seconds(expires);
}

impl Contents {
    /// What goes into `ca.crt` and the caBundle.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.authorities.concat()
    }

    /// What the server needs.
    ///
    /// # Errors
    /// When the leaf or its key does not parse, or they are not a pair.
    pub fn serving(&self) -> Result<CertifiedKey, CertsError> {
        pair("tls.crt", &self.leaf, &self.leaf_key)
    }

    fn authority_is_whole(&self) -> bool {
        self.authorities.first().is_some_and(|pem| pair("ca.crt", pem, &self.authority_key).is_ok())
    }

    /// Whether a client that trusts the bundle would accept the leaf for each of its names at `now`.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn verify(&self, now: Timestamp) -> Result<(), CertsError> {
        let wrong = |error: &dyn std::fmt::Display| CertsError::Contents("tls.crt", error.to_string());
        let serving = self.serving()?;
        let mut roots = rustls::RootCertStore::empty();
        for pem in &self.authorities {
            let der = CertificateDer::from_pem_slice(pem.as_bytes());
            let der = der.map_err(|error| CertsError::Contents("ca.crt", error.to_string()))?;
            roots.add(der).map_err(|error| CertsError::Contents("ca.crt", error.to_string()))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| wrong(&error))?;
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let leaf = serving.end_entity_cert().map_err(|error| wrong(&error))?;
        for name in &self.record.leaf.names {
            let name = ServerName::try_from(name.as_str()).map_err(|error| wrong(&error))?;
            verifier.verify_server_cert(leaf, &[], &name, &[], time).map_err(|error| wrong(&error))?;
        }
        Ok(())
    }
}

/// The cryptography that everything here uses.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn pair(what: &'static str, certificate: &str, key: &str) -> Result<CertifiedKey, CertsError> {
    let wrong = |error: &dyn std::fmt::Display| CertsError::Contents(what, error.to_string());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong(&error))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| wrong(&error))
}

#[cfg(test)]
#[path = "certs_tests.rs"]
mod tests;

//! The built-in artifact store: an S3 endpoint on one volume, so that a fresh cluster works with nothing else installed.
//!
//! Comes in: S3 requests of ordinary clients, a folder, and a root key. Goes out: objects that are whole or not there.
//! The protocol (signatures, XML, chunked bodies) is the library `s3s`; everything below it is here:
//!
//! - [`credentials`]: keys per namespace, derived from the root key. The operator needs only this module.
//! - `access`: who may do what, one pure function.
//! - `index`: every key in order, with what is known about it, in one transactional file; the only truth.
//! - `blobs`: what is too large for the index, one file each, named by a number and never by a key.
//! - `s3`: the operations, on top of both.
//! - `serve`: connections, probes, metrics, and how it all stops.

#![warn(missing_docs)]

pub mod credentials;

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
pub mod blobs;
#[cfg(feature = "server")]
pub mod index;
#[cfg(feature = "server")]
pub mod keyring;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod s3;
#[cfg(feature = "server")]
pub mod serve;
#[cfg(feature = "server")]
pub mod settings;
#[cfg(feature = "server")]
pub mod store;

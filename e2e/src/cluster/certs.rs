//! Keys and certificates of a cluster, and a kubeconfig for each of its clients.
//!
//! In: the layout. Out: `pki/` with one authority and a certificate for every server and client, made
//! once and kept; `conf/NAME.kubeconfig` for the components and `kubeconfig` for people, which hold
//! their certificates inside, so that the file works wherever it is copied on this machine.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::layout::Layout;
use crate::error::{Context as _, Result};

/// The user of a component: its kubeconfig's name, the common name and the group that RBAC sees.
const CLIENTS: [(&str, &str, &str); 6] = [
    ("admin", "cultivar-admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
    // No role that Kubernetes ships fits these two: KWOK plays every kubelet, CoreDNS reads EndpointSlices.
    ("kwok", "cultivar-kwok", "system:masters"),
    ("coredns", "cultivar-coredns", "system:masters"),
];

/// Makes what is missing in `pki/`.
pub(crate) fn ensure(layout: &Layout) -> Result<()> {
    let dir = layout.pki();
    let ca_key = key(&dir, "ca")?;
    let params = authority(&layout.name);
    if !dir.join("ca.crt").exists() {
        let cert = params.self_signed(&ca_key).doing(|| "cannot sign the authority")?;
        write(&dir.join("ca.crt"), &cert.pem())?;
    }
    let issuer = Issuer::from_params(&params, &ca_key);
    let api = layout.api_service().to_string();
    let (host, node) = (layout.host_end().to_string(), layout.node_end().to_string());
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        &api,
        &host,
    ];
    leaf(&dir, &issuer, "apiserver", "kube-apiserver", "", &names)?;
    leaf(&dir, &issuer, "etcd", "etcd", "", &["localhost", "127.0.0.1"])?;
    leaf(&dir, &issuer, "kubelet-serving", &layout.node_name(), "", &[&layout.node_name(), &node])?;
    leaf(&dir, &issuer, "kubelet", &format!("system:node:{}", layout.node_name()), "system:nodes", &[])?;
    leaf(&dir, &issuer, "apiserver-kubelet", "kube-apiserver-kubelet", "system:masters", &[])?;
    for (name, user, group) in CLIENTS {
        leaf(&dir, &issuer, name, user, group, &[])?;
    }
    // The key that signs service account tokens, and its public half, which checks them.
    let tokens = key(&dir, "service-accounts")?;
    write(&dir.join("service-accounts.pub"), &tokens.public_key_pem())
}

/// Writes every kubeconfig, pointing to `server`.
pub(crate) fn kubeconfigs(layout: &Layout, server: &str) -> Result<()> {
    for name in CLIENTS.iter().map(|client| client.0).chain(["kubelet"]) {
        write(&kubeconfig(layout, name), &kubeconfig_text(layout, name, server)?)?;
    }
    write(&layout.kubeconfig(), &kubeconfig_text(layout, "admin", server)?)
}

/// The kubeconfig of a component.
pub(crate) fn kubeconfig(layout: &Layout, client: &str) -> PathBuf {
    layout.conf().join(format!("{client}.kubeconfig"))
}

fn kubeconfig_text(layout: &Layout, client: &str, server: &str) -> Result<String> {
    let data = |file: String| -> Result<String> {
        let path = layout.pki().join(file);
        Ok(STANDARD.encode(fs::read(&path).doing(|| format!("cannot read {}", path.display()))?))
    };
    let name = format!("cultivar-{}", layout.name).replace("cultivar-cultivar", "cultivar");
    Ok(format!(
        "apiVersion: v1
kind: Config
current-context: {name}
clusters:
- name: {name}
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {name}-{client}
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}-{client}
",
        ca = data("ca.crt".to_owned())?,
        cert = data(format!("{client}.crt"))?,
        key = data(format!("{client}.key"))?,
    ))
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("cultivar-{name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// One certificate for client and server use alike: within one throw-away cluster nothing is gained by two.
fn leaf(dir: &Path, issuer: &Issuer<'_, &KeyPair>, file: &str, user: &str, group: &str, names: &[&str]) -> Result<()> {
    let path = dir.join(format!("{file}.crt"));
    if path.exists() {
        return Ok(());
    }
    let failed = || format!("cannot make the certificate of {file}");
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).doing(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let cert = params.signed_by(&key(dir, file)?, issuer).doing(failed)?;
    write(&path, &cert.pem())
}

fn key(dir: &Path, name: &str) -> Result<KeyPair> {
    let path = dir.join(format!("{name}.key"));
    let failed = || format!("cannot make or read {}", path.display());
    if let Ok(text) = fs::read_to_string(&path) {
        return KeyPair::from_pem(&text).doing(failed);
    }
    let pair = KeyPair::generate().doing(failed)?;
    write(&path, &pair.serialize_pem())?;
    Ok(pair)
}

/// Writes a file that only its owner can read: each of them is, or holds, a key.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path).doing(failed)?;
    file.write_all(text.as_bytes()).doing(failed)
}

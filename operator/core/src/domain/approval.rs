//! An Approval: somebody's word on a gate of a run.

use cultivar_crds::ApprovalSpec;
use jiff::Timestamp;

/// An Approval, as far as it is decided on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApprovalRecord {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// When it was created, in whole seconds.
    pub created: Option<Timestamp>,
    /// What it says.
    pub spec: ApprovalSpec,
}

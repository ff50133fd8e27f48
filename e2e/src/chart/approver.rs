//! The policy of Approvals against an API server: each is by who makes it.
//!
//! In: a cluster with the release installed. Out: a remark, or whose word was taken for another's. All requests are dry runs.

use std::thread;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::exec;

const ADA: [&str; 2] = ["--as=ada", "--as-group=system:masters"];

struct Answers<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
}

/// Runs every check.
///
/// # Errors
/// Somebody was let through or refused who should not have been.
pub fn is_who_says_so(cluster: &Cluster, namespace: &str) -> Result<String> {
    let answers = Answers { cluster, namespace };
    let own = cluster.kubectl(&["auth", "whoami", "--output=jsonpath={.status.userInfo.username}"])?;
    answers.wait_until_refused()?;
    let bot = "system:serviceaccount:flux-system:kustomize-controller";
    let as_bot = [&format!("--as={bot}") as &str, "--as-group=system:masters"];
    for (what, by, who, refused) in [
        ("one's own name", own.trim(), &[][..], None),
        ("another's name", "ada", &[], Some(own.trim())),
        ("another one's own name", "ada", &ADA, None),
        ("an administrator's name", own.trim(), &ADA, Some("ada")),
        ("a service account's own name", bot, &as_bot, None),
        ("a part of the name", "kustomize-controller", &as_bot, Some(bot)),
    ] {
        let said = refused.map(|name| format!("is who makes it, and that is {name}: write this name"));
        match (answers.dry_run(by, who), said) {
            (Ok(_), None) => {}
            (Ok(_), Some(_)) => return Err(Error::new(format!("an Approval by {what} is let through"))),
            (Err(error), Some(words)) if error.to_string().contains(&words) => {}
            (Err(error), Some(words)) => {
                return Err(Error::new(format!("{what} is refused, but not with `{words}`")).why(error));
            }
            (Err(error), None) => return Err(Error::new(format!("an Approval by {what} is refused")).why(error)),
        }
    }
    Ok("6 requests".to_owned())
}

impl Answers<'_> {
    fn dry_run(&self, by: &str, who: &[&str]) -> Result<String> {
        let object = format!(
            "{{apiVersion: cultivar.dev/v1alpha1, kind: Approval, metadata: {{name: said}}, \
             spec: {{run: digits-1, stage: ask, verdict: Approve, by: \"{by}\"}}}}"
        );
        let mut command = self.cluster.kubectl_command();
        command.args(["create", "--filename=-", "--dry-run=server", "--namespace", self.namespace]).args(who);
        exec::output(&mut command, Some(&object))
    }

    // The API server takes a while to know of a new policy.
    fn wait_until_refused(&self) -> Result<()> {
        for _ in 0..120 {
            if self.dry_run("nobody-of-this-name", &[]).is_err() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(250));
        }
        Err(Error::new("the API server lets an Approval in another one's name through for half a minute")
            .hint("read the status of the policy: a mistake in its expression is told there"))
    }
}

//! Who leads: the deciding part, without a client and without a clock.
//!
//! Comes in: what was read from or written to the Lease, and the time at which that happened *here*. Goes out: the next
//! [`Step`], and until when this process may write.
//!
//! Why there are never two leaders:
//! - Every change of the Lease names the resourceVersion it was decided on, so of two that change it one fails.
//! - A holder counts from the moment *before* it sent its last successful write, and stops after `deadline`. Everyone
//!   else counts from the moment they *saw* that write, which is later, and waits for `lease`, which is longer. Clocks
//!   are never compared, only lengths of time; those may differ by half before two processes overlap.
//! - A Lease that was deleted is no invitation: who saw it held waits as long as if it were still there.
//! - A holder that reads anything but its own name in the Lease stops at once.
//!
//! What is left is a person who deletes or edits the Lease by hand: a process that never saw it may then lead up to
//! one renewal before the old holder notices. The operator itself has no right to delete Leases.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;

/// The lengths of time of an election.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long others wait for a holder that does not renew.
    pub lease: Duration,
    /// How long a holder acts after its last renewal. Well below `lease`.
    pub deadline: Duration,
    /// Time between renewals.
    pub renew: Duration,
    /// Time between looks at a Lease that another holds.
    pub poll: Duration,
    /// Time before the next try after one that failed.
    pub retry: Duration,
    /// Limit of one API call.
    pub call: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            renew: Duration::from_secs(3),
            poll: Duration::from_millis(1800),
            retry: Duration::from_millis(500),
            call: Duration::from_secs(3),
        }
    }
}

/// What this process knows of the Lease.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum View {
    /// Nothing certain: not read yet, or a write failed and may have happened all the same.
    #[default]
    Unknown,
    /// There is none.
    Missing,
    /// As it was last read or written.
    Present(Box<Lease>),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Read the Lease.
    Read,
    /// Create it, held by us.
    Create,
    /// Write our name over a holder that is gone.
    Take(Box<Lease>),
    /// Write our name again.
    Renew(Box<Lease>),
    /// Somebody else leads, at least until then.
    Follow(Instant),
}

/// One process's part in the election.
#[derive(Clone, Debug)]
pub struct Election {
    me: String,
    timing: Timing,
    view: View,
    /// Version of the last Lease seen, and until when its holder, if it is not us, is to be left alone.
    foreign: Option<(String, Instant)>,
    until: Option<Instant>,
}

impl Election {
    /// A process that knows nothing yet.
    #[must_use]
    pub fn new(me: String, timing: Timing) -> Self {
        Self { me, timing, view: View::Unknown, foreign: None, until: None }
    }

    /// The lengths of time in use.
    #[must_use]
    pub const fn timing(&self) -> Timing {
        self.timing
    }

    /// The name of this process.
    #[must_use]
    pub fn me(&self) -> &str {
        &self.me
    }

    /// Until when this process may act as the leader.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The Lease, if it is there and ours.
    #[must_use]
    pub fn ours(&self) -> Option<&Lease> {
        match &self.view {
            View::Present(lease) if holder(lease) == Some(self.me.as_str()) => Some(lease),
            _ => None,
        }
    }

    /// The Lease was read at `now`.
    pub fn read(&mut self, lease: Option<Lease>, now: Instant) {
        let Some(lease) = lease else {
            self.view = View::Missing;
            self.until = None;
            return;
        };
        match holder(&lease) {
            Some(name) if name == self.me => self.foreign = None,
            Some(_) => {
                self.until = None;
                self.saw_foreign(&lease, now);
            }
            None => {
                self.until = None;
                self.foreign = None;
            }
        }
        self.view = View::Present(Box::new(lease));
    }

    /// A time starts anew only when the Lease has changed: the same version seen twice is the same promise.
    fn saw_foreign(&mut self, lease: &Lease, now: Instant) {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.foreign.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.foreign = Some((version, now + promised(lease).max(self.timing.lease)));
        }
    }

    /// Our write, sent at `sent`, succeeded.
    pub fn wrote(&mut self, lease: Lease, sent: Instant) {
        self.view = View::Present(Box::new(lease));
        self.foreign = None;
        self.until = Some(sent + self.timing.deadline);
    }

    /// Our write failed, or its answer was lost. What was promised before still holds, no more.
    pub fn failed(&mut self) {
        self.view = View::Unknown;
    }

    /// This process stops acting.
    pub fn resign(&mut self) {
        self.until = None;
    }

    /// What to do at `now`.
    #[must_use]
    pub fn decide(&self, now: Instant) -> Step {
        let held_until = self.foreign.as_ref().map(|(_, until)| *until).filter(|until| *until > now);
        match (&self.view, held_until) {
            (View::Unknown, _) => Step::Read,
            (View::Present(lease), _) if holder(lease) == Some(self.me.as_str()) => Step::Renew(lease.clone()),
            (_, Some(until)) => Step::Follow(until),
            (View::Missing, None) => Step::Create,
            (View::Present(lease), None) => Step::Take(lease.clone()),
        }
    }
}

/// Who holds the Lease; an empty name is nobody.
#[must_use]
pub fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|name| !name.is_empty())
}

fn promised(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;

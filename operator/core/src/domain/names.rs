//! Names of what the operator makes: functions of what it is made for, so that making it twice is noticed.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use super::{Member, Meta};

/// Longest name of an Experiment.
pub const MAX_EXPERIMENT: usize = 52;

/// Lower-case hex of the first `bytes` bytes of the SHA-256 of `parts`, each part closed by a NUL.
#[must_use]
pub fn short_hash(parts: &[&str], bytes: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

/// Name of the Experiment of a stage, or of a member of its fan-out: a readable prefix of at most 43 characters, `-`, and
/// 8 hex digits.
#[must_use]
pub fn stage_experiment(run_name: &str, run_uid: &str, member: &Member) -> String {
    let prefix = cut(&format!("{run_name}-{member}"), 43);
    let index = member.index.map(|index| index.to_string());
    let parts: Vec<&str> = [run_uid, &member.stage].into_iter().chain(index.as_deref()).collect();
    format!("{prefix}-{}", short_hash(&parts, 4))
}

/// What of its run this experiment stands for: the run that controls it gave it this name. A copy of it has another.
#[must_use]
pub fn member_of(meta: &Meta) -> Option<Member> {
    let owner = meta.owner.as_ref().filter(|owner| owner.kind == "PipelineRun")?;
    let index = match meta.label(cultivar_crds::labels::MEMBER) {
        Some(index) => Some(index.parse().ok()?),
        None => None,
    };
    let member = Member { stage: meta.label(cultivar_crds::labels::STAGE)?.to_owned(), index };
    (meta.name == stage_experiment(&owner.name, &owner.uid, &member)).then_some(member)
}

/// Name of an attempt's Job: the experiment's cut to 44 characters, 6 hex digits of its uid, the number.
#[must_use]
pub fn job(experiment: &str, uid: &str, attempt: u32) -> String {
    format!("{}-{}-{attempt}", cut(experiment, 44), short_hash(&[uid], 3))
}

/// Name of a pipeline's run.
#[must_use]
pub fn run(pipeline: &str, revision: i64) -> String {
    format!("{pipeline}-{revision}")
}

/// Name of the run of a schedule's time: the schedule's, and the time in UTC, so that making it twice is noticed.
#[must_use]
pub fn scheduled_run(schedule: &str, time: Timestamp) -> String {
    format!("{schedule}-{}", time.strftime("%Y%m%d%H%M"))
}

/// The time that a schedule's run of this name is for.
#[must_use]
pub fn time_of_run(schedule: &str, run: &str) -> Option<Timestamp> {
    let digits = run.strip_prefix(schedule)?.strip_prefix('-')?;
    let time = DateTime::strptime("%Y%m%d%H%M", digits).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Where in a store the things of an experiment lie: its namespace, its name, and 8 hex digits of its uid.
#[must_use]
pub fn store_prefix(meta: &Meta) -> String {
    format!("{}/{}-{}", meta.namespace, meta.name, short_hash(&[&meta.uid], 4))
}

/// Where in a store the experiments of a namespace keep what they share. No experiment's own folder is called that: those
/// end in a dash and 8 digits.
#[must_use]
pub fn cache_prefix(meta: &Meta) -> String {
    format!("{}/cache", meta.namespace)
}

// Names are ASCII by the API's rule; a cut must not end in a dash.
fn cut(name: &str, max: usize) -> String {
    let cut: String = name.chars().take(max).collect();
    cut.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_stay_within_the_limits() {
        let run = run(&"p".repeat(40), i64::from(u32::MAX));
        let experiment = stage_experiment(&run, "uid", &Member::of("s".repeat(40), 9999));
        assert!(experiment.len() <= MAX_EXPERIMENT, "{experiment}");
        let job = job(&"e".repeat(52), "uid", 999);
        assert!(job.len() <= 57, "{job}");
    }

    #[test]
    fn the_run_of_a_time_has_its_name() {
        let name = scheduled_run("nightly", "2026-11-25T01:00:00Z".parse().unwrap());
        assert_eq!(name, "nightly-202611250100");
        assert_eq!(time_of_run("nightly", &name), "2026-11-25T01:00:00Z".parse().ok());
        assert_eq!(time_of_run("night", &name), None);
        assert_eq!(time_of_run("nightly", "nightly-7"), None);
        let longest = scheduled_run(&"s".repeat(cultivar_crds::schedule::MAX_SCHEDULE), Timestamp::UNIX_EPOCH);
        assert!(longest.len() <= MAX_EXPERIMENT, "{longest}");
    }

    #[test]
    fn a_cut_never_leaves_a_dash_before_the_hash() {
        let name = stage_experiment(&"r".repeat(42), "uid", &Member::stage("stage"));
        assert!(!name.contains("--"), "{name}");
    }

    #[test]
    fn two_runs_never_share_an_experiment() {
        let name = |uid, stage: &str| stage_experiment("p-1", uid, &Member::stage(stage));
        assert_ne!(name("a", "train"), name("b", "train"));
        assert_ne!(name("a", "bc"), name("ab", "c"));
    }

    #[test]
    fn a_member_is_not_taken_for_a_stage_of_its_name() {
        let name = |member| stage_experiment("p-1", "a", &member);
        assert_ne!(name(Member::of("train", 3)), name(Member::stage("train-3")));
        assert!(name(Member::of("train", 3)).starts_with("p-1-train-3-"));
    }
}

//! The operator against a real API server, with pods that are played: every end a run can come to, and faults.
//!
//! In: nothing; a cluster of simulated nodes is brought up once and taken down at the end, unless it was up before
//! (`CULTIVAR_E2E_CLUSTER` names it, `e2e` by default). Out: one line a case. Cases have a namespace each and run side
//! by side; those that stop the operator or the API server run alone.

mod artifacts;
mod bootstrap;
mod cli;
mod clones;
mod conformance;
mod deaths;
mod fan_out;
mod faults;
mod flux;
mod gates;
mod gitops;
mod images;
mod kit;
mod kueue;
mod load;
mod pipelines;
mod queues;
mod refusals;
mod repository;
mod restore;
mod reuse;
mod revisions;
mod runs;
mod samples;
mod schedules;

use std::process::ExitCode;
use std::sync::Arc;

use cultivar_e2e::error::Result;
use libtest_mimic::{Arguments, Trial};

use crate::kit::{Case, World};

/// Cases that are played at once: they mostly wait, for programs that only pretend to run.
const AT_ONCE: usize = 8;

/// Whether a case may run beside others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    Shared,
    Alone,
}

/// A case, by its name.
type Body = fn(&Case) -> kit::Running<'_>;

macro_rules! cases {
    ($company:ident: $($module:ident::$name:ident),+ $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($name)), Company::$company,
            (|case| Box::pin($module::$name(case))) as Body)),+]
    };
}

fn all() -> Vec<(&'static str, Company, Body)> {
    let shared = cases![Shared:
        artifacts::an_output_is_published_where_it_may_be,
        artifacts::a_deletion_waits_for_the_pods_alone,
        clones::a_chain_of_clones_knows_whose_copy_each_is,
        clones::a_missing_source_is_waited_for,
        clones::a_failed_source_is_cloned_only_on_request,
        clones::an_edit_before_the_start_is_in_or_refused,
        clones::a_started_experiment_is_immutable,
        clones::names_of_the_greatest_length_work,
        deaths::an_error_spends_the_users_budget,
        deaths::the_log_of_a_failed_run_is_kept,
        deaths::out_of_memory_is_final,
        deaths::an_eviction_spends_the_infrastructure_budget,
        deaths::a_lost_node_is_told_apart,
        deaths::a_deleted_pod_is_told_apart,
        deaths::a_deleted_job_is_told_apart,
        deaths::an_image_that_never_comes_fails_at_the_start_timeout,
        deaths::a_pod_that_no_node_takes_fails_at_the_start_timeout,
        deaths::a_slow_start_fails_at_the_start_timeout,
        deaths::a_run_past_its_deadline_is_stopped,
        deaths::a_missing_output_fails_the_run,
        deaths::cancel_stops_the_pod,
        deaths::the_end_of_one_worker_ends_the_attempt,
        fan_out::the_best_of_a_sweep_goes_on,
        fan_out::the_first_failure_ends_the_others,
        fan_out::a_matrix_that_cannot_be_is_not_accepted,
        gates::a_rejection_ends_the_run,
        gates::a_timer_passes_by_itself,
        gates::an_approved_value_reaches_the_next_stage,
        pipelines::a_diamond_passes_artifacts_and_metrics,
        pipelines::a_false_condition_skips_what_follows,
        pipelines::a_failure_skips_its_descendants_only,
        pipelines::stop_on_failure_stops_the_rest,
        pipelines::roots_and_pipeline_come_in_any_order,
        pipelines::a_source_that_failed_fails_the_run,
        pipelines::cancel_stops_every_stage,
        pipelines::kubectl_waits_for_the_condition,
        pipelines::deletion_takes_everything_along,
        pipelines::what_comes_finally_sees_how_all_ended,
        pipelines::a_pipeline_runs_within_another,
        pipelines::a_pipeline_that_contains_itself_ends,
        pipelines::a_loop_ends_when_its_condition_holds,
        gitops::a_pruned_pipeline_keeps_what_it_has_done,
        gitops::a_pipeline_may_take_its_runs_with_it,
        gitops::applying_again_changes_nothing,
        flux::flux_keeps_a_namespace_as_the_repository_says,
        repository::a_commit_runs_what_depends_on_it,
        repository::a_removed_file_prunes_its_pipeline,
        repository::a_wrong_commit_changes_nothing,
        repository::two_tools_do_not_fight,
        restore::what_comes_back_without_its_status_is_not_run_again,
        cli::a_pipeline_grows_from_runs_by_hand,
        cli::an_exported_pipeline_does_the_same_elsewhere,
        cli::experiments_are_cloned_listed_and_explained,
        cli::runs_are_swept_approved_resumed_and_cancelled,
        reuse::a_change_runs_what_depends_on_it_and_a_revert_nothing,
        reuse::identical_work_under_way_is_joined,
        reuse::what_failed_is_not_reused,
        runs::a_deadline_ends_the_run,
        runs::a_failed_run_is_resumed,
        runs::a_newer_run_replaces_the_older,
        runs::a_suspended_run_waits_for_a_person,
        runs::runs_of_a_group_take_turns,
        refusals::a_pipeline_that_refers_to_itself_is_not_accepted,
        refusals::a_queue_whose_numbers_do_not_fit_is_refused,
        refusals::two_megabytes_are_refused,
        refusals::what_the_schema_forbids_is_named_with_its_path,
        samples::every_sample_runs_to_its_end,
        schedules::a_backfill_makes_a_run_for_each_day,
        schedules::a_suspended_or_wrong_schedule_makes_no_run,
        revisions::an_edit_makes_a_revision_and_a_repeat_none,
        revisions::a_new_value_of_rerun_runs_again,
        revisions::on_demand_only_a_run_by_hand_runs,
        revisions::history_is_kept_to_its_limit,
        revisions::a_cloned_stage_outlives_its_run,
        revisions::a_run_goes_when_its_time_is_over,
    ];
    let alone = cases![Alone:
        bootstrap::a_bootstrapped_cluster_starts_what_fits,
        faults::a_crash_between_stages_repeats_nothing,
        faults::a_job_deleted_while_the_operator_is_down_is_run_again,
        faults::a_drained_pod_after_success_is_no_loss,
        faults::a_result_lost_while_the_operator_is_down_is_made_again,
        faults::the_api_server_goes_away_and_comes_back,
        faults::another_replica_takes_over,
        gates::an_answer_counts_while_the_operator_is_down,
        images::a_tag_is_looked_up_when_its_run_begins,
        images::a_private_image_is_asked_for_as_its_service_account,
        kueue::a_run_is_handed_to_kueue,
        queues::a_crash_of_the_operator_leaks_nothing,
        queues::a_full_queue_takes_no_newer_ones,
        queues::a_gang_is_admitted_whole,
        queues::a_queue_in_use_stays_until_it_is_empty,
        queues::a_run_waits_until_it_fits,
        queues::stages_go_to_the_flavor_of_their_queue,
        queues::what_is_lent_is_taken_back,
        queues::what_no_node_could_take_waits,
        queues::what_others_hold_of_a_node_is_not_there,
        queues::who_waits_in_vain_is_not_written,
        schedules::a_run_is_made_at_its_time,
        load::a_run_costs_few_writes,
        load::two_hundred_pipelines_make_five_jobs_each,
    ];
    shared.into_iter().chain(alone).collect()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    match played(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn played(arguments: &Arguments) -> Result<ExitCode> {
    let world = World::up()?;
    let conclusion = libtest_mimic::run(arguments, trials(Some(&world)));
    world.down(conclusion.has_failed())?;
    Ok(conclusion.exit_code())
}

fn trials(world: Option<&Arc<World>>) -> Vec<Trial> {
    let trial = |(name, company, body): (&'static str, Company, Body)| {
        let world = world.cloned();
        Trial::test(name, move || {
            let Some(world) = world else { return Ok(()) };
            world.play(name, company == Company::Alone, body).map_err(|error| error.to_string().into())
        })
    };
    all().into_iter().map(trial).chain(conformance(world)).collect()
}

// One trial a file; one that fails where they cannot be read.
fn conformance(world: Option<&Arc<World>>) -> Vec<Trial> {
    let cases = match cultivar_conformance::all() {
        Ok(cases) => cases,
        Err(error) => return vec![Trial::test("conformance::cases", move || Err(error.into()))],
    };
    let trial = |written: cultivar_conformance::Case| {
        let world = world.cloned();
        let name = format!("conformance::{}", written.name);
        Trial::test(name.clone(), move || {
            let Some(world) = world else { return Ok(()) };
            let played = world
                .play(&name, false, move |case| Box::pin(async move { conformance::conforms(case, &written).await }));
            played.map_err(|error| error.to_string().into())
        })
    };
    cases.into_iter().filter(|written| !written.files).map(trial).collect()
}

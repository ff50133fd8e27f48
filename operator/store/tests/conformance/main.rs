//! One suite over every kind of store: what the runner's transfers promise, whatever is at the other end.
//!
//! A check is a function over an opened store. Those of `network` put a proxy between, so a file system has none of
//! them. What differs from kind to kind stands in `kinds`.

mod checks;
mod kinds;
mod network;
mod proxy;
#[path = "../support/mod.rs"]
mod support;

// Each check over one kind of store, started anew for each.
macro_rules! suite {
    ($kind:ident: $($room:ident::$check:ident),* $(,)?) => {
        mod $kind {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                if let Some(kind) = crate::kinds::$kind() {
                    crate::$room::$check(&kind).await;
                }
            })*
        }
    };
}

suite!(
    file_system: checks::sizes,
    checks::odd_names,
    checks::a_large_directory,
    checks::what_is_absent,
    checks::what_is_corrupt,
    checks::what_changes_while_it_is_read,
    checks::files_are_seen_whole,
    checks::directories_are_seen_whole,
    checks::a_full_disk_at_the_reader,
);

suite!(
    built_in: checks::sizes,
    checks::odd_names,
    checks::a_large_directory,
    checks::what_is_absent,
    checks::what_is_corrupt,
    checks::what_changes_while_it_is_read,
    checks::files_are_seen_whole,
    checks::directories_are_seen_whole,
    checks::a_full_disk_at_the_reader,
    network::interrupted_transfers,
    network::interrupted_directories,
    network::a_line_that_always_breaks,
    network::what_is_given_up_is_not_seen,
    network::wrong_credentials,
    network::a_store_that_is_away,
    network::a_slow_line,
);

suite!(
    moto: checks::sizes,
    checks::odd_names,
    checks::a_large_directory,
    checks::what_is_absent,
    checks::what_is_corrupt,
    checks::what_changes_while_it_is_read,
    checks::files_are_seen_whole,
    checks::directories_are_seen_whole,
    checks::a_full_disk_at_the_reader,
    network::interrupted_transfers,
    network::interrupted_directories,
    network::a_line_that_always_breaks,
    network::what_is_given_up_is_not_seen,
    network::a_store_that_is_away,
    network::a_slow_line,
);

suite!(guarded_moto: network::wrong_credentials);

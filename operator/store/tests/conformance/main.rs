//! One suite over every kind of store: what the runner's transfers promise, whatever is at the other end.
//!
//! A check is a function over an opened store. Those of `network` put a proxy between, so a file system has none of
//! them. What differs from kind to kind stands in `kinds`.

mod checks;
mod clouds;
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
                if let Some(kind) = crate::open::$kind() {
                    crate::$room::$check(&kind).await;
                }
            })*
        }
    };
}

// Every kind, by its name.
mod open {
    pub use crate::clouds::azure;
    pub use crate::kinds::{built_in, file_system, google, guarded_moto, moto};
}

// What holds for any store.
macro_rules! any_store {
    ($kind:ident $(, $room:ident::$check:ident)* $(,)?) => {
        suite!(
            $kind: checks::sizes,
            checks::odd_names,
            checks::a_large_directory,
            checks::what_is_absent,
            checks::what_is_corrupt,
            checks::what_changes_while_it_is_read,
            checks::files_are_seen_whole,
            checks::directories_are_seen_whole,
            checks::a_full_disk_at_the_reader,
            $($room::$check,)*
        );
    };
}

// And for one behind a network.
macro_rules! service {
    ($kind:ident $(, $room:ident::$check:ident)* $(,)?) => {
        any_store!(
            $kind,
            network::interrupted_transfers,
            network::interrupted_directories,
            network::a_line_that_always_breaks,
            network::what_is_given_up_is_not_seen,
            network::a_store_that_is_away,
            network::a_slow_line,
            $($room::$check,)*
        );
    };
}

any_store!(file_system);
service!(built_in, network::wrong_credentials, checks::a_gibibyte);
service!(moto);
suite!(guarded_moto: network::wrong_credentials);
any_store!(google, clouds::there_and_back);
any_store!(azure, clouds::there_and_back, clouds::a_wrong_account_key);

//! One suite of scenarios, run on the coordinator in memory and on a real ZooKeeper: what holds for one holds for both.

#[path = "conformance/bed.rs"]
mod bed;
#[path = "conformance/data.rs"]
mod data;
#[path = "conformance/faults.rs"]
mod faults;
#[path = "conformance/links.rs"]
mod links;
#[path = "conformance/overflow.rs"]
mod overflow;
#[path = "conformance/random.rs"]
mod random;
#[path = "conformance/real.rs"]
mod real;
#[path = "conformance/sessions.rs"]
mod sessions;
#[path = "conformance/watches.rs"]
mod watches;

use bed::Bed;

/// Each scenario twice. Those that stop the server get one of their own; the others may share.
macro_rules! suite {
    (shared: $($shared:path => $name:ident),+ $(,)?; alone: $($alone:path => $lonely:ident),+ $(,)?;) => {
        mod memory {
            $(#[tokio::test] async fn $name() -> anyhow::Result<()> { $shared(super::Bed::memory()).await })+
            $(#[tokio::test] async fn $lonely() -> anyhow::Result<()> { $alone(super::Bed::memory()).await })+
        }
        mod zookeeper {
            $(#[tokio::test] async fn $name() -> anyhow::Result<()> { $shared(super::Bed::zookeeper()?).await })+
            $(#[tokio::test] async fn $lonely() -> anyhow::Result<()> { $alone(super::Bed::zookeeper_alone()?).await })+
        }
    };
}

suite! {
    shared:
    crate::data::create_get_set_delete => create_get_set_delete,
    crate::data::every_error => every_error,
    crate::data::bad_paths => bad_paths,
    crate::data::sequential_names => sequential_names,
    crate::data::ephemerals => ephemerals,
    crate::data::large_values => large_values,
    crate::data::no_auth => no_auth,
    crate::data::multi_is_atomic => multi_is_atomic,
    crate::data::multi_names_what_failed => multi_names_what_failed,
    crate::data::transaction_ids_only_grow => transaction_ids_only_grow,
    crate::data::order_of_submission => order_of_submission,
    crate::data::several_at_once => several_at_once,
    crate::data::what_is_made_anew_is_another => what_is_made_anew_is_another,
    crate::data::sync_then_list => sync_then_list,
    crate::watches::fire_once => watches_fire_once,
    crate::watches::fire_for_what_they_watch => watches_fire_for_what_they_watch,
    crate::watches::fire_on_deletion => watches_fire_on_deletion,
    crate::watches::none_after_a_failed_read => no_watch_after_a_failed_read,
    crate::watches::several_on_one_znode => several_watches_on_one_znode,
    crate::watches::forget => forget_a_watch,
    crate::watches::come_before_the_new_data => events_come_before_the_new_data,
    crate::watches::lasting_ones_name_the_children => lasting_watches_name_the_children,
    crate::watches::lasting_ones_end_with_the_znode => lasting_watches_end_with_the_znode,
    crate::watches::lasting_ones_are_forgotten_and_set_again => lasting_watches_are_forgotten_and_set_again,
    crate::watches::lasting_ones_tell_before_the_new_data => lasting_watches_tell_before_the_new_data,
    crate::sessions::opened_tells_id_and_timeout => opened_tells_id_and_timeout,
    crate::sessions::close_takes_the_ephemerals_along => close_takes_the_ephemerals_along,
    crate::sessions::close_comes_after_what_was_submitted => close_comes_after_what_was_submitted,
    crate::sessions::a_dropped_session_runs_out => a_dropped_session_runs_out,
    crate::sessions::too_many_requests_are_refused => too_many_requests_are_refused;
    alone:
    crate::links::disconnect_and_reconnect => disconnect_and_reconnect,
    crate::links::unknown_while_disconnected => unknown_while_disconnected,
    crate::links::watches_survive_a_reconnect => watches_survive_a_reconnect,
    crate::links::lasting_watches_do_not => lasting_watches_do_not_survive_a_reconnect,
    crate::links::a_long_cut_ends_the_session => a_long_cut_ends_the_session,
    crate::links::close_while_disconnected => close_while_disconnected,
    crate::links::opening_waits_for_the_service => opening_waits_for_the_service;
}

/// The scenarios of watches once more, with watches that do not fit into their session. (But for the one of their order: they
/// come on another connection than the data.)
mod beyond_the_session {
    macro_rules! beyond {
        ($($scenario:path => $name:ident),+ $(,)?) => {
            $(#[tokio::test] async fn $name() -> anyhow::Result<()> { $scenario(super::Bed::zookeeper_full()?).await })+
        };
    }

    beyond! {
        crate::watches::fire_once => fire_once,
        crate::watches::fire_for_what_they_watch => fire_for_what_they_watch,
        crate::watches::fire_on_deletion => fire_on_deletion,
        crate::watches::none_after_a_failed_read => none_after_a_failed_read,
        crate::watches::several_on_one_znode => several_on_one_znode,
        crate::watches::forget => forget,
    }
}

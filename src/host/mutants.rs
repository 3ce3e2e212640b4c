//! Planted bugs: mistakes that somebody really made. The tests must find each of them. They are compiled in only with `--cfg
//! mutants` and chosen by name with `LOGWEIR_MUTANT`. `tests/mutants/run` says which test finds which.

/// All names.
pub const NAMES: &[&str] = &[
    "ack_before_sync",
    "ack_on_receipt",
    "sync_error_ignored",
    "sync_retried",
    "no_directory_sync",
    "rename_before_sync",
    "mark_before_sync",
    "trail_not_synced",
    "wake_up_lost",
    "second_look_left_out",
    "slept_without_asking_again",
    "evicted_not_counted",
    "dropped_not_counted",
    "at_risk_not_counted",
    "acked_chunk_evicted",
    "torn_tail_shown",
    "good_tail_thrown_away",
    "corrupt_tail_stops_the_start",
    "rotation_loses_the_next_lines",
    "sequence_restarts",
    "short_write_taken_for_whole",
    "half_a_batch_left_by_a_full_disk",
    "held_lines_forgotten_by_a_failure",
    "another_streams_sync_releases_what_failed",
    "released_with_its_first_stream",
    "holes_kept",
    "failed_pages_taken_for_synced",
    "suspect_sealed_as_sound",
    "recovery_does_not_sync",
    "fragment_kept_after_a_reset",
    "batches_out_of_order",
    "moved_without_its_chunk",
    "original_goes_before_its_copy",
    "copy_not_compared",
    "link_before_the_copy",
    "retired_without_a_note",
    "armed_without_buffers",
    "no_shares",
    "holders_never_end",
    "turn_for_the_first_byte",
    "goodbye_not_heard",
    "log_written_by_whoever_says_it",
    "output_panics",
    "living_socket_removed",
    "counted_length_trusted",
    "stale_mark_believed",
    "ready_on_a_full_disk",
    "answered_before_the_commit",
    "answered_behind_a_hole",
    "commit_block_reused_before_the_sync",
    "commit_checksum_of_the_head_only",
    "generation_not_compared",
    "replayed_though_there",
    "not_replayed_though_missing",
    "logged_lines_forgotten_by_a_full_disk",
    "logged_on_a_full_disk",
    "trail_names_nothing",
    "half_a_logged_write_kept",
    "lines_kept_that_the_log_brings",
    "text_synced_before_its_trail",
    "relp_answered_on_receipt",
    "logged_lines_overtake_direct_ones",
    "lost_before_the_first_look_forgotten",
    "lost_counted_again_by_the_next",
    "cut_datagram_taken_for_whole",
    "unanswered_never_let_go",
    "address_kept_by_its_group",
    "taken_over_counts_as_sent",
    "number_true_at_once",
    "record_lost_at_the_end_of_a_chunk",
    "item_lies",
    "parts_without_end",
    "noted_before_the_commit",
    "shipped_beyond_the_sync",
    "shipped_from_the_note",
    "logged_lines_of_a_suspect_passed_by",
    "suspect_of_another_boot_passed_by",
];

/// True if this is the one that was chosen.
#[cfg(mutants)]
#[must_use]
pub fn is(name: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    debug_assert!(NAMES.contains(&name), "{name} is not in the list");
    let chosen = CHOSEN.get_or_init(|| std::env::var("LOGWEIR_MUTANT").ok().filter(|name| !name.is_empty()));
    if let Some(chosen) = chosen {
        assert!(NAMES.contains(&chosen.as_str()), "LOGWEIR_MUTANT: there is no {chosen}");
    }
    chosen.as_deref() == Some(name)
}

/// Never: there are no planted bugs in this build.
#[cfg(not(mutants))]
#[must_use]
pub const fn is(_name: &str) -> bool {
    false
}

/// True if the planted bug of this name was chosen. Without `--cfg mutants` it is always false, and the compiler removes the code.
macro_rules! mutant {
    ($name:literal) => {
        cfg!(mutants) && $crate::host::mutants::is($name)
    };
}
pub(crate) use mutant;

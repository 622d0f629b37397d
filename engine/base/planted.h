/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_PLANTED_H
#define TALLY_ENGINE_BASE_PLANTED_H

#include <stdbool.h>

/** Bugs on purpose, one at a time, each in the line of the shipped code where somebody could make it: what the simulator must find.
 *  They exist only in a build with the test-only option `planted_bugs`; in every other one PLANTED() is a constant false and leaves no
 *  trace. How many seeds each takes: tests/sim/README.md. X(name, what goes wrong) */
#define PLANTED_TABLE(X)                                                                           \
    X(acknowledge_before_sync, "a group counts as committed as soon as it is submitted")           \
    X(commit_out_of_order, "a group counts as committed although the one before it is not")        \
    X(chain_broken_at_start, "the first group after a start does not carry the last one's digest") \
    X(durable_claimed_early, "a header claims groups as durable that are on their way")            \
    X(failed_write_ignored, "a failed or short write counts as done")                              \
    X(corruption_cut, "a damaged last group is cut although it was written whole")                 \
    X(hole_taken_for_torn_tail, "a later group's proof is not looked at before cutting")           \
    X(torn_tail_left, "a torn tail is not zeroed before the log goes on")                          \
    X(not_synced_before_reading, "a start believes what only the page cache holds")                \
    X(wanted_group_forgotten, "an empty group that a reply waits for is not sealed")               \
    X(horizon_falls, "a group's horizon can be below the one before it")                           \
    X(cell_time_falls_at_start, "the log's time is not taken over at start")                       \
    X(expiry_forgotten_at_start, "holds that were there before a start never expire")              \
    X(replay_drops_expiry, "replay keeps a hold that has expired")                                 \
    X(replay_drops_burnt_id, "replay forgets which ids are burnt")                                 \
    X(replay_applies_twice, "replay applies a transfer of the last file twice")                    \
    X(checkpoint_saves_nothing, "what changes before the walk reaches it is not saved first")      \
    X(checkpoint_forgets_burnt, "burnt ids are missing in checkpoints")                            \
    X(checkpoint_drops_resolved, "resolved holds are missing in checkpoints")                      \
    X(checkpoint_forgets_cursor, "the import cursor is missing in checkpoints")                    \
    X(published_before_commit, "a manifest is published before its group is committed")            \
    X(log_removed_with_ids, "a log file goes while ids in it can still be asked for")              \
    X(log_removed_with_older, "a log file goes that the older checkpoint needs")                   \
    X(reply_before_dependency, "an `exists` does not wait for the group that it depends on")       \
    X(lookup_before_commit, "a lookup shows an account that is not committed yet")                 \
    X(expiry_leaves_group, "an expiry does not mark the accounts that it changed")                 \
    X(clock_status_not_awaited, "a status that only the clock explains leaves at once")            \
    X(floor_ignores_pending, "a floor is checked without the pending debits")                      \
    X(closed_account_pays, "a closed account is debited")                                          \
    X(chain_by_half, "the last member of a chain is not installed")                                \
    X(chain_burns_nothing, "a failed chain does not burn the id that failed")                      \
    X(post_leaves_hold, "a posted hold stays live, and can be posted again")                       \
    X(partial_post_keeps_rest, "a partial post releases only what it posts")                       \
    X(void_keeps_closed, "a void does not reopen the account that its hold closed")                \
    X(expiry_too_early, "a hold expires at the full second before its time")                       \
    X(expiry_never_found, "a hold made while an earlier one is due later never expires")           \
    X(balancing_too_much, "a balancing transfer moves one too much")                               \
    X(retry_not_compared, "a retry with other fields is answered `exists`")                        \
    X(future_id_taken, "a plain transfer whose id is ahead of time is taken")                      \
    X(ids_forgotten_early, "ids are forgotten one slice above the horizon")                        \
    X(import_cursor_stays, "a plain transfer does not move the import cursor")                     \
    X(duplicate_executed, "a request that was answered is executed again when it comes again")     \
    X(window_edge_ignored, "a request below the window's edge is executed again")                  \
    X(old_session_lives, "a client's new session does not end its old one")                        \
    X(reply_shifted, "the last entry of a reply is the first one's")                               \
    X(client_misplaces_entries,                                                                    \
      "the client puts the second datagram of a reply into the first one's place")

enum planted {
    PLANTED_none,
#define X(name, what) PLANTED_##name,
    PLANTED_TABLE(X)
#undef X
};

#ifdef TALLY_PLANTED_BUGS
extern enum planted planted_bug;
#define PLANTED(name) (planted_bug == PLANTED_##name)
#else
#define PLANTED(name) (PLANTED_##name == PLANTED_none)
#endif

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_ORACLE_H
#define TALLY_TESTS_SIM_ORACLE_H

#include "engine/base/types.h"

/** The oracle: a naive ledger that watches a node from outside and says what is wrong. It shares nothing with engine, log and
 *  network code: it decodes datagrams after net/PROTOCOL.md and groups after wal/FORMAT.md on its own, keeps every version of
 *  every record for ever, and decides each event again at the time at which the node says that it was decided.
 *  Flow:  simulated port and disk -> [oracle] -> one readable line about the first violation
 *  Owner: the simulator's thread. Bounds: none; a history is some thousands of events. Checks: INV-1 to INV-6, INV-8, every status.
 *
 *  The order of the calls is the order in which things happen; there is no clock. What the node got before a reply left may have come
 *  before it; what it got afterwards must be ordered behind it. Each call returns false, and nothing is looked at any more, once
 *  something is wrong: oracle_violation() says what. */

struct oracle;

struct oracle_config {
    uint8_t cell_id[16];
    uint32_t partitions;
    uint64_t hash_seed;
    uint64_t digest_seed;
    bool id_time;
    uint64_t horizon_back_ms; /**< how long ids are remembered when memory is not short */
    uint64_t horizon_min_ms;  /**< never shorter than this, whatever the memory */
    bool horizon_rises;       /**< when memory or the log's budget is short, down to the minimum */
    bool memory_short;        /**< memory_full is a lawful answer */
};

/** @return NULL for lack of memory */
struct oracle *oracle_open(const struct oracle_config *config);
void oracle_close(struct oracle *oracle);

/** The first thing that was wrong, as one line without a newline: "INV-3: ..."; NULL while all is well. */
const char *oracle_violation(const struct oracle *oracle);
/** Short name of the check that fired ("INV-3", "status", "real time" ...); NULL while all is well. */
const char *oracle_check(const struct oracle *oracle);

/* --- the network, at the node's port: UDP payloads without any header before them --------------------------------------------- */

/** The node's rx took this payload (after the network did to it whatever it does; damaged ones are recognised by their tag). */
bool oracle_packet_in(struct oracle *oracle, const void *payload, size_t bytes);
/** The node's tx gave this payload away, whether or not the network delivers it. */
bool oracle_packet_out(struct oracle *oracle, const void *payload, size_t bytes);

/* --- the disk: what is written to log files ------------------------------------------------------------------------------------- */

/** The node submitted a write of a log file. What is no group (does not begin with a group's magic) is not looked at. */
bool oracle_group_submitted(struct oracle *oracle, const void *bytes, size_t length);
/** That write is really on the medium now, whole, and would survive a power cut: to be told before the node learns that it completed.
 *  Groups may become durable in any order; they count once all before them are. */
bool oracle_group_durable(struct oracle *oracle, const void *bytes, size_t length);
/** The log could not be read back for a moment (a read failed, or was wrong): `unknown_outcome` is lawful from now on. */
void oracle_read_failed(struct oracle *oracle);

/* --- stop and start -------------------------------------------------------------------------------------------------------------- */

/** The node is gone, killed or by itself: its sessions are dead, and of what was on its way to the disk nothing is known. */
void oracle_stopped(struct oracle *oracle);
/** The node has been started again, has recovered, and has not served anybody yet. Now show every log file on the medium, in order:
 *  what is in the log must be what was there before, and whatever was durable must be there still.
 *  @param behind groups up to this one came from a checkpoint: the log is shown from the next one on
 *  @param may_lose the disk lied or was damaged beyond what anybody can tell: forget what is not found, do not complain */
bool oracle_log_begin(struct oracle *oracle, uint64_t behind, bool may_lose);
/** One log file, whole, or from the first group that is shown on. @param bytes 4 KiB multiple */
bool oracle_log_file(struct oracle *oracle, const void *bytes, size_t length);
bool oracle_log_end(struct oracle *oracle);

/* --- what an application is told by the client library --------------------------------------------------------------------------- */

/** The outcome of one event, as the application got it. Where it says that the event, or an earlier one with its id, took effect or
 *  burnt its id, the durable log must say so, too. What nobody knows (or will) is not looked at. */
bool oracle_told_created(struct oracle *oracle, bool account, uint128_t id, uint32_t status,
                         uint64_t timestamp);
/** A record of 128 bytes that a lookup found: an account as it was at some time, or a transfer. */
bool oracle_told_found(struct oracle *oracle, bool account, const void *record);

/* --- the end ------------------------------------------------------------------------------------------------------------------------ */

/** What has been looked at, so that a run can show that it was not nothing. */
struct oracle_counts {
    uint64_t groups, records;   /**< of the log, without those seen again */
    uint64_t requests, replies; /**< distinct ones */
    uint64_t results,
        lookups; /**< outcomes of events and of ids asked for, each compared with the ledger's */
    uint64_t digests, totals;                     /**< recomputed */
    uint64_t accounts, transfers, burnt, expired; /**< in the ledger */
    uint64_t restarts;
    uint64_t committed_seq; /**< newest group of the contiguous durable log */
};
void oracle_counts(const struct oracle *oracle, struct oracle_counts *counts);

/** An account as the log leaves it now, for end-to-end comparisons. @return false: no such account */
bool oracle_account(const struct oracle *oracle, uint128_t id, struct account *account);

#endif

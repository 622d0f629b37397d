/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_ENGINE_H
#define TALLY_ENGINE_ENGINE_H

#include "engine/base/status.h"
#include "engine/base/types.h"
#include "wal/wal.h"

/** The ledger engine of one node: partitions, and engine lcores that own them.
 *  Flow:  net request -> [engine_submit] -> gather, decide, install -> open group -> WAL -> [engine_completed] -> net reply
 *  Owner: each engine_lcore belongs to one lcore; struct engine is read-only after start.
 *  Bounds: memory_bytes, REQUEST_EVENTS_MAX, WAL_BUFFERS. Keeps: INV-1, INV-2, INV-4, INV-5, INV-8, INV-9. */

struct engine;
struct engine_lcore;

struct engine_config {
    unsigned partitions;  /**< 1..PARTITIONS_MAX */
    unsigned lcores;      /**< engine lcores; partition p belongs to lcore p % lcores */
    uint64_t hash_seed;   /**< of account_partition() */
    uint64_t digest_seed; /**< of state and request digests */
    bool id_time;         /**< ids carry time (design section 2) */
    size_t memory_bytes;  /**< for accounts, ids, pendings and their indexes, all lcores together */
    size_t log_buffer_bytes;     /**< of one group and lcore, at most WAL_SEGMENT_BYTES_MAX */
    uint64_t digest_interval_ns; /**< how often digests and totals are logged; 0: never */
    uint64_t horizon_back_ms;    /**< how long ids are remembered, as the WAL was told */
    uint64_t
        horizon_slack_ms; /**< how much longer is tolerated before a decision waits for a new group */
    bool prefault;        /**< touch all memory at start */
    unsigned
        checkpoint_chunks; /**< an lcore, 128 KiB each, beside memory_bytes: 32..WAL_CHUNKS_MAX; 0: no checkpoints */
    unsigned
        checkpoint_slice; /**< records that a checkpoint's walk looks at in one turn; 0: as many as take some 30 us */
    struct wal_board *board;
    struct wal_lane *lanes; /**< one an lcore */
};

enum request_option {
    REQUEST_BALANCES = 1 << 0, /**< results carry balances */
    REQUEST_STALE_OK = 1 << 1, /**< a read need not wait for anything */
};

/** One request, owned by the caller until engine_completed() gives it back. `events` must stay readable until then.
 *  Aligned: full events 16 bytes (use engine_request.events from an aligned copy), compact events 8 bytes. */
struct engine_request {
    /* in */
    uint8_t operation;    /**< enum operation */
    uint8_t event_format; /**< enum event_format */
    uint16_t options;     /**< enum request_option */
    uint32_t event_count; /**< 1..REQUEST_EVENTS_MAX */
    const void *events;   /**< accounts, transfers, compact transfers, or uint128_t ids */
    void *owner;          /**< the caller's */
    /* out, arrays of event_count that the caller provides */
    struct result *results;
    struct balances *
        balances; /**< with REQUEST_BALANCES: home (debit) account after the event; zero where not known */
    void *
        records; /**< lookups: struct account or struct transfer, filled where the result is `found` */
    /* the engine's */
    uint32_t
        code; /**< enum request_code: ok, or unknown_outcome when the log could not be read (results are void) */
    seq_t wait_group;     /**< released when this group is committed; tells the reply's seq */
    uint32_t next_event;  /**< first one not executed yet */
    bool imported;        /**< the first event is imported, so all must be */
    uint32_t unresolved;  /**< results that wait for fields from the log */
    uint32_t away;        /**< events, or chains, that are with travellers */
    uint64_t away_filter; /**< a bit for every account and id that they name */
    bool blocked;         /**< the next event has to wait for them */
    struct engine_request *next;
};

/** @return 0, -ENOMEM (with `error` filled: how much was asked for), -EINVAL */
int engine_open(const struct engine_config *config, struct engine **engine, char *error,
                size_t error_bytes);
void engine_close(struct engine *engine);
struct engine_lcore *engine_lcore(struct engine *engine, unsigned index);

/** The partition of an account: a plain 64-bit mixer, written out in net/PROTOCOL.md, modulo partitions. */
unsigned account_partition(uint128_t account_id, uint64_t hash_seed, unsigned partitions);
/** The partition of a transfer id: its low 16 bits modulo partitions. */
static inline unsigned transfer_partition(uint128_t transfer_id, unsigned partitions) {
    return (unsigned)((uint64_t)transfer_id & 0xffff) % partitions;
}

/* --- one turn of an engine lcore, in this order (engine/lcore.c calls them) ------------------------------------- */

/** Take note of the time. Cell time follows the clock and never falls. */
void engine_clock(struct engine_lcore *lcore, uint64_t now_ns);
uint64_t engine_cell_time(const struct engine_lcore *lcore);

/** Queue a request for execution. Never blocks, never allocates; the queue is the requests' own links. */
void engine_submit(struct engine_lcore *lcore, struct engine_request *request);

/** Take what other lcores sent, and let travellers go on. Nothing where there is only one.
 *  @return messages taken; 0 means an empty turn */
unsigned engine_exchange(struct engine_lcore *lcore);

/** Execute what is queued, up to about `events_max` events; expire what is due; take answers from the log.
 *  An lcore whose log buffers are all in flight decides nothing until one is free.
 *  @return events executed, expiries and answers taken; 0 means an empty turn */
unsigned engine_execute(struct engine_lcore *lcore, unsigned events_max);

/** If the WAL opened the next group: hand over this one's segment and start the next. Publishes the open segment's size.
 *  @return 1 when a segment was handed over */
unsigned engine_seal(struct engine_lcore *lcore);

/** Take requests whose group is committed, oldest first.
 *  @return how many; `requests` holds them */
unsigned engine_completed(struct engine_lcore *lcore, struct engine_request **requests,
                          unsigned count_max);

/** Whether nothing is queued, held or waiting on this lcore. */
bool engine_idle(const struct engine_lcore *lcore);
/** The lcore is about to stop: from here on nothing expires any more, so that an idle lcore logs nothing. */
void engine_drain(struct engine_lcore *lcore);
/** Whether accepted requests are still waiting to be executed. */
bool engine_backlog(const struct engine_lcore *lcore);

/* --- recovery ---------------------------------------------------------------------------------------------------- */

/** All tables are empty again, as after engine_open: for another try. Before the lcores run. */
void engine_clear(struct engine *engine);
/** After the last group: set clocks and the first open group, and log START(term). @return 0 */
int engine_replay_finish(struct engine *engine, seq_t last_seq, term_t term, uint64_t cell_time,
                         uint64_t horizon_ms);

/* --- looking in from outside; only while no lcore runs, or from the owner's own turn ------------------------------- */

struct engine_totals {
    uint64_t accounts, transfer_ids, pendings; /**< pendings: live ones */
    size_t memory_used_bytes, memory_bytes;
};
void engine_totals(const struct engine *engine, struct engine_totals *totals);
const struct account *engine_account_find(const struct engine *engine, uint128_t id);
/** Partition's state digest now. */
uint128_t engine_partition_digest(const struct engine *engine, unsigned partition);
/** Recompute it from the tables; differs from the running one only if memory or code is broken. */
uint128_t engine_partition_digest_recompute(const struct engine *engine, unsigned partition);
/** Tests only: set an account's balances, unlogged. @return 0 or -ENOENT */
int engine_put_balances(struct engine *engine, uint128_t id, const struct balances *balances);

#endif

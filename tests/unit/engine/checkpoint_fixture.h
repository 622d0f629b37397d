/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_CHECKPOINT_FIXTURE_H
#define TALLY_TESTS_CHECKPOINT_FIXTURE_H

#include "engine/engine_internal.h"
#include "engine/restore.h"
#include "wal/checkpoint_format.h"

/** An engine whose WAL is played by hand: groups are kept, committed at once, and chunks of checkpoints are collected; snapshots of its
 *  state in an order of their own, so that two engines can be compared; and random histories of everything that changes a state. */

#define NODE_START_NS (1700000000ull * NS_PER_SECOND)
#define NODE_BATCH_EVENTS 24
#define NODE_BATCHES 4 /**< requests of one group */

struct node_group {
    seq_t seq;
    uint8_t *bytes;
    uint32_t length, records;
    uint64_t horizon_ms, cell_time;
};

struct node_batch {
    _Alignas(16) struct transfer transfers[NODE_BATCH_EVENTS];
    _Alignas(16) struct account accounts[NODE_BATCH_EVENTS];
    struct compact_transfer compact[NODE_BATCH_EVENTS];
    struct result results[NODE_BATCH_EVENTS];
    struct balances balances[NODE_BATCH_EVENTS];
    struct engine_request request;
};

struct node_config {
    unsigned partitions;
    unsigned checkpoint_chunks;
    size_t memory_bytes;
    bool id_time;
    uint64_t horizon_back_ms;
};

struct node {
    struct node_config config;
    struct wal_board *board;
    struct wal_lane *lane;
    struct engine *engine;
    struct engine_lcore *lcore;
    uint64_t now_ns;
    unsigned unfinished; /**< requests that have not come back */
    struct node_group *groups;
    unsigned group_count;
    /* checkpoint chunks: copies of all, and those that have not been given back */
    struct checkpoint_chunk *chunks;
    unsigned chunk_count, chunk_capacity;
    struct checkpoint_chunk *held[WAL_CHUNKS_MAX];
    unsigned held_count;
    bool complete; /**< the lcore's last chunk has come */
};

void node_open(struct node *node, const struct node_config *config);
/** The log goes on behind `last_seq`. */
void node_begin(struct node *node, seq_t last_seq, uint64_t cell_time, uint64_t horizon_ms);
void node_close(struct node *node);
/** Close the open group and commit it. @param checkpoint the state at its end is wanted */
void node_seal(struct node *node, bool checkpoint);
/** Execute a request whole, sealing where that is needed. @return false: it cannot be done */
bool node_run(struct node *node, struct engine_request *request);
/** Take what requests are finished. */
void node_finish(struct node *node);
/** Take chunks over; give `count` of those that are held back. */
void node_chunks(struct node *node, unsigned count);
/** The checkpoint that was taken last is forgotten, and its chunks given back. */
void node_chunks_forget(struct node *node);

/** What a checkpoint's manifest says, as far as the engine is concerned. */
void node_manifest(const struct node *node, const struct node_group *group, uint128_t state_digest,
                   struct checkpoint_manifest *manifest);
/** Restore a checkpoint's chunks and then the groups behind it.
 *  @return 0 or what restoring answered; `error` tells */
int node_restore(struct node *to, const struct node *from,
                 const struct checkpoint_manifest *manifest, unsigned workers, seq_t until,
                 char *error, size_t error_bytes);

/** Everything that an engine knows, in an order of its own. */
struct snapshot {
    struct account *accounts;
    struct checkpoint_pending *pendings;
    struct checkpoint_id *ids;
    unsigned account_count, pending_count, id_count;
    uint128_t digests[PARTITIONS_MAX], digest;
    unsigned partitions;
    uint64_t import_cursor_accounts, import_cursor_transfers, horizon_ms;
    bool id_time;
};

void snapshot_take(const struct node *node, struct snapshot *snapshot);
void snapshot_release(struct snapshot *snapshot);
/** Ids in an order that does not tell in which partitions they were. */
void snapshot_sort(struct snapshot *snapshot);
/** Compare what is not below the higher horizon. @param places compare places too
 *  @return NULL, or what differs */
const char *snapshot_differs(const struct snapshot *a, const struct snapshot *b, bool places);

/** A history: what to do next, from a seed and from what was done before. */
#define HISTORY_IDS 512
struct history {
    uint64_t random;
    uint64_t sequence, batches;
    unsigned accounts; /**< ids 1 .. accounts have been asked for */
    unsigned accounts_max;
    uint128_t pendings[HISTORY_IDS];
    struct transfer done[HISTORY_IDS];
    unsigned pending_count, done_count;
    uint64_t import_timestamp;
};

void history_next(struct history *history, uint64_t now_ns, struct node_batch *batch);

#endif

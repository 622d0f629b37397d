/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_RESTORE_INTERNAL_H
#define TALLY_ENGINE_RESTORE_INTERNAL_H

#include <pthread.h>

#include "engine/engine_internal.h"
#include "engine/restore.h"

/** What the files of engine/restore*.c share: restore.c (open, end, errors), restore_totals.c (what several workers add up to),
 *  restore_group.c (any record), restore_plain.c (plain transfers in batches), restore_checkpoint.c (chunks).
 *
 *  A worker touches only its own partitions, and of everything that an lcore has beside them it touches nothing: what it found out about
 *  ledgers, timestamps of accounts and cursors stays with it until restore_end adds it up. An lcore's memory is shared under a lock. */

#define RESTORE_ERROR_BYTES 256
#define RESTORE_TIMESTAMPS 1024 /**< timestamps of accounts that are indexed at a time */

/** What the accounts of a ledger hold, as far as one worker's partitions of one lcore go; mod 2^128. */
struct restore_ledger {
    uint64_t key; /**< lcore << 32 | ledger; 0: free, for there is no ledger 0 */
    struct balances sums;
};

struct restore_ledgers {
    struct restore_ledger *entries; /**< open addressing */
    uint32_t capacity;              /**< a power of two; 0: none yet */
    uint32_t count;
    struct restore_ledger *last; /**< most records are of one ledger */
};

/** Timestamps of accounts on their way into an lcore's index. */
struct restore_timestamps {
    uint32_t count;
    uint64_t timestamps[RESTORE_TIMESTAMPS];
};

struct restore_checkpoint; /* restore_checkpoint.c */
struct restore_totals;     /* restore_totals.c */
struct restore_burst;      /* restore_plain.c */

/** Where a group or a chunk stands, for messages. */
struct restore_place {
    uint64_t seq; /**< of the group, or number of the chunk plus one; 0: no place */
    uint64_t file, file_offset, bytes; /**< disk_file() */
    wal_place_t record;                /**< within the group; all ones: its end */
};

/** Records of a group that are looked at when it ends. They stay where they are in the log. */
struct restore_told {
    const void **records;
    uint32_t count, capacity;
};

struct restore_worker {
    _Alignas(CACHE_LINE_BYTES) struct restore *restore;
    unsigned index;
    int rc; /**< -errno: what it failed with; it does nothing more */
    char error[RESTORE_ERROR_BYTES];
    struct restore_place group;  /**< the group or chunk that it is at */
    struct restore_place failed; /**< the one that `error` is about */
    uint32_t stubs; /**< accounts of its partitions that were named and not created yet */
    uint64_t horizon_ms, cell_time;   /**< as of the last group (or checkpoint) that it saw */
    uint64_t forgotten_ms;            /**< its partitions have forgotten what is below */
    uint64_t import_cursor_accounts;  /**< newest timestamp of an account */
    uint64_t import_cursor_transfers; /**< newest timestamp of a transfer */
    uint64_t totals_seen;             /**< totals that it has added its part to */
    struct restore_ledgers ledgers;
    struct restore_told digests_told, totals_told;
    bool several; /**< this group has several segments ... */
    struct restore_told
        ends_told; /**< ... so what ends a pending transfer may stand before what began it: looked at behind all segments */
    struct restore_timestamps *timestamps; /**< one an lcore */
    struct restore_burst *burst;
    struct restore_checkpoint *
        checkpoint; /**< of what it saw of the checkpoint; one allocation, restore_close frees it */
};

struct restore {
    struct engine *engine;
    unsigned workers;
    unsigned partitions_written; /**< under how many the log and the checkpoint were written */
    struct restore_worker *worker;
    uint8_t owner[PARTITIONS_MAX];    /**< which worker a partition belongs to */
    uint8_t lcore_of[PARTITIONS_MAX]; /**< and which lcore */
    pthread_mutex_t memory_locks[LCORES_MAX];
    pthread_mutex_t timestamp_locks[LCORES_MAX]; /**< of the lcores' account_timestamps */
    struct restore_totals *totals;
};

/* restore.c */
extern const char *const restore_full; /**< what -ENOMEM says */
/** Say what is wrong, once. @return rc */
__attribute__((format(printf, 3, 4))) int restore_fail(struct restore_worker *worker, int rc,
                                                       const char *format, ...);

/** The worker that failed first, by the order of groups and chunks; NULL: none did. */
const struct restore_worker *restore_failed(const struct restore *restore);

static inline struct restore_worker *restore_worker(struct restore *restore, unsigned worker) {
    assert(worker < restore->workers);
    return &restore->worker[worker];
}

/** Whether a partition is this worker's. @param partition below the engine's number of partitions */
static inline bool restore_owns(const struct restore_worker *worker, unsigned partition) {
    return worker->restore->owner[partition] == worker->index;
}

static inline struct engine_lcore *restore_lcore(const struct restore_worker *worker,
                                                 unsigned partition) {
    return &worker->restore->engine->lcores[worker->restore->lcore_of[partition]];
}

/** The memory that a partition's tables come from. */
static inline struct memory *restore_memory(const struct restore_worker *worker,
                                            unsigned partition) {
    return &restore_lcore(worker, partition)->memory;
}

/** What the ledger's accounts in the partitions of this worker and of that partition's lcore hold.
 *  @param ledger not 0. @return NULL for lack of memory; good until the next call */
struct balances *restore_ledger_need(struct restore_worker *worker, unsigned partition,
                                     uint32_t ledger);

static inline struct balances *restore_ledger(struct restore_worker *worker, unsigned partition,
                                              uint32_t ledger) {
    uint64_t key = (uint64_t)worker->restore->lcore_of[partition] << 32 | ledger;
    struct restore_ledger *last = worker->ledgers.last;
    return likely(last && last->key == key) ? &last->sums
                                            : restore_ledger_need(worker, partition, ledger);
}

/** An account came into being in a partition of this worker: adds its balances to its ledger, notes its timestamp and the cursor.
 *  (The caller adds it to the tables and to the partition's digest.) @return 0 or -ENOMEM */
int restore_account_note(struct restore_worker *worker, unsigned partition,
                         const struct account *account);

/** The sums, or NULL where no account of the ledger is known in this worker's partitions of that lcore. */
const struct balances *restore_ledger_find(const struct restore_worker *worker, unsigned lcore,
                                           uint32_t ledger);

/** A transfer came into being, in any partition. */
static inline void restore_transfer_note(struct restore_worker *worker, uint64_t timestamp) {
    if (timestamp > worker->import_cursor_transfers)
        worker->import_cursor_transfers = timestamp;
}

/* restore_totals.c: what the log says of the whole cell, compared with what all workers together have */
struct restore_total {
    struct restore_place group;
    uint32_t ledger;          /**< 0: the sum of the partitions' digests, and their counts */
    struct balances expected; /**< for digests: digest, accounts, live pending transfers */
    struct balances sums;     /**< so far */
    unsigned passed;          /**< workers that have added their part */
};
int restore_totals_open(struct restore *restore);
void restore_totals_close(struct restore *restore);
/** A worker's part of the next total; all workers come to the same ones in the same order. The last one compares.
 *  @return 0, -EBADMSG, -ENOMEM */
int restore_totals_add(struct restore_worker *worker, const struct restore_total *part);

/* restore_group.c */
/** One side of a transfer whose account is in a partition of this worker: finds the account, or makes it known by name.
 *  @return NULL for lack of memory */
struct account *restore_account_known(struct restore_worker *worker, unsigned partition,
                                      uint128_t id, uint64_t hash);

/* restore_plain.c */
int restore_plain_open(struct restore_worker *worker);
/** Whether a record is a transfer that moves money and does nothing else; `left` bytes may be read. */
static inline bool restore_is_plain(const void *record, size_t left) {
    const struct wal_record_transfer *transfer = record;
    uint64_t head;
    if (unlikely(left < sizeof(*transfer)))
        return false;
    __builtin_memcpy(&head, &transfer->head, sizeof(head));
    return head == (WAL_RECORD_TRANSFER | (sizeof(*transfer) / WAL_RECORD_ALIGN) << 8) &&
           !(transfer->flags & ~TRANSFER_LINKED);
}
/** @return 0, -EBADMSG, -ENOMEM */
int restore_plain_add(struct restore_worker *worker, const struct wal_record_transfer *record,
                      wal_place_t place);
/** Apply what has come together. @return 0, -EBADMSG, -ENOMEM */
int restore_plain_flush(struct restore_worker *worker);
/** Bring the digests of this worker's partitions up to what was applied. */
void restore_plain_settle(struct restore_worker *worker);

#endif

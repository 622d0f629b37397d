/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "engine/engine_internal.h"

#define LEDGERS_PER_GROUP 256 /**< whose totals are looked at when a group is sealed */

bool segment_has_room(const struct engine_lcore *lcore, size_t bytes) {
    return lcore->segment &&
           lcore->segment_bytes + bytes + SEGMENT_RESERVE_BYTES <= lcore->buffer_bytes;
}

/** The buffer of a group is free once the group that used it before is durable. Until then this lcore decides nothing. */
static void segment_claim(struct engine_lcore *lcore) {
    if (!lcore->segment && lcore->commit_seq + WAL_BUFFERS >= lcore->open_group)
        lcore->segment = lcore->buffers[lcore->open_group % WAL_BUFFERS];
}

void segment_start(struct engine_lcore *lcore, seq_t group) {
    lcore->open_group = group;
    lcore->segment = NULL;
    lcore->segment_bytes = 0;
    lcore->segment_records = 0;
    uint64_t horizon =
        atomic_load_explicit(&lcore->board->horizon_ms[group % WAL_HORIZONS], memory_order_relaxed);
    if (horizon > lcore->horizon_ms)
        lcore->horizon_ms = horizon;
    segment_claim(lcore);
}

static bool reserve_has_room(const struct engine_lcore *lcore, size_t bytes) {
    return lcore->segment_bytes + bytes <= lcore->buffer_bytes;
}

/** Some ledgers a group, until all have been looked at.
 *  @param every also those that did not change: where several lcores log, only the sum of what all of them say can be compared */
static void log_ledger_totals(struct engine_lcore *lcore, uint64_t timestamp, bool every) {
    wal_place_t place;
    unsigned seen = 0;
    for (; lcore->ledgers_left && seen < LEDGERS_PER_GROUP; lcore->ledgers_left--, seen++) {
        struct ledger_total *total = ledger_at(&lcore->ledgers, lcore->ledgers_left - 1);
        if (!total->dirty && !every)
            continue;
        if (!reserve_has_room(lcore, sizeof(struct wal_record_ledger_total)))
            return;
        struct wal_record_ledger_total *record = segment_append(lcore, sizeof(*record), &place);
        *record = (struct wal_record_ledger_total){
            .head = {WAL_RECORD_LEDGER_TOTAL, sizeof(*record) / WAL_RECORD_ALIGN, 0, total->ledger},
            .timestamp = timestamp,
            .sums = total->sums,
        };
        total->dirty = false;
    }
}

static void log_partition_digests(struct engine_lcore *lcore, uint64_t timestamp) {
    wal_place_t place;
    for (unsigned p = lcore->index; p < lcore->partition_count; p += lcore->engine->config.lcores) {
        struct partition *partition = &lcore->partitions[p];
        if (!partition->digest_dirty)
            continue;
        if (!reserve_has_room(lcore, sizeof(struct wal_record_partition_digest)))
            return;
        struct wal_record_partition_digest *record = segment_append(lcore, sizeof(*record), &place);
        *record = (struct wal_record_partition_digest){
            .head = {WAL_RECORD_PARTITION_DIGEST, sizeof(*record) / WAL_RECORD_ALIGN, 0, p},
            .timestamp = timestamp,
            .digest = partition->digest,
            .account_count = partition->accounts.slab.count,
            .pending_count = partition->pendings.live_count,
        };
        partition->digest_dirty = false;
    }
}

/** Every so often, at the end of a group that changed something: what the state looks like then. What does not fit goes into a later
 *  group, for it stays dirty. */
static void log_state_digests(struct engine_lcore *lcore) {
    uint64_t interval = lcore->engine->config.digest_interval_ns;
    if (unlikely(lcore->travel)) {
        /* All in the same group, when nothing was on its way: then the tables show what the log says. relaxed: stored before the
         * open_group that was read with acquire */
        if (!lcore->segment || atomic_load_explicit(&lcore->board->digest_seq,
                                                    memory_order_relaxed) != lcore->open_group)
            return;
        log_partition_digests(lcore, lcore->last_timestamp);
        if (!lcore->ledgers_left)
            lcore->ledgers_left = lcore->ledgers.slab.count;
        log_ledger_totals(lcore, lcore->last_timestamp, true);
        return;
    }
    if (!interval || !lcore->segment || !lcore->segment_bytes)
        return;
    if (lcore->cell_time - lcore->digests_logged >= interval) {
        lcore->digests_logged = lcore->cell_time;
        log_partition_digests(lcore, lcore->last_timestamp);
        lcore->ledgers_left = lcore->ledgers.slab.count;
    }
    if (unlikely(lcore->ledgers_left))
        log_ledger_totals(lcore, lcore->last_timestamp, false);
}

unsigned engine_seal(struct engine_lcore *lcore) {
    struct wal_lane *lane = lcore->lane;
    unsigned sealed = 0;
    /* Acquire pairs with the WAL's release of open_group; it makes the new group's horizon visible. */
    seq_t open_group = atomic_load_explicit(&lcore->board->open_group, memory_order_acquire);
    while (lcore->open_group < open_group) {
        log_state_digests(lcore);
        /* relaxed: stored before the open_group that was read above with acquire */
        if (unlikely(atomic_load_explicit(&lcore->board->checkpoint_seq, memory_order_relaxed) ==
                     lcore->open_group))
            checkpoint_begin(lcore);
        struct wal_handover handover = {
            .seq = lcore->open_group,
            .bytes = lcore->buffers[lcore->open_group % WAL_BUFFERS],
            .length = lcore->segment_bytes,
            .record_count = lcore->segment_records,
            .last_timestamp = lcore->last_timestamp,
            .cell_time = lcore->cell_time,
        };
        wal_lane_handover(lane, &handover);
        segment_start(lcore, lcore->open_group + 1);
        sealed = 1;
    }
    segment_claim(lcore);
    /* Release pairs with the acquire in wal_seal.c: whoever sees the new segment's size sees the hand-over of the old one. */
    atomic_store_explicit(&lane->segment_bytes, lcore->segment_bytes, memory_order_release);
    return sealed;
}

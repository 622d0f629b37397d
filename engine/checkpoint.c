/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/planted.h"
#include "engine/traveller.h"

/** Copy on write by group number: nothing is marked or listed when a checkpoint begins, for every record knows the group that changed it
 *  last. The walk takes accounts first, then pending transfers, then ids, each partition by partition; what changes for the first time
 *  since `seq` while it lies ahead of the walk is saved by whoever changes it, and the walk passes it by later. So each record is
 *  written once. What the walk finds stands in chunks of its own, which seldom hold more than one partition. */

/** Records that one slice looks at. Of 10 M accounts: 3 us of CPU time, 30 to 70 in the worst of a thousand on a virtual machine of two
 *  cores that others kept busy; twice as many took up to 85. */
#define CHECKPOINT_SLICE_RECORDS 256
#define CHECKPOINT_AHEAD 16 /**< records that are being fetched while one is copied */
#define CHECKPOINT_STALE_GROUPS                                                                    \
    (1u << 30) /**< a record that old is given a newer group, before 32 bits cannot tell any more */
#define CHUNKS_OPEN                                                                                \
    4 /**< that the walk may take beyond its half: one of each that is being filled, and the last */
#define FILL 0xa5

enum {
    ACCOUNTS_PER_CHUNK = CHECKPOINT_PAYLOAD_BYTES / sizeof(struct account),
    PENDINGS_PER_CHUNK = CHECKPOINT_PAYLOAD_BYTES / sizeof(struct checkpoint_pending),
    IDS_PER_CHUNK = CHECKPOINT_PAYLOAD_BYTES / sizeof(struct checkpoint_id),
};
_Static_assert(sizeof(struct checkpoint_lcore) +
                       PARTITIONS_MAX * sizeof(struct checkpoint_partition) <=
                   CHECKPOINT_PAYLOAD_BYTES,
               "what an lcore says about its partitions fits one chunk");
_Static_assert(sizeof(struct id_record) == sizeof(struct checkpoint_id) &&
                   offsetof(struct id_record, place) == offsetof(struct checkpoint_id, place),
               "an id is saved as it is remembered");

struct checkpoint {
    seq_t seq;           /**< the state at the end of this group is saved */
    uint64_t horizon_ms; /**< of that group; 0 without id_time */

    /* where the walk stands: every record before this one has been walked */
    enum checkpoint_kind kind; /**< CHECKPOINT_LCORE: all of them have */
    unsigned partition;
    uint32_t slot;
    uint32_t place;    /**< ids: the slice's place in the partition's table */
    uint64_t slice;    /**< ids: its number */
    uint32_t slot_end; /**< ids: how many it had when the walk came to it; 0: it has not */

    struct checkpoint_chunk *walked;         /**< what the walk is filling; NULL: none */
    struct checkpoint_chunk *saved_accounts; /**< what changes are filling; NULL: none */
    struct checkpoint_chunk *saved_pendings;

    uint32_t chunk_count;
    uint32_t chunks_out; /**< with the WAL */
    uint32_t free_count;
    struct checkpoint_chunk *free[WAL_CHUNKS_MAX];
    struct checkpoint_chunk *chunks;

    /* as they were at the end of group seq */
    struct checkpoint_lcore lcore;
    struct checkpoint_partition partitions[PARTITIONS_MAX];
    uint32_t pending_slots[PARTITIONS_MAX];
};

/* --- open and close ------------------------------------------------------------------------------------------------------ */

int checkpoint_open(struct engine_lcore *lcore, unsigned chunk_count) {
    const size_t huge_page_bytes = (size_t)2 << 20;
    size_t bytes = chunk_count * sizeof(struct checkpoint_chunk);
    bytes = (bytes + huge_page_bytes - 1) & ~(huge_page_bytes - 1);
    struct checkpoint *checkpoint = malloc(sizeof(*checkpoint));
    if (!checkpoint)
        return -ENOMEM;
    memset(checkpoint, 0, sizeof(*checkpoint));
    checkpoint->chunks = aligned_alloc(huge_page_bytes, bytes);
    if (!checkpoint->chunks) {
        free(checkpoint);
        return -ENOMEM;
    }
    madvise(checkpoint->chunks, bytes, MADV_HUGEPAGE);
    memset(checkpoint->chunks, 0, bytes); /* so that no page fault happens later */
    checkpoint->chunk_count = chunk_count;
    for (unsigned i = chunk_count; i > 0; i--)
        checkpoint->free[checkpoint->free_count++] = &checkpoint->chunks[i - 1];
    lcore->checkpoint = checkpoint;
    return 0;
}

void checkpoint_close(struct checkpoint *checkpoint) {
    if (!checkpoint)
        return;
    free(checkpoint->chunks);
    free(checkpoint);
}

/* --- chunks -------------------------------------------------------------------------------------------------------------- */

static struct checkpoint_chunk *chunk_begin(struct engine_lcore *lcore, enum checkpoint_kind kind,
                                            size_t record_bytes) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    assert(checkpoint->free_count); /* checkpoint_saves_fit() was asked, or half of them are free */
    struct checkpoint_chunk *chunk = checkpoint->free[--checkpoint->free_count];
    chunk->header = (struct checkpoint_chunk_header){
        .magic = CHECKPOINT_CHUNK_MAGIC,
        .version = CHECKPOINT_FORMAT_VERSION,
        .kind = (uint16_t)kind,
        .lcore = (uint16_t)lcore->index,
        .seq = checkpoint->seq,
        .record_bytes = (uint32_t)record_bytes,
        .partition_first = UINT16_MAX,
    };
    return chunk;
}

static void chunk_end(struct engine_lcore *lcore, struct checkpoint_chunk **open) {
    struct checkpoint_chunk *chunk = *open;
    if (!chunk)
        return;
    size_t used = (size_t)chunk->header.records * chunk->header.record_bytes;
    memset(chunk->payload + used, FILL, sizeof(chunk->payload) - used);
    lcore->checkpoint->chunks_out++;
    wal_lane_chunk(lcore->lane, chunk);
    *open = NULL;
}

/** Room for one more record of a partition. */
static inline void *record_add(struct engine_lcore *lcore, struct checkpoint_chunk **open,
                               enum checkpoint_kind kind, size_t record_bytes, unsigned partition) {
    struct checkpoint_chunk *chunk = *open;
    if (unlikely(!chunk || chunk->header.records == CHECKPOINT_PAYLOAD_BYTES / record_bytes)) {
        chunk_end(lcore, open);
        *open = chunk = chunk_begin(lcore, kind, record_bytes);
    }
    struct checkpoint_chunk_header *header = &chunk->header;
    if (partition < header->partition_first)
        header->partition_first = (uint16_t)partition;
    if (partition > header->partition_last)
        header->partition_last = (uint16_t)partition;
    return chunk->payload + (size_t)header->records++ * record_bytes;
}

static void chunks_take_back(struct engine_lcore *lcore) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    struct checkpoint_chunk *chunk;
    while (checkpoint->chunks_out && (chunk = wal_lane_chunk_spent(lcore->lane))) {
        checkpoint->chunks_out--;
        checkpoint->free[checkpoint->free_count++] = chunk;
    }
}

static uint32_t chunks_for(uint32_t accounts, uint32_t pendings) {
    return (accounts + ACCOUNTS_PER_CHUNK - 1) / ACCOUNTS_PER_CHUNK +
           (pendings + PENDINGS_PER_CHUNK - 1) / PENDINGS_PER_CHUNK;
}

bool checkpoint_saves_fit(const struct engine_lcore *lcore, uint32_t events) {
    uint32_t accounts, pendings;
    travel_records_out(lcore, &accounts, &pendings);
    return lcore->checkpoint->free_count >= chunks_for(accounts + events * 2, pendings + events);
}

bool checkpoint_out_fits(const struct engine_lcore *lcore, uint32_t accounts, uint32_t pendings) {
    const struct checkpoint *checkpoint = lcore->checkpoint;
    uint32_t chunks = chunks_for(accounts, pendings);
    return chunks <= checkpoint->chunk_count / 2 - CHUNKS_OPEN && chunks <= checkpoint->free_count;
}
/* With the fewest chunks: all come back but the three that are being filled, and the longest chain must fit then. */
_Static_assert(CHECKPOINT_CHUNKS_MIN - 3 >=
                   (REQUEST_EVENTS_MAX * 2 + ACCOUNTS_PER_CHUNK - 1) / ACCOUNTS_PER_CHUNK +
                       (REQUEST_EVENTS_MAX + PENDINGS_PER_CHUNK - 1) / PENDINGS_PER_CHUNK,
               "a chain fits");

/* --- what changes is saved first ----------------------------------------------------------------------------------------- */

/** @param low low half of a record's group */
static inline bool changed_since(const struct engine_lcore *lcore, uint32_t low) {
    seq_t seq = lcore->checkpoint->seq;
    return low - (uint32_t)seq - 1 < (uint32_t)(lcore->open_group - seq);
}

static void account_put(struct engine_lcore *lcore, struct checkpoint_chunk **open,
                        const struct account *account, unsigned partition) {
    account_export(account,
                   record_add(lcore, open, CHECKPOINT_ACCOUNTS, sizeof(struct account), partition));
    lcore->checkpoint->lcore.accounts++;
}

void checkpoint_save_account(struct engine_lcore *lcore, const struct partition *partition,
                             const struct account *account, uint64_t hash) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    unsigned number = (unsigned)(partition - lcore->partitions);
    if (checkpoint->kind != CHECKPOINT_ACCOUNTS || number < checkpoint->partition ||
        changed_since(lcore, account->reserved) || PLANTED(checkpoint_saves_nothing))
        return;
    if (number == checkpoint->partition &&
        account_find(&partition->accounts, account->id, hash) < checkpoint->slot)
        return;
    account_put(lcore, &checkpoint->saved_accounts, account, number);
}

static void pending_put(struct engine_lcore *lcore, struct checkpoint_chunk **open,
                        const struct pending *pending, unsigned partition) {
    if (pending->state != PENDING_LIVE && pending->release_ms < lcore->checkpoint->horizon_ms)
        return; /* forgotten, but for the room that it takes */
    if (PLANTED(checkpoint_drops_resolved) && pending->state != PENDING_LIVE)
        return;
    struct checkpoint_pending *record =
        record_add(lcore, open, CHECKPOINT_PENDINGS, sizeof(struct checkpoint_pending), partition);
    *record = (struct checkpoint_pending){.transfer = pending->transfer,
                                          .expires_at = pending->expires_at,
                                          .release_ms = pending->release_ms,
                                          .state = pending->state};
    lcore->checkpoint->lcore.pendings++;
}

void checkpoint_save_pending(struct engine_lcore *lcore, const struct partition *partition,
                             uint32_t slot) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    unsigned number = (unsigned)(partition - lcore->partitions);
    const struct pending *pending = pending_at(&partition->pendings, slot);
    if (checkpoint->kind > CHECKPOINT_PENDINGS || changed_since(lcore, pending->group))
        return;
    if (checkpoint->kind == CHECKPOINT_PENDINGS &&
        (number < checkpoint->partition ||
         (number == checkpoint->partition && slot < checkpoint->slot)))
        return;
    pending_put(lcore, &checkpoint->saved_pendings, pending, number);
}

/* --- begin and stop ------------------------------------------------------------------------------------------------------ */

static void chunk_drop(struct checkpoint *checkpoint, struct checkpoint_chunk **open) {
    if (*open)
        checkpoint->free[checkpoint->free_count++] = *open;
    *open = NULL;
}

static void checkpoint_stop(struct engine_lcore *lcore) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    chunk_drop(checkpoint, &checkpoint->walked);
    chunk_drop(checkpoint, &checkpoint->saved_accounts);
    chunk_drop(checkpoint, &checkpoint->saved_pendings);
    lcore->checkpointing = false;
}

static bool is_abandoned(const struct engine_lcore *lcore) {
    /* relaxed: nothing else is read on the strength of it */
    return atomic_load_explicit(&lcore->board->checkpoint_abandoned, memory_order_relaxed) >=
           lcore->checkpoint->seq;
}

void checkpoint_begin(struct engine_lcore *lcore) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    if (!checkpoint)
        return;
    if (lcore->checkpointing) {
        assert(is_abandoned(lcore));
        checkpoint_stop(lcore);
    }
    const unsigned step = lcore->engine->config.lcores;
    checkpoint->seq = lcore->open_group;
    checkpoint->horizon_ms = lcore->id_time ? lcore->horizon_ms : 0;
    checkpoint->kind = CHECKPOINT_ACCOUNTS;
    checkpoint->partition = lcore->index;
    checkpoint->slot = checkpoint->place = checkpoint->slot_end = 0;
    checkpoint->lcore = (struct checkpoint_lcore){
        .last_timestamp = lcore->last_timestamp,
        .cell_time = lcore->cell_time,
        .import_cursor_accounts = lcore->import_cursor_accounts,
        .import_cursor_transfers =
            PLANTED(checkpoint_forgets_cursor) ? 0 : lcore->import_cursor_transfers,
    };
    for (unsigned p = lcore->index; p < lcore->partition_count; p += step) {
        const struct partition *partition = &lcore->partitions[p];
        if (p + 4 * step < lcore->partition_count) {
            const struct partition *later = partition + (size_t)4 * step;
            __builtin_prefetch(&later->digest);
            __builtin_prefetch(&later->accounts.slab.count);
            __builtin_prefetch(&later->pendings.slab.count);
            __builtin_prefetch(&later->pendings.live_count);
        }
        checkpoint->partitions[p] = (struct checkpoint_partition){
            .digest = partition->digest,
            .accounts = partition->accounts.slab.count,
            .pendings_live = partition->pendings.live_count,
            .partition = p,
        };
        checkpoint->pending_slots[p] = partition->pendings.slab.count;
    }
    lcore->checkpointing = true;
}

/** Everything has been walked: hand over what is left, and last what the lcore has to say. */
static void checkpoint_finish(struct engine_lcore *lcore) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    chunk_end(lcore, &checkpoint->walked);
    chunk_end(lcore, &checkpoint->saved_accounts);
    chunk_end(lcore, &checkpoint->saved_pendings);
    struct checkpoint_chunk *chunk = chunk_begin(lcore, CHECKPOINT_LCORE, 0);
    struct checkpoint_partition *partitions =
        (void *)(chunk->payload + sizeof(struct checkpoint_lcore));
    checkpoint->lcore.complete_group = lcore->open_group;
    for (unsigned p = lcore->index; p < lcore->partition_count; p += lcore->engine->config.lcores)
        partitions[checkpoint->lcore.partition_count++] = checkpoint->partitions[p];
    memcpy(chunk->payload, &checkpoint->lcore, sizeof(checkpoint->lcore));
    chunk->header.records = 1;
    chunk->header.record_bytes =
        (uint32_t)(sizeof(struct checkpoint_lcore) +
                   checkpoint->lcore.partition_count * sizeof(struct checkpoint_partition));
    chunk->header.partition_first = 0;
    chunk->header.partition_last = UINT16_MAX;
    chunk_end(lcore, &chunk);
    lcore->checkpointing = false;
}

/* --- the walk ------------------------------------------------------------------------------------------------------------ */

/** Before 32 bits cannot tell a record's group from one to come. */
static inline void group_refresh(const struct checkpoint *checkpoint, uint32_t *group) {
    if (unlikely((uint32_t)checkpoint->seq - *group > CHECKPOINT_STALE_GROUPS))
        *group = (uint32_t)checkpoint->seq;
}

/* Each walks on in its partition, and returns how many steps it took; fewer than `count_max`: there is no more. */
static unsigned walk_accounts(struct engine_lcore *lcore, unsigned count_max) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    unsigned p = checkpoint->partition;
    const struct account_table *accounts = &lcore->partitions[p].accounts;
    uint32_t end = (uint32_t)checkpoint->partitions[p].accounts, slot = checkpoint->slot;
    unsigned count = end - slot < count_max ? end - slot : count_max;
    for (uint32_t stop = slot + count; slot < stop; slot++) {
        if (likely(slot + CHECKPOINT_AHEAD < end)) {
            const struct account *later = account_at(accounts, slot + CHECKPOINT_AHEAD);
            __builtin_prefetch(later);
            __builtin_prefetch((const uint8_t *)later + CACHE_LINE_BYTES);
        }
        struct account *account = account_at(accounts, slot);
        if (changed_since(lcore, account->reserved) && !PLANTED(checkpoint_saves_nothing))
            continue;
        group_refresh(checkpoint, &account->reserved);
        account_put(lcore, &checkpoint->walked, account, p);
    }
    checkpoint->slot = slot;
    return count;
}

static unsigned walk_pendings(struct engine_lcore *lcore, unsigned count_max) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    unsigned p = checkpoint->partition;
    const struct pending_table *pendings = &lcore->partitions[p].pendings;
    uint32_t end = checkpoint->pending_slots[p], slot = checkpoint->slot;
    unsigned count = end - slot < count_max ? end - slot : count_max;
    for (uint32_t stop = slot + count; slot < stop; slot++) {
        if (likely(slot + CHECKPOINT_AHEAD < end)) {
            const uint8_t *later = (void *)pending_at(pendings, slot + CHECKPOINT_AHEAD);
            for (unsigned line = 0; line < 3; line++)
                __builtin_prefetch(later + (size_t)line * CACHE_LINE_BYTES);
        }
        struct pending *pending = pending_at(pendings, slot);
        if (pending->state == 0 || changed_since(lcore, pending->group))
            continue;
        group_refresh(checkpoint, &pending->group);
        pending_put(lcore, &checkpoint->walked, pending, p);
    }
    checkpoint->slot = slot;
    return count;
}

/** The slice where the walk stands. @return NULL when there is none whose ids are wanted */
static const struct id_slice *slice_to_walk(struct checkpoint *checkpoint,
                                            const struct id_table *ids) {
    const struct id_slice *slice = ids->slices[checkpoint->place];
    if (checkpoint->slot_end) /* else the walk comes to it just now */
        return slice && slice->number == checkpoint->slice ? slice : NULL;
    if (!slice || (ids->id_time && (slice->number + 1) * ID_SLICE_MS <= checkpoint->horizon_ms))
        return NULL;
    checkpoint->slice = slice->number;
    checkpoint->slot_end = slice->slab.count;
    return slice;
}

static unsigned walk_ids(struct engine_lcore *lcore, unsigned count_max) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    unsigned p = checkpoint->partition, count = 0;
    const struct id_table *ids = &lcore->partitions[p].ids;
    while (checkpoint->place < ID_SLICES && count < count_max) {
        const struct id_slice *slice = slice_to_walk(checkpoint, ids);
        uint32_t slot = checkpoint->slot, end = slice ? checkpoint->slot_end : slot;
        for (; slot < end && count < count_max; slot++, count++) {
            if (likely(slot + CHECKPOINT_AHEAD < end))
                __builtin_prefetch(id_at(slice, slot + CHECKPOINT_AHEAD));
            const struct id_record *record = id_at(slice, slot);
            if (wal_place_seq(record->place, lcore->open_group) > checkpoint->seq ||
                (PLANTED(checkpoint_forgets_burnt) && (record->place & WAL_PLACE_BURNT)))
                continue;
            memcpy(record_add(lcore, &checkpoint->walked, CHECKPOINT_IDS, sizeof(*record), p),
                   record, sizeof(*record));
            checkpoint->partitions[p].ids++;
            checkpoint->lcore.ids++;
        }
        checkpoint->slot = slot;
        if (slot < end)
            return count;
        checkpoint->place++;
        checkpoint->slot = checkpoint->slot_end = 0;
        count++;
    }
    /* Slices that were forgotten while the walk went on are missing, wholly or in part. */
    uint64_t from_ms = ids->id_time ? ids->forgotten_end * ID_SLICE_MS : 0;
    if (from_ms > checkpoint->lcore.ids_from_ms)
        checkpoint->lcore.ids_from_ms = from_ms;
    return count;
}

/** On to the next partition, or to the next kind in the first one. */
static void walk_next(struct engine_lcore *lcore) {
    struct checkpoint *checkpoint = lcore->checkpoint;
    checkpoint->slot = checkpoint->place = checkpoint->slot_end = 0;
    checkpoint->partition += lcore->engine->config.lcores;
    if (checkpoint->partition < lcore->partition_count)
        return;
    chunk_end(lcore, &checkpoint->walked);
    if (checkpoint->kind == CHECKPOINT_ACCOUNTS)
        chunk_end(lcore, &checkpoint->saved_accounts);
    else if (checkpoint->kind == CHECKPOINT_PENDINGS)
        chunk_end(lcore, &checkpoint->saved_pendings);
    checkpoint->partition = lcore->index;
    checkpoint->kind++;
}

unsigned checkpoint_walk(struct engine_lcore *lcore, unsigned records_max) {
    static unsigned (*const walks[])(struct engine_lcore *, unsigned) = {
        [CHECKPOINT_ACCOUNTS] = walk_accounts,
        [CHECKPOINT_PENDINGS] = walk_pendings,
        [CHECKPOINT_IDS] = walk_ids,
    };
    struct checkpoint *checkpoint = lcore->checkpoint;
    if (!checkpoint)
        return 0;
    chunks_take_back(lcore);
    if (likely(!lcore->checkpointing))
        return 0;
    if (unlikely(is_abandoned(lcore))) {
        checkpoint_stop(lcore);
        return 0;
    }
    if (checkpoint->free_count <= checkpoint->chunk_count / 2)
        return 0;
    unsigned count = 0;
    while (count < records_max && checkpoint->kind != CHECKPOINT_LCORE) {
        unsigned left = records_max - count, walked = walks[checkpoint->kind](lcore, left);
        count += walked;
        if (walked >= left)
            break;
        walk_next(lcore);
        count++;
    }
    if (checkpoint->kind == CHECKPOINT_LCORE)
        checkpoint_finish(lcore);
    return count;
}

unsigned engine_checkpoint(struct engine_lcore *lcore) {
    unsigned records = lcore->engine->config.checkpoint_slice;
    return checkpoint_walk(lcore, records ? records : CHECKPOINT_SLICE_RECORDS);
}

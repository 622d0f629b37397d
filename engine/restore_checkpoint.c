/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/restore_internal.h"

/** Chunks of a checkpoint back into the tables. A burst of records at a time: the first pass finds out whose they are and fetches index
 *  lines, the second inserts. Nothing is believed: a record must be one that the engine could have written, in a partition that its chunk
 *  names, and new; and at the end the counts and digests must be those that the lcores wrote down when their walks began. */

#define BURST 64
_Static_assert(sizeof(struct checkpoint_id) == sizeof(struct id_record) &&
                   offsetof(struct checkpoint_id, place) == offsetof(struct id_record, place),
               "an id is remembered as it was saved");

/** What one worker saw of the checkpoint. */
struct restore_checkpoint {
    seq_t seq;
    uint64_t accounts, pendings, ids; /**< in its own partitions */
    /* what the lcores say; every worker sees it, the first one's is used */
    struct checkpoint_lcore lcore; /**< sums and maxima of all */
    unsigned lcores;
    bool lcore_seen[LCORES_MAX];
    bool partition_seen[PARTITIONS_MAX];
    struct checkpoint_partition partitions[PARTITIONS_MAX];
};

/** Where a record goes. */
struct target {
    uint64_t hash;
    unsigned partition;
    bool own;
};

static int full(struct restore_worker *worker) {
    return restore_fail(worker, -ENOMEM, "%s", restore_full);
}

static int damaged(struct restore_worker *worker, const struct checkpoint_chunk *chunk,
                   const char *what) {
    return restore_fail(worker, -EBADMSG, "chunk %llu of checkpoint %llu %s",
                        (unsigned long long)chunk->header.number,
                        (unsigned long long)chunk->header.seq, what);
}

static int out_of_range(struct restore_worker *worker, const struct checkpoint_chunk *chunk) {
    return damaged(worker, chunk, "holds a record of a partition that it does not name");
}

static bool in_range(const struct checkpoint_chunk *chunk, unsigned partition_written) {
    return partition_written >= chunk->header.partition_first &&
           partition_written <= chunk->header.partition_last;
}

/* --- accounts ------------------------------------------------------------------------------------------------------------ */

static bool account_is_sound(const struct account *account) {
    return account->id != 0 && account->id != UINT128_MAX && account->ledger && account->code &&
           account->timestamp && account->timestamp <= TIMESTAMP_MAX && !account->reserved &&
           !(account->flags & ~ACCOUNT_FLAGS_KNOWN);
}

static int insert_account(struct restore_worker *worker, const struct checkpoint_chunk *chunk,
                          const struct account *record, const struct target *target) {
    struct partition *partition = &worker->restore->engine->partitions[target->partition];
    if (unlikely(!account_is_sound(record)))
        return damaged(worker, chunk, "holds an account that is none");
    if (unlikely(account_find(&partition->accounts, record->id, target->hash) != INDEX_NONE))
        return damaged(worker, chunk, "holds an account twice");
    if (unlikely(account_reserve(&partition->accounts, restore_memory(worker, target->partition),
                                 1) != 0 ||
                 restore_account_note(worker, target->partition, record) != 0))
        return full(worker);
    struct account *account = account_insert(&partition->accounts, record->id, target->hash);
    *account = *record;
    account->reserved = (uint32_t)chunk->header.seq;
    struct account_delta delta = {record->debits_pending, record->debits_posted,
                                  record->credits_pending, record->credits_posted,
                                  !!(record->flags & ACCOUNT_CLOSED)};
    partition->digest +=
        partition_account_hash(record, worker->restore->engine->config.digest_seed);
    partition_digest_delta(partition, target->hash, &delta);
    worker->checkpoint->accounts++;
    return 0;
}

static int load_accounts(struct restore_worker *worker, const struct checkpoint_chunk *chunk) {
    const struct restore *restore = worker->restore;
    const struct engine_config *config = &restore->engine->config;
    const struct account *records = (const void *)chunk->payload;
    const uint64_t magic = hash_partition_magic(config->partitions);
    struct target targets[BURST];
    for (uint32_t first = 0; first < chunk->header.records; first += BURST) {
        uint32_t count =
            chunk->header.records - first < BURST ? chunk->header.records - first : BURST;
        for (uint32_t i = 0; i < count; i++) {
            uint64_t hash = hash_id(records[first + i].id, config->hash_seed);
            unsigned p = hash_partition_by(hash, config->partitions, magic);
            unsigned written = restore->partitions_written == config->partitions
                                   ? p
                                   : hash_partition(hash, restore->partitions_written);
            if (unlikely(!in_range(chunk, written)))
                return out_of_range(worker, chunk);
            targets[i] = (struct target){hash, p, restore_owns(worker, p)};
            if (targets[i].own)
                index_prefetch(&restore->engine->partitions[p].accounts.index, account_tag(hash));
        }
        for (uint32_t i = 0; i < count; i++) {
            if (targets[i].own && insert_account(worker, chunk, &records[first + i], &targets[i]))
                return worker->rc;
        }
    }
    return 0;
}

/* --- pending transfers --------------------------------------------------------------------------------------------------- */

static bool pending_is_sound(const struct checkpoint_pending *record, bool id_time) {
    static const uint8_t zeros[sizeof(record->reserved)];
    const struct transfer *transfer = &record->transfer;
    uint64_t expires_at =
        transfer->timeout ? transfer->timestamp + transfer->timeout * NS_PER_SECOND : 0;
    uint64_t own_ms = id_time_ms(transfer->id);
    if (record->state == PENDING_LIVE || !id_time
            ? record->release_ms != 0
            : record->release_ms < own_ms || record->release_ms >> 48)
        return false;
    return transfer->id != 0 && transfer->id != UINT128_MAX && transfer->ledger && transfer->code &&
           transfer->timestamp && transfer->timestamp <= TIMESTAMP_MAX &&
           transfer->debit_account_id != transfer->credit_account_id &&
           (transfer->flags & TRANSFER_PENDING) && !(transfer->flags & ~TRANSFER_FLAGS_KNOWN) &&
           record->expires_at == expires_at && record->state >= PENDING_LIVE &&
           record->state <= PENDING_EXPIRED && memcmp(record->reserved, zeros, sizeof(zeros)) == 0;
}

static int insert_pending(struct restore_worker *worker, const struct checkpoint_chunk *chunk,
                          const struct checkpoint_pending *record, const struct target *target) {
    struct engine *engine = worker->restore->engine;
    struct partition *partition = &engine->partitions[target->partition];
    if (unlikely(!pending_is_sound(record, engine->config.id_time)))
        return damaged(worker, chunk, "holds a pending transfer that is none");
    if (unlikely(pending_find(&partition->pendings, record->transfer.id, target->hash, 0) !=
                 INDEX_NONE))
        return damaged(worker, chunk, "holds a pending transfer twice");
    if (unlikely(pending_reserve(&partition->pendings, restore_memory(worker, target->partition),
                                 1) != 0))
        return full(worker);
    uint32_t slot = pending_insert(&partition->pendings, &record->transfer, target->hash);
    if (record->state != PENDING_LIVE) /* by a resolver whose id is of that time */
        pending_resolve(&partition->pendings, slot, (enum pending_state)record->state,
                        (uint128_t)record->release_ms << 80);
    pending_at(&partition->pendings, slot)->group = (uint32_t)chunk->header.seq;
    if (record->state == PENDING_LIVE)
        partition->digest += partition_pending_hash(&record->transfer, engine->config.digest_seed);
    worker->checkpoint->pendings++;
    return 0;
}

static int load_pendings(struct restore_worker *worker, const struct checkpoint_chunk *chunk) {
    const struct restore *restore = worker->restore;
    const struct engine_config *config = &restore->engine->config;
    const struct checkpoint_pending *records = (const void *)chunk->payload;
    struct target targets[BURST];
    for (uint32_t first = 0; first < chunk->header.records; first += BURST) {
        uint32_t count =
            chunk->header.records - first < BURST ? chunk->header.records - first : BURST;
        for (uint32_t i = 0; i < count; i++) {
            uint128_t id = records[first + i].transfer.id;
            unsigned p = transfer_partition(id, config->partitions);
            if (unlikely(!in_range(chunk, transfer_partition(id, restore->partitions_written))))
                return out_of_range(worker, chunk);
            targets[i] = (struct target){hash_transfer_id(id, config->digest_seed), p,
                                         restore_owns(worker, p)};
            if (targets[i].own)
                index_prefetch(&restore->engine->partitions[p].pendings.index,
                               pending_tag(targets[i].hash));
        }
        for (uint32_t i = 0; i < count; i++) {
            if (targets[i].own && insert_pending(worker, chunk, &records[first + i], &targets[i]))
                return worker->rc;
        }
    }
    return 0;
}

/* --- ids ----------------------------------------------------------------------------------------------------------------- */

static int insert_id(struct restore_worker *worker, const struct checkpoint_chunk *chunk,
                     const struct checkpoint_id *record, const struct target *target) {
    struct id_table *ids = &worker->restore->engine->partitions[target->partition].ids;
    uint128_t id = uint128_make(record->id[1], record->id[0]);
    uint64_t number = id_slice_number(ids, id);
    const struct id_slice *slice = ids->slices[number % ID_SLICES];
    if (unlikely(id == 0 || id == UINT128_MAX || record->timestamp > TIMESTAMP_MAX ||
                 (slice && slice->number != number)))
        return damaged(worker, chunk, "holds an id that cannot be remembered");
    if (unlikely(id_find(ids, id, target->hash)))
        return damaged(worker, chunk, "holds an id twice");
    if (unlikely(id_reserve(ids, restore_memory(worker, target->partition), id, 1) != 0))
        return full(worker);
    id_restore(ids, (const void *)record, target->hash);
    worker->checkpoint->ids++;
    return 0;
}

static int load_ids(struct restore_worker *worker, const struct checkpoint_chunk *chunk) {
    const struct restore *restore = worker->restore;
    const struct engine_config *config = &restore->engine->config;
    const struct checkpoint_id *records = (const void *)chunk->payload;
    struct target targets[BURST];
    for (uint32_t first = 0; first < chunk->header.records; first += BURST) {
        uint32_t count =
            chunk->header.records - first < BURST ? chunk->header.records - first : BURST;
        for (uint32_t i = 0; i < count; i++) {
            uint128_t id = uint128_make(records[first + i].id[1], records[first + i].id[0]);
            unsigned p = transfer_partition(id, config->partitions);
            if (unlikely(!in_range(chunk, transfer_partition(id, restore->partitions_written))))
                return out_of_range(worker, chunk);
            targets[i] = (struct target){hash_transfer_id(id, config->digest_seed), p,
                                         restore_owns(worker, p)};
            if (!targets[i].own)
                continue;
            struct id_hint hint;
            id_look(&restore->engine->partitions[p].ids, id, config->digest_seed, &hint);
            id_fetch(&hint);
        }
        for (uint32_t i = 0; i < count; i++) {
            if (targets[i].own && insert_id(worker, chunk, &records[first + i], &targets[i]))
                return worker->rc;
        }
    }
    return 0;
}

/* --- what an lcore says -------------------------------------------------------------------------------------------------- */

static inline uint64_t greater(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

static int load_lcore(struct restore_worker *worker, const struct checkpoint_chunk *chunk) {
    struct restore_checkpoint *seen = worker->checkpoint;
    const struct checkpoint_lcore *lcore = (const void *)chunk->payload;
    const struct checkpoint_partition *partitions = (const void *)(lcore + 1);
    if (chunk->header.lcore >= LCORES_MAX || seen->lcore_seen[chunk->header.lcore] ||
        lcore->partition_count > PARTITIONS_MAX ||
        chunk->header.record_bytes != sizeof(*lcore) + lcore->partition_count * sizeof(*partitions))
        return damaged(worker, chunk, "is not what an lcore ends with");
    seen->lcore_seen[chunk->header.lcore] = true;
    seen->lcores++;
    struct checkpoint_lcore *all = &seen->lcore;
    all->last_timestamp = greater(all->last_timestamp, lcore->last_timestamp);
    all->cell_time = greater(all->cell_time, lcore->cell_time);
    all->import_cursor_accounts =
        greater(all->import_cursor_accounts, lcore->import_cursor_accounts);
    all->import_cursor_transfers =
        greater(all->import_cursor_transfers, lcore->import_cursor_transfers);
    all->ids_from_ms = greater(all->ids_from_ms, lcore->ids_from_ms);
    all->accounts += lcore->accounts;
    all->pendings += lcore->pendings;
    all->ids += lcore->ids;
    for (uint32_t i = 0; i < lcore->partition_count; i++) {
        uint32_t p = partitions[i].partition;
        if (p >= worker->restore->partitions_written || seen->partition_seen[p])
            return damaged(worker, chunk,
                           "names a partition that there is not, or names one twice");
        seen->partition_seen[p] = true;
        seen->partitions[p] = partitions[i];
        all->partition_count++;
    }
    return 0;
}

void restore_checkpoint_begin(struct restore *restore, const struct checkpoint_manifest *manifest) {
    struct engine *engine = restore->engine;
    const unsigned partitions = engine->config.partitions, lcores = engine->config.lcores;
    for (unsigned i = 0; i < lcores; i++) {
        struct memory *memory = &engine->lcores[i].memory;
        /* What does not fit anyway is left to be found out as always. */
        if (manifest->accounts / lcores >
            (uint64_t)memory->units_free * MEMORY_UNIT_BYTES / sizeof(struct account))
            return;
        index_size(&engine->lcores[i].account_timestamps, memory,
                   (uint32_t)(manifest->accounts / lcores));
    }
    for (unsigned p = 0; p < partitions; p++)
        index_size(&engine->partitions[p].accounts.index, restore_memory(&restore->worker[0], p),
                   (uint32_t)(manifest->accounts / partitions));
}

/* --- chunks -------------------------------------------------------------------------------------------------------------- */

/** Whether a chunk may hold anything of this worker's. Only for kinds whose records belong to partitions. */
static bool chunk_concerns(const struct restore_worker *worker,
                           const struct checkpoint_chunk *chunk) {
    const struct restore *restore = worker->restore;
    if (restore->partitions_written != restore->engine->config.partitions)
        return true;
    for (unsigned p = chunk->header.partition_first; p <= chunk->header.partition_last; p++) {
        if (restore_owns(worker, p))
            return true;
    }
    return false;
}

static int checkpoint_see(struct restore_worker *worker, const struct checkpoint_chunk *chunk) {
    if (!worker->checkpoint) {
        worker->checkpoint = calloc(1, sizeof(*worker->checkpoint));
        if (!worker->checkpoint)
            return full(worker);
        worker->checkpoint->seq = chunk->header.seq;
    }
    if (chunk->header.seq != worker->checkpoint->seq)
        return damaged(worker, chunk, "belongs to another checkpoint than those before it");
    return 0;
}

int restore_chunk(struct restore *restore, unsigned index, const struct checkpoint_chunk *chunk) {
    static const struct {
        size_t record_bytes;
        int (*load)(struct restore_worker *worker, const struct checkpoint_chunk *chunk);
    } kinds[] = {
        [CHECKPOINT_ACCOUNTS] = {sizeof(struct account), load_accounts},
        [CHECKPOINT_PENDINGS] = {sizeof(struct checkpoint_pending), load_pendings},
        [CHECKPOINT_IDS] = {sizeof(struct checkpoint_id), load_ids},
    };
    struct restore_worker *worker = restore_worker(restore, index);
    const struct checkpoint_chunk_header *header = &chunk->header;
    if (worker->rc || checkpoint_see(worker, chunk) != 0)
        return worker->rc;
    switch (header->kind) {
    case CHECKPOINT_ACCOUNTS:
    case CHECKPOINT_PENDINGS:
    case CHECKPOINT_IDS:
        if (header->record_bytes != kinds[header->kind].record_bytes ||
            header->records > CHECKPOINT_PAYLOAD_BYTES / header->record_bytes ||
            header->partition_first > header->partition_last ||
            header->partition_last >= restore->partitions_written)
            return damaged(worker, chunk, "has a head that cannot be");
        return chunk_concerns(worker, chunk) ? kinds[header->kind].load(worker, chunk) : 0;
    case CHECKPOINT_LCORE:
        if (header->records != 1)
            return damaged(worker, chunk, "has a head that cannot be");
        return load_lcore(worker, chunk);
    case CHECKPOINT_LOG_FILES:
    case CHECKPOINT_LOG_INDEX:
        return 0;
    default:
        return damaged(worker, chunk, "is of a kind that there is not");
    }
}

/* --- the end ------------------------------------------------------------------------------------------------------------- */

static int disagrees(struct restore *restore, const char *what) {
    return restore_fail(&restore->worker[0], -EBADMSG, "checkpoint %llu: %s",
                        (unsigned long long)restore->worker[0].checkpoint->seq, what);
}

/** Every lcore has had its say about every partition, once. */
static int check_lcores(struct restore *restore, const struct checkpoint_manifest *manifest) {
    const struct restore_checkpoint *seen = restore->worker[0].checkpoint;
    if (seen->seq != manifest->seq || seen->lcores != manifest->lcores)
        return disagrees(restore, "an lcore's part is missing");
    for (unsigned i = 0; i < seen->lcores; i++) {
        if (!seen->lcore_seen[i])
            return disagrees(restore, "an lcore's part is missing");
    }
    if (manifest->partitions != restore->partitions_written ||
        seen->lcore.partition_count != restore->partitions_written)
        return disagrees(restore, "a partition is missing");
    return 0;
}

static int check_counts(struct restore *restore, const struct checkpoint_manifest *manifest) {
    const struct checkpoint_lcore *said = &restore->worker[0].checkpoint->lcore;
    uint64_t accounts = 0, pendings = 0, ids = 0;
    for (unsigned i = 0; i < restore->workers; i++) {
        accounts += restore->worker[i].checkpoint->accounts;
        pendings += restore->worker[i].checkpoint->pendings;
        ids += restore->worker[i].checkpoint->ids;
    }
    if (accounts != said->accounts || pendings != said->pendings || ids != said->ids ||
        accounts != manifest->accounts || pendings != manifest->pendings || ids != manifest->ids)
        return disagrees(restore, "it holds more or fewer records than it says");
    return 0;
}

/** Under the same partitions each is compared; in any case their sum, for digests are linear. */
static int check_digests(struct restore *restore, const struct checkpoint_manifest *manifest) {
    const struct engine *engine = restore->engine;
    const struct restore_checkpoint *seen = restore->worker[0].checkpoint;
    uint128_t said = 0, digest = 0;
    uint64_t said_accounts = 0, said_pendings = 0, accounts = 0, pendings = 0;
    for (unsigned p = 0; p < restore->partitions_written; p++) {
        said += seen->partitions[p].digest;
        said_accounts += seen->partitions[p].accounts;
        said_pendings += seen->partitions[p].pendings_live;
    }
    for (unsigned p = 0; p < engine->config.partitions; p++) {
        struct partition *partition = &engine->partitions[p];
        const struct checkpoint_partition *expected = &seen->partitions[p];
        if (restore->partitions_written == engine->config.partitions &&
            (partition->digest != expected->digest ||
             partition->accounts.slab.count != expected->accounts ||
             partition->pendings.live_count != expected->pendings_live ||
             id_count(&partition->ids) != expected->ids))
            return restore_fail(&restore->worker[0], -EBADMSG,
                                "checkpoint %llu: partition %u is not what its digest says",
                                (unsigned long long)seen->seq, p);
        digest += partition->digest;
        accounts += partition->accounts.slab.count;
        pendings += partition->pendings.live_count;
        partition->digest_dirty = false;
    }
    if (digest != said || accounts != said_accounts || pendings != said_pendings ||
        memcmp(manifest->state_digest, &said, sizeof(said)) != 0)
        return disagrees(restore, "the state is not what its digest says");
    return 0;
}

/** What a pending transfer names must be there, for its end will look for it. */
static int check_pendings(struct restore *restore) {
    struct engine *engine = restore->engine;
    struct engine_lcore *lcore = &engine->lcores[0];
    for (unsigned p = 0; p < engine->config.partitions; p++) {
        const struct pending_table *pendings = &engine->partitions[p].pendings;
        for (uint32_t slot = 0; slot < pendings->slab.count; slot++) {
            const struct transfer *transfer = &pending_at(pendings, slot)->transfer;
            const uint128_t sides[2] = {transfer->debit_account_id, transfer->credit_account_id};
            for (unsigned side = 0; side < 2; side++) {
                const struct account *account = lcore_account_find(
                    lcore, sides[side], hash_id(sides[side], engine->config.hash_seed));
                if (!account || account->ledger != transfer->ledger)
                    return disagrees(restore, "a pending transfer is of an account that it "
                                              "does not hold");
            }
        }
    }
    return 0;
}

/** Ids came from several partitions into one, far from any order: each slice is put in that of its timestamps. */
static int sort_ids(struct restore *restore) {
    for (unsigned p = 0; p < restore->engine->config.partitions; p++) {
        if (id_sort(&restore->engine->partitions[p].ids, restore_memory(&restore->worker[0], p),
                    restore->engine->config.digest_seed) != 0)
            return full(&restore->worker[0]);
    }
    return 0;
}

static void clocks_set(struct restore *restore, const struct checkpoint_manifest *manifest) {
    struct engine *engine = restore->engine;
    const struct checkpoint_lcore *said = &restore->worker[0].checkpoint->lcore;
    uint64_t horizon_ms =
        greater(manifest->horizon_ms, greater(manifest->ids_from_ms, said->ids_from_ms));
    uint64_t cell_time = greater(manifest->cell_time, said->cell_time);
    for (unsigned i = 0; i < restore->workers; i++) {
        struct restore_worker *worker = &restore->worker[i];
        worker->cell_time = cell_time;
        worker->horizon_ms = worker->forgotten_ms = horizon_ms;
        worker->import_cursor_accounts =
            greater(worker->import_cursor_accounts, said->import_cursor_accounts);
        restore_transfer_note(worker, said->import_cursor_transfers);
    }
    for (unsigned i = 0; i < engine->config.lcores; i++) {
        struct engine_lcore *lcore = &engine->lcores[i];
        lcore->cell_time = cell_time;
        lcore->last_timestamp = greater(said->last_timestamp, lcore->last_timestamp);
        if (!lcore->id_time)
            continue;
        lcore->horizon_ms = lcore->forgotten_ms = horizon_ms;
        for (unsigned p = i; p < engine->config.partitions; p += engine->config.lcores) {
            id_forget(&engine->partitions[p].ids, &lcore->memory, horizon_ms, ID_SLICES);
            pending_forget(&engine->partitions[p].pendings, horizon_ms, engine->config.digest_seed,
                           UINT32_MAX);
        }
    }
}

int restore_checkpoint_end(struct restore *restore, const struct checkpoint_manifest *manifest) {
    for (unsigned i = 0; i < restore->workers; i++) {
        if (restore->worker[i].rc)
            return restore->worker[i].rc;
        if (!restore->worker[i].checkpoint)
            return restore_fail(&restore->worker[i], -EBADMSG, "checkpoint %llu is empty",
                                (unsigned long long)manifest->seq);
    }
    int rc = check_lcores(restore, manifest);
    if (!rc)
        rc = check_counts(restore, manifest);
    if (!rc)
        rc = check_digests(restore, manifest);
    if (!rc)
        rc = check_pendings(restore);
    if (!rc && restore->partitions_written != restore->engine->config.partitions)
        rc = sort_ids(restore);
    if (!rc)
        clocks_set(restore, manifest);
    return rc;
}

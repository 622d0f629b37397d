/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/traveller.h"

#define BUFFER_ALIGN 4096

/* --- requests: in, held, out ------------------------------------------------------------------------------------------ */

void engine_submit(struct engine_lcore *lcore, struct engine_request *request) {
    assert(request->event_count >= 1 && request->event_count <= REQUEST_EVENTS_MAX);
    request->code = REQUEST_CODE_ok;
    request->wait_group = 0;
    request->next_event = 0;
    request->unresolved = 0;
    request->away = 0;
    request->away_filter = 0;
    request->blocked = false;
    request->imported = request_is_imported(request);

    queue_push(&lcore->queue, request);
    lcore->outstanding++;
}

void request_hold(struct engine_lcore *lcore, struct engine_request *request) {
    assert(request->wait_group <= lcore->open_group);
    if (request->wait_group <= lcore->commit_seq) {
        /* Nothing to wait for; the reply shows the state of this group. */
        request->wait_group = lcore->commit_seq;
        queue_push(&lcore->done, request);
        return;
    }
    queue_push(&lcore->held[request->wait_group % HOLDS], request);
}

void request_fetch(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                   const struct id_record *remembered) {
    assert(lcore->fetch_free);
    uint32_t number = lcore->fetch_free - 1;
    struct fetch_slot *slot = &lcore->fetches[number];
    lcore->fetch_free = slot->free_next;
    lcore->fetch_free_count--;
    slot->request = request;
    slot->event = event;
    slot->digest = remembered->digest;
    slot->timestamp = remembered->timestamp;
    request->unresolved++;
    int error = wal_lane_fetch(lcore->lane, remembered->place, number);
    assert(!error);
    (void)error;
}

unsigned engine_completed(struct engine_lcore *lcore, struct engine_request **requests,
                          unsigned count_max) {
    /* Acquire pairs with the WAL's release of commit_seq: what is acknowledged from here on is durable. */
    seq_t commit_seq = atomic_load_explicit(&lcore->board->commit_seq, memory_order_acquire);
    if (unlikely(lcore->travel) && lcore->commit_seq < commit_seq)
        clock_pass(lcore, atomic_load_explicit(&lcore->board->commit_time, memory_order_relaxed));
    while (lcore->commit_seq < commit_seq) {
        lcore->commit_seq++;
        struct request_queue *held = &lcore->held[lcore->commit_seq % HOLDS];
        if (!held->head)
            continue;
        if (lcore->done.head)
            lcore->done.tail->next = held->head;
        else
            lcore->done.head = held->head;
        lcore->done.tail = held->tail;
        held->head = NULL;
    }
    unsigned count = 0;
    while (count < count_max && (requests[count] = queue_pop(&lcore->done)))
        count++;
    lcore->outstanding -= count;
    return count;
}

bool engine_idle(const struct engine_lcore *lcore) {
    return lcore->outstanding == 0 && (!lcore->travel || lcore->travel->away == 0);
}

void engine_drain(struct engine_lcore *lcore) {
    lcore->closing = true;
}

bool engine_backlog(const struct engine_lcore *lcore) {
    return lcore->queue.head || lcore->stalled.head ||
           (lcore->travel && lcore->travel->waiting.head);
}

/* --- time ---------------------------------------------------------------------------------------------------------------- */

void engine_clock(struct engine_lcore *lcore, uint64_t now_ns) {
    if (now_ns > lcore->cell_time) {
        lcore->cell_time = now_ns;
        atomic_store_explicit(&lcore->lane->cell_time, now_ns, memory_order_relaxed);
    }
}

uint64_t engine_cell_time(const struct engine_lcore *lcore) {
    return lcore->cell_time;
}

/* --- open and close ------------------------------------------------------------------------------------------------------ */

static void lcore_close(struct engine_lcore *lcore) {
    memory_close(&lcore->memory);
    chain_close(lcore->chain);
    travel_close(lcore);
    checkpoint_close(lcore->checkpoint);
    for (unsigned i = 0; i < WAL_BUFFERS; i++)
        free(lcore->buffers[i]);
}

static int lcore_open(struct engine *engine, struct engine_lcore *lcore, unsigned index) {
    const struct engine_config *config = &engine->config;
    lcore->engine = engine;
    lcore->index = index;
    while ((1u << lcore->timestamp_bits) < config->lcores)
        lcore->timestamp_bits++;
    lcore->partition_count = config->partitions;
    lcore->partitions = engine->partitions;
    lcore->board = config->board;
    lcore->lane = &config->lanes[index];
    lcore->hash_seed = config->hash_seed;
    lcore->digest_seed = config->digest_seed;
    transfer_digest_keys(config->digest_seed, &lcore->digest_keys);
    lcore->partition_magic = hash_partition_magic(config->partitions);
    lcore->id_time = config->id_time;
    lcore->due_ns = UINT64_MAX;
    lcore->forget_next = index;
    lcore->buffer_bytes = (uint32_t)config->log_buffer_bytes;
    for (uint32_t i = 0; i < WAL_FETCHES_MAX; i++)
        lcore->fetches[i].free_next = i + 1 < WAL_FETCHES_MAX ? i + 2 : 0;
    lcore->fetch_free = 1;
    lcore->fetch_free_count = WAL_FETCHES_MAX;
    int error = chain_open(&lcore->chain);
    if (!error && config->lcores > 1)
        error = travel_open(lcore);
    if (!error && config->checkpoint_chunks)
        error = checkpoint_open(lcore, config->checkpoint_chunks);
    if (!error)
        error =
            memory_open(&lcore->memory, config->memory_bytes / config->lcores, config->prefault);
    for (unsigned i = 0; i < WAL_BUFFERS && !error; i++) {
        lcore->buffers[i] = aligned_alloc(BUFFER_ALIGN, config->log_buffer_bytes + BUFFER_ALIGN);
        if (!lcore->buffers[i])
            error = -ENOMEM;
        else if (config->prefault)
            memset(lcore->buffers[i], 0, config->log_buffer_bytes + BUFFER_ALIGN);
    }
    return error;
}

static int config_check(const struct engine_config *config, char *error, size_t error_bytes) {
    const size_t chain_bytes =
        (size_t)REQUEST_EVENTS_MAX * TRANSFER_RECORD_BYTES_MAX + SEGMENT_RESERVE_BYTES;
    if (config->partitions < 1 || config->partitions > PARTITIONS_MAX || config->lcores < 1 ||
        config->lcores > LCORES_MAX || config->lcores > config->partitions) {
        snprintf(error, error_bytes,
                 "%u partitions on %u engine lcores: partitions go from 1 to %u, lcores from 1 to "
                 "%u, and there "
                 "must be no fewer partitions than lcores",
                 config->partitions, config->lcores, PARTITIONS_MAX, LCORES_MAX);
        return -EINVAL;
    }
    if (config->log_buffer_bytes > WAL_SEGMENT_BYTES_MAX ||
        config->log_buffer_bytes < chain_bytes) {
        snprintf(error, error_bytes,
                 "log buffers of %zu bytes: they must hold the longest chain (%zu) and at most %zu "
                 "bytes",
                 config->log_buffer_bytes, chain_bytes, WAL_SEGMENT_BYTES_MAX);
        return -EINVAL;
    }
    if (config->checkpoint_chunks && (config->checkpoint_chunks < CHECKPOINT_CHUNKS_MIN ||
                                      config->checkpoint_chunks > WAL_CHUNKS_MAX)) {
        snprintf(error, error_bytes, "%u chunks for checkpoints: %u to %u, or none",
                 config->checkpoint_chunks, CHECKPOINT_CHUNKS_MIN, WAL_CHUNKS_MAX);
        return -EINVAL;
    }
    /* An id that may be used now never shares its place with one that must still be remembered. */
    if (config->id_time && config->horizon_back_ms + config->horizon_slack_ms + ID_AHEAD_MAX_MS >
                               (uint64_t)(ID_SLICES - 2) * ID_SLICE_MS) {
        snprintf(error, error_bytes, "ids remembered for %llu ms: at most %llu",
                 (unsigned long long)(config->horizon_back_ms + config->horizon_slack_ms),
                 (unsigned long long)(ID_SLICES - 2) * ID_SLICE_MS - ID_AHEAD_MAX_MS);
        return -EINVAL;
    }
    return 0;
}

/** Every event visits two of them: they stand in huge pages where the system has any to give. */
static struct partition *partitions_make(unsigned count) {
    const size_t huge_page_bytes = (size_t)2 << 20;
    size_t bytes = count * sizeof(struct partition);
    bytes = (bytes + huge_page_bytes - 1) & ~(huge_page_bytes - 1);
    struct partition *partitions = aligned_alloc(huge_page_bytes, bytes);
    if (partitions) {
        madvise(partitions, bytes, MADV_HUGEPAGE);
        memset(partitions, 0, bytes);
    }
    return partitions;
}

int engine_open(const struct engine_config *config, struct engine **engine, char *error,
                size_t error_bytes) {
    int problem = config_check(config, error, error_bytes);
    if (problem)
        return problem;
    struct engine *made = calloc(1, sizeof(*made));
    if (!made)
        goto full;
    made->config = *config;
    made->partitions = partitions_make(config->partitions);
    made->lcores =
        aligned_alloc(CACHE_LINE_BYTES, (sizeof(struct engine_lcore) + CACHE_LINE_BYTES - 1) /
                                            CACHE_LINE_BYTES * CACHE_LINE_BYTES * config->lcores);
    if (made->lcores) /* closed as they are, whatever else is missing */
        memset(made->lcores, 0, sizeof(struct engine_lcore) * config->lcores);
    if (!made->partitions || !made->lcores)
        goto full;
    for (unsigned p = 0; p < config->partitions; p++) {
        made->partitions[p].ids.id_time = config->id_time;
        made->partitions[p].pendings.id_time = config->id_time;
        made->partitions[p].owner = (uint8_t)(p % config->lcores);
    }
    if (config->lcores > 1 &&
        exchange_open(&made->exchange, config->lcores, travel_ring_capacity(config)))
        goto full;
    for (unsigned i = 0; i < config->lcores; i++) {
        if (lcore_open(made, &made->lcores[i], i))
            goto full;
    }
    *engine = made;
    return 0;
full:
    snprintf(error, error_bytes,
             "not enough memory for the ledger: %zu MiB were asked for; give less with "
             "--memory-mb, or free some",
             config->memory_bytes >> 20);
    engine_close(made);
    return -ENOMEM;
}

void engine_close(struct engine *engine) {
    if (!engine)
        return;
    for (unsigned i = 0; engine->lcores && i < engine->config.lcores; i++)
        lcore_close(&engine->lcores[i]);
    exchange_close(&engine->exchange);
    free(engine->lcores);
    free(engine->partitions);
    free(engine);
}

struct engine_lcore *engine_lcore(struct engine *engine, unsigned index) {
    assert(index < engine->config.lcores);
    return &engine->lcores[index];
}

unsigned account_partition(uint128_t account_id, uint64_t hash_seed, unsigned partitions) {
    return hash_partition(hash_id(account_id, hash_seed), partitions);
}

/* --- looking in ---------------------------------------------------------------------------------------------------------- */

static struct engine_lcore *lcore_of(const struct engine *engine, unsigned partition) {
    return &engine->lcores[partition % engine->config.lcores];
}

void engine_totals(const struct engine *engine, struct engine_totals *totals) {
    *totals = (struct engine_totals){0};
    for (unsigned p = 0; p < engine->config.partitions; p++) {
        totals->accounts += engine->partitions[p].accounts.slab.count;
        totals->transfer_ids += id_count(&engine->partitions[p].ids);
        totals->pendings += engine->partitions[p].pendings.live_count;
    }
    for (unsigned i = 0; i < engine->config.lcores; i++) {
        const struct memory *memory = &engine->lcores[i].memory;
        totals->memory_bytes += (size_t)memory->unit_count * MEMORY_UNIT_BYTES;
        totals->memory_used_bytes +=
            (size_t)(memory->unit_count - memory->units_free) * MEMORY_UNIT_BYTES;
    }
}

const struct account *engine_account_find(const struct engine *engine, uint128_t id) {
    uint64_t hash = hash_id(id, engine->config.hash_seed);
    return lcore_account_find(lcore_of(engine, hash_partition(hash, engine->config.partitions)), id,
                              hash);
}

uint128_t engine_partition_digest(const struct engine *engine, unsigned partition) {
    return engine->partitions[partition].digest;
}

uint128_t engine_partition_digest_recompute(const struct engine *engine, unsigned partition) {
    return partition_digest_recompute(&engine->partitions[partition], engine->config.hash_seed,
                                      engine->config.digest_seed);
}

int engine_put_balances(struct engine *engine, uint128_t id, const struct balances *balances) {
    uint64_t hash = hash_id(id, engine->config.hash_seed);
    unsigned p = hash_partition(hash, engine->config.partitions);
    struct engine_lcore *lcore = lcore_of(engine, p);
    struct account *account = lcore_account_find(lcore, id, hash);
    if (!account)
        return -ENOENT;
    struct account_delta delta = {
        balances->debits_pending - account->debits_pending,
        balances->debits_posted - account->debits_posted,
        balances->credits_pending - account->credits_pending,
        balances->credits_posted - account->credits_posted,
        0,
    };
    account_apply(account, &delta);
    partition_digest_delta(&engine->partitions[p], hash, &delta);
    return 0;
}

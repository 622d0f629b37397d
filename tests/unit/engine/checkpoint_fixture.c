/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine/checkpoint_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wal/wal_lane.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                 \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* --- an engine and a WAL by hand ------------------------------------------------------------------------------------------ */

void node_open(struct node *node, const struct node_config *config) {
    memset(node, 0, sizeof(*node));
    node->config = *config;
    node->now_ns = NODE_START_NS;
    node->board = aligned_alloc(CACHE_LINE_BYTES, sizeof(*node->board));
    node->lane = aligned_alloc(CACHE_LINE_BYTES, sizeof(*node->lane));
    MUST(node->board && node->lane);
    memset(node->board, 0, sizeof(*node->board));
    memset(node->lane, 0, sizeof(*node->lane));
    struct engine_config engine_config = {
        .partitions = config->partitions,
        .lcores = 1,
        .hash_seed = 1,
        .digest_seed = 0x123456789abcdef1u,
        .id_time = config->id_time,
        .memory_bytes = config->memory_bytes,
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .digest_interval_ns = 100 * NS_PER_MS,
        .horizon_back_ms = config->horizon_back_ms,
        .horizon_slack_ms = 1000,
        .checkpoint_chunks = config->checkpoint_chunks,
        .board = node->board,
        .lanes = node->lane,
    };
    char error[256];
    MUST(engine_open(&engine_config, &node->engine, error, sizeof(error)) == 0);
    node->lcore = engine_lcore(node->engine, 0);
}

static uint64_t horizon_of(const struct node *node) {
    uint64_t ms = node->now_ns / NS_PER_MS;
    return node->config.id_time ? ms - node->config.horizon_back_ms : 0;
}

void node_begin(struct node *node, seq_t last_seq, uint64_t cell_time, uint64_t horizon_ms) {
    for (unsigned i = 0; i < WAL_HORIZONS; i++)
        atomic_store(&node->board->horizon_ms[i], horizon_ms);
    atomic_store(&node->board->commit_seq, last_seq);
    atomic_store(&node->board->open_group, last_seq + 1);
    MUST(engine_replay_finish(node->engine, last_seq, 1, cell_time, horizon_ms) == 0);
    engine_clock(node->lcore, node->now_ns);
}

void node_close(struct node *node) {
    engine_close(node->engine);
    for (unsigned i = 0; i < node->group_count; i++)
        free(node->groups[i].bytes);
    free(node->groups);
    free(node->chunks);
    free(node->board);
    free(node->lane);
}

static void group_keep(struct node *node, const struct wal_handover *part) {
    if (!(node->group_count & (node->group_count + 1)) || !node->groups) {
        node->groups = realloc(node->groups, (2 * node->group_count + 2) * sizeof(*node->groups));
        MUST(node->groups);
    }
    struct node_group *group = &node->groups[node->group_count++];
    *group = (struct node_group){
        .seq = part->seq,
        .length = part->length,
        .records = part->record_count,
        .horizon_ms = atomic_load(&node->board->horizon_ms[part->seq % WAL_HORIZONS]),
        .cell_time = part->cell_time,
    };
    group->bytes = aligned_alloc(16, (part->length + 16u) & ~15u);
    MUST(group->bytes);
    memcpy(group->bytes, part->bytes, part->length);
}

void node_finish(struct node *node) {
    struct engine_request *done[16];
    unsigned count;
    while ((count = engine_completed(node->lcore, done, 16)))
        node->unfinished -= count;
}

/** Nothing can be read from this log. */
static void fetches_answer(struct node *node) {
    wal_place_t place;
    uint64_t cookie;
    while (wal_lane_fetch_peek(node->lane, &place, &cookie)) {
        wal_lane_fetch_taken(node->lane);
        struct wal_fetch *slot = wal_lane_answer_slot(node->lane);
        *slot = (struct wal_fetch){.place = place, .cookie = cookie, .status = -EIO};
        wal_lane_answer_put(node->lane);
    }
}

void node_seal(struct node *node, bool checkpoint) {
    seq_t seq = atomic_load(&node->board->open_group);
    uint64_t horizon_ms = horizon_of(node);
    if (horizon_ms < atomic_load(&node->board->horizon_ms[seq % WAL_HORIZONS]))
        horizon_ms = atomic_load(&node->board->horizon_ms[seq % WAL_HORIZONS]);
    atomic_store(&node->board->horizon_ms[(seq + 1) % WAL_HORIZONS], horizon_ms);
    if (checkpoint)
        atomic_store(&node->board->checkpoint_seq, seq);
    atomic_store(&node->board->open_group, seq + 1);
    engine_seal(node->lcore);
    const struct wal_handover *part = wal_lane_handover_peek(node->lane);
    MUST(part && part->seq == seq);
    group_keep(node, part);
    wal_lane_handover_taken(node->lane);
    atomic_store(&node->board->commit_seq, seq);
    node_finish(node);
    engine_seal(node->lcore); /* claims a buffer */
}

bool node_run(struct node *node, struct engine_request *request) {
    engine_submit(node->lcore, request);
    node->unfinished++;
    for (unsigned tries = 0; tries < 100; tries++) {
        engine_clock(node->lcore, node->now_ns);
        engine_execute(node->lcore, 10000);
        engine_seal(node->lcore);
        fetches_answer(node);
        if (request->next_event == request->event_count && !request->unresolved)
            return true;
        node_seal(node, false);
        node_chunks(node, 4);
        engine_checkpoint(node->lcore);
    }
    return false;
}

void node_chunks(struct node *node, unsigned count) {
    struct wal_lane *lane = node->lane;
    uint32_t tail = atomic_load(&lane->chunk_tail), head = atomic_load(&lane->chunk_head);
    for (; tail != head; tail++) {
        struct checkpoint_chunk *chunk = lane->chunks[tail % WAL_CHUNKS_MAX];
        if (node->chunk_count == node->chunk_capacity) {
            node->chunk_capacity = node->chunk_capacity ? node->chunk_capacity * 2 : 8;
            node->chunks = realloc(node->chunks, node->chunk_capacity * sizeof(*node->chunks));
            MUST(node->chunks);
        }
        chunk->header.number = node->chunk_count;
        node->chunks[node->chunk_count++] = *chunk;
        node->held[node->held_count++] = chunk;
        MUST(!node->complete); /* nothing comes behind the last */
        node->complete = chunk->header.kind == CHECKPOINT_LCORE;
    }
    atomic_store(&lane->chunk_tail, tail);
    while (count-- && node->held_count) {
        struct checkpoint_chunk *chunk = node->held[--node->held_count];
        memset(chunk, 0x5a, sizeof(*chunk));
        uint32_t spent = atomic_load(&lane->spent_head);
        lane->spent[spent % WAL_CHUNKS_MAX] = chunk;
        atomic_store(&lane->spent_head, spent + 1);
    }
}

void node_chunks_forget(struct node *node) {
    node_chunks(node, WAL_CHUNKS_MAX);
    node->chunk_count = 0;
    node->complete = false;
}

/* --- restoring ------------------------------------------------------------------------------------------------------------ */

void node_manifest(const struct node *node, const struct node_group *group, uint128_t state_digest,
                   struct checkpoint_manifest *manifest) {
    const struct checkpoint_lcore *lcore =
        (const void *)node->chunks[node->chunk_count - 1].payload;
    *manifest = (struct checkpoint_manifest){
        .seq = group->seq,
        .cell_time = group->cell_time,
        .horizon_ms = group->horizon_ms,
        .ids_from_ms = lcore->ids_from_ms,
        .chunk_count = node->chunk_count,
        .accounts = lcore->accounts,
        .pendings = lcore->pendings,
        .ids = lcore->ids,
        .partitions = node->config.partitions,
        .lcores = 1,
    };
    memcpy(manifest->state_digest, &state_digest, sizeof(state_digest));
}

static int restore_groups(struct restore *restore, const struct node *from, unsigned workers,
                          seq_t behind, seq_t until) {
    static struct wal_header header;
    for (unsigned i = 0; i < from->group_count; i++) {
        const struct node_group *group = &from->groups[i];
        if (group->seq <= behind || group->seq > until)
            continue;
        memset(&header, 0, sizeof(header));
        header.chained.seq = group->seq;
        header.chained.segment_count = 1;
        header.chained.horizon_ms = group->horizon_ms;
        header.chained.cell_time = group->cell_time;
        header.chained.segments[0] =
            (struct wal_segment_entry){.length = group->length, .records = group->records};
        struct wal_group_view view = {.header = &header, .body = group->bytes};
        for (unsigned worker = 0; worker < workers; worker++) {
            int rc = restore_group(restore, worker, &view);
            if (rc)
                return rc;
        }
    }
    return 0;
}

int node_restore(struct node *to, const struct node *from,
                 const struct checkpoint_manifest *manifest, unsigned workers, seq_t until,
                 char *error, size_t error_bytes) {
    struct restore *restore;
    MUST(restore_open(to->engine, workers, &restore) == 0);
    restore_partitions_written(restore, from->config.partitions);
    if (manifest && workers > 1) /* it need not be told */
        restore_checkpoint_begin(restore, manifest);
    int rc = 0;
    for (unsigned i = 0; manifest && i < from->chunk_count && !rc; i++) {
        for (unsigned worker = 0; worker < workers && !rc; worker++)
            rc = restore_chunk(restore, worker, &from->chunks[i]);
    }
    if (!rc && manifest)
        rc = restore_checkpoint_end(restore, manifest);
    if (!rc)
        rc = restore_groups(restore, from, workers, manifest ? manifest->seq : 0, until);
    for (unsigned worker = 0; worker < workers && !rc; worker++)
        rc = restore_verify(restore, worker);
    if (!rc)
        rc = restore_end(restore);
    snprintf(error, error_bytes, "%s", restore_error(restore));
    restore_close(restore);
    return rc;
}

/* --- snapshots ------------------------------------------------------------------------------------------------------------ */

static int account_order(const void *left, const void *right) {
    const struct account *a = left, *b = right;
    return a->id < b->id ? -1 : a->id > b->id;
}

static int pending_order(const void *left, const void *right) {
    const struct checkpoint_pending *a = left, *b = right;
    return a->transfer.id < b->transfer.id ? -1 : a->transfer.id > b->transfer.id;
}

static void ids_take(const struct id_table *table, struct snapshot *snapshot) {
    uint64_t done = 0; /* slices below are done, in ascending order */
    for (;;) {
        const struct id_slice *next = NULL;
        for (unsigned i = 0; i < ID_SLICES; i++) {
            const struct id_slice *slice = table->slices[i];
            if (slice && slice->number >= done && (!next || slice->number < next->number))
                next = slice;
        }
        if (!next)
            return;
        for (uint32_t slot = 0; slot < next->slab.count; slot++)
            memcpy(&snapshot->ids[snapshot->id_count++], id_at(next, slot),
                   sizeof(struct checkpoint_id));
        done = next->number + 1;
    }
}

void snapshot_take(const struct node *node, struct snapshot *snapshot) {
    struct engine_totals totals;
    engine_totals(node->engine, &totals);
    size_t slots = 0;
    for (unsigned p = 0; p < node->config.partitions; p++)
        slots += node->engine->partitions[p].pendings.slab.count;
    memset(snapshot, 0, sizeof(*snapshot));
    snapshot->accounts = aligned_alloc(16, (totals.accounts + 1) * sizeof(struct account));
    snapshot->pendings = aligned_alloc(16, (slots + 1) * sizeof(struct checkpoint_pending));
    snapshot->ids = calloc(totals.transfer_ids + 1, sizeof(struct checkpoint_id));
    MUST(snapshot->accounts && snapshot->pendings && snapshot->ids);
    for (unsigned p = 0; p < node->config.partitions; p++) {
        const struct partition *partition = &node->engine->partitions[p];
        for (uint32_t slot = 0; slot < partition->accounts.slab.count; slot++)
            account_export(account_at(&partition->accounts, slot),
                           &snapshot->accounts[snapshot->account_count++]);
        for (uint32_t slot = 0; slot < partition->pendings.slab.count; slot++) {
            const struct pending *pending = pending_at(&partition->pendings, slot);
            if (pending->state)
                snapshot->pendings[snapshot->pending_count++] =
                    (struct checkpoint_pending){.transfer = pending->transfer,
                                                .expires_at = pending->expires_at,
                                                .release_ms = pending->release_ms,
                                                .state = pending->state};
        }
        ids_take(&partition->ids, snapshot);
        snapshot->digests[p] = partition->digest;
        snapshot->digest += partition->digest;
    }
    qsort(snapshot->accounts, snapshot->account_count, sizeof(struct account), account_order);
    qsort(snapshot->pendings, snapshot->pending_count, sizeof(struct checkpoint_pending),
          pending_order);
    snapshot->partitions = node->config.partitions;
    snapshot->import_cursor_accounts = node->lcore->import_cursor_accounts;
    snapshot->import_cursor_transfers = node->lcore->import_cursor_transfers;
    snapshot->horizon_ms = node->lcore->horizon_ms;
    snapshot->id_time = node->config.id_time;
}

void snapshot_release(struct snapshot *snapshot) {
    free(snapshot->accounts);
    free(snapshot->pendings);
    free(snapshot->ids);
}

static const struct checkpoint_pending *next_pending(const struct snapshot *snapshot, unsigned *at,
                                                     uint64_t horizon_ms) {
    while (*at < snapshot->pending_count) {
        const struct checkpoint_pending *pending = &snapshot->pendings[(*at)++];
        if (pending->state == PENDING_LIVE || !snapshot->id_time ||
            pending->release_ms >= horizon_ms)
            return pending;
    }
    return NULL;
}

static const struct checkpoint_id *next_id(const struct snapshot *snapshot, unsigned *at,
                                           uint64_t horizon_ms) {
    while (*at < snapshot->id_count) {
        const struct checkpoint_id *id = &snapshot->ids[(*at)++];
        if (!snapshot->id_time || id->id[1] >> 16 >= horizon_ms)
            return id;
    }
    return NULL;
}

static int id_order(const void *left, const void *right) {
    const struct checkpoint_id *a = left, *b = right;
    if (a->id[1] != b->id[1])
        return a->id[1] < b->id[1] ? -1 : 1;
    return a->id[0] < b->id[0] ? -1 : a->id[0] > b->id[0];
}

void snapshot_sort(struct snapshot *snapshot) {
    qsort(snapshot->ids, snapshot->id_count, sizeof(struct checkpoint_id), id_order);
}

const char *snapshot_differs(const struct snapshot *a, const struct snapshot *b, bool places) {
    uint64_t horizon_ms = a->horizon_ms > b->horizon_ms ? a->horizon_ms : b->horizon_ms;
    if (a->account_count != b->account_count ||
        memcmp(a->accounts, b->accounts, a->account_count * sizeof(struct account)) != 0)
        return "accounts";
    unsigned at_a = 0, at_b = 0;
    for (;;) {
        const struct checkpoint_pending *in_a = next_pending(a, &at_a, horizon_ms);
        const struct checkpoint_pending *in_b = next_pending(b, &at_b, horizon_ms);
        if (!in_a && !in_b)
            break;
        if (!in_a || !in_b || memcmp(in_a, in_b, sizeof(*in_a)) != 0)
            return "pending transfers";
    }
    for (at_a = at_b = 0;;) {
        const struct checkpoint_id *in_a = next_id(a, &at_a, horizon_ms);
        const struct checkpoint_id *in_b = next_id(b, &at_b, horizon_ms);
        if (!in_a && !in_b)
            break;
        if (!in_a || !in_b || memcmp(in_a->id, in_b->id, sizeof(in_a->id)) != 0)
            return "ids";
        if (in_a->timestamp != in_b->timestamp || in_a->digest != in_b->digest)
            return "timestamps or digests of ids";
        if (places ? in_a->place != in_b->place : (in_a->place ^ in_b->place) & WAL_PLACE_BURNT)
            return "places of ids";
    }
    if (a->digest != b->digest ||
        (a->partitions == b->partitions &&
         memcmp(a->digests, b->digests, a->partitions * sizeof(a->digests[0])) != 0))
        return "digests";
    if (a->import_cursor_accounts != b->import_cursor_accounts ||
        a->import_cursor_transfers != b->import_cursor_transfers)
        return "import cursors";
    return NULL;
}

/* --- histories ------------------------------------------------------------------------------------------------------------ */

static uint64_t below(struct history *history, uint64_t bound) {
    /* as test_random() in tests/lib/test.h, which is for test programs */
    return hash_mix64(history->random += 0x9e3779b97f4a7c15u) % bound;
}

static uint128_t id_make(struct history *history, uint64_t now_ns) {
    uint64_t ms = now_ns / NS_PER_MS;
    switch (below(history, 12)) {
    case 0:
        ms -= below(history, 25000);
        break;
    case 1:
        ms += below(history, 30000);
        break;
    case 2:
        ms -= below(history, 400) == 0 ? 1000000 : 5000;
        break;
    default:
        ms -= below(history, 500);
        break;
    }
    return (uint128_t)ms << 80 | (uint128_t)++history->sequence << 16 | below(history, 0x10000);
}

static void account_next(struct history *history, struct account *account, bool imported) {
    static const uint16_t flags[] = {0,
                                     0,
                                     0,
                                     ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS,
                                     ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS,
                                     ACCOUNT_HISTORY};
    uint64_t id = 1 + below(history, history->accounts + 1);
    if (below(history, 4) && history->accounts < history->accounts_max)
        id = ++history->accounts;
    *account = (struct account){.id = id,
                                .user_data_128 = id * 3,
                                .user_data_64 = id,
                                .user_data_32 = 7,
                                .ledger = id % 8 ? 1 : 2,
                                .code = 1,
                                .flags = flags[id % 6]};
    if (imported) {
        account->flags |= ACCOUNT_IMPORTED;
        history->import_timestamp += 1 + below(history, 3);
        account->timestamp = history->import_timestamp;
    }
}

static void transfer_plain_next(struct history *history, uint64_t now_ns,
                                struct transfer *transfer) {
    uint64_t accounts = history->accounts + 1; /* the last one does not exist */
    *transfer = (struct transfer){.id = id_make(history, now_ns),
                                  .debit_account_id = 1 + below(history, accounts),
                                  .credit_account_id = 1 + below(history, accounts),
                                  .amount = below(history, 100),
                                  .ledger = below(history, 9) ? 1 : 2,
                                  .code = 1};
}

static void transfer_next(struct history *history, uint64_t now_ns, struct transfer *transfer,
                          bool imported) {
    transfer_plain_next(history, now_ns, transfer);
    unsigned kind = (unsigned)below(history, 16);
    if (imported) {
        transfer->flags |= TRANSFER_IMPORTED;
        history->import_timestamp += 1 + below(history, 3);
        transfer->timestamp = history->import_timestamp;
    }
    if (kind < 4) {
        transfer->flags |= TRANSFER_PENDING;
        transfer->timeout = imported || below(history, 2) ? 0 : 1 + (uint32_t)below(history, 20);
        if (below(history, 60) == 0)
            transfer->flags |= TRANSFER_CLOSING_CREDIT;
        history->pendings[history->pending_count++ % HISTORY_IDS] = transfer->id;
    } else if (kind < 8 && history->pending_count) {
        unsigned count =
            history->pending_count < HISTORY_IDS ? history->pending_count : HISTORY_IDS;
        transfer->pending_id = history->pendings[below(history, count)];
        transfer->flags |= kind < 6 ? TRANSFER_POST_PENDING : TRANSFER_VOID_PENDING;
        transfer->debit_account_id = transfer->credit_account_id = 0;
        transfer->ledger = transfer->code = 0;
        transfer->amount = kind < 6 && below(history, 2) ? AMOUNT_MAX : 0;
    } else if (kind == 8) {
        transfer->flags |= TRANSFER_BALANCING_DEBIT;
    } else if (kind == 9) {
        transfer->user_data_128 = 5;
        transfer->user_data_64 = 6;
    } else if (kind == 10 && history->done_count && !imported) {
        unsigned count = history->done_count < HISTORY_IDS ? history->done_count : HISTORY_IDS;
        *transfer = history->done[below(history, count)]; /* a retry */
        return;
    }
    if (!imported)
        history->done[history->done_count++ % HISTORY_IDS] = *transfer;
}

void history_next(struct history *history, uint64_t now_ns, struct node_batch *batch) {
    struct engine_request *request = &batch->request;
    unsigned count = 1 + (unsigned)below(history, NODE_BATCH_EVENTS);
    bool imported = history->batches++ < 12 || below(history, 24) == 0;
    if (history->import_timestamp == 0)
        history->import_timestamp = NODE_START_NS / 2;
    memset(batch->results, 0, sizeof(batch->results));
    memset(batch->balances, 0, sizeof(batch->balances));
    *request = (struct engine_request){.event_count = count,
                                       .results = batch->results,
                                       .balances = batch->balances,
                                       .options = below(history, 3) ? 0 : REQUEST_BALANCES};
    unsigned kind = (unsigned)below(history, 10);
    if (kind == 0 || history->accounts < 10) {
        request->operation = OPERATION_CREATE_ACCOUNTS;
        request->events = batch->accounts;
        for (unsigned i = 0; i < count; i++)
            account_next(history, &batch->accounts[i], imported);
    } else if (kind < 4) {
        request->operation = OPERATION_CREATE_TRANSFERS;
        request->event_format = EVENT_FORMAT_COMPACT;
        request->events = batch->compact;
        for (unsigned i = 0; i < count; i++) {
            struct transfer plain;
            transfer_plain_next(history, now_ns, &plain);
            struct compact_transfer *compact = &batch->compact[i];
            *compact = (struct compact_transfer){
                .amount = (uint64_t)plain.amount, .ledger = plain.ledger, .code = plain.code};
            memcpy(compact->id, &plain.id, 16);
            memcpy(compact->debit_account_id, &plain.debit_account_id, 16);
            memcpy(compact->credit_account_id, &plain.credit_account_id, 16);
        }
    } else {
        request->operation = OPERATION_CREATE_TRANSFERS;
        request->events = batch->transfers;
        for (unsigned i = 0; i < count; i++)
            transfer_next(history, now_ns, &batch->transfers[i], imported);
    }
    /* A chain, here and there. */
    unsigned first = (unsigned)below(history, count), members = (unsigned)below(history, 5);
    for (unsigned i = first; kind >= 6 && i < first + members && i + 1 < count; i++) {
        if (request->operation == OPERATION_CREATE_ACCOUNTS)
            batch->accounts[i].flags |= ACCOUNT_LINKED;
        else if (!request->event_format)
            batch->transfers[i].flags |= TRANSFER_LINKED;
    }
}

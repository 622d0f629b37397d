/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/planted.h"
#include "engine/restore_internal.h"

#define LEDGERS_FIRST 64 /**< room for so many to begin with, a power of two */

const char *const restore_full = "what was restored does not fit into the memory";

int restore_fail(struct restore_worker *worker, int rc, const char *format, ...) {
    if (worker->rc)
        return worker->rc;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(worker->error, sizeof(worker->error), format, arguments);
    va_end(arguments);
    worker->failed = worker->group;
    worker->rc = rc;
    return rc;
}

/* --- opening and closing ----------------------------------------------------------------------------------------------- */

static int worker_open(struct restore *restore, unsigned index) {
    struct restore_worker *worker = &restore->worker[index];
    worker->restore = restore;
    worker->index = index;
    worker->timestamps = calloc(restore->engine->config.lcores, sizeof(*worker->timestamps));
    return worker->timestamps ? restore_plain_open(worker) : -ENOMEM;
}

int restore_open(struct engine *engine, unsigned workers, struct restore **out) {
    assert(workers >= 1 && workers <= LCORES_MAX);
    struct restore *restore = calloc(1, sizeof(*restore));
    if (!restore)
        return -ENOMEM;
    restore->engine = engine;
    restore->workers = workers;
    restore->partitions_written = engine->config.partitions;
    for (unsigned p = 0; p < engine->config.partitions; p++) {
        restore->owner[p] = (uint8_t)(p % workers);
        restore->lcore_of[p] = (uint8_t)(p % engine->config.lcores);
    }
    for (unsigned i = 0; i < engine->config.lcores; i++) {
        pthread_mutex_init(&restore->memory_locks[i], NULL);
        pthread_mutex_init(&restore->timestamp_locks[i], NULL);
        engine->lcores[i].memory.lock = workers > 1 ? &restore->memory_locks[i] : NULL;
    }
    restore->worker = aligned_alloc(CACHE_LINE_BYTES, workers * sizeof(*restore->worker));
    int rc = restore->worker ? 0 : -ENOMEM;
    if (!rc)
        memset(restore->worker, 0, workers * sizeof(*restore->worker));
    for (unsigned i = 0; i < workers && !rc; i++)
        rc = worker_open(restore, i);
    if (!rc)
        rc = restore_totals_open(restore);
    if (rc) {
        restore_close(restore);
        return rc;
    }
    *out = restore;
    return 0;
}

void restore_partitions_written(struct restore *restore, unsigned partitions) {
    restore->partitions_written = partitions;
}

const struct restore_worker *restore_failed(const struct restore *restore) {
    const struct restore_worker *first = NULL;
    for (unsigned i = 0; i < restore->workers; i++) {
        const struct restore_worker *worker = &restore->worker[i];
        if (worker->rc && (!first || worker->failed.seq < first->failed.seq ||
                           (worker->failed.seq == first->failed.seq &&
                            worker->failed.record < first->failed.record)))
            first = worker;
    }
    return first;
}

const char *restore_error(const struct restore *restore) {
    const struct restore_worker *failed = restore_failed(restore);
    return failed ? failed->error : "";
}

void restore_close(struct restore *restore) {
    if (!restore)
        return;
    for (unsigned i = 0; restore->worker && i < restore->workers; i++) {
        struct restore_worker *worker = &restore->worker[i];
        free(worker->ledgers.entries);
        free(worker->digests_told.records);
        free(worker->ends_told.records);
        free(worker->totals_told.records);
        free(worker->timestamps);
        free(worker->burst);
        free(worker->checkpoint);
    }
    for (unsigned i = 0; i < restore->engine->config.lcores; i++) {
        restore->engine->lcores[i].memory.lock = NULL;
        pthread_mutex_destroy(&restore->memory_locks[i]);
        pthread_mutex_destroy(&restore->timestamp_locks[i]);
    }
    restore_totals_close(restore);
    free(restore->worker);
    free(restore);
}

void engine_clear(struct engine *engine) {
    for (unsigned p = 0; p < engine->config.partitions; p++) {
        struct partition *partition = &engine->partitions[p];
        partition_release(partition, &engine->lcores[p % engine->config.lcores].memory);
        memset(partition, 0, sizeof(*partition));
        partition->ids.id_time = partition->pendings.id_time = engine->config.id_time;
    }
    for (unsigned i = 0; i < engine->config.lcores; i++) {
        struct engine_lcore *lcore = &engine->lcores[i];
        index_release(&lcore->account_timestamps, &lcore->memory);
        index_release(&lcore->ledgers.index, &lcore->memory);
        slab_release(&lcore->ledgers.slab, &lcore->memory);
        lcore->ledgers.last = NULL;
        lcore->cell_time = lcore->last_timestamp = 0;
        lcore->horizon_ms = lcore->forgotten_ms = 0;
        lcore->import_cursor_accounts = lcore->import_cursor_transfers = 0;
        lcore->due_ns = UINT64_MAX;
    }
}

/* --- ledgers ------------------------------------------------------------------------------------------------------------- */

/** Where a ledger stands, or where it would. */
static struct restore_ledger *ledger_slot(const struct restore_ledgers *ledgers, uint64_t key) {
    uint32_t at = (uint32_t)hash_mix64(key) & (ledgers->capacity - 1);
    while (ledgers->entries[at].key && ledgers->entries[at].key != key)
        at = (at + 1) & (ledgers->capacity - 1);
    return &ledgers->entries[at];
}

static int ledgers_grow(struct restore_ledgers *ledgers) {
    struct restore_ledgers grown = {.capacity =
                                        ledgers->capacity ? ledgers->capacity * 2 : LEDGERS_FIRST,
                                    .count = ledgers->count};
    grown.entries = calloc(grown.capacity, sizeof(*grown.entries));
    if (!grown.entries)
        return -ENOMEM;
    for (uint32_t i = 0; i < ledgers->capacity; i++) {
        if (ledgers->entries[i].key)
            *ledger_slot(&grown, ledgers->entries[i].key) = ledgers->entries[i];
    }
    free(ledgers->entries);
    *ledgers = grown;
    return 0;
}

static struct balances *ledgers_need(struct restore_ledgers *ledgers, uint64_t key) {
    if (ledgers->count >= ledgers->capacity / 2 && ledgers_grow(ledgers) != 0)
        return NULL;
    struct restore_ledger *ledger = ledger_slot(ledgers, key);
    if (!ledger->key) {
        ledger->key = key;
        ledgers->count++;
    }
    ledgers->last = ledger;
    return &ledger->sums;
}

static uint64_t ledger_key(unsigned lcore, uint32_t ledger) {
    return (uint64_t)lcore << 32 | ledger;
}

struct balances *restore_ledger_need(struct restore_worker *worker, unsigned partition,
                                     uint32_t ledger) {
    return ledgers_need(&worker->ledgers, ledger_key(worker->restore->lcore_of[partition], ledger));
}

const struct balances *restore_ledger_find(const struct restore_worker *worker, unsigned lcore,
                                           uint32_t ledger) {
    if (!worker->ledgers.capacity)
        return NULL;
    const struct restore_ledger *found = ledger_slot(&worker->ledgers, ledger_key(lcore, ledger));
    return found->key ? &found->sums : NULL;
}

static void balances_add(struct balances *sums, const struct balances *more) {
    sums->debits_pending += more->debits_pending;
    sums->debits_posted += more->debits_posted;
    sums->credits_pending += more->credits_pending;
    sums->credits_posted += more->credits_posted;
}

/* --- accounts ------------------------------------------------------------------------------------------------------------ */

static int timestamps_flush(struct restore_worker *worker, unsigned index) {
    struct restore_timestamps *timestamps = &worker->timestamps[index];
    pthread_mutex_t *lock = &worker->restore->timestamp_locks[index];
    pthread_mutex_lock(lock);
    int rc = account_timestamps_add(&worker->restore->engine->lcores[index], timestamps->timestamps,
                                    timestamps->count);
    pthread_mutex_unlock(lock);
    timestamps->count = 0;
    return rc;
}

int restore_account_note(struct restore_worker *worker, unsigned partition,
                         const struct account *account) {
    struct balances balances, *sums = restore_ledger(worker, partition, account->ledger);
    if (!sums)
        return -ENOMEM;
    account_balances(account, &balances);
    balances_add(sums, &balances);
    if (account->timestamp > worker->import_cursor_accounts)
        worker->import_cursor_accounts = account->timestamp;
    unsigned lcore = worker->restore->lcore_of[partition];
    struct restore_timestamps *timestamps = &worker->timestamps[lcore];
    timestamps->timestamps[timestamps->count++] = account->timestamp;
    return timestamps->count == RESTORE_TIMESTAMPS ? timestamps_flush(worker, lcore) : 0;
}

/* --- verification -------------------------------------------------------------------------------------------------------- */

/** The digest of a partition as its tables have it; its accounts' balances are added to their ledgers' sums. */
static int partition_sum(struct restore_worker *worker, unsigned p, struct restore_ledgers *ledgers,
                         uint128_t *digest) {
    const struct engine_config *config = &worker->restore->engine->config;
    const struct partition *partition = &worker->restore->engine->partitions[p];
    for (uint32_t slot = 0; slot < partition->accounts.slab.count; slot++) {
        const struct account *account = account_at(&partition->accounts, slot);
        struct balances balances;
        account_balances(account, &balances);
        uint64_t key = ledger_key(worker->restore->lcore_of[p], account->ledger);
        struct balances *sums = likely(ledgers->last && ledgers->last->key == key)
                                    ? &ledgers->last->sums
                                    : ledgers_need(ledgers, key);
        if (!sums)
            return restore_fail(worker, -ENOMEM, "%s", restore_full);
        balances_add(sums, &balances);
    }
    *digest = partition_digest_recompute(partition, config->hash_seed, config->digest_seed);
    return 0;
}

int restore_verify(struct restore *restore, unsigned index) {
    struct restore_worker *worker = restore_worker(restore, index);
    struct restore_ledgers ledgers = {0};
    worker->group = (struct restore_place){0};
    restore_plain_settle(worker);
    for (unsigned p = 0; p < restore->engine->config.partitions && !worker->rc; p++) {
        uint128_t digest = 0;
        if (restore_owns(worker, p) && partition_sum(worker, p, &ledgers, &digest) == 0 &&
            digest != restore->engine->partitions[p].digest)
            restore_fail(worker, -EBADMSG,
                         "the accounts of partition %u are not what they add up to", p);
    }
    for (uint32_t i = 0; i < worker->ledgers.capacity && !worker->rc; i++) {
        const struct restore_ledger *kept = &worker->ledgers.entries[i];
        if (!kept->key)
            continue;
        const struct balances *found = ledgers_need(&ledgers, kept->key);
        if (!found)
            restore_fail(worker, -ENOMEM, "%s", restore_full);
        else if (memcmp(found, &kept->sums, sizeof(*found)) != 0)
            restore_fail(worker, -EBADMSG,
                         "the accounts of ledger %u do not hold what was moved there",
                         (uint32_t)kept->key);
    }
    free(ledgers.entries);
    return worker->rc;
}

/* --- the end ------------------------------------------------------------------------------------------------------------- */

static int ledgers_merge(struct restore_worker *worker) {
    for (uint32_t i = 0; i < worker->ledgers.capacity; i++) {
        const struct restore_ledger *part = &worker->ledgers.entries[i];
        if (!part->key)
            continue;
        struct engine_lcore *lcore = &worker->restore->engine->lcores[part->key >> 32];
        if (ledger_reserve(&lcore->ledgers, &lcore->memory, 1) != 0)
            return restore_fail(worker, -ENOMEM, "%s", restore_full);
        struct ledger_total *total = ledger_need(&lcore->ledgers, (uint32_t)part->key);
        balances_add(&total->sums, &part->sums);
        total->dirty = true;
    }
    return 0;
}

/** What all lcores' parts of a ledger add up to must balance (INV-1). */
static int books_check(struct restore *restore) {
    const struct engine *engine = restore->engine;
    for (unsigned i = 0; i < engine->config.lcores; i++) {
        for (uint32_t slot = 0; slot < engine->lcores[i].ledgers.slab.count; slot++) {
            uint32_t ledger = ledger_at(&engine->lcores[i].ledgers, slot)->ledger;
            struct balances sums = {0};
            for (unsigned other = 0; other < engine->config.lcores; other++) {
                struct ledger_total *total = ledger_find(&engine->lcores[other].ledgers, ledger);
                if (total)
                    balances_add(&sums, &total->sums);
            }
            if (sums.debits_posted != sums.credits_posted ||
                sums.debits_pending != sums.credits_pending)
                return restore_fail(&restore->worker[0], -EBADMSG,
                                    "the books of ledger %u do not balance", ledger);
        }
    }
    return 0;
}

int restore_end(struct restore *restore) {
    struct engine *engine = restore->engine;
    struct restore_worker *first = &restore->worker[0];
    uint64_t accounts = 0, transfers = 0;
    for (unsigned i = 0; i < restore->workers; i++) {
        struct restore_worker *worker = &restore->worker[i];
        worker->group = (struct restore_place){0};
        restore_plain_settle(worker);
        for (unsigned lcore = 0; lcore < engine->config.lcores && !worker->rc; lcore++) {
            if (timestamps_flush(worker, lcore) != 0)
                restore_fail(worker, -ENOMEM, "%s", restore_full);
        }
        if (worker->stubs)
            restore_fail(worker, -EBADMSG, "%u accounts are named and never created",
                         worker->stubs);
        if (worker->rc || ledgers_merge(worker) != 0)
            return worker->rc;
        if (worker->import_cursor_accounts > accounts)
            accounts = worker->import_cursor_accounts;
        if (worker->import_cursor_transfers > transfers)
            transfers = worker->import_cursor_transfers;
    }
    for (unsigned i = 0; i < engine->config.lcores; i++) {
        struct engine_lcore *lcore = &engine->lcores[i];
        lcore->import_cursor_accounts = accounts;
        lcore->import_cursor_transfers = transfers;
        if (first->cell_time > lcore->cell_time)
            lcore->cell_time = first->cell_time;
        if (lcore->id_time && first->horizon_ms > lcore->horizon_ms) {
            lcore->horizon_ms = first->horizon_ms;
            lcore->forgotten_ms = first->forgotten_ms;
        }
    }
    return books_check(restore);
}

int engine_replay_finish(struct engine *engine, seq_t last_seq, term_t term, uint64_t cell_time,
                         uint64_t horizon_ms) {
    for (unsigned i = 0; i < engine->config.lcores; i++) {
        struct engine_lcore *lcore = &engine->lcores[i];
        lcore->cell_time = cell_time > lcore->cell_time ? cell_time : lcore->cell_time;
        if (PLANTED(cell_time_falls_at_start))
            lcore->cell_time = 0;
        lcore->last_timestamp = lcore->cell_time;
        lcore->horizon_ms = horizon_ms;
        lcore->commit_seq = last_seq;
        lcore->digests_logged = lcore->cell_time;
        for (unsigned p = i; p < engine->config.partitions; p += engine->config.lcores) {
            uint64_t due = pending_due_ns(&engine->partitions[p].pendings);
            lcore->due_ns =
                due < lcore->due_ns && !PLANTED(expiry_forgotten_at_start) ? due : lcore->due_ns;
        }
        segment_start(lcore, last_seq + 1);
        atomic_store_explicit(&lcore->lane->cell_time, lcore->cell_time, memory_order_relaxed);
    }
    wal_place_t place;
    struct engine_lcore *first = &engine->lcores[0];
    struct wal_record_start *record = segment_append(first, sizeof(*record), &place);
    *record = (struct wal_record_start){
        .head = {WAL_RECORD_START, sizeof(*record) / WAL_RECORD_ALIGN, 0, 0},
        .timestamp = first->cell_time,
        .term = term,
    };
    atomic_store_explicit(&first->lane->segment_bytes, first->segment_bytes, memory_order_relaxed);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "engine/traveller.h"

/** A timestamp's place in the set of account timestamps: the two halves of a bijective hash, so nothing else is stored. */
static uint64_t timestamp_hash(uint64_t timestamp) {
    return hash_mix64(timestamp);
}

int account_timestamps_add(struct engine_lcore *lcore, const uint64_t *timestamps, uint32_t count) {
    struct index *index = &lcore->account_timestamps;
    if (index_reserve(index, &lcore->memory, count) != 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        index_prefetch(index, (uint32_t)(timestamp_hash(timestamps[i]) >> 32));
    for (uint32_t i = 0; i < count; i++) {
        uint64_t hash = timestamp_hash(timestamps[i]);
        index_insert(index, (uint32_t)(hash >> 32), (uint32_t)hash);
    }
    return 0;
}

static bool timestamp_taken_here(const struct engine_lcore *lcore, uint64_t timestamp) {
    uint64_t hash = timestamp_hash(timestamp);
    struct index_cursor cursor;
    uint32_t tag = (uint32_t)(hash >> 32);
    for (uint32_t slot = index_first(&lcore->account_timestamps, &cursor, tag); slot != INDEX_NONE;
         slot = index_next(&lcore->account_timestamps, &cursor, tag)) {
        if (slot == (uint32_t)hash)
            return true;
    }
    return false;
}

bool account_timestamp_taken(const struct engine_lcore *lcore, uint64_t timestamp) {
    for (unsigned i = 0; i < lcore->engine->config.lcores; i++) {
        if (timestamp_taken_here(&lcore->engine->lcores[i], timestamp))
            return true;
    }
    return false;
}

struct account *lcore_account_find(struct engine_lcore *lcore, uint128_t id, uint64_t hash) {
    struct partition *partition = partition_of_hash(lcore, hash);
    uint32_t slot = account_find(&partition->accounts, id, hash);
    return slot == INDEX_NONE ? NULL : account_at(&partition->accounts, slot);
}

int account_room_reserve(struct engine_lcore *lcore, struct partition *partition, uint32_t count,
                         uint32_t total) {
    struct engine_lcore *home = partition_lcore(lcore, partition);
    int error = account_reserve(&partition->accounts, &home->memory, count);
    if (!error)
        error = ledger_reserve(&home->ledgers, &home->memory, total);
    if (!error)
        error = index_reserve(&home->account_timestamps, &home->memory, total);
    return error;
}

void account_gather(struct engine_lcore *lcore, const struct account *event, uint64_t hash,
                    uint32_t count, uint32_t total, struct account_view *view) {
    struct partition *partition = partition_of_hash(lcore, hash);
    view->event = event;
    view->existing = lcore_account_find(lcore, event->id, hash);
    view->memory_full =
        !view->existing && account_room_reserve(lcore, partition, count + partition->accounts_kept,
                                                total + travel_accounts_kept(lcore)) != 0;
    view->import_cursor = lcore->import_cursor_accounts;
    view->import_collides = false;
    if ((event->flags & ACCOUNT_IMPORTED) && event->timestamp > view->import_cursor &&
        event->timestamp <= lcore->import_cursor_transfers) {
        for (unsigned p = 0; p < lcore->partition_count && !view->import_collides; p++)
            view->import_collides =
                id_timestamp_taken(&lcore->partitions[p].ids, event->timestamp, lcore->horizon_ms);
    }
}

/** What an account's creation changes beside its record. */
static void account_created(struct engine_lcore *lcore, struct partition *partition,
                            const struct account *record, uint64_t hash) {
    struct engine_lcore *home = partition_lcore(lcore, partition);
    struct account_delta delta = {.closed = !!(record->flags & ACCOUNT_CLOSED)};
    partition->digest += partition_account_hash(record, lcore->digest_seed);
    partition_digest_delta(partition, hash, &delta);
    ledger_need(&home->ledgers, record->ledger);
    uint64_t time_hash = timestamp_hash(record->timestamp);
    index_insert(&home->account_timestamps, (uint32_t)(time_hash >> 32), (uint32_t)time_hash);
    if (record->timestamp > lcore->import_cursor_accounts)
        lcore->import_cursor_accounts = record->timestamp;
}

struct account *account_apply_create(struct engine_lcore *lcore, const struct account *record,
                                     uint64_t hash, uint32_t group) {
    struct partition *partition = partition_of_hash(lcore, hash);
    if (account_room_reserve(lcore, partition, 1, 1) != 0)
        return NULL;
    struct account *account = account_insert(&partition->accounts, record->id, hash);
    *account = *record;
    account->reserved = group;
    account_created(lcore, partition, record, hash);
    return account;
}

wal_place_t account_log(struct engine_lcore *lcore, const struct account *record,
                        uint64_t decided) {
    wal_place_t place;
    struct wal_record_account *log = segment_append(lcore, sizeof(*log), &place);
    *log = (struct wal_record_account){
        .head = {WAL_RECORD_ACCOUNT, sizeof(*log) / WAL_RECORD_ALIGN, 0, 0},
        .timestamp = decided,
        .id = record->id,
        .user_data_128 = record->user_data_128,
        .user_data_64 = record->user_data_64,
        .user_data_32 = record->user_data_32,
        .ledger = record->ledger,
        .code = record->code,
        .flags = record->flags,
        .imported_timestamp = record->flags & ACCOUNT_IMPORTED ? record->timestamp : 0,
    };
    return place;
}

void account_install(struct engine_lcore *lcore, const struct account *record, uint64_t hash,
                     uint64_t decided) {
    account_log(lcore, record, decided);
    struct account *account =
        account_apply_create(lcore, record, hash, (uint32_t)lcore->open_group);
    assert(account);
}

void account_execute(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                     struct prepared *prepared) {
    const struct account *asked = (const struct account *)request->events + event;
    struct account_view view = {.decided = timestamp_take(lcore)};
    struct account_outcome outcome = {.timestamp = view.decided};
    outcome.status = request_check_event(request, event, view.decided);
    if (outcome.status == ACCOUNT_STATUS_created) {
        account_gather(lcore, asked, prepared->hash[0], 1, 1, &view);
        account_decide(&view, &outcome);
        if (outcome.status == ACCOUNT_STATUS_created) {
            account_install(lcore, &outcome.record, prepared->hash[0], view.decided);
            request_wait_for(request, lcore->open_group);
        } else if (view.existing) {
            request_wait_for(request, group_pending(lcore, view.existing->reserved));
        } else if (outcome.status == ACCOUNT_STATUS_imported_event_timestamp_must_not_regress) {
            request_wait_for(request, group_bound(lcore));
        }
    }
    request->results[event] =
        (struct result){.timestamp = outcome.timestamp, .status = outcome.status};
    if (request->options & REQUEST_BALANCES) {
        const struct account *account = lcore_account_find(lcore, asked->id, prepared->hash[0]);
        request->balances[event] = (struct balances){0};
        if (account) {
            account_balances(account, &request->balances[event]);
            request_wait_for(request, group_pending(lcore, account->reserved));
        }
    }
}

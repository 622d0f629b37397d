/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "engine/base/planted.h"
#include "engine/traveller.h"

const struct transfer *request_transfer(const struct engine_request *request, uint32_t event,
                                        struct transfer *buffer) {
    if (request->event_format == EVENT_FORMAT_FULL)
        return (const struct transfer *)request->events + event;
    const struct compact_transfer *compact =
        (const struct compact_transfer *)request->events + event;
    *buffer = (struct transfer){
        .id = uint128_make(compact->id[1], compact->id[0]),
        .debit_account_id =
            uint128_make(compact->debit_account_id[1], compact->debit_account_id[0]),
        .credit_account_id =
            uint128_make(compact->credit_account_id[1], compact->credit_account_id[0]),
        .amount = compact->amount,
        .ledger = compact->ledger,
        .code = compact->code,
        .flags = compact->flags,
    };
    return buffer;
}

/** A full event in the compact format. @return false when it says more than that format can */
static bool request_compact(const struct engine_request *request, uint32_t event,
                            struct compact_transfer *compact) {
    const struct transfer *full = (const struct transfer *)request->events + event;
    if ((full->amount >> 64) || full->pending_id || full->user_data_128 || full->user_data_64 ||
        full->user_data_32 || full->timeout || full->timestamp)
        return false;
    *compact = (struct compact_transfer){
        .amount = (uint64_t)full->amount,
        .ledger = full->ledger,
        .code = full->code,
        .flags = full->flags,
    };
    memcpy(compact->id, &full->id, sizeof(compact->id));
    memcpy(compact->debit_account_id, &full->debit_account_id, sizeof(compact->debit_account_id));
    memcpy(compact->credit_account_id, &full->credit_account_id,
           sizeof(compact->credit_account_id));
    return true;
}

/* --- gather ---------------------------------------------------------------------------------------------------------- */

/** Whether an id's time allows it to be remembered at all. */
static bool id_in_window(const struct engine_lcore *lcore, uint128_t id) {
    return !lcore->id_time || (id_time_ms(id) >= lcore->horizon_ms &&
                               id_time_ms(id) <= lcore->cell_time / NS_PER_MS + ID_AHEAD_MAX_MS);
}

enum id_knowledge id_knowledge(const struct id_record *record, uint64_t digest) {
    if (likely(!record))
        return ID_ABSENT;
    if (id_is_burnt(record))
        return ID_BURNT;
    return record->digest == digest || PLANTED(retry_not_compared) ? ID_SAME : ID_DIFFERENT;
}

bool transfer_gather_times(const struct engine_lcore *lcore, const struct transfer *event,
                           struct transfer_view *view) {
    view->event = event;
    view->cell_time_ms = lcore->cell_time / NS_PER_MS;
    view->horizon_ms = lcore->id_time ? lcore->horizon_ms : 0;
    view->id_time = lcore->id_time;
    view->import_cursor = lcore->import_cursor_transfers;
    return id_in_window(lcore, event->id);
}

void transfer_gather(struct engine_lcore *lcore, const struct transfer *event, uint64_t id_hash,
                     uint64_t digest, uint32_t count, struct transfer_view *view) {
    struct partition *home = partition_of_transfer(lcore, event->id);
    if (!transfer_gather_times(lcore, event, view))
        return;
    const struct id_record *record = id_find(&home->ids, event->id, id_hash);
    view->id = id_knowledge(record, digest);
    if (unlikely(record)) {
        view->id_timestamp = record->timestamp;
        return;
    }
    struct memory *memory = &partition_lcore(lcore, home)->memory;
    view->memory_full =
        id_reserve(&home->ids, memory, event->id, count + home->ids_kept) != 0 ||
        ((event->flags & TRANSFER_PENDING) &&
         pending_reserve(&home->pendings, memory, count + home->pendings_kept) != 0) ||
        (unlikely(lcore->travel) && ledger_reserve(&lcore->ledgers, &lcore->memory, count) != 0);
}

/** The pending transfer that a post or void names, and its accounts. @return its slot's record, or NULL */
static struct pending *gather_pending(struct engine_lcore *lcore, const struct transfer *event,
                                      struct transfer_view *view) {
    uint64_t hash = hash_transfer_id(event->pending_id, lcore->digest_seed);
    struct partition *partition = partition_of_transfer(lcore, event->pending_id);
    uint32_t slot = pending_find(&partition->pendings, event->pending_id, hash, lcore->horizon_ms);
    if (slot != INDEX_NONE)
        return pending_at(&partition->pendings, slot);
    view->pending_id = id_knowledge(id_find(&partition->ids, event->pending_id, hash), 0);
    return NULL;
}

void transfer_wait(struct engine_lcore *lcore, struct engine_request *request,
                   const struct transfer_view *view, uint32_t status) {
    seq_t group = 0;
    if ((status == TRANSFER_STATUS_pending_transfer_expired ||
         status == TRANSFER_STATUS_id_expired || status == TRANSFER_STATUS_id_in_future ||
         status == TRANSFER_STATUS_pending_id_expired) &&
        !PLANTED(clock_status_not_awaited)) {
        /* Decided by the clock or the horizon: the group that says so is sealed even if it is empty. */
        group = lcore->open_group;
        atomic_store_explicit(&lcore->lane->wanted_group, group, memory_order_relaxed);
    } else if (view->id != ID_ABSENT || view->pending_id != ID_ABSENT ||
               status == TRANSFER_STATUS_imported_event_timestamp_must_not_regress) {
        group = PLANTED(reply_before_dependency) ? 0 : group_bound(lcore);
    }
    request_wait_for(request, group);
    if (view->debit)
        request_wait_for(request, group_pending(lcore, view->debit->reserved));
    if (view->credit)
        request_wait_for(request, group_pending(lcore, view->credit->reserved));
    if (view->pending)
        request_wait_for(request, group_pending(lcore, view->pending->group));
}

/* --- install --------------------------------------------------------------------------------------------------------- */

wal_place_t transfer_log_burnt(struct engine_lcore *lcore, uint128_t id, uint64_t decided,
                               uint32_t status) {
    wal_place_t place;
    struct wal_record_burnt_id *log = segment_append(lcore, sizeof(*log), &place);
    *log = (struct wal_record_burnt_id){
        .head = {WAL_RECORD_BURNT_ID, sizeof(*log) / WAL_RECORD_ALIGN, 0, status},
        .timestamp = decided,
        .id = id,
    };
    return place | WAL_PLACE_BURNT;
}

void transfer_burn(struct engine_lcore *lcore, uint128_t id, uint64_t id_hash, uint64_t decided,
                   uint32_t status) {
    id_insert(&partition_of_transfer(lcore, id)->ids, id, id_hash, decided, 0,
              transfer_log_burnt(lcore, id, decided, status));
}

void total_apply(struct engine_lcore *lcore, uint32_t ledger, const struct account_delta *debit,
                 const struct account_delta *credit) {
    struct ledger_total *total = ledger_need(&lcore->ledgers, ledger);
    total->dirty = true;
    total->sums.debits_pending += debit->debits_pending;
    total->sums.debits_posted += debit->debits_posted;
    total->sums.credits_pending += credit->credits_pending;
    total->sums.credits_posted += credit->credits_posted;
}

void pending_started(struct engine_lcore *lcore, const struct transfer *record, uint64_t id_hash,
                     uint32_t group) {
    struct partition *partition = partition_of_transfer(lcore, record->id);
    uint32_t slot = pending_insert(&partition->pendings, record, id_hash);
    struct pending *pending = pending_at(&partition->pendings, slot);
    pending->group = group;
    partition->digest += partition_pending_hash(record, lcore->digest_seed);
    partition->digest_dirty = true;
    struct engine_lcore *home = partition_lcore(lcore, partition);
    if (pending->expires_at && pending->expires_at < home->due_ns && !PLANTED(expiry_never_found))
        home->due_ns = pending->expires_at;
}

void pending_ended(struct engine_lcore *lcore, struct partition *partition, uint32_t slot,
                   enum pending_state state, uint128_t resolver_id, uint32_t group) {
    struct pending *pending = pending_at(&partition->pendings, slot);
    pending_changes(partition_lcore(lcore, partition), partition, slot);
    pending_resolve(&partition->pendings, slot, state, resolver_id);
    pending->group = group;
    partition->digest -= partition_pending_hash(&pending->transfer, lcore->digest_seed);
    partition->digest_dirty = true;
}

void transfer_apply(struct engine_lcore *lcore, const struct transfer_effect *effect,
                    wal_place_t place, uint32_t group) {
    const struct transfer *record = effect->outcome->record;
    struct partition *home = partition_of_transfer(lcore, record->id);
    id_insert(&home->ids, record->id, effect->id_hash, effect->outcome->timestamp,
              effect->request_digest, place);
    if (effect->outcome->timestamp > lcore->import_cursor_transfers)
        lcore->import_cursor_transfers = effect->outcome->timestamp;
    if (likely(!(record->flags &
                 (TRANSFER_PENDING | TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING)))) {
        const struct posting posting = {.debit = effect->debit,
                                        .credit = effect->credit,
                                        .debit_partition = effect->debit_partition,
                                        .credit_partition = effect->credit_partition,
                                        .debit_hash = effect->debit_hash,
                                        .credit_hash = effect->credit_hash};
        posting_move(lcore, &posting, record->amount, group);
        ledger_move(lcore, record->ledger, record->amount);
        return;
    }
    struct account_delta debit, credit;
    transfer_deltas(record, effect->outcome->pending_amount, effect->outcome->pending_flags, &debit,
                    &credit);
    account_changes(lcore, effect->debit_partition, effect->debit, effect->debit_hash);
    account_changes(lcore, effect->credit_partition, effect->credit, effect->credit_hash);
    account_apply(effect->debit, &debit);
    account_apply(effect->credit, &credit);
    effect->debit->reserved = effect->credit->reserved = group;
    partition_digest_delta(effect->debit_partition, effect->debit_hash, &debit);
    partition_digest_delta(effect->credit_partition, effect->credit_hash, &credit);
    total_apply(lcore, record->ledger, &debit, &credit);
    if (record->flags & TRANSFER_PENDING) {
        pending_started(lcore, record, effect->id_hash, group);
        return;
    }
    struct partition *partition = partition_of_transfer(lcore, record->pending_id);
    uint32_t slot =
        pending_find(&partition->pendings, record->pending_id,
                     hash_transfer_id(record->pending_id, lcore->digest_seed), lcore->horizon_ms);
    assert(slot != INDEX_NONE);
    if (PLANTED(post_leaves_hold) && (record->flags & TRANSFER_POST_PENDING))
        return;
    pending_ended(lcore, partition, slot,
                  record->flags & TRANSFER_POST_PENDING ? PENDING_POSTED : PENDING_VOIDED,
                  record->id, group);
}

/** Log what has optional fields. */
static wal_place_t log_fields(struct engine_lcore *lcore, uint8_t type,
                              const struct wal_transfer_fields *fields) {
    _Alignas(16) uint8_t encoded[WAL_RECORD_BYTES_MAX];
    wal_place_t place;
    size_t bytes = wal_record_transfer_encode(type, fields, encoded);
    __builtin_memcpy(segment_append(lcore, (uint32_t)bytes, &place), encoded, bytes);
    return place;
}

wal_place_t transfer_log(struct engine_lcore *lcore, const struct transfer_effect *effect) {
    const struct transfer *record = effect->outcome->record;
    const uint16_t special = TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING | TRANSFER_IMPORTED |
                             TRANSFER_BALANCING_DEBIT | TRANSFER_BALANCING_CREDIT;
    bool plain = !(record->flags & special) && !record->timeout && !record->user_data_32 &&
                 !record->user_data_64 && !record->user_data_128 && !(record->amount >> 64);
    if (likely(plain)) {
        wal_place_t place;
        struct wal_record_transfer *log = segment_append(lcore, sizeof(*log), &place);
        *log = (struct wal_record_transfer){
            .head = {WAL_RECORD_TRANSFER, sizeof(*log) / WAL_RECORD_ALIGN, 0, 0},
            .timestamp = effect->decided,
            .id = record->id,
            .debit_account_id = record->debit_account_id,
            .credit_account_id = record->credit_account_id,
            .amount = (uint64_t)record->amount,
            .ledger = record->ledger,
            .code = record->code,
            .flags = record->flags,
        };
        return place;
    }
    struct wal_transfer_fields fields = {
        .transfer = *record,
        .decided = effect->decided,
        .pending_amount = effect->outcome->pending_amount,
        .pending_flags = effect->outcome->pending_flags,
    };
    fields.transfer.timestamp = effect->outcome->timestamp;
    if (transfer_digest(record, effect->debit_hash, effect->credit_hash, &lcore->digest_keys) !=
        effect->request_digest)
        fields.request_digest = effect->request_digest;
    return log_fields(lcore, WAL_RECORD_TRANSFER, &fields);
}

void transfer_install(struct engine_lcore *lcore, const struct transfer_effect *effect) {
    wal_place_t place = transfer_log(lcore, effect);
    transfer_apply(lcore, effect, place, (uint32_t)lcore->open_group);
}

/* --- one event ------------------------------------------------------------------------------------------------------- */

static struct account *account_known(struct engine_lcore *lcore, struct account *guess,
                                     uint128_t id, uint64_t hash) {
    return likely(guess && guess->id == id) ? guess : lcore_account_find(lcore, id, hash);
}

static void balances_fill(const struct account *account, struct balances *balances) {
    if (account)
        account_balances(account, balances);
    else
        *balances = (struct balances){0};
}

void transfer_execute(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                      struct prepared *prepared) {
    struct compact_transfer compacted;
    if (request->event_format == EVENT_FORMAT_FULL && !request->imported &&
        !prepared->home->ids_kept && request_compact(request, event, &compacted) &&
        likely(transfers_execute_plain(lcore, request, &compacted, prepared, 1)))
        return;
    uint64_t decided = timestamp_take(lcore);
    struct result *result = &request->results[event];
    *result = (struct result){.timestamp = decided};
    struct transfer buffer;
    const struct transfer *asked = request_transfer(request, event, &buffer);
    struct transfer_view view = {.decided = decided};
    result->status = request_check_event(request, event, view.decided);
    struct transfer_effect effect = {.decided = view.decided, .id_hash = prepared->id.hash};
    if (likely(result->status == TRANSFER_STATUS_created)) {
        struct transfer_outcome outcome;
        effect.outcome = &outcome;
        effect.request_digest =
            transfer_digest(asked, prepared->hash[0], prepared->hash[1], &lcore->digest_keys);
        effect.debit_hash = prepared->hash[0];
        effect.credit_hash = prepared->hash[1];
        effect.debit_partition = prepared->partition[0];
        effect.credit_partition = prepared->partition[1];
        transfer_gather(lcore, asked, prepared->id.hash, effect.request_digest, 1, &view);
        if (unlikely(asked->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING))) {
            struct pending *pending = gather_pending(lcore, asked, &view);
            view.pending = pending;
            if (pending) {
                effect.debit_hash = hash_id(pending->transfer.debit_account_id, lcore->hash_seed);
                effect.credit_hash = hash_id(pending->transfer.credit_account_id, lcore->hash_seed);
                effect.debit_partition = partition_of_hash(lcore, effect.debit_hash);
                effect.credit_partition = partition_of_hash(lcore, effect.credit_hash);
                effect.debit = lcore_account_find(lcore, pending->transfer.debit_account_id,
                                                  effect.debit_hash);
                effect.credit = lcore_account_find(lcore, pending->transfer.credit_account_id,
                                                   effect.credit_hash);
            }
        } else {
            effect.debit = account_known(lcore, prepared->account[0], asked->debit_account_id,
                                         effect.debit_hash);
            effect.credit = account_known(lcore, prepared->account[1], asked->credit_account_id,
                                          effect.credit_hash);
        }
        view.debit = effect.debit;
        view.credit = effect.credit;
        if (asked->flags & TRANSFER_IMPORTED)
            view.import_collides = account_timestamp_taken(lcore, asked->timestamp);
        transfer_decide(&view, &outcome);
        result->status = outcome.status;
        result->timestamp = outcome.timestamp;
        if (likely(outcome.status == TRANSFER_STATUS_created)) {
            transfer_install(lcore, &effect);
            request_wait_for(request, lcore->open_group);
        } else if (transfer_status_burns_id(outcome.status)) {
            transfer_burn(lcore, asked->id, prepared->id.hash, view.decided, outcome.status);
            request_wait_for(request, lcore->open_group);
        } else {
            transfer_wait(lcore, request, &view, outcome.status);
            if (outcome.status == TRANSFER_STATUS_exists_unresolved) {
                const struct id_record *record = id_find(
                    &partition_of_transfer(lcore, asked->id)->ids, asked->id, prepared->id.hash);
                request_fetch(lcore, request, event, record);
            }
        }
    }
    if (request->options & REQUEST_BALANCES)
        balances_fill(effect.debit, &request->balances[event]);
}

/* --- expiry ---------------------------------------------------------------------------------------------------------- */

void transfer_expire(struct engine_lcore *lcore, struct partition *partition, uint32_t slot,
                     uint32_t group) {
    struct pending *pending = pending_at(&partition->pendings, slot);
    const struct transfer *transfer = &pending->transfer;
    /* Expiry undoes what a void would. */
    struct transfer undo = {.flags = TRANSFER_VOID_PENDING};
    struct account_delta deltas[2];
    transfer_deltas(&undo, transfer->amount, transfer->flags, &deltas[0], &deltas[1]);
    const uint128_t ids[2] = {transfer->debit_account_id, transfer->credit_account_id};
    for (unsigned side = 0; side < 2; side++) {
        uint64_t hash = hash_id(ids[side], lcore->hash_seed);
        struct account *account = lcore_account_find(lcore, ids[side], hash);
        struct partition *home = partition_of_hash(lcore, hash);
        assert(account);
        account_changes(lcore, home, account, hash);
        account_apply(account, &deltas[side]);
        account->reserved = PLANTED(expiry_leaves_group) ? account->reserved : group;
        partition_digest_delta(home, hash, &deltas[side]);
    }
    total_apply(lcore, transfer->ledger, &deltas[0], &deltas[1]);
    pending_ended(lcore, partition, slot, PENDING_EXPIRED, 0, group);
}

/** The partition whose next expiry is due first. @return its number; `due_ns` tells when */
static unsigned partition_due(struct engine_lcore *lcore, uint64_t *due_ns) {
    unsigned first = lcore->index;
    *due_ns = UINT64_MAX;
    for (unsigned p = lcore->index; p < lcore->partition_count; p += lcore->engine->config.lcores) {
        uint64_t due = pending_due_ns(&lcore->partitions[p].pendings);
        if (due < *due_ns) {
            *due_ns = due;
            first = p;
        }
    }
    return first;
}

wal_place_t transfer_log_expiry(struct engine_lcore *lcore, const struct transfer *pending) {
    struct wal_transfer_fields fields = {.transfer = *pending, .decided = timestamp_take(lcore)};
    fields.transfer.timestamp = fields.decided;
    fields.transfer.user_data_128 = 0;
    fields.transfer.user_data_64 = 0;
    fields.transfer.user_data_32 = 0;
    fields.transfer.timeout = 0;
    return log_fields(lcore, WAL_RECORD_EXPIRY, &fields);
}

unsigned expire_due(struct engine_lcore *lcore) {
    unsigned count = 0;
    while (lcore->due_ns <= lcore->cell_time && count < EXPIRIES_PER_TURN && !lcore->closing) {
        unsigned p = partition_due(lcore, &lcore->due_ns);
        if (lcore->due_ns > lcore->cell_time ||
            !segment_has_room(lcore, TRANSFER_RECORD_BYTES_MAX) || !checkpoint_has_room(lcore, 1))
            break;
        struct partition *partition = &lcore->partitions[p];
        uint32_t slot = heap_first(&partition->pendings.expiry)->slot;
        bool full;
        if (travel_expiry(lcore, partition, slot, &full)) {
            if (full)
                break;
            count++;
            continue;
        }
        transfer_log_expiry(lcore, &pending_at(&partition->pendings, slot)->transfer);
        transfer_expire(lcore, partition, slot, (uint32_t)lcore->open_group);
        count++;
    }
    return count;
}

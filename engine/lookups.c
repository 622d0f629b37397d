/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "engine/base/planted.h"
#include "engine/traveller.h"

void lookup_account(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                    struct prepared *prepared) {
    uint128_t id = ((const uint128_t *)request->events)[event];
    struct account *account = prepared->account[0];
    if (!account || account->id != id)
        account = lcore_account_find(lcore, id, prepared->hash[0]);
    lookup_account_found(lcore, request, event, account);
}

void lookup_account_found(struct engine_lcore *lcore, struct engine_request *request,
                          uint32_t event, const struct account *account) {
    struct result *result = &request->results[event];
    if (!account) {
        *result = (struct result){.status = LOOKUP_STATUS_absent};
        return;
    }
    *result = (struct result){.status = LOOKUP_STATUS_found, .timestamp = account->timestamp};
    account_export(account, (struct account *)request->records + event);
    if (PLANTED(lookup_before_commit))
        return;
    /* stale_ok forgoes the voters' round only, and a cell of one has none: nothing uncommitted is ever shown. */
    request_wait_for(request, group_pending(lcore, account->reserved));
}

/** The horizon in force was fixed with the open group; it must be durable before anybody relies on it. */
static void wait_for_horizon(struct engine_lcore *lcore, struct engine_request *request) {
    request_wait_for(request, lcore->open_group);
    atomic_store_explicit(&lcore->lane->wanted_group, lcore->open_group, memory_order_relaxed);
}

void lookup_transfer(struct engine_lcore *lcore, struct engine_request *request, uint32_t event) {
    uint128_t id = ((const uint128_t *)request->events)[event];
    struct result *result = &request->results[event];
    if (lcore->id_time && id_time_ms(id) < lcore->horizon_ms) {
        *result = (struct result){.status = LOOKUP_STATUS_expired};
        wait_for_horizon(lcore, request);
        return;
    }
    lookup_transfer_found(lcore, request, event,
                          id_find(&partition_of_transfer(lcore, id)->ids, id,
                                  hash_transfer_id(id, lcore->digest_seed)));
}

void lookup_transfer_found(struct engine_lcore *lcore, struct engine_request *request,
                           uint32_t event, const struct id_record *record) {
    struct result *result = &request->results[event];
    if (!record || id_is_burnt(record)) {
        *result = (struct result){.status = LOOKUP_STATUS_absent};
        return;
    }
    *result = (struct result){.status = LOOKUP_STATUS_found, .timestamp = record->timestamp};
    seq_t group = wal_place_seq(record->place, lcore->open_group);
    request_wait_for(request, group > lcore->commit_seq ? group : 0);
    request_fetch(lcore, request, event, record);
}

void retry_resolve(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                   const struct transfer *recorded, const struct transfer *pending) {
    struct result *result = &request->results[event];
    struct transfer buffer;
    const struct transfer *asked = request_transfer(request, event, &buffer);
    if (!pending && (recorded->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING))) {
        wait_for_horizon(lcore, request);
        result->status = TRANSFER_STATUS_id_expired;
        return;
    }
    result->status = transfer_exists(asked, recorded, pending);
    if (result->status == TRANSFER_STATUS_exists)
        result->timestamp = recorded->timestamp;
}

/** The same, where the pending transfer is looked up here, or a traveller sent for it. */
static void retry(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                  const struct transfer *recorded) {
    const struct transfer *pending = NULL;
    if (recorded->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING)) {
        if (travel_retry(lcore, request, event, recorded))
            return;
        struct partition *partition = partition_of_transfer(lcore, recorded->pending_id);
        uint32_t slot = pending_find(&partition->pendings, recorded->pending_id,
                                     hash_transfer_id(recorded->pending_id, lcore->digest_seed),
                                     lcore->horizon_ms);
        if (slot != INDEX_NONE)
            pending = &pending_at(&partition->pendings, slot)->transfer;
    }
    retry_resolve(lcore, request, event, recorded, pending);
}

/** The id for whose sake the log was asked. */
static uint128_t fetched_id(const struct fetch_slot *slot) {
    struct transfer buffer;
    return slot->request->operation == OPERATION_LOOKUP_TRANSFERS
               ? ((const uint128_t *)slot->request->events)[slot->event]
               : request_transfer(slot->request, slot->event, &buffer)->id;
}

/** Whether what came back is what was remembered: the log's own digests cover whole segments, and a fetch may read less than one. */
static bool is_the_record(struct engine_lcore *lcore, const struct fetch_slot *slot,
                          const struct wal_transfer_fields *fields) {
    const struct transfer *transfer = &fields->transfer;
    uint64_t digest = fields->request_digest;
    if (!digest)
        digest = transfer_digest(transfer, hash_id(transfer->debit_account_id, lcore->hash_seed),
                                 hash_id(transfer->credit_account_id, lcore->hash_seed),
                                 &lcore->digest_keys);
    return transfer->id == fetched_id(slot) && digest == slot->digest &&
           transfer->timestamp == slot->timestamp;
}

void lookup_fetched(struct engine_lcore *lcore, const struct fetch_slot *slot,
                    const struct wal_fetch *answer) {
    struct engine_request *request = slot->request;
    struct result *result = &request->results[slot->event];
    struct wal_transfer_fields fields;
    bool lookup = request->operation == OPERATION_LOOKUP_TRANSFERS;
    if (answer->status == -ENOENT && lcore->id_time &&
        id_time_ms(fetched_id(slot)) < lcore->horizon_ms) {
        /* The log has been recycled meanwhile. A file never goes while an id in it can be asked for, so otherwise it was lost. */
        wait_for_horizon(lcore, request);
        result->status = (uint32_t)TRANSFER_STATUS_id_expired;
        if (lookup)
            *result = (struct result){.status = LOOKUP_STATUS_expired};
        return;
    }
    if (answer->status || wal_record_transfer_decode(answer->record, answer->length, &fields) ||
        !is_the_record(lcore, slot, &fields)) {
        request->code = REQUEST_CODE_unknown_outcome;
        return;
    }
    if (lookup)
        ((struct transfer *)request->records)[slot->event] = fields.transfer;
    else
        retry(lcore, request, slot->event, &fields.transfer);
}

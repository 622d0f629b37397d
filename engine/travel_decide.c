/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/chain_internal.h"

/* At the last stop: the decision about copies, by the functions that decide every event; what it does at home; and what the request
 * learns. */

/* --- deciding ------------------------------------------------------------------------------------------------------------ */

static struct travel_outcome *outcome_add(struct traveller *traveller,
                                          enum travel_outcome_type type, wal_place_t place) {
    struct travel_outcome *outcome = &traveller->outcomes[traveller->outcome_count++];
    outcome->type = (uint8_t)type;
    outcome->place = place;
    traveller->changed = true;
    return outcome;
}

/** Partitions and hashes of a transfer's records, and what it does to its ledger's totals: those stand with the lcore that logs it. */
static void outcome_complete(struct engine_lcore *lcore, struct travel_outcome *outcome,
                             const struct transfer *effects) {
    struct account_delta deltas[2];
    const struct transfer *transfer = &outcome->transfer;
    outcome->debit_hash = hash_id(transfer->debit_account_id, lcore->hash_seed);
    outcome->credit_hash = hash_id(transfer->credit_account_id, lcore->hash_seed);
    outcome->debit_partition = (uint16_t)hash_partition_by(
        outcome->debit_hash, lcore->partition_count, lcore->partition_magic);
    outcome->credit_partition = (uint16_t)hash_partition_by(
        outcome->credit_hash, lcore->partition_count, lcore->partition_magic);
    transfer_deltas(effects, outcome->pending_amount, outcome->pending_flags, &deltas[0],
                    &deltas[1]);
    total_apply(lcore, transfer->ledger, &deltas[0], &deltas[1]);
}

static void transfer_created(struct engine_lcore *lcore, struct traveller *traveller,
                             const struct member *member) {
    const struct transfer *record = member->transfer.record;
    struct travel_outcome *outcome =
        outcome_add(traveller, OUTCOME_TRANSFER, transfer_log(lcore, &member->effect));
    outcome->transfer = *record;
    outcome->transfer.timestamp = member->transfer.timestamp;
    outcome->pending_amount = member->transfer.pending_amount;
    outcome->pending_flags = member->transfer.pending_flags;
    outcome->id_hash = member->effect.id_hash;
    outcome->request_digest = member->effect.request_digest;
    outcome->id_partition = (uint16_t)transfer_partition(record->id, lcore->partition_count);
    outcome->pending_partition = outcome->id_partition;
    outcome_complete(lcore, outcome, record);
    if (outcome->transfer.timestamp > lcore->import_cursor_transfers)
        lcore->import_cursor_transfers = outcome->transfer.timestamp;
    if (record->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING))
        outcome->pending_partition =
            (uint16_t)transfer_partition(record->pending_id, lcore->partition_count);
}

static void account_created(struct engine_lcore *lcore, struct traveller *traveller,
                            const struct member *member) {
    const struct account *record = &member->account.record;
    struct travel_outcome *outcome =
        outcome_add(traveller, OUTCOME_ACCOUNT, account_log(lcore, record, member->effect.decided));
    outcome->account = *record;
    outcome->debit_hash = member->effect.id_hash;
    outcome->debit_partition = (uint16_t)hash_partition_by(
        outcome->debit_hash, lcore->partition_count, lcore->partition_magic);
    if (record->timestamp > lcore->import_cursor_accounts)
        lcore->import_cursor_accounts = record->timestamp;
}

/** The first member that failed: its id may be burnt, its status may need the log. */
static void member_failed(struct engine_lcore *lcore, struct traveller *traveller,
                          uint32_t failed) {
    struct engine_request *asked = &traveller->asked;
    uint32_t event = traveller->event + failed;
    const struct result *result = &asked->results[event];
    chain_fail_earlier(lcore, asked, traveller->event, failed);
    if (asked->operation != OPERATION_CREATE_TRANSFERS)
        return;
    struct transfer buffer;
    uint128_t id = request_transfer(asked, event, &buffer)->id;
    if (result->status == TRANSFER_STATUS_exists_unresolved) {
        traveller->unresolved = true;
        traveller->unresolved_event = event;
        traveller->remembered = travel_stop_find(lcore, traveller, RECORD_ID, id)->id;
    } else if (transfer_status_burns_id(result->status)) {
        struct travel_outcome *outcome =
            outcome_add(traveller, OUTCOME_BURNT,
                        transfer_log_burnt(lcore, id, result->timestamp, result->status));
        outcome->transfer.id = id;
        outcome->transfer.timestamp = result->timestamp;
        outcome->id_hash = hash_transfer_id(id, lcore->digest_seed);
        outcome->id_partition = (uint16_t)transfer_partition(id, lcore->partition_count);
    }
}

/** Balances of every member's home account, after the whole chain: of the copies if it took effect, else as they came. */
static void balances_fill(struct engine_lcore *lcore, struct traveller *traveller, bool created) {
    struct engine_request *asked = &traveller->asked;
    for (uint32_t event = traveller->event; event < traveller->event + traveller->count; event++) {
        struct transfer buffer;
        uint128_t id;
        if (asked->operation == OPERATION_CREATE_ACCOUNTS) {
            id = ((const struct account *)asked->events)[event].id;
        } else {
            const struct transfer *transfer = request_transfer(asked, event, &buffer);
            const struct copy *pending = NULL;
            id = transfer->debit_account_id;
            if (transfer->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING))
                pending = copy_find(lcore->chain, COPY_PENDING, transfer->pending_id,
                                    hash_transfer_id(transfer->pending_id, lcore->digest_seed));
            if (pending)
                id = pending->pending.transfer.debit_account_id;
        }
        const struct copy *copy =
            created ? copy_find(lcore->chain, COPY_ACCOUNT, id, hash_id(id, lcore->hash_seed))
                    : NULL;
        const struct travel_stop *stop =
            id == 0 || id == UINT128_MAX ? NULL
                                         : travel_stop_find(lcore, traveller, RECORD_ACCOUNT, id);
        asked->balances[event] = (struct balances){0};
        if (copy)
            account_balances(&copy->account, &asked->balances[event]);
        else if (stop && stop->present)
            account_balances(&stop->account, &asked->balances[event]);
        if (stop && stop->present)
            request_wait_for(asked, group_pending(lcore, stop->account.reserved));
    }
}

static void decide_events(struct engine_lcore *lcore, struct traveller *traveller) {
    struct chain *chain = lcore->chain;
    struct engine_request *asked = &traveller->asked;
    uint32_t count = traveller->count;
    chain_reset(lcore, chain, count);
    chain->luggage = traveller;
    asked->wait_group = 0;
    uint32_t failed = chain_decide(lcore, asked, traveller->event, count);
    if (chain->missing_count) {
        traveller->again = true;
        traveller->missing_count = chain->missing_count;
        for (uint32_t i = 0; i < chain->missing_count; i++)
            traveller->missing[i] = chain->missing[i];
        return;
    }
    for (uint32_t member = 0; failed == count && member < count; member++) {
        if (asked->operation == OPERATION_CREATE_TRANSFERS)
            transfer_created(lcore, traveller, &chain->members[member]);
        else
            account_created(lcore, traveller, &chain->members[member]);
    }
    if (failed < count)
        member_failed(lcore, traveller, failed);
    if (asked->options & REQUEST_BALANCES)
        balances_fill(lcore, traveller, failed == count);
    if (traveller->changed)
        request_wait_for(asked, lcore->open_group);
    traveller->wait_group = asked->wait_group;
}

static void decide_expiry(struct engine_lcore *lcore, struct traveller *traveller) {
    const struct travel_stop *stop = NULL;
    for (uint32_t i = 0; i < traveller->stop_count; i++)
        if (traveller->stops[i].kind == RECORD_PENDING)
            stop = &traveller->stops[i];
    if (!stop->present || stop->pending.state != PENDING_LIVE)
        return; /* posted or voided meanwhile */
    const struct transfer *pending = &stop->pending.transfer;
    struct travel_outcome *outcome =
        outcome_add(traveller, OUTCOME_EXPIRY, transfer_log_expiry(lcore, pending));
    /* it undoes what a void would */
    const struct transfer undo = {.flags = TRANSFER_VOID_PENDING};
    outcome->transfer = *pending;
    outcome->pending_amount = pending->amount;
    outcome->pending_flags = pending->flags;
    outcome->id_hash = stop->hash;
    outcome->pending_partition = stop->partition;
    outcome_complete(lcore, outcome, &undo);
}

enum travel_decision travel_decide(struct engine_lcore *lcore, struct traveller *traveller) {
    if (!segment_has_room(lcore, (size_t)traveller->count * TRANSFER_RECORD_BYTES_MAX) ||
        horizon_stale(lcore))
        return TRAVEL_NO_ROOM;
    traveller->changed = false;
    traveller->outcome_count = 0;
    if (traveller->kind == TRAVEL_EXPIRY)
        decide_expiry(lcore, traveller);
    else
        decide_events(lcore, traveller);
    traveller->group = lcore->open_group;
    return TRAVEL_DECIDED;
}

/* --- at home -------------------------------------------------------------------------------------------------------------- */

static void apply_side(struct engine_lcore *lcore, struct partition *partition, uint128_t id,
                       uint64_t hash, const struct account_delta *delta, uint32_t group) {
    struct account *account = lcore_account_find(lcore, id, hash);
    assert(account); /* it was checked out here */
    account_changes(lcore, partition, account, hash);
    account_apply(account, delta);
    account->reserved = group;
    partition_digest_delta(partition, hash, delta);
}

static void apply_transfer(struct engine_lcore *lcore, const struct travel_outcome *outcome,
                           unsigned number, uint32_t group) {
    struct partition *partition = &lcore->partitions[number];
    const struct transfer *transfer = &outcome->transfer;
    const struct transfer undo = {.flags = TRANSFER_VOID_PENDING};
    struct account_delta deltas[2];
    bool expires = outcome->type == OUTCOME_EXPIRY;
    transfer_deltas(expires ? &undo : transfer, outcome->pending_amount, outcome->pending_flags,
                    &deltas[0], &deltas[1]);
    if (outcome->debit_partition == number)
        apply_side(lcore, partition, transfer->debit_account_id, outcome->debit_hash, &deltas[0],
                   group);
    if (outcome->credit_partition == number)
        apply_side(lcore, partition, transfer->credit_account_id, outcome->credit_hash, &deltas[1],
                   group);
    if (!expires && outcome->id_partition == number) {
        id_insert(&partition->ids, transfer->id, outcome->id_hash, transfer->timestamp,
                  outcome->request_digest, outcome->place);
        if (transfer->flags & TRANSFER_PENDING)
            pending_started(lcore, transfer, outcome->id_hash, group);
    }
    if (outcome->pending_partition != number ||
        !(expires || (transfer->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING))))
        return;
    uint128_t id = expires ? transfer->id : transfer->pending_id;
    uint32_t slot = pending_find(&partition->pendings, id, hash_transfer_id(id, lcore->digest_seed),
                                 lcore->horizon_ms);
    assert(slot != INDEX_NONE); /* it was checked out here, live */
    pending_ended(lcore, partition, slot,
                  expires                                   ? PENDING_EXPIRED
                  : transfer->flags & TRANSFER_POST_PENDING ? PENDING_POSTED
                                                            : PENDING_VOIDED,
                  expires ? 0 : transfer->id, group);
}

static void account_made(struct engine_lcore *lcore, const struct travel_outcome *outcome,
                         uint32_t group) {
    struct account *account =
        account_apply_create(lcore, &outcome->account, outcome->debit_hash, group);
    assert(account); /* room was kept */
    (void)account;
}

void travel_apply(struct engine_lcore *lcore, const struct traveller *traveller,
                  unsigned partition) {
    uint32_t group = (uint32_t)traveller->group;
    for (uint32_t i = 0; i < traveller->outcome_count; i++) {
        const struct travel_outcome *outcome = &traveller->outcomes[i];
        switch (outcome->type) {
        case OUTCOME_ACCOUNT:
            if (outcome->debit_partition == partition)
                account_made(lcore, outcome, group);
            break;
        case OUTCOME_BURNT:
            if (outcome->id_partition == partition)
                id_insert(&lcore->partitions[partition].ids, outcome->transfer.id, outcome->id_hash,
                          outcome->transfer.timestamp, 0, outcome->place);
            break;
        default:
            apply_transfer(lcore, outcome, partition, group);
        }
    }
}

/* --- back at the origin ------------------------------------------------------------------------------------------------------ */

void travel_arrived(struct engine_lcore *lcore, struct traveller *traveller) {
    struct engine_request *request = traveller->request;
    const struct travel_stop *stop = &traveller->stops[0];
    if (traveller->kind == TRAVEL_RETRY) {
        retry_resolve(lcore, request, traveller->event, &traveller->recorded,
                      stop->present ? &stop->pending.transfer : NULL);
    } else if (traveller->kind == TRAVEL_LOOKUP &&
               request->operation == OPERATION_LOOKUP_ACCOUNTS) {
        lookup_account_found(lcore, request, traveller->event,
                             stop->present ? &stop->account : NULL);
    } else if (traveller->kind == TRAVEL_LOOKUP) {
        lookup_transfer_found(lcore, request, traveller->event, stop->present ? &stop->id : NULL);
    } else if (traveller->unresolved) {
        request_fetch(lcore, request, traveller->unresolved_event, &traveller->remembered);
    }
}

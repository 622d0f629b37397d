/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/planted.h"
#include "engine/chain_internal.h"

/** A linked chain: gather copies, decide every member on the copies, and only if all succeed install the outcomes, in order.
 *  Later members see what earlier ones did to the copies; nobody else ever does. Owner: the lcore. */

int chain_open(struct chain **chain) {
    struct chain *made = calloc(1, sizeof(*made));
    if (!made)
        return -ENOMEM;
    made->copies = aligned_alloc(16, sizeof(struct copy) * COPIES_MAX);
    made->map = calloc(MAP_SLOTS, sizeof(uint32_t));
    made->members = aligned_alloc(16, sizeof(struct member) * REQUEST_EVENTS_MAX);
    if (!made->copies || !made->map || !made->members) {
        chain_close(made);
        return -ENOMEM;
    }
    *chain = made;
    return 0;
}

void chain_close(struct chain *chain) {
    if (!chain)
        return;
    free(chain->copies);
    free(chain->map);
    free(chain->members);
    free(chain);
}

void chain_reset(struct engine_lcore *lcore, struct chain *chain, uint32_t count) {
    while (chain->touched_count)
        chain->room[chain->touched[--chain->touched_count]] = 0;
    chain->luggage = NULL;
    chain->missing_count = 0;
    chain->copy_count = 0;
    chain->map_slots = 16;
    while (chain->map_slots < count * 5u * 2u)
        chain->map_slots *= 2;
    memset(chain->map, 0, chain->map_slots * sizeof(uint32_t));
    chain->import_cursor_accounts = lcore->import_cursor_accounts;
    chain->import_cursor_transfers = lcore->import_cursor_transfers;
}

/** One more member needs room in a partition. @return how many do now */
static uint32_t room_count(struct chain *chain, unsigned partition) {
    if (!chain->room[partition])
        chain->touched[chain->touched_count++] = (uint16_t)partition;
    return ++chain->room[partition];
}

/** Where in the map (kind, id) is, or would be. */
static uint32_t *map_slot(struct chain *chain, uint32_t kind, uint128_t id, uint64_t hash) {
    uint32_t slot = (uint32_t)hash_mix64(hash + kind) & (chain->map_slots - 1);
    for (;; slot = (slot + 1) & (chain->map_slots - 1)) {
        uint32_t number = chain->map[slot];
        if (!number)
            return &chain->map[slot];
        const struct copy *copy = &chain->copies[number - 1];
        if (copy->kind == kind && copy->id == id)
            return &chain->map[slot];
    }
}

struct copy *copy_find(struct chain *chain, uint32_t kind, uint128_t id, uint64_t hash) {
    uint32_t number = *map_slot(chain, kind, id, hash);
    return number ? &chain->copies[number - 1] : NULL;
}

static struct copy *copy_make(struct chain *chain, uint32_t kind, uint128_t id, uint64_t hash) {
    uint32_t *slot = map_slot(chain, kind, id, hash);
    assert(!*slot && chain->copy_count < COPIES_MAX);
    struct copy *copy = &chain->copies[chain->copy_count++];
    *slot = chain->copy_count;
    *copy = (struct copy){.kind = kind, .id = id, .hash = hash};
    return copy;
}

/** An account that a traveller brought. One that it should have brought and did not is noted: then nothing is decided. */
static const struct account *luggage_account(struct engine_lcore *lcore, uint128_t id) {
    struct chain *chain = lcore->chain;
    if (id == 0 || id == UINT128_MAX)
        return NULL;
    const struct travel_stop *stop = travel_stop_find(lcore, chain->luggage, RECORD_ACCOUNT, id);
    if (!stop) {
        if (chain->missing_count < 2)
            chain->missing[chain->missing_count++] = id;
        return NULL;
    }
    return stop->present ? &stop->account : NULL;
}

/** The chain's copy of an account; NULL when there is no such account. */
static struct copy *copy_account(struct engine_lcore *lcore, uint128_t id, uint64_t hash) {
    struct copy *copy = copy_find(lcore->chain, COPY_ACCOUNT, id, hash);
    if (copy)
        return copy;
    const struct account *account;
    if (unlikely(lcore->chain->luggage))
        account = luggage_account(lcore, id);
    else
        account = lcore_account_find(lcore, id, hash);
    if (!account)
        return NULL;
    copy = copy_make(lcore->chain, COPY_ACCOUNT, id, hash);
    copy->account = *account;
    copy->original = lcore->chain->luggage ? NULL : (void *)(uintptr_t)account;
    return copy;
}

static struct copy *copy_pending(struct engine_lcore *lcore, uint128_t id, uint64_t hash) {
    struct copy *copy = copy_find(lcore->chain, COPY_PENDING, id, hash);
    if (copy)
        return copy;
    const struct pending *pending = NULL;
    if (unlikely(lcore->chain->luggage)) {
        const struct travel_stop *stop =
            travel_stop_find(lcore, lcore->chain->luggage, RECORD_PENDING, id);
        /* this group's horizon may be higher than the one at the stop */
        if (stop && stop->present &&
            !pending_is_forgotten(&stop->pending, lcore->id_time ? lcore->horizon_ms : 0))
            pending = &stop->pending;
    } else {
        struct partition *partition = partition_of_transfer(lcore, id);
        uint32_t slot = pending_find(&partition->pendings, id, hash, lcore->horizon_ms);
        if (slot != INDEX_NONE)
            pending = pending_at(&partition->pendings, slot);
    }
    if (!pending)
        return NULL;
    copy = copy_make(lcore->chain, COPY_PENDING, id, hash);
    copy->pending = *pending;
    return copy;
}

/** What is remembered of an id, here or in the luggage. */
static const struct id_record *record_of_id(struct engine_lcore *lcore, uint128_t id,
                                            uint64_t hash) {
    if (likely(!lcore->chain->luggage))
        return id_find(&partition_of_transfer(lcore, id)->ids, id, hash);
    const struct travel_stop *stop = travel_stop_find(lcore, lcore->chain->luggage, RECORD_ID, id);
    return stop && stop->present ? &stop->id : NULL;
}

/* --- transfers ------------------------------------------------------------------------------------------------------- */

/** transfer_gather() from what a traveller brought. */
static void luggage_gather(struct engine_lcore *lcore, const struct transfer *event,
                           const struct transfer_effect *effect, struct transfer_view *view) {
    const struct traveller *luggage = lcore->chain->luggage;
    if (!transfer_gather_times(lcore, event, view))
        return;
    const struct travel_stop *stop = travel_stop_find(lcore, luggage, RECORD_ID, event->id);
    const struct id_record *record = stop && stop->present ? &stop->id : NULL;
    view->id = id_knowledge(record, effect->request_digest);
    if (record) {
        view->id_timestamp = record->timestamp;
        return;
    }
    const struct travel_stop *pending =
        event->flags & TRANSFER_PENDING
            ? travel_stop_find(lcore, luggage, RECORD_PENDING, event->id)
            : NULL;
    view->memory_full = !stop || stop->full || (pending && pending->full) ||
                        ledger_reserve(&lcore->ledgers, &lcore->memory, luggage->count) != 0;
}

/** What earlier members did to the id of this one. */
static void gather_own_ids(struct engine_lcore *lcore, const struct transfer *event,
                           struct transfer_effect *effect, struct transfer_view *view) {
    struct copy *own = copy_find(lcore->chain, COPY_ID, event->id, effect->id_hash);
    if (own) {
        view->id = own->digest == effect->request_digest ? ID_SAME : ID_DIFFERENT;
        view->id_timestamp = lcore->chain->members[own->outcome].transfer.timestamp;
    }
}

static void gather_pending_copy(struct engine_lcore *lcore, const struct transfer *event,
                                struct transfer_view *view) {
    uint64_t hash = hash_transfer_id(event->pending_id, lcore->digest_seed);
    struct copy *copy = copy_pending(lcore, event->pending_id, hash);
    if (copy) {
        view->pending = &copy->pending;
        return;
    }
    const struct id_record *record = record_of_id(lcore, event->pending_id, hash);
    if (copy_find(lcore->chain, COPY_ID, event->pending_id, hash))
        view->pending_id = ID_DIFFERENT;
    else if (record)
        view->pending_id = id_is_burnt(record) ? ID_BURNT : ID_DIFFERENT;
}

/** The chain's effect of a created member on its copies. */
static void copies_apply(struct engine_lcore *lcore, uint32_t member, struct copy *debit,
                         struct copy *credit) {
    struct chain *chain = lcore->chain;
    struct transfer_effect *effect = &chain->members[member].effect;
    const struct transfer_outcome *outcome = effect->outcome;
    const struct transfer *record = outcome->record;
    struct account_delta deltas[2];
    transfer_deltas(record, outcome->pending_amount, outcome->pending_flags, &deltas[0],
                    &deltas[1]);
    account_apply(&debit->account, &deltas[0]);
    account_apply(&credit->account, &deltas[1]);
    if (outcome->timestamp > chain->import_cursor_transfers)
        chain->import_cursor_transfers = outcome->timestamp;
    struct copy *id = copy_make(chain, COPY_ID, record->id, effect->id_hash);
    id->digest = effect->request_digest;
    id->outcome = member;
    if (record->flags & TRANSFER_PENDING) {
        struct copy *pending = copy_make(chain, COPY_PENDING, record->id, effect->id_hash);
        pending->pending = (struct pending){.transfer = *record, .state = PENDING_LIVE};
        if (record->timeout)
            pending->pending.expires_at = record->timestamp + record->timeout * NS_PER_SECOND;
    }
    if (record->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING)) {
        struct copy *pending = copy_pending(
            lcore, record->pending_id, hash_transfer_id(record->pending_id, lcore->digest_seed));
        pending->pending.state =
            record->flags & TRANSFER_POST_PENDING ? PENDING_POSTED : PENDING_VOIDED;
    }
}

/** A member's id was used by an earlier member with other fields: no log is needed to tell how they differ. */
static uint32_t own_exists_status(struct engine_lcore *lcore, const struct transfer *event,
                                  uint64_t id_hash) {
    struct copy *own = copy_find(lcore->chain, COPY_ID, event->id, id_hash);
    if (!own)
        return TRANSFER_STATUS_exists_unresolved;
    const struct transfer *recorded = lcore->chain->members[own->outcome].transfer.record;
    const struct transfer *pending = NULL;
    if (recorded->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING))
        pending = &copy_pending(lcore, recorded->pending_id,
                                hash_transfer_id(recorded->pending_id, lcore->digest_seed))
                       ->pending.transfer;
    return transfer_exists(event, recorded, pending);
}

static void transfer_member(struct engine_lcore *lcore, struct engine_request *request,
                            uint32_t event, uint32_t member, uint64_t decided) {
    struct chain *chain = lcore->chain;
    struct transfer_outcome *outcome = &chain->members[member].transfer;
    struct transfer_effect *effect = &chain->members[member].effect;
    struct transfer buffer;
    const struct transfer *asked = request_transfer(request, event, &buffer);
    struct transfer_view view = {.decided = decided};
    *effect = (struct transfer_effect){.outcome = outcome, .decided = decided};
    effect->id_hash = hash_transfer_id(asked->id, lcore->digest_seed);
    effect->request_digest =
        transfer_digest(asked, hash_id(asked->debit_account_id, lcore->hash_seed),
                        hash_id(asked->credit_account_id, lcore->hash_seed), &lcore->digest_keys);
    uint32_t room = room_count(chain, transfer_partition(asked->id, lcore->partition_count));
    if (unlikely(chain->luggage))
        luggage_gather(lcore, asked, effect, &view);
    else
        transfer_gather(lcore, asked, effect->id_hash, effect->request_digest, room, &view);
    gather_own_ids(lcore, asked, effect, &view);
    view.import_cursor = chain->import_cursor_transfers;
    uint128_t debit_id = asked->debit_account_id, credit_id = asked->credit_account_id;
    if (asked->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING)) {
        gather_pending_copy(lcore, asked, &view);
        /* without it nothing is asked about accounts */
        debit_id = view.pending ? view.pending->transfer.debit_account_id : 0;
        credit_id = view.pending ? view.pending->transfer.credit_account_id : 0;
    }
    effect->debit_hash = hash_id(debit_id, lcore->hash_seed);
    effect->credit_hash = hash_id(credit_id, lcore->hash_seed);
    effect->debit_partition = partition_of_hash(lcore, effect->debit_hash);
    effect->credit_partition = partition_of_hash(lcore, effect->credit_hash);
    struct copy *debit = copy_account(lcore, debit_id, effect->debit_hash);
    struct copy *credit = copy_account(lcore, credit_id, effect->credit_hash);
    view.debit = debit ? &debit->account : NULL;
    view.credit = credit ? &credit->account : NULL;
    effect->debit = debit ? debit->original : NULL;
    effect->credit = credit ? credit->original : NULL;
    if (unlikely(chain->missing_count)) {
        /* its pending transfer came into being on the way: nothing is decided before its accounts are gathered too */
        *outcome = (struct transfer_outcome){.status = TRANSFER_STATUS_linked_event_failed,
                                             .timestamp = decided};
        return;
    }
    if (asked->flags & TRANSFER_IMPORTED)
        view.import_collides = account_timestamp_taken(lcore, asked->timestamp);
    transfer_decide(&view, outcome);
    if (outcome->status == TRANSFER_STATUS_exists_unresolved)
        outcome->status = own_exists_status(lcore, asked, effect->id_hash);
    if (outcome->status == TRANSFER_STATUS_exists)
        outcome->timestamp = view.id_timestamp;
    if (outcome->status == TRANSFER_STATUS_created && outcome->record == &buffer) {
        outcome->changed = buffer;
        outcome->record = &outcome->changed;
    }
    if (outcome->status == TRANSFER_STATUS_created)
        copies_apply(lcore, member, debit, credit);
    else
        transfer_wait(lcore, request, &view, outcome->status);
}

/* --- accounts -------------------------------------------------------------------------------------------------------- */

static void account_member(struct engine_lcore *lcore, struct engine_request *request,
                           uint32_t event, uint32_t member, uint64_t decided) {
    struct chain *chain = lcore->chain;
    struct account_outcome *outcome = &chain->members[member].account;
    struct transfer_effect *effect = &chain->members[member].effect;
    const struct account *asked = (const struct account *)request->events + event;
    struct account_view view = {.decided = decided};
    *effect = (struct transfer_effect){.decided = decided,
                                       .id_hash = hash_id(asked->id, lcore->hash_seed)};
    uint32_t room = room_count(chain, hash_partition(effect->id_hash, lcore->partition_count));
    if (unlikely(chain->luggage)) {
        const struct travel_stop *stop =
            travel_stop_find(lcore, chain->luggage, RECORD_ACCOUNT, asked->id);
        view.event = asked;
        view.existing = stop && stop->present ? &stop->account : NULL;
        view.memory_full = stop && stop->full;
    } else {
        account_gather(lcore, asked, effect->id_hash, room, member + 1, &view);
    }
    struct copy *own = copy_find(chain, COPY_ACCOUNT, asked->id, effect->id_hash);
    if (own)
        view.existing = &own->account;
    view.import_cursor = chain->import_cursor_accounts;
    account_decide(&view, outcome);
    if (outcome->status == ACCOUNT_STATUS_created) {
        own = copy_make(chain, COPY_ACCOUNT, asked->id, effect->id_hash);
        own->account = outcome->record;
        if (outcome->timestamp > chain->import_cursor_accounts)
            chain->import_cursor_accounts = outcome->timestamp;
    } else if (view.existing && !own) {
        request_wait_for(request, group_pending(lcore, view.existing->reserved));
    } else if (outcome->status == ACCOUNT_STATUS_imported_event_timestamp_must_not_regress) {
        request_wait_for(request, group_bound(lcore));
    }
}

/* --- the chain ------------------------------------------------------------------------------------------------------- */

_Static_assert((uint32_t)TRANSFER_STATUS_created == (uint32_t)ACCOUNT_STATUS_created,
               "one number for success");
_Static_assert((uint32_t)TRANSFER_STATUS_linked_event_failed ==
                   (uint32_t)ACCOUNT_STATUS_linked_event_failed,
               "one number");
_Static_assert((uint32_t)TRANSFER_STATUS_linked_event_chain_open ==
                   (uint32_t)ACCOUNT_STATUS_linked_event_chain_open,
               "one number");

uint32_t chain_decide(struct engine_lcore *lcore, struct engine_request *request, uint32_t first,
                      uint32_t count) {
    bool transfers = request->operation == OPERATION_CREATE_TRANSFERS;
    uint32_t failed = count;
    for (uint32_t member = 0; member < count; member++) {
        uint32_t event = first + member;
        struct result *result = &request->results[event];
        *result = (struct result){.timestamp = timestamp_take(lcore)};
        uint32_t status = request_check_event(request, event, result->timestamp);
        if (failed < count && status != TRANSFER_STATUS_linked_event_chain_open)
            status = TRANSFER_STATUS_linked_event_failed;
        if (status == TRANSFER_STATUS_created && transfers) {
            transfer_member(lcore, request, event, member, result->timestamp);
            status = lcore->chain->members[member].transfer.status;
            result->timestamp = lcore->chain->members[member].transfer.timestamp;
        } else if (status == TRANSFER_STATUS_created) {
            account_member(lcore, request, event, member, result->timestamp);
            status = lcore->chain->members[member].account.status;
            result->timestamp = lcore->chain->members[member].account.timestamp;
        }
        result->status = status;
        if (status != TRANSFER_STATUS_created && failed == count)
            failed = member;
    }
    return failed;
}

void chain_fail_earlier(struct engine_lcore *lcore, struct engine_request *request, uint32_t first,
                        uint32_t failed) {
    /* That it is this member which failed shows what the earlier ones were decided on, too. */
    if (failed != 0)
        request_wait_for(request, group_bound(lcore));
    for (uint32_t member = 0; member < failed; member++)
        request->results[first + member] =
            (struct result){.timestamp = lcore->chain->members[member].effect.decided,
                            .status = TRANSFER_STATUS_linked_event_failed};
}

/** The chain failed at `failed`: nothing took effect, but the id of that member may be burnt, and its status may need the log. */
static void chain_fail(struct engine_lcore *lcore, struct engine_request *request, uint32_t first,
                       uint32_t failed) {
    chain_fail_earlier(lcore, request, first, failed);
    if (request->operation != OPERATION_CREATE_TRANSFERS)
        return;
    struct transfer buffer;
    const struct transfer *asked = request_transfer(request, first + failed, &buffer);
    uint64_t id_hash = hash_transfer_id(asked->id, lcore->digest_seed);
    struct result *result = &request->results[first + failed];
    if (result->status == TRANSFER_STATUS_exists_unresolved) {
        const struct id_record *record =
            id_find(&partition_of_transfer(lcore, asked->id)->ids, asked->id, id_hash);
        request_fetch(lcore, request, first + failed, record);
    } else if (transfer_status_burns_id(result->status) && !PLANTED(chain_burns_nothing)) {
        transfer_burn(lcore, asked->id, id_hash, result->timestamp, result->status);
        request_wait_for(request, lcore->open_group);
    }
}

static void chain_install(struct engine_lcore *lcore, struct engine_request *request,
                          uint32_t count) {
    for (uint32_t member = 0; member < count - PLANTED(chain_by_half); member++) {
        struct member *done = &lcore->chain->members[member];
        if (request->operation == OPERATION_CREATE_TRANSFERS)
            transfer_install(lcore, &done->effect);
        else
            account_install(lcore, &done->account.record, done->effect.id_hash,
                            done->effect.decided);
    }
    request_wait_for(request, lcore->open_group);
}

/** Balances of every member's home account, after the whole chain. */
static void chain_balances(struct engine_lcore *lcore, struct engine_request *request,
                           uint32_t first, uint32_t count) {
    for (uint32_t event = first; event < first + count; event++) {
        struct transfer buffer;
        uint128_t id;
        if (request->operation == OPERATION_CREATE_ACCOUNTS) {
            id = ((const struct account *)request->events + event)->id;
        } else {
            const struct transfer *asked = request_transfer(request, event, &buffer);
            id = asked->debit_account_id;
            if (id == 0 && asked->pending_id) {
                uint64_t hash = hash_transfer_id(asked->pending_id, lcore->digest_seed);
                struct partition *partition = partition_of_transfer(lcore, asked->pending_id);
                uint32_t slot =
                    pending_find(&partition->pendings, asked->pending_id, hash, lcore->horizon_ms);
                if (slot != INDEX_NONE)
                    id = pending_at(&partition->pendings, slot)->transfer.debit_account_id;
            }
        }
        const struct account *account =
            lcore_account_find(lcore, id, hash_id(id, lcore->hash_seed));
        request->balances[event] = (struct balances){0};
        if (account) {
            account_balances(account, &request->balances[event]);
            request_wait_for(request, group_pending(lcore, account->reserved));
        }
    }
}

void chain_execute(struct engine_lcore *lcore, struct engine_request *request, uint32_t first,
                   uint32_t count) {
    chain_reset(lcore, lcore->chain, count);
    uint32_t failed = chain_decide(lcore, request, first, count);
    if (failed == count)
        chain_install(lcore, request, count);
    else
        chain_fail(lcore, request, first, failed);
    if (request->options & REQUEST_BALANCES)
        chain_balances(lcore, request, first, count);
}

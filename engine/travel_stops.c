/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "engine/traveller.h"

/* What an event needs, where that is, and whether it has to travel at all. */

/* --- stops ------------------------------------------------------------------------------------------------------------- */

static uint64_t key_hash(const struct engine_lcore *lcore, enum record_kind kind, uint128_t key) {
    return kind == RECORD_ACCOUNT ? hash_id(key, lcore->hash_seed)
                                  : hash_transfer_id(key, lcore->digest_seed);
}

static unsigned key_partition(const struct engine_lcore *lcore, enum record_kind kind,
                              uint128_t key, uint64_t hash) {
    return kind == RECORD_ACCOUNT
               ? (unsigned)hash_partition_by(hash, lcore->partition_count, lcore->partition_magic)
               : transfer_partition(key, lcore->partition_count);
}

/** Ids that no record can have: the decision says so without looking. */
static bool key_is_void(uint128_t key) {
    return key == 0 || key == UINT128_MAX;
}

void travel_stop_add(const struct engine_lcore *lcore, struct traveller *traveller,
                     enum record_kind kind, uint128_t key, bool creates) {
    if (key_is_void(key))
        return;
    uint64_t hash = key_hash(lcore, kind, key);
    assert(traveller->stop_count < traveller->stop_room);
    struct travel_stop *stop = &traveller->stops[traveller->stop_count++];
    stop->key = key;
    stop->hash = hash;
    stop->partition = (uint16_t)key_partition(lcore, kind, key, hash);
    stop->kind = (uint8_t)kind;
    stop->creates = creates;
    stop->present = stop->full = stop->installs = false;
}

static int stop_compare(const struct travel_stop *a, unsigned partition, unsigned kind,
                        uint128_t key) {
    if (a->partition != partition)
        return a->partition < partition ? -1 : 1;
    if (a->kind != kind)
        return a->kind < kind ? -1 : 1;
    return a->key < key ? -1 : a->key > key;
}

static int stops_compare(const void *left, const void *right) {
    const struct travel_stop *b = right;
    return stop_compare(left, b->partition, b->kind, b->key);
}

void travel_stops_sort(struct traveller *traveller) {
    struct travel_stop *stops = traveller->stops;
    uint32_t kept = 0;
    qsort(stops, traveller->stop_count, sizeof(*stops), stops_compare);
    for (uint32_t i = 0; i < traveller->stop_count; i++) {
        if (kept && stops_compare(&stops[kept - 1], &stops[i]) == 0) {
            stops[kept - 1].creates |= stops[i].creates;
            continue;
        }
        if (kept != i)
            stops[kept] = stops[i];
        kept++;
    }
    traveller->stop_count = kept;
}

uint32_t travel_stop_first(const struct traveller *traveller, unsigned partition, unsigned kind,
                           uint128_t key) {
    uint32_t low = 0, high = traveller->stop_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (stop_compare(&traveller->stops[middle], partition, kind, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct travel_stop *travel_stop_find(const struct engine_lcore *lcore,
                                     const struct traveller *traveller, enum record_kind kind,
                                     uint128_t key) {
    unsigned partition = key_partition(lcore, kind, key, key_hash(lcore, kind, key));
    uint32_t i = travel_stop_first(traveller, partition, kind, key);
    return i < traveller->stop_count &&
                   stop_compare(&traveller->stops[i], partition, kind, key) == 0
               ? &traveller->stops[i]
               : NULL;
}

void travel_stops_complete(const struct engine_lcore *lcore, struct traveller *traveller) {
    uint32_t looked = traveller->stop_count;
    for (uint32_t i = 0; i < looked; i++) {
        const struct travel_stop *stop = &traveller->stops[i];
        if (stop->kind != RECORD_PENDING || !stop->present)
            continue;
        uint128_t debit = stop->pending.transfer.debit_account_id,
                  credit = stop->pending.transfer.credit_account_id;
        travel_stop_add(lcore, traveller, RECORD_ACCOUNT, debit, false);
        travel_stop_add(lcore, traveller, RECORD_ACCOUNT, credit, false);
    }
    traveller->peeking = false;
    traveller->stop_next = 0;
    travel_stops_sort(traveller);
}

/** What one event needs, as far as it says so itself. @return whether a pending transfer has to be looked at first */
static bool event_stops(const struct engine_lcore *lcore, struct traveller *traveller,
                        const struct transfer *event) {
    const uint16_t resolves = TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING;
    travel_stop_add(lcore, traveller, RECORD_ID, event->id, true);
    if (event->flags & resolves) {
        travel_stop_add(lcore, traveller, RECORD_ID, event->pending_id, false);
        travel_stop_add(lcore, traveller, RECORD_PENDING, event->pending_id, false);
        return !key_is_void(event->pending_id);
    }
    travel_stop_add(lcore, traveller, RECORD_ACCOUNT, event->debit_account_id, false);
    travel_stop_add(lcore, traveller, RECORD_ACCOUNT, event->credit_account_id, false);
    if (event->flags & TRANSFER_PENDING)
        travel_stop_add(lcore, traveller, RECORD_PENDING, event->id, true);
    return false;
}

/* --- at a stop ----------------------------------------------------------------------------------------------------------- */

void travel_load(struct engine_lcore *lcore, struct travel_stop *stop) {
    struct partition *partition = &lcore->partitions[stop->partition];
    stop->present = false;
    if (stop->kind == RECORD_ACCOUNT) {
        uint32_t slot = account_find(&partition->accounts, stop->key, stop->hash);
        stop->present = slot != INDEX_NONE;
        if (stop->present)
            stop->account = *account_at(&partition->accounts, slot);
    } else if (stop->kind == RECORD_ID) {
        const struct id_record *record = id_find(&partition->ids, stop->key, stop->hash);
        stop->present = record != NULL;
        if (record)
            stop->id = *record;
    } else {
        uint32_t slot =
            pending_find(&partition->pendings, stop->key, stop->hash, lcore->horizon_ms);
        stop->present = slot != INDEX_NONE;
        if (stop->present)
            stop->pending = *pending_at(&partition->pendings, slot);
    }
}

/** An id may be in the window of whoever decides although it is not in ours yet: clocks and groups differ a little. */
#define WINDOW_SLACK_MS 1000u

static bool id_nearly_in_window(const struct engine_lcore *lcore, uint128_t id) {
    return !lcore->id_time ||
           (id_time_ms(id) >= lcore->horizon_ms &&
            id_time_ms(id) <= lcore->cell_time / NS_PER_MS + ID_AHEAD_MAX_MS + WINDOW_SLACK_MS);
}

void travel_room_take(struct engine_lcore *lcore, struct travel_stop *stop) {
    struct partition *partition = &lcore->partitions[stop->partition];
    stop->full = false;
    if (!stop->creates || stop->present)
        return;
    if (stop->kind == RECORD_ID) {
        stop->full =
            !id_nearly_in_window(lcore, stop->key) ||
            id_reserve(&partition->ids, &lcore->memory, stop->key, partition->ids_kept + 1) != 0;
        partition->ids_kept += !stop->full;
    } else if (stop->kind == RECORD_PENDING) {
        stop->full = pending_reserve(&partition->pendings, &lcore->memory,
                                     partition->pendings_kept + 1) != 0;
        partition->pendings_kept += !stop->full;
    } else {
        stop->full = account_room_reserve(lcore, partition, partition->accounts_kept + 1,
                                          lcore->travel->accounts_kept + 1) != 0;
        partition->accounts_kept += !stop->full;
        lcore->travel->accounts_kept += !stop->full;
    }
}

void travel_room_give(struct engine_lcore *lcore, const struct travel_stop *stop) {
    struct partition *partition = &lcore->partitions[stop->partition];
    if (!stop->creates || stop->present || stop->full)
        return;
    if (stop->kind == RECORD_ID) {
        partition->ids_kept--;
    } else if (stop->kind == RECORD_PENDING) {
        partition->pendings_kept--;
    } else {
        partition->accounts_kept--;
        lcore->travel->accounts_kept--;
    }
}

/* --- here, or not? --------------------------------------------------------------------------------------------------------- */

static bool record_is_here(const struct engine_lcore *lcore, enum record_kind kind, uint128_t key) {
    if (key_is_void(key))
        return true;
    uint64_t hash = key_hash(lcore, kind, key);
    const struct partition *partition = &lcore->partitions[key_partition(lcore, kind, key, hash)];
    return partition->owner == lcore->index &&
           (likely(!partition->out) || !checkout_find(&lcore->travel->out, kind, key, hash));
}

/** The accounts of a pending transfer that is here. */
static bool pending_is_here(const struct engine_lcore *lcore, uint128_t id) {
    if (!record_is_here(lcore, RECORD_PENDING, id) || !record_is_here(lcore, RECORD_ID, id))
        return false;
    const struct partition *partition = partition_of_transfer(lcore, id);
    uint32_t slot = pending_find(&partition->pendings, id, hash_transfer_id(id, lcore->digest_seed),
                                 lcore->horizon_ms);
    if (slot == INDEX_NONE)
        return true;
    const struct transfer *transfer = &pending_at(&partition->pendings, slot)->transfer;
    return record_is_here(lcore, RECORD_ACCOUNT, transfer->debit_account_id) &&
           record_is_here(lcore, RECORD_ACCOUNT, transfer->credit_account_id);
}

static bool transfer_is_here(const struct engine_lcore *lcore, const struct transfer *event) {
    if (!record_is_here(lcore, RECORD_ID, event->id))
        return false;
    if (event->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING))
        return key_is_void(event->pending_id) || pending_is_here(lcore, event->pending_id);
    return record_is_here(lcore, RECORD_ACCOUNT, event->debit_account_id) &&
           record_is_here(lcore, RECORD_ACCOUNT, event->credit_account_id) &&
           (!(event->flags & TRANSFER_PENDING) || record_is_here(lcore, RECORD_PENDING, event->id));
}

/** A plain transfer of a burst, from what its first pass found. */
static inline bool prepared_is_here(const struct engine_lcore *lcore,
                                    const struct prepared *prepared) {
    const struct partition *home = prepared->home, *debit = prepared->partition[0],
                           *credit = prepared->partition[1];
    unsigned elsewhere = (home->owner ^ lcore->index) | (debit->owner ^ lcore->index) |
                         (credit->owner ^ lcore->index);
    return !elsewhere && !(home->out | debit->out | credit->out);
}

static bool lookup_is_here(const struct engine_lcore *lcore, unsigned operation, uint128_t id) {
    if (operation == OPERATION_LOOKUP_ACCOUNTS)
        return record_is_here(lcore, RECORD_ACCOUNT, id);
    /* below the horizon nobody has to be asked */
    return (lcore->id_time && id_time_ms(id) < lcore->horizon_ms) ||
           record_is_here(lcore, RECORD_ID, id);
}

static bool members_are_here(const struct engine_lcore *lcore, const struct engine_request *request,
                             uint32_t event, uint32_t count) {
    for (uint32_t i = event; i < event + count; i++) {
        struct transfer buffer;
        bool here;
        if (request->operation == OPERATION_CREATE_TRANSFERS)
            here = transfer_is_here(lcore, request_transfer(request, i, &buffer));
        else if (request->operation == OPERATION_CREATE_ACCOUNTS)
            here = record_is_here(lcore, RECORD_ACCOUNT,
                                  ((const struct account *)request->events)[i].id);
        else
            here =
                lookup_is_here(lcore, request->operation, ((const uint128_t *)request->events)[i]);
        if (!here)
            return false;
    }
    return true;
}

/* --- order within a request --------------------------------------------------------------------------------------------------- */

static uint64_t filter_bit(uint128_t key) {
    return (uint64_t)1 << (hash_mix64((uint64_t)key ^ (uint64_t)(key >> 64)) >> 58);
}

/** A bit for each account and id that the events name; all of them where an account is not known yet. */
static uint64_t events_filter(const struct engine_request *request, uint32_t event,
                              uint32_t count) {
    uint64_t filter = 0;
    for (uint32_t i = event; i < event + count; i++) {
        struct transfer buffer;
        if (request->operation == OPERATION_CREATE_ACCOUNTS) {
            filter |= filter_bit(((const struct account *)request->events)[i].id);
            continue;
        }
        if (request->operation != OPERATION_CREATE_TRANSFERS)
            return 0; /* lookups change nothing */
        const struct transfer *asked = request_transfer(request, i, &buffer);
        if (request->imported || (asked->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING)))
            return UINT64_MAX;
        filter |= filter_bit(asked->id) | filter_bit(asked->debit_account_id) |
                  filter_bit(asked->credit_account_id);
    }
    return filter;
}

/* --- the start ----------------------------------------------------------------------------------------------------------------- */

static struct traveller *traveller_take(struct engine_lcore *lcore, uint32_t count,
                                        enum traveller_kind kind) {
    struct travel *travel = lcore->travel;
    if (travel->settle)
        return NULL; /* not now */
    struct traveller *traveller = traveller_pop(count == 1 ? &travel->free : &travel->free_chains);
    if (!traveller)
        return NULL;
    struct traveller clean = {
        .kind = (uint8_t)kind,
        .origin = traveller->origin,
        .count = count,
        .stop_room = traveller->stop_room,
        .stops = traveller->stops,
        .outcomes = traveller->outcomes,
    };
    *traveller = clean;
    travel->away++;
    return traveller;
}

static void traveller_leave(struct engine_lcore *lcore, struct traveller *traveller,
                            struct engine_request *request, uint32_t event) {
    traveller->request = request;
    traveller->event = event;
    traveller->asked = *request;
    request->away++;
    traveller_push(&lcore->travel->runnable, traveller);
}

static void start_events(struct engine_lcore *lcore, struct traveller *traveller,
                         struct engine_request *request, uint32_t event) {
    bool peeking = false;
    for (uint32_t i = event; i < event + traveller->count; i++) {
        struct transfer buffer;
        if (request->operation == OPERATION_CREATE_ACCOUNTS)
            travel_stop_add(lcore, traveller, RECORD_ACCOUNT,
                            ((const struct account *)request->events)[i].id, true);
        else
            peeking |= event_stops(lcore, traveller, request_transfer(request, i, &buffer));
    }
    traveller->peeking = peeking;
    if (!peeking)
        travel_stops_sort(traveller);
}

uint32_t travel_run(const struct engine_lcore *lcore, const struct engine_request *request,
                    const struct prepared *prepared, uint32_t count) {
    uint32_t run = 0;
    /* the straight way knows neither of room that is kept nor of order within a request */
    while (run < count && prepared_is_here(lcore, &prepared[run]) &&
           !prepared[run].home->ids_kept &&
           !(request->away &&
             (events_filter(request, request->next_event + run, 1) & request->away_filter)))
        run++;
    return run;
}

enum travel_answer travel_event(struct engine_lcore *lcore, struct engine_request *request,
                                uint32_t event, uint32_t count, const struct prepared *prepared) {
    bool transfers = request->operation == OPERATION_CREATE_TRANSFERS;
    bool creates = transfers || request->operation == OPERATION_CREATE_ACCOUNTS;
    uint64_t filter = creates ? events_filter(request, event, count) : 0;
    if (request->away && (filter & request->away_filter))
        return TRAVEL_EARLIER;
    bool plain = transfers && count == 1 && filter != UINT64_MAX && !request->imported;
    if ((plain && prepared_is_here(lcore, prepared)) ||
        members_are_here(lcore, request, event, count))
        return TRAVEL_HERE;
    struct traveller *traveller =
        traveller_take(lcore, count, creates ? TRAVEL_EVENTS : TRAVEL_LOOKUP);
    if (!traveller)
        return TRAVEL_FULL;
    if (creates)
        start_events(lcore, traveller, request, event);
    else
        travel_stop_add(lcore, traveller,
                        request->operation == OPERATION_LOOKUP_ACCOUNTS ? RECORD_ACCOUNT
                                                                        : RECORD_ID,
                        ((const uint128_t *)request->events)[event], false);
    request->away_filter |= filter;
    traveller_leave(lcore, traveller, request, event);
    return TRAVEL_LEFT;
}

bool travel_expiry(struct engine_lcore *lcore, struct partition *partition, uint32_t slot,
                   bool *full) {
    struct pending *pending = pending_at(&partition->pendings, slot);
    const struct transfer *transfer = &pending->transfer;
    *full = false;
    if (!lcore->travel || pending_is_here(lcore, transfer->id))
        return false;
    struct traveller *traveller = traveller_take(lcore, 1, TRAVEL_EXPIRY);
    *full = !traveller;
    if (!traveller)
        return true;
    travel_stop_add(lcore, traveller, RECORD_PENDING, transfer->id, false);
    travel_stop_add(lcore, traveller, RECORD_ACCOUNT, transfer->debit_account_id, false);
    travel_stop_add(lcore, traveller, RECORD_ACCOUNT, transfer->credit_account_id, false);
    travel_stops_sort(traveller);
    pending_expiry_starts(&partition->pendings, slot);
    traveller_push(&lcore->travel->runnable, traveller);
    return true;
}

bool travel_retry(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                  const struct transfer *recorded) {
    if (!lcore->travel || record_is_here(lcore, RECORD_PENDING, recorded->pending_id))
        return false;
    struct traveller *traveller = traveller_take(lcore, 1, TRAVEL_RETRY);
    assert(traveller);
    traveller->recorded = *recorded;
    travel_stop_add(lcore, traveller, RECORD_PENDING, recorded->pending_id, false);
    traveller_leave(lcore, traveller, request, event);
    return true;
}

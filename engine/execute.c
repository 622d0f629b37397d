/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/traveller.h"

/** One turn over what is queued: burst by burst, each looked up as a whole (prepare.c) and then executed in order. */

_Static_assert((uint32_t)TRANSFER_STATUS_timestamp_must_be_zero ==
                   (uint32_t)ACCOUNT_STATUS_timestamp_must_be_zero,
               "one number");

static uint16_t event_flags(const struct engine_request *request, uint32_t event) {
    if (request->operation == OPERATION_CREATE_ACCOUNTS)
        return ((const struct account *)request->events)[event].flags;
    if (request->event_format == EVENT_FORMAT_COMPACT)
        return ((const struct compact_transfer *)request->events)[event].flags;
    return ((const struct transfer *)request->events)[event].flags;
}

static uint64_t event_timestamp(const struct engine_request *request, uint32_t event) {
    if (request->operation == OPERATION_CREATE_ACCOUNTS)
        return ((const struct account *)request->events)[event].timestamp;
    if (request->event_format == EVENT_FORMAT_COMPACT)
        return 0;
    return ((const struct transfer *)request->events)[event].timestamp;
}

bool request_is_imported(const struct engine_request *request) {
    if (request->operation == OPERATION_CREATE_ACCOUNTS)
        return event_flags(request, 0) & ACCOUNT_IMPORTED;
    return request->operation == OPERATION_CREATE_TRANSFERS &&
           (event_flags(request, 0) & TRANSFER_IMPORTED);
}

uint32_t request_check_event(const struct engine_request *request, uint32_t event,
                             uint64_t decided) {
    bool account = request->operation == OPERATION_CREATE_ACCOUNTS;
    unsigned imported_bit = account ? ACCOUNT_IMPORTED : TRANSFER_IMPORTED;
    uint16_t flags = event_flags(request, event);
    if ((flags & TRANSFER_LINKED) && event == request->event_count - 1)
        return TRANSFER_STATUS_linked_event_chain_open;
    bool imported = flags & imported_bit;
    if (imported != request->imported) {
        if (imported)
            return account ? (uint32_t)ACCOUNT_STATUS_imported_event_not_expected
                           : (uint32_t)TRANSFER_STATUS_imported_event_not_expected;
        return account ? (uint32_t)ACCOUNT_STATUS_imported_event_expected
                       : (uint32_t)TRANSFER_STATUS_imported_event_expected;
    }
    uint64_t timestamp = event_timestamp(request, event);
    if (!imported)
        return timestamp ? (uint32_t)TRANSFER_STATUS_timestamp_must_be_zero
                         : (uint32_t)TRANSFER_STATUS_created;
    if (timestamp == 0 || timestamp > TIMESTAMP_MAX)
        return account ? (uint32_t)ACCOUNT_STATUS_imported_event_timestamp_out_of_range
                       : (uint32_t)TRANSFER_STATUS_imported_event_timestamp_out_of_range;
    if (timestamp >= decided)
        return account ? (uint32_t)ACCOUNT_STATUS_imported_event_timestamp_must_not_advance
                       : (uint32_t)TRANSFER_STATUS_imported_event_timestamp_must_not_advance;
    return TRANSFER_STATUS_created;
}

/* --- execute ----------------------------------------------------------------------------------------------- */

static uint32_t chain_length(const struct engine_request *request, uint32_t first) {
    uint32_t event = first;
    while (event < request->event_count - 1 && (event_flags(request, event) & TRANSFER_LINKED))
        event++;
    return event - first + 1;
}

enum progress {
    PROGRESS_DONE,    /**< all of the request's events, or as many as were prepared */
    PROGRESS_NO_ROOM, /**< the log buffer is full, its group's horizon too old, or no chunk is left for what would have to be saved:
                           decide nothing until the next group, or until chunks come back */
    PROGRESS_STALLED, /**< every fetch slot is taken */
    PROGRESS_BLOCKED, /**< the next event has to wait for earlier ones of the request, which travel */
    PROGRESS_FULL,    /**< it has to travel, and no traveller is free */
    PROGRESS_ALONE,   /**< imported events wait until this lcore has all tables to itself */
};

/** Whether this group's horizon is so far behind that the ids in use would not fit the window. Then the group has to be sealed first. */
bool horizon_stale(struct engine_lcore *lcore) {
    const struct engine_config *config = &lcore->engine->config;
    if (!lcore->id_time)
        return false;
    uint64_t age_ms = lcore->cell_time / NS_PER_MS - lcore->horizon_ms;
    if (likely(age_ms <= config->horizon_back_ms + config->horizon_slack_ms))
        return false;
    atomic_store_explicit(&lcore->lane->wanted_group, lcore->open_group, memory_order_relaxed);
    return true;
}

/** Execute a request's events from next_event on, at most `prepared_count` of them (a chain counts whole).
 *  @param used how many were executed */
static enum progress request_execute(struct engine_lcore *lcore, struct engine_request *request,
                                     struct prepared *prepared, unsigned prepared_count,
                                     unsigned *used) {
    bool creates = request->operation == OPERATION_CREATE_TRANSFERS ||
                   request->operation == OPERATION_CREATE_ACCOUNTS;
    uint32_t slots = request->operation == OPERATION_LOOKUP_ACCOUNTS    ? 0
                     : request->operation == OPERATION_LOOKUP_TRANSFERS ? FETCHES_FOR_CREATES + 1
                                                                        : 1;
    bool plain = request->operation == OPERATION_CREATE_TRANSFERS &&
                 request->event_format == EVENT_FORMAT_COMPACT && !request->imported;
    while (request->next_event < request->event_count && *used < prepared_count) {
        uint32_t event = request->next_event;
        uint32_t count = 1;
        if (likely(plain)) {
            uint32_t left = request->event_count - event;
            left = left < prepared_count - *used ? left : prepared_count - *used;
            if (unlikely(lcore->travel))
                left = travel_run(lcore, request, &prepared[*used], left);
            uint32_t done = transfers_execute_plain(
                lcore, request, (const struct compact_transfer *)request->events + event,
                &prepared[*used], left);
            request->next_event = event += done;
            *used += done;
            if (likely(done == left && left))
                continue;
        }
        if (unlikely(lcore->travel) && request->imported && !travel_alone(lcore))
            return PROGRESS_ALONE;
        if (unlikely(lcore->fetch_free_count < slots))
            return PROGRESS_STALLED;
        if (creates) {
            if (unlikely(event_flags(request, event) & TRANSFER_LINKED))
                count = chain_length(request, event);
            if (unlikely(!segment_has_room(lcore, (size_t)count * TRANSFER_RECORD_BYTES_MAX) ||
                         !checkpoint_has_room(lcore, count)))
                return PROGRESS_NO_ROOM;
        }
        if (unlikely(lcore->travel) && !request->imported) {
            enum travel_answer answer =
                travel_event(lcore, request, event, count, &prepared[*used]);
            if (answer == TRAVEL_EARLIER)
                return PROGRESS_BLOCKED;
            if (answer == TRAVEL_FULL)
                return PROGRESS_FULL;
            if (answer == TRAVEL_LEFT) {
                request->next_event += count;
                *used += count;
                continue;
            }
        }
        if (count > 1)
            chain_execute(lcore, request, event, count);
        else if (request->operation == OPERATION_CREATE_TRANSFERS)
            transfer_execute(lcore, request, event, &prepared[*used]);
        else if (request->operation == OPERATION_CREATE_ACCOUNTS)
            account_execute(lcore, request, event, &prepared[*used]);
        else if (request->operation == OPERATION_LOOKUP_ACCOUNTS)
            lookup_account(lcore, request, event, &prepared[*used]);
        else
            lookup_transfer(lcore, request, event);
        request->next_event += count;
        *used += count;
    }
    return PROGRESS_DONE;
}

static unsigned take_answers(struct engine_lcore *lcore) {
    struct wal_fetch answer;
    unsigned count = 0;
    while (travel_has_slot(lcore) && wal_lane_fetched(lcore->lane, &answer)) {
        struct fetch_slot *slot = &lcore->fetches[answer.cookie];
        struct engine_request *request = slot->request;
        lookup_fetched(lcore, slot, &answer);
        slot->free_next = lcore->fetch_free;
        lcore->fetch_free = (uint32_t)answer.cookie + 1;
        lcore->fetch_free_count++;
        if (--request->unresolved == 0 && request->next_event == request->event_count &&
            !request->away)
            request_hold(lcore, request);
        count++;
    }
    /* Whoever waited for a slot goes on, before anybody newer. */
    if (count)
        queue_prepend(&lcore->queue, &lcore->stalled);
    return count;
}

/** Release some resolved pending transfers below the horizon. @return how many */
static unsigned forget_pendings(struct engine_lcore *lcore, struct partition *partition) {
    struct pending_table *pendings = &partition->pendings;
    if (likely(!lcore->checkpointing))
        return pending_forget(pendings, lcore->forgetting_ms, lcore->digest_seed, FORGETS_PER_TURN);
    unsigned count = 0;
    uint32_t slot;
    while (count < FORGETS_PER_TURN &&
           (slot = pending_forget_next(pendings, lcore->forgetting_ms)) != INDEX_NONE) {
        pending_changes(lcore, partition, slot);
        count += pending_forget(pendings, lcore->forgetting_ms, lcore->digest_seed, 1);
    }
    return count;
}

/** Memory that the horizon gave back: ids slice by slice, resolved pendings one by one, a bounded number a turn. */
static void forget(struct engine_lcore *lcore) {
    if (!lcore->id_time || lcore->forgotten_ms == lcore->horizon_ms ||
        !checkpoint_has_room(lcore, FORGETS_PER_TURN))
        return;
    unsigned step = lcore->engine->config.lcores;
    if (lcore->forget_next == lcore->index)
        lcore->forgetting_ms = lcore->horizon_ms;
    for (unsigned i = 0; i < 8; i++) {
        struct partition *partition = &lcore->partitions[lcore->forget_next];
        if (id_forget(&partition->ids, &lcore->memory, lcore->forgetting_ms, 1))
            return;
        if (forget_pendings(lcore, partition))
            return;
        lcore->forget_next += step;
        if (lcore->forget_next >= lcore->partition_count) {
            lcore->forget_next = lcore->index;
            lcore->forgotten_ms = lcore->forgetting_ms;
            return;
        }
    }
}

/** Ask for a higher horizon while less than an eighth of the memory is free: the oldest slice of ids goes first. */
static void watch_memory(struct engine_lcore *lcore) {
    if (likely(lcore->memory.units_free > lcore->memory.unit_count / 8)) {
        atomic_store_explicit(&lcore->lane->horizon_wanted_ms, 0, memory_order_relaxed);
        return;
    }
    if (!lcore->id_time || lcore->forgotten_ms != lcore->horizon_ms)
        return;
    uint64_t oldest = UINT64_MAX;
    for (unsigned p = lcore->index; p < lcore->partition_count; p += lcore->engine->config.lcores) {
        uint64_t ms = id_oldest_ms(&lcore->partitions[p].ids);
        oldest = ms < oldest ? ms : oldest;
    }
    if (oldest != UINT64_MAX)
        atomic_store_explicit(&lcore->lane->horizon_wanted_ms, oldest + ID_SLICE_MS,
                              memory_order_relaxed);
}

unsigned engine_execute(struct engine_lcore *lcore, unsigned events_max) {
    if (travel_frozen(lcore))
        return engine_exchange(lcore);
    unsigned work = take_answers(lcore);
    work += expire_due(lcore);
    forget(lcore);
    unsigned executed = 0;
    while (executed < events_max && lcore->queue.head) {
        if (unlikely(horizon_stale(lcore))) {
            if (unlikely(lcore->travel))
                travel_alone_end(lcore); /* no group would be opened while it lasts */
            break;
        }
        unsigned prepared = prepare_burst(lcore), used = 0;
        enum progress progress = PROGRESS_DONE;
        while (used < prepared && progress == PROGRESS_DONE && lcore->queue.head) {
            struct engine_request *request = lcore->queue.head;
            progress = request_execute(lcore, request, lcore->prepared, prepared, &used);
            if (request->next_event == request->event_count) {
                queue_pop(&lcore->queue);
                if (!request->unresolved && !request->away)
                    request_hold(lcore, request);
            } else if (progress == PROGRESS_STALLED) {
                queue_pop(&lcore->queue);
                queue_push(&lcore->stalled, request);
            } else if (progress == PROGRESS_BLOCKED) {
                queue_pop(&lcore->queue);
                request->blocked = true;
            } else if (progress == PROGRESS_FULL) {
                queue_pop(&lcore->queue);
                queue_push(&lcore->travel->waiting, request);
            }
        }
        executed += used;
        if (progress == PROGRESS_NO_ROOM || progress == PROGRESS_ALONE)
            break;
    }
    if (executed)
        watch_memory(lcore);
    if (unlikely(lcore->travel)) {
        if (lcore->travel->alone)
            travel_alone_end(lcore);
        work += engine_exchange(lcore);
    }
    return work + executed;
}

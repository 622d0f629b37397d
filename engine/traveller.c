/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/traveller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The way of a traveller: from lcore to lcore to what it needs, back to every partition with the outcome, and home. What it needs stands
 * in travel_stops.c, the decision in travel_decide.c. */

/* --- memory ----------------------------------------------------------------------------------------------------------- */

/** Messages of one ring at a time: every traveller of every lcore may have one for each partition that it visited. */
uint32_t travel_ring_capacity(const struct engine_config *config) {
    uint32_t chain_stops = config->partitions < REQUEST_EVENTS_MAX * TRAVEL_STOPS
                               ? config->partitions
                               : REQUEST_EVENTS_MAX * TRAVEL_STOPS;
    return config->lcores * (TRAVEL_SLOTS * TRAVEL_STOPS + TRAVEL_CHAIN_SLOTS * chain_stops);
}

static void slots_make(struct travel *travel, unsigned origin) {
    struct travel_stop *stops = travel->memory;
    const uint32_t all_stops =
        (TRAVEL_SLOTS + TRAVEL_CHAIN_SLOTS * REQUEST_EVENTS_MAX) * TRAVEL_STOPS;
    struct travel_outcome *outcomes = (void *)(stops + all_stops);
    for (unsigned i = 0; i < TRAVEL_SLOTS + TRAVEL_CHAIN_SLOTS; i++) {
        struct traveller *traveller = &travel->slots[i];
        uint32_t events = i < TRAVEL_SLOTS ? 1 : REQUEST_EVENTS_MAX;
        traveller->origin = (uint8_t)origin;
        traveller->stops = stops;
        traveller->outcomes = outcomes;
        traveller->stop_room = events * TRAVEL_STOPS;
        stops += traveller->stop_room;
        outcomes += events;
        traveller_push(events == 1 ? &travel->free : &travel->free_chains, traveller);
    }
}

int travel_open(struct engine_lcore *lcore) {
    const struct engine_config *config = &lcore->engine->config;
    const uint32_t events = TRAVEL_SLOTS + TRAVEL_CHAIN_SLOTS * REQUEST_EVENTS_MAX;
    struct travel *travel = calloc(1, sizeof(*travel));
    if (!travel)
        return -ENOMEM;
    lcore->travel = travel;
    travel->slots = calloc(TRAVEL_SLOTS + TRAVEL_CHAIN_SLOTS, sizeof(struct traveller));
    /* not touched before it is used: a chain of thousands is rare */
    size_t bytes =
        (sizeof(struct travel_stop) * TRAVEL_STOPS + sizeof(struct travel_outcome)) * events;
    travel->memory = aligned_alloc(CACHE_LINE_BYTES, (bytes + CACHE_LINE_BYTES - 1) &
                                                         ~(size_t)(CACHE_LINE_BYTES - 1));
    if (!travel->slots || !travel->memory ||
        checkout_open(&travel->out, config->lcores * events * TRAVEL_STOPS))
        return -ENOMEM;
    slots_make(travel, lcore->index);
    return 0;
}

void travel_close(struct engine_lcore *lcore) {
    struct travel *travel = lcore->travel;
    if (!travel)
        return;
    checkout_close(&travel->out);
    free(travel->slots);
    free(travel->memory);
    free(travel);
    lcore->travel = NULL;
}

/* --- sending ----------------------------------------------------------------------------------------------------------- */

static void send(struct engine_lcore *lcore, unsigned to, enum exchange_kind kind,
                 struct traveller *traveller, unsigned partition) {
    struct exchange_message message = {
        .traveller = traveller,
        .open_group = lcore->open_group,
        .last_timestamp = lcore->last_timestamp,
        .kind = (uint16_t)kind,
        .partition = (uint16_t)partition,
    };
    exchange_put(exchange_ring(&lcore->engine->exchange, lcore->index, to), &message);
}

static void go_home(struct engine_lcore *lcore, struct traveller *traveller) {
    if (traveller->origin == lcore->index)
        traveller_push(&lcore->travel->returned, traveller);
    else
        send(lcore, traveller->origin, EXCHANGE_DONE, traveller, 0);
}

/* --- checking out, freeing ------------------------------------------------------------------------------------------- */

/** @param by 1, or UINT32_MAX: one fewer */
static void out_count(struct engine_lcore *lcore, const struct travel_stop *stop, uint32_t by) {
    struct travel *travel = lcore->travel;
    lcore->partitions[stop->partition].out += by;
    if (stop->kind == RECORD_ACCOUNT)
        travel->accounts_out += by;
    else if (stop->kind == RECORD_PENDING)
        travel->pendings_out += by;
}

/** Whether one more record may leave, and be saved for a checkpoint when it comes home changed. */
static bool may_be_out(const struct engine_lcore *lcore, const struct travel_stop *stop) {
    const struct travel *travel = lcore->travel;
    return likely(!lcore->checkpointing) || stop->kind == RECORD_ID ||
           checkpoint_out_fits(lcore, travel->accounts_out + (stop->kind == RECORD_ACCOUNT),
                               travel->pendings_out + (stop->kind == RECORD_PENDING));
}

/** The holder is done with a record; whoever waited first goes on with it. */
static void record_free(struct engine_lcore *lcore, const struct travel_stop *stop) {
    struct traveller *next =
        checkout_free(&lcore->travel->out, (enum record_kind)stop->kind, stop->key, stop->hash);
    if (next)
        traveller_push(&lcore->travel->runnable, next);
    else
        out_count(lcore, stop, UINT32_MAX);
}

static void record_wait(struct checkout *entry, struct traveller *traveller) {
    traveller->next = NULL;
    if (entry->first)
        entry->last->next = traveller;
    else
        entry->first = traveller;
    entry->last = traveller;
}

/** @return true when the record, or its absence, is the traveller's now; false: it waits for it */
static bool record_take(struct engine_lcore *lcore, struct traveller *traveller,
                        struct travel_stop *stop) {
    struct checkout_table *out = &lcore->travel->out;
    struct checkout *entry =
        checkout_find(out, (enum record_kind)stop->kind, stop->key, stop->hash);
    if (entry && entry->holder != traveller) {
        record_wait(entry, traveller);
        return false;
    }
    if (!entry && !may_be_out(lcore, stop)) {
        traveller_push(&lcore->travel->unsaved, traveller);
        return false;
    }
    if (!entry) {
        checkout_take(out, (enum record_kind)stop->kind, stop->key, stop->hash, stop->partition,
                      traveller);
        out_count(lcore, stop, 1);
    }
    travel_load(lcore, stop);
    travel_room_take(lcore, stop);
    return true;
}

/** The same for one that only looks: it holds nothing, but waits while somebody does. */
static bool record_look(struct engine_lcore *lcore, struct traveller *traveller,
                        struct travel_stop *stop) {
    struct checkout *entry =
        checkout_find(&lcore->travel->out, (enum record_kind)stop->kind, stop->key, stop->hash);
    if (entry && entry->holder != traveller) {
        record_wait(entry, traveller);
        return false;
    }
    travel_load(lcore, stop);
    if (entry)
        record_free(lcore, stop);
    return true;
}

/** Everything that it holds in a partition is free again, the room that was kept too. */
static void partition_leave(struct engine_lcore *lcore, const struct traveller *traveller,
                            unsigned partition) {
    for (uint32_t i = travel_stop_first(traveller, partition, 0, 0);
         i < traveller->stop_count && traveller->stops[i].partition == partition; i++) {
        travel_room_give(lcore, &traveller->stops[i]);
        record_free(lcore, &traveller->stops[i]);
    }
}

static void install(struct engine_lcore *lcore, struct traveller *traveller, unsigned partition) {
    if (traveller->changed)
        travel_apply(lcore, traveller, partition);
    partition_leave(lcore, traveller, partition);
    /* acquire and release: whoever takes the last part sees what all others did, and then the traveller is its own */
    if (atomic_fetch_sub_explicit(&traveller->left, 1, memory_order_acq_rel) == 1)
        go_home(lcore, traveller);
}

/** Decided, or to be begun anew: to every partition where it holds something. */
static void disperse(struct engine_lcore *lcore, struct traveller *traveller) {
    uint32_t last = UINT32_MAX, count = 0;
    for (uint32_t i = 0; i < traveller->stop_count; i++) {
        struct travel_stop *stop = &traveller->stops[i];
        stop->installs =
            i + 1 == traveller->stop_count || traveller->stops[i + 1].partition != stop->partition;
        if (stop->installs) {
            last = i;
            count++;
        }
    }
    atomic_store_explicit(&traveller->left, count, memory_order_relaxed);
    if (!count) {
        go_home(lcore, traveller);
        return;
    }
    /* behind the last message it may be somebody else's */
    for (uint32_t i = 0; i <= last; i++) {
        if (!traveller->stops[i].installs)
            continue;
        unsigned partition = traveller->stops[i].partition;
        unsigned owner = lcore->partitions[partition].owner;
        bool end = i == last;
        if (owner == lcore->index)
            install(lcore, traveller, partition);
        else
            send(lcore, owner, EXCHANGE_INSTALL, traveller, partition);
        if (end)
            return;
    }
}

/* --- visiting -------------------------------------------------------------------------------------------------------- */

static void decide(struct engine_lcore *lcore, struct traveller *traveller) {
    enum travel_decision decision = travel_decide(lcore, traveller);
    if (decision == TRAVEL_NO_ROOM)
        traveller_push(&lcore->travel->undecided, traveller);
    else
        disperse(lcore, traveller);
}

static bool looks_only(const struct traveller *traveller) {
    return traveller->peeking || traveller->kind == TRAVEL_LOOKUP ||
           traveller->kind == TRAVEL_RETRY;
}

/** As far as it goes on this lcore. */
static void visit(struct engine_lcore *lcore, struct traveller *traveller) {
    while (traveller->stop_next < traveller->stop_count) {
        struct travel_stop *stop = &traveller->stops[traveller->stop_next];
        unsigned owner = lcore->partitions[stop->partition].owner;
        bool looks = looks_only(traveller);
        if (looks && traveller->peeking && stop->kind != RECORD_PENDING) {
            traveller->stop_next++;
            continue;
        }
        if (owner != lcore->index) {
            send(lcore, owner, EXCHANGE_VISIT, traveller, 0);
            return;
        }
        if (looks ? !record_look(lcore, traveller, stop) : !record_take(lcore, traveller, stop))
            return;
        traveller->stop_next++;
    }
    if (traveller->peeking) {
        travel_stops_complete(lcore, traveller);
        traveller_push(&lcore->travel->runnable, traveller);
    } else if (looks_only(traveller)) {
        go_home(lcore, traveller);
    } else {
        decide(lcore, traveller);
    }
}

/* --- home ------------------------------------------------------------------------------------------------------------- */

static void slot_free(struct engine_lcore *lcore, struct traveller *traveller) {
    struct travel *travel = lcore->travel;
    travel->away--;
    traveller_push(traveller->stop_room == TRAVEL_STOPS ? &travel->free : &travel->free_chains,
                   traveller);
    queue_prepend(&lcore->queue, &travel->waiting);
}

/** A request's traveller is back, and what it brought has been taken. */
static void request_continue(struct engine_lcore *lcore, struct engine_request *request) {
    if (--request->away)
        return;
    request->away_filter = 0;
    if (request->blocked) {
        struct request_queue one = {0};
        request->blocked = false;
        queue_push(&one, request);
        queue_prepend(&lcore->queue, &one);
    } else if (request->next_event == request->event_count && !request->unresolved) {
        request_hold(lcore, request);
    }
}

static void arrive(struct engine_lcore *lcore, struct traveller *traveller) {
    struct engine_request *request = traveller->request;
    if (traveller->again) {
        traveller->again = false;
        traveller->stop_next = 0;
        while (traveller->missing_count)
            travel_stop_add(lcore, traveller, RECORD_ACCOUNT,
                            traveller->missing[--traveller->missing_count], false);
        travel_stops_sort(traveller);
        traveller_push(&lcore->travel->runnable, traveller);
        return;
    }
    if (traveller->kind == TRAVEL_EXPIRY) {
        slot_free(lcore, traveller);
        return;
    }
    request_wait_for(request, traveller->wait_group);
    travel_arrived(lcore, traveller);
    slot_free(lcore, traveller);
    request_continue(lcore, request);
}

/* --- the turn --------------------------------------------------------------------------------------------------------- */

/** Catch up with the sender: whatever depends on it is logged no earlier. */
static void catch_up(struct engine_lcore *lcore, const struct exchange_message *message) {
    if (message->open_group > lcore->open_group)
        engine_seal(lcore);
    assert(message->open_group <= lcore->open_group);
    clock_pass(lcore, message->last_timestamp);
}

static unsigned receive(struct engine_lcore *lcore, struct exchange_ring *ring) {
    uint32_t count = exchange_waiting(ring);
    for (uint32_t i = 0; i < count; i++) {
        const struct exchange_message *message = exchange_at(ring, i);
        struct traveller *traveller = message->traveller;
        catch_up(lcore, message);
        if (message->kind == EXCHANGE_VISIT)
            visit(lcore, traveller);
        else if (message->kind == EXCHANGE_INSTALL)
            install(lcore, traveller, message->partition);
        else
            traveller_push(&lcore->travel->returned, traveller);
    }
    exchange_take(ring, count);
    return count;
}

void travel_publish(struct engine_lcore *lcore) {
    struct exchange *exchange = &lcore->engine->exchange;
    for (unsigned to = 0; to < exchange->lcores; to++)
        if (to != lcore->index)
            exchange_publish(exchange_ring(exchange, lcore->index, to));
}

/** The WAL asks all lcores to let nothing new travel, or no longer does. */
static void settle_follow(struct engine_lcore *lcore) {
    struct travel *travel = lcore->travel;
    /* acquire: pairs with the WAL's release; then `alone` is that of this settling, and open_group the group that ended it */
    uint64_t settle = atomic_load_explicit(&lcore->board->settle, memory_order_acquire);
    if (settle != travel->settle) {
        unsigned alone = atomic_load_explicit(&lcore->board->alone, memory_order_relaxed);
        travel->settle = settle;
        travel->frozen = settle && alone && alone != lcore->index + 1;
        if (!settle) {
            /* what travels from here on belongs to a later group than what has just ended */
            engine_seal(lcore);
            for (unsigned i = 0; i < lcore->engine->config.lcores; i++)
                clock_pass(lcore,
                           atomic_load_explicit(&lcore->engine->lcores[i].lane->settled_timestamp,
                                                memory_order_relaxed));
            queue_prepend(&lcore->queue, &travel->waiting);
        }
    }
    if (!settle || travel->away ||
        atomic_load_explicit(&lcore->lane->settled, memory_order_relaxed) == settle)
        return;
    atomic_store_explicit(&lcore->lane->settled_timestamp, lcore->last_timestamp,
                          memory_order_relaxed);
    /* release: pairs with the WAL's acquire */
    atomic_store_explicit(&lcore->lane->settled, settle, memory_order_release);
}

bool travel_alone(struct engine_lcore *lcore) {
    struct travel *travel = lcore->travel;
    if (travel->alone)
        return true;
    if (travel->settle && travel->settle == travel->alone_done)
        return false; /* asked for again when the WAL has heard that it was given back */
    /* acquire: pairs with the WAL's release, which saw the others' */
    if (travel->settle &&
        atomic_load_explicit(&lcore->board->alone, memory_order_relaxed) == lcore->index + 1 &&
        atomic_load_explicit(&lcore->board->alone_granted, memory_order_acquire) ==
            travel->settle) {
        engine_seal(lcore);
        for (unsigned i = 0; i < lcore->engine->config.lcores; i++) {
            const struct engine_lcore *other = &lcore->engine->lcores[i];
            clock_pass(lcore,
                       atomic_load_explicit(&other->lane->settled_timestamp, memory_order_relaxed));
            if (other->import_cursor_accounts > lcore->import_cursor_accounts)
                lcore->import_cursor_accounts = other->import_cursor_accounts;
            if (other->import_cursor_transfers > lcore->import_cursor_transfers)
                lcore->import_cursor_transfers = other->import_cursor_transfers;
        }
        travel->alone = true;
        return true;
    }
    atomic_store_explicit(&lcore->lane->alone_wanted, 1, memory_order_relaxed);
    return false;
}

void travel_alone_end(struct engine_lcore *lcore) {
    struct travel *travel = lcore->travel;
    travel->alone = false;
    travel->alone_done = travel->settle;
    atomic_store_explicit(&lcore->lane->settled_timestamp, lcore->last_timestamp,
                          memory_order_relaxed);
    /* release: pairs with the WAL's acquire */
    atomic_store_explicit(&lcore->lane->alone_wanted, 0, memory_order_release);
}

unsigned engine_exchange(struct engine_lcore *lcore) {
    struct travel *travel = lcore->travel;
    struct traveller *traveller;
    unsigned work = 0;
    if (likely(!travel))
        return 0;
    settle_follow(lcore);
    while ((traveller = traveller_pop(&travel->unsaved)))
        traveller_push(&travel->runnable, traveller);
    for (unsigned from = 0; from < lcore->engine->exchange.lcores; from++)
        if (from != lcore->index)
            work += receive(lcore, exchange_ring(&lcore->engine->exchange, from, lcore->index));
    /* those that had no room: in the order in which they came */
    struct traveller_queue undecided = travel->undecided;
    travel->undecided.first = NULL;
    while ((traveller = traveller_pop(&undecided)))
        decide(lcore, traveller);
    for (; work < TRAVEL_LOCAL_MAX && (traveller = traveller_pop(&travel->runnable)); work++)
        visit(lcore, traveller);
    /* one that comes back may have to ask the log */
    for (; travel->returned.first && lcore->fetch_free_count; work++)
        arrive(lcore, traveller_pop(&travel->returned));
    travel_publish(lcore);
    return work;
}

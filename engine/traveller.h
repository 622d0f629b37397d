/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_TRAVELLER_H
#define TALLY_ENGINE_TRAVELLER_H

#include "engine/checkout.h"
#include "engine/engine_internal.h"
#include "engine/exchange.h"

/** An event, or a linked chain, whose records are not all at hand: in partitions of other lcores, or out with somebody else.
 *  It goes from partition to partition in ascending (partition, kind, key) order, checks out what it needs, takes copies along, is decided
 *  at the last stop by the same pure functions as any event, is logged once, there, and then its outcome goes home to every partition.
 *  One order for all means no cycle, so no deadlock (design section 4; modelled in tests/model).
 *  Flow:  request_execute -> [travel_start] -> visit ... -> decide -> install ... -> done -> request_execute or request_hold
 *  Owner: whoever holds the message about it; between its decision and its return every partition that it visited may read it, and none
 *  writes but for `left`. Bounds: TRAVEL_SLOTS of an lcore at a time, one of them a chain. Keeps: INV-1, INV-2, INV-4, INV-8, INV-9. */

#define TRAVEL_SLOTS 256     /**< travellers of one lcore with one event */
#define TRAVEL_CHAIN_SLOTS 1 /**< ... and with up to REQUEST_EVENTS_MAX */
#define TRAVEL_STOPS                                                                               \
    5 /**< of one event: its id, its pending_id twice (as an id, as a pending transfer), two accounts */
#define TRAVEL_LOCAL_MAX 4096 /**< messages to itself that an lcore handles in a turn */

enum traveller_kind {
    TRAVEL_EVENTS = 1, /**< creates transfers or accounts */
    TRAVEL_LOOKUP = 2, /**< looks at one record, and holds nothing */
    TRAVEL_EXPIRY = 3, /**< a pending transfer is due whose accounts live elsewhere */
    TRAVEL_RETRY = 4,  /**< looks at a pending transfer for a retry with other fields */
};

/** A record on the way, or its absence. */
struct travel_stop {
    uint128_t key;
    uint64_t hash;
    uint16_t partition;
    uint8_t kind;  /**< enum record_kind */
    bool present;  /**< it exists; the copy below is of when it was checked out */
    bool creates;  /**< may come into being: room is kept for it at home */
    bool full;     /**< there was none */
    bool installs; /**< the last stop in its partition: carries the message home */
    union {
        struct account account;
        struct pending pending;
        struct id_record id;
    };
};

enum travel_outcome_type {
    OUTCOME_TRANSFER = 1,
    OUTCOME_ACCOUNT = 2,
    OUTCOME_BURNT = 3,
    OUTCOME_EXPIRY = 4,
};

/** What one member does to the records at home. Logged already. */
struct travel_outcome {
    uint8_t type; /**< enum travel_outcome_type */
    uint16_t pending_flags;
    uint16_t id_partition, pending_partition, debit_partition, credit_partition;
    uint64_t id_hash, debit_hash, credit_hash;
    uint64_t request_digest;
    wal_place_t place;
    amount_t pending_amount;
    union {
        struct transfer
            transfer; /**< with its timestamp; burnt: its id alone; expiry: the pending one */
        struct account account;
    };
};

struct traveller {
    struct traveller *next; /**< in whatever list it stands */
    struct engine_request *request;
    uint32_t event, count; /**< of the request */
    uint8_t kind;          /**< enum traveller_kind */
    uint8_t origin;        /**< lcore */
    bool peeking;          /**< first round: read pending transfers, hold nothing */
    bool again;            /**< to be begun anew, for more stops were found to be needed */
    bool changed;          /**< the outcomes below take effect */
    bool
        unresolved; /**< the failed member's status needs the log: what was remembered is in `remembered` */
    uint32_t unresolved_event;
    struct id_record remembered;
    uint32_t stop_count, stop_next, stop_room;
    uint32_t outcome_count;
    seq_t group;           /**< in which it was decided */
    seq_t wait_group;      /**< as a request's */
    _Atomic uint32_t left; /**< partitions in which it has not been installed yet */
    uint32_t missing_count;
    uint128_t missing[2]; /**< accounts that turned out to be needed too */
    struct engine_request
        asked; /**< the request as it was when this left: its own parts are the origin's */
    struct transfer recorded;  /**< TRAVEL_RETRY: what the log said */
    struct travel_stop *stops; /**< sorted before the first check-out */
    struct travel_outcome *outcomes;
};

struct traveller_queue {
    struct traveller *first, *last;
};

static inline void traveller_push(struct traveller_queue *queue, struct traveller *traveller) {
    traveller->next = NULL;
    if (queue->first)
        queue->last->next = traveller;
    else
        queue->first = traveller;
    queue->last = traveller;
}

static inline struct traveller *traveller_pop(struct traveller_queue *queue) {
    struct traveller *traveller = queue->first;
    if (traveller)
        queue->first = traveller->next;
    return traveller;
}

/** An lcore's part in travelling. NULL when it is the only one. */
struct travel {
    struct checkout_table out;
    struct traveller *slots;
    struct traveller_queue free, free_chains;
    struct traveller_queue
        runnable; /**< got what they waited for, or come from this lcore: to be visited on */
    struct traveller_queue undecided; /**< have everything; the log buffer was full */
    struct traveller_queue
        unsaved; /**< want a record that could not be saved for the checkpoint: tried again each turn */
    uint32_t accounts_out, pendings_out; /**< entries of `out` of that kind */
    struct traveller_queue returned;     /**< are back, and wait for a slot to ask the log */
    uint32_t away;                       /**< travellers of this lcore that are not back */
    uint64_t settle; /**< board->settle, as last read: nothing new may travel while it is not 0 */
    bool frozen;     /**< another lcore has, or will have, all tables to itself */
    bool alone;      /**< this one has them, until the end of its turn */
    uint64_t
        alone_done; /**< the settling in which it had them: given back, which the WAL may not know yet */
    uint32_t accounts_kept;       /**< room that is kept for accounts, all partitions */
    struct request_queue waiting; /**< requests that wait for a free traveller */
    void *memory;                 /**< stops and outcomes of all slots */
};

enum travel_answer {
    TRAVEL_HERE,    /**< everything is at hand: execute at once */
    TRAVEL_LEFT,    /**< it is on its way */
    TRAVEL_EARLIER, /**< it has to wait for events of its own request */
    TRAVEL_FULL,    /**< no traveller is free */
};

/** @return 0 or -ENOMEM */
int travel_open(struct engine_lcore *lcore);
void travel_close(struct engine_lcore *lcore);

/** Where is what this event, or this chain of `count`, needs? Starts it on its way if need be. */
enum travel_answer travel_event(struct engine_lcore *lcore, struct engine_request *request,
                                uint32_t event, uint32_t count, const struct prepared *prepared);
/** How many of the next events, all compact transfers, have everything here and need not wait. */
uint32_t travel_run(const struct engine_lcore *lcore, const struct engine_request *request,
                    const struct prepared *prepared, uint32_t count);
/** How many records of this lcore, or their absence, are with travellers. */
static inline void travel_records_out(const struct engine_lcore *lcore, uint32_t *accounts,
                                      uint32_t *pendings) {
    *accounts = lcore->travel ? lcore->travel->accounts_out : 0;
    *pendings = lcore->travel ? lcore->travel->pendings_out : 0;
}
static inline uint32_t travel_accounts_kept(const struct engine_lcore *lcore) {
    return lcore->travel ? lcore->travel->accounts_kept : 0;
}
/** Whether this lcore may execute anything at all at the moment. */
static inline bool travel_frozen(const struct engine_lcore *lcore) {
    return unlikely(lcore->travel) && lcore->travel->frozen;
}
/** Whether this lcore has all tables to itself, for imported events; asks for it. They are the caller's until travel_alone_end, which
 *  the end of its turn says: from then on they are the others', though this lcore may not have heard so. */
bool travel_alone(struct engine_lcore *lcore);
void travel_alone_end(struct engine_lcore *lcore);
/** A pending transfer is due. @return false: everything is here; expire it at once */
bool travel_expiry(struct engine_lcore *lcore, struct partition *partition, uint32_t slot,
                   bool *full);
/** A retry needs a pending transfer that is not here. @return false: it is here. A traveller must be free. */
bool travel_retry(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                  const struct transfer *recorded);
static inline bool travel_has_slot(const struct engine_lcore *lcore) {
    return !lcore->travel || (lcore->travel->free.first && !lcore->travel->settle);
}

/* --- what the files of travelling share: traveller.c (the way), travel_stops.c (what is needed), travel_decide.c ------------ */

uint32_t travel_ring_capacity(const struct engine_config *config);
/** Number of the first stop at or behind (partition, kind, key); stops are sorted. */
uint32_t travel_stop_first(const struct traveller *traveller, unsigned partition, unsigned kind,
                           uint128_t key);
/** One more stop; it may be there already. */
void travel_stop_add(const struct engine_lcore *lcore, struct traveller *traveller,
                     enum record_kind kind, uint128_t key, bool creates);
/** Ascending, each once. */
void travel_stops_sort(struct traveller *traveller);
/** Pending transfers have been looked at: add their accounts, and begin. */
void travel_stops_complete(const struct engine_lcore *lcore, struct traveller *traveller);
/** Copy the record, or note its absence. */
void travel_load(struct engine_lcore *lcore, struct travel_stop *stop);
/** Keep room for what may come into being there, and give it back. */
void travel_room_take(struct engine_lcore *lcore, struct travel_stop *stop);
void travel_room_give(struct engine_lcore *lcore, const struct travel_stop *stop);
/** Back at the origin: the results of what only looked; ask the log for what is unresolved. */
void travel_arrived(struct engine_lcore *lcore, struct traveller *traveller);
/** Everything that was put into rings in this turn is on its way. */
void travel_publish(struct engine_lcore *lcore);

/** The stop at a record. @return NULL when it is not on the way */
struct travel_stop *travel_stop_find(const struct engine_lcore *lcore,
                                     const struct traveller *traveller, enum record_kind kind,
                                     uint128_t key);

/* travel_decide.c */
enum travel_decision {
    TRAVEL_DECIDED,
    TRAVEL_NO_ROOM, /**< the log buffer is full, or the group's horizon too old */
};
enum travel_decision travel_decide(struct engine_lcore *lcore, struct traveller *traveller);
/** The outcome takes effect in one partition. */
void travel_apply(struct engine_lcore *lcore, const struct traveller *traveller,
                  unsigned partition);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_CHAIN_INTERNAL_H
#define TALLY_ENGINE_CHAIN_INTERNAL_H

#include "engine/traveller.h"

/** What chain.c and travel_decide.c share: copies of what a chain touches, and what its members will do. Owner: the lcore. */

enum copy_kind {
    COPY_ACCOUNT = 1, /**< an existing account, as the chain has changed it so far */
    COPY_PENDING = 2, /**< a pending transfer, existing or made by the chain */
    COPY_ID = 3,      /**< an id that the chain has used */
};

struct copy {
    uint128_t id;
    union {
        struct account account;
        struct pending pending;
    };
    void *original;   /**< account: the record itself */
    uint64_t hash;    /**< of the id */
    uint64_t digest;  /**< id: of the requested fields */
    uint32_t outcome; /**< id: which member used it */
    uint32_t kind;
};

#define COPIES_MAX                                                                                 \
    (REQUEST_EVENTS_MAX *                                                                          \
     5) /**< two accounts, an id, a pending made and a pending resolved, each */
#define MAP_SLOTS (1u << 17)
_Static_assert(COPIES_MAX * 2 < MAP_SLOTS, "the map is never more than half full");

/** What one member will do. */
struct member {
    union {
        struct transfer_outcome transfer;
        struct account_outcome account;
    };
    struct transfer_effect effect;
};

struct chain {
    const struct traveller *
        luggage; /**< a traveller's: nothing is looked up here but what it brought; NULL: everything is here */
    uint32_t missing_count;
    uint128_t missing
        [2]; /**< accounts that it should have brought and did not: then nothing is decided */
    uint32_t copy_count;
    uint32_t
        map_slots; /**< of this chain: a power of two, so that clearing costs what the chain is worth */
    uint64_t import_cursor_accounts; /**< as the members so far left them */
    uint64_t import_cursor_transfers;
    struct copy *copies;
    uint32_t *map; /**< 1 + number of the copy, open addressing; all zero between chains */
    struct member *members;
    uint16_t touched_count;
    uint16_t touched[PARTITIONS_MAX]; /**< partitions in which members need room */
    uint32_t room[PARTITIONS_MAX];    /**< for how many; all zero between chains */
};

void chain_reset(struct engine_lcore *lcore, struct chain *chain, uint32_t count);
struct copy *copy_find(struct chain *chain, uint32_t kind, uint128_t id, uint64_t hash);
/** Decide every member on the copies. @return the first that failed, or `count` */
uint32_t chain_decide(struct engine_lcore *lcore, struct engine_request *request, uint32_t first,
                      uint32_t count);
/** What the chain has to say for the members before the one that failed. */
void chain_fail_earlier(struct engine_lcore *lcore, struct engine_request *request, uint32_t first,
                        uint32_t failed);

#endif

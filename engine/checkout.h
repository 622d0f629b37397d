/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_CHECKOUT_H
#define TALLY_ENGINE_CHECKOUT_H

#include "engine/base/hash.h"
#include "engine/base/types.h"

/** Which records of an lcore's partitions are out with a traveller, and who waits for them, first come first served.
 *  A record is named by kind and key, whether it exists or not: an absence can be checked out as well.
 *  Flow:  traveller's visit -> [checkout_take] ... -> install -> [checkout_free] -> who waited first holds it
 *  Owner: the lcore. Bounds: `capacity` records out at a time; it never fills (travel_open sizes it for all travellers of the node).
 *  Keeps: no record is decided on by two at a time. */

struct traveller;

/** Kinds, in the order in which a traveller visits them within a partition. */
enum record_kind {
    RECORD_ACCOUNT = 1,
    RECORD_ID = 2,
    RECORD_PENDING = 3,
};

struct checkout {
    uint128_t key;
    uint16_t kind; /**< enum record_kind; 0: the entry is free */
    uint16_t partition;
    uint32_t hash;
    struct traveller *holder;
    struct traveller *first, *last; /**< who waits, linked by traveller->next */
};

struct checkout_table {
    uint32_t mask;
    uint32_t count;
    struct checkout *entries;
};

/** @param capacity records out at a time. @return 0 or -ENOMEM */
int checkout_open(struct checkout_table *table, uint32_t capacity);
void checkout_close(struct checkout_table *table);

/** @param hash hash_id() or hash_transfer_id() of the key. @return NULL: it is here */
struct checkout *checkout_find(const struct checkout_table *table, enum record_kind kind,
                               uint128_t key, uint64_t hash);
/** Check out a record that is here. Entries found before may move. */
void checkout_take(struct checkout_table *table, enum record_kind kind, uint128_t key,
                   uint64_t hash, unsigned partition, struct traveller *holder);
/** The holder is done with it. @return who waited first and holds it now; NULL: nobody, it is here again */
struct traveller *checkout_free(struct checkout_table *table, enum record_kind kind, uint128_t key,
                                uint64_t hash);

#endif

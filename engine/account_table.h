/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_ACCOUNT_TABLE_H
#define TALLY_ENGINE_ACCOUNT_TABLE_H

#include "engine/base/hash.h"
#include "engine/base/index.h"
#include "engine/base/types.h"

/** The accounts of one partition: records that never move, and an index from the id's hash to them.
 *  Inside the engine, `reserved` holds the low half of the last group that changed the account, and the top bit of `flags` is the
 *  mark of a record that is checked out (§4); account_export shows neither. Owner: the partition's lcore. */

#define ACCOUNT_MARKED 0x8000 /**< in flags: checked out by a traveller */

struct account_table {
    struct index index; /**< high half of the id's hash -> slot */
    struct slab slab;
};

static inline uint32_t account_tag(uint64_t hash) {
    return (uint32_t)(hash >> 32);
}

static inline struct account *account_at(const struct account_table *table, uint32_t slot) {
    return slab_at(&table->slab, slot, sizeof(struct account));
}

/** @param hash hash_id() of the id. @return the account's slot, or INDEX_NONE */
static inline uint32_t account_find(const struct account_table *table, uint128_t id,
                                    uint64_t hash) {
    struct index_cursor cursor;
    uint32_t slot = index_first(&table->index, &cursor, account_tag(hash));
    while (slot != INDEX_NONE && account_at(table, slot)->id != id)
        slot = index_next(&table->index, &cursor, account_tag(hash));
    return slot;
}

/** The slot of the first account whose hash matches: right but for a collision of tags, which the caller must check. */
static inline uint32_t account_guess(const struct account_table *table, uint64_t hash) {
    struct index_cursor cursor;
    return index_first(&table->index, &cursor, account_tag(hash));
}

static inline int account_reserve(struct account_table *table, struct memory *memory,
                                  uint32_t more) {
    if (likely(index_has_room(&table->index, more) &&
               table->slab.capacity - table->slab.count >= more))
        return 0;
    int error = index_reserve(&table->index, memory, more);
    return error ? error : slab_reserve(&table->slab, memory, more, sizeof(struct account));
}

/** Add an account whose id is not there; room must have been reserved. @return the record, zeroed but for its id */
static inline struct account *account_insert(struct account_table *table, uint128_t id,
                                             uint64_t hash) {
    uint32_t slot = table->slab.count;
    struct account *account = slab_take(&table->slab, sizeof(struct account));
    *account = (struct account){.id = id};
    index_insert(&table->index, account_tag(hash), slot);
    return account;
}

/** The account as everybody outside the engine sees it. */
static inline void account_export(const struct account *account, struct account *out) {
    *out = *account;
    out->reserved = 0;
    out->flags &= (uint16_t)~ACCOUNT_MARKED;
}

static inline void account_balances(const struct account *account, struct balances *out) {
    *out = (struct balances){account->debits_pending, account->debits_posted,
                             account->credits_pending, account->credits_posted};
}

#endif

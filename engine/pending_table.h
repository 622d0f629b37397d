/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_PENDING_TABLE_H
#define TALLY_ENGINE_PENDING_TABLE_H

#include "engine/base/hash.h"
#include "engine/base/heap.h"
#include "engine/base/index.h"
#include "engine/base/types.h"

/** The pending transfers of one partition: live ones, and resolved ones until their own id and their resolver's are below the horizon.
 *  Two heaps tell what is due: expiries by cell time (exact, in order), releases by the horizon.
 *  Owner: the partition's lcore. */

enum pending_state {
    PENDING_LIVE = 1,
    PENDING_POSTED = 2,
    PENDING_VOIDED = 3,
    PENDING_EXPIRED = 4,
};

struct pending {
    struct transfer transfer; /**< as it was created; its amount is what is reserved */
    uint64_t expires_at;      /**< ns; 0: never */
    uint32_t group;           /**< low half of the last group that changed it */
    uint32_t
        heap_position; /**< in the expiry heap while it is live, in the release heap afterwards */
    uint8_t state;     /**< enum pending_state; 0: the slot is free */
    uint8_t marked;    /**< checked out by a traveller */
    uint16_t reserved;
    uint32_t free_next;
    uint64_t release_ms; /**< resolved: forgotten when the horizon is above this */
};
_Static_assert(sizeof(struct pending) == 160, "six to a unit");

struct pending_table {
    struct index index; /**< high half of the id's hash -> slot */
    struct slab slab;
    struct heap expiry;  /**< live ones with a timeout, by expires_at (ns) */
    struct heap release; /**< resolved ones, by the id time (ms) that the horizon must pass */
    uint32_t free_first; /**< 1 + first free slot; 0: none */
    uint32_t free_count;
    uint64_t live_count;
    bool id_time;
};

static inline struct pending *pending_at(const struct pending_table *table, uint32_t slot) {
    return slab_at(&table->slab, slot, sizeof(struct pending));
}

static inline uint32_t pending_tag(uint64_t hash) {
    return (uint32_t)(hash >> 32);
}

/** @param hash hash_transfer_id() of the id
 *  @param horizon_ms resolved ones below it count as forgotten, whether pending_forget came round to them or not
 *  @return slot or INDEX_NONE */
uint32_t pending_find(const struct pending_table *table, uint128_t id, uint64_t hash,
                      uint64_t horizon_ms);

/** Make room for `more` insertions and resolutions. @return 0 or -ENOMEM */
int pending_reserve(struct pending_table *table, struct memory *memory, uint32_t more);

/** Add a live pending transfer; room must have been reserved. `transfer->timestamp` starts its timeout.
 *  @return its slot */
uint32_t pending_insert(struct pending_table *table, const struct transfer *transfer,
                        uint64_t hash);

/** A live one is posted, voided or expired.
 *  @param resolver_id id of the transfer that did it; 0: expiry */
void pending_resolve(struct pending_table *table, uint32_t slot, enum pending_state state,
                     uint128_t resolver_id);

/** A resolved one below the horizon counts as gone, whether or not its room was given back. @param horizon_ms 0: no id time */
static inline bool pending_is_forgotten(const struct pending *pending, uint64_t horizon_ms) {
    return pending->state != PENDING_LIVE && pending->release_ms < horizon_ms;
}

/** A traveller has set out to expire it: it stays live, but is not due again. */
void pending_expiry_starts(struct pending_table *table, uint32_t slot);

/** When the next expiry is due (ns), UINT64_MAX: nothing to expire. */
static inline uint64_t pending_due_ns(const struct pending_table *table) {
    const struct heap_entry *first = heap_first(&table->expiry);
    return first ? first->key : UINT64_MAX;
}

/** The slot that pending_forget would release first; INDEX_NONE: nothing lies below the horizon. */
static inline uint32_t pending_forget_next(const struct pending_table *table, uint64_t horizon_ms) {
    const struct heap_entry *first = heap_first(&table->release);
    return first && first->key < horizon_ms ? first->slot : INDEX_NONE;
}
/** Forget resolved ones that lie below the horizon, at most `count_max`. @return how many */
unsigned pending_forget(struct pending_table *table, uint64_t horizon_ms, uint64_t hash_seed,
                        unsigned count_max);

void pending_release(struct pending_table *table, struct memory *memory);

#endif

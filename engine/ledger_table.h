/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_LEDGER_TABLE_H
#define TALLY_ENGINE_LEDGER_TABLE_H

#include "engine/base/hash.h"
#include "engine/base/index.h"
#include "engine/base/types.h"

/** Totals of every ledger, as changed by one lcore: the sums over all lcores are the ledger's. Keeps: INV-1. */

struct ledger_total {
    struct balances sums; /**< mod 2^128 */
    uint32_t ledger;
    bool dirty; /**< changed since it was last logged */
};

struct ledger_table {
    struct index index;
    struct slab slab;
    struct ledger_total *last; /**< the one that was used last: most events are of one ledger */
};

static inline struct ledger_total *ledger_at(const struct ledger_table *table, uint32_t slot) {
    return slab_at(&table->slab, slot, sizeof(struct ledger_total));
}

/** @return NULL when the ledger has no account yet */
static inline struct ledger_total *ledger_find(struct ledger_table *table, uint32_t ledger) {
    if (likely(table->last && table->last->ledger == ledger))
        return table->last;
    struct index_cursor cursor;
    uint32_t tag = (uint32_t)(hash_mix64(ledger) >> 32);
    for (uint32_t slot = index_first(&table->index, &cursor, tag); slot != INDEX_NONE;
         slot = index_next(&table->index, &cursor, tag)) {
        if (ledger_at(table, slot)->ledger == ledger)
            return table->last = ledger_at(table, slot);
    }
    return NULL;
}

static inline int ledger_reserve(struct ledger_table *table, struct memory *memory, uint32_t more) {
    int error = index_reserve(&table->index, memory, more);
    return error ? error : slab_reserve(&table->slab, memory, more, sizeof(struct ledger_total));
}

/** Find it or make it; room for a new one must have been reserved. */
static inline struct ledger_total *ledger_need(struct ledger_table *table, uint32_t ledger) {
    struct ledger_total *total = ledger_find(table, ledger);
    if (total)
        return total;
    uint32_t slot = table->slab.count;
    total = slab_take(&table->slab, sizeof(struct ledger_total));
    *total = (struct ledger_total){.ledger = ledger};
    index_insert(&table->index, (uint32_t)(hash_mix64(ledger) >> 32), slot);
    return table->last = total;
}

#endif

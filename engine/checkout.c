/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/checkout.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/check.h"
#include "engine/traveller.h"

int checkout_open(struct checkout_table *table, uint32_t capacity) {
    uint32_t room = 16;
    while (room < 2 * capacity)
        room *= 2;
    table->mask = room - 1;
    table->count = 0;
    table->entries = calloc(room, sizeof(*table->entries));
    return table->entries ? 0 : -ENOMEM;
}

void checkout_close(struct checkout_table *table) {
    free(table->entries);
    table->entries = NULL;
}

static uint32_t home_of(enum record_kind kind, uint64_t hash) {
    return (uint32_t)(hash_mix64(hash + kind) >> 32);
}

struct checkout *checkout_find(const struct checkout_table *table, enum record_kind kind,
                               uint128_t key, uint64_t hash) {
    uint32_t home = home_of(kind, hash);
    for (uint32_t slot = home & table->mask; table->entries[slot].kind;
         slot = (slot + 1) & table->mask) {
        struct checkout *entry = &table->entries[slot];
        if (entry->hash == home && entry->kind == kind && entry->key == key)
            return entry;
    }
    return NULL;
}

void checkout_take(struct checkout_table *table, enum record_kind kind, uint128_t key,
                   uint64_t hash, unsigned partition, struct traveller *holder) {
    uint32_t home = home_of(kind, hash), slot = home & table->mask;
    assert(table->count < table->mask);
    while (table->entries[slot].kind)
        slot = (slot + 1) & table->mask;
    table->entries[slot] = (struct checkout){
        .key = key,
        .kind = (uint16_t)kind,
        .partition = (uint16_t)partition,
        .hash = home,
        .holder = holder,
    };
    table->count++;
}

/** Close the gap, so that no search ends too early: an entry behind it moves up unless its home lies behind the gap. */
static void entry_remove(struct checkout_table *table, uint32_t gap) {
    uint32_t slot = gap;
    for (;;) {
        slot = (slot + 1) & table->mask;
        const struct checkout *entry = &table->entries[slot];
        if (!entry->kind)
            break;
        if (((slot - entry->hash) & table->mask) < ((slot - gap) & table->mask))
            continue;
        table->entries[gap] = *entry;
        gap = slot;
    }
    table->entries[gap].kind = 0;
    table->count--;
}

struct traveller *checkout_free(struct checkout_table *table, enum record_kind kind, uint128_t key,
                                uint64_t hash) {
    struct checkout *entry = checkout_find(table, kind, key, hash);
    assert(entry);
    struct traveller *next = entry->first;
    entry->holder = next;
    if (next) {
        entry->first = next->next;
        next->next = NULL;
    } else {
        entry_remove(table, (uint32_t)(entry - table->entries));
    }
    return next;
}

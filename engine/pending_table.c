/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pending_table.h"
#include "engine/base/planted.h"

#include <string.h>

static void position_moved(void *context, uint32_t slot, uint32_t position) {
    pending_at(context, slot)->heap_position = position;
}

uint32_t pending_find(const struct pending_table *table, uint128_t id, uint64_t hash,
                      uint64_t horizon_ms) {
    struct index_cursor cursor;
    uint32_t slot = index_first(&table->index, &cursor, pending_tag(hash));
    while (slot != INDEX_NONE && pending_at(table, slot)->transfer.id != id)
        slot = index_next(&table->index, &cursor, pending_tag(hash));
    if (slot == INDEX_NONE || !table->id_time)
        return slot;
    return pending_is_forgotten(pending_at(table, slot), horizon_ms) ? INDEX_NONE : slot;
}

int pending_reserve(struct pending_table *table, struct memory *memory, uint32_t more) {
    int error = index_reserve(&table->index, memory, more);
    if (!error && more > table->free_count)
        error =
            slab_reserve(&table->slab, memory, more - table->free_count, sizeof(struct pending));
    /* Every pending transfer can be in either heap, so that resolving one never lacks memory. */
    uint32_t entries = table->slab.count + more;
    if (!error && entries > table->expiry.entries.count)
        error = heap_reserve(&table->expiry, memory, entries - table->expiry.entries.count);
    if (!error && entries > table->release.entries.count)
        error = heap_reserve(&table->release, memory, entries - table->release.entries.count);
    return error;
}

uint32_t pending_insert(struct pending_table *table, const struct transfer *transfer,
                        uint64_t hash) {
    uint32_t slot = table->slab.count;
    if (table->free_first) {
        slot = table->free_first - 1;
        table->free_first = pending_at(table, slot)->free_next;
        table->free_count--;
    } else {
        slab_take(&table->slab, sizeof(struct pending));
    }
    struct pending *pending = pending_at(table, slot);
    *pending = (struct pending){
        .transfer = *transfer, .state = PENDING_LIVE, .heap_position = HEAP_NOWHERE};
    index_insert(&table->index, pending_tag(hash), slot);
    table->live_count++;
    if (transfer->timeout) {
        pending->expires_at = transfer->timestamp + transfer->timeout * NS_PER_SECOND;
        if (PLANTED(expiry_too_early))
            pending->expires_at -= pending->expires_at % NS_PER_SECOND;
        heap_insert(&table->expiry, pending->expires_at, slot, position_moved, table);
    }
    return slot;
}

void pending_resolve(struct pending_table *table, uint32_t slot, enum pending_state state,
                     uint128_t resolver_id) {
    struct pending *pending = pending_at(table, slot);
    assert(pending->state == PENDING_LIVE && state != PENDING_LIVE);
    pending->state = (uint8_t)state;
    table->live_count--;
    if (pending->heap_position != HEAP_NOWHERE)
        heap_remove(&table->expiry, pending->heap_position, position_moved, table);
    if (table->id_time) {
        uint64_t own = id_time_ms(pending->transfer.id), resolver = id_time_ms(resolver_id);
        pending->release_ms = own > resolver ? own : resolver;
        heap_insert(&table->release, pending->release_ms, slot, position_moved, table);
    }
}

void pending_expiry_starts(struct pending_table *table, uint32_t slot) {
    heap_remove(&table->expiry, pending_at(table, slot)->heap_position, position_moved, table);
}

unsigned pending_forget(struct pending_table *table, uint64_t horizon_ms, uint64_t hash_seed,
                        unsigned count_max) {
    unsigned count = 0;
    const struct heap_entry *first;
    while (count < count_max && (first = heap_first(&table->release)) && first->key < horizon_ms) {
        uint32_t slot = first->slot;
        struct pending *pending = pending_at(table, slot);
        heap_remove(&table->release, 0, position_moved, table);
        index_remove(&table->index, pending_tag(hash_transfer_id(pending->transfer.id, hash_seed)),
                     slot);
        pending->state = 0;
        pending->free_next = table->free_first;
        table->free_first = slot + 1;
        table->free_count++;
        count++;
    }
    return count;
}

void pending_release(struct pending_table *table, struct memory *memory) {
    index_release(&table->index, memory);
    slab_release(&table->slab, memory);
    slab_release(&table->expiry.entries, memory);
    slab_release(&table->release.entries, memory);
}

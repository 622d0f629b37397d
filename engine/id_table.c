/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/id_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/** Smallest block that holds a slice's head. */
#define ID_SLICE_ORDER 2
#define ID_SLICE_BLOCK_BYTES ((size_t)MEMORY_UNIT_BYTES << ID_SLICE_ORDER)
#define ID_SLICE_COLOURS 24
_Static_assert(sizeof(struct id_slice) + ID_SLICE_COLOURS * CACHE_LINE_BYTES <=
                   ID_SLICE_BLOCK_BYTES,
               "a slice's head fits its block, whatever its colour");

/** Blocks are aligned to their size, and so every partition's slice would stand in the same few sets of the cache: each is moved by some
 *  lines of its own. */
static struct id_slice *slice_in_block(void *block) {
    size_t colour = ((uintptr_t)block / ID_SLICE_BLOCK_BYTES) % ID_SLICE_COLOURS;
    return (void *)((uint8_t *)block + colour * CACHE_LINE_BYTES);
}

static void *block_of_slice(struct id_slice *slice) {
    return (void *)((uintptr_t)slice & ~(ID_SLICE_BLOCK_BYTES - 1));
}

static void slice_drop(struct id_table *table, struct memory *memory, struct id_slice *slice) {
    table->count -= slice->slab.count;
    if (slice->number >= table->forgotten_end)
        table->forgotten_end = slice->number + 1;
    table->slices[slice->number % ID_SLICES] = NULL;
    index_release(&slice->index, memory);
    slab_release(&slice->slab, memory);
    memory_give(memory, block_of_slice(slice), ID_SLICE_ORDER);
}

int id_reserve(struct id_table *table, struct memory *memory, uint128_t id, uint32_t more) {
    uint64_t number = id_slice_number(table, id);
    struct id_slice *slice = table->slices[number % ID_SLICES];
    if (unlikely(slice && slice->number < number)) {
        /* ID_SLICES below an id that may be used now: under every horizon that allows this id. Time
         * has jumped, or this is replay, where a group's horizon comes after its records. */
        slice_drop(table, memory, slice);
        slice = NULL;
    }
    if (unlikely(!slice)) {
        void *block = memory_take(memory, ID_SLICE_ORDER);
        if (!block)
            return -ENOMEM;
        slice = slice_in_block(block);
        memset(slice, 0, sizeof(*slice));
        slice->number = number;
        table->slices[number % ID_SLICES] = slice;
        if (number < table->oldest)
            table->oldest = number;
    }
    if (unlikely(slice->number != number))
        return -ENOMEM;
    if (likely(index_has_room(&slice->index, more) &&
               slice->slab.capacity - slice->slab.count >= more))
        return 0;
    int error = index_reserve(&slice->index, memory, more);
    return error ? error : slab_reserve(&slice->slab, memory, more, sizeof(struct id_record));
}

void id_restore(struct id_table *table, const struct id_record *record, uint64_t hash) {
    struct id_slice *slice = id_slice_of(table, uint128_make(record->id[1], record->id[0]));
    assert(slice);
    uint32_t slot = slice->slab.count;
    *(struct id_record *)slab_take(&slice->slab, sizeof(*record)) = *record;
    index_insert(&slice->index, id_tag(hash), slot);
    table->count++;
}

void id_insert(struct id_table *table, uint128_t id, uint64_t hash, uint64_t timestamp,
               uint64_t digest, wal_place_t place) {
    struct id_record record = {{(uint64_t)id, (uint64_t)(id >> 64)}, timestamp, digest, place};
    if (unlikely(id_is_burnt(&record))) {
        const struct id_slice *slice = id_slice_of(table, id);
        uint32_t count = slice->slab.count;
        record.timestamp = count ? id_at(slice, count - 1)->timestamp : 0;
    }
    id_restore(table, &record, hash);
}

static int order_of_decision(const void *left, const void *right) {
    const struct id_record *a = left, *b = right;
    wal_place_t place_a = a->place & ~WAL_PLACE_BURNT, place_b = b->place & ~WAL_PLACE_BURNT;
    if (a->timestamp != b->timestamp)
        return a->timestamp < b->timestamp ? -1 : 1;
    return place_a < place_b ? -1 : place_a > place_b;
}

static int slice_sort(struct id_slice *slice, struct memory *memory, uint64_t secret) {
    uint32_t count = slice->slab.count;
    struct id_record *records = malloc(count * sizeof(*records) + 1);
    if (!records)
        return -ENOMEM;
    for (uint32_t slot = 0; slot < count; slot++)
        records[slot] = *id_at(slice, slot);
    qsort(records, count, sizeof(*records), order_of_decision);
    index_release(&slice->index, memory);
    int error = 0;
    for (uint32_t slot = 0; slot < count && !error; slot++) {
        uint128_t id = uint128_make(records[slot].id[1], records[slot].id[0]);
        *id_at(slice, slot) = records[slot];
        error = index_reserve(&slice->index, memory, 1);
        if (!error)
            index_insert(&slice->index, id_tag(hash_transfer_id(id, secret)), slot);
    }
    free(records);
    return error;
}

int id_sort(struct id_table *table, struct memory *memory, uint64_t secret) {
    int error = 0;
    for (unsigned i = 0; i < ID_SLICES && !error; i++) {
        if (table->slices[i])
            error = slice_sort(table->slices[i], memory, secret);
    }
    return error;
}

unsigned id_forget(struct id_table *table, struct memory *memory, uint64_t horizon_ms,
                   unsigned slices_max) {
    if (!table->id_time)
        return 0;
    uint64_t end = horizon_ms / ID_SLICE_MS;
    if (end <= table->oldest)
        return 0;
    unsigned dropped = 0;
    if (end - table->oldest > ID_SLICES) {
        /* A jump: every slice below the end goes, wherever it stands. */
        for (unsigned i = 0; i < ID_SLICES; i++) {
            if (table->slices[i] && table->slices[i]->number < end) {
                if (dropped == slices_max)
                    return dropped;
                slice_drop(table, memory, table->slices[i]);
                dropped++;
            }
        }
        table->oldest = end;
        return dropped;
    }
    for (; table->oldest < end; table->oldest++) {
        struct id_slice *slice = table->slices[table->oldest % ID_SLICES];
        if (!slice || slice->number != table->oldest)
            continue;
        if (dropped == slices_max)
            break;
        slice_drop(table, memory, slice);
        dropped++;
    }
    return dropped;
}

uint64_t id_oldest_ms(const struct id_table *table) {
    uint64_t oldest = UINT64_MAX;
    for (unsigned i = 0; i < ID_SLICES; i++) {
        if (table->slices[i] && table->slices[i]->number < oldest)
            oldest = table->slices[i]->number;
    }
    return oldest == UINT64_MAX ? UINT64_MAX : oldest * ID_SLICE_MS;
}

static bool slice_timestamp_taken(const struct id_slice *slice, uint64_t timestamp,
                                  uint64_t horizon_ms) {
    uint32_t low = 0, high = slice->slab.count;
    if (!high || timestamp > id_at(slice, high - 1)->timestamp ||
        timestamp < id_at(slice, 0)->timestamp)
        return false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (id_at(slice, middle)->timestamp < timestamp)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < slice->slab.count && id_at(slice, low)->timestamp == timestamp; low++) {
        const struct id_record *record = id_at(slice, low);
        if (!id_is_burnt(record) && record->id[1] >> 16 >= horizon_ms)
            return true;
    }
    return false;
}

bool id_timestamp_taken(const struct id_table *table, uint64_t timestamp, uint64_t horizon_ms) {
    for (unsigned i = 0; i < ID_SLICES; i++) {
        if (table->slices[i] &&
            slice_timestamp_taken(table->slices[i], timestamp, table->id_time ? horizon_ms : 0))
            return true;
    }
    return false;
}

void id_release(struct id_table *table, struct memory *memory) {
    for (unsigned i = 0; i < ID_SLICES; i++) {
        if (table->slices[i])
            slice_drop(table, memory, table->slices[i]);
    }
}

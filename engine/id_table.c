/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/id_table.h"
#include "engine/base/planted.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/** Smallest block that holds a slice's head. */
#define ID_SLICE_ORDER 2
#define ID_SLICE_BLOCK_BYTES ((size_t)MEMORY_UNIT_BYTES << ID_SLICE_ORDER)
#define ID_SLICE_COLOURS 10
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

static void windows_drop(struct id_slice *slice, struct memory *memory) {
    for (struct id_block *block = slice->block, *next; block; block = next) {
        next = block->next;
        memory_give(memory, block, block->order);
    }
    slice->block = NULL;
    slice->blocks = slice->lines_left = 0;
    slice->window = ID_WINDOWS_NONE;
    memset(slice->pages, 0, sizeof(slice->pages));
}

static void slice_drop(struct id_table *table, struct memory *memory, struct id_slice *slice) {
    if (slice->number >= table->forgotten_end)
        table->forgotten_end = slice->number + 1;
    table->slices[slice->number % ID_SLICES] = NULL;
    windows_drop(slice, memory);
    index_release(&slice->index, memory);
    slab_release(&slice->slab, memory);
    memory_give(memory, block_of_slice(slice), ID_SLICE_ORDER);
}

/* --- windows --------------------------------------------------------------------------------------------------------- */

#define WINDOW_WORTH 4        /**< ids of a window from which on windows have lines of their own */
#define WINDOW_LINE_ENTRIES 3 /**< on average */
#define WINDOW_FETCH_LINES 32 /**< of a window that is to be made, so many are fetched */
#define BLOCK_ORDER 3         /**< of a slice's first blocks of lines; every fourth doubles */

/** How many the next window gets. */
static uint32_t window_lines(const struct id_table *table) {
    uint32_t count = table->rate / WINDOW_LINE_ENTRIES + 1;
    return count < ID_WINDOW_LINES_MAX ? count : ID_WINDOW_LINES_MAX;
}

/** @return `count` empty lines in a row, or NULL for lack of memory */
static struct index_line *lines_take(struct id_slice *slice, struct memory *memory,
                                     uint32_t count) {
    const uint32_t unit_lines = MEMORY_UNIT_BYTES / sizeof(struct index_line);
    if (slice->lines_left < count) {
        unsigned order = BLOCK_ORDER + slice->blocks / 4;
        while ((unit_lines << order) - 1 < count)
            order++;
        struct id_block *block = memory_take(memory, order);
        if (!block)
            return NULL;
        *block = (struct id_block){slice->block, order};
        slice->block = block;
        slice->lines_next = (struct index_line *)block + 1;
        slice->lines_left = (unit_lines << order) - 1;
        slice->blocks++;
    }
    struct index_line *lines = slice->lines_next;
    slice->lines_next += count;
    slice->lines_left -= count;
    memset(lines, 0, count * sizeof(*lines));
    return lines;
}

/** The first id of a window later than all that were counted: how fast do ids come? */
static void window_count(struct id_table *table, struct id_slice *slice, uint64_t number) {
    /* The first window of a slice says nothing yet. */
    if (slice->newest) {
        uint64_t rate = (slice->slab.count - slice->newest_count) / (number - slice->newest);
        table->rate = (uint32_t)rate;
    }
    slice->newest = number;
    slice->newest_count = slice->slab.count;
}

/** Give a window lines of its own, if there is memory for them. */
static void window_make(struct id_table *table, struct id_slice *slice, struct memory *memory,
                        uint64_t number) {
    int32_t *page = &slice->pages[number % ID_WINDOWS / ID_WINDOW_PAGE];
    if (!*page) {
        const uint32_t lines =
            ID_WINDOW_PAGE * sizeof(struct id_window) / sizeof(struct index_line);
        struct index_line *heads = lines_take(slice, memory, lines);
        if (!heads)
            return;
        *page = (int32_t)(heads - (struct index_line *)slice);
    }
    uint32_t count = window_lines(table);
    struct index_line *lines = lines_take(slice, memory, count);
    if (!lines)
        return;
    struct id_window *window = (struct id_window *)((struct index_line *)slice + *page) +
                               number % ID_WINDOWS % ID_WINDOW_PAGE;
    *window = (struct id_window){lines, count, 0};
    slice->window = number;
    slice->current = *window;
}

/* --- ids ------------------------------------------------------------------------------------------------------------- */

static struct id_slice *slice_make(struct id_table *table, struct memory *memory, uint64_t number) {
    void *block = memory_take(memory, ID_SLICE_ORDER);
    if (!block)
        return NULL;
    struct id_slice *slice = slice_in_block(block);
    memset(slice, 0, sizeof(*slice));
    slice->number = number;
    slice->window = ID_WINDOWS_NONE;
    table->slices[number % ID_SLICES] = slice;
    if (number < table->oldest)
        table->oldest = number;
    return slice;
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
        slice = slice_make(table, memory, number);
        if (!slice)
            return -ENOMEM;
    }
    if (unlikely(slice->number != number))
        return -ENOMEM;
    if (unlikely(!index_has_room(&slice->index, more) ||
                 slice->slab.capacity - slice->slab.count < more)) {
        int error = index_reserve(&slice->index, memory, more);
        if (!error)
            error = slab_reserve(&slice->slab, memory, more, sizeof(struct id_record));
        if (error)
            return error;
    }
    uint64_t window = id_window_number(table, id);
    if (unlikely(window > slice->newest))
        window_count(table, slice, window);
    if (table->rate >= WINDOW_WORTH && window >= slice->stray_to && !id_window_of(slice, window))
        window_make(table, slice, memory, window);
    return 0;
}

static const struct id_record *
line_find(const struct id_slice *slice, const struct index_line *line, uint128_t id, uint32_t tag) {
    for (uint32_t matches = index_line_matches(line, tag); matches; matches &= matches - 1) {
        const struct id_record *record = id_at(slice, line->slots[__builtin_ctz(matches)]);
        if (record->id[0] == (uint64_t)id && record->id[1] == (uint64_t)(id >> 64))
            return record;
    }
    return NULL;
}

const struct id_record *id_find(const struct id_table *table, uint128_t id, uint64_t hash) {
    const struct id_slice *slice = id_slice_of(table, id);
    if (unlikely(!slice))
        return NULL;
    uint32_t tag = id_tag(hash);
    uint64_t number = id_window_number(table, id);
    const struct id_window *window = id_window_of(slice, number);
    if (window) {
        struct index_line *line = id_window_line(window, tag);
        const struct id_record *record = line_find(slice, line, id, tag);
        if (!record && line->overflow & ID_IN_NEXT_LINE)
            record = line_find(slice, id_next_line(window, line), id, tag);
        if (record || !(line->overflow & ID_IN_INDEX))
            return record;
    }
    struct index_cursor cursor;
    for (uint32_t slot = index_first(&slice->index, &cursor, tag); slot != INDEX_NONE;
         slot = index_next(&slice->index, &cursor, tag)) {
        const struct id_record *record = id_at(slice, slot);
        if (record->id[0] == (uint64_t)id && record->id[1] == (uint64_t)(id >> 64))
            return record;
    }
    return NULL;
}

void id_look_slow(const struct id_table *table, uint128_t id, struct id_hint *hint) {
    struct id_slice *slice = id_slice_of(table, id);
    hint->slice = slice;
    if (!slice)
        return;
    uint32_t tag = id_tag(hint->hash);
    uint64_t number = id_window_number(table, id);
    const struct id_window *window = id_window_of(slice, number);
    if (window) {
        hint->line = id_window_line(window, tag);
        return;
    }
    if (table->rate >= WINDOW_WORTH && number >= slice->stray_to) {
        /* It is about to get lines. */
        uint32_t count = window_lines(table);
        count = count < slice->lines_left ? count : slice->lines_left;
        for (uint32_t line = 0; line < count && line < WINDOW_FETCH_LINES; line++)
            __builtin_prefetch(&slice->lines_next[line], 1);
        return;
    }
    index_prefetch(&slice->index, tag);
    if (likely(!index_split_next(&slice->index) ||
               slice->index.lines.count == slice->index.lines.capacity))
        return;
    const struct index_line *source = index_split_source(&slice->index);
    const struct index_line *lines =
        slab_at(&slice->index.lines, slice->index.lines.count, sizeof(struct index_line));
    for (unsigned line = 0; line < INDEX_BATCH; line++) {
        __builtin_prefetch(&source[line], 1);
        __builtin_prefetch(&lines[line], 1);
    }
}

void id_tail_find(struct id_slice *slice) {
    const uint32_t per_unit = MEMORY_UNIT_BYTES / sizeof(struct id_record);
    assert(slice->slab.count < slice->slab.capacity);
    slice->tail = (uint8_t *)id_at(slice, slice->slab.count);
    slice->tail_left = per_unit - slice->slab.count % per_unit;
}

/** An entry of the index, be it a window's or the slice's. Room must be there. */
static void entry_add(const struct id_table *table, struct id_slice *slice, uint128_t id,
                      uint32_t tag, uint32_t slot) {
    uint64_t number = id_window_number(table, id);
    const struct id_window *window = id_window_of(slice, number);
    if (!window) {
        index_insert(&slice->index, tag, slot);
        if (number >= slice->stray_to)
            slice->stray_to = number + 1;
        return;
    }
    struct index_line *line = id_window_line(window, tag);
    if (unlikely(line->count == INDEX_LINE_ENTRIES)) {
        struct index_line *next = id_next_line(window, line);
        if (next->count == INDEX_LINE_ENTRIES) {
            line->overflow |= ID_IN_INDEX;
            index_insert(&slice->index, tag, slot);
            return;
        }
        line->overflow |= ID_IN_NEXT_LINE;
        line = next;
    }
    line->tags[line->count] = tag;
    line->slots[line->count] = slot;
    line->count++;
}

void id_restore(struct id_table *table, const struct id_record *record, uint64_t hash) {
    uint128_t id = uint128_make(record->id[1], record->id[0]);
    struct id_slice *slice = id_slice_of(table, id);
    assert(slice);
    uint32_t slot = slice->slab.count;
    *id_append(slice) = *record;
    entry_add(table, slice, id, id_tag(hash), slot);
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

uint64_t id_count(const struct id_table *table) {
    uint64_t count = 0;
    for (unsigned i = 0; i < ID_SLICES; i++)
        count += table->slices[i] ? table->slices[i]->slab.count : 0;
    return count;
}

static int order_of_decision(const void *left, const void *right) {
    const struct id_record *a = left, *b = right;
    wal_place_t place_a = a->place & ~WAL_PLACE_BURNT, place_b = b->place & ~WAL_PLACE_BURNT;
    if (a->timestamp != b->timestamp)
        return a->timestamp < b->timestamp ? -1 : 1;
    return place_a < place_b ? -1 : place_a > place_b;
}

static int slice_sort(const struct id_table *table, struct id_slice *slice, struct memory *memory,
                      uint64_t secret) {
    uint32_t count = slice->slab.count;
    struct id_record *records = malloc(count * sizeof(*records) + 1);
    if (!records)
        return -ENOMEM;
    for (uint32_t slot = 0; slot < count; slot++)
        records[slot] = *id_at(slice, slot);
    qsort(records, count, sizeof(*records), order_of_decision);
    slice->examined = 0;
    slice->latest = slice->behind = 0;
    /* From here on they stand in the slice's index, all of them. */
    windows_drop(slice, memory);
    index_release(&slice->index, memory);
    int error = 0;
    for (uint32_t slot = 0; slot < count && !error; slot++) {
        uint128_t id = uint128_make(records[slot].id[1], records[slot].id[0]);
        *id_at(slice, slot) = records[slot];
        error = index_reserve(&slice->index, memory, 1);
        if (!error)
            entry_add(table, slice, id, id_tag(hash_transfer_id(id, secret)), slot);
    }
    free(records);
    return error;
}

int id_sort(struct id_table *table, struct memory *memory, uint64_t secret) {
    int error = 0;
    for (unsigned i = 0; i < ID_SLICES && !error; i++) {
        if (table->slices[i])
            error = slice_sort(table, table->slices[i], memory, secret);
    }
    return error;
}

unsigned id_forget(struct id_table *table, struct memory *memory, uint64_t horizon_ms,
                   unsigned slices_max) {
    if (!table->id_time)
        return 0;
    uint64_t end = horizon_ms / ID_SLICE_MS + PLANTED(ids_forgotten_early);
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

/** With several lcores a record that a traveller brings, or a segment that is replayed behind another, may be older than what stands there
 *  already. Each record is looked at once, so that searches know how far. */
static void slice_examine(struct id_slice *slice) {
    for (; slice->examined < slice->slab.count; slice->examined++) {
        uint64_t timestamp = id_at(slice, slice->examined)->timestamp;
        if (timestamp >= slice->latest)
            slice->latest = timestamp;
        else if (slice->latest - timestamp > slice->behind)
            slice->behind = slice->latest - timestamp;
    }
}

static bool is_remembered_at(const struct id_record *record, uint64_t timestamp,
                             uint64_t horizon_ms) {
    return record->timestamp == timestamp && !id_is_burnt(record) &&
           record->id[1] >> 16 >= horizon_ms;
}

static bool slice_timestamp_taken(struct id_slice *slice, uint64_t timestamp, uint64_t horizon_ms) {
    uint32_t low = 0, high = slice->slab.count, middle = 0;
    slice_examine(slice);
    /* all before a record that is so much older are older too, all behind one that is so much newer are newer */
    while (low < high) {
        middle = low + (high - low) / 2;
        if (id_at(slice, middle)->timestamp + slice->behind < timestamp)
            low = middle + 1;
        else if (id_at(slice, middle)->timestamp > timestamp + slice->behind)
            high = middle;
        else
            break;
    }
    for (uint32_t slot = middle; slot < high; slot++) {
        if (id_at(slice, slot)->timestamp > timestamp + slice->behind)
            break;
        if (is_remembered_at(id_at(slice, slot), timestamp, horizon_ms))
            return true;
    }
    for (uint32_t slot = middle; slot > low; slot--) {
        if (id_at(slice, slot - 1)->timestamp + slice->behind < timestamp)
            break;
        if (is_remembered_at(id_at(slice, slot - 1), timestamp, horizon_ms))
            return true;
    }
    return false;
}

bool id_timestamp_taken(struct id_table *table, uint64_t timestamp, uint64_t horizon_ms) {
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

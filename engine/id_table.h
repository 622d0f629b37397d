/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_ID_TABLE_H
#define TALLY_ENGINE_ID_TABLE_H

#include "engine/base/hash.h"
#include "engine/base/index.h"
#include "wal/wal_record.h"

/** The transfer ids that one partition remembers, burnt ones too.
 *  Ids carry time, so they stand in slices of ID_SLICE_MS of id time; when the horizon passes a slice's end, the whole slice goes
 *  at once. With id_time off there is one slice for ever. An id takes a 40-byte record, appended, and an index entry.
 *
 *  Where ids come fast, those of the same ID_WINDOW_MS stand together, in a few index lines of their own: what arrives together is
 *  then in the cache together, and nothing ever grows. A window gets as many lines as the one before would have needed; an id whose line
 *  and the one behind are full goes to the slice's index (linear hashing), and the line says so. Where ids come slowly the index takes them all.
 *  Owner: the partition's lcore. Bounds: memory; ID_SLICES cover the hour back, the minute ahead and the current slice. Keeps: INV-4. */

#define ID_SLICE_MS 32768u
#define ID_SLICES 128u /**< power of two; more than (3,600,000 + 60,000) / ID_SLICE_MS + 2 */
#define ID_WINDOW_MS 2u
#define ID_WINDOWS (ID_SLICE_MS / ID_WINDOW_MS) /**< in a slice */
#define ID_WINDOW_PAGE 64u                      /**< windows whose heads are allocated together */
#define ID_WINDOW_LINES_MAX 8192u               /**< cleared in one step */
#define ID_WINDOWS_NONE UINT64_MAX

/** 40 bytes (in memory only; 8-byte aligned). */
struct id_record {
    uint64_t id[2]; /**< low half first */
    uint64_t
        timestamp; /**< ns, the transfer's; of a burnt id: that of the newest transfer before it in this slice */
    uint64_t digest;   /**< of the requested fields */
    wal_place_t place; /**< WAL_PLACE_BURNT in it: the id failed there and must not be used again */
};
_Static_assert(sizeof(struct id_record) == 40, "a remembered id takes 40 bytes");

/** Where else entries of a window's line may stand, in its `overflow`. */
enum id_elsewhere {
    ID_IN_NEXT_LINE = 1,
    ID_IN_INDEX = 2, /**< the slice's */
};

/** Index lines of the ids of ID_WINDOW_MS. */
struct id_window {
    struct index_line *lines; /**< NULL: none */
    uint32_t line_count;
    uint32_t reserved;
};

/** A block of lines, and of pages of windows' heads, that belongs to a slice; its first line is this. */
struct id_block {
    struct id_block *next;
    uint32_t order;
};

struct id_slice {
    /* what every new id needs: one cache line */
    uint64_t window;          /**< id time / ID_WINDOW_MS of `current`; ID_WINDOWS_NONE: none */
    struct id_window current; /**< the window that was made last */
    uint8_t *tail;            /**< where the next record goes, if tail_left */
    uint32_t tail_left;       /**< records that fit behind `tail` in its unit */
    uint32_t blocks;          /**< how many there are */
    uint64_t number;          /**< id time / ID_SLICE_MS */
    struct slab slab;         /**< the records; its head ends this line */
    /* the rest */
    struct index index;
    uint64_t stray_to;             /**< above every window that has no lines and ids in the index */
    uint64_t newest;               /**< newest window that was counted */
    uint32_t newest_count;         /**< records there were when it began */
    struct id_block *block;        /**< newest block */
    struct index_line *lines_next; /**< the first of its lines that are left */
    uint32_t lines_left;           /**< how many there are, up to its end */
    uint32_t examined;             /**< of so many records it is known ... */
    uint64_t latest;               /**< ... which timestamp is the highest */
    uint64_t behind;               /**< ... and how far below a higher one before it one may be */
    int32_t
        pages[ID_WINDOWS /
              ID_WINDOW_PAGE]; /**< heads of windows: distance from the slice in lines; 0: none */
};
_Static_assert(offsetof(struct id_slice, slab.units.directory) == CACHE_LINE_BYTES,
               "one cache line");

struct id_table {
    struct id_slice *slices[ID_SLICES]; /**< slice n is at n % ID_SLICES; NULL: empty */
    uint64_t oldest;                    /**< no slice below this number exists */
    uint64_t forgotten_end;             /**< every slice ever forgotten is below this number */
    uint32_t rate;                      /**< ids of a window, as last counted; 0: few */
    bool id_time;
};

static inline uint64_t id_slice_number(const struct id_table *table, uint128_t id) {
    return table->id_time ? id_time_ms(id) / ID_SLICE_MS : 0;
}

static inline uint64_t id_window_number(const struct id_table *table, uint128_t id) {
    return table->id_time ? id_time_ms(id) / ID_WINDOW_MS : 0;
}

static inline uint32_t id_tag(uint64_t hash) {
    return (uint32_t)(hash >> 32);
}

static inline struct id_record *id_at(const struct id_slice *slice, uint32_t slot) {
    return slab_at(&slice->slab, slot, sizeof(struct id_record));
}

static inline bool id_is_burnt(const struct id_record *record) {
    return record->place & WAL_PLACE_BURNT;
}

/** The slice of an id, or NULL when none of its neighbours in time is remembered. */
static inline struct id_slice *id_slice_of(const struct id_table *table, uint128_t id) {
    uint64_t number = id_slice_number(table, id);
    struct id_slice *slice = table->slices[number % ID_SLICES];
    return slice && slice->number == number ? slice : NULL;
}

/** The line of an id in its window. (Splitting takes the tag's low bits, this the high ones.) */
static inline struct index_line *id_window_line(const struct id_window *window, uint32_t tag) {
    return &window->lines[(uint64_t)tag * window->line_count >> 32];
}

/** The line behind it, or the first one. */
static inline struct index_line *id_next_line(const struct id_window *window,
                                              struct index_line *line) {
    return line + 1 < window->lines + window->line_count ? line + 1 : window->lines;
}

/** The lines of a window of this slice, or NULL. */
static inline const struct id_window *id_window_of(const struct id_slice *slice, uint64_t number) {
    if (number == slice->window)
        return &slice->current;
    uint32_t window = number % ID_WINDOWS;
    int32_t page = slice->pages[window / ID_WINDOW_PAGE];
    if (!page)
        return NULL;
    const struct id_window *found =
        (const struct id_window *)((const struct index_line *)slice + page) +
        window % ID_WINDOW_PAGE;
    return found->lines ? found : NULL;
}

/** @param hash hash_transfer_id() of the id. @return its record, or NULL */
const struct id_record *id_find(const struct id_table *table, uint128_t id, uint64_t hash);

/** Make room for `more` ids in the slice of `id`. An older slice in its place is forgotten: it lies ID_SLICES below.
 *  @return 0, or -ENOMEM (also when a newer slice stands in its place) */
int id_reserve(struct id_table *table, struct memory *memory, uint128_t id, uint32_t more);

/** Remember an id that is not there; room must have been reserved. */
void id_insert(struct id_table *table, uint128_t id, uint64_t hash, uint64_t timestamp,
               uint64_t digest, wal_place_t place);

/** Remember an id again just as it was; room must have been reserved. */
void id_restore(struct id_table *table, const struct id_record *record, uint64_t hash);
/** Put the ids of each slice in the order of their timestamps. Control path. @param secret of hash_transfer_id()
 *  @return 0 or -ENOMEM */
int id_sort(struct id_table *table, struct memory *memory, uint64_t secret);

/* For bursts: first find out where each id will stand, fetch that, and then remember one after the other. */

/** Where an id will stand if it is new. A hint: what does not fit any more is looked up again. */
struct id_hint {
    uint64_t hash;
    struct id_slice *slice;  /**< good where there is a line; NULL: none yet */
    struct index_line *line; /**< of its window; NULL: it has none */
};

/** The id's line is not in its slice's current window: find it, or fetch what else will be needed. */
void id_look_slow(const struct id_table *table, uint128_t id, struct id_hint *hint);
static inline void id_look(const struct id_table *table, uint128_t id, uint64_t secret,
                           struct id_hint *hint) {
    uint64_t window = id_window_number(table, id);
    struct id_slice *slice = table->slices[window / ID_WINDOWS % ID_SLICES];
    hint->hash = hash_transfer_id(id, secret);
    hint->slice = slice;
    hint->line = NULL;
    if (likely(slice && slice->window == window))
        hint->line = id_window_line(&slice->current, id_tag(hint->hash));
    else
        id_look_slow(table, id, hint);
}

ALWAYS_INLINE void id_fetch(const struct id_hint *hint) {
    __builtin_prefetch(hint->line, 1);
    if (likely(hint->slice)) { /* where the next record begins, and the line behind */
        uintptr_t tail = (uintptr_t)hint->slice->tail;
        __builtin_prefetch((const void *)tail, 1);
        __builtin_prefetch((const void *)(tail + CACHE_LINE_BYTES), 1);
    }
}

/** Find the place of the next records. Only for id_append and before it; room must have been reserved. */
void id_tail_find(struct id_slice *slice);
/** The next record, for an id that is about to be remembered; room must have been reserved. */
static inline struct id_record *id_append(struct id_slice *slice) {
    if (unlikely(!slice->tail_left))
        id_tail_find(slice);
    struct id_record *record = (struct id_record *)slice->tail;
    slice->tail += sizeof(*record);
    slice->tail_left--;
    slice->slab.count++;
    return record;
}

/** Remember an id whose line is at hand. @param id low half first
 *  @return false: nothing happened; only id_find() can tell if it is new, and id_reserve() if there is room */
static inline bool id_add(const struct id_hint *hint, const uint64_t id[2], uint64_t timestamp,
                          uint64_t digest, wal_place_t place) {
    struct index_line *line = hint->line;
    struct id_slice *slice = hint->slice;
    uint32_t tag = id_tag(hint->hash);
    /* A tag that matches may be this id or another one. */
    if (unlikely(!line || line->count == INDEX_LINE_ENTRIES || line->overflow ||
                 index_line_matches(line, tag)))
        return false;
    if (unlikely(!slice->tail_left && slice->slab.count == slice->slab.capacity))
        return false;
    line->tags[line->count] = tag;
    line->slots[line->count] = slice->slab.count;
    line->count++;
    struct id_record *record = id_append(slice);
    record->id[0] = id[0];
    record->id[1] = id[1];
    record->timestamp = timestamp;
    record->digest = digest;
    record->place = place;
    return true;
}

/** Forget slices that lie below the horizon as a whole: at most `slices_max` of them, oldest first.
 *  @return how many were released */
unsigned id_forget(struct id_table *table, struct memory *memory, uint64_t horizon_ms,
                   unsigned slices_max);

/** How many ids are remembered. */
uint64_t id_count(const struct id_table *table);

/** Oldest slice that holds anything: its first id time in ms; UINT64_MAX when there is none. */
uint64_t id_oldest_ms(const struct id_table *table);

/** Whether some remembered transfer (its id not below the horizon) has exactly this timestamp. Binary search, slice by slice: records stand
 *  nearly in the order of their timestamps, for imported ones must not regress. What came since the last time is looked at first, each
 *  record once. Only for imported accounts. */
bool id_timestamp_taken(struct id_table *table, uint64_t timestamp, uint64_t horizon_ms);

void id_release(struct id_table *table, struct memory *memory);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_INDEX_H
#define TALLY_ENGINE_BASE_INDEX_H

#include "engine/base/slab.h"

/** From a hash to slot numbers: linear hashing (Litwin 1980) with one cache line a bucket.
 *  Buckets are split INDEX_BATCH neighbours at a time: their lines are contiguous, old and new, so that one branch and one burst of
 *  fetches serve many insertions; growth stays a bounded step, and nothing is ever rehashed as a whole.
 *  A line holds 7 entries of (32-bit tag, 32-bit slot); more go to overflow lines, which are rare at INDEX_LOAD.
 *  The caller compares its own keys, for tags may collide. Owner: the partition's lcore. */

#define INDEX_LINE_ENTRIES 7
#define INDEX_BATCH                                                                                \
    8 /**< buckets split at once: half a unit of lines; the number of buckets is a multiple of it */
/** A batch splits when this many entries have come since the one before: 2.5 a bucket on average, for a bucket that waits for its
 *  split holds up to twice that, and an overflow line is one more cache miss. */
#define INDEX_BATCH_ENTRIES 20
#define INDEX_NONE UINT32_MAX
#define INDEX_SPARE_LINES 16 /**< overflow lines kept for the split of unusually full buckets */

struct index_line {
    uint32_t tags[INDEX_LINE_ENTRIES];
    uint32_t overflow; /**< 1 + number of the next overflow line; 0: none */
    uint32_t slots[INDEX_LINE_ENTRIES];
    uint32_t count;
};
_Static_assert(sizeof(struct index_line) == CACHE_LINE_BYTES, "one cache line");

struct index {
    uint32_t buckets;
    uint32_t mask;           /**< smallest 2^n - 1 at or above buckets - 1 */
    uint32_t count;          /**< entries */
    uint32_t split_above;    /**< with more entries than this, a split is due */
    uint32_t room;           /**< insertions that surely fit; 0 also when more lines are wanted */
    uint32_t overflow_free;  /**< 1 + first line of the free list */
    uint32_t overflow_spare; /**< lines in the free list */
    uint32_t
        spare_wanted; /**< overflow lines that a split was put off for, beyond INDEX_SPARE_LINES */
    struct slab lines;
    struct slab overflow;
};

/** Where a search stands. */
struct index_cursor {
    const struct index_line *line;
    uint32_t matches; /**< entries of it that have not been answered yet, one bit each */
};

static inline struct index_line *index_line_at(const struct index *index, uint32_t tag) {
    uint32_t bucket = tag & index->mask;
    /* Not a branch: it would be as good as random. */
    uint32_t beyond = 0u - (uint32_t)(bucket >= index->buckets);
    bucket &= ~beyond | index->mask >> 1;
    return slab_at(&index->lines, bucket, sizeof(struct index_line));
}

ALWAYS_INLINE void index_prefetch(const struct index *index, uint32_t tag) {
    if (likely(index->buckets))
        __builtin_prefetch(index_line_at(index, tag), 1);
}

typedef uint32_t index_tags __attribute__((vector_size(32), aligned(32), may_alias));

/** Entries of a line whose tag is `tag`, one bit each. All are compared at once, for where a tag stands is as good as random and a
 *  loop would mispredict. */
static inline uint32_t index_line_matches(const struct index_line *line, uint32_t tag) {
    index_tags equal = (index_tags)(*(const index_tags *)line->tags == tag);
#ifdef __AVX2__
    uint32_t bits =
        (uint32_t)__builtin_ia32_movmskps256((__attribute__((vector_size(32))) float)equal);
#else
    uint32_t bits = 0;
    for (unsigned i = 0; i < INDEX_LINE_ENTRIES; i++)
        bits |= equal[i] & (1u << i);
#endif
    return bits & ((1u << line->count) - 1);
}

/** The next slot whose tag matches, or INDEX_NONE. */
static inline uint32_t index_next(const struct index *index, struct index_cursor *cursor,
                                  uint32_t tag) {
    while (!cursor->matches) {
        if (likely(!cursor->line->overflow))
            return INDEX_NONE;
        cursor->line =
            slab_at(&index->overflow, cursor->line->overflow - 1, sizeof(struct index_line));
        cursor->matches = index_line_matches(cursor->line, tag);
    }
    unsigned entry = (unsigned)__builtin_ctz(cursor->matches);
    cursor->matches &= cursor->matches - 1;
    return cursor->line->slots[entry];
}

/** The first slot whose tag matches, or INDEX_NONE. */
static inline uint32_t index_first(const struct index *index, struct index_cursor *cursor,
                                   uint32_t tag) {
    if (unlikely(!index->buckets))
        return INDEX_NONE;
    cursor->line = index_line_at(index, tag);
    cursor->matches = index_line_matches(cursor->line, tag);
    return index_next(index, cursor, tag);
}

/** Make room for `more` insertions. @return 0 or -ENOMEM */
int index_reserve(struct index *index, struct memory *memory, uint32_t more);
/** Give an empty index as many buckets as `entries` will want, so that none of their insertions splits. Control path.
 *  @return 0 or -ENOMEM: nothing is lost, it grows by itself */
int index_size(struct index *index, struct memory *memory, uint32_t entries);
/** Whether `more` insertions fit already: the cheap part of index_reserve. */
static inline bool index_has_room(const struct index *index, uint32_t more) {
    return index->room >= more;
}
/** Whether one more insertion makes a split due. */
static inline bool index_split_next(const struct index *index) {
    return index->count >= index->split_above;
}
/** The first of the buckets that the next split divides. */
static inline struct index_line *index_split_source(const struct index *index) {
    uint32_t mask = index->buckets > index->mask ? index->mask : index->mask >> 1;
    return slab_at(&index->lines, index->buckets & mask, sizeof(struct index_line));
}

/** Add an entry; room must have been reserved. */
void index_insert(struct index *index, uint32_t tag, uint32_t slot);
/** Give the next buckets their share; only for index_insert. */
void index_split(struct index *index);
/** index_insert, where `line` is index_line_at(index, tag) and is at hand. */
static inline void index_insert_at(struct index *index, struct index_line *line, uint32_t tag,
                                   uint32_t slot) {
    uint32_t count = line->count;
    if (unlikely(count == INDEX_LINE_ENTRIES)) {
        index_insert(index, tag, slot);
        return;
    }
    line->tags[count] = tag;
    line->slots[count] = slot;
    line->count = count + 1;
    index->room -= index->room != 0;
    if (unlikely(++index->count > index->split_above))
        index_split(index);
}
/** Remove the entry (tag, slot), which must be there. */
void index_remove(struct index *index, uint32_t tag, uint32_t slot);
void index_release(struct index *index, struct memory *memory);

#endif

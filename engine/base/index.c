/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/index.h"

#include <errno.h>
#include <string.h>

_Static_assert(MEMORY_UNIT_BYTES % (INDEX_BATCH * sizeof(struct index_line)) == 0,
               "the lines of a batch are contiguous");

static struct index_line *overflow_at(const struct index *index, uint32_t number) {
    return slab_at(&index->overflow, number - 1, sizeof(struct index_line));
}

/** Overflow lines that may be taken. */
static uint32_t overflow_left(const struct index *index) {
    return index->overflow.capacity - index->overflow.count + index->overflow_spare;
}

int index_reserve(struct index *index, struct memory *memory, uint32_t more) {
    if (more <= index->room)
        return 0;
    uint64_t lines = ((uint64_t)more / INDEX_BATCH_ENTRIES + 1) * INDEX_BATCH;
    lines += index->buckets ? 0 : INDEX_BATCH;
    /* An insertion takes one overflow line at most; a split takes none in the end. */
    uint64_t spare = (uint64_t)INDEX_SPARE_LINES + index->spare_wanted;
    uint64_t overflow = more + spare + index->buckets / 16;
    if (lines > UINT32_MAX || overflow > UINT32_MAX)
        return -ENOMEM;
    int error = slab_reserve(&index->lines, memory, (uint32_t)lines, sizeof(struct index_line));
    if (!error && overflow > index->overflow_spare)
        error = slab_reserve(&index->overflow, memory, (uint32_t)overflow - index->overflow_spare,
                             sizeof(struct index_line));
    if (error)
        return error;
    if (!index->buckets) {
        for (uint32_t i = 0; i < INDEX_BATCH; i++)
            memset(slab_take(&index->lines, sizeof(struct index_line)), 0,
                   sizeof(struct index_line));
        index->buckets = INDEX_BATCH;
        index->mask = INDEX_BATCH - 1;
        index->split_above = INDEX_BATCH_ENTRIES;
    }
    /* As long as the lines at hand last; with the next ones comes the next reservation. */
    uint64_t until =
        (uint64_t)(index->lines.capacity - index->lines.count) / INDEX_BATCH * INDEX_BATCH_ENTRIES;
    uint64_t room = overflow_left(index) - spare;
    room = room < until ? room : until;
    index->room = (uint32_t)(room > more ? room : more);
    return 0;
}

int index_size(struct index *index, struct memory *memory, uint32_t entries) {
    uint64_t buckets = ((uint64_t)entries / INDEX_BATCH_ENTRIES + 1) * INDEX_BATCH;
    if (index->buckets)
        return 0;
    if (buckets > UINT32_MAX / 2 ||
        slab_reserve(&index->lines, memory, (uint32_t)buckets, sizeof(struct index_line)) != 0)
        return -ENOMEM;
    for (uint64_t i = 0; i < buckets; i++)
        memset(slab_take(&index->lines, sizeof(struct index_line)), 0, sizeof(struct index_line));
    index->buckets = (uint32_t)buckets;
    for (index->mask = INDEX_BATCH - 1; index->mask < buckets - 1;)
        index->mask = index->mask * 2 + 1;
    index->split_above = (uint32_t)(buckets / INDEX_BATCH * INDEX_BATCH_ENTRIES);
    return 0;
}

/** @return number of an empty overflow line */
static uint32_t overflow_take(struct index *index) {
    uint32_t number = index->overflow_free;
    struct index_line *line;
    if (number) {
        line = overflow_at(index, number);
        index->overflow_free = line->overflow;
        index->overflow_spare--;
    } else {
        line = slab_take(&index->overflow, sizeof(struct index_line));
        number = index->overflow.count;
    }
    memset(line, 0, sizeof(*line));
    return number;
}

static void overflow_give(struct index *index, uint32_t number) {
    overflow_at(index, number)->overflow = index->overflow_free;
    index->overflow_free = number;
    index->overflow_spare++;
}

static void bucket_add(struct index *index, struct index_line *line, uint32_t tag, uint32_t slot) {
    while (line->count == INDEX_LINE_ENTRIES) {
        if (!line->overflow)
            line->overflow = overflow_take(index);
        line = overflow_at(index, line->overflow);
    }
    line->tags[line->count] = tag;
    line->slots[line->count] = slot;
    line->count++;
}

#if defined(__AVX2__) && defined(__BMI2__)
typedef uint8_t lanes8 __attribute__((vector_size(8)));
typedef uint32_t lanes32 __attribute__((vector_size(32)));

/** Lanes that bring the entries named in `bits` to the front, in order. */
static inline lanes32 compress_lanes(uint32_t bits) {
    uint64_t bytes = __builtin_ia32_pdep_di(bits, 0x0101010101010101u) * 0xff;
    uint64_t picked = __builtin_ia32_pext_di(0x0706050403020100u, bytes);
    lanes8 lanes;
    memcpy(&lanes, &picked, sizeof(lanes));
    return __builtin_convertvector(lanes, lanes32);
}

static inline lanes32 pick(lanes32 from, lanes32 lanes) {
    typedef int32_t signed32 __attribute__((vector_size(32)));
    return (lanes32)__builtin_ia32_permvarsi256((signed32)from, (signed32)lanes);
}

/** Split a bucket of one line into it and a new one, without a branch for each entry: which one moves is as good as random. */
static void split_line(struct index_line *from, struct index_line *to, uint32_t bit) {
    lanes32 tags, slots;
    memcpy(&tags, from->tags, sizeof(tags));
    memcpy(&slots, from->slots, sizeof(slots));
    uint32_t all = (1u << from->count) - 1;
    lanes32 with_bit = (lanes32)((tags & bit) != 0);
    uint32_t moving =
        (uint32_t)__builtin_ia32_movmskps256((__attribute__((vector_size(32))) float)with_bit) &
        all;
    lanes32 move = compress_lanes(moving), keep = compress_lanes(all & ~moving);
    lanes32 moved_tags = pick(tags, move), moved_slots = pick(slots, move);
    lanes32 kept_tags = pick(tags, keep), kept_slots = pick(slots, keep);
    memcpy(to->tags, &moved_tags, sizeof(moved_tags));
    memcpy(to->slots, &moved_slots, sizeof(moved_slots));
    memcpy(from->tags, &kept_tags, sizeof(kept_tags));
    memcpy(from->slots, &kept_slots, sizeof(kept_slots));
    to->overflow = from->overflow = 0;
    to->count = (uint32_t)__builtin_popcount(moving);
    from->count = (uint32_t)__builtin_popcount(all & ~moving);
}
#else
static void split_line(struct index_line *from, struct index_line *to, uint32_t bit) {
    uint32_t count = from->count;
    from->count = to->count = to->overflow = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct index_line *line = from->tags[i] & bit ? to : from;
        line->tags[line->count] = from->tags[i];
        line->slots[line->count] = from->slots[i];
        line->count++;
    }
}
#endif

/** Split a bucket with overflow lines. */
static void split_chain(struct index *index, struct index_line *line, struct index_line *new_line,
                        uint32_t to) {
    struct index_line *keep = line;
    uint32_t keep_count = 0;
    for (;;) {
        uint32_t count = line->count;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t tag = line->tags[i], slot = line->slots[i];
            if ((tag & index->mask) == to) {
                bucket_add(index, new_line, tag, slot);
                continue;
            }
            if (keep_count == INDEX_LINE_ENTRIES) {
                keep->count = INDEX_LINE_ENTRIES;
                keep = overflow_at(index, keep->overflow);
                keep_count = 0;
            }
            keep->tags[keep_count] = tag;
            keep->slots[keep_count] = slot;
            keep_count++;
        }
        if (!line->overflow)
            break;
        line = overflow_at(index, line->overflow);
    }
    keep->count = keep_count;
    uint32_t number = keep->overflow;
    keep->overflow = 0;
    while (number) {
        uint32_t next = overflow_at(index, number)->overflow;
        overflow_give(index, number);
        number = next;
    }
}

/** Lines of the bucket's chain beyond the first. */
static uint32_t chain_lines(const struct index *index, const struct index_line *line) {
    uint32_t lines = 0;
    for (; line->overflow; line = overflow_at(index, line->overflow))
        lines++;
    return lines;
}

/** Give the next buckets their shares of the ones that they come out of. Entries keep their order. Chains so long that the spare
 *  lines would not do are left as they are: a later insertion, with more room, splits them. */
void index_split(struct index *index) {
    struct index_line *lines = index_split_source(index);
    uint32_t chains = 0;
    for (uint32_t i = 0; i < INDEX_BATCH; i++)
        chains += lines[i].overflow ? chain_lines(index, &lines[i]) : 0;
    bool spare = chains <= overflow_left(index);
    if (unlikely(!spare))
        index->spare_wanted = chains;
    if (unlikely(index->buckets >= (1u << 31) || !spare ||
                 index->lines.capacity - index->lines.count < INDEX_BATCH)) {
        index->room = 0;
        return;
    }
    uint32_t to = index->buckets;
    if (to > index->mask)
        index->mask = index->mask * 2 + 1;
    struct index_line *new_lines =
        slab_at(&index->lines, index->lines.count, sizeof(struct index_line));
    index->lines.count += INDEX_BATCH;
    index->buckets += INDEX_BATCH;
    index->split_above += INDEX_BATCH_ENTRIES;
    uint32_t bit = index->mask - (index->mask >> 1);
    for (uint32_t i = 0; i < INDEX_BATCH; i++) {
        if (likely(!lines[i].overflow)) {
            split_line(&lines[i], &new_lines[i], bit);
            continue;
        }
        memset(&new_lines[i], 0, sizeof(new_lines[i]));
        split_chain(index, &lines[i], &new_lines[i], to + i);
    }
}

void index_insert(struct index *index, uint32_t tag, uint32_t slot) {
    bucket_add(index, index_line_at(index, tag), tag, slot);
    index->room -= index->room != 0;
    if (++index->count > index->split_above)
        index_split(index);
}

void index_remove(struct index *index, uint32_t tag, uint32_t slot) {
    struct index_line *line = index_line_at(index, tag), *previous = NULL;
    uint32_t entry = 0;
    for (;;) {
        for (entry = 0; entry < line->count; entry++) {
            if (line->tags[entry] == tag && line->slots[entry] == slot)
                break;
        }
        if (entry < line->count)
            break;
        assert(line->overflow);
        line = overflow_at(index, line->overflow);
    }
    /* The bucket's last entry fills the hole. */
    struct index_line *last = line;
    previous = NULL;
    for (struct index_line *walk = index_line_at(index, tag);;
         walk = overflow_at(index, walk->overflow)) {
        last = walk;
        if (!walk->overflow)
            break;
        previous = walk;
    }
    last->count--;
    line->tags[entry] = last->tags[last->count];
    line->slots[entry] = last->slots[last->count];
    if (last->count == 0 && previous) {
        overflow_give(index, previous->overflow);
        previous->overflow = 0;
    }
    index->count--;
}

void index_release(struct index *index, struct memory *memory) {
    slab_release(&index->lines, memory);
    slab_release(&index->overflow, memory);
    memset(index, 0, sizeof(*index));
}

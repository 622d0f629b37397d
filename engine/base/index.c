/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/index.h"

#include <errno.h>
#include <string.h>

static struct index_line *overflow_at(const struct index *index, uint32_t number) {
    return slab_at(&index->overflow, number - 1, sizeof(struct index_line));
}

int index_reserve(struct index *index, struct memory *memory, uint32_t more) {
    int error = slab_reserve(&index->lines, memory, more + 1, sizeof(struct index_line));
    if (error)
        return error;
    uint64_t wanted = (uint64_t)more + INDEX_SPARE_LINES;
    if (wanted > index->overflow_free_count) {
        error =
            slab_reserve(&index->overflow, memory, (uint32_t)(wanted - index->overflow_free_count),
                         sizeof(struct index_line));
        if (error)
            return error;
    }
    if (!index->buckets) {
        memset(slab_take(&index->lines, sizeof(struct index_line)), 0, sizeof(struct index_line));
        index->buckets = 1;
    }
    return 0;
}

/** @return number of an empty overflow line */
static uint32_t overflow_take(struct index *index) {
    uint32_t number = index->overflow_free;
    struct index_line *line;
    if (number) {
        line = overflow_at(index, number);
        index->overflow_free = line->overflow;
        index->overflow_free_count--;
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
    index->overflow_free_count++;
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

/** Lines of the bucket's chain beyond the first. */
static uint32_t chain_lines(const struct index *index, const struct index_line *line) {
    uint32_t lines = 0;
    for (; line->overflow; line = overflow_at(index, line->overflow))
        lines++;
    return lines;
}

/** Give the next bucket its share of the bucket that it comes out of. Entries keep their order. A chain so long that the spare lines
 *  would not do is left as it is: a later insertion, with more room, splits it. */
void index_split(struct index *index) {
    uint32_t spare = index->overflow.capacity - index->overflow.count + index->overflow_free_count;
    uint32_t mask = index->buckets > index->mask ? index->mask : index->mask >> 1;
    if (index->buckets >= (1u << 31) || index->lines.count == index->lines.capacity ||
        chain_lines(index, slab_at(&index->lines, index->buckets & mask,
                                   sizeof(struct index_line))) > spare)
        return;
    uint32_t to = index->buckets++;
    if (to > index->mask)
        index->mask = index->mask * 2 + 1;
    struct index_line *new_line = slab_take(&index->lines, sizeof(struct index_line));
    memset(new_line, 0, sizeof(*new_line));
    struct index_line *line =
        slab_at(&index->lines, to & (index->mask >> 1), sizeof(struct index_line));
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
    /* The next split takes the next bucket: have it near by then. */
    uint32_t next_from = index->buckets > index->mask ? 0 : index->buckets & (index->mask >> 1);
    __builtin_prefetch(slab_at(&index->lines, next_from, sizeof(struct index_line)), 1);
    uint32_t number = keep->overflow;
    keep->overflow = 0;
    while (number) {
        uint32_t next = overflow_at(index, number)->overflow;
        overflow_give(index, number);
        number = next;
    }
}

void index_insert(struct index *index, uint32_t tag, uint32_t slot) {
    bucket_add(index, index_line_at(index, tag), tag, slot);
    index->count++;
    if (index->count * INDEX_LOAD_DENOMINATOR > (uint64_t)index->buckets * INDEX_LOAD_NUMERATOR)
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

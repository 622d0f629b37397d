/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_HEAP_H
#define TALLY_ENGINE_BASE_HEAP_H

#include "engine/base/slab.h"

/** What is due next: a 4-ary heap of (key, slot) that tells each slot where it stands, so that any entry can be removed.
 *  Insertion, removal and taking the first cost O(log n); nothing is ever scanned. Owner: the partition's lcore. */

#define HEAP_NOWHERE UINT32_MAX

struct heap_entry {
    uint64_t key;
    uint32_t slot;
    uint32_t reserved;
};

/** Called whenever an entry moves: the slot's position is now `position` (HEAP_NOWHERE: not in the heap). */
typedef void heap_moved_fn(void *context, uint32_t slot, uint32_t position);

struct heap {
    struct slab entries; /**< entries.count of them are in the heap */
};

static inline const struct heap_entry *heap_first(const struct heap *heap) {
    return heap->entries.count ? slab_at(&heap->entries, 0, sizeof(struct heap_entry)) : NULL;
}
static inline int heap_reserve(struct heap *heap, struct memory *memory, uint32_t more) {
    return slab_reserve(&heap->entries, memory, more, sizeof(struct heap_entry));
}
/** Room must have been reserved. */
void heap_insert(struct heap *heap, uint64_t key, uint32_t slot, heap_moved_fn *moved,
                 void *context);
/** @param position where the entry stands, as `moved` last said */
void heap_remove(struct heap *heap, uint32_t position, heap_moved_fn *moved, void *context);

#endif

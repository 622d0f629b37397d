/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/heap.h"

static struct heap_entry *entry_at(const struct heap *heap, uint32_t position) {
    return slab_at(&heap->entries, position, sizeof(struct heap_entry));
}

/** Let `entry` rise from `position` to where it belongs. */
static void sift_up(struct heap *heap, uint32_t position, struct heap_entry entry,
                    heap_moved_fn *moved, void *context) {
    while (position > 0) {
        uint32_t parent = (position - 1) / 4;
        struct heap_entry above = *entry_at(heap, parent);
        if (above.key <= entry.key)
            break;
        *entry_at(heap, position) = above;
        moved(context, above.slot, position);
        position = parent;
    }
    *entry_at(heap, position) = entry;
    moved(context, entry.slot, position);
}

static void sift_down(struct heap *heap, uint32_t position, struct heap_entry entry,
                      heap_moved_fn *moved, void *context) {
    uint32_t count = heap->entries.count;
    for (;;) {
        uint64_t first = (uint64_t)position * 4 + 1;
        if (first >= count)
            break;
        uint32_t least = (uint32_t)first;
        for (uint32_t child = (uint32_t)first + 1; child < count && child < first + 4; child++) {
            if (entry_at(heap, child)->key < entry_at(heap, least)->key)
                least = child;
        }
        struct heap_entry below = *entry_at(heap, least);
        if (entry.key <= below.key)
            break;
        *entry_at(heap, position) = below;
        moved(context, below.slot, position);
        position = least;
    }
    *entry_at(heap, position) = entry;
    moved(context, entry.slot, position);
}

void heap_insert(struct heap *heap, uint64_t key, uint32_t slot, heap_moved_fn *moved,
                 void *context) {
    slab_take(&heap->entries, sizeof(struct heap_entry));
    sift_up(heap, heap->entries.count - 1, (struct heap_entry){.key = key, .slot = slot}, moved,
            context);
}

void heap_remove(struct heap *heap, uint32_t position, heap_moved_fn *moved, void *context) {
    assert(position < heap->entries.count);
    struct heap_entry gone = *entry_at(heap, position);
    struct heap_entry last = *entry_at(heap, heap->entries.count - 1);
    heap->entries.count--;
    moved(context, gone.slot, HEAP_NOWHERE);
    if (position == heap->entries.count)
        return;
    if (last.key < gone.key)
        sift_up(heap, position, last, moved, context);
    else
        sift_down(heap, position, last, moved, context);
}

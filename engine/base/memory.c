/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/check.h"

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

/** A free block carries its list links itself. */
struct memory_block {
    struct memory_block *next;
    struct memory_block *previous;
};

static void block_push(struct memory *memory, uint32_t unit, unsigned order) {
    struct memory_block *block = (void *)(memory->base + (size_t)unit * MEMORY_UNIT_BYTES);
    block->previous = NULL;
    block->next = memory->free[order];
    if (block->next)
        block->next->previous = block;
    memory->free[order] = block;
    memory->orders[unit] = (uint8_t)(order + 1);
}

static void block_remove(struct memory *memory, uint32_t unit, unsigned order) {
    struct memory_block *block = (void *)(memory->base + (size_t)unit * MEMORY_UNIT_BYTES);
    assert(memory->orders[unit] == order + 1);
    if (block->previous)
        block->previous->next = block->next;
    else
        memory->free[order] = block->next;
    if (block->next)
        block->next->previous = block->previous;
    memory->orders[unit] = 0;
}

static uint8_t *region_map(size_t bytes, bool *huge_tlb) {
    int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *base = mmap(NULL, bytes, protection, flags | MAP_HUGETLB, -1, 0);
    *huge_tlb = base != MAP_FAILED;
    if (base != MAP_FAILED)
        return base;
    /* One huge page more than needed, so that the region can start on a huge page's boundary. */
    base = mmap(NULL, bytes + HUGE_PAGE_BYTES, protection, flags | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    uintptr_t start = ((uintptr_t)base + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
    if (start > (uintptr_t)base)
        munmap(base, start - (uintptr_t)base);
    size_t behind = (uintptr_t)base + HUGE_PAGE_BYTES - start;
    if (behind > 0)
        munmap((uint8_t *)start + bytes, behind);
    madvise((void *)start, bytes, MADV_HUGEPAGE);
    return (uint8_t *)start;
}

int memory_open(struct memory *memory, size_t bytes, bool prefault) {
    memset(memory, 0, sizeof(*memory));
    bytes = (bytes + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
    if (bytes == 0 || bytes / MEMORY_UNIT_BYTES > UINT32_MAX)
        return -ENOMEM;
    memory->unit_count = (uint32_t)(bytes / MEMORY_UNIT_BYTES);
    memory->orders = calloc(memory->unit_count, 1);
    if (!memory->orders)
        return -ENOMEM;
    memory->base = region_map(bytes, &memory->huge_tlb);
    if (!memory->base) {
        memory_close(memory);
        return -ENOMEM;
    }
    memory->mapped_bytes = bytes;
    if (prefault) {
        for (size_t i = 0; i < bytes; i += 4096)
            memory->base[i] = 0;
    }
    /* From the end, so that the lists hand out low addresses first. */
    uint32_t unit = memory->unit_count;
    while (unit > 0) {
        unsigned order = (unsigned)__builtin_ctz(unit);
        if (order >= MEMORY_ORDERS)
            order = MEMORY_ORDERS - 1;
        unit -= 1u << order;
        block_push(memory, unit, order);
    }
    memory->units_free = memory->unit_count;
    return 0;
}

void memory_close(struct memory *memory) {
    if (memory->base)
        munmap(memory->base, memory->mapped_bytes);
    free(memory->orders);
    memset(memory, 0, sizeof(*memory));
}

static void *block_take(struct memory *memory, unsigned order) {
    unsigned from = order;
    while (from < MEMORY_ORDERS && !memory->free[from])
        from++;
    if (from >= MEMORY_ORDERS)
        return NULL;
    uint8_t *block = (uint8_t *)memory->free[from];
    uint32_t unit = (uint32_t)((size_t)(block - memory->base) / MEMORY_UNIT_BYTES);
    block_remove(memory, unit, from);
    while (from > order) {
        from--;
        block_push(memory, unit + (1u << from), from);
    }
    memory->units_free -= 1u << order;
    return block;
}

static void block_give(struct memory *memory, void *block, unsigned order) {
    uint32_t unit = (uint32_t)((size_t)((uint8_t *)block - memory->base) / MEMORY_UNIT_BYTES);
    assert(order < MEMORY_ORDERS);
    assert(unit + (1u << order) <= memory->unit_count && memory->orders[unit] == 0);
    memory->units_free += 1u << order;
    while (order + 1 < MEMORY_ORDERS) {
        uint32_t buddy = unit ^ (1u << order);
        if (buddy + (1u << order) > memory->unit_count || memory->orders[buddy] != order + 1)
            break;
        block_remove(memory, buddy, order);
        unit &= ~(1u << order);
        order++;
    }
    block_push(memory, unit, order);
}

void *memory_take(struct memory *memory, unsigned order) {
    if (likely(!memory->lock))
        return block_take(memory, order);
    pthread_mutex_lock(memory->lock);
    void *block = block_take(memory, order);
    pthread_mutex_unlock(memory->lock);
    return block;
}

void memory_give(struct memory *memory, void *block, unsigned order) {
    if (likely(!memory->lock)) {
        block_give(memory, block, order);
        return;
    }
    pthread_mutex_lock(memory->lock);
    block_give(memory, block, order);
    pthread_mutex_unlock(memory->lock);
}

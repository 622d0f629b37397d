/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_MEMORY_H
#define TALLY_ENGINE_BASE_MEMORY_H

#include <pthread.h>

#include "engine/base/types.h"

/** One lcore's hot memory: a region of huge pages, cut into blocks of 1 KiB times a power of two (buddy system, Knowlton 1965).
 *  Flow:  engine_open -> [memory] -> units of the tables
 *  Owner: one lcore (several threads under a lock while a state is restored). Bounds: the region; an allocation or release takes at most one step per order. Keeps: INV-9. */

#define MEMORY_UNIT_BYTES 1024
#define MEMORY_ORDERS 24 /**< blocks of 1 KiB to 8 GiB */

struct memory_block;

struct memory {
    uint8_t *base;
    uint32_t unit_count;
    uint32_t units_free;
    uint8_t *orders; /**< by unit: order + 1 of the free block that starts here, 0 otherwise */
    struct memory_block *free[MEMORY_ORDERS];
    size_t mapped_bytes;
    pthread_mutex_t *lock; /**< held while a block is taken or given; NULL: one thread alone */
    bool huge_tlb;         /**< hugetlb pages, else transparent ones */
};

/** Map a region of at least `bytes`: hugetlb pages if there are any, else ordinary memory with MADV_HUGEPAGE.
 *  @param prefault touch every page now, so that no page fault happens later (about 3 s per GB at worst)
 *  @return 0 or -ENOMEM */
int memory_open(struct memory *memory, size_t bytes, bool prefault);
void memory_close(struct memory *memory);

/** A block of MEMORY_UNIT_BYTES << order, aligned to its size relative to the region; contents undefined.
 *  @return NULL when no block is free */
void *memory_take(struct memory *memory, unsigned order);
void memory_give(struct memory *memory, void *block, unsigned order);

#endif

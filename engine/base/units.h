/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_UNITS_H
#define TALLY_ENGINE_BASE_UNITS_H

#include "engine/base/check.h"
#include "engine/base/memory.h"

/** A growing array of 1 KiB units that never moves: pieces of 1 KiB (four of them), 2 KiB (four), 4 KiB (four) and so on.
 *  Growth is one allocation, at most a fifth of the array stays unused, and the directory of even a large array is a few cache
 *  lines. Contents of new units are undefined. Owner: whoever owns `memory`. */

#define UNITS_PIECES 92 /**< 23 doublings of 4: 32 GiB */

struct units {
    uint32_t count;  /**< units that exist */
    uint32_t pieces; /**< pieces that exist */
    uintptr_t
        directory[UNITS_PIECES]; /**< where unit 0 would be if the array went on like this piece */
};

/** @param offset in bytes from the start of the array, in a unit that exists */
static inline void *units_byte(const struct units *units, size_t offset) {
    /* The highest bit of x and the two behind it are the piece's number. */
    uint32_t x = (uint32_t)(offset / MEMORY_UNIT_BYTES) + 4;
    unsigned doubling = 29u - (unsigned)__builtin_clz(x);
    return (void *)(units->directory[doubling * 4 + (x >> doubling) - 4] + offset);
}

/** @param unit below units->count */
static inline void *units_at(const struct units *units, uint32_t unit) {
    return units_byte(units, (size_t)unit * MEMORY_UNIT_BYTES);
}

/** Make sure that `count` units exist. @return 0 or -ENOMEM (some may have been added) */
int units_grow(struct units *units, struct memory *memory, uint32_t count);
void units_release(struct units *units, struct memory *memory);

#endif

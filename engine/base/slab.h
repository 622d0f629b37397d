/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_SLAB_H
#define TALLY_ENGINE_BASE_SLAB_H

#include "engine/base/units.h"

/** Records of one size, numbered 0, 1, 2 ... in the order in which they were taken; they never move.
 *  The record size is a constant of the caller's, so that the arithmetic folds. */

struct slab {
    uint32_t count;    /**< records taken so far; the next one's number */
    uint32_t capacity; /**< records that fit the units that exist */
    struct units units;
};

static inline void *slab_at(const struct slab *slab, uint32_t slot, size_t record_bytes) {
    uint32_t per_unit = (uint32_t)(MEMORY_UNIT_BYTES / record_bytes);
    size_t offset =
        MEMORY_UNIT_BYTES % record_bytes == 0
            ? slot * record_bytes
            : (size_t)(slot / per_unit) * MEMORY_UNIT_BYTES + slot % per_unit * record_bytes;
    return units_byte(&slab->units, offset);
}

/** Make room for `more` records. @return 0 or -ENOMEM */
static inline int slab_reserve(struct slab *slab, struct memory *memory, uint32_t more,
                               size_t record_bytes) {
    if (likely(slab->capacity - slab->count >= more))
        return 0;
    uint32_t per_unit = (uint32_t)(MEMORY_UNIT_BYTES / record_bytes);
    uint64_t units = ((uint64_t)slab->count + more + per_unit - 1) / per_unit;
    if (units > UINT32_MAX)
        return -1;
    int error = units_grow(&slab->units, memory, (uint32_t)units);
    slab->capacity = slab->units.count * per_unit;
    return error;
}

/** Take the next record; room for it must have been reserved. */
static inline void *slab_take(struct slab *slab, size_t record_bytes) {
    assert(slab->count < slab->capacity);
    return slab_at(slab, slab->count++, record_bytes);
}

static inline void slab_release(struct slab *slab, struct memory *memory) {
    units_release(&slab->units, memory);
    slab->count = slab->capacity = 0;
}

#endif

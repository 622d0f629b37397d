/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/units.h"

#include <errno.h>
#include <string.h>

int units_grow(struct units *units, struct memory *memory, uint32_t count) {
    while (units->count < count) {
        if (units->pieces >= UNITS_PIECES)
            return -ENOMEM;
        unsigned order = units->pieces / 4;
        void *piece = memory_take(memory, order);
        if (!piece)
            return -ENOMEM;
        units->directory[units->pieces++] =
            (uintptr_t)piece - (size_t)units->count * MEMORY_UNIT_BYTES;
        units->count += 1u << order;
    }
    return 0;
}

void units_release(struct units *units, struct memory *memory) {
    size_t offset = 0;
    for (uint32_t piece = 0; piece < units->pieces; piece++) {
        memory_give(memory, (void *)(units->directory[piece] + offset), piece / 4);
        offset += (size_t)MEMORY_UNIT_BYTES << piece / 4;
    }
    memset(units, 0, sizeof(*units));
}

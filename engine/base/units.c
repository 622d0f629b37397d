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
        units->directory[units->pieces++] = piece;
        units->count += 1u << order;
    }
    return 0;
}

void units_release(struct units *units, struct memory *memory) {
    for (uint32_t piece = 0; piece < units->pieces; piece++)
        memory_give(memory, units->directory[piece], piece / 4);
    memset(units, 0, sizeof(*units));
}

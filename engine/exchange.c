/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"

int exchange_open(struct exchange *exchange, unsigned lcores, uint32_t capacity) {
    uint32_t room = 1;
    while (room < capacity)
        room *= 2;
    size_t bytes = sizeof(struct exchange_ring) * lcores * lcores;
    exchange->lcores = lcores;
    exchange->rings = aligned_alloc(CACHE_LINE_BYTES, bytes);
    if (!exchange->rings)
        return -ENOMEM;
    memset(exchange->rings, 0, bytes);
    for (unsigned i = 0; i < lcores * lcores; i++) {
        if (i / lcores == i % lcores)
            continue; /* an lcore keeps its own messages in a list */
        struct exchange_ring *ring = &exchange->rings[i];
        ring->mask = room - 1;
        ring->messages = aligned_alloc(CACHE_LINE_BYTES, sizeof(struct exchange_message) * room);
        if (!ring->messages)
            return -ENOMEM;
    }
    return 0;
}

void exchange_close(struct exchange *exchange) {
    for (unsigned i = 0; exchange->rings && i < exchange->lcores * exchange->lcores; i++)
        free(exchange->rings[i].messages);
    free(exchange->rings);
    exchange->rings = NULL;
}

void exchange_put(struct exchange_ring *ring, const struct exchange_message *message) {
    /* acquire: pairs with the release in exchange_take, after which the slot may be written again */
    assert(ring->unpublished - atomic_load_explicit(&ring->tail, memory_order_acquire) <=
           ring->mask);
    ring->messages[ring->unpublished++ & ring->mask] = *message;
}

void exchange_publish(struct exchange_ring *ring) {
    /* release: pairs with the acquire in exchange_waiting */
    if (atomic_load_explicit(&ring->head, memory_order_relaxed) != ring->unpublished)
        atomic_store_explicit(&ring->head, ring->unpublished, memory_order_release);
}

void exchange_take(struct exchange_ring *ring, uint32_t count) {
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    atomic_store_explicit(&ring->tail, tail + count, memory_order_release);
}

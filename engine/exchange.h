/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_EXCHANGE_H
#define TALLY_ENGINE_EXCHANGE_H

#include <stdatomic.h>

#include "engine/base/types.h"

/** Messages between the engine lcores of a node: for each ordered pair a ring with one producer and one consumer.
 *  Every message carries the sender's open group and its last timestamp; the receiver first catches up with both, so that whatever
 *  depends on an outcome is logged in the same group or a later one, with a later timestamp (design section 4, causality).
 *  Flow:  traveller -> [exchange_send] -> ring -> [exchange_receive] -> traveller
 *  Owner: each ring's head its producer, its tail its consumer. Bounds: a ring holds every message that can be on its way at a time, so a
 *  push never fails. Keeps: INV-8, INV-9. */

struct traveller;

enum exchange_kind {
    EXCHANGE_VISIT = 1, /**< the traveller's next stop is in a partition of the receiver */
    EXCHANGE_INSTALL =
        2, /**< its outcome takes effect in `partition`, and what it holds there is freed */
    EXCHANGE_DONE = 3, /**< back at its origin, with nothing held any more */
};

struct exchange_message {
    struct traveller *traveller;
    seq_t open_group;        /**< the sender's */
    uint64_t last_timestamp; /**< ns, the sender's */
    uint16_t kind;
    uint16_t partition; /**< EXCHANGE_INSTALL */
    uint32_t reserved;
};
_Static_assert(sizeof(struct exchange_message) == 32, "two messages a cache line");

/** Indices run freely. The producer stores head with release and the consumer loads it with acquire; the other way round for tail. */
struct exchange_ring {
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t head; /**< producer's */
    uint32_t unpublished; /**< producer's own: where the next message goes */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t tail;             /**< consumer's */
    _Alignas(CACHE_LINE_BYTES) struct exchange_message *messages; /**< read-mostly */
    uint32_t mask;
};

/** All rings of a node. */
struct exchange {
    unsigned lcores;
    struct exchange_ring *rings; /**< from * lcores + to */
};

/** @param capacity messages of one ring; rounded up to a power of two. @return 0 or -ENOMEM */
int exchange_open(struct exchange *exchange, unsigned lcores, uint32_t capacity);
void exchange_close(struct exchange *exchange);

static inline struct exchange_ring *exchange_ring(const struct exchange *exchange, unsigned from,
                                                  unsigned to) {
    return &exchange->rings[from * exchange->lcores + to];
}

/** Put a message into a ring; the receiver sees it after exchange_publish. Thread: the producer. */
void exchange_put(struct exchange_ring *ring, const struct exchange_message *message);
void exchange_publish(struct exchange_ring *ring);

/** How many messages wait. Thread: the consumer. What they say is read with exchange_at, then given back with exchange_take. */
static inline uint32_t exchange_waiting(const struct exchange_ring *ring) {
    /* acquire: pairs with the release in exchange_publish */
    return atomic_load_explicit(&ring->head, memory_order_acquire) -
           atomic_load_explicit(&ring->tail, memory_order_relaxed);
}
static inline const struct exchange_message *exchange_at(const struct exchange_ring *ring,
                                                         uint32_t index) {
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    return &ring->messages[(tail + index) & ring->mask];
}
void exchange_take(struct exchange_ring *ring, uint32_t count);

#endif

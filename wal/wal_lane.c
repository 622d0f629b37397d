/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "engine/base/check.h"
#include "wal/wal_lane.h"

#define HANDOVERS (sizeof(((struct wal_lane *)0)->handovers) / sizeof(struct wal_handover))

_Static_assert(HANDOVERS >= WAL_BUFFERS && (HANDOVERS & (HANDOVERS - 1)) == 0,
               "a slot for every buffer");
_Static_assert((WAL_CHUNKS_MAX & (WAL_CHUNKS_MAX - 1)) == 0, "indices run freely");
_Static_assert((WAL_FETCHES_MAX & (WAL_FETCHES_MAX - 1)) == 0, "indices run freely");

/* Each index has one writer, which may read its own relaxed. Slots are published by release/acquire on the producer's
 * index, and given back by release/acquire on the consumer's. */

void wal_lane_handover(struct wal_lane *lane, const struct wal_handover *handover) {
    uint32_t head = atomic_load_explicit(&lane->handover_head, memory_order_relaxed);
    /* acquire: pairs with the release in wal_lane_handover_taken, so that the slot is free */
    uint32_t tail = atomic_load_explicit(&lane->handover_tail, memory_order_acquire);
    assert(head - tail < HANDOVERS);
    lane->handovers[head % HANDOVERS] = *handover;
    /* release: pairs with the acquire in wal_lane_handover_peek; publishes the slot and the segment's bytes */
    atomic_store_explicit(&lane->handover_head, head + 1, memory_order_release);
}

void wal_lane_chunk(struct wal_lane *lane, struct checkpoint_chunk *chunk) {
    uint32_t head = atomic_load_explicit(&lane->chunk_head, memory_order_relaxed);
    /* acquire: pairs with the release in wal_lane_chunk_taken, so that the slot was read */
    uint32_t tail = atomic_load_explicit(&lane->chunk_tail, memory_order_acquire);
    assert(head - tail < WAL_CHUNKS_MAX);
    lane->chunks[head % WAL_CHUNKS_MAX] = chunk;
    /* release: pairs with the acquire in wal_lane_chunk_peek; publishes the slot and the chunk's bytes */
    atomic_store_explicit(&lane->chunk_head, head + 1, memory_order_release);
}

struct checkpoint_chunk *wal_lane_chunk_spent(struct wal_lane *lane) {
    uint32_t tail = atomic_load_explicit(&lane->spent_tail, memory_order_relaxed);
    /* acquire: pairs with the release in wal_lane_chunk_return; the WAL touches the chunk no more */
    if (atomic_load_explicit(&lane->spent_head, memory_order_acquire) == tail)
        return NULL;
    struct checkpoint_chunk *chunk = lane->spent[tail % WAL_CHUNKS_MAX];
    /* release: pairs with the acquire in wal_lane_chunk_return; the slot was read */
    atomic_store_explicit(&lane->spent_tail, tail + 1, memory_order_release);
    return chunk;
}

const struct wal_handover *wal_lane_handover_peek(const struct wal_lane *lane) {
    uint32_t tail = atomic_load_explicit(&lane->handover_tail, memory_order_relaxed);
    /* acquire: pairs with the release in wal_lane_handover */
    uint32_t head = atomic_load_explicit(&lane->handover_head, memory_order_acquire);
    return head == tail ? NULL : &lane->handovers[tail % HANDOVERS];
}

void wal_lane_handover_taken(struct wal_lane *lane) {
    uint32_t tail = atomic_load_explicit(&lane->handover_tail, memory_order_relaxed);
    /* release: pairs with the acquire in wal_lane_handover; the slot was read before */
    atomic_store_explicit(&lane->handover_tail, tail + 1, memory_order_release);
}

int wal_lane_fetch(struct wal_lane *lane, wal_place_t place, uint64_t cookie) {
    uint32_t head = atomic_load_explicit(&lane->fetch_head, memory_order_relaxed);
    uint32_t answered = atomic_load_explicit(&lane->answer_tail, memory_order_relaxed);
    /* both indices are ours; fetches whose answers we took have left both rings, so the slot is free */
    if (head - answered >= WAL_FETCHES_MAX)
        return -EAGAIN;
    lane->fetches[head % WAL_FETCHES_MAX].place = place;
    lane->fetches[head % WAL_FETCHES_MAX].cookie = cookie;
    /* release: pairs with the acquire in wal_lane_fetch_peek */
    atomic_store_explicit(&lane->fetch_head, head + 1, memory_order_release);
    return 0;
}

int wal_lane_fetch_peek(const struct wal_lane *lane, wal_place_t *place, uint64_t *cookie) {
    uint32_t tail = atomic_load_explicit(&lane->fetch_tail, memory_order_relaxed);
    /* acquire: pairs with the release in wal_lane_fetch */
    if (atomic_load_explicit(&lane->fetch_head, memory_order_acquire) == tail)
        return 0;
    *place = lane->fetches[tail % WAL_FETCHES_MAX].place;
    *cookie = lane->fetches[tail % WAL_FETCHES_MAX].cookie;
    return 1;
}

void wal_lane_fetch_taken(struct wal_lane *lane) {
    uint32_t tail = atomic_load_explicit(&lane->fetch_tail, memory_order_relaxed);
    /* release: the lcore learns of it through the answer (wal_lane_answer_put), which is stored later */
    atomic_store_explicit(&lane->fetch_tail, tail + 1, memory_order_release);
}

struct wal_fetch *wal_lane_answer_slot(struct wal_lane *lane) {
    uint32_t head = atomic_load_explicit(&lane->answer_head, memory_order_relaxed);
    /* acquire: pairs with the release in wal_lane_fetched, so that the slot was read */
    uint32_t tail = atomic_load_explicit(&lane->answer_tail, memory_order_acquire);
    assert(head - tail < WAL_FETCHES_MAX);
    return &lane->answers[head % WAL_FETCHES_MAX];
}

void wal_lane_answer_put(struct wal_lane *lane) {
    uint32_t head = atomic_load_explicit(&lane->answer_head, memory_order_relaxed);
    /* release: pairs with the acquire in wal_lane_fetched */
    atomic_store_explicit(&lane->answer_head, head + 1, memory_order_release);
}

int wal_lane_fetched(struct wal_lane *lane, struct wal_fetch *answer) {
    uint32_t tail = atomic_load_explicit(&lane->answer_tail, memory_order_relaxed);
    /* acquire: pairs with the release in wal_lane_answer_put */
    if (atomic_load_explicit(&lane->answer_head, memory_order_acquire) == tail)
        return 0;
    *answer = lane->answers[tail % WAL_FETCHES_MAX];
    /* release: pairs with the acquire in wal_lane_answer_slot */
    atomic_store_explicit(&lane->answer_tail, tail + 1, memory_order_release);
    return 1;
}

struct checkpoint_chunk *wal_lane_chunk_peek(const struct wal_lane *lane) {
    uint32_t tail = atomic_load_explicit(&lane->chunk_tail, memory_order_relaxed);
    /* acquire: pairs with the release in wal_lane_chunk */
    uint32_t head = atomic_load_explicit(&lane->chunk_head, memory_order_acquire);
    return head == tail ? NULL : lane->chunks[tail % WAL_CHUNKS_MAX];
}

void wal_lane_chunk_taken(struct wal_lane *lane) {
    uint32_t tail = atomic_load_explicit(&lane->chunk_tail, memory_order_relaxed);
    /* release: pairs with the acquire in wal_lane_chunk; the slot was read before */
    atomic_store_explicit(&lane->chunk_tail, tail + 1, memory_order_release);
}

void wal_lane_chunk_return(struct wal_lane *lane, struct checkpoint_chunk *chunk) {
    uint32_t head = atomic_load_explicit(&lane->spent_head, memory_order_relaxed);
    /* acquire: pairs with the release in wal_lane_chunk_spent, so that the slot was read */
    uint32_t tail = atomic_load_explicit(&lane->spent_tail, memory_order_acquire);
    assert(head - tail < WAL_CHUNKS_MAX);
    lane->spent[head % WAL_CHUNKS_MAX] = chunk;
    /* release: pairs with the acquire in wal_lane_chunk_spent */
    atomic_store_explicit(&lane->spent_head, head + 1, memory_order_release);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_network.h"

#include <stdlib.h>

void sim_network_open(struct sim_network *network, struct sim *sim,
                      const struct sim_network_plan *plan) {
    memset(network, 0, sizeof(*network));
    network->sim = sim;
    network->plan = *plan;
    network->random = sim_random_make(sim->seed, 2);
    network->heap = calloc(SIM_FRAMES_MAX, sizeof(network->heap[0]));
    if (!network->heap)
        abort();
}

void sim_network_close(struct sim_network *network) {
    struct sim_frame *frame;
    while (network->count)
        free(network->heap[--network->count]);
    while ((frame = network->free) != NULL) {
        network->free = frame->next_free;
        free(frame);
    }
    free(network->heap);
}

/* --- a heap of frames, earliest first ------------------------------------------------------------------------------- */

static bool earlier(const struct sim_frame *a, const struct sim_frame *b) {
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static void push(struct sim_network *network, struct sim_frame *frame) {
    unsigned at = network->count++;
    for (; at > 0 && earlier(frame, network->heap[(at - 1) / 2]); at = (at - 1) / 2)
        network->heap[at] = network->heap[(at - 1) / 2];
    network->heap[at] = frame;
}

static struct sim_frame *pop(struct sim_network *network) {
    struct sim_frame *first = network->heap[0], *last = network->heap[--network->count];
    unsigned at = 0;
    for (unsigned child; (child = 2 * at + 1) < network->count; at = child) {
        if (child + 1 < network->count && earlier(network->heap[child + 1], network->heap[child]))
            child++;
        if (!earlier(network->heap[child], last))
            break;
        network->heap[at] = network->heap[child];
    }
    if (network->count != 0)
        network->heap[at] = last;
    return first;
}

/* --- sending -------------------------------------------------------------------------------------------------------- */

static void launch(struct sim_network *network, unsigned from, unsigned to, const void *bytes,
                   uint32_t length) {
    const struct sim_network_plan *plan = &network->plan;
    struct sim_random *random = &network->random;
    struct sim_frame *frame = network->free;
    if (frame)
        network->free = frame->next_free;
    else if ((frame = malloc(sizeof(*frame))) == NULL)
        abort();
    frame->from = (uint16_t)from;
    frame->to = (uint16_t)to;
    frame->length = length;
    frame->order = network->order++;
    frame->due_ns =
        network->sim->now_ns + 1 + plan->delay_ns + sim_below(random, plan->jitter_ns + 1);
    memcpy(frame->bytes, bytes, length);
    if (sim_chance(random, plan->delayed_ppm)) {
        sim_fault(network->sim, SIM_FAULT_packet_delayed);
        frame->due_ns += sim_below(random, plan->delayed_ns);
    }
    if (sim_chance(random, plan->flipped_ppm)) {
        sim_fault(network->sim, SIM_FAULT_packet_flipped);
        frame->bytes[sim_below(random, length)] ^= (uint8_t)(1u << sim_below(random, 8));
    }
    push(network, frame);
}

void sim_network_send(struct sim_network *network, unsigned from, unsigned to, const void *frame,
                      uint32_t length) {
    if (network->count + 2 > SIM_FRAMES_MAX ||
        network->cut_until_ns[from][0] > network->sim->now_ns ||
        network->cut_until_ns[to][1] > network->sim->now_ns ||
        sim_chance(&network->random, network->plan.lost_ppm)) {
        sim_fault(network->sim, SIM_FAULT_packet_lost);
        return;
    }
    launch(network, from, to, frame, length);
    if (sim_chance(&network->random, network->plan.doubled_ppm)) {
        sim_fault(network->sim, SIM_FAULT_packet_doubled);
        launch(network, from, to, frame, length);
    }
}

uint64_t sim_network_next_ns(const struct sim_network *network) {
    return network->count ? network->heap[0]->due_ns : UINT64_MAX;
}

struct sim_frame *sim_network_take(struct sim_network *network) {
    if (network->count == 0 || network->heap[0]->due_ns > network->sim->now_ns)
        return NULL;
    struct sim_frame *frame = pop(network);
    network->delivered++;
    sim_note(network->sim, frame->from << 16 ^ frame->to);
    sim_note_bytes(network->sim, frame->bytes, frame->length);
    return frame;
}

void sim_network_give(struct sim_network *network, struct sim_frame *frame) {
    frame->next_free = network->free;
    network->free = frame;
}

void sim_network_heal(struct sim_network *network) {
    network->plan = (struct sim_network_plan){.delay_ns = network->plan.delay_ns,
                                              .jitter_ns = network->plan.jitter_ns};
    memset(network->cut_until_ns, 0, sizeof(network->cut_until_ns));
}

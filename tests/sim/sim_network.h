/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_NETWORK_H
#define TALLY_TESTS_SIM_SIM_NETWORK_H

#include "net/packet.h"
#include "tests/sim/sim.h"

/** Ethernet frames on their way between addresses, in simulated time, and all that a network does to them.
 *  Flow:  sim_port.tx, client transport -> [sim_network] -> sim_port.rx, client inbox
 *  Owner: one world. Bounds: SIM_FRAMES_MAX on their way; what is above that is lost, and counted as lost. */

#define SIM_FRAME_BYTES 1600
#define SIM_FRAMES_MAX 8192
#define SIM_ENDPOINTS 24

struct sim_network_plan {
    uint64_t delay_ns, jitter_ns; /**< one way */
    uint32_t lost_ppm, doubled_ppm, delayed_ppm, flipped_ppm;
    uint64_t delayed_ns; /**< at most, of those delayed */
};

struct sim_frame {
    uint64_t due_ns, order;
    uint16_t from, to; /**< endpoints */
    uint32_t length;
    struct sim_frame *next_free;
    uint8_t bytes[SIM_FRAME_BYTES];
};

struct sim_network {
    struct sim *sim;
    struct sim_random random;
    struct sim_network_plan plan;
    struct sim_frame **heap; /**< by due time, then by order */
    unsigned count;
    struct sim_frame *free;
    uint64_t order;
    uint64_t cut_until_ns[SIM_ENDPOINTS]
                         [2]; /**< what the endpoint sends [0] and gets [1] is lost until then */
    uint64_t delivered;
};

void sim_network_open(struct sim_network *network, struct sim *sim,
                      const struct sim_network_plan *plan);
void sim_network_close(struct sim_network *network);

/** A frame leaves an endpoint. */
void sim_network_send(struct sim_network *network, unsigned from, unsigned to, const void *frame,
                      uint32_t length);
/** When the next frame arrives; UINT64_MAX: none is on its way. */
uint64_t sim_network_next_ns(const struct sim_network *network);
/** Take the next frame that is due. @return NULL when none is; the caller gives it back */
struct sim_frame *sim_network_take(struct sim_network *network);
void sim_network_give(struct sim_network *network, struct sim_frame *frame);
/** Nothing more goes wrong with what is sent from now on. */
void sim_network_heal(struct sim_network *network);

#endif

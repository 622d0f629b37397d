/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_CHAOS_H
#define TALLY_TESTS_SIM_SIM_CHAOS_H

#include "tests/sim/sim_client.h"
#include "tests/sim/sim_node.h"
#include "tests/sim/sim_world.h"

/** What the world does from outside: power cuts, kills, pauses, clocks, cuts of links, clients that die, bits that rot.
 *  Flow:  sim_plan -> [sim_chaos] -> node, network, disk, clients
 *  Owner: one world. Bounds: SIM_DEEDS_MAX. */

#define SIM_DEEDS_MAX 96
#define SIM_CLIENTS_MAX 8
#define SIM_FIRST_CLIENT 8 /**< endpoint of client 0; nodes come before */

struct sim_deed {
    uint64_t due_ns;
    enum sim_fault fault;
    bool end; /**< of a freeze */
};

/** Inside of a world. */
struct sim_world {
    struct sim sim;
    struct sim_plan plan;
    struct sim_random random;
    struct sim_network network;
    struct sim_node node;
    struct sim_book book;
    struct sim_client clients[SIM_CLIENTS_MAX];
    struct sim_deed deeds[SIM_DEEDS_MAX]; /**< what is still to be done, in any order */
    unsigned deed_count;
    unsigned files_to_lose, rots_to_come; /**< before the next start */
    uint64_t start_ns;                    /**< when the node is started, while it is down */
    bool keep_down;
    bool accept_clock;
    bool quiet, refused;
    uint64_t moments;
};

void sim_chaos_open(struct sim_world *world);
uint64_t sim_chaos_next_ns(const struct sim_world *world);
void sim_chaos_step(struct sim_world *world);
/** Power may fail while the node starts, and files may be gone by then. */
void sim_chaos_before_start(struct sim_world *world);
/** Nothing more happens; what is stopped goes on. */
void sim_chaos_heal(struct sim_world *world);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_WORLD_H
#define TALLY_TESTS_SIM_SIM_WORLD_H

#include "tests/sim/sim.h"

/** One seed's history from its first moment to its last: a node, its clients, a network, a disk, and everything that happens to
 *  them. First the active time, with faults; then a quiet one, in which all that was asked for must be settled; then an orderly stop
 *  and a last start.
 *  Flow:  seed -> sim_plan -> [sim_world] -> sim_result
 *  Owner: the caller. One thread; nothing of it outlives the call. */

struct rte_mempool;

enum sim_outcome {
    SIM_FINISHED,
    SIM_REFUSED, /**< the node refused a log that was damaged; the seed ends there */
    SIM_LOST, /**< a disk that lied took acknowledged groups and every proof of them; it went on without */
    SIM_VIOLATED,
};

struct sim_result {
    enum sim_outcome outcome;
    uint64_t simulated_ns;
    uint64_t digest; /**< over everything that happened */
    uint64_t faults[SIM_FAULTS];
    uint64_t told[SIM_OPERATIONS][256]; /**< as in struct sim */
    uint64_t checkpoints, checkpoints_abandoned, files_removed;
    uint64_t starts, turns, packets, groups, events, lookups, requests, digests;
    char violation[600];
};

/** What a seed does not decide. */
struct sim_options {
    bool trace;
    unsigned lcores; /**< engine lcores of a node */
};

void sim_world_run(uint64_t seed, const struct sim_options *options, struct rte_mempool *pool,
                   struct sim_result *result);

#endif

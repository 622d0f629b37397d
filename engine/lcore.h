/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_LCORE_H
#define TALLY_ENGINE_LCORE_H

#include "engine/base/seams.h"
#include "engine/cell_clock.h"
#include "engine/engine.h"

/** The loop of one engine lcore: everything between a packet in and a packet out, in one function.
 *  Flow:  rx -> decode -> exchange -> execute -> seal -> release -> tx -> a slice of a checkpoint
 *  Owner: its lcore. No thread, clock, file or global inside: production and the simulator run this very function. */

struct net;
struct wal;

struct lcore {
    struct engine_lcore *engine;
    struct net *net;
    struct wal *wal; /**< driven by this lcore too; NULL: by another one */
    struct wal_board *board;
    struct clock *clock;
    struct cell_clock cell_clock;
    bool draining; /**< accept nothing new */
    uint64_t
        backlog_since; /**< ns, monotonic: since when the queue was never empty; 0: it is empty */
    /* counters, read from outside */
    uint64_t turns, empty_turns, events, requests;
};

/** One turn, run to completion: never blocks, locks or allocates.
 *  @return how much was done; 0 means an empty turn. After a disk failure (board->failed) nothing leaves any more. */
unsigned lcore_step(struct lcore *lcore);

/** Whether everything accepted has been answered and is durable, so that a draining lcore may stop. */
bool lcore_drained(struct lcore *lcore);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_NODE_H
#define TALLY_TESTS_SIM_SIM_NODE_H

#include "engine/lcore.h"
#include "engine/recovery.h"
#include "tests/sim/oracle.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_plan.h"
#include "tests/sim/sim_port.h"

/** A node: the shipped engine, network part and log, bound to a simulated port, disk, clock and randomness, and turned by the
 *  very function that production turns them with (lcore_step).
 *  Flow:  sim_world -> sim_node_start, sim_node_step, sim_node_crash ... -> [sim_node] -> oracle, violations
 *  Owner: one world; several nodes are several of these. Checks: INV-5, INV-6, INV-9, the recovered state. */

#define SIM_GROUPS 16 /**< more than can be on their way to the disk */

struct net;
struct rte_mempool;

/** The node's own idea of time. */
struct sim_clock {
    struct clock clock; /**< first */
    struct sim *sim;
    uint64_t booted_ns;   /**< what the monotonic clock shows at simulated time 0 */
    uint64_t realtime_ns; /**< time of day at `since_ns` */
    uint64_t since_ns;
    int64_t drift_ppm;
    bool frozen;
};

struct sim_seam_random {
    struct random random; /**< first */
    struct sim_random state;
};

/** One lcore of the node: when it has its next turn. */
struct sim_turns {
    uint64_t next_ns;
    uint64_t idle_ns; /**< the last wait, doubled from empty turn to empty turn */
};

enum sim_node_state {
    SIM_NODE_DOWN,
    SIM_NODE_UP,
    SIM_NODE_DRAINING, /**< stops in an orderly way */
};

/** How a start ended. */
enum sim_start {
    SIM_STARTED,
    SIM_START_INTERRUPTED, /**< power failed, or an operation did: try again */
    SIM_START_CLOCK, /**< the time of day is too far ahead of the log: somebody has to say that it is right */
    SIM_START_MEMORY,  /**< the log's state needs more memory */
    SIM_START_REFUSED, /**< the log is damaged, and the node says so */
};

/** One engine lcore, with a port and sessions of its own. */
struct sim_engine {
    struct lcore *lcore;
    struct net *net;
    struct sim_port port;
    struct sim_turns turns;
};

struct sim_node {
    struct sim *sim;
    const struct sim_plan *plan;
    struct oracle *oracle;
    struct sim_random random;
    struct sim_disk disk;
    struct sim_engine engines[SIM_LCORES_MAX]; /**< lcore_count of them; ports outlive lives */
    unsigned lcore_count;
    struct sim_clock clock;
    struct sim_seam_random seam_random;
    struct wal_identity identity;
    size_t memory_bytes;
    bool wal_apart;            /**< of this life: the log has an lcore of its own */
    unsigned groups_in_flight; /**< likewise */
    enum sim_node_state state;
    uint64_t paused_until_ns;
    bool undetectable; /**< the disk took acknowledged groups and every proof of them with it */

    /* one life */
    struct wal_board *board;
    struct wal_lane *lanes; /**< lcore_count of them */
    struct engine *engine;
    struct wal *wal;
    struct wal_position position;
    struct recovery_report recovered;
    term_t term;
    struct sim_turns wal_turns;
    uint64_t drain_until_ns;
    uint64_t woken_ns; /**< what the disk had done by then has woken the node */

    /* what the world knows of its log, over all lives */
    seq_t
        durable[SIM_GROUPS]; /**< durable[seq % SIM_GROUPS]: that group was promised by the disk */
    seq_t durable_seq;       /**< every group up to here was promised */
    seq_t commit_seq;        /**< as the node last published it */
    seq_t written_seq;       /**< newest group submitted in this life */
    uint8_t *scratch;        /**< a group in one piece */
    size_t scratch_room;

    /* counters */
    uint64_t starts, turns;
    uint64_t checkpoints, checkpoints_abandoned, files_removed; /**< of lives that are over */
    char error[600];
};

void sim_node_open(struct sim_node *node, struct sim *sim, const struct sim_plan *plan,
                   struct sim_network *network, struct rte_mempool *pool);
void sim_node_close(struct sim_node *node);

/** Start it from what its disk holds, as tallyd does. @param accept_clock  somebody says that the time of day is right */
enum sim_start sim_node_start(struct sim_node *node, bool accept_clock);

/** When it wants its next turn; UINT64_MAX while it is down. */
uint64_t sim_node_next_ns(const struct sim_node *node);
/** The turns that are due. A node whose disk is gone, or which gave up, is down afterwards. */
void sim_node_step(struct sim_node *node);
/** Something arrived, or is done: do not sleep any longer. */
void sim_node_wake(struct sim_node *node);

/** Power is gone, or (kill) the process alone. */
void sim_node_crash(struct sim_node *node, bool power);
/** Ask it to stop; it is down when everything is answered and durable. */
void sim_node_stop(struct sim_node *node);

/** Inside of the node: what is common to its files. All that lived in memory goes. */
void sim_node_forget(struct sim_node *node);
/** The log was recovered and synced: all of it is promised from now on. */
void sim_node_note_recovered(struct sim_node *node);

uint64_t sim_clock_realtime(struct sim_clock *clock);
/** The time of day goes on from `realtime_ns`. */
void sim_clock_set(struct sim_clock *clock, uint64_t realtime_ns);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLYD_NODE_H
#define TALLY_TOOLS_TALLYD_NODE_H

#include <pthread.h>
#include <time.h>

#include "engine/lcore.h"
#include "engine/recovery.h"
#include "net/net.h"
#include "net/port_dpdk.h"
#include "tools/control.h"
#include "tools/tallyd_options.h"
#include "wal/data_dir.h"

/** What the parts of a running tallyd share.
 *  Owner: the main thread, which opens everything before the others start and closes it when they have ended. */

/** One tallyd: everything that lives as long as the process serves. */
struct node {
    const struct tallyd_options *options;
    struct data_dir *dir;
    struct wal_board *board;
    struct wal_lane *lane;
    struct engine *engine;
    struct wal *wal;
    struct wal_position position;
    struct recovery_report recovered; /**< how it began */
    term_t term;
    struct port_dpdk port;
    bool port_open;
    struct net *net;
    struct lcore *lcore;
    struct clock clock;
    struct random random;
    pthread_t control;
    bool control_started;
    struct control *control_socket; /**< NULL: none could be made */
    int signals;                    /**< what signals arrive on; -1: not open */
    unsigned wal_lcore;             /**< DPDK lcore of the WAL; RTE_MAX_LCORE: the engine's own */
    _Atomic bool wal_leave;     /**< the engine is idle: the WAL shall end when all is durable */
    _Atomic bool wal_abort;     /**< ... or at once */
    _Atomic bool wal_left;      /**< it has */
    _Atomic bool stop;          /**< SIGTERM or SIGINT came */
    _Atomic bool control_leave; /**< the control thread shall end */
};

static inline uint64_t clock_read(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/** Start the control thread: signals, counters, the operator's socket. @return 0 or -errno */
int tallyd_control_start(struct node *node);
void tallyd_control_stop(struct node *node);

/** Recover what the data directory holds into the engine, and say how that goes. @return 0 or the exit status */
int tallyd_recover(struct node *node);

/** One line a counter, `name value`. Values are read while they change; each is whole. */
void tallyd_counters_print(const struct node *node);

#endif

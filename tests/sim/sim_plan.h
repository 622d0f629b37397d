/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_PLAN_H
#define TALLY_TESTS_SIM_SIM_PLAN_H

#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_network.h"

#define SIM_LCORES_MAX 4

/** Everything that a seed decides before its world begins. Swarm: of every kind of fault and of event, many seeds have none,
 *  others much, so that no kind hides behind another. */

struct sim_node_plan {
    unsigned partitions;
    unsigned lcores; /**< engine lcores */
    bool id_time;
    bool memory_short; /**< so little that it runs out */
    size_t memory_bytes;
    uint64_t file_bytes;
    unsigned groups_in_flight;
    uint32_t group_bytes_wanted;
    uint64_t group_delay_ns;
    uint64_t horizon_back_ms, horizon_minimum_ms, horizon_slack_ms;
    uint64_t digest_interval_ns;
    uint64_t queueing_delay_max_ns;
    bool wal_apart; /**< the log has an lcore of its own */
    unsigned sessions, window, reply_buffers;
    uint64_t turn_ns;     /**< an lcore's turn with work */
    uint64_t idle_max_ns; /**< between turns without */
    uint32_t ring_delayed_ppm;
    uint64_t ring_delayed_ns; /**< at most */
    bool checkpoints;
    unsigned checkpoint_slice; /**< records of its walk in one turn; 0: as many as usual */
    uint64_t checkpoint_log_bytes, checkpoint_interval_ns, log_bytes_max; /**< 0: never, no limit */
    uint64_t start_ns; /**< from the end of one life to the next, at most */
};

/** What the world does to the node from outside: on average so many in the active time; 0: none. */
struct sim_chaos_plan {
    unsigned power_cuts, io_cuts, kills, stops, pauses, clock_jumps, clock_drifts, clock_freezes;
    unsigned link_cuts, client_crashes, client_leaves;
    unsigned rots, file_losses;
    unsigned checkpoints;       /**< somebody asks for one */
    uint32_t start_cut_percent; /**< starts that a power cut interrupts */
    uint64_t pause_ns, link_cut_ns;
    uint64_t clock_jump_ns;
};

/** What clients do, as weights; 0: never. */
struct sim_work_plan {
    unsigned clients, requests; /**< of each client */
    unsigned accounts;          /**< that there are at all */
    unsigned ledgers;
    unsigned events_max;      /**< of one request */
    unsigned outstanding_max; /**< requests of one client at a time */
    uint32_t hot_percent;     /**< of parties that are one of a few accounts */
    uint32_t floor_percent, history_percent, closed_percent; /**< of the accounts */
    uint32_t balances_percent, unordered_percent, stale_percent;
    uint32_t compact_percent; /**< of plain transfers that stay plain */
    uint64_t amount_max;
    bool huge_amounts;
    /* requests */
    uint32_t create_accounts, create_transfers, lookup_accounts, lookup_transfers;
    /* transfers */
    uint32_t plain, pending, post, void_, balancing, closing, imported, linked, retry,
        retry_changed, broken, id_old, id_future, id_foreign, id_reused;
    uint32_t timeout_percent; /**< of pending ones */
    uint32_t timeout_max_s;
    uint64_t timeout_ms; /**< of a request */
    uint16_t payload_max;
    bool ipv6;
    uint32_t forged_ppm; /**< datagrams beside which a forged one is sent */
};

struct sim_plan {
    uint64_t active_ns; /**< faults and new requests */
    bool malign;
    struct sim_node_plan node;
    struct sim_disk_plan disk;
    struct sim_network_plan network;
    struct sim_chaos_plan chaos;
    struct sim_work_plan work;
};

/** @param lcores  engine lcores of a node, 1..SIM_LCORES_MAX; fewer where there are fewer partitions */
void sim_plan_draw(struct sim_plan *plan, uint64_t seed, unsigned lcores);
/** The plan in some lines of text. */
void sim_plan_print(const struct sim_plan *plan);

#endif

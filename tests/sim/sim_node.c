/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_node.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/check.h"
#include "engine/engine_internal.h"
#include "net/net_state.h"
#include "tests/sim/sim_check.h"

/* Turns, crashes and stops. Starting: sim_start.c. Looking inside: sim_check.c. */

#define EPOCH_NS (1900000000ull * NS_PER_SECOND) /**< time of day when a world begins */

#define DRAIN_MAX_NS (10 * NS_PER_SECOND) /**< tallyd waits no longer for an orderly stop */

/* --- seams ---------------------------------------------------------------------------------------------------------- */

static uint64_t clock_monotonic(struct clock *base) {
    struct sim_clock *clock = (struct sim_clock *)base;
    return clock->booted_ns + clock->sim->now_ns;
}

uint64_t sim_clock_realtime(struct sim_clock *clock) {
    if (clock->frozen)
        return clock->realtime_ns;
    uint64_t passed = clock->sim->now_ns - clock->since_ns;
    return clock->realtime_ns + passed +
           (uint64_t)((int64_t)(passed / 1000) * clock->drift_ppm / 1000);
}

static uint64_t clock_realtime(struct clock *base) {
    return sim_clock_realtime((struct sim_clock *)base);
}

void sim_clock_set(struct sim_clock *clock, uint64_t realtime_ns) {
    clock->realtime_ns = realtime_ns;
    clock->since_ns = clock->sim->now_ns;
}

static void random_fill(struct random *base, void *bytes, size_t length) {
    struct sim_seam_random *random = (struct sim_seam_random *)base;
    for (uint8_t *at = bytes; length-- > 0; at++)
        *at = (uint8_t)(sim_draw(&random->state) >> 32);
}

/* --- what the disk took and promised ---------------------------------------------------------------------------------- */

/** The write in one piece. */
static const uint8_t *gathered(struct sim_node *node, const struct disk_io *io) {
    if (io->iov_count == 1)
        return io->iov[0].iov_base;
    if (io->bytes > node->scratch_room) {
        free(node->scratch);
        node->scratch_room = io->bytes;
        node->scratch = malloc(node->scratch_room);
        if (!node->scratch)
            abort();
    }
    uint8_t *at = node->scratch;
    for (unsigned i = 0; i < io->iov_count; i++) {
        memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
        at += io->iov[i].iov_len;
    }
    return node->scratch;
}

static seq_t group_of(const struct disk_io *io) {
    uint64_t seq;
    memcpy(&seq, (const uint8_t *)io->iov[0].iov_base + 40, sizeof(seq)); /* wal/FORMAT.md */
    return seq;
}

static bool writes_log(const struct disk_io *io) {
    return io->operation == DISK_WRITE && disk_file_kind(io->file) == DISK_LOG;
}

static void disk_submitted(void *context, const struct disk_io *io) {
    struct sim_node *node = context;
    sim_check_operation(node, io);
    if (!writes_log(io))
        return;
    seq_t seq = group_of(io);
    if (seq != node->written_seq + 1)
        sim_violation(node->sim, "INV-6: group %" PRIu64 " is written behind group %" PRIu64, seq,
                      node->written_seq);
    node->written_seq = seq;
    oracle_group_submitted(node->oracle, gathered(node, io), io->bytes);
}

static void disk_completed(void *context, const struct disk_io *io) {
    struct sim_node *node = context;
    if (!writes_log(io) || io->result != (int64_t)io->bytes)
        return;
    seq_t seq = group_of(io);
    /* promised one by one, in any order; at most K are on their way */
    node->durable[seq % SIM_GROUPS] = seq;
    while (node->durable[(node->durable_seq + 1) % SIM_GROUPS] == node->durable_seq + 1)
        node->durable_seq++;
    oracle_group_durable(node->oracle, gathered(node, io), io->bytes);
}

static void disk_unsound(void *context) {
    struct sim_node *node = context;
    oracle_read_failed(node->oracle);
}

void sim_node_note_recovered(struct sim_node *node) {
    memset(node->durable, 0, sizeof(node->durable));
    node->durable_seq = node->position.seq;
}

void sim_node_open(struct sim_node *node, struct sim *sim, const struct sim_plan *plan,
                   struct sim_network *network, struct rte_mempool *pool) {
    memset(node, 0, sizeof(*node));
    node->sim = sim;
    node->plan = plan;
    node->random = sim_random_make(sim->seed, 4);
    node->memory_bytes = plan->node.memory_bytes;
    node->seam_random = (struct sim_seam_random){{random_fill}, sim_random_make(sim->seed, 5)};
    node->clock = (struct sim_clock){.clock = {clock_monotonic, clock_realtime},
                                     .sim = sim,
                                     .booted_ns = sim_below(&node->random, 1ull << 40)};
    sim_clock_set(&node->clock, EPOCH_NS + sim_below(&node->random, 1ull << 50));
    node->identity = (struct wal_identity){.partitions = plan->node.partitions,
                                           .id_time = plan->node.id_time,
                                           .file_bytes = plan->node.file_bytes};
    node->identity.hash_seed = sim_draw(&node->random);
    node->identity.digest_seed = sim_draw(&node->random);
    random_fill(&node->seam_random.random, node->identity.cell_id, sizeof(node->identity.cell_id));
    sim_disk_open(&node->disk, sim, &plan->disk);
    node->disk.watch = (struct sim_disk_watch){disk_submitted, disk_completed, disk_unsound, node};
    const uint32_t tx_full_ppm = sim_chance(&node->random, 300000) ? 20000 : 0;
    const struct oracle_config config = {
        .partitions = node->identity.partitions,
        .hash_seed = node->identity.hash_seed,
        .digest_seed = node->identity.digest_seed,
        .id_time = plan->node.id_time,
        .horizon_back_ms = plan->node.horizon_back_ms,
        .horizon_min_ms = plan->node.horizon_minimum_ms,
        .horizon_rises = /* where the log's room is limited, too: by a budget, or by the disk */
        plan->node.memory_short ||
        (plan->node.checkpoints &&
         (plan->node.log_bytes_max != 0 ||
          plan->disk.disk_full_ppm + plan->disk.create_failed_ppm + plan->disk.capacity_bytes !=
              0)),
        .memory_short = plan->node.memory_short};
    struct oracle_config with_cell = config;
    memcpy(with_cell.cell_id, node->identity.cell_id, sizeof(with_cell.cell_id));
    node->oracle = oracle_open(&with_cell);
    if (!node->oracle)
        abort();
    node->lcore_count = plan->node.lcores;
    for (unsigned i = 0; i < node->lcore_count; i++) {
        struct sim_port *port = &node->engines[i].port;
        sim_port_open(port, sim, network, pool, i);
        port->tx_full_ppm = tx_full_ppm;
        port->oracle = node->oracle;
    }
}

/* --- the end of a life ------------------------------------------------------------------------------------------------ */

void sim_node_forget(struct sim_node *node) {
    if (node->wal) {
        const struct wal_checkpoints *checkpoints = wal_checkpoints(node->wal);
        node->checkpoints += atomic_load(&checkpoints->published);
        node->checkpoints_abandoned += atomic_load(&checkpoints->abandoned);
        node->files_removed += atomic_load(&checkpoints->files_removed);
    }
    for (unsigned i = 0; i < node->lcore_count; i++) {
        struct sim_engine *engine = &node->engines[i];
        if (engine->net)
            net_close(engine->net);
        free(engine->lcore);
        engine->net = NULL;
        engine->lcore = NULL;
        sim_port_clear(&engine->port);
    }
    wal_close(node->wal);
    engine_close(node->engine);
    wal_position_release(&node->position);
    free(node->board);
    free(node->lanes);
    node->wal = NULL;
    node->engine = NULL;
    node->board = NULL;
    node->lanes = NULL;
    node->state = SIM_NODE_DOWN;
    node->paused_until_ns = 0;
}

/** The process is no more; its disk is `dead`. */
static void end_life(struct sim_node *node) {
    if (node->state != SIM_NODE_DOWN) {
        oracle_stopped(node->oracle);
        SIM_TRACE(node->sim, "node", "down; committed %" PRIu64 ", promised by the disk %" PRIu64,
                  node->commit_seq, node->durable_seq);
    }
    for (unsigned i = 0; i < node->lcore_count; i++)
        node->engines[i].port.dead = true;
    sim_node_forget(node);
}

void sim_node_crash(struct sim_node *node, bool power) {
    if (power)
        sim_disk_cut_power(&node->disk);
    else
        sim_disk_kill(&node->disk);
    end_life(node);
}

void sim_node_stop(struct sim_node *node) {
    if (node->state != SIM_NODE_UP)
        return;
    for (unsigned i = 0; i < node->lcore_count; i++) {
        node->engines[i].lcore->draining = true;
        engine_drain(node->engines[i].lcore->engine);
    }
    node->state = SIM_NODE_DRAINING;
    node->drain_until_ns = node->sim->now_ns + DRAIN_MAX_NS;
    sim_node_wake(node);
}

void sim_node_close(struct sim_node *node) {
    if (node->state != SIM_NODE_DOWN)
        sim_node_crash(node, false);
    sim_disk_close(&node->disk);
    oracle_close(node->oracle);
    free(node->scratch);
}

/* --- turns ------------------------------------------------------------------------------------------------------------ */

uint64_t sim_node_next_ns(const struct sim_node *node) {
    if (node->state == SIM_NODE_DOWN)
        return UINT64_MAX;
    uint64_t next = node->wal_apart ? node->wal_turns.next_ns : UINT64_MAX;
    uint64_t done = sim_disk_next_ns(&node->disk);
    for (unsigned i = 0; i < node->lcore_count; i++)
        if (node->engines[i].turns.next_ns < next)
            next = node->engines[i].turns.next_ns;
    if (done > node->woken_ns && done < next)
        next = done;
    if (next < node->paused_until_ns)
        next = node->paused_until_ns;
    return next > node->sim->now_ns ? next : node->sim->now_ns;
}

static uint64_t turn_ns(struct sim_node *node) {
    uint64_t ns = node->plan->node.turn_ns;
    return sim_between(&node->random, ns / 2, 2 * ns);
}

static void wake(struct sim_node *node, struct sim_turns *turns) {
    uint64_t soon = node->sim->now_ns + turn_ns(node);
    turns->idle_ns = 0;
    if (turns->next_ns > soon)
        turns->next_ns = soon;
}

void sim_node_wake(struct sim_node *node) {
    for (unsigned i = 0; i < node->lcore_count; i++)
        wake(node, &node->engines[i].turns);
    if (node->wal_apart)
        wake(node, &node->wal_turns);
}

/** When the lcore has its next turn: soon after one with work, ever later after empty ones. */
static void plan_turn(struct sim_node *node, struct sim_turns *turns, unsigned work) {
    const struct sim_node_plan *plan = &node->plan->node;
    uint64_t wait = turn_ns(node);
    if (work == 0) {
        turns->idle_ns = turns->idle_ns ? 2 * turns->idle_ns : wait;
        if (turns->idle_ns > plan->idle_max_ns)
            turns->idle_ns = plan->idle_max_ns;
        wait = turns->idle_ns > wait ? turns->idle_ns : wait;
    } else {
        turns->idle_ns = 0;
    }
    if ((node->wal_apart || node->lcore_count > 1) &&
        sim_chance(&node->random, plan->ring_delayed_ppm)) {
        sim_fault(node->sim, SIM_FAULT_ring_delayed);
        wait += sim_below(&node->random, plan->ring_delayed_ns);
    }
    turns->next_ns = node->sim->now_ns + wait;
}

static bool drained(struct sim_node *node) {
    uint64_t now = node->clock.clock.monotonic_ns(&node->clock.clock);
    for (unsigned i = 0; i < node->lcore_count; i++)
        if (!engine_idle(node->engines[i].lcore->engine) || node->engines[i].net->tx_count != 0)
            return false;
    return lcore_drained(node->engines[0].lcore) &&
           (!node->wal_apart || wal_drained(node->wal, now));
}

/** What a turn may have led to: a dead disk, a log that gave up, the end of an orderly stop. */
static void look_after_turn(struct sim_node *node) {
    if (node->disk.dead) {
        end_life(node);
        return;
    }
    sim_check_turn(node);
    int failed = atomic_load_explicit(&node->board->failed, memory_order_relaxed);
    if (failed) {
        SIM_TRACE(node->sim, "node", "gives up: %s", wal_error(node->wal));
        if (node->disk.errors == 0)
            sim_violation(node->sim, "the log gave up although no operation failed: %s",
                          wal_error(node->wal));
        sim_node_crash(node, false);
    } else if (node->state == SIM_NODE_DRAINING && drained(node)) {
        SIM_TRACE(node->sim, "node", "stopped in an orderly way");
        sim_check_stopped(node);
        sim_check_state(node);
        sim_node_crash(node, false);
    } else if (node->state == SIM_NODE_DRAINING && node->sim->now_ns >= node->drain_until_ns) {
        SIM_TRACE(node->sim, "node", "stopped before everything was answered");
        sim_node_crash(node, false);
    }
}

void sim_node_step(struct sim_node *node) {
    uint64_t now = node->sim->now_ns;
    if (node->state == SIM_NODE_DOWN || now < node->paused_until_ns)
        return;
    uint64_t done_ns = sim_disk_next_ns(&node->disk);
    if (done_ns <= now && done_ns > node->woken_ns) {
        node->woken_ns = now;
        sim_node_wake(node);
    }
    /* of lcores that are due at one time, any may be first; the log's comes behind the engines' */
    const unsigned lcores = node->lcore_count + node->wal_apart;
    const unsigned first = lcores > 1 ? (unsigned)sim_below(&node->random, lcores) : 0;
    for (unsigned turn = 0; turn < lcores && node->state != SIM_NODE_DOWN; turn++) {
        const unsigned number = (first + turn) % lcores;
        const bool log = number == node->lcore_count;
        struct sim_turns *turns = log ? &node->wal_turns : &node->engines[number].turns;
        if (turns->next_ns > now)
            continue;
        unsigned work =
            log ? wal_step(node->wal, node->clock.clock.monotonic_ns(&node->clock.clock))
                : lcore_step(node->engines[number].lcore);
        node->turns++;
        sim_note(node->sim, (uint64_t)work << 8 | number);
        plan_turn(node, turns, work);
        for (unsigned other = 0; work != 0 && lcores > 1 && other < lcores; other++)
            if (other != number)
                wake(node,
                     other == node->lcore_count ? &node->wal_turns : &node->engines[other].turns);
        look_after_turn(node);
    }
}

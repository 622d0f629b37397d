/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/check.h"
#include "net/net.h"
#include "net/protocol.h"
#include "tests/sim/sim_check.h"

/* A node's start, step by step as tools/tallyd_run.c does it. */

static void *zeroed(size_t bytes) {
    bytes = (bytes + CACHE_LINE_BYTES - 1) & ~(size_t)(CACHE_LINE_BYTES - 1);
    void *memory = aligned_alloc(CACHE_LINE_BYTES, bytes);
    if (!memory)
        abort();
    return memset(memory, 0, bytes);
}

static void open_engine(struct sim_node *node) {
    const struct sim_node_plan *plan = &node->plan->node;
    node->board = zeroed(sizeof(*node->board));
    node->lanes = zeroed(node->lcore_count * sizeof(*node->lanes));
    for (unsigned i = 0; i < node->lcore_count; i++)
        node->engines[i].lcore = zeroed(sizeof(struct lcore));
    const struct engine_config config = {
        .partitions = node->identity.partitions,
        .lcores = node->lcore_count,
        .hash_seed = node->identity.hash_seed,
        .digest_seed = node->identity.digest_seed,
        .id_time = node->identity.id_time,
        .memory_bytes = node->memory_bytes,
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .digest_interval_ns = plan->digest_interval_ns,
        .horizon_back_ms = plan->horizon_back_ms,
        .horizon_slack_ms = plan->horizon_slack_ms,
        .checkpoint_chunks = plan->checkpoints ? 32 : 0,
        .checkpoint_slice = plan->checkpoint_slice,
        .board = node->board,
        .lanes = node->lanes,
    };
    if (engine_open(&config, &node->engine, node->error, sizeof(node->error))) {
        fprintf(stderr, "tally-sim: %s\n", node->error);
        abort();
    }
}

static int recover(struct sim_node *node) {
    const struct recovery_config config = {
        .disk = &node->disk.disk, .identity = &node->identity, .workers = 2};
    return recovery_run(&config, node->engine, &node->position, &node->recovered, node->error,
                        sizeof(node->error));
}

static int open_log(struct sim_node *node) {
    const struct sim_node_plan *plan = &node->plan->node;
    node->term = node->position.term + 1;
    struct wal_config config = {
        .disk = &node->disk.disk,
        .identity = node->identity,
        .term = node->term,
        .position = node->position,
        .board = node->board,
        .lanes = node->lanes,
        .lane_count = node->lcore_count,
        .groups_in_flight = node->groups_in_flight,
        .file_bytes = node->identity.file_bytes,
        .group_bytes_wanted = plan->group_bytes_wanted,
        .group_delay_ns = plan->group_delay_ns,
        .horizon_back_ms = plan->horizon_back_ms,
        .horizon_minimum_ms = plan->horizon_minimum_ms,
    };
    if (plan->checkpoints) {
        config.checkpoint_log_bytes = plan->checkpoint_log_bytes;
        config.checkpoint_interval_ns = plan->checkpoint_interval_ns;
        config.log_bytes_max = plan->log_bytes_max;
    }
    int rc = wal_open(&config, &node->wal, node->error, sizeof(node->error));
    node->position.index = NULL; /* it is the log's now, whatever it answered */
    return rc;
}

static void open_net(struct sim_node *node, struct sim_engine *engine) {
    const struct sim_node_plan *plan = &node->plan->node;
    static const uint8_t placement[PARTITIONS_MAX];
    struct net_config config = {
        .port = &engine->port.port,
        .random = &node->seam_random.random,
        .pool = engine->port.pool,
        .udp_port = engine->port.self.udp_port,
        .payload_max = NET_PAYLOAD_IPV4_DEFAULT,
        .session_max = plan->sessions,
        .window = plan->window,
        .reply_buffers = plan->reply_buffers,
        .queueing_delay_max_ns = plan->queueing_delay_max_ns,
        .identity = node->identity,
        .term = node->term,
        .lcores = 1,
        .ports = {engine->port.self.udp_port},
        .placement = placement,
        .id_window_ms = plan->horizon_back_ms,
    };
    memcpy(config.mac, engine->port.self.mac, sizeof(config.mac));
    memcpy(config.ipv4, engine->port.self.ipv4, sizeof(config.ipv4));
    memcpy(config.ipv6, engine->port.self.ipv6, sizeof(config.ipv6));
    if (net_open(&config, &engine->net, node->error, sizeof(node->error))) {
        fprintf(stderr, "tally-sim: %s\n", node->error);
        abort();
    }
}

/** Whether enough is whole to start from: every log file, and a published checkpoint unless none is there. */
static bool enough_is_whole(const struct sim_node *node) {
    const struct sim_disk *disk = &node->disk;
    unsigned manifests = 0, whole = 0;
    uint64_t file;
    if (disk->files_lost != 0)
        return false;
    for (unsigned n = 0; (file = sim_disk_file(disk, DISK_LOG, n)) != 0; n++)
        if (sim_disk_harmed(disk, file))
            return false;
    for (; (file = sim_disk_file(disk, DISK_CHECKPOINT_MANIFEST, manifests)) != 0; manifests++)
        whole += !sim_disk_harmed(disk, file) &&
                 !sim_disk_harmed(disk, disk_file(DISK_CHECKPOINT_DATA, disk_file_number(file)));
    return manifests == 0 || whole != 0;
}

/** Is this refusal, or failure, one that the disk has given a reason for? */
static enum sim_start judge(struct sim_node *node, int rc, uint64_t errors, uint64_t flips) {
    if (node->disk.dead)
        return SIM_START_INTERRUPTED;
    if (rc == -ENOMEM && node->plan->node.memory_short)
        return SIM_START_MEMORY;
    if (rc == -EBADMSG || rc == -ENODATA || rc == -EPERM || rc == -ENOTSUP) {
        if (node->disk.flips != flips)
            return SIM_START_INTERRUPTED;
        if (!enough_is_whole(node))
            return SIM_START_REFUSED;
    } else if (node->disk.errors != errors) {
        return SIM_START_INTERRUPTED;
    }
    sim_violation(node->sim, "a start failed without a reason (%d): %s", rc, node->error);
    return SIM_START_REFUSED;
}

static enum sim_start start(struct sim_node *node, bool accept_clock, struct sim_image *image) {
    const uint64_t errors = node->disk.errors, flips = node->disk.flips;
    open_engine(node);
    int rc = recover(node);
    if (rc != 0)
        return judge(node, rc, errors, flips);
    for (unsigned i = 0; i < node->lcore_count; i++)
        if (!cell_clock_start(&node->engines[i].lcore->cell_clock,
                              node->clock.clock.monotonic_ns(&node->clock.clock),
                              sim_clock_realtime(&node->clock), node->position.cell_time,
                              accept_clock))
            return SIM_START_CLOCK;
    if (node->disk.dead)
        return SIM_START_INTERRUPTED;
    /* before the log goes on, what was found is what there is */
    bool lost = sim_check_recovered(node, image);
    if (lost && node->disk.flips == flips)
        node->undetectable = true;
    rc = open_log(node);
    if (rc != 0)
        return judge(node, rc, errors, flips);
    sim_check_show_log(node, lost);
    if (engine_replay_finish(node->engine, node->position.seq, node->term, node->position.cell_time,
                             node->position.horizon_ms) != 0)
        sim_violation(node->sim, "the log ends in the middle of something");
    for (unsigned i = 0; i < node->lcore_count; i++)
        open_net(node, &node->engines[i]);
    sim_check_state(node);
    return SIM_STARTED;
}

static void serve(struct sim_node *node) {
    for (unsigned i = 0; i < node->lcore_count; i++) {
        struct sim_engine *engine = &node->engines[i];
        engine->lcore->engine = engine_lcore(node->engine, i);
        engine->lcore->net = engine->net;
        engine->lcore->wal = node->wal_apart || i != 0 ? NULL : node->wal;
        engine->lcore->board = node->board;
        engine->lcore->clock = &node->clock.clock;
        engine->port.dead = false;
        engine->turns = (struct sim_turns){.next_ns = node->sim->now_ns};
        net_announce(engine->net);
    }
    node->state = SIM_NODE_UP;
    node->commit_seq = node->written_seq = node->position.seq;
    /* recovery has synced what it read: all of it is promised now */
    sim_node_note_recovered(node);
    node->wal_turns = (struct sim_turns){.next_ns = node->sim->now_ns};
    SIM_TRACE(node->sim, "node",
              "up in term %" PRIu64 " behind group %" PRIu64 ", %" PRIu64 " records, %" PRIu64
              " torn bytes cut",
              node->term, node->position.seq, node->position.records, node->position.torn_bytes);
}

enum sim_start sim_node_start(struct sim_node *node, bool accept_clock) {
    static const char *const names[] = {"started", "interrupted", "clock ahead", "memory",
                                        "refused"};
    struct sim_image image = {0};
    assert(node->state == SIM_NODE_DOWN);
    sim_disk_restart(&node->disk);
    if (node->disk.harm != 0)
        sim_image_take(&image, &node->disk);
    node->starts++;
    node->position = (struct wal_position){0};
    node->error[0] = '\0';
    /* somebody may have changed the configuration */
    node->wal_apart = node->plan->node.wal_apart ^ sim_chance(&node->random, 100000);
    node->groups_in_flight =
        sim_chance(&node->random, 800000)
            ? node->plan->node.groups_in_flight
            : (unsigned)sim_between(&node->random, 1, WAL_GROUPS_IN_FLIGHT_MAX);
    node->clock.booted_ns = sim_below(&node->random, 1ull << 40);
    node->disk.blocking = true;
    enum sim_start how = start(node, accept_clock, &image);
    node->disk.blocking = false;
    sim_image_release(&image);
    sim_note(node->sim, how);
    if (how == SIM_STARTED) {
        serve(node);
        return how;
    }
    SIM_TRACE(node->sim, "node", "does not start: %s: %s", names[how], node->error);
    sim_disk_kill(&node->disk);
    sim_node_forget(node);
    return how;
}

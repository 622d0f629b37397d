/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_world.h"

#include <stdlib.h>

#include <rte_mempool.h>

#include "tests/sim/sim_chaos.h"
#include "tests/sim/sim_check.h"

#define QUIET_MAX_NS (400 * NS_PER_SECOND) /**< in which everything must be settled */
#define STOP_MAX_NS (30 * NS_PER_SECOND)
#define MOMENTS_MAX 20000000u

static unsigned find_endpoint(void *context, const uint8_t mac[6]) {
    struct sim_world *world = context;
    for (unsigned i = 0; i < world->plan.work.clients; i++)
        if (memcmp(world->clients[i].self.mac, mac, 6) == 0)
            return world->clients[i].endpoint;
    return SIM_ENDPOINTS;
}

static struct sim_world *world_open(uint64_t seed, const struct sim_options *options,
                                    struct rte_mempool *pool) {
    struct sim_world *world = calloc(1, sizeof(*world));
    if (!world)
        abort();
    struct sim *sim = &world->sim;
    sim->seed = seed;
    sim->tracing = options->trace;
    sim_plan_draw(&world->plan, seed, options->lcores);
    if (options->trace)
        sim_plan_print(&world->plan);
    world->random = sim_random_make(seed, 7);
    sim_network_open(&world->network, sim, &world->plan.network);
    sim_node_open(&world->node, sim, &world->plan, &world->network, pool);
    for (unsigned i = 0; i < world->node.lcore_count; i++) {
        world->node.engines[i].port.find = find_endpoint;
        world->node.engines[i].port.context = world;
    }
    sim_book_open(&world->book, sim, &world->plan.work);
    for (unsigned i = 0; i < world->plan.work.clients; i++) {
        sim_client_open(&world->clients[i], sim, &world->plan, &world->book, &world->network, i);
        const struct sim_port *port = &world->node.engines[i % world->node.lcore_count].port;
        sim_client_serve_by(&world->clients[i], &port->self, port->endpoint);
        world->clients[i].oracle = world->node.oracle;
    }
    sim_chaos_open(world);
    return world;
}

static void world_close(struct sim_world *world) {
    for (unsigned i = 0; i < world->plan.work.clients; i++)
        sim_client_close(&world->clients[i]);
    sim_node_close(&world->node);
    sim_network_close(&world->network);
    free(world);
}

/* --- moments ---------------------------------------------------------------------------------------------------------- */

static void start_node(struct sim_world *world) {
    struct sim_node *node = &world->node;
    sim_chaos_before_start(world);
    switch (sim_node_start(node, world->accept_clock)) {
    case SIM_STARTED:
        world->accept_clock = false;
        break;
    case SIM_START_CLOCK:
        world->accept_clock = true; /* somebody looks at the clock, and finds it right */
        break;
    case SIM_START_MEMORY:
        node->memory_bytes *= 2;
        break;
    case SIM_START_REFUSED:
        world->refused = true;
        break;
    case SIM_START_INTERRUPTED:
        break;
    }
    world->start_ns =
        world->sim.now_ns + 1 +
        sim_below(&world->random, world->quiet ? NS_PER_SECOND / 10 : world->plan.node.start_ns);
}

static void deliver(struct sim_world *world) {
    struct sim_frame *frame;
    while ((frame = sim_network_take(&world->network)) != NULL) {
        if (frame->to < SIM_FIRST_CLIENT) {
            if (world->node.state != SIM_NODE_DOWN) {
                sim_port_deliver(&world->node.engines[frame->to].port, frame);
                sim_node_wake(&world->node);
            }
            sim_network_give(&world->network, frame);
        } else {
            sim_client_deliver(&world->clients[frame->to - SIM_FIRST_CLIENT], frame);
        }
    }
}

static uint64_t next_moment(const struct sim_world *world) {
    uint64_t next = sim_network_next_ns(&world->network);
    const uint64_t others[] = {
        sim_node_next_ns(&world->node), sim_chaos_next_ns(world),
        world->node.state == SIM_NODE_DOWN && !world->keep_down ? world->start_ns : UINT64_MAX};
    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        next = others[i] < next ? others[i] : next;
    for (unsigned i = 0; i < world->plan.work.clients; i++) {
        uint64_t client = sim_client_next_ns(&world->clients[i]);
        next = client < next ? client : next;
    }
    return next;
}

/** Go on to the next thing that is due, but not beyond `until_ns`. */
static void moment(struct sim_world *world, uint64_t until_ns) {
    struct sim *sim = &world->sim;
    uint64_t next = next_moment(world);
    next = next < until_ns ? next : until_ns;
    if (next > sim->now_ns)
        sim->now_ns = next;
    sim_note(sim, sim->now_ns);
    deliver(world);
    sim_chaos_step(world);
    if (world->node.state == SIM_NODE_DOWN && !world->keep_down && sim->now_ns >= world->start_ns)
        start_node(world);
    bool up = world->node.state != SIM_NODE_DOWN;
    sim_node_step(&world->node);
    if (up && world->node.state == SIM_NODE_DOWN)
        world->start_ns = sim->now_ns + 1 + sim_below(&world->random, world->plan.node.start_ns);
    for (unsigned i = 0; i < world->plan.work.clients; i++)
        sim_client_step(&world->clients[i]);
    if (++world->moments > MOMENTS_MAX)
        sim_violation(sim, "time does not go on");
}

static bool over(const struct sim_world *world) {
    return world->sim.failed || world->refused;
}

/* --- phases ----------------------------------------------------------------------------------------------------------- */

static bool settled(struct sim_world *world) {
    bool all = true;
    for (unsigned i = 0; i < world->plan.work.clients; i++) {
        struct sim_client *client = &world->clients[i];
        if (!sim_client_settled(client))
            all = false;
        else if (client->library) /* its session is for others now */
            sim_client_leave(client, false, UINT64_MAX);
    }
    return all;
}

static void run_active(struct sim_world *world) {
    while (!over(world) && world->sim.now_ns < world->plan.active_ns)
        moment(world, world->plan.active_ns);
}

/** No more faults: whatever was asked for is settled in the end. */
static void run_quiet(struct sim_world *world) {
    struct sim *sim = &world->sim;
    const uint64_t until_ns = sim->now_ns + QUIET_MAX_NS;
    SIM_TRACE(sim, "world", "no more faults");
    world->quiet = true;
    sim_network_heal(&world->network);
    sim_disk_heal(&world->node.disk);
    sim_chaos_heal(world);
    for (unsigned i = 0; i < world->plan.work.clients; i++)
        sim_client_quiet(&world->clients[i]);
    while (!over(world) && !settled(world) && sim->now_ns < until_ns)
        moment(world, until_ns);
    if (over(world) || settled(world) || world->node.disk.harm != 0)
        return;
    for (unsigned i = 0; i < world->plan.work.clients; i++)
        if (!sim_client_settled(&world->clients[i])) {
            char what[200];
            sim_client_describe(&world->clients[i], what, sizeof(what));
            sim_violation(sim, "not settled %" PRIu64 " s after the last fault: %s",
                          (uint64_t)(QUIET_MAX_NS / NS_PER_SECOND), what);
        }
}

/** An orderly stop, and a start from what it left. */
static void run_stop(struct sim_world *world) {
    struct sim *sim = &world->sim;
    const uint64_t until_ns = sim->now_ns + STOP_MAX_NS;
    while (!over(world) && world->node.state == SIM_NODE_DOWN && sim->now_ns < until_ns)
        moment(world, until_ns);
    if (over(world))
        return;
    world->keep_down = true;
    sim_node_stop(&world->node);
    world->node.drain_until_ns = UINT64_MAX;
    while (!over(world) && world->node.state != SIM_NODE_DOWN && sim->now_ns < until_ns)
        moment(world, until_ns);
    if (!over(world) && world->node.state != SIM_NODE_DOWN)
        sim_violation(sim, "the node does not stop");
    for (unsigned tries = 0; !over(world) && world->node.state == SIM_NODE_DOWN && tries < 4;
         tries++)
        start_node(world);
}

static void conclude(struct sim_world *world, struct rte_mempool *pool, struct sim_result *result) {
    struct sim *sim = &world->sim;
    struct oracle_counts counts;
    const char *violation = oracle_violation(world->node.oracle);
    if (violation)
        sim_violation(sim, "%s", violation);
    oracle_counts(world->node.oracle, &counts);
    *result = (struct sim_result){.outcome = world->refused             ? SIM_REFUSED
                                             : world->node.undetectable ? SIM_LOST
                                                                        : SIM_FINISHED,
                                  .simulated_ns = sim->now_ns,
                                  .starts = world->node.starts,
                                  .turns = world->node.turns,
                                  .packets = world->network.delivered,
                                  .groups = counts.groups,
                                  .events = counts.results,
                                  .lookups = counts.lookups,
                                  .requests = counts.requests,
                                  .digests = counts.digests + counts.totals};
    memcpy(result->faults, sim->faults, sizeof(result->faults));
    memcpy(result->told, sim->told, sizeof(result->told));
    SIM_TRACE(sim, "world", "over: %" PRIu64 " groups, %" PRIu64 " requests, %" PRIu64 " outcomes",
              counts.groups, counts.requests, counts.results);
    sim_node_crash(&world->node, false);
    result->checkpoints = world->node.checkpoints;
    result->checkpoints_abandoned = world->node.checkpoints_abandoned;
    result->files_removed = world->node.files_removed;
    world_close(world);
    if (rte_mempool_in_use_count(pool) != 0)
        snprintf(result->violation, sizeof(result->violation), "%u packets leaked",
                 rte_mempool_in_use_count(pool));
}

void sim_world_run(uint64_t seed, const struct sim_options *options, struct rte_mempool *pool,
                   struct sim_result *result) {
    struct sim_world *world = world_open(seed, options, pool);
    run_active(world);
    if (!over(world))
        run_quiet(world);
    if (!over(world))
        run_stop(world);
    struct sim sim = world->sim;
    conclude(world, pool, result);
    result->digest = sim.digest;
    if (sim.failed)
        memcpy(result->violation, sim.violation, sizeof(result->violation));
    if (result->violation[0])
        result->outcome = SIM_VIOLATED;
}

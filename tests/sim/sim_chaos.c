/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_chaos.h"

#define IO_CUT_MAX 60     /**< boundaries of the disk ahead, while the node serves */
#define START_CUT_MAX 400 /**< ... while it starts */

static void plan_deed(struct sim_world *world, uint64_t due_ns, enum sim_fault fault, bool end) {
    if (world->deed_count < SIM_DEEDS_MAX)
        world->deeds[world->deed_count++] = (struct sim_deed){due_ns, fault, end};
}

void sim_chaos_open(struct sim_world *world) {
    const struct sim_chaos_plan *plan = &world->plan.chaos;
    const struct {
        unsigned count;
        enum sim_fault fault;
    } kinds[] = {
        {plan->power_cuts, SIM_FAULT_power_cut},
        {plan->io_cuts, SIM_FAULT_power_cut_at_io},
        {plan->kills, SIM_FAULT_node_killed},
        {plan->stops, SIM_FAULT_node_stopped},
        {plan->pauses, SIM_FAULT_node_paused},
        {plan->clock_jumps, SIM_FAULT_clock_jumped},
        {plan->clock_drifts, SIM_FAULT_clock_drifted},
        {plan->clock_freezes, SIM_FAULT_clock_frozen},
        {plan->link_cuts, SIM_FAULT_link_cut},
        {plan->client_crashes, SIM_FAULT_client_crashed},
        {plan->client_leaves, SIM_FAULT_client_left},
        {plan->rots, SIM_FAULT_bit_rotted},
        {plan->file_losses, SIM_FAULT_file_lost},
        {plan->checkpoints, SIM_FAULT_checkpoint_wanted},
    };
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        for (unsigned n = 0; n < kinds[i].count; n++)
            plan_deed(world, sim_below(&world->random, world->plan.active_ns), kinds[i].fault,
                      false);
}

uint64_t sim_chaos_next_ns(const struct sim_world *world) {
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < world->deed_count; i++)
        if (world->deeds[i].due_ns < next)
            next = world->deeds[i].due_ns;
    return next;
}

/* --- deeds ------------------------------------------------------------------------------------------------------------ */

static void crash(struct sim_world *world, enum sim_fault fault) {
    if (world->node.state == SIM_NODE_DOWN)
        return;
    sim_fault(&world->sim, fault);
    sim_node_crash(&world->node, fault == SIM_FAULT_power_cut);
    world->start_ns = world->sim.now_ns + 1 + sim_below(&world->random, world->plan.node.start_ns);
}

static void disturb_clock(struct sim_world *world, const struct sim_deed *deed) {
    struct sim_clock *clock = &world->node.clock;
    struct sim_random *random = &world->random;
    uint64_t now = sim_clock_realtime(clock);
    if (!deed->end)
        sim_fault(&world->sim, deed->fault);
    if (deed->fault == SIM_FAULT_clock_jumped) {
        uint64_t by = sim_spread(random, NS_PER_MS, world->plan.chaos.clock_jump_ns);
        sim_clock_set(clock, sim_chance(random, 500000) ? now + by : now - by);
    } else if (deed->fault == SIM_FAULT_clock_drifted) {
        sim_clock_set(clock, now);
        clock->drift_ppm = (int64_t)sim_below(random, 200000) - 100000;
    } else {
        sim_clock_set(clock, now);
        clock->frozen = !deed->end;
        if (!deed->end)
            plan_deed(world, world->sim.now_ns + sim_spread(random, NS_PER_MS, 10 * NS_PER_SECOND),
                      deed->fault, true);
    }
}

static void cut_link(struct sim_world *world) {
    struct sim_random *random = &world->random;
    unsigned endpoint =
        sim_chance(random, 300000)
            ? 0
            : SIM_FIRST_CLIENT + (unsigned)sim_below(random, world->plan.work.clients);
    unsigned direction = (unsigned)sim_below(random, 2);
    uint64_t until_ns =
        world->sim.now_ns + sim_spread(random, NS_PER_MS, world->plan.chaos.link_cut_ns);
    sim_fault(&world->sim, SIM_FAULT_link_cut);
    world->network.cut_until_ns[endpoint][direction] = until_ns;
}

/** The last page of the log that holds anything. @return false: there is none */
static bool log_end(const struct sim_disk *disk, uint64_t *file, uint64_t *at) {
    bool found = false;
    uint64_t bytes, number;
    for (unsigned n = 0; (number = sim_disk_file(disk, DISK_LOG, n)) != 0; n++) {
        const uint8_t *content = sim_disk_bytes(disk, number, &bytes);
        for (uint64_t page = 0; page + 4096 <= bytes; page += 4096)
            if (content[page] != 0) {
                *file = number;
                *at = page;
                found = true;
            }
    }
    return found;
}

/** Damage something: a sector that holds anything, mostly; the log's end more often than the rest. */
static void rot(struct sim_world *world) {
    struct sim_disk *disk = &world->node.disk;
    struct sim_random *random = &world->random;
    uint64_t file = 0, at = 0, bytes;
    if (sim_chance(random, 400000) && log_end(disk, &file, &at)) {
        at += sim_below(random, 4096);
    } else {
        for (unsigned tries = 0; tries < 40 && disk->file_count != 0; tries++) {
            file = sim_disk_any_file(disk, (unsigned)sim_below(random, disk->file_count));
            const uint8_t *content = sim_disk_bytes(disk, file, &bytes);
            at = sim_below(random, bytes);
            if (bytes != 0 && (content[at / 512 * 512] != 0 || tries == 36))
                break;
        }
    }
    if (sim_disk_rot(disk, file, at))
        oracle_read_failed(world->node.oracle);
}

static void do_deed(struct sim_world *world, const struct sim_deed *deed) {
    struct sim_random *random = &world->random;
    struct sim_client *client = &world->clients[sim_below(random, world->plan.work.clients)];
    struct sim_node *node = &world->node;
    const uint64_t now = world->sim.now_ns;
    switch (deed->fault) {
    case SIM_FAULT_power_cut:
    case SIM_FAULT_node_killed:
        crash(world, deed->fault);
        break;
    case SIM_FAULT_power_cut_at_io:
        if (node->state != SIM_NODE_DOWN)
            node->disk.cut_in = 1 + sim_below(random, IO_CUT_MAX);
        break;
    case SIM_FAULT_node_stopped:
        if (node->state == SIM_NODE_UP)
            sim_fault(&world->sim, deed->fault);
        sim_node_stop(node);
        break;
    case SIM_FAULT_node_paused:
        sim_fault(&world->sim, deed->fault);
        node->paused_until_ns = now + sim_spread(random, NS_PER_MS, world->plan.chaos.pause_ns);
        break;
    case SIM_FAULT_clock_jumped:
    case SIM_FAULT_clock_drifted:
    case SIM_FAULT_clock_frozen:
        disturb_clock(world, deed);
        break;
    case SIM_FAULT_link_cut:
        cut_link(world);
        break;
    case SIM_FAULT_client_crashed:
    case SIM_FAULT_client_left:
        if (client->library)
            sim_fault(&world->sim, deed->fault);
        sim_client_leave(client, deed->fault == SIM_FAULT_client_crashed,
                         now + sim_spread(random, NS_PER_MS, 3 * NS_PER_SECOND));
        break;
    case SIM_FAULT_checkpoint_wanted:
        if (node->state == SIM_NODE_UP && world->plan.node.checkpoints) {
            sim_fault(&world->sim, deed->fault);
            wal_checkpoint_want(node->wal);
            sim_node_wake(node);
        }
        break;
    case SIM_FAULT_bit_rotted:
        if (sim_chance(random, 500000))
            rot(world);
        else
            world->rots_to_come++;
        break;
    case SIM_FAULT_file_lost:
        world->files_to_lose++;
        break;
    default:
        break;
    }
}

void sim_chaos_step(struct sim_world *world) {
    for (unsigned i = 0; i < world->deed_count;) {
        if (world->deeds[i].due_ns > world->sim.now_ns) {
            i++;
            continue;
        }
        struct sim_deed deed = world->deeds[i];
        world->deeds[i] = world->deeds[--world->deed_count];
        do_deed(world, &deed);
    }
}

void sim_chaos_before_start(struct sim_world *world) {
    struct sim_disk *disk = &world->node.disk;
    for (; world->files_to_lose != 0; world->files_to_lose--) {
        unsigned count = 0;
        while (sim_disk_file(disk, DISK_LOG, count) != 0)
            count++;
        sim_disk_lose_file(
            disk, sim_disk_file(disk, DISK_LOG, (unsigned)sim_below(&world->random, count)));
    }
    for (; world->rots_to_come != 0; world->rots_to_come--)
        rot(world);
    disk->cut_in = 0;
    if (disk->plan.capacity_bytes && sim_chance(&world->random, 500000))
        disk->plan.capacity_bytes +=
            world->plan.node.file_bytes * sim_between(&world->random, 1, 4);
    if (!world->quiet && sim_below(&world->random, 100) < world->plan.chaos.start_cut_percent)
        disk->cut_in = sim_spread(&world->random, 1, START_CUT_MAX);
}

void sim_chaos_heal(struct sim_world *world) {
    struct sim_clock *clock = &world->node.clock;
    world->deed_count = 0;
    world->files_to_lose = world->rots_to_come = 0;
    world->node.paused_until_ns = 0;
    sim_clock_set(clock, sim_clock_realtime(clock));
    clock->frozen = false;
    clock->drift_ppm = 0;
    if (world->start_ns > world->sim.now_ns + NS_PER_SECOND)
        world->start_ns = world->sim.now_ns;
    for (unsigned i = 0; i < world->plan.work.clients; i++)
        if (!world->clients[i].library)
            world->clients[i].next_ns = world->sim.now_ns;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_plan.h"

#define US ((uint64_t)1000)
#define MS NS_PER_MS
#define S NS_PER_SECOND

/** A rate in a million between low and high, in so many percent of the seeds; else 0. */
static uint32_t rate(struct sim_random *random, unsigned percent, uint32_t low, uint32_t high) {
    uint32_t drawn = (uint32_t)sim_spread(random, low, high);
    return sim_below(random, 100) < percent ? drawn : 0;
}

static bool percent(struct sim_random *random, unsigned of_100) {
    return sim_below(random, 100) < of_100;
}

static unsigned some(struct sim_random *random, unsigned of_100, unsigned max) {
    unsigned drawn = (unsigned)sim_between(random, 1, max);
    return percent(random, of_100) ? drawn : 0;
}

static void draw_node(struct sim_node_plan *node, struct sim_random *random) {
    static const unsigned partitions[] = {1, 1, 2, 3, 8, 16, 64};
    node->partitions = partitions[sim_below(random, 7)];
    node->id_time = !percent(random, 12);
    node->memory_short = percent(random, 12);
    node->memory_bytes = (node->memory_short ? 2 : sim_between(random, 8, 24)) << 20;
    node->file_bytes = 4096 * sim_spread(random, 16, 256);
    node->groups_in_flight = (unsigned)sim_between(random, 1, 8);
    node->group_bytes_wanted = (uint32_t)sim_spread(random, 512, 65536);
    node->group_delay_ns = percent(random, 30) ? 0 : sim_spread(random, 10 * US, 5 * MS);
    node->horizon_back_ms =
        percent(random, 50) ? sim_spread(random, 1500, 20000) : sim_spread(random, 30000, 600000);
    node->horizon_minimum_ms = percent(random, 50) ? node->horizon_back_ms : 1000;
    node->horizon_slack_ms = sim_between(random, 10, 1000);
    node->digest_interval_ns = percent(random, 10) ? 0 : sim_spread(random, 20 * MS, 2 * S);
    node->queueing_delay_max_ns = sim_spread(random, 100 * US, 100 * MS);
    node->wal_apart = percent(random, 50);
    node->sessions = (unsigned)sim_between(random, 2, 8);
    node->window = 64;
    node->reply_buffers = (unsigned)sim_between(random, 64, 512);
    node->turn_ns = percent(random, 80) ? sim_spread(random, 500, 20 * US)
                                        : sim_spread(random, 100 * US, 3 * MS);
    node->idle_max_ns = sim_spread(random, 2 * MS, 20 * MS);
    node->ring_delayed_ppm = rate(random, 40, 500, 50000);
    node->ring_delayed_ns = sim_spread(random, 100 * US, 50 * MS);
    node->checkpoints = percent(random, 75);
    node->checkpoint_slice = percent(random, 60) ? (unsigned)sim_spread(random, 1, 64) : 0;
    node->checkpoint_log_bytes =
        percent(random, 60) ? node->file_bytes * sim_between(random, 1, 8) / 2 : 0;
    node->checkpoint_interval_ns = percent(random, 50) ? sim_spread(random, 200 * MS, 20 * S) : 0;
    node->log_bytes_max = percent(random, 40) ? node->file_bytes * sim_between(random, 3, 12) : 0;
    node->start_ns = sim_spread(random, 10 * MS, 4 * S);
}

static void draw_disk(struct sim_disk_plan *disk, struct sim_random *random, bool malign) {
    disk->latency_ns = sim_spread(random, 10 * US, 2 * MS);
    disk->slow_ppm = rate(random, 40, 200, 30000);
    disk->slow_times = (uint32_t)sim_spread(random, 100, 2000);
    disk->queue_full_ppm = rate(random, 30, 1000, 200000);
    disk->write_failed_ppm = rate(random, 25, 100, 20000);
    disk->write_short_ppm = rate(random, 20, 100, 20000);
    disk->read_failed_ppm = rate(random, 25, 500, 20000);
    disk->create_failed_ppm = rate(random, 20, 2000, 50000);
    disk->disk_full_ppm = rate(random, 20, 2000, 50000);
    if (!malign)
        return;
    uint32_t *const kinds[] = {&disk->read_flipped_ppm, &disk->write_lost_ppm,
                               &disk->write_misdirected_ppm, &disk->write_holed_ppm,
                               &disk->sync_lied_ppm};
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        *kinds[i] = rate(random, 25, 500, i == 4 ? 500000 : 30000);
}

static void draw_network(struct sim_network_plan *network, struct sim_random *random) {
    network->delay_ns = sim_spread(random, 2 * US, 5 * MS);
    network->jitter_ns = percent(random, 50) ? network->delay_ns * sim_between(random, 0, 4) : 0;
    network->lost_ppm = rate(random, 50, 500, 200000);
    network->doubled_ppm = rate(random, 50, 500, 300000);
    network->delayed_ppm = rate(random, 50, 500, 200000);
    network->delayed_ns = sim_spread(random, 100 * US, 3 * S);
    network->flipped_ppm = rate(random, 40, 500, 50000);
}

static void draw_chaos(struct sim_chaos_plan *chaos, struct sim_random *random, bool malign) {
    chaos->power_cuts = some(random, 40, 4);
    chaos->io_cuts = some(random, 50, 5);
    chaos->kills = some(random, 35, 4);
    chaos->stops = some(random, 20, 3);
    chaos->pauses = some(random, 30, 4);
    chaos->clock_jumps = some(random, 30, 4);
    chaos->clock_drifts = some(random, 30, 2);
    chaos->clock_freezes = some(random, 15, 2);
    chaos->link_cuts = some(random, 30, 5);
    chaos->client_crashes = some(random, 30, 4);
    chaos->client_leaves = some(random, 20, 3);
    chaos->checkpoints = some(random, 50, 6);
    chaos->start_cut_percent = percent(random, 40) ? (uint32_t)sim_between(random, 5, 60) : 0;
    chaos->pause_ns = sim_spread(random, 10 * MS, 8 * S);
    chaos->link_cut_ns = sim_spread(random, 10 * MS, 5 * S);
    chaos->clock_jump_ns = sim_spread(random, 100 * MS, 7200 * S);
    if (malign) {
        chaos->rots = some(random, 50, 4);
        chaos->file_losses = some(random, 10, 1);
    }
}

static uint32_t weight(struct sim_random *random, unsigned of_100, unsigned max) {
    uint32_t drawn = (uint32_t)sim_between(random, 1, max);
    return percent(random, of_100) ? drawn : 0;
}

static void draw_work(struct sim_work_plan *work, struct sim_random *random) {
    work->clients = (unsigned)sim_between(random, 1, 6);
    work->requests = (unsigned)sim_spread(random, 10, 160);
    work->accounts = (unsigned)sim_spread(random, 3, 200);
    work->ledgers = (unsigned)sim_between(random, 1, 3);
    work->events_max = (unsigned)sim_spread(random, 1, 60);
    work->outstanding_max = (unsigned)sim_spread(random, 1, 8);
    work->hot_percent = percent(random, 60) ? (uint32_t)sim_between(random, 10, 95) : 0;
    work->floor_percent = percent(random, 60) ? (uint32_t)sim_between(random, 10, 90) : 0;
    work->history_percent = percent(random, 20) ? 20 : 0;
    work->closed_percent = percent(random, 15) ? 5 : 0;
    work->balances_percent = percent(random, 50) ? (uint32_t)sim_between(random, 10, 100) : 0;
    work->unordered_percent = percent(random, 40) ? (uint32_t)sim_between(random, 10, 100) : 0;
    work->stale_percent = percent(random, 20) ? 30 : 0;
    work->compact_percent = percent(random, 70) ? (uint32_t)sim_between(random, 30, 100) : 0;
    work->amount_max = sim_spread(random, 2, 1000000000);
    work->huge_amounts = percent(random, 10);
    work->create_accounts = weight(random, 60, 3);
    work->create_transfers = (uint32_t)sim_between(random, 5, 20);
    work->lookup_accounts = weight(random, 60, 5);
    work->lookup_transfers = weight(random, 60, 5);
    work->plain = weight(random, 90, 40);
    work->pending = weight(random, 60, 20);
    work->post = weight(random, 60, 15);
    work->void_ = weight(random, 60, 10);
    work->balancing = weight(random, 30, 10);
    work->closing = weight(random, 20, 5);
    work->imported = weight(random, 15, 10);
    work->linked = weight(random, 40, 15);
    work->retry = weight(random, 50, 10);
    work->retry_changed = weight(random, 40, 6);
    work->broken = weight(random, 40, 5);
    work->id_old = weight(random, 30, 4);
    work->id_future = weight(random, 30, 4);
    work->id_foreign = weight(random, 40, 10);
    work->id_reused = weight(random, 30, 4);
    if (work->plain + work->pending == 0)
        work->plain = 10;
    work->timeout_percent = percent(random, 60) ? (uint32_t)sim_between(random, 10, 100) : 0;
    work->timeout_max_s = (uint32_t)sim_spread(random, 1, 20);
    work->timeout_ms = sim_spread(random, 300, 20000);
    work->payload_max = percent(random, 70) ? 0 : 1400;
    work->ipv6 = percent(random, 20);
    work->forged_ppm = rate(random, 30, 1000, 200000);
}

void sim_plan_draw(struct sim_plan *plan, uint64_t seed, unsigned lcores) {
    struct sim_random random = sim_random_make(seed, 0);
    *plan = (struct sim_plan){.malign = percent(&random, 25)};
    plan->active_ns = sim_spread(&random, 2 * S, 60 * S);
    if (percent(&random, 12)) /* long enough for ids to be forgotten, and log files to go */
        plan->active_ns = sim_between(&random, 70 * S, 240 * S);
    draw_node(&plan->node, &random);
    draw_disk(&plan->disk, &random, plan->malign);
    if (percent(&random, 12)) /* it fills, and somebody makes room */
        plan->disk.capacity_bytes = plan->node.file_bytes * sim_between(&random, 3, 12);
    draw_network(&plan->network, &random);
    draw_chaos(&plan->chaos, &random, plan->malign);
    draw_work(&plan->work, &random);
    plan->node.lcores = lcores < plan->node.partitions ? lcores : plan->node.partitions;
    if (plan->node.lcores >
        1) { /* then there are no checkpoints, digests and imported events yet */
        plan->node.checkpoints = false;
        plan->node.digest_interval_ns = 0;
        plan->work.imported = 0;
    }
    if (plan->node.memory_short) { /* so many accounts that it does run out */
        plan->work.clients = (unsigned)sim_between(&random, 1, 2);
        plan->work.accounts = (unsigned)sim_spread(&random, 1000, 12000);
        plan->work.requests = (unsigned)sim_between(&random, 150, 300);
        plan->work.events_max = 60;
    }
    if (percent(&random, 8)) { /* a quiet world: what fails here fails without any fault */
        plan->malign = false;
        plan->disk = (struct sim_disk_plan){.latency_ns = plan->disk.latency_ns};
        plan->network = (struct sim_network_plan){.delay_ns = plan->network.delay_ns};
        plan->work.forged_ppm = 0;
        plan->chaos = (struct sim_chaos_plan){.checkpoints = plan->chaos.checkpoints};
    }
}

void sim_plan_print(const struct sim_plan *plan) {
    const struct sim_node_plan *node = &plan->node;
    const struct sim_work_plan *work = &plan->work;
    printf("plan: %" PRIu64
           " ms%s; %u partitions on %u lcores, id_time %d, memory %zu MiB%s, files of %" PRIu64
           " KiB, %u groups in flight, %s, horizon %" PRIu64 " ms (at least %" PRIu64
           "), turn %" PRIu64 " us\n",
           plan->active_ns / MS, plan->malign ? ", malign" : "", node->partitions, node->lcores,
           node->id_time, node->memory_bytes >> 20, node->memory_short ? " (short)" : "",
           node->file_bytes >> 10, node->groups_in_flight,
           node->wal_apart ? "log apart" : "log on the same lcore", node->horizon_back_ms,
           node->horizon_minimum_ms, node->turn_ns / US);
    printf("plan: %u clients, %u requests each of up to %u events, %u accounts, %u ledgers; disk "
           "%" PRIu64 " us, network %" PRIu64 " us\n",
           work->clients, work->requests, work->events_max, work->accounts, work->ledgers,
           plan->disk.latency_ns / US, plan->network.delay_ns / US);
}

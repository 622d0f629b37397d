/* SPDX-License-Identifier: Apache-2.0 */
#include "perf/load/load_run.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>

#include "perf/bench.h"

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL
#define SLEEP_WORTH_NS                                                                             \
    (2 * NS_PER_MS) /**< the next arrival is so far away that sleeping does not delay it */

struct slot {
    struct tally_request request;
    struct load_unit unit;
    struct load_runner *runner;
    struct slot *next;
    uint64_t planned_ns; /**< when it should leave */
};

struct load_runner {
    struct tally_client *client;
    struct load_source *source;
    const struct load_plan *plan;
    struct load_outcome *outcome;
    struct slot *slots, *free;
    uint32_t outstanding;
    double next_ns; /**< open loop: when the next request should leave */
    uint64_t measured_ns, end_ns;
    uint64_t events_left;
    uint64_t answered_ns; /**< when the last answer came */
    bool closed;          /**< the outcome is told: what comes now counts no more */
};

/* --- counting -------------------------------------------------------------------------------------------------------- */

static unsigned stretch_step(uint64_t ns) {
    unsigned octave = 63 - (unsigned)__builtin_clzll(ns | 8);
    return (octave - 3) * 8 + (unsigned)((ns | 8) >> (octave - 3) & 7);
}

uint64_t load_stretch_quantile(const struct load_stretch *stretch, double quantile) {
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < LOAD_SERIES_STEPS; i++)
        total += stretch->counts[i];
    for (unsigned i = 0; i < LOAD_SERIES_STEPS; i++) {
        seen += stretch->counts[i];
        if (total != 0 && (double)seen >= quantile * (double)total)
            return (uint64_t)(8 + i % 8) << (i / 8);
    }
    return 0;
}

static struct load_stretch *stretch_at(const struct load_runner *runner, uint64_t ns) {
    uint64_t number = (ns - runner->measured_ns) * LOAD_SERIES / runner->plan->duration_ns;
    return &runner->outcome->series[number < LOAD_SERIES ? number : LOAD_SERIES - 1];
}

static void count_answer(struct load_runner *runner, const struct slot *slot, uint64_t now_ns) {
    struct load_outcome *outcome = runner->outcome;
    const struct load_unit *unit = &slot->unit;
    uint64_t latency_ns = now_ns - slot->planned_ns;
    load_histogram_add(&outcome->latency[unit->phase], latency_ns, unit->count);
    struct load_stretch *stretch = stretch_at(runner, slot->planned_ns);
    stretch->counts[stretch_step(latency_ns)] += unit->count;
    stretch->answered += unit->count;
    outcome->events += unit->count;
    outcome->requests++;
    if (now_ns > outcome->end_ns)
        outcome->end_ns = now_ns;
}

static void request_done(struct tally_client *client, struct tally_request *request) {
    (void)client;
    struct slot *slot = request->context;
    struct load_runner *runner = slot->runner;
    struct load_outcome *outcome = runner->outcome;
    uint64_t now_ns = bench_now_ns();
    uint32_t without = 0;
    if (runner->closed)
        return;
    for (uint32_t i = 0; i < slot->unit.count; i++) {
        uint32_t status = slot->unit.results[i].status;
        bool refused = status == TALLY_STATUS_overloaded;
        bool silent = status == TALLY_STATUS_unknown || status == TALLY_STATUS_not_sent ||
                      status == TALLY_STATUS_refused;
        outcome->overloaded += refused;
        outcome->unanswered += silent;
        without += refused || silent;
    }
    if (without < slot->unit.count)
        runner->answered_ns = now_ns;
    if (without == 0) {
        uint32_t wrong = load_source_done(runner->source, &slot->unit);
        outcome->wrong += wrong;
        for (uint32_t i = 0; wrong != 0 && i < slot->unit.count; i++)
            if (slot->unit.results[i].status != TALLY_TRANSFER_STATUS_created)
                outcome->worst_status = slot->unit.results[i].status;
        if (slot->planned_ns >= runner->measured_ns)
            count_answer(runner, slot, now_ns);
    }
    runner->outstanding--;
    slot->next = runner->free;
    runner->free = slot;
}

/* --- leaving --------------------------------------------------------------------------------------------------------- */

static double day_of(const struct load_runner *runner, double ns) {
    double day = (ns - (double)runner->measured_ns) / (double)runner->plan->duration_ns;
    return day < 0 ? 0 : day > 0.999999 ? 0.999999 : day;
}

static int submit(struct load_runner *runner, uint64_t planned_ns) {
    struct slot *slot = runner->free;
    runner->free = slot->next;
    slot->planned_ns = planned_ns;
    load_source_next(runner->source, day_of(runner, (double)planned_ns), &slot->unit);
    slot->request = (struct tally_request){
        .operation = slot->unit.operation,
        .flags = slot->unit.flags,
        .count = slot->unit.count,
        .timeout_ms = runner->plan->patience_ms,
        .events = slot->unit.transfers,
        .results = slot->unit.results,
        .records = slot->unit.operation == TALLY_LOOKUP_ACCOUNTS ? slot->unit.records : NULL,
        .done = request_done,
        .context = slot,
    };
    if (planned_ns >= runner->measured_ns) {
        stretch_at(runner, planned_ns)->planned += slot->unit.count;
        runner->events_left -=
            runner->events_left < slot->unit.count ? runner->events_left : slot->unit.count;
    }
    runner->outstanding++;
    return tally_submit(runner->client, &slot->request);
}

/** Time to the arrival behind one at `ns`. */
static double gap_ns(struct load_runner *runner, double ns) {
    double rate = runner->plan->rate / runner->source->world->batch *
                  load_day_rate(runner->source->world, day_of(runner, ns));
    return runner->plan->arrival == LOAD_POISSON
               ? load_poisson_gap_ns(&runner->source->random, rate)
               : 1e9 / rate;
}

/** Everything that is due and has a slot. @return 0 or -errno */
static int submit_due(struct load_runner *runner, uint64_t now_ns) {
    int rc = 0;
    while (rc == 0 && runner->free != NULL && runner->events_left != 0) {
        if (runner->plan->arrival == LOAD_CLOSED) {
            if (now_ns >= runner->end_ns)
                break;
            rc = submit(runner, now_ns);
            continue;
        }
        if (runner->next_ns > (double)now_ns || runner->next_ns >= (double)runner->end_ns)
            break;
        rc = submit(runner, (uint64_t)runner->next_ns);
        runner->next_ns += gap_ns(runner, runner->next_ns);
    }
    return rc;
}

/** Nothing more will leave: the time or the number is up, or what should have left long ago cannot. */
static bool all_sent(struct load_runner *runner, uint64_t now_ns) {
    if (runner->events_left == 0)
        return true;
    if (runner->plan->arrival == LOAD_CLOSED)
        return now_ns >= runner->end_ns;
    if (runner->next_ns >= (double)runner->end_ns)
        return true;
    if (now_ns < runner->end_ns + runner->plan->patience_ms * NS_PER_MS / 4)
        return false;
    for (; runner->next_ns < (double)runner->end_ns;
         runner->next_ns += gap_ns(runner, runner->next_ns))
        runner->outcome->unsent += runner->source->world->batch;
    return true;
}

static void wait_a_little(struct load_runner *runner, uint64_t now_ns) {
    double next_ns = runner->plan->arrival == LOAD_CLOSED ? 1e300 : runner->next_ns;
    struct pollfd fd = {.fd = tally_client_fd(runner->client), .events = POLLIN};
    if (runner->plan->sleeps && fd.fd >= 0 && next_ns > (double)(now_ns + SLEEP_WORTH_NS))
        poll(&fd, 1, 1);
    else
        sched_yield();
}

static int slots_open(struct load_runner *runner) {
    uint32_t count = runner->plan->outstanding, batch = runner->source->world->batch;
    runner->slots = calloc(count, sizeof(*runner->slots));
    for (uint32_t i = 0; runner->slots != NULL && i < count; i++) {
        struct slot *slot = &runner->slots[i];
        slot->runner = runner;
        slot->unit.transfers = calloc(batch, sizeof(struct tally_transfer));
        slot->unit.results = calloc(batch, sizeof(struct tally_result));
        slot->unit.records = calloc(batch, sizeof(struct tally_account));
        if (!slot->unit.transfers || !slot->unit.results || !slot->unit.records)
            return -ENOMEM;
        slot->next = runner->free;
        runner->free = slot;
    }
    return runner->slots == NULL ? -ENOMEM : 0;
}

static void slots_close(struct load_runner *runner) {
    for (uint32_t i = 0; runner->slots != NULL && i < runner->plan->outstanding; i++) {
        free(runner->slots[i].unit.transfers);
        free(runner->slots[i].unit.results);
        free(runner->slots[i].unit.records);
    }
    free(runner->slots);
}

static void turns(struct load_runner *runner, const _Atomic bool *stop) {
    const struct load_plan *plan = runner->plan;
    struct load_outcome *outcome = runner->outcome;
    uint64_t patience_ns = plan->patience_ms * NS_PER_MS;
    while (outcome->error == 0) {
        uint64_t now_ns = bench_now_ns();
        if (*stop && runner->end_ns > now_ns)
            runner->end_ns = now_ns;
        outcome->error = submit_due(runner, now_ns);
        if (tally_client_poll(runner->client) == 0)
            wait_a_little(runner, now_ns);
        if (runner->outstanding == 0) {
            runner->answered_ns = now_ns;
            if (all_sent(runner, now_ns))
                break;
        } else {
            all_sent(runner, now_ns);
        }
        if (now_ns > runner->answered_ns + patience_ns) {
            outcome->died = true;
            break;
        }
    }
}

struct load_runner *load_run(struct tally_client *client, struct load_source *source,
                             const struct load_plan *plan, const _Atomic bool *stop,
                             struct load_outcome *outcome) {
    struct load_runner *runner = calloc(1, sizeof(*runner));
    struct tally_stats before;
    if (runner == NULL) {
        outcome->error = -ENOMEM;
        return NULL;
    }
    *runner =
        (struct load_runner){.client = client, .source = source, .plan = plan, .outcome = outcome};
    outcome->error = slots_open(runner);
    uint64_t now_ns = bench_now_ns();
    runner->measured_ns = now_ns + plan->warm_ns;
    runner->end_ns = runner->measured_ns + plan->duration_ns;
    runner->next_ns = (double)now_ns;
    runner->answered_ns = now_ns;
    runner->events_left = plan->events_max != 0 ? plan->events_max : UINT64_MAX;
    outcome->begin_ns = outcome->end_ns = runner->measured_ns;
    tally_client_stats(client, &before);
    turns(runner, stop);
    tally_client_stats(client, &outcome->stats);
    outcome->stats.datagrams_sent -= before.datagrams_sent;
    outcome->stats.retransmissions -= before.retransmissions;
    outcome->stats.sessions -= before.sessions;
    outcome->checksum = source->checksum;
    runner->closed = true;
    outcome->unanswered += (uint64_t)runner->outstanding * source->world->batch;
    return runner;
}

void load_runner_free(struct load_runner *runner) {
    if (runner == NULL)
        return;
    slots_close(runner);
    free(runner);
}

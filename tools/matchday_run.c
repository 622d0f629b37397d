/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/matchday_run.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_S 1000000000ULL
#define REQUEST_TIMEOUT_MS 30000
#define SLEEP_MS_MAX 20

struct slot {
    struct tally_request request;
    struct run_unit unit;
    struct run *run;
    struct slot *next;
    uint64_t begin_ns;
    bool again;
};

struct run {
    struct tally_client *client;
    struct slot *slots;
    struct slot *free;
    struct slot *retry; /**< completed without the server's word: to be submitted again */
    uint32_t outstanding, outstanding_max;
    uint64_t stall_ns;
    struct run_phase *phase;
    uint64_t answered_ns; /**< when the last answer came */
    int error;
};

uint64_t run_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void histogram_add(struct histogram *histogram, uint64_t ns, uint64_t count) {
    unsigned octave = 63 - (unsigned)__builtin_clzll(ns | HISTOGRAM_STEPS);
    unsigned shift = octave - 5;
    unsigned step = (unsigned)(ns >> shift) & (HISTOGRAM_STEPS - 1);
    unsigned index = ns < HISTOGRAM_STEPS ? (unsigned)ns : (octave - 4) * HISTOGRAM_STEPS + step;
    histogram->counts[index] += count;
    histogram->total += count;
}

uint64_t histogram_quantile(const struct histogram *histogram, double quantile) {
    uint64_t below = 0, wanted = (uint64_t)((double)histogram->total * quantile);
    for (unsigned i = 0; i < 64 * HISTOGRAM_STEPS; i++) {
        below += histogram->counts[i];
        if (below > wanted || (below == histogram->total && below > 0)) {
            unsigned octave = i / HISTOGRAM_STEPS, step = i % HISTOGRAM_STEPS;
            return octave == 0 ? step : (uint64_t)(HISTOGRAM_STEPS + step) << (octave - 1);
        }
    }
    return 0;
}

int run_open(struct tally_client *client, uint32_t outstanding_max, uint32_t stall_s,
             struct run **run_out) {
    struct run *run = calloc(1, sizeof(*run));
    if (run == NULL)
        return -ENOMEM;
    run->slots = calloc(outstanding_max, sizeof(*run->slots));
    if (run->slots == NULL) {
        free(run);
        return -ENOMEM;
    }
    run->client = client;
    run->outstanding_max = outstanding_max;
    run->stall_ns = stall_s * NS_PER_S;
    for (uint32_t i = 0; i < outstanding_max; i++) {
        run->slots[i].run = run;
        run->slots[i].next = run->free;
        run->free = &run->slots[i];
    }
    *run_out = run;
    return 0;
}

void run_close(struct run *run) {
    free(run->slots);
    free(run);
}

/** Only the server's answers settle an event; the client's own statuses say that there is none. */
static bool unanswered(const struct tally_result *result) {
    switch (result->status) {
    case TALLY_STATUS_unknown:
    case TALLY_STATUS_overloaded:
    case TALLY_STATUS_not_sent:
        return true;
    default:
        return false;
    }
}

static void slot_done(struct tally_client *client, struct tally_request *request) {
    (void)client;
    struct slot *slot = request->context;
    struct run *run = slot->run;
    uint64_t now_ns = run_now_ns();
    bool settled = true, resent = false;
    for (uint32_t i = 0; i < slot->unit.count; i++) {
        const struct tally_result *result = &slot->unit.results[i];
        settled = settled && !unanswered(result);
        resent = resent || (result->flags & TALLY_RESULT_RESENT);
    }
    run->outstanding--;
    if (request->code == TALLY_MALFORMED || request->code == TALLY_UNSUPPORTED_OPERATION)
        run->error = -EPROTO;
    if (!settled) {
        slot->again = true;
        slot->next = run->retry;
        run->retry = slot;
        return;
    }
    struct run_phase *phase = run->phase;
    if (now_ns - run->answered_ns > phase->gap_ns)
        phase->gap_ns = now_ns - run->answered_ns;
    run->answered_ns = now_ns;
    phase->events += slot->unit.count;
    if (slot->again || resent)
        phase->again += slot->unit.count;
    histogram_add(&phase->latency, now_ns - slot->begin_ns, slot->unit.count);
    if (!phase->done(phase->context, &slot->unit, slot->again || resent))
        phase->wrong++;
    slot->next = run->free;
    run->free = slot;
}

static int slot_submit(struct run *run, struct slot *slot) {
    slot->request = (struct tally_request){
        .operation = run->phase->operation,
        .flags = run->phase->flags,
        .count = slot->unit.count,
        .timeout_ms = REQUEST_TIMEOUT_MS,
        .events = slot->unit.events,
        .results = slot->unit.results,
        .balances = slot->unit.balances,
        .records = slot->unit.records,
        .done = slot_done,
        .context = slot,
    };
    int error = tally_submit(run->client, &slot->request);
    if (error == 0)
        run->outstanding++;
    return error;
}

/** Submit what may go now: first what has no answer yet, then new units, as the rate allows. */
static int submit_some(struct run *run, uint64_t *begun, uint64_t allowed, bool *more) {
    int error = 0;
    while (run->retry != NULL && error == 0) {
        struct slot *slot = run->retry;
        run->retry = slot->next;
        error = slot_submit(run, slot);
    }
    while (error == 0 && *more && run->free != NULL && *begun < allowed) {
        struct slot *slot = run->free;
        slot->unit = (struct run_unit){0};
        if (!run->phase->next(run->phase->context, &slot->unit)) {
            *more = false;
            break;
        }
        run->free = slot->next;
        slot->again = false;
        slot->begin_ns = run_now_ns();
        *begun += slot->unit.count;
        error = slot_submit(run, slot);
    }
    return error;
}

static void wait_for_more(struct run *run, bool paced) {
    struct pollfd poll_fd = {.fd = tally_client_fd(run->client), .events = POLLIN};
    if (poll_fd.fd >= 0)
        poll(&poll_fd, 1, paced ? 1 : SLEEP_MS_MAX);
}

int run_phase(struct run *run, struct run_phase *phase) {
    uint64_t begin_ns = run_now_ns(), begun = 0;
    int error = 0;
    run->phase = phase;
    run->answered_ns = begin_ns;
    for (;;) {
        uint64_t now_ns = run_now_ns();
        uint64_t allowed =
            phase->rate ? (now_ns - begin_ns) / 1000 * phase->rate / 1000000 + 1 : UINT64_MAX;
        bool more = true;
        error = submit_some(run, &begun, allowed, &more);
        unsigned completed = tally_client_poll(run->client);
        if (error == 0)
            error = run->error;
        if (error != 0 || (!more && run->outstanding == 0 && run->retry == NULL && completed == 0))
            break;
        if (run->outstanding > 0 && now_ns - run->answered_ns > run->stall_ns &&
            now_ns > run->answered_ns) {
            error = -ETIMEDOUT;
            break;
        }
        if (run->outstanding == 0)
            run->answered_ns = now_ns;
        if (completed == 0)
            wait_for_more(run, phase->rate != 0 && begun >= allowed);
    }
    phase->duration_ns = run_now_ns() - begin_ns;
    return error;
}

void run_report_head(void) {
    printf("%-27s %9s %10s %9s %9s %10s\n", "phase", "events", "events/s", "p50", "p99", "p99.9");
}

static const char *latency_text(uint64_t ns, char text[16]) {
    if (ns < 1000000)
        snprintf(text, 16, "%" PRIu64 " us", ns / 1000);
    else if (ns < 10000000000u)
        snprintf(text, 16, "%.1f ms", (double)ns / 1e6);
    else
        snprintf(text, 16, "%.1f s", (double)ns / 1e9);
    return text;
}

void run_report(const struct run_phase *phase) {
    char p50[16], p99[16], p999[16];
    double seconds = (double)phase->duration_ns / 1e9;
    printf("%-27s %9" PRIu64 " %10.0f %9s %9s %10s\n", phase->name, phase->events,
           seconds > 0 ? (double)phase->events / seconds : 0,
           latency_text(histogram_quantile(&phase->latency, 0.5), p50),
           latency_text(histogram_quantile(&phase->latency, 0.99), p99),
           latency_text(histogram_quantile(&phase->latency, 0.999), p999));
    if (phase->again > 0)
        printf("  %" PRIu64 " of them had to be sent again, %.1f s without an answer\n",
               phase->again, (double)phase->gap_ns / 1e9);
    if (phase->wrong > 0)
        printf("  WRONG: %" PRIu64 " answers are not what the book says\n", phase->wrong);
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_LOAD_RUN_H
#define TALLY_PERF_LOAD_RUN_H

#include "perf/load/load_histogram.h"
#include "perf/load/load_work.h"

/** One thread's load: requests leave when the plan says, whether or not earlier ones were answered, and latency counts from the moment
 *  for which a request was planned (so a server that stands still shows in every request that had to wait for it).
 *  In a closed loop a request leaves when another was answered; its latency counts from there.
 *  Flow:  load_main -> [load_run] -> tally_submit ... -> load_report
 *  Owner: the thread. Bounds: plan.outstanding requests, plan.duration_ns and plan.events_max. */

enum load_arrival { LOAD_CLOSED, LOAD_FIXED, LOAD_POISSON };

struct load_plan {
    enum load_arrival arrival;
    double
        rate; /**< events a second, of this thread, at the normal time of day; unused in a closed loop */
    uint32_t outstanding; /**< requests on their way at most */
    uint64_t warm_ns;     /**< not measured */
    uint64_t duration_ns; /**< measured, behind the former */
    uint64_t events_max;  /**< measured ones; 0: no limit */
    uint32_t patience_ms; /**< how long an answer may take, and the silence that ends the run */
    bool sleeps;          /**< wait on the descriptor; false: poll without pause, but yield */
};

#define LOAD_SERIES 200 /**< stretches of the measured time that are counted one by one */
#define LOAD_SERIES_STEPS 512

/** What happened in one stretch. Latencies by eight steps an octave. */
struct load_stretch {
    uint64_t planned, answered; /**< events */
    uint32_t counts[LOAD_SERIES_STEPS];
};

struct load_outcome {
    struct load_histogram latency[LOAD_PHASES]; /**< an entry for each event */
    struct load_stretch series[LOAD_SERIES];
    uint64_t events, requests; /**< measured and answered */
    uint64_t wrong;            /**< events with another answer than they should have */
    uint64_t unanswered;       /**< events whose outcome is unknown, or that were never sent */
    uint64_t overloaded;       /**< events refused until their time was up */
    uint64_t
        unsent; /**< events that the plan wanted and that never left: the client or the server was too slow */
    uint64_t begin_ns, end_ns; /**< of what was measured */
    uint64_t checksum;
    bool died;                /**< nobody answered any more */
    uint32_t worst_status;    /**< one that should not have been */
    struct tally_stats stats; /**< of the client over the run */
    int error;                /**< -errno, of the thread itself */
};

struct load_runner;

/** @param stop becomes true when the run shall end early (a signal). Blocks until the run is over.
 *  @param outcome zeroed
 *  @return what the requests that may still be on their way need: to be given back after the client is closed, or, where
 *          outcome->unanswered is zero, at once */
struct load_runner *load_run(struct tally_client *client, struct load_source *source,
                             const struct load_plan *plan, const _Atomic bool *stop,
                             struct load_outcome *outcome);
void load_runner_free(struct load_runner *runner);

/** A stretch's quantile, ns. */
uint64_t load_stretch_quantile(const struct load_stretch *stretch, double quantile);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_LOAD_REPORT_H
#define TALLY_PERF_LOAD_REPORT_H

#include "perf/load/load_run.h"

/** What a run amounts to, for people, for scripts and for plotters. A run in which something went wrong says so wherever it is shown. */

struct load_summary {
    const struct load_world *world;
    const struct load_plan *plan; /**< of one thread */
    unsigned threads;
    struct load_outcome all; /**< merged */
    double seconds;
    double rate;       /**< events answered a second */
    char problem[256]; /**< why the numbers are not to be trusted; "" where they are */
};

extern const char *const load_workload_names[]; /**< by enum load_workload */
extern const char *const load_arrival_names[];  /**< by enum load_arrival */

/** Merge, and judge. @param interrupted the run was ended from outside */
void load_summarize(struct load_summary *summary, const struct load_outcome *const *outcomes,
                    bool interrupted);
void load_print_head(void);
/** One line, and one more for each phase of a match day. */
void load_print(const struct load_summary *summary);
/** One JSON line. `knee` is a rate in events a second, 0: not looked for. */
void load_print_json(const struct load_summary *summary, double knee);
/** A log in the HdrHistogram format, a line a phase. @return 0 or -errno */
int load_write_log(const struct load_summary *summary, const char *path, uint64_t start_ns);
/** Comma-separated: seconds, planned and answered events a second, p50 and p99 in us, for each stretch. @return 0 or -errno */
int load_write_series(const struct load_summary *summary, const char *path);

#endif

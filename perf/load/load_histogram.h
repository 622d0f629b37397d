/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_LOAD_HISTOGRAM_H
#define TALLY_PERF_LOAD_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

/** Latencies by log-linear counters: 1,024 steps an octave, so that no value is off by more than 0.1 %.
 *  The same buckets and the same log format as HdrHistogram (hdrhistogram.org), whose plotters read what is written here.
 *  Flow:  load_run -> [load_histogram] -> load_report
 *  Owner: one thread until merged. Bounds: values up to LOAD_VALUE_MAX_NS; what is above counts as that. */

#define LOAD_VALUE_MAX_NS 3600000000000ULL /**< one hour */
#define LOAD_HALF_STEPS 1024u
#define LOAD_BUCKETS 32u
#define LOAD_COUNTS ((LOAD_BUCKETS + 1) * LOAD_HALF_STEPS)

struct load_histogram {
    uint64_t total, max_ns;
    double sum_ns;
    uint64_t counts[LOAD_COUNTS];
};

void load_histogram_add(struct load_histogram *histogram, uint64_t ns, uint64_t count);
void load_histogram_merge(struct load_histogram *into, const struct load_histogram *from);
/** @param quantile 0..1. @return the highest value that counts as the same, ns; 0 when it is empty */
uint64_t load_histogram_quantile(const struct load_histogram *histogram, double quantile);

/** Head of a log in the HdrHistogram format, version 1.3. @param start_ns Unix time */
void load_histogram_log_head(FILE *file, uint64_t start_ns);
/** One interval: a line with a tag (NULL: none), begin and length in seconds, the largest value in ms, and all counts.
 *  @return 0 or -ENOMEM */
int load_histogram_log(FILE *file, const struct load_histogram *histogram, const char *tag,
                       double begin_s, double length_s);

#endif

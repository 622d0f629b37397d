/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_BENCH_H
#define TALLY_PERF_BENCH_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/** What every benchmark needs. */

static inline uint64_t bench_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/** xorshift64*: cheap enough to stand inside a measured loop. `state` is never zero. */
static inline uint64_t bench_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

/** A number below `bound`, from the high bits. */
static inline uint64_t bench_below(uint64_t *state, uint64_t bound) {
    return (uint64_t)(((unsigned __int128)bench_random(state) * bound) >> 64);
}

/** The JSON line of a result: bench_json_start, then fields of the benchmark's own (",\"name\":value"), then bench_json_end. */
static inline void bench_json_start(const char *benchmark, double figure, double roofline,
                                    const char *unit) {
    printf("{\"benchmark\":\"%s\",\"figure\":%.0f,\"roofline\":%.0f,\"ratio\":%.3f,\"unit\":\"%s\"",
           benchmark, figure, roofline, figure / roofline, unit);
}

static inline void bench_json_end(uint64_t checksum, uint64_t errors) {
    const char *machine = getenv("TALLY_PERF_MACHINE"), *commit = getenv("TALLY_PERF_COMMIT");
    printf(",\"machine\":\"%s\",\"commit\":\"%s\",\"checksum\":\"%016" PRIx64
           "\",\"errors\":%" PRIu64 "}\n",
           machine ? machine : "unknown", commit ? commit : "unknown", checksum, errors);
}

#endif

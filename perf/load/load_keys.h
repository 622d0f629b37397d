/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_LOAD_KEYS_H
#define TALLY_PERF_LOAD_KEYS_H

#include <stdint.h>

/** Which account comes next: all alike, or a few far more often than the others (Zipf). And when: arrivals.
 *  Owner: one thread. Everything follows from `random`. */

struct load_keys {
    uint64_t count;
    double exponent; /**< 0: uniform; else the probability of rank k is as k^-exponent */
    double integral_first, integral_last, shortcut; /**< of the rejection-inversion sampler */
};

/** @param exponent 0..5 */
void load_keys_init(struct load_keys *keys, uint64_t count, double exponent);
/** @return 0 .. count-1; the popular ones are spread over the whole range */
uint64_t load_key(const struct load_keys *keys, uint64_t *random);

/** Time to the next of arrivals that come at random (Poisson) at this rate. @return ns */
double load_poisson_gap_ns(uint64_t *random, double per_second);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "perf/load/load_keys.h"

#include <math.h>

#include "perf/bench.h"

/* Zipf by rejection-inversion (W. Hoermann, G. Derflinger: Rejection-inversion to generate variates from monotone discrete
 * distributions, 1996): no tables, about one try a number. h(x) = x^-exponent, H its integral. */

static double h_integral(double x, double exponent) {
    double log_x = log(x), t = (1 - exponent) * log_x;
    /* (x^(1-e) - 1) / (1-e), also where e is near 1 */
    return fabs(t) > 1e-8 ? expm1(t) / t * log_x : log_x * (1 + t / 2);
}

static double h_integral_inverse(double x, double exponent) {
    double t = x * (1 - exponent);
    if (t < -1)
        t = -1;
    return exp(fabs(t) > 1e-8 ? log1p(t) / t * x : x * (1 - t / 2));
}

static double uniform(uint64_t *random) {
    return (double)(bench_random(random) >> 11) * 0x1p-53;
}

void load_keys_init(struct load_keys *keys, uint64_t count, double exponent) {
    *keys = (struct load_keys){.count = count, .exponent = exponent};
    if (exponent == 0)
        return;
    keys->integral_first = h_integral(1.5, exponent) - 1;
    keys->integral_last = h_integral((double)count + 0.5, exponent);
    keys->shortcut =
        2 - h_integral_inverse(h_integral(2.5, exponent) - pow(2, -exponent), exponent);
}

static uint64_t zipf_rank(const struct load_keys *keys, uint64_t *random) {
    for (;;) {
        double u =
            keys->integral_last + uniform(random) * (keys->integral_first - keys->integral_last);
        double x = h_integral_inverse(u, keys->exponent);
        double rank = floor(x + 0.5);
        if (rank < 1)
            rank = 1;
        if (rank > (double)keys->count)
            rank = (double)keys->count;
        if (rank - x <= keys->shortcut ||
            u >= h_integral(rank + 0.5, keys->exponent) - pow(rank, -keys->exponent))
            return (uint64_t)rank - 1;
    }
}

uint64_t load_key(const struct load_keys *keys, uint64_t *random) {
    if (keys->exponent == 0)
        return bench_below(random, keys->count);
    /* a prime times the rank: no two ranks meet, and popular accounts are not neighbours */
    return zipf_rank(keys, random) * 2654435761u % keys->count;
}

double load_poisson_gap_ns(uint64_t *random, double per_second) {
    return -log(1 - uniform(random)) * 1e9 / per_second;
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_CELL_CLOCK_H
#define TALLY_ENGINE_CELL_CLOCK_H

#include "engine/base/planted.h"
#include "engine/base/types.h"

/** Cell time out of a monotonic clock and the time of day: it never falls, and after a step of the time of day it gains or loses at
 *  most 500 ppm until both agree again (design section 14). Pure: the clocks' readings come in. */
struct cell_clock {
    uint64_t cell_ns;
    uint64_t monotonic_ns;
    uint64_t remainder; /**< of the slew, in millionths of a nanosecond */
};

#define CELL_CLOCK_SLEW_PPM 500u
/** How far the time of day may be ahead of the log at start before somebody has to say that this is right. */
#define CELL_CLOCK_AHEAD_MAX_NS (3600u * NS_PER_SECOND)

/** @param log_ns cell time of the last group; 0 for an empty log
 *  @return false when the time of day is more than an hour ahead of the log (nothing is changed then) unless `accept` */
static inline bool cell_clock_start(struct cell_clock *clock, uint64_t monotonic_ns,
                                    uint64_t realtime_ns, uint64_t log_ns, bool accept) {
    if (log_ns && realtime_ns > log_ns && realtime_ns - log_ns > CELL_CLOCK_AHEAD_MAX_NS && !accept)
        return false;
    clock->cell_ns =
        realtime_ns > log_ns || PLANTED(cell_time_falls_at_start) ? realtime_ns : log_ns;
    clock->monotonic_ns = monotonic_ns;
    clock->remainder = 0;
    return true;
}

/** @return cell time now, ns */
static inline uint64_t cell_clock_now(struct cell_clock *clock, uint64_t monotonic_ns,
                                      uint64_t realtime_ns) {
    if (monotonic_ns <= clock->monotonic_ns)
        return clock->cell_ns;
    uint64_t passed = monotonic_ns - clock->monotonic_ns;
    clock->monotonic_ns = monotonic_ns;
    uint64_t target = clock->cell_ns + passed;
    clock->remainder += passed * CELL_CLOCK_SLEW_PPM;
    uint64_t slew = clock->remainder / 1000000;
    clock->remainder %= 1000000;
    if (realtime_ns > target)
        target += realtime_ns - target < slew ? realtime_ns - target : slew;
    else
        target -= target - realtime_ns < slew ? target - realtime_ns : slew;
    clock->cell_ns = target;
    return target;
}

#endif

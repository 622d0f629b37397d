/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_MATCHDAY_RUN_H
#define TALLY_TOOLS_MATCHDAY_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/client/tally.h"

/** Keeps many small requests on their way to the ledger, measures them, and sends again what has no
 *  answer, for as long as it takes.
 *  Flow:  phase.next -> [run_phase] -> libtally ... tallyd -> phase.done
 *  Owner: the one thread. Bounds: outstanding_max requests, stall_s without any answer. */

/** Latencies in ns: 64 octaves of 32 steps, so a quantile is exact to 3 %. */
#define HISTOGRAM_STEPS 32
struct histogram {
    uint64_t counts[64 * HISTOGRAM_STEPS];
    uint64_t total;
};

void histogram_add(struct histogram *histogram, uint64_t ns, uint64_t count);
/** @return the value that `quantile` (0..1) of the entries do not exceed; 0 when it is empty */
uint64_t histogram_quantile(const struct histogram *histogram, double quantile);

/** What one request carries: arrays of `count` that stay readable until it is done. */
struct run_unit {
    const void *events;
    struct tally_result *results;
    struct tally_balances *balances;
    void *records;
    uint32_t count;
    uint64_t tag; /**< the phase's */
};

/** A kind of work: where units come from and where their answers go. */
struct run_phase {
    const char *name;
    uint32_t operation; /**< enum tally_operation */
    uint32_t flags;     /**< enum tally_request_flag */
    uint64_t rate;      /**< events a second that are begun at most; 0: as fast as answers come */
    void *context;
    /** @return whether there is a unit now; false with nothing on its way ends the phase */
    bool (*next)(void *context, struct run_unit *unit);
    /** Every result is the server's. @param again it was sent under more than one request or
     * session
     *  @return whether it is what it should be */
    bool (*done)(void *context, const struct run_unit *unit, bool again);
    /* answers */
    uint64_t events, again,
        wrong; /**< events answered; of those sent again; units that were wrong */
    uint64_t duration_ns;
    uint64_t gap_ns; /**< longest time without an answer */
    struct histogram latency;
};

struct run;

/** @return 0 or -ENOMEM */
int run_open(struct tally_client *client, uint32_t outstanding_max, uint32_t stall_s,
             struct run **run);
void run_close(struct run *run);

/** Run a phase to its end.
 *  @return 0, -ETIMEDOUT (no answer for stall_s), -EPROTO (refused as a whole), -EINVAL or
 * -EMSGSIZE (tally_submit) */
int run_phase(struct run *run, struct run_phase *phase);

/** The phases as a table, one row each, within 80 columns. */
void run_report_head(void);
void run_report(const struct run_phase *phase);

uint64_t run_now_ns(void);

#endif

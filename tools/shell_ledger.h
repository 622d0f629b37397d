/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_SHELL_LEDGER_H
#define TALLY_TOOLS_SHELL_LEDGER_H

#include "engine/engine.h"

/** One engine lcore and its WAL, turned by hand in one thread: the same step functions as in
 * tallyd, without packets. Flow:  shell_request -> [shell_ledger_run] -> engine_execute,
 * engine_seal, wal_step ... until its group is committed Owner: the shell. Bounds: memory_bytes.
 * Keeps: INV-5.
 *
 *  Time: the clock is set by hand and never goes back. Cell time is the later of the clock and the
 * last timestamp. What is due is expired before and after each request, and the horizon follows
 * cell time before each request, so that the same input always gives the same output. */

struct shell_ledger;

struct shell_ledger_config {
    unsigned partitions; /**< 0: the default, or what the directory says */
    unsigned lcores;     /**< engine lcores, turned one after the other; 0: one */
    int id_time;         /**< 1 or 0; -1: on, or what the directory says */
    size_t memory_bytes; /**< of the engine */
    const char
        *wal_directory; /**< formatted when empty, recovered when not; NULL: a log in memory */
};

/** @param error one line; filled when the answer is not 0. @return 0 or -errno */
int shell_ledger_open(const struct shell_ledger_config *config, struct shell_ledger **ledger,
                      char *error, size_t error_bytes);
/** Make everything durable, and free it. @return 0 or -EIO */
int shell_ledger_close(struct shell_ledger *ledger);

/** Set the clock, if that is not back in time. */
void shell_ledger_clock(struct shell_ledger *ledger, uint64_t now_ns);
uint64_t shell_ledger_cell_time(const struct shell_ledger *ledger);

/** Expire what is due and let the horizon follow the clock. @return 0 or -EIO (see
 * shell_ledger_error) */
int shell_ledger_settle(struct shell_ledger *ledger);
/** Execute a request, settled before and after; returns when its group is committed. @return 0 or
 * -EIO */
int shell_ledger_run(struct shell_ledger *ledger, struct engine_request *request);
/** Tests only. @return 0 or -ENOENT */
int shell_ledger_put_balances(struct shell_ledger *ledger, uint128_t id,
                              const struct balances *balances);

const char *shell_ledger_error(const struct shell_ledger *ledger);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_SHELL_REQUEST_H
#define TALLY_TOOLS_SHELL_REQUEST_H

#include "engine/engine.h"
#include "tools/shell_json.h"
#include "tools/shell_record.h"

/** One line of input as a request for the engine or for the shell itself.
 *  Flow:  shell_json -> [shell_request_read] -> shell_ledger -> [shell_request_answer] ->
 * shell_output Owner: the shell. Bounds: REQUEST_EVENTS_MAX events, allocated once. */

/** The clock stays this far below the last timestamp that there is, so that events never run out of
 * timestamps. */
#define SHELL_CLOCK_MAX_NS (TIMESTAMP_MAX - ((uint64_t)1 << 40))

/** Beside enum operation: what the shell does by itself. */
enum shell_operation {
    SHELL_ADVANCE = 100,
    SHELL_PUT_BALANCES = 101,
};

struct shell_request {
    struct engine_request request; /**< its arrays are allocated once and reused */
    struct balances
        *balances_all;  /**< REQUEST_EVENTS_MAX; in `request` only where they are wanted */
    unsigned operation; /**< enum operation or enum shell_operation */
    bool has_now;
    uint64_t now_ns;
    uint64_t advance_ns;      /**< SHELL_ADVANCE */
    uint128_t account_id;     /**< SHELL_PUT_BALANCES */
    struct balances balances; /**< SHELL_PUT_BALANCES */
    char error[SHELL_ERROR_BYTES];
};

/** @return 0 or -ENOMEM */
int shell_request_open(struct shell_request *request);
void shell_request_close(struct shell_request *request);

/** Understand a parsed line. Changes nothing but `request`.
 *  @param test whether put_balances is allowed
 *  @return 0, or -EINVAL with `request->error` naming the field and what would be right */
int shell_request_read(struct shell_request *request, const struct shell_json *json, bool test);

/** Put the answer to a finished create or lookup request together. */
void shell_request_answer(const struct shell_request *request, struct shell_output *output);

#endif

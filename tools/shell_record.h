/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_SHELL_RECORD_H
#define TALLY_TOOLS_SHELL_RECORD_H

#include "engine/base/types.h"
#include "tools/shell_json.h"
#include "tools/shell_output.h"

/** Accounts and transfers as JSON objects, both ways.
 *  Flow:  shell_json -> [shell_record_read] -> engine_request -> [shell_record_write] ->
 * shell_output Fields are named as in the data model; what is absent is zero. Bounds: none; nothing
 * is kept. */

struct shell_record_kind;
extern const struct shell_record_kind shell_account, shell_transfer, shell_balances;

#define SHELL_ERROR_BYTES 256

/** Fill a record from an object.
 *  @param path where the object stands in the request, such as "events[3]."; goes into the error
 *  @param error SHELL_ERROR_BYTES; names the field and what would be right
 *  @return 0 or -EINVAL */
int shell_record_read(const struct shell_record_kind *kind, const struct shell_json *json,
                      const struct shell_json_token *object, const char *path, void *record,
                      char *error);

/** Read one unsigned integer of `bytes` bytes; the same errors. */
int shell_integer_read(const struct shell_json *json, const struct shell_json_token *token,
                       const char *path, const char *name, uint128_t maximum, uint128_t *value,
                       char *error);

/** How many bytes of a name that somebody sent to repeat in an error: whole characters, at most
 * SHELL_NAME_BYTES_MAX. */
#define SHELL_NAME_BYTES_MAX 64
int shell_name_length(const struct shell_json *json, const struct shell_json_token *name);

/** Write all fields as an object. */
void shell_record_write(const struct shell_record_kind *kind, const void *record,
                        struct shell_output *output);

#endif

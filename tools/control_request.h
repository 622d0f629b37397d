/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_CONTROL_REQUEST_H
#define TALLY_TOOLS_CONTROL_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What may be asked of a running tallyd through DIRECTORY/control: one word a line, answered by one JSON object a line.
 *  Flow:  bytes of a socket -> [control_input] -> line -> [control_request_parse] -> control
 *  Pure: no socket, no clock, no allocation. Bounds: CONTROL_LINE_BYTES_MAX. */

#define CONTROL_LINE_BYTES_MAX 128 /**< with its line feed */

enum control_verb {
    CONTROL_STATUS,     /**< "status": how far everything is */
    CONTROL_CHECKPOINT, /**< "checkpoint": take one; answers with its ticket */
    CONTROL_HOLD, /**< "hold": remove no log file and no checkpoint, until "release" or the connection's end */
    CONTROL_RELEASE, /**< "release" */
};

struct control_request {
    enum control_verb verb;
};

/** Bytes that arrived and are no whole line yet. Starts as all zero. */
struct control_input {
    size_t length;
    char bytes[CONTROL_LINE_BYTES_MAX];
};

/** Take bytes up to the end of a line, without waiting for it.
 *  @param used set to how many of them were taken
 *  @return 1: a line is there (length and bytes, without its line feed; set length to 0 when done with it), 0: more is needed,
 *          -EMSGSIZE: it is longer than a line may be */
int control_input_take(struct control_input *input, const void *bytes, size_t length, size_t *used);

/** Understand a line, which may hold anything.
 *  @param error what is wrong: printable, without quotes and backslashes
 *  @return 0 or -EINVAL */
int control_request_parse(const char *line, size_t length, struct control_request *request,
                          char *error, size_t error_bytes);

/** The word of a verb. */
const char *control_verb_name(enum control_verb verb);

#endif

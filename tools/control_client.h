/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_CONTROL_CLIENT_H
#define TALLY_TOOLS_CONTROL_CLIENT_H

#include <stdint.h>

#include <json-c/json_object.h>

#include "tools/control_request.h"

/** The other end of DIRECTORY/control.
 *  Flow:  tally checkpoint, tally backup -> [control_client] -> socket -> control -> tallyd
 *  Bounds: an answer of 4 KiB, and the time-out for each. Blocks. */

struct control_client;

enum control_found {
    CONTROL_SERVED,
    CONTROL_NOBODY,  /**< no tallyd runs on the directory; nothing has been said */
    CONTROL_REFUSED, /**< said why */
};

enum control_found control_client_open(const char *directory, uint64_t timeout_ms,
                                       struct control_client **client);
/** Ask, and wait for the answer. @return the answer, the caller's to put; NULL: said what is wrong */
struct json_object *control_client_ask(struct control_client *client, enum control_verb verb);
/** What is held goes with the connection. */
void control_client_close(struct control_client *client);

/** A number of an answer, which stands there as digits or as a number; 0 where it is not there. */
uint64_t control_number(struct json_object *answer, const char *name);
int control_error(struct json_object *answer, const char *name);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLY_CHECKPOINT_H
#define TALLY_TOOLS_TALLY_CHECKPOINT_H

#include <json-c/json_object.h>

#include "engine/base/types.h"
#include "tools/control_client.h"

/** Let the tallyd of a directory take a checkpoint, and wait until it is published, with progress.
 *  @param seq    set to the newest published one
 *  @param bytes  set to what was written for it
 *  @param status set to tallyd's status then, the caller's to put
 *  @return CLI_DONE, or said why not: CLI_REFUSED (given up, or none are taken), CLI_UNKNOWN (no answer) */
int checkpoint_take(const char *directory, struct control_client *client, seq_t *seq,
                    uint64_t *bytes, struct json_object **status);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_SHELL_OUTPUT_H
#define TALLY_TOOLS_SHELL_OUTPUT_H

#include "engine/base/types.h"

/** One answer line while it is being put together; grows, and is reused from line to line.
 *  Owner: the shell. A failed allocation is remembered and told by shell_output_flush. */
struct shell_output {
    char *text;
    size_t length, capacity;
    bool failed;
};

void shell_output_text(struct shell_output *output, const char *text);
/** A JSON string: quoted and escaped. */
void shell_output_string(struct shell_output *output, const char *text);
/** In decimal, without quotes. */
void shell_output_integer(struct shell_output *output, uint128_t value);
/** In decimal, quoted, as all 64-bit and 128-bit integers are answered. */
void shell_output_quoted(struct shell_output *output, uint128_t value);

/** Write the line and its line feed to a descriptor, and empty the buffer. @return 0 or -errno */
int shell_output_flush(struct shell_output *output, int descriptor);
void shell_output_free(struct shell_output *output);

#endif

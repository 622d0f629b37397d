/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLY_PROGRESS_H
#define TALLY_TOOLS_TALLY_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/** How far a long command is: a bar on standard error where that is a terminal, silence where it is not. */

struct progress {
    const char *what; /**< "checkpoint", "log" */
    bool shown, terminal;
    uint64_t begun_ns, printed_ns;
};

void progress_begin(struct progress *progress, const char *what);
/** Ten times a second at most. @param total_bytes 0: not known */
void progress_show(struct progress *progress, uint64_t done_bytes, uint64_t total_bytes);
/** The bar goes. */
void progress_end(struct progress *progress);

#endif

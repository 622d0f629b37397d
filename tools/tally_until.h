/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLY_UNTIL_H
#define TALLY_TOOLS_TALLY_UNTIL_H

#include "engine/base/types.h"

/** A point in a ledger's past, as people write it: the number of a group, or a time.
 *
 *      4711                              group 4711
 *      @1732112345  1732112345.25        Unix seconds; with a fraction the @ may be left out
 *      2026-11-20T16:43:00Z              ISO 8601; also with a fraction, with +01:00, with a blank for the T, without seconds, and as a
 *                                        date alone; without a zone it is UTC
 */
struct until {
    seq_t seq;   /**< 0: it is a time */
    uint64_t ns; /**< Unix time; 0: it is a group */
};

/** @param error filled where it is neither: one line. @return 0 or -EINVAL */
int until_parse(const char *text, struct until *until, char *error, size_t error_bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLYD_RUN_H
#define TALLY_TOOLS_TALLYD_RUN_H

#include "tools/tallyd_options.h"

/** tallyd run: lock the directory, recover, bind the port, serve until SIGTERM or SIGINT.
 *  @return the exit status */
int tallyd_run(const struct tallyd_options *options);

#endif

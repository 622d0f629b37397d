/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLYD_EAL_H
#define TALLY_TOOLS_TALLYD_EAL_H

#include "tools/tallyd_options.h"

/** Start DPDK with what stands behind "--". What is wrong with it is said in one line of tallyd's own.
 *  @return 0, or the exit status */
int tallyd_eal_start(const struct tallyd_options *options);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_MATCHDAY_BANK_H
#define TALLY_TOOLS_MATCHDAY_BANK_H

#include <stdint.h>

#include "tools/matchday_run.h"

struct bank;

/** Replay a year of a real bank's transactions and compare every running balance.
 *  File: CSV with the columns seq, date, account, kind, amount, rounding, balance; amounts in
 *  hundredths, positive ones credit the customer.
 *  @param run_id high half of the account ids
 *  @param bank   set in any case, to be freed once the client is closed
 *  @return 0 when all rows were equal, 1 when one was not, -errno (a line on stderr says what) */
int bank_replay(struct tally_client *client, struct run *run, const char *path, uint64_t run_id,
                struct bank **bank);
void bank_free(struct bank *bank);

#endif

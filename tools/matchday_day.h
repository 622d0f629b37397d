/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_MATCHDAY_DAY_H
#define TALLY_TOOLS_MATCHDAY_DAY_H

#include "tools/matchday_book.h"
#include "tools/matchday_run.h"

/** A match day: what is sent, in which order, and the proof from outside that the ledger did it, exactly.
 *  Flow:  plan (into the book) -> run_phase -> ledger -> book_acknowledge ... lookups -> compared with the book
 *  Owner: the one thread. Bounds: memory for `wallets`, taken by day_open. */

struct day {
    uint32_t wallets; /**< how many */
    uint64_t rate;    /**< events a second of all but the settlement; 0: no pace */
    struct tally_client *client;
    struct run *run;
    struct book book;
    uint64_t random;
    uint64_t run_id;
    /* the phase at work: a range of the book, and answers of lookups */
    uint32_t next, end, batch;
    tally_uint128_t *ids;
    struct tally_account *accounts;
    struct tally_transfer *transfers;
    struct tally_result *results;
    uint32_t bets_first, bets_end; /* in the book: pending transfers, and at kick-off their fees */
    uint32_t sampled, absent;
    unsigned shown; /**< wrong answers that were printed */
};

/** client, run, run_id, random, wallets and rate are set.
 *  @return 0 or -ENOMEM */
int day_open(struct day *day);
/** Once the client is closed, for it writes into the book's arrays. */
void day_close(struct day *day);

/** Play all phases, and print a row for each. @return whether every answer was right */
bool day_play(struct day *day);
/** Look everything up and send some of it again. @return whether the ledger holds what the book
 * says, and no more */
bool day_prove(struct day *day);

#endif

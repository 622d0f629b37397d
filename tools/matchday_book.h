/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_MATCHDAY_BOOK_H
#define TALLY_TOOLS_MATCHDAY_BOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "net/client/tally.h"

/** The client's own book of a match day: every transfer that it ever sends, what should become of
 * it, what the ledger answered, and the balances that follow. It is kept apart from the ledger, to
 * be compared with it. Bounds: the counts given to book_open. */

/** Accounts that the house owns; wallets follow. */
enum book_house {
    BOOK_BANK,    /**< the world outside: deposits come from here */
    BOOK_STAKES,  /**< where held and lost stakes go */
    BOOK_PAYOUTS, /**< what winners get */
    BOOK_FEES,
    BOOK_HOUSE_COUNT,
};

enum book_expectation {
    EXPECT_CREATED,
    EXPECT_OVERDRAFT,    /**< exceeds_credits, and so absent for ever */
    EXPECT_CHAIN_FAILED, /**< rolled back with the next member of its chain */
};

struct book {
    tally_uint128_t run; /**< high half of all account ids: another one for each run */
    uint32_t account_count, transfer_max, transfer_count;
    struct tally_account *accounts;  /**< as sent */
    struct tally_balances *balances; /**< as they should be */
    struct tally_result *account_results;
    struct tally_transfer *transfers; /**< as sent; a linked chain stands together */
    uint8_t *expectations;            /**< enum book_expectation */
    struct tally_result *results;     /**< the ledger's answers */
    uint32_t created, refused;        /**< transfers acknowledged, and refused as expected */
};

/** @return 0 or -ENOMEM */
int book_open(struct book *book, uint64_t run, uint32_t wallet_count, uint32_t transfer_max);
void book_close(struct book *book);

uint32_t book_wallet(uint32_t wallet); /**< index of a wallet's account */

/** Write down a transfer that is about to be sent. The id is made by `client`.
 *  @return its index, asserted to be below transfer_max */
uint32_t book_add(struct book *book, struct tally_client *client, uint32_t debit, uint32_t credit,
                  uint64_t amount, uint16_t code, uint16_t flags);
/** The second half of a pending transfer: post (of all of it) or void. */
uint32_t book_resolve(struct book *book, struct tally_client *client, uint32_t pending,
                      uint16_t flags);
/** Events of the linked chain that begins at `index`. */
uint32_t book_chain_length(const struct book *book, uint32_t index);

/** Take the ledger's answers to a chain into account. @param again it was sent more than once, so
 * `exists` and `id_already_failed` may stand for the first answer. @return whether they are as
 * expected */
bool book_acknowledge(struct book *book, uint32_t index, uint32_t count, bool again);

/** Compare an account of the ledger with the book. */
bool book_account_equal(const struct book *book, uint32_t index,
                        const struct tally_account *account);
/** Compare a transfer of the ledger with what was sent and acknowledged. */
bool book_transfer_equal(const struct book *book, uint32_t index,
                         const struct tally_transfer *transfer);

#endif

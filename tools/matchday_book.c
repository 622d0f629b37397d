/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/matchday_book.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LEDGER 978 /* euro cents */
#define CODE_HOUSE 1
#define CODE_WALLET 2

int book_open(struct book *book, uint64_t run, uint32_t wallet_count, uint32_t transfer_max) {
    *book = (struct book){
        .run = (tally_uint128_t)run << 64,
        .account_count = BOOK_HOUSE_COUNT + wallet_count,
        .transfer_max = transfer_max,
    };
    book->accounts = calloc(book->account_count, sizeof(*book->accounts));
    book->balances = calloc(book->account_count, sizeof(*book->balances));
    book->account_results = calloc(book->account_count, sizeof(*book->account_results));
    book->transfers = calloc(transfer_max, sizeof(*book->transfers));
    book->expectations = calloc(transfer_max, sizeof(*book->expectations));
    book->results = calloc(transfer_max, sizeof(*book->results));
    if (!book->accounts || !book->balances || !book->account_results || !book->transfers ||
        !book->expectations || !book->results) {
        book_close(book);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < book->account_count; i++) {
        bool house = i < BOOK_HOUSE_COUNT;
        book->accounts[i] = (struct tally_account){
            .id = book->run | (i + 1),
            .ledger = LEDGER,
            .code = house ? CODE_HOUSE : CODE_WALLET,
            .flags = house ? 0 : TALLY_ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS,
        };
    }
    return 0;
}

void book_close(struct book *book) {
    free(book->accounts);
    free(book->balances);
    free(book->account_results);
    free(book->transfers);
    free(book->expectations);
    free(book->results);
    *book = (struct book){0};
}

uint32_t book_wallet(uint32_t wallet) {
    return BOOK_HOUSE_COUNT + wallet;
}

uint32_t book_add(struct book *book, struct tally_client *client, uint32_t debit, uint32_t credit,
                  uint64_t amount, uint16_t code, uint16_t flags) {
    assert(book->transfer_count < book->transfer_max);
    tally_uint128_t home = book->accounts[debit].id;
    book->transfers[book->transfer_count] = (struct tally_transfer){
        .id = tally_id(client, home),
        .debit_account_id = home,
        .credit_account_id = book->accounts[credit].id,
        .amount = amount,
        .ledger = LEDGER,
        .code = code,
        .flags = flags,
    };
    return book->transfer_count++;
}

uint32_t book_resolve(struct book *book, struct tally_client *client, uint32_t pending,
                      uint16_t flags) {
    assert(book->transfer_count < book->transfer_max);
    const struct tally_transfer *held = &book->transfers[pending];
    book->transfers[book->transfer_count] = (struct tally_transfer){
        .id = tally_id(client, held->debit_account_id),
        .amount = flags & TALLY_TRANSFER_POST_PENDING ? TALLY_AMOUNT_MAX : 0,
        .pending_id = held->id,
        .flags = flags,
    };
    return book->transfer_count++;
}

uint32_t book_chain_length(const struct book *book, uint32_t index) {
    uint32_t length = 1;
    while (book->transfers[index + length - 1].flags & TALLY_TRANSFER_LINKED)
        length++;
    return length;
}

static uint32_t account_index(tally_uint128_t id) {
    return (uint32_t)id - 1;
}

/** The pending transfer that a post or void of this book resolves. */
static const struct tally_transfer *pending_of(const struct book *book,
                                               const struct tally_transfer *transfer) {
    uint32_t low = 0, high = book->transfer_count; /* ids grow */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (book->transfers[middle].id <= transfer->pending_id)
            low = middle;
        else
            high = middle;
    }
    assert(book->transfers[low].id == transfer->pending_id);
    return &book->transfers[low];
}

static void apply(struct book *book, const struct tally_transfer *transfer) {
    bool post = transfer->flags & TALLY_TRANSFER_POST_PENDING;
    bool resolve = post || (transfer->flags & TALLY_TRANSFER_VOID_PENDING);
    const struct tally_transfer *money = resolve ? pending_of(book, transfer) : transfer;
    struct tally_balances *debit = &book->balances[account_index(money->debit_account_id)];
    struct tally_balances *credit = &book->balances[account_index(money->credit_account_id)];
    if (transfer->flags & TALLY_TRANSFER_PENDING) {
        debit->debits_pending += money->amount;
        credit->credits_pending += money->amount;
        return;
    }
    if (resolve) {
        debit->debits_pending -= money->amount;
        credit->credits_pending -= money->amount;
    }
    if (post || !resolve) {
        debit->debits_posted += money->amount;
        credit->credits_posted += money->amount;
    }
}

/** A chain that is sent again after it took effect answers `exists` for its first member. For the others the ledger answers
 *  `linked_event_failed`, which leaves their timestamps unknown; libtally, where it sent them again itself, `exists`. */
static bool chain_exists(const struct book *book, uint32_t index, uint32_t count) {
    if (book->results[index].status != TALLY_TRANSFER_STATUS_exists)
        return false;
    for (uint32_t i = index + 1; i < index + count; i++) {
        uint32_t status = book->results[i].status;
        if (status != TALLY_TRANSFER_STATUS_linked_event_failed &&
            status != TALLY_TRANSFER_STATUS_exists)
            return false;
    }
    return true;
}

static bool as_expected(const struct book *book, uint32_t index, bool again) {
    uint32_t status = book->results[index].status;
    switch ((enum book_expectation)book->expectations[index]) {
    case EXPECT_CREATED:
        return status == TALLY_TRANSFER_STATUS_created;
    case EXPECT_OVERDRAFT:
        return status == TALLY_TRANSFER_STATUS_exceeds_credits ||
               (again && status == TALLY_TRANSFER_STATUS_id_already_failed);
    case EXPECT_CHAIN_FAILED:
        return status == TALLY_TRANSFER_STATUS_linked_event_failed;
    }
    return false;
}

bool book_acknowledge(struct book *book, uint32_t index, uint32_t count, bool again) {
    bool exists =
        again && book->expectations[index] == EXPECT_CREATED && chain_exists(book, index, count);
    bool good = true;
    for (uint32_t i = index; i < index + count; i++) {
        if (!exists && !as_expected(book, i, again)) {
            good = false;
        } else if (book->expectations[i] == EXPECT_CREATED) {
            if (book->results[i].status == TALLY_TRANSFER_STATUS_linked_event_failed)
                book->results[i].timestamp = 0;
            apply(book, &book->transfers[i]);
            book->created++;
        } else {
            book->refused++;
        }
    }
    return good;
}

bool book_account_equal(const struct book *book, uint32_t index,
                        const struct tally_account *account) {
    const struct tally_balances *balances = &book->balances[index];
    return account->id == book->accounts[index].id &&
           account->debits_pending == balances->debits_pending &&
           account->debits_posted == balances->debits_posted &&
           account->credits_pending == balances->credits_pending &&
           account->credits_posted == balances->credits_posted &&
           account->ledger == book->accounts[index].ledger &&
           account->code == book->accounts[index].code &&
           account->flags == book->accounts[index].flags;
}

bool book_transfer_equal(const struct book *book, uint32_t index,
                         const struct tally_transfer *transfer) {
    struct tally_transfer want = book->transfers[index];
    want.timestamp =
        book->results[index].timestamp ? book->results[index].timestamp : transfer->timestamp;
    if (want.pending_id !=
        0) { /* a post or void shows what it took over from its pending transfer */
        const struct tally_transfer *money = pending_of(book, &want);
        want.debit_account_id = money->debit_account_id;
        want.credit_account_id = money->credit_account_id;
        want.amount = money->amount;
        want.ledger = money->ledger;
        want.code = money->code;
    }
    return transfer->timestamp != 0 && memcmp(&want, transfer, sizeof(want)) == 0;
}

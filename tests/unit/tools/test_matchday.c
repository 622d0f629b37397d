/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/test.h"

#include "tools/matchday_book.h"
#include "tools/matchday_run.h"

static void quantiles_are_within_three_percent(void) {
    static const uint64_t values[] = {0,    1,     31,     32,       33,        63,         64,
                                      1000, 12345, 999999, 50000000, 123456789, 9876543210u};
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        static struct histogram histogram;
        memset(&histogram, 0, sizeof(histogram));
        histogram_add(&histogram, values[i], 1);
        uint64_t got = histogram_quantile(&histogram, 0.5);
        CHECK(got <= values[i]);
        CHECK(values[i] - got <= values[i] / 32);
        CHECK_EQ(histogram_quantile(&histogram, 1.0), got);
    }
}

static void quantiles_are_ordered(void) {
    static struct histogram histogram;
    memset(&histogram, 0, sizeof(histogram));
    CHECK_EQ(histogram_quantile(&histogram, 0.5), 0);
    for (uint64_t value = 1; value <= 1000; value++)
        histogram_add(&histogram, value * 1000, 1);
    histogram_add(&histogram, 5000000, 1);
    CHECK_EQ(histogram.total, 1001);
    uint64_t p50 = histogram_quantile(&histogram, 0.5);
    uint64_t p99 = histogram_quantile(&histogram, 0.99);
    CHECK(p50 > 480000 && p50 <= 501000);
    CHECK(p99 > 960000 && p99 <= 991000);
    CHECK(histogram_quantile(&histogram, 1.0) > 4800000);
}

/** Two wallets, and transfers written straight into the book, for ids come from a live client. */
static struct book make_book(void) {
    struct book book;
    if (book_open(&book, 7, 2, 8) != 0)
        abort();
    return book;
}

static uint32_t put(struct book *book, uint64_t id, uint32_t debit, uint32_t credit,
                    uint64_t amount, uint16_t flags) {
    book->transfers[book->transfer_count] = (struct tally_transfer){
        .id = id,
        .debit_account_id = book->accounts[debit].id,
        .credit_account_id = book->accounts[credit].id,
        .amount = amount,
        .flags = flags,
    };
    return book->transfer_count++;
}

static bool answer(struct book *book, uint32_t index, uint32_t status, bool again) {
    book->results[index] = (struct tally_result){.timestamp = 100 + index, .status = status};
    return book_acknowledge(book, index, 1, again);
}

static void the_book_follows_hold_post_and_void(void) {
    struct book book = make_book();
    uint32_t wallet = book_wallet(0);
    put(&book, 1, BOOK_BANK, wallet, 1000, 0);
    put(&book, 2, wallet, BOOK_STAKES, 300, TALLY_TRANSFER_PENDING);
    put(&book, 3, wallet, BOOK_STAKES, 200, TALLY_TRANSFER_PENDING);
    CHECK(answer(&book, 0, TALLY_TRANSFER_STATUS_created, false));
    CHECK(answer(&book, 1, TALLY_TRANSFER_STATUS_created, false));
    CHECK(answer(&book, 2, TALLY_TRANSFER_STATUS_exists, true));
    CHECK_EQ(book.balances[wallet].debits_pending, 500);
    CHECK_EQ(book.balances[BOOK_STAKES].credits_pending, 500);
    uint32_t post = book.transfer_count++, voided = book.transfer_count++;
    book.transfers[post] = (struct tally_transfer){
        .id = 4, .pending_id = 2, .amount = TALLY_AMOUNT_MAX, .flags = TALLY_TRANSFER_POST_PENDING};
    book.transfers[voided] =
        (struct tally_transfer){.id = 5, .pending_id = 3, .flags = TALLY_TRANSFER_VOID_PENDING};
    CHECK(answer(&book, post, TALLY_TRANSFER_STATUS_created, false));
    CHECK(answer(&book, voided, TALLY_TRANSFER_STATUS_created, false));
    CHECK_EQ(book.balances[wallet].debits_pending, 0);
    CHECK_EQ(book.balances[wallet].debits_posted, 300);
    CHECK_EQ(book.balances[wallet].credits_posted, 1000);
    CHECK_EQ(book.balances[BOOK_STAKES].credits_posted, 300);
    CHECK_EQ(book.balances[BOOK_STAKES].credits_pending, 0);
    CHECK_EQ(book.created, 5);
    struct tally_transfer looked_up = book.transfers[0];
    looked_up.timestamp = 100;
    CHECK(book_transfer_equal(&book, 0, &looked_up));
    looked_up.amount++;
    CHECK(!book_transfer_equal(&book, 0, &looked_up));
    book_close(&book);
}

static void answers_that_are_not_expected_are_noticed(void) {
    struct book book = make_book();
    uint32_t wallet = book_wallet(1);
    for (uint64_t id = 1; id <= 4; id++)
        put(&book, id, wallet, BOOK_STAKES, 10, 0);
    book.expectations[2] = EXPECT_OVERDRAFT;
    book.expectations[3] = EXPECT_CHAIN_FAILED;
    CHECK(!answer(&book, 0, TALLY_TRANSFER_STATUS_exceeds_credits, false));
    CHECK(!answer(&book, 1, TALLY_TRANSFER_STATUS_exists, false)); /* it was sent only once */
    CHECK(!answer(&book, 2, TALLY_TRANSFER_STATUS_created, false));
    CHECK(!answer(&book, 2, TALLY_TRANSFER_STATUS_id_already_failed, false));
    CHECK(answer(&book, 2, TALLY_TRANSFER_STATUS_id_already_failed, true));
    CHECK(!answer(&book, 3, TALLY_TRANSFER_STATUS_created, false));
    CHECK(answer(&book, 3, TALLY_TRANSFER_STATUS_linked_event_failed, false));
    CHECK_EQ(book.balances[wallet].debits_posted, 0);
    struct tally_account account = book.accounts[wallet];
    CHECK(book_account_equal(&book, wallet, &account));
    account.debits_posted = 1;
    CHECK(!book_account_equal(&book, wallet, &account));
    book_close(&book);
}

/** In a new session the ledger knows the chain already: `exists`, and `linked_event_failed` for the rest. */
static void a_chain_that_was_sent_again_counts_once(void) {
    struct book book = make_book();
    uint32_t wallet = book_wallet(0);
    put(&book, 1, BOOK_BANK, wallet, 1000, TALLY_TRANSFER_LINKED);
    put(&book, 2, BOOK_BANK, wallet, 500, 0);
    book.results[0] = (struct tally_result){.timestamp = 9, .status = TALLY_TRANSFER_STATUS_exists};
    book.results[1] =
        (struct tally_result){.timestamp = 70, .status = TALLY_TRANSFER_STATUS_linked_event_failed};
    CHECK(!book_acknowledge(&book, 0, 2, false));
    CHECK_EQ(book.balances[wallet].credits_posted, 0);
    CHECK(book_acknowledge(&book, 0, 2, true));
    CHECK_EQ(book.balances[wallet].credits_posted, 1500);
    struct tally_transfer looked_up = book.transfers[1];
    CHECK(!book_transfer_equal(&book, 1, &looked_up)); /* no timestamp */
    looked_up.timestamp = 10;
    CHECK(book_transfer_equal(&book, 1, &looked_up));
    looked_up = book.transfers[0];
    looked_up.timestamp = 10;
    CHECK(!book_transfer_equal(&book, 0, &looked_up));
    book_close(&book);
}

int main(void) {
    TEST_RUN(quantiles_are_within_three_percent);
    TEST_RUN(quantiles_are_ordered);
    TEST_RUN(the_book_follows_hold_post_and_void);
    TEST_RUN(a_chain_that_was_sent_again_counts_once);
    TEST_RUN(answers_that_are_not_expected_are_noticed);
    return TEST_DONE();
}

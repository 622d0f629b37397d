/* SPDX-License-Identifier: Apache-2.0 */
/* The oracle says nothing of a lawful history, and names the check when one thing in it is wrong. */
#include "tests/lib/test.h"
#include "tests/unit/sim/oracle_fixture.h"

#define WALLET 0x77u /* may not go below zero */
#define HOUSE 0x55u
#define NOW_MS (T0 / NS_PER_MS)
#define CREATED TRANSFER_STATUS_created
#define CHECK_FIRED(history, name)                                                                 \
    do {                                                                                           \
        const char *fired = history_check(history);                                                \
        const char *said = oracle_violation((history)->oracle);                                    \
        if (strcmp(fired, name) != 0)                                                              \
            printf("the oracle says: %s\n", said ? said : "nothing");                              \
        bool same = strcmp(fired, name) == 0;                                                      \
        history_close(history);                                                                    \
        CHECK(same);                                                                               \
    } while (0)

static struct history h;

static const struct account both[2] = {
    {.id = WALLET, .ledger = 1, .code = 1, .flags = ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS},
    {.id = HOUSE, .ledger = 1, .code = 1},
};

/** A transfer at T0 + `at`; its id is made of the same number. */
static struct transfer from_house(unsigned at, amount_t amount) {
    return (struct transfer){.id = history_id(NOW_MS, at),
                             .debit_account_id = HOUSE,
                             .credit_account_id = WALLET,
                             .amount = amount,
                             .ledger = 1,
                             .code = 1};
}

static struct transfer from_wallet(unsigned at, amount_t amount) {
    struct transfer transfer = from_house(at, amount);
    transfer.debit_account_id = WALLET;
    transfer.credit_account_id = HOUSE;
    return transfer;
}

static void log_made(unsigned at, const struct transfer *transfer) {
    history_transfer(&h, T0 + at, transfer, 0, 0);
}

static void answer(uint64_t number, unsigned at, uint32_t status) {
    history_reply(&h,
                  (struct reply){.number = number, .count = 1, .results = {{T0 + at, status, 0}}});
}

/** Two accounts, and 100 in the wallet, at T0 + 1 .. 3. */
static void begin(void) {
    history_open(&h);
    uint64_t number = history_accounts(&h, both, 2);
    history_account(&h, T0 + 1, &both[0]);
    history_account(&h, T0 + 2, &both[1]);
    history_group(&h);
    history_reply(&h, (struct reply){.number = number,
                                     .operation = OPERATION_CREATE_ACCOUNTS,
                                     .count = 2,
                                     .results = {{T0 + 1, ACCOUNT_STATUS_created, 0},
                                                 {T0 + 2, ACCOUNT_STATUS_created, 0}}});
    struct transfer deposit = from_house(3, 100);
    number = history_transfers(&h, &deposit, 1);
    log_made(3, &deposit);
    history_group(&h);
    answer(number, 3, CREATED);
}

/** The usual way of one transfer. */
static uint64_t lawful(unsigned at, const struct transfer *transfer) {
    uint64_t number = history_transfers(&h, transfer, 1);
    log_made(at, transfer);
    history_group(&h);
    answer(number, at, CREATED);
    return number;
}

/* --- lawful histories ------------------------------------------------------------------------------------------------------------- */

static void a_lawful_history_is_lawful(void) {
    struct oracle_counts counts;
    begin();
    struct transfer bet = from_wallet(10, 60), more = from_wallet(11, 50);
    lawful(10, &bet);
    uint64_t number = history_transfers(&h, &more, 1);
    history_burnt(&h, T0 + 11, more.id, TRANSFER_STATUS_exceeds_credits);
    history_group(&h);
    answer(number, 11, TRANSFER_STATUS_exceeds_credits);
    number = history_transfers(&h, &more, 1);
    answer(number, 12, TRANSFER_STATUS_id_already_failed);
    number = history_transfers(&h, &bet, 1);
    answer(number, 10, TRANSFER_STATUS_exists);
    history_digest(&h, T0 + 12, 1, 0, 0, 0);
    const struct balances sums = {.debits_posted = 160, .credits_posted = 160};
    history_total(&h, T0 + 12, 1, &sums);
    history_group(&h);
    history_restart(&h, h.log_bytes, false);
    oracle_counts(h.oracle, &counts);
    CHECK_FIRED(&h, "");
    CHECK_EQ(counts.transfers, 2);
    CHECK_EQ(counts.burnt, 1);
    CHECK_EQ(counts.restarts, 1);
}

static void a_hold_is_posted_and_another_one_expires(void) {
    begin();
    struct transfer hold = from_wallet(10, 60), second = from_wallet(11, 30);
    hold.flags = second.flags = TRANSFER_PENDING;
    second.timeout = 1;
    lawful(10, &hold);
    lawful(11, &second);
    struct transfer post = {.id = history_id(NOW_MS, 12),
                            .pending_id = hold.id,
                            .amount = 20,
                            .flags = TRANSFER_POST_PENDING};
    uint64_t number = history_transfers(&h, &post, 1);
    struct transfer made = from_wallet(12, 20);
    made.pending_id = hold.id;
    made.flags = TRANSFER_POST_PENDING;
    history_transfer(&h, T0 + 12, &made, 60, TRANSFER_PENDING);
    history_group(&h);
    answer(number, 12, CREATED);
    history_expiry(&h, T0 + 11 + NS_PER_SECOND, &second);
    history_group(&h);
    struct account wallet = both[0];
    wallet.timestamp = T0 + 1;
    wallet.credits_posted = 100;
    wallet.debits_posted = 20;
    number = history_lookup(&h, OPERATION_LOOKUP_ACCOUNTS, WALLET);
    history_reply(&h, (struct reply){.number = number,
                                     .operation = OPERATION_LOOKUP_ACCOUNTS,
                                     .count = 1,
                                     .results = {{T0 + 1, LOOKUP_STATUS_found, 0}},
                                     .behind = &wallet,
                                     .more = sizeof(wallet)});
    CHECK_FIRED(&h, "");
}

/** The chain's second event is made by another request, in the group in which the chain burns its first. */
static void a_failed_chain_beside_its_own_id(void) {
    begin();
    struct transfer chain[2] = {from_wallet(10, 101), from_house(11, 5)};
    struct transfer alone = chain[1];
    chain[0].flags = TRANSFER_LINKED;
    uint64_t number = history_transfers(&h, chain, 2), other = history_transfers(&h, &alone, 1);
    history_burnt(&h, T0 + 10, chain[0].id, TRANSFER_STATUS_exceeds_credits);
    log_made(12, &alone);
    history_group(&h);
    answer(other, 12, CREATED);
    history_reply(&h,
                  (struct reply){.number = number,
                                 .count = 2,
                                 .results = {{T0 + 10, TRANSFER_STATUS_exceeds_credits, 0},
                                             {T0 + 11, TRANSFER_STATUS_linked_event_failed, 0}}});
    CHECK_FIRED(&h, "");
}

static void what_was_in_flight_at_a_crash_may_come_back(void) {
    size_t bytes;
    begin();
    struct transfer bet = from_wallet(10, 60);
    history_transfers(&h, &bet, 1);
    log_made(10, &bet);
    const uint8_t *group = history_seal(&h, &bytes);
    oracle_group_submitted(h.oracle, group, bytes);
    history_restart(&h, h.log_bytes, false);
    struct oracle_counts counts;
    oracle_counts(h.oracle, &counts);
    CHECK_FIRED(&h, "");
    CHECK_EQ(counts.transfers, 2);
}

static void groups_may_become_durable_in_any_order(void) {
    size_t bytes[2];
    begin();
    struct transfer bets[2] = {from_wallet(10, 60), from_wallet(11, 20)};
    uint64_t number = history_transfers(&h, bets, 2);
    log_made(10, &bets[0]);
    const uint8_t *first = history_seal(&h, &bytes[0]);
    log_made(11, &bets[1]);
    const uint8_t *second = history_seal(&h, &bytes[1]);
    oracle_group_durable(h.oracle, second, bytes[1]);
    oracle_group_durable(h.oracle, first, bytes[0]);
    history_reply(&h, (struct reply){.number = number,
                                     .count = 2,
                                     .results = {{T0 + 10, CREATED, 0}, {T0 + 11, CREATED, 0}}});
    CHECK_FIRED(&h, "");
}

static void a_disk_that_lied_may_lose(void) {
    begin();
    struct transfer bet = from_wallet(10, 60);
    lawful(10, &bet);
    size_t before = h.last_bytes;
    history_restart(&h, before, true);
    struct oracle_counts counts;
    oracle_counts(h.oracle, &counts);
    CHECK_FIRED(&h, "");
    CHECK_EQ(counts.transfers, 1);
}

/* --- the log is wrong ------------------------------------------------------------------------------------------------------------- */

static void inv1_release_of_what_was_not_reserved(void) {
    begin();
    struct transfer hold = from_wallet(10, 60);
    hold.flags = TRANSFER_PENDING;
    lawful(10, &hold);
    struct transfer void_it = {
        .id = history_id(NOW_MS, 12), .pending_id = hold.id, .flags = TRANSFER_VOID_PENDING};
    history_transfers(&h, &void_it, 1);
    struct transfer made = from_wallet(12, 60);
    made.pending_id = hold.id;
    made.flags = TRANSFER_VOID_PENDING;
    history_transfer(&h, T0 + 12, &made, 61, TRANSFER_PENDING);
    history_group(&h);
    CHECK_FIRED(&h, "INV-1");
}

static void outcome_below_the_floor(void) {
    begin();
    struct transfer bet = from_wallet(10, 101);
    history_transfers(&h, &bet, 1);
    log_made(10, &bet);
    history_group(&h);
    CHECK_FIRED(&h, "outcome");
}

static void outcome_of_another_amount(void) {
    begin();
    struct transfer bet = from_wallet(10, 50), made = from_wallet(10, 51);
    history_transfers(&h, &bet, 1);
    log_made(10, &made);
    history_group(&h);
    CHECK_FIRED(&h, "outcome");
}

static void outcome_of_a_balancing_transfer(void) {
    begin();
    struct transfer sweep = from_wallet(10, 500), made;
    sweep.flags = TRANSFER_BALANCING_DEBIT;
    made = sweep;
    made.amount = 99;
    history_transfers(&h, &sweep, 1);
    log_made(10, &made);
    history_group(&h);
    CHECK_FIRED(&h, "outcome");
}

static void inv4_nobody_asked(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    log_made(10, &bet);
    history_group(&h);
    CHECK_FIRED(&h, "INV-4");
}

static void inv4_twice(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    lawful(10, &bet);
    history_transfers(&h, &bet, 1);
    log_made(11, &bet);
    history_group(&h);
    CHECK_FIRED(&h, "INV-4");
}

static void inv4_account_twice(void) {
    begin();
    history_accounts(&h, both, 1);
    history_account(&h, T0 + 10, both);
    history_group(&h);
    CHECK_FIRED(&h, "INV-4");
}

static void inv4_burnt_and_back(void) {
    begin();
    struct transfer bet = from_wallet(10, 101), deposit = from_house(11, 50);
    uint64_t number = history_transfers(&h, &bet, 1);
    history_burnt(&h, T0 + 10, bet.id, TRANSFER_STATUS_exceeds_credits);
    history_group(&h);
    answer(number, 10, TRANSFER_STATUS_exceeds_credits);
    lawful(11, &deposit);
    history_transfers(&h, &bet, 1);
    log_made(12, &bet);
    history_group(&h);
    CHECK_FIRED(&h, "INV-4");
}

static void inv4_burnt_twice(void) {
    begin();
    struct transfer bet = from_wallet(10, 101);
    history_transfers(&h, &bet, 1);
    history_burnt(&h, T0 + 10, bet.id, TRANSFER_STATUS_exceeds_credits);
    history_burnt(&h, T0 + 11, bet.id, TRANSFER_STATUS_exceeds_credits);
    history_group(&h);
    CHECK_FIRED(&h, "INV-4");
}

static void outcome_burnt_without_a_reason(void) {
    begin();
    struct transfer bet = from_wallet(10, 10);
    history_transfers(&h, &bet, 1);
    history_burnt(&h, T0 + 10, bet.id, TRANSFER_STATUS_exceeds_credits);
    history_group(&h);
    CHECK_FIRED(&h, "outcome");
}

static void inv4_of_a_session_that_a_newer_one_ended(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    history_transfers(&h, &bet, 1);
    history_session(&h, 0x2222, 1, T0 + 5);
    log_made(10, &bet);
    history_group(&h);
    CHECK_FIRED(&h, "INV-4");
}

static void inv4_of_a_session_of_a_dead_node(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    history_transfers(&h, &bet, 1);
    history_restart(&h, h.log_bytes, false);
    history_start(&h, 2);
    log_made(10, &bet);
    history_group(&h);
    CHECK_FIRED(&h, "INV-4");
}

static void inv6_gap(void) {
    begin();
    h.seq++;
    oracle_stopped(h.oracle);
    size_t bytes;
    history_seal(&h, &bytes);
    oracle_log_begin(h.oracle, 0, false);
    oracle_log_file(h.oracle, h.log, sizeof(h.log));
    CHECK_FIRED(&h, "INV-6");
}

static void inv6_digest_chain(void) {
    begin();
    h.previous[3] ^= 1;
    history_group(&h);
    CHECK_FIRED(&h, "INV-6");
}

static void inv6_cell_time_falls(void) {
    begin();
    h.cell_time = T0 + 1;
    history_group(&h);
    CHECK_FIRED(&h, "INV-6");
}

static void inv6_written_again(void) {
    begin();
    history_group(&h);
    oracle_group_durable(h.oracle, h.log + h.last_bytes, h.log_bytes - h.last_bytes);
    CHECK_FIRED(&h, "INV-6");
}

static void inv6_another_group_with_the_same_number(void) {
    begin();
    size_t bytes;
    struct transfer bet = from_wallet(10, 1);
    lawful(10, &bet);
    h.log_bytes = h.last_bytes;
    h.seq--;
    memcpy(h.previous, h.log + h.log_bytes + 48, 16);
    h.cell_time += 5;
    history_seal(&h, &bytes);
    history_restart(&h, h.log_bytes, false);
    CHECK_FIRED(&h, "INV-6");
}

static void inv3_the_log_is_shorter(void) {
    begin();
    history_restart(&h, h.last_bytes, false);
    CHECK_FIRED(&h, "INV-3");
}

static void inv3_claims_more_than_is_durable(void) {
    begin();
    size_t bytes;
    struct transfer bet = from_wallet(10, 1);
    history_transfers(&h, &bet, 1);
    log_made(10, &bet);
    history_seal(&h, &bytes);
    h.durable_seq = h.seq;
    const uint8_t *next = history_seal(&h, &bytes);
    oracle_group_submitted(h.oracle, next, bytes);
    CHECK_FIRED(&h, "INV-3");
}

static void torn_tail_left(void) {
    begin();
    h.log[h.log_bytes + 70000] = 1;
    oracle_stopped(h.oracle);
    oracle_log_begin(h.oracle, 0, false);
    oracle_log_file(h.oracle, h.log, sizeof(h.log));
    CHECK_FIRED(&h, "torn tail");
}

static void format_no_start(void) {
    begin();
    h.term = 2;
    history_group(&h);
    CHECK_FIRED(&h, "format");
}

static void format_damaged(void) {
    begin();
    size_t bytes;
    struct transfer bet = from_wallet(10, 1);
    history_transfers(&h, &bet, 1);
    log_made(10, &bet);
    uint8_t *group = (uint8_t *)history_seal(&h, &bytes);
    group[4096 + 3000] ^= 1;
    oracle_group_durable(h.oracle, group, bytes);
    CHECK_FIRED(&h, "format");
}

static void horizon_too_near(void) {
    begin();
    h.horizon_ms = NOW_MS - BACK_MS + 1;
    history_group(&h);
    CHECK_FIRED(&h, "horizon");
}

static void horizon_that_falls(void) {
    begin();
    h.horizon_ms--;
    history_group(&h);
    CHECK_FIRED(&h, "INV-6");
}

static void time_that_falls(void) {
    begin();
    struct transfer bet = from_wallet(10, 1), next = from_wallet(9, 1);
    lawful(10, &bet);
    history_transfers(&h, &next, 1);
    log_made(9, &next);
    history_group(&h);
    CHECK_FIRED(&h, "time");
}

static void chain_by_half(void) {
    begin();
    struct transfer chain[2] = {from_wallet(10, 1), from_wallet(11, 2)};
    chain[0].flags = TRANSFER_LINKED;
    history_transfers(&h, chain, 2);
    log_made(10, &chain[0]);
    history_group(&h);
    CHECK_FIRED(&h, "chain");
}

static void chain_without_its_first(void) {
    begin();
    struct transfer chain[2] = {from_wallet(10, 1), from_wallet(11, 2)};
    chain[0].flags = TRANSFER_LINKED;
    history_transfers(&h, chain, 2);
    log_made(11, &chain[1]);
    history_group(&h);
    CHECK_FIRED(&h, "chain");
}

static struct transfer pending(unsigned at, unsigned timeout) {
    struct transfer hold = from_wallet(at, 10);
    hold.flags = TRANSFER_PENDING;
    hold.timeout = timeout;
    lawful(at, &hold);
    return hold;
}

static void expiry_too_early(void) {
    begin();
    struct transfer hold = pending(10, 1);
    history_expiry(&h, T0 + 9 + NS_PER_SECOND, &hold);
    history_group(&h);
    CHECK_FIRED(&h, "expiry");
}

static void expiry_out_of_order(void) {
    begin();
    pending(10, 1);
    struct transfer later = pending(11, 1);
    history_expiry(&h, T0 + 2 * NS_PER_SECOND, &later);
    history_group(&h);
    CHECK_FIRED(&h, "expiry");
}

static void expiry_of_what_is_resolved(void) {
    begin();
    struct transfer hold = pending(10, 1);
    history_expiry(&h, T0 + 2 * NS_PER_SECOND, &hold);
    history_expiry(&h, T0 + 2 * NS_PER_SECOND + 1, &hold);
    history_group(&h);
    CHECK_FIRED(&h, "expiry");
}

static void expiry_that_does_not_come(void) {
    begin();
    pending(10, 1);
    h.cell_time = T0 + 2 * NS_PER_SECOND;
    for (unsigned i = 0; i < 20; i++)
        history_group(&h);
    CHECK_FIRED(&h, "expiry");
}

static void outcome_post_of_what_has_expired(void) {
    begin();
    struct transfer hold = pending(10, 1);
    struct transfer post = {.id = history_id(NOW_MS, 12),
                            .pending_id = hold.id,
                            .amount = AMOUNT_MAX,
                            .flags = TRANSFER_POST_PENDING};
    history_transfers(&h, &post, 1);
    struct transfer made = from_wallet(12, 10);
    made.pending_id = hold.id;
    made.flags = TRANSFER_POST_PENDING;
    history_transfer(&h, T0 + 10 + NS_PER_SECOND, &made, 10, TRANSFER_PENDING);
    history_group(&h);
    CHECK_FIRED(&h, "outcome");
}

static void state_digest(void) {
    begin();
    for (unsigned p = 0; p < PARTITIONS; p++)
        history_digest(&h, T0 + 3, p, 0, 0, 0);
    history_group(&h);
    CHECK_FIRED(&h, "state digest");
}

static void ledger_total(void) {
    begin();
    const struct balances sums = {.debits_posted = 100, .credits_posted = 101};
    history_total(&h, T0 + 3, 1, &sums);
    history_group(&h);
    CHECK_FIRED(&h, "ledger total");
}

/* --- an answer is wrong --------------------------------------------------------------------------------------------------------------- */

static void inv5_created_before_it_is_durable(void) {
    size_t bytes;
    begin();
    struct transfer bet = from_wallet(10, 1);
    uint64_t number = history_transfers(&h, &bet, 1);
    log_made(10, &bet);
    const uint8_t *group = history_seal(&h, &bytes);
    oracle_group_submitted(h.oracle, group, bytes);
    history_reply(&h, (struct reply){.number = number,
                                     .count = 1,
                                     .results = {{T0 + 10, CREATED, 0}},
                                     .token_seq = h.seq - 1});
    CHECK_FIRED(&h, "INV-5");
}

static void inv5_shows_a_group_that_is_not_durable(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    lawful(10, &bet);
    uint64_t number = history_transfers(&h, &bet, 1);
    history_reply(&h, (struct reply){.number = number,
                                     .count = 1,
                                     .results = {{T0 + 10, TRANSFER_STATUS_exists, 0}},
                                     .token_seq = h.seq + 1});
    CHECK_FIRED(&h, "INV-5");
}

static void inv5_group_4_is_not_durable_while_5_is(void) {
    size_t bytes;
    begin();
    struct transfer bets[2] = {from_wallet(10, 60), from_wallet(11, 20)};
    uint64_t number = history_transfers(&h, &bets[1], 1);
    history_transfers(&h, &bets[0], 1);
    log_made(10, &bets[0]);
    history_seal(&h, &bytes);
    log_made(11, &bets[1]);
    const uint8_t *second = history_seal(&h, &bytes);
    oracle_group_durable(h.oracle, second, bytes);
    answer(number, 11, CREATED);
    CHECK_FIRED(&h, "INV-5");
}

static void inv5_decided_by_a_clock_that_is_not_durable(void) {
    begin();
    struct transfer early = from_wallet(10, 1);
    early.id = history_id(NOW_MS + 70000, 10);
    uint64_t number = history_transfers(&h, &early, 1);
    answer(number, 10, TRANSFER_STATUS_id_in_future);
    CHECK_FIRED(&h, "INV-5");
}

static void inv5_burnt_and_not_durable(void) {
    begin();
    struct transfer bet = from_wallet(10, 101);
    uint64_t number = history_transfers(&h, &bet, 1);
    answer(number, 10, TRANSFER_STATUS_exceeds_credits);
    CHECK_FIRED(&h, "INV-5");
}

static void inv4_two_were_told_created(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    uint64_t number = history_transfers(&h, &bet, 1);
    uint64_t second = history_transfers(&h, &bet, 1);
    log_made(10, &bet);
    history_group(&h);
    answer(number, 10, CREATED);
    answer(second, 10, CREATED);
    CHECK_FIRED(&h, "INV-4");
}

static void inv4_answered_differently(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    uint64_t number = lawful(10, &bet);
    answer(number, 10, TRANSFER_STATUS_exists);
    CHECK_FIRED(&h, "INV-4");
}

static void outcome_refused_and_yet_done(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    uint64_t number = history_transfers(&h, &bet, 1);
    log_made(10, &bet);
    history_group(&h);
    history_reply(&h, (struct reply){.number = number, .code = REQUEST_CODE_overloaded});
    CHECK_FIRED(&h, "outcome");
}

static void status_that_is_not_so(void) {
    begin();
    struct transfer wrong = from_wallet(10, 1);
    wrong.ledger = 2;
    uint64_t number = history_transfers(&h, &wrong, 1);
    answer(number, 10, TRANSFER_STATUS_ledger_must_not_be_zero);
    CHECK_FIRED(&h, "status");
}

static void status_of_a_retry_with_other_fields(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    lawful(10, &bet);
    bet.code = 2;
    uint64_t number = history_transfers(&h, &bet, 1);
    answer(number, 10, TRANSFER_STATUS_exists);
    CHECK_FIRED(&h, "status");
}

static void status_of_an_id_at_the_horizon(void) {
    begin();
    struct transfer old = from_wallet(10, 1);
    old.id = history_id(h.horizon_ms, 10);
    uint64_t number = history_transfers(&h, &old, 1);
    h.cell_time = T0 + 11;
    history_group(&h);
    answer(number, 10, TRANSFER_STATUS_id_expired);
    CHECK_FIRED(&h, "status");
}

static void status_of_a_chain(void) {
    begin();
    struct transfer chain[2] = {from_house(10, 50), from_wallet(11, 120)};
    chain[0].flags = TRANSFER_LINKED;
    uint64_t number = history_transfers(&h, chain, 2);
    /* 120 of 150: the later member sees what the earlier one does. */
    history_reply(&h,
                  (struct reply){.number = number,
                                 .count = 2,
                                 .results = {{T0 + 10, TRANSFER_STATUS_linked_event_failed, 0},
                                             {T0 + 11, TRANSFER_STATUS_code_must_not_be_zero, 0}}});
    CHECK_FIRED(&h, "status");
}

static void chain_answered_by_half(void) {
    begin();
    struct transfer chain[2] = {from_wallet(10, 1), from_wallet(11, 2)};
    chain[0].flags = TRANSFER_LINKED;
    uint64_t number = history_transfers(&h, chain, 2);
    log_made(10, &chain[0]);
    log_made(11, &chain[1]);
    history_group(&h);
    history_reply(&h, (struct reply){.number = number,
                                     .count = 2,
                                     .results = {{T0 + 10, CREATED, 0},
                                                 {T0 + 11, TRANSFER_STATUS_exists, 0}}});
    CHECK_FIRED(&h, "chain");
}

static void balances_of_before(void) {
    begin();
    history_balances = true;
    struct transfer bet = from_wallet(10, 60);
    uint64_t number = history_transfers(&h, &bet, 1);
    log_made(10, &bet);
    history_group(&h);
    const struct balances before = {.credits_posted = 100};
    history_reply(&h, (struct reply){.number = number,
                                     .count = 1,
                                     .results = {{T0 + 10, CREATED, 0}},
                                     .behind = &before,
                                     .more = sizeof(before)});
    CHECK_FIRED(&h, "balances");
}

static void show_wallet(uint64_t number, amount_t debits_posted) {
    struct account wallet = both[0];
    wallet.timestamp = T0 + 1;
    wallet.credits_posted = 100;
    wallet.debits_posted = debits_posted;
    history_reply(&h, (struct reply){.number = number,
                                     .operation = OPERATION_LOOKUP_ACCOUNTS,
                                     .count = 1,
                                     .results = {{T0 + 1, LOOKUP_STATUS_found, 0}},
                                     .behind = &wallet,
                                     .more = sizeof(wallet)});
}

static void lookup_of_a_state_that_was(void) {
    begin();
    uint64_t before = history_lookup(&h, OPERATION_LOOKUP_ACCOUNTS, WALLET);
    struct transfer bet = from_wallet(10, 60);
    lawful(10, &bet);
    uint64_t after = history_lookup(&h, OPERATION_LOOKUP_ACCOUNTS, WALLET);
    show_wallet(before, 0);
    bool first_is_lawful = !oracle_violation(h.oracle);
    if (!first_is_lawful)
        puts(oracle_violation(h.oracle));
    show_wallet(after, 0);
    CHECK_FIRED(&h, "lookup");
    CHECK(first_is_lawful);
}

static void lookup_of_a_state_that_is_not_durable(void) {
    begin();
    uint64_t number = history_lookup(&h, OPERATION_LOOKUP_ACCOUNTS, WALLET);
    struct transfer bet = from_wallet(10, 60);
    history_transfers(&h, &bet, 1);
    show_wallet(number, 60);
    CHECK_FIRED(&h, "lookup");
}

static void lookup_that_misses_what_is_there(void) {
    begin();
    struct transfer bet = from_wallet(10, 60);
    lawful(10, &bet);
    uint64_t number = history_lookup(&h, OPERATION_LOOKUP_TRANSFERS, bet.id);
    history_reply(&h, (struct reply){.number = number,
                                     .operation = OPERATION_LOOKUP_TRANSFERS,
                                     .count = 1,
                                     .results = {{0, LOOKUP_STATUS_absent, 0}}});
    CHECK_FIRED(&h, "lookup");
}

static void lookup_that_expires_too_early(void) {
    begin();
    uint64_t number = history_lookup(&h, OPERATION_LOOKUP_TRANSFERS, history_id(h.horizon_ms, 10));
    history_reply(&h, (struct reply){.number = number,
                                     .operation = OPERATION_LOOKUP_TRANSFERS,
                                     .count = 1,
                                     .results = {{0, LOOKUP_STATUS_expired, 0}}});
    CHECK_FIRED(&h, "lookup");
}

static void real_time(void) {
    begin();
    struct transfer bet = from_wallet(10, 60), wrong = from_wallet(11, 0);
    wrong.code = 0;
    lawful(10, &bet);
    uint64_t number = history_transfers(&h, &wrong, 1);
    answer(number, 9, TRANSFER_STATUS_code_must_not_be_zero);
    CHECK_FIRED(&h, "real time");
}

static void real_time_within_a_request(void) {
    begin();
    struct transfer wrong[2] = {from_wallet(10, 0), from_wallet(11, 0)};
    wrong[0].code = wrong[1].code = 0;
    uint64_t number = history_transfers(&h, wrong, 2);
    const uint32_t status = TRANSFER_STATUS_code_must_not_be_zero;
    history_reply(&h, (struct reply){.number = number,
                                     .count = 2,
                                     .results = {{T0 + 11, status, 0}, {T0 + 10, status, 0}}});
    CHECK_FIRED(&h, "real time");
}

static void reply_to_nobody(void) {
    begin();
    answer(77, 10, CREATED);
    CHECK_FIRED(&h, "reply");
}

static void reply_damaged(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    uint64_t number = history_transfers(&h, &bet, 1);
    log_made(10, &bet);
    history_group(&h);
    history_reply(&h, (struct reply){.number = number,
                                     .count = 1,
                                     .results = {{T0 + 10, CREATED, 0}},
                                     .wrong_tag = true});
    CHECK_FIRED(&h, "reply");
}

static void reply_that_says_unknown(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    uint64_t number = history_transfers(&h, &bet, 1);
    history_reply(&h, (struct reply){.number = number, .code = REQUEST_CODE_unknown_outcome});
    CHECK_FIRED(&h, "reply");
}

static void credit_that_falls(void) {
    begin();
    struct transfer bet = from_wallet(10, 1);
    uint64_t number = history_transfers(&h, &bet, 1);
    log_made(10, &bet);
    history_group(&h);
    history_reply(&h, (struct reply){.number = number,
                                     .count = 1,
                                     .results = {{T0 + 10, CREATED, 0}},
                                     .credit_ahead = 1});
    CHECK_FIRED(&h, "credit");
}

static void time_told_falls(void) {
    begin();
    history_session(&h, 0x2222, 2, T0 + 2);
    CHECK_FIRED(&h, "time");
}

static void inv7_an_older_term(void) {
    begin();
    history_start(&h, 2);
    history_session(&h, 0x2222, 2, T0 + 10);
    h.term = 1;
    history_session(&h, 0x3333, 3, T0 + 11);
    CHECK_FIRED(&h, "INV-7");
}

int main(void) {
    TEST_RUN(a_lawful_history_is_lawful);
    TEST_RUN(a_hold_is_posted_and_another_one_expires);
    TEST_RUN(a_failed_chain_beside_its_own_id);
    TEST_RUN(what_was_in_flight_at_a_crash_may_come_back);
    TEST_RUN(groups_may_become_durable_in_any_order);
    TEST_RUN(a_disk_that_lied_may_lose);
    TEST_RUN(inv1_release_of_what_was_not_reserved);
    TEST_RUN(outcome_below_the_floor);
    TEST_RUN(outcome_of_another_amount);
    TEST_RUN(outcome_of_a_balancing_transfer);
    TEST_RUN(inv4_nobody_asked);
    TEST_RUN(inv4_twice);
    TEST_RUN(inv4_account_twice);
    TEST_RUN(inv4_burnt_and_back);
    TEST_RUN(inv4_burnt_twice);
    TEST_RUN(outcome_burnt_without_a_reason);
    TEST_RUN(inv4_of_a_session_that_a_newer_one_ended);
    TEST_RUN(inv4_of_a_session_of_a_dead_node);
    TEST_RUN(inv6_gap);
    TEST_RUN(inv6_digest_chain);
    TEST_RUN(inv6_cell_time_falls);
    TEST_RUN(inv6_written_again);
    TEST_RUN(inv6_another_group_with_the_same_number);
    TEST_RUN(inv3_the_log_is_shorter);
    TEST_RUN(inv3_claims_more_than_is_durable);
    TEST_RUN(torn_tail_left);
    TEST_RUN(format_no_start);
    TEST_RUN(format_damaged);
    TEST_RUN(horizon_too_near);
    TEST_RUN(horizon_that_falls);
    TEST_RUN(time_that_falls);
    TEST_RUN(chain_by_half);
    TEST_RUN(chain_without_its_first);
    TEST_RUN(expiry_too_early);
    TEST_RUN(expiry_out_of_order);
    TEST_RUN(expiry_of_what_is_resolved);
    TEST_RUN(expiry_that_does_not_come);
    TEST_RUN(outcome_post_of_what_has_expired);
    TEST_RUN(state_digest);
    TEST_RUN(ledger_total);
    TEST_RUN(inv5_created_before_it_is_durable);
    TEST_RUN(inv5_shows_a_group_that_is_not_durable);
    TEST_RUN(inv5_group_4_is_not_durable_while_5_is);
    TEST_RUN(inv5_decided_by_a_clock_that_is_not_durable);
    TEST_RUN(inv5_burnt_and_not_durable);
    TEST_RUN(inv4_two_were_told_created);
    TEST_RUN(inv4_answered_differently);
    TEST_RUN(outcome_refused_and_yet_done);
    TEST_RUN(status_that_is_not_so);
    TEST_RUN(status_of_a_retry_with_other_fields);
    TEST_RUN(status_of_an_id_at_the_horizon);
    TEST_RUN(status_of_a_chain);
    TEST_RUN(chain_answered_by_half);
    TEST_RUN(balances_of_before);
    TEST_RUN(lookup_of_a_state_that_was);
    TEST_RUN(lookup_of_a_state_that_is_not_durable);
    TEST_RUN(lookup_that_misses_what_is_there);
    TEST_RUN(lookup_that_expires_too_early);
    TEST_RUN(real_time);
    TEST_RUN(real_time_within_a_request);
    TEST_RUN(reply_to_nobody);
    TEST_RUN(reply_damaged);
    TEST_RUN(reply_that_says_unknown);
    TEST_RUN(credit_that_falls);
    TEST_RUN(time_told_falls);
    TEST_RUN(inv7_an_older_term);
    return TEST_DONE();
}

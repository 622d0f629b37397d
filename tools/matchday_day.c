/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/matchday_day.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_READS 32
#define BATCH_ACCOUNTS 11
#define BETS_AT_KICK_OFF 3 /* of each wallet, beside its early one */
#define FEE 25
#define STAKE_MAX 2000
#define DEPOSIT_MIN 10000 /* covers all stakes and fees of a wallet */
#define DEPOSIT_SPREAD 40000
#define OVERDRAFT 1000000
#define OVERDRAFT_WALLETS_PART 20 /* one wallet in so many tries to spend what it has not */
#define WRONG_SHOWN 5
#define SAMPLE_PART 20 /* one transfer in so many is sent again for the proof */

enum code { CODE_DEPOSIT = 1, CODE_BET = 2, CODE_FEE = 3, CODE_PAYOUT = 4, CODE_OVERDRAFT = 5 };

/** Room for every transfer that the plans make: at most one deposit, two events a bet twice, and
 * the overdrafts. */
int day_open(struct day *day) {
    uint32_t wallets = day->wallets;
    uint32_t bets = (1 + BETS_AT_KICK_OFF) * wallets;
    uint32_t transfers = wallets + 4 * bets + 2 * (wallets / OVERDRAFT_WALLETS_PART + 1);
    int error = book_open(&day->book, day->run_id, wallets, transfers);
    if (error != 0)
        return error;
    uint32_t most = transfers > day->book.account_count ? transfers : day->book.account_count;
    day->ids = calloc(most, sizeof(*day->ids));
    day->results = calloc(most, sizeof(*day->results));
    day->accounts = calloc(day->book.account_count, sizeof(*day->accounts));
    day->transfers = calloc(transfers, sizeof(*day->transfers));
    return day->ids && day->results && day->accounts && day->transfers ? 0 : -ENOMEM;
}

void day_close(struct day *day) {
    free(day->ids);
    free(day->results);
    free(day->accounts);
    free(day->transfers);
    book_close(&day->book);
}

/* --- what happens on a match day: these write down what will be sent
 * ---------------------------------------------- */

/** splitmix64: the day is the same for the same --seed. */
static uint64_t day_random(struct day *day, uint64_t below) {
    uint64_t z = (day->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static void plan_deposits(struct day *day) {
    for (uint32_t i = 0; i < day->wallets; i++)
        book_add(&day->book, day->client, BOOK_BANK, book_wallet(i),
                 DEPOSIT_MIN + day_random(day, DEPOSIT_SPREAD), CODE_DEPOSIT, 0);
}

static void plan_early_bets(struct day *day) {
    day->bets_first = day->book.transfer_count;
    for (uint32_t i = 0; i < day->wallets; i++)
        book_add(&day->book, day->client, book_wallet(i), BOOK_STAKES,
                 1 + day_random(day, STAKE_MAX), CODE_BET, TALLY_TRANSFER_PENDING);
}

/** Two legs: the stake is held and the fee is paid, both or neither. */
static void plan_kick_off(struct day *day) {
    for (uint32_t bet = 0; bet < BETS_AT_KICK_OFF * day->wallets; bet++) {
        uint32_t wallet = book_wallet(bet % day->wallets);
        book_add(&day->book, day->client, wallet, BOOK_STAKES, 1 + day_random(day, STAKE_MAX),
                 CODE_BET, TALLY_TRANSFER_PENDING | TALLY_TRANSFER_LINKED);
        book_add(&day->book, day->client, wallet, BOOK_FEES, FEE, CODE_FEE, 0);
    }
    day->bets_end = day->book.transfer_count;
}

/** Some alone, some in a chain whose first leg would have been fine and is rolled back. */
static void plan_overdrafts(struct day *day) {
    for (uint32_t i = 0; i < day->wallets; i += OVERDRAFT_WALLETS_PART) {
        uint32_t wallet = book_wallet(i), index;
        if (i % (2 * OVERDRAFT_WALLETS_PART) == 0) {
            index = book_add(&day->book, day->client, wallet, BOOK_FEES, FEE, CODE_FEE,
                             TALLY_TRANSFER_LINKED);
            day->book.expectations[index] = EXPECT_CHAIN_FAILED;
        }
        index = book_add(&day->book, day->client, wallet, BOOK_STAKES, OVERDRAFT, CODE_OVERDRAFT,
                         TALLY_TRANSFER_PENDING);
        day->book.expectations[index] = EXPECT_OVERDRAFT;
    }
}

/** Every held stake is decided: 5 % are void, 65 % are lost, 30 % win, and a win is posted and paid
 * out in one chain. */
static void plan_settlement(struct day *day) {
    for (uint32_t bet = day->bets_first; bet < day->bets_end; bet++) {
        const struct tally_transfer *held = &day->book.transfers[bet];
        if (!(held->flags & TALLY_TRANSFER_PENDING))
            continue;
        uint64_t luck = day_random(day, 100), stake = (uint64_t)held->amount;
        uint32_t wallet = (uint32_t)held->debit_account_id - 1;
        if (luck < 5) {
            book_resolve(&day->book, day->client, bet, TALLY_TRANSFER_VOID_PENDING);
        } else if (luck < 70) {
            book_resolve(&day->book, day->client, bet, TALLY_TRANSFER_POST_PENDING);
        } else {
            book_resolve(&day->book, day->client, bet,
                         TALLY_TRANSFER_POST_PENDING | TALLY_TRANSFER_LINKED);
            book_add(&day->book, day->client, BOOK_PAYOUTS, wallet,
                     stake + stake * day_random(day, 400) / 100, CODE_PAYOUT, 0);
        }
    }
}

/* --- phases: where units come from, and whether their answers are right
 * -------------------------------------------- */

static uint32_t take(struct day *day, uint32_t *count) {
    uint32_t first = day->next, left = day->end - day->next;
    *count = left < day->batch ? left : day->batch;
    day->next += *count;
    return first;
}

static bool account_next(void *context, struct run_unit *unit) {
    struct day *day = context;
    uint32_t first = take(day, &unit->count);
    unit->events = &day->book.accounts[first];
    unit->results = &day->book.account_results[first];
    return unit->count > 0;
}

static bool account_done(void *context, const struct run_unit *unit, bool again) {
    (void)context;
    bool good = true;
    for (uint32_t i = 0; i < unit->count; i++)
        good = good && (unit->results[i].status == TALLY_ACCOUNT_STATUS_created ||
                        (again && unit->results[i].status == TALLY_ACCOUNT_STATUS_exists));
    return good;
}

/** Say what was answered where that was wrong: the first few times. @return good */
static bool show_wrong(struct day *day, const struct run_unit *unit, bool good) {
    if (good || day->shown++ >= WRONG_SHOWN)
        return good;
    for (uint32_t i = 0; i < unit->count; i++) {
        const struct tally_transfer *event = &day->book.transfers[unit->tag + i];
        printf("  transfer %016" PRIx64 "%016" PRIx64 ", flags 0x%x: %s\n",
               (uint64_t)(event->id >> 64), (uint64_t)event->id, event->flags,
               tally_transfer_status_name(unit->results[i].status));
    }
    return good;
}

static bool transfer_next(void *context, struct run_unit *unit) {
    struct day *day = context;
    if (day->next == day->end)
        return false;
    *unit = (struct run_unit){.events = &day->book.transfers[day->next],
                              .results = &day->book.results[day->next],
                              .count = book_chain_length(&day->book, day->next),
                              .tag = day->next};
    day->next += unit->count;
    return true;
}

static bool transfer_done(void *context, const struct run_unit *unit, bool again) {
    struct day *day = context;
    return show_wrong(day, unit,
                      book_acknowledge(&day->book, (uint32_t)unit->tag, unit->count, again));
}

static bool read_next(void *context, struct run_unit *unit) {
    struct day *day = context;
    uint32_t first = take(day, &unit->count);
    for (uint32_t i = first; i < first + unit->count; i++)
        day->ids[i] = day->book.accounts[i].id;
    unit->events = &day->ids[first];
    unit->results = &day->results[first];
    unit->records = &day->accounts[first];
    unit->tag = first;
    return unit->count > 0;
}

static bool read_done(void *context, const struct run_unit *unit, bool again) {
    (void)again;
    struct day *day = context;
    bool good = true;
    for (uint32_t i = 0; i < unit->count; i++) {
        uint32_t index = (uint32_t)unit->tag + i;
        good = good && unit->results[i].status == TALLY_LOOKUP_STATUS_found &&
               book_account_equal(&day->book, index, &day->accounts[index]);
    }
    return good;
}

static bool find_next(void *context, struct run_unit *unit) {
    struct day *day = context;
    uint32_t first = take(day, &unit->count);
    for (uint32_t i = first; i < first + unit->count; i++)
        day->ids[i] = day->book.transfers[i].id;
    unit->events = &day->ids[first];
    unit->results = &day->results[first];
    unit->records = &day->transfers[first];
    unit->tag = first;
    return unit->count > 0;
}

static bool find_done(void *context, const struct run_unit *unit, bool again) {
    (void)again;
    struct day *day = context;
    bool good = true;
    for (uint32_t i = 0; i < unit->count; i++) {
        uint32_t index = (uint32_t)unit->tag + i, status = unit->results[i].status;
        if (day->book.expectations[index] == EXPECT_CREATED) {
            good = good && status == TALLY_LOOKUP_STATUS_found &&
                   book_transfer_equal(&day->book, index, &day->transfers[index]);
        } else {
            good = good && status == TALLY_LOOKUP_STATUS_absent;
            day->absent++;
        }
    }
    return good;
}

/** Every so many chains, once more: nothing may happen. */
static bool resend_next(void *context, struct run_unit *unit) {
    struct day *day = context;
    if (day->next >= day->end)
        return false;
    uint32_t count = book_chain_length(&day->book, day->next);
    *unit = (struct run_unit){.events = &day->book.transfers[day->next],
                              .results = &day->results[day->next],
                              .count = count,
                              .tag = day->next};
    day->sampled += count;
    for (uint32_t i = 0; i < SAMPLE_PART && day->next < day->end; i++)
        day->next += book_chain_length(&day->book, day->next);
    return true;
}

static bool resend_done(void *context, const struct run_unit *unit, bool again) {
    (void)again;
    struct day *day = context;
    bool good = true;
    for (uint32_t i = 0; i < unit->count; i++) {
        uint32_t index = (uint32_t)unit->tag + i, want = TALLY_TRANSFER_STATUS_linked_event_failed;
        if (day->book.expectations[index] == EXPECT_OVERDRAFT)
            want = TALLY_TRANSFER_STATUS_id_already_failed;
        else if (day->book.expectations[index] == EXPECT_CREATED && i == 0)
            want = TALLY_TRANSFER_STATUS_exists;
        good = good && unit->results[i].status == want &&
               (want != TALLY_TRANSFER_STATUS_exists ||
                unit->results[i].timestamp == day->transfers[index].timestamp);
    }
    return show_wrong(day, unit, good);
}

/* --- the report
 * -----------------------------------------------------------------------------------------------------
 */

/** Run one phase over entries [first, end) of the book and print its row. @return whether all went
 * well */
static bool day_phase(struct day *day, struct run_phase *phase, uint32_t first, uint32_t end) {
    day->next = first;
    day->end = end;
    phase->context = day;
    int error = run_phase(day->run, phase);
    run_report(phase);
    if (error != 0)
        printf("  FAILED: %s%s%s\n", strerror(-error),
               *tally_client_problem(day->client) ? ": " : "", tally_client_problem(day->client));
    return error == 0 && phase->wrong == 0;
}

static bool day_transfers(struct day *day, const char *name, void (*plan)(struct day *),
                          uint64_t rate) {
    struct run_phase phase = {.name = name,
                              .operation = TALLY_CREATE_TRANSFERS,
                              .flags = TALLY_REQUEST_UNORDERED,
                              .rate = rate,
                              .next = transfer_next,
                              .done = transfer_done};
    uint32_t first = day->book.transfer_count;
    plan(day);
    return day_phase(day, &phase, first, day->book.transfer_count);
}

static bool day_reads(struct day *day, const char *name, uint32_t batch) {
    struct run_phase phase = {.name = name,
                              .operation = TALLY_LOOKUP_ACCOUNTS,
                              .flags = TALLY_REQUEST_UNORDERED,
                              .next = read_next,
                              .done = read_done};
    day->batch = batch;
    return day_phase(day, &phase, 0, day->book.account_count);
}

bool day_play(struct day *day) {
    struct run_phase open = {.name = "open accounts",
                             .operation = TALLY_CREATE_ACCOUNTS,
                             .flags = TALLY_REQUEST_UNORDERED,
                             .next = account_next,
                             .done = account_done};
    uint64_t rate = day->rate;
    day->batch = BATCH_ACCOUNTS;
    return day_phase(day, &open, 0, day->book.account_count) &&
           day_transfers(day, "deposits", plan_deposits, rate) &&
           day_transfers(day, "early bets: holds", plan_early_bets, rate) &&
           day_reads(day, "1:0, balance reads", 1) &&
           day_transfers(day, "kick-off: holds + fees", plan_kick_off, rate) &&
           day_reads(day, "1:1, balance reads", 1) &&
           day_transfers(day, "overdrafts, all refused", plan_overdrafts, rate) &&
           day_transfers(day, "settlement: post, pay, void", plan_settlement, 0) &&
           day_reads(day, "2:1, balance reads", 1);
}

/* --- the proof
 * ------------------------------------------------------------------------------------------------------
 */

static bool proof(bool holds, const char *what) {
    printf("  %-6s %s\n", holds ? "proven" : "FALSE", what);
    return holds;
}

static int timestamp_compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool timestamps_unique(const struct day *day) {
    uint64_t *times = calloc(day->book.transfer_count + 1, sizeof(*times));
    uint32_t count = 0;
    bool unique = times != NULL;
    for (uint32_t i = 0; unique && i < day->book.transfer_count; i++) {
        if (day->book.expectations[i] == EXPECT_CREATED)
            times[count++] = day->transfers[i].timestamp;
    }
    if (unique)
        qsort(times, count, sizeof(*times), timestamp_compare);
    for (uint32_t i = 1; unique && i < count; i++)
        unique = times[i] != times[i - 1];
    free(times);
    return unique;
}

/** Sums over what the ledger answered last, not over the book. */
static bool ledger_balances(const struct day *day) {
    struct tally_balances sum = {0};
    for (uint32_t i = 0; i < day->book.account_count; i++) {
        sum.debits_pending += day->accounts[i].debits_pending;
        sum.debits_posted += day->accounts[i].debits_posted;
        sum.credits_pending += day->accounts[i].credits_pending;
        sum.credits_posted += day->accounts[i].credits_posted;
    }
    return sum.debits_posted == sum.credits_posted && sum.debits_pending == 0 &&
           sum.credits_pending == 0;
}

static bool no_debt(const struct day *day) {
    for (uint32_t i = BOOK_HOUSE_COUNT; i < day->book.account_count; i++) {
        const struct tally_account *account = &day->accounts[i];
        if (account->debits_pending + account->debits_posted > account->credits_posted)
            return false;
    }
    return true;
}

bool day_prove(struct day *day) {
    struct run_phase find = {.name = "proof: look up transfers",
                             .operation = TALLY_LOOKUP_TRANSFERS,
                             .flags = TALLY_REQUEST_UNORDERED,
                             .next = find_next,
                             .done = find_done};
    struct run_phase resend = {.name = "proof: send some again",
                               .operation = TALLY_CREATE_TRANSFERS,
                               .flags = TALLY_REQUEST_UNORDERED,
                               .next = resend_next,
                               .done = resend_done};
    struct book *book = &day->book;
    char text[80];
    day->batch = BATCH_READS;
    bool found = day_phase(day, &find, 0, book->transfer_count);
    bool idle = day_phase(day, &resend, 0, book->transfer_count);
    bool equal = day_reads(day, "proof: look up accounts", BATCH_READS);
    printf("\n");
    bool good = true;
    snprintf(text, sizeof(text), "%u acknowledged transfers are there, each with its own timestamp",
             book->created);
    good = proof(found && book->created + book->refused == book->transfer_count &&
                     timestamps_unique(day),
                 text) &&
           good;
    snprintf(text, sizeof(text), "%u refused ones are not", book->refused);
    good = proof(found && day->absent == book->refused, text) && good;
    snprintf(text, sizeof(text), "%u sent once more changed nothing", day->sampled);
    good = proof(idle && equal, text) && good;
    snprintf(text, sizeof(text), "%u accounts hold what those sum up to, so nothing else is there",
             book->account_count);
    good = proof(equal, text) && good;
    good = proof(equal && no_debt(day), "no wallet is below zero") && good;
    return proof(equal && ledger_balances(day),
                 "the books balance, and nothing is held any more") &&
           good;
}

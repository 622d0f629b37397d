/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/test.h"

#include "engine/engine_internal.h"

/** The straight way must never say yes where the general decision says anything but `created`, and it must say yes for the ordinary
 *  wallet transfer, or it would be useless. */

static amount_t random_balance(uint64_t *random) {
    switch (test_random(random) % 6) {
    case 0:
        return 0;
    case 1:
        return test_random(random) % 10;
    case 2:
        return test_random(random);
    case 3:
        return AMOUNT_MAX / 2 - test_random(random) % 3;
    case 4:
        return AMOUNT_MAX - test_random(random) % 12;
    default:
        return (amount_t)test_random(random) << (test_random(random) % 64);
    }
}

static struct account random_account(uint64_t *random, uint64_t id) {
    struct account account = {
        .id = id, .ledger = 1 + test_random(random) % 8 / 7, .code = 1, .timestamp = id};
    static const uint16_t flags[] = {0,
                                     0,
                                     0,
                                     ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS,
                                     ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS,
                                     ACCOUNT_HISTORY,
                                     ACCOUNT_CLOSED,
                                     ACCOUNT_IMPORTED};
    account.flags = flags[test_random(random) % 8];
    account.debits_pending = random_balance(random) / 2;
    account.credits_pending = random_balance(random) / 2;
    account.debits_posted = random_balance(random) / 2;
    account.credits_posted = random_balance(random) / 2;
    return account;
}

static void test_plain_never_says_yes_wrongly(void) {
    uint64_t random = test_seed(4);
    unsigned yes = 0, created = 0;
    for (unsigned round = 0; round < 300000; round++) {
        struct account debit = random_account(&random, 1), credit = random_account(&random, 2);
        struct account *other = test_random(&random) % 16 ? &credit : &debit;
        struct compact_transfer asked = {
            .id = {5, 0},
            .debit_account_id = {1, 0},
            .credit_account_id = {(uint64_t)other->id, 0},
            .amount = (uint64_t)random_balance(&random),
            .ledger = (uint32_t)(test_random(&random) % 8 / 7 + 1),
            .code = test_random(&random) % 8 != 0,
            .flags = test_random(&random) % 8 ? 0 : (uint16_t)(test_random(&random) & 0x7ff),
        };
        struct transfer event = {.id = 5,
                                 .debit_account_id = 1,
                                 .credit_account_id = other->id,
                                 .amount = asked.amount,
                                 .ledger = asked.ledger,
                                 .code = asked.code,
                                 .flags = asked.flags};
        struct transfer_view view = {
            .event = &event, .decided = 100, .debit = &debit, .credit = other};
        struct transfer_outcome outcome;
        transfer_decide(&view, &outcome);
        created += outcome.status == TRANSFER_STATUS_created;
        if (transfer_is_plainly_created(&asked, &debit, other)) {
            yes++;
            CHECK_EQ(outcome.status, TRANSFER_STATUS_created);
            CHECK(outcome.record == &event && event.amount == asked.amount);
        }
    }
    CHECK(yes > 10000 && created > yes);
}

static void test_plain_says_yes_to_a_bet(void) {
    struct account wallet = {.id = 1,
                             .ledger = 1,
                             .code = 1,
                             .credits_posted = 100,
                             .flags = ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS};
    struct account house = {.id = 2, .ledger = 1, .code = 1};
    struct compact_transfer bet = {.id = {5, 0}, .amount = 100, .ledger = 1, .code = 1};
    CHECK(transfer_is_plainly_created(&bet, &wallet, &house));
    bet.amount = 101;
    CHECK(!transfer_is_plainly_created(&bet, &wallet, &house));
}

static void test_digest_is_the_same_in_both_formats(void) {
    uint64_t random = test_seed(5);
    struct transfer_digest_keys keys;
    transfer_digest_keys(77, &keys);
    for (unsigned round = 0; round < 1000; round++) {
        struct transfer event = {.id = 9,
                                 .debit_account_id = test_random(&random),
                                 .credit_account_id = test_random(&random),
                                 .amount = test_random(&random),
                                 .ledger = (uint32_t)test_random(&random),
                                 .code = (uint16_t)test_random(&random),
                                 .flags = (uint16_t)test_random(&random)};
        uint64_t debit = hash_id(event.debit_account_id, 3),
                 credit = hash_id(event.credit_account_id, 3);
        uint64_t digest = transfer_digest(&event, debit, credit, &keys);
        CHECK(digest == transfer_digest_plain(debit, credit, (uint64_t)event.amount,
                                              (uint64_t)event.ledger << 32 |
                                                  (uint64_t)event.code << 16 | event.flags,
                                              &keys));
        /* Any other field, or another value of one, gives another digest. */
        struct transfer other = event;
        switch (round % 8) {
        case 0:
            other.amount += (amount_t)1 << 64;
            break;
        case 1:
            other.pending_id = 1;
            break;
        case 2:
            other.user_data_128 = 1;
            break;
        case 3:
            other.user_data_64 = 1;
            break;
        case 4:
            other.user_data_32 = 1;
            break;
        case 5:
            other.timeout = 1;
            break;
        case 6:
            other.amount++;
            break;
        default:
            other.flags ^= 1;
            break;
        }
        CHECK(digest != transfer_digest(&other, debit, credit, &keys));
        CHECK(digest != transfer_digest(&event, credit, debit, &keys));
    }
}

int main(void) {
    TEST_RUN(test_plain_never_says_yes_wrongly);
    TEST_RUN(test_plain_says_yes_to_a_bet);
    TEST_RUN(test_digest_is_the_same_in_both_formats);
    return TEST_DONE();
}

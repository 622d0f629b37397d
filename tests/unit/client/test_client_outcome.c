/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/client/client_fixture.h"

/** What becomes of requests: answers that were lost, deadlines, refusals, settling, callbacks. */

static struct tally_transfer transfers[TALLY_EVENTS_MAX];
static struct tally_result results[TALLY_EVENTS_MAX];

static void close_all(struct fake_network *network, struct tally_client *client) {
    tally_client_close(client);
    fake_network_close(network);
}

static void test_lost_answers_come_back_as_exists(void) {
    struct fake_network *network = fake_network_open(3);
    struct tally_client *client = fake_client_open(network, NULL);
    fill_transfers(transfers, 10, 1);
    transfers[4].flags = transfers[5].flags = TALLY_TRANSFER_LINKED;
    transfers[8].amount = FAKE_AMOUNT_REFUSED;
    network->server.mute_replies = true;
    struct counted_request counted = transfer_request(transfers, 10, results, 0);
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    CHECK(!fake_client_run(network, client, &counted.done, 50 * NS_PER_MS));
    CHECK_EQ(network->server.created, 9);
    fake_server_restart(&network->server);
    network->server.mute_replies = false;
    CHECK(fake_client_run(network, client, &counted.done, 4 * NS_PER_SECOND));
    CHECK_EQ(counted.request.code, TALLY_OK);
    CHECK_EQ(network->server.created, 9);
    for (unsigned i = 0; i < 10; i++) {
        CHECK_EQ(results[i].flags, TALLY_RESULT_RESENT);
        CHECK_EQ(results[i].status,
                 i == 8 ? TALLY_TRANSFER_STATUS_id_already_failed : TALLY_TRANSFER_STATUS_exists);
        if (i != 8)
            CHECK_EQ(results[i].timestamp,
                     fake_server_find(&network->server, transfers[i].id)->timestamp);
    }
    struct tally_stats stats;
    tally_client_stats(client, &stats);
    CHECK_EQ(stats.sessions, 2);
    close_all(network, client);
}

static void test_deadline_says_unknown_or_not_sent(void) {
    struct fake_network *network = fake_network_open(6);
    struct tally_client *client =
        fake_client_open(network, &(struct tally_options){.window = 1, .timeout_ms = 1000});
    fill_transfers(transfers, 44, 1);
    network->server.dead = true;
    uint64_t began_ns = network->now_ns;
    struct counted_request first = transfer_request(transfers, 22, results, 0);
    struct counted_request second = transfer_request(transfers + 22, 22, results + 22, 0);
    CHECK_EQ(tally_submit(client, &first.request), 0);
    CHECK_EQ(tally_submit(client, &second.request), 0);
    CHECK(fake_client_run(network, client, &second.done, 2 * NS_PER_SECOND));
    CHECK(network->now_ns - began_ns >= NS_PER_SECOND &&
          network->now_ns - began_ns < 1010 * NS_PER_MS);
    CHECK_EQ(first.done_count, 1);
    CHECK_EQ(first.request.code, TALLY_UNKNOWN);
    CHECK_EQ(count_status(results, 22, TALLY_STATUS_unknown), 22);
    CHECK_EQ(second.request.code, TALLY_NOT_SENT);
    CHECK_EQ(count_status(results + 22, 22, TALLY_STATUS_not_sent), 22);
    CHECK_EQ(tally_create_transfers(client, transfers, 1, results, NULL), -ENOTCONN);
    network->server.dead = false;
    CHECK_EQ(tally_create_transfers(client, transfers, 1, results, NULL), 0);
    CHECK_EQ(network->server.created, 1);
    close_all(network, client);
}

static void test_unknown_is_settled(void) {
    for (int how = TALLY_SETTLE_RESEND; how <= TALLY_SETTLE_LOOKUP; how++) {
        struct fake_network *network = fake_network_open(7);
        struct tally_client *client =
            fake_client_open(network, &(struct tally_options){.timeout_ms = 300});
        fill_transfers(transfers, 100, 1);
        network->server.mute_replies = true;
        CHECK_EQ(tally_create_transfers(client, transfers, 10, results, NULL), -ETIMEDOUT);
        CHECK_EQ(count_status(results, 10, TALLY_STATUS_unknown), 10);
        CHECK_EQ(network->server.created, 10);
        network->server.mute_replies = false;
        CHECK_EQ(tally_transfer_settle(client, (enum tally_settle)how, transfers, 100, results), 0);
        if (how == TALLY_SETTLE_RESEND) {
            CHECK_EQ(count_status(results, 10, TALLY_TRANSFER_STATUS_exists), 10);
            CHECK_EQ(count_status(results, 100, TALLY_TRANSFER_STATUS_created), 90);
            CHECK_EQ(results[0].flags, TALLY_RESULT_RESENT);
            CHECK_EQ(network->server.created, 100);
        } else {
            CHECK_EQ(count_status(results, 100, TALLY_LOOKUP_STATUS_found), 10);
            CHECK_EQ(count_status(results, 100, TALLY_LOOKUP_STATUS_absent), 90);
            CHECK_EQ(network->server.created, 10);
        }
        CHECK_EQ(results[3].timestamp,
                 fake_server_find(&network->server, transfers[3].id)->timestamp);
        CHECK_EQ(network->server.violations, 0);
        close_all(network, client);
    }
}

/** A chain that took effect and is below the horizon when it is sent again: its first member is refused as expired, which
 * says nothing about the others. */
static void test_an_expired_chain_stays_unknown(void) {
    struct fake_network *network = fake_network_open(8);
    struct tally_client *client =
        fake_client_open(network, &(struct tally_options){.timeout_ms = 300});
    fill_transfers(transfers, 3, 1);
    transfers[0].flags = transfers[1].flags = TALLY_TRANSFER_LINKED;
    network->server.mute_replies = true;
    CHECK_EQ(tally_create_transfers(client, transfers, 3, results, NULL), -ETIMEDOUT);
    CHECK_EQ(network->server.created, 3);
    network->server.mute_replies = false;
    network->server.horizon = transfers[1].id;
    CHECK(transfers[0].id < transfers[1].id);
    CHECK_EQ(tally_transfer_settle(client, TALLY_SETTLE_RESEND, transfers, 3, results), -ETIMEDOUT);
    CHECK_EQ(results[0].status, TALLY_STATUS_unknown);
    CHECK_EQ(results[1].status, TALLY_TRANSFER_STATUS_exists);
    CHECK_EQ(results[2].status, TALLY_TRANSFER_STATUS_exists);
    CHECK_EQ(network->server.created, 3);
    close_all(network, client);
}

/** What an earlier call sent and this one could not even send is still unknown. */
static void test_settling_without_a_server_leaves_unknown(void) {
    struct fake_network *network = fake_network_open(9);
    struct tally_client *client =
        fake_client_open(network, &(struct tally_options){.timeout_ms = 300});
    fill_transfers(transfers, 44, 1);
    network->server.mute_replies = true;
    CHECK_EQ(tally_create_transfers(client, transfers, 44, results, NULL), -ETIMEDOUT);
    network->server.dead = true;
    for (unsigned time = 0; time < 2; time++) {
        CHECK_EQ(tally_transfer_settle(client, TALLY_SETTLE_RESEND, transfers, 44, results),
                 -ETIMEDOUT);
        CHECK_EQ(count_status(results, 44, TALLY_STATUS_unknown), 44);
    }
    close_all(network, client);
}

static void test_overloaded_is_tried_again_under_new_numbers(void) {
    struct fake_network *network = fake_network_open(8);
    struct tally_client *client = fake_client_open(network, NULL);
    fill_transfers(transfers, 220, 1);
    network->server.overload_count = 25;
    network->server.retry_after_us = 3000;
    uint64_t began_ns = network->now_ns;
    struct counted_request counted =
        transfer_request(transfers, 220, results, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    CHECK(fake_client_run(network, client, &counted.done, 4 * NS_PER_SECOND));
    CHECK(network->now_ns - began_ns >= 6 * NS_PER_MS); /* ten datagrams: twice refused at least */
    CHECK_EQ(count_status(results, 220, TALLY_TRANSFER_STATUS_created), 220);
    CHECK_EQ(results[0].flags, 0);
    CHECK_EQ(network->server.requests, 35);
    CHECK_EQ(network->server.overloads, 25);
    CHECK_EQ(network->server.violations, 0);
    network->server.overload_count = UINT32_MAX;
    struct tally_result result;
    fill_transfers(transfers, 1, 5000);
    CHECK_EQ(tally_create_transfers(client, transfers, 1, &result, NULL), -EBUSY);
    CHECK_EQ(result.status, TALLY_STATUS_overloaded);
    CHECK_EQ(network->server.created, 220);
    close_all(network, client);
}

static void test_unknown_outcome_of_the_server_is_resent(void) {
    struct fake_network *network = fake_network_open(9);
    struct tally_client *client = fake_client_open(network, NULL);
    fill_transfers(transfers, 6, 1);
    for (unsigned i = 0; i < 5; i++)
        transfers[i].flags = TALLY_TRANSFER_LINKED;
    network->server.unknown_count = 1;
    CHECK_EQ(tally_create_transfers(client, transfers, 6, results, NULL), 0);
    CHECK_EQ(count_status(results, 6, TALLY_TRANSFER_STATUS_exists), 6);
    CHECK_EQ(results[5].flags, TALLY_RESULT_RESENT);
    CHECK_EQ(results[5].timestamp, fake_server_find(&network->server, 6)->timestamp);
    CHECK_EQ(network->server.created, 6);
    close_all(network, client);
}

static void test_another_cell_gets_nothing(void) {
    struct fake_network *network = fake_network_open(10);
    struct tally_client *client =
        fake_client_open(network, &(struct tally_options){.timeout_ms = 3000});
    fill_transfers(transfers, 2, 1);
    CHECK_EQ(tally_create_transfers(client, transfers, 1, results, NULL), 0);
    fake_server_restart(&network->server);
    network->server.cell_id[3] ^= 1;
    CHECK_EQ(tally_create_transfers(client, transfers + 1, 1, results, NULL), -ETIMEDOUT);
    CHECK_EQ(network->server.created, 1);
    CHECK(strstr(tally_client_problem(client), "another ledger"));
    close_all(network, client);
}

static void resubmit(struct tally_client *client, struct tally_request *request) {
    struct counted_request *counted = (struct counted_request *)request;
    if (++counted->done_count < 100) {
        ((struct tally_transfer *)(uintptr_t)request->events)->id++;
        tally_submit(client, request);
    } else {
        counted->done = true;
    }
}

static void test_callbacks_may_submit(void) {
    struct fake_network *network = fake_network_open(13);
    struct tally_client *client = fake_client_open(network, NULL);
    fill_transfers(transfers, 1, 1);
    struct counted_request counted = transfer_request(transfers, 1, results, 0);
    counted.request.done = resubmit;
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    CHECK(fake_client_run(network, client, &counted.done, NS_PER_SECOND));
    CHECK_EQ(network->server.created, 100);
    close_all(network, client);
}

static void test_closing_ends_what_is_open(void) {
    struct fake_network *network = fake_network_open(14);
    struct tally_client *client = fake_client_open(network, &(struct tally_options){.window = 1});
    fill_transfers(transfers, 50, 1);
    network->server.dead = true;
    struct counted_request first = transfer_request(transfers, 22, results, 0);
    struct counted_request second = transfer_request(transfers + 22, 20, results + 22, 0);
    CHECK_EQ(tally_submit(client, &first.request), 0);
    CHECK_EQ(tally_submit(client, &second.request), 0);
    tally_client_poll(client);
    tally_client_close(client);
    CHECK_EQ(first.done_count, 1);
    CHECK_EQ(second.done_count, 1);
    CHECK_EQ(first.request.code, TALLY_UNKNOWN);
    CHECK_EQ(second.request.code, TALLY_NOT_SENT);
    fake_network_close(network);
}

static void submit_again(struct tally_client *client, struct tally_request *request) {
    struct counted_request *counted = (struct counted_request *)request;
    counted->done_count++;
    counted->done = tally_submit(client, request) == -ESHUTDOWN;
}

static void test_nothing_is_submitted_while_closing(void) {
    struct fake_network *network = fake_network_open(16);
    struct tally_client *client = fake_client_open(network, NULL);
    fill_transfers(transfers, 1, 1);
    struct counted_request counted = transfer_request(transfers, 1, results, 0);
    counted.request.done = submit_again;
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    close_all(network, client);
    CHECK_EQ(counted.done_count, 1);
    CHECK(counted.done);
}

int main(void) {
    TEST_RUN(test_lost_answers_come_back_as_exists);
    TEST_RUN(test_deadline_says_unknown_or_not_sent);
    TEST_RUN(test_unknown_is_settled);
    TEST_RUN(test_settling_without_a_server_leaves_unknown);
    TEST_RUN(test_an_expired_chain_stays_unknown);
    TEST_RUN(test_overloaded_is_tried_again_under_new_numbers);
    TEST_RUN(test_unknown_outcome_of_the_server_is_resent);
    TEST_RUN(test_another_cell_gets_nothing);
    TEST_RUN(test_callbacks_may_submit);
    TEST_RUN(test_closing_ends_what_is_open);
    TEST_RUN(test_nothing_is_submitted_while_closing);
    return TEST_DONE();
}

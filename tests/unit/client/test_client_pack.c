/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/client/client_fixture.h"

/** How requests become datagrams. The network is perfect here. */

static struct tally_transfer transfers[TALLY_EVENTS_MAX];
static struct tally_result results[TALLY_EVENTS_MAX];
static struct tally_balances balances[TALLY_EVENTS_MAX];
static struct fake_network *network;
static struct tally_client *client;

static void begin(void) {
    network = fake_network_open(1);
    client = fake_client_open(network, NULL);
}

static void end(void) {
    tally_client_close(client);
    fake_network_close(network);
}

static void send_all(uint32_t count, uint32_t flags) {
    struct counted_request counted = transfer_request(transfers, count, results, flags);
    counted.request.balances = balances;
    if (tally_submit(client, &counted.request) == 0)
        fake_client_run(network, client, &counted.done, 10 * NS_PER_SECOND);
}

static void test_plain_transfers_22_a_datagram(void) {
    begin();
    fill_transfers(transfers, 100, 1);
    send_all(100, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(network->server.requests, 5);
    CHECK_EQ(network->server.requests_compact, 5);
    CHECK_EQ(network->server.events_max, 22);
    CHECK_EQ(count_status(results, 100, TALLY_TRANSFER_STATUS_created), 100);
    CHECK_EQ(network->server.violations, 0);
    end();
}

static void test_what_is_not_plain_goes_full_11_a_datagram(void) {
    static const struct {
        const char *name;
        size_t offset;
    } fields[] = {
        {"amount's high half", offsetof(struct tally_transfer, amount) + 8},
        {"pending_id", offsetof(struct tally_transfer, pending_id)},
        {"user_data_128", offsetof(struct tally_transfer, user_data_128) + 15},
        {"user_data_64", offsetof(struct tally_transfer, user_data_64)},
        {"user_data_32", offsetof(struct tally_transfer, user_data_32)},
        {"timeout", offsetof(struct tally_transfer, timeout)},
        {"timestamp", offsetof(struct tally_transfer, timestamp)},
    };
    for (unsigned field = 0; field < sizeof(fields) / sizeof(fields[0]); field++) {
        begin();
        fill_transfers(transfers, 33, 1);
        for (unsigned i = 0; i < 33; i++)
            ((uint8_t *)&transfers[i])[fields[field].offset] = 1;
        send_all(33, TALLY_REQUEST_UNORDERED);
        CHECK_EQ(network->server.requests_full, 3);
        CHECK_EQ(network->server.events_max, 11);
        CHECK_EQ(network->server.created, 33);
        struct fake_record *record = fake_server_find(&network->server, 7);
        CHECK(record);
        if (fields[field].offset != offsetof(struct tally_transfer, timestamp))
            CHECK_EQ(record->bytes[fields[field].offset], 1);
        end();
    }
}

static void test_formats_are_kept_apart_when_order_is_free(void) {
    begin();
    fill_transfers(transfers, 66, 1);
    for (unsigned i = 0; i < 66; i += 3)
        transfers[i].user_data_64 = 5;
    send_all(66, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(network->server.requests_compact, 2);
    CHECK_EQ(network->server.requests_full, 2);
    CHECK_EQ(network->server.created, 66);
    end();
}

static void test_balances_leave_room_for_21(void) {
    begin();
    fill_transfers(transfers, 42, 1);
    memset(balances, 0xff, sizeof(balances[0]) * 42);
    send_all(42, TALLY_REQUEST_UNORDERED | TALLY_REQUEST_BALANCES);
    CHECK_EQ(network->server.requests, 2);
    CHECK_EQ(network->server.events_max, 21);
    CHECK(balances[41].debits_posted > 0 && balances[41].credits_posted == 0);
    end();
}

static void test_small_requests_share_datagrams(void) {
    static struct counted_request counted[44];
    begin();
    fill_transfers(transfers, 44, 1);
    for (unsigned i = 0; i < 44; i++) {
        counted[i] = transfer_request(&transfers[i], 1, &results[i], 0);
        CHECK_EQ(tally_submit(client, &counted[i].request), 0);
    }
    fake_client_run(network, client, &counted[43].done, NS_PER_SECOND);
    CHECK_EQ(network->server.requests, 2);
    for (unsigned i = 0; i < 44; i++)
        CHECK_EQ(counted[i].done_count, 1);
    end();
}

static void test_chains_are_never_split(void) {
    begin();
    fill_transfers(transfers, 50, 1);
    for (unsigned i = 0; i < 50; i++)
        if (i % 5 != 4)
            transfers[i].flags = TALLY_TRANSFER_LINKED;
    transfers[12].amount = FAKE_AMOUNT_REFUSED;
    send_all(50, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(network->server.requests, 3); /* 4, 4 and 2 chains of 5 */
    CHECK_EQ(network->server.events_max, 20);
    CHECK_EQ(network->server.created, 45);
    CHECK_EQ(results[12].status, TALLY_TRANSFER_STATUS_exceeds_credits);
    CHECK_EQ(results[10].status, TALLY_TRANSFER_STATUS_linked_event_failed);
    CHECK_EQ(results[14].status, TALLY_TRANSFER_STATUS_linked_event_failed);
    CHECK_EQ(results[15].status, TALLY_TRANSFER_STATUS_created);
    end();
}

static void test_a_chain_that_fits_no_datagram_is_refused(void) {
    begin();
    for (unsigned full = 0; full < 2; full++) {
        unsigned fits = full ? 11 : 22;
        for (unsigned length = fits; length <= fits + 1; length++) {
            fill_transfers(transfers, length, 1 + 100 * length);
            for (unsigned i = 0; i + 1 < length; i++)
                transfers[i].flags = TALLY_TRANSFER_LINKED;
            transfers[length - 1].user_data_64 = full;
            struct counted_request counted = transfer_request(transfers, length, results, 0);
            int rc = tally_submit(client, &counted.request);
            CHECK_EQ(rc, length == fits ? 0 : -EMSGSIZE);
            if (rc == 0)
                CHECK(fake_client_run(network, client, &counted.done, NS_PER_SECOND));
        }
    }
    CHECK_EQ(network->server.created, 33);
    end();
}

static void test_an_open_chain_does_not_reach_into_the_next_request(void) {
    begin();
    fill_transfers(transfers, 3, 1);
    transfers[0].flags = transfers[1].flags = TALLY_TRANSFER_LINKED;
    struct counted_request first = transfer_request(transfers, 2, results, 0);
    struct counted_request second = transfer_request(transfers + 2, 1, results + 2, 0);
    CHECK_EQ(tally_submit(client, &first.request), 0);
    CHECK_EQ(tally_submit(client, &second.request), 0);
    CHECK(fake_client_run(network, client, &second.done, NS_PER_SECOND));
    CHECK(fake_client_run(network, client, &first.done, NS_PER_SECOND));
    CHECK_EQ(results[0].status, TALLY_TRANSFER_STATUS_linked_event_failed);
    CHECK_EQ(results[1].status, TALLY_TRANSFER_STATUS_linked_event_chain_open);
    CHECK_EQ(results[2].status, TALLY_TRANSFER_STATUS_created);
    end();
}

static void test_imported_events_travel_apart(void) {
    begin();
    fill_transfers(transfers, 4, 1);
    transfers[1].flags = transfers[3].flags = TALLY_TRANSFER_IMPORTED;
    struct counted_request counted[4];
    for (unsigned i = 0; i < 4; i++) {
        counted[i] = transfer_request(&transfers[i], 1, &results[i], 0);
        CHECK_EQ(tally_submit(client, &counted[i].request), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        CHECK(fake_client_run(network, client, &counted[i].done, NS_PER_SECOND));
    CHECK_EQ(network->server.requests, 2);
    end();
}

static void test_ordered_requests_wait_for_each_answer(void) {
    begin();
    fill_transfers(transfers, 1000, 1);
    transfers[500].user_data_64 = 1;
    send_all(1000, 0);
    CHECK_EQ(network->server.outstanding_max, 1);
    CHECK_EQ(count_status(results, 1000, TALLY_TRANSFER_STATUS_created), 1000);
    for (unsigned i = 1; i < 1000; i++)
        CHECK(results[i].timestamp > results[i - 1].timestamp);
    end();
}

static void test_a_datagram_goes_to_the_lcore_of_its_events(void) {
    network = fake_network_open(1);
    network->server.lcores = FAKE_LCORES;
    client = fake_client_open(network, NULL);
    fill_transfers(transfers, 2000, 1);
    send_all(2000, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(network->server.wrong_port, 0);
    CHECK_EQ(network->server.created, 2000);
    CHECK(network->server.requests <= 2000 / 22 + FAKE_LCORES + 1);
    fill_transfers(transfers, 100, 5000);
    send_all(100, 0);
    CHECK_EQ(network->server.wrong_port, 0);
    CHECK_EQ(network->server.created, 2100);
    end();
}

static void test_lookups_are_bounded_by_their_answers(void) {
    static tally_uint128_t ids[200];
    static struct tally_transfer records[200];
    begin();
    fill_transfers(transfers, 150, 1);
    send_all(150, TALLY_REQUEST_UNORDERED);
    uint64_t before = network->server.requests;
    for (unsigned i = 0; i < 200; i++)
        ids[i] = i + 1;
    CHECK_EQ(tally_lookup_transfers(client, ids, 200, results, records), 0);
    CHECK_EQ(network->server.requests - before, 3); /* 72, 72, 56 */
    CHECK_EQ(count_status(results, 200, TALLY_LOOKUP_STATUS_found), 150);
    CHECK_EQ(count_status(results, 200, TALLY_LOOKUP_STATUS_absent), 50);
    for (unsigned i = 0; i < 150; i++)
        CHECK(records[i].id == ids[i] && records[i].amount == transfers[i].amount &&
              records[i].timestamp);
    end();
}

static void test_bad_requests_are_refused(void) {
    struct counted_request counted;
    begin();
    fill_transfers(transfers, 1, 1);
    for (unsigned fault = 0; fault < 8; fault++) {
        counted = transfer_request(transfers, 1, results, 0);
        struct tally_request *request = &counted.request;
        switch (fault) {
        case 0:
            request->operation = 9;
            break;
        case 1:
            request->count = 0;
            break;
        case 2:
            request->count = TALLY_EVENTS_MAX + 1;
            break;
        case 3:
            request->events = NULL;
            break;
        case 4:
            request->results = NULL;
            break;
        case 5:
            request->flags = 1 << 9;
            break;
        case 6:
            request->flags = TALLY_REQUEST_BALANCES;
            break;
        case 7:
            request->operation = TALLY_LOOKUP_ACCOUNTS;
            break;
        }
        CHECK_EQ(tally_submit(client, request), -EINVAL);
    }
    CHECK_EQ(network->server.requests, 0);
    end();
}

int main(void) {
    TEST_RUN(test_plain_transfers_22_a_datagram);
    TEST_RUN(test_what_is_not_plain_goes_full_11_a_datagram);
    TEST_RUN(test_formats_are_kept_apart_when_order_is_free);
    TEST_RUN(test_balances_leave_room_for_21);
    TEST_RUN(test_small_requests_share_datagrams);
    TEST_RUN(test_chains_are_never_split);
    TEST_RUN(test_a_chain_that_fits_no_datagram_is_refused);
    TEST_RUN(test_an_open_chain_does_not_reach_into_the_next_request);
    TEST_RUN(test_imported_events_travel_apart);
    TEST_RUN(test_ordered_requests_wait_for_each_answer);
    TEST_RUN(test_a_datagram_goes_to_the_lcore_of_its_events);
    TEST_RUN(test_lookups_are_bounded_by_their_answers);
    TEST_RUN(test_bad_requests_are_refused);
    return TEST_DONE();
}

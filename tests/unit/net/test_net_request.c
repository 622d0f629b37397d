/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/net/net_fixture.h"

/** Requests and replies of an open session, with a fake engine. */

static struct fixture fixture;
static struct client client;
static struct answer answer;
static struct net_reply_header header;

static const struct net_counters *counters(void) {
    return net_counters(fixture.net);
}

static bool begin(void) {
    fixture_open(&fixture);
    client = client_make(1, 4);
    return client_connect(&fixture, &client);
}

static bool reply(void) {
    return client_reply(&fixture, &client, &answer, &header);
}

/** Send a request made of anything. */
static void request(uint64_t number, uint8_t operation, uint8_t format, uint16_t event_count,
                    const void *events, size_t events_bytes, const void *options,
                    uint16_t options_bytes) {
    struct net_request_header request_header = {.request = number,
                                                .operation = operation,
                                                .event_format = format,
                                                .event_count = event_count,
                                                .options_bytes = options_bytes};
    client_request(&fixture, &client, request_header, events, events_bytes, options);
}

static void compact_transfers(void) {
    CHECK(begin());
    client_transfers(&fixture, &client, 1, 22);
    CHECK_EQ(fixture.request_count, 1);
    const struct engine_request *got = fixture.requests[0];
    CHECK_EQ(got->operation, OPERATION_CREATE_TRANSFERS);
    CHECK_EQ(got->event_format, EVENT_FORMAT_COMPACT);
    CHECK_EQ(got->event_count, 22);
    CHECK_EQ(got->options, 0);
    CHECK_EQ((uintptr_t)got->events % 16, 0);
    for (unsigned i = 0; i < 22; i++) {
        CHECK_EQ(((const struct compact_transfer *)got->events)[i].id[0], 100 + i);
        CHECK_EQ(((const struct compact_transfer *)got->events)[i].amount, i + 1);
    }
    fixture_complete(&fixture, 0, 9);
    CHECK(reply());
    CHECK_EQ(header.request, 1);
    CHECK_EQ(header.code, REQUEST_CODE_ok);
    CHECK_EQ(header.operation, OPERATION_CREATE_TRANSFERS);
    CHECK_EQ(header.datagram_index, 0);
    CHECK_EQ(header.datagram_count, 1);
    CHECK_EQ(header.entry_first, 0);
    CHECK_EQ(header.entry_count, 22);
    CHECK_EQ(header.options_bytes, NET_REPLY_OPTIONS_BYTES);
    CHECK_EQ(answer.body_bytes, 24 + 32 + 22 * 16);
    /* token: term 3, group 9, age 0; then padding */
    const uint8_t *options = answer.body + sizeof(header);
    const uint8_t token[32] = {NET_OPTION_TOKEN, 24, 3, [10] = 9};
    CHECK(memcmp(options, token, sizeof(token)) == 0);
    for (unsigned i = 0; i < 22; i++) {
        struct result result;
        memcpy(&result, options + 32 + i * sizeof(result), sizeof(result));
        CHECK_EQ(result.timestamp, 1000 + i);
        CHECK_EQ(result.status, TRANSFER_STATUS_created);
    }
    CHECK_EQ(counters()->requests, 1);
    CHECK_EQ(counters()->events, 22);
    CHECK_EQ(counters()->replies, 1);
    fixture_close(&fixture);
}

/** Full events reach the engine aligned, whatever stands in front of them. */
static void full_events_and_options(void) {
    CHECK(begin());
    struct transfer events[10];
    memset(events, 0, sizeof(events));
    events[9].timeout = 77;
    const uint8_t options[48] = {
        NET_OPTION_BALANCES,
        0, /* */
        NET_OPTION_MINIMUM_TOKEN,
        16,
        2,
        [12] = 0xff, /* of an earlier term: any group */
        [20] = NET_OPTION_MAXIMUM_AGE,
        8,
        [30] = 200,
        3,
        1,
        2,
        3, /* unknown one */
        [35] = NET_OPTION_RECEIPT,
        0,
        NET_OPTION_STALE_OK,
        0,
        [39] = 16,
        0, /* a reply's option means nothing here */
    };
    request(1, OPERATION_CREATE_TRANSFERS, EVENT_FORMAT_FULL, 10, events, sizeof(events), options,
            sizeof(options));
    CHECK_EQ(fixture.request_count, 1);
    const struct engine_request *got = fixture.requests[0];
    CHECK_EQ(got->options, REQUEST_BALANCES | REQUEST_STALE_OK);
    CHECK_EQ((uintptr_t)got->events % 16, 0);
    CHECK_EQ((uintptr_t)got->balances % 16, 0);
    CHECK(memcmp(got->events, events, sizeof(events)) == 0);
    fixture_complete(&fixture, 0, 9);
    CHECK(reply());
    CHECK_EQ(header.entry_count, 10);
    CHECK_EQ(answer.body_bytes, 24 + 32 + 10 * 80);
    struct balances balances;
    memcpy(&balances, answer.body + 56 + 9 * 80 + 16, sizeof(balances));
    CHECK_EQ(balances.debits_posted, 9);
    CHECK_EQ(balances.credits_posted, 7);
    fixture_close(&fixture);
}

/** With balances 22 compact events need two datagrams; entries go on where the first one ended. */
static void balances_over_two_datagrams(void) {
    CHECK(begin());
    struct compact_transfer events[21] = {0};
    const uint8_t options[8] = {NET_OPTION_BALANCES, 0};
    request(1, OPERATION_CREATE_TRANSFERS, EVENT_FORMAT_COMPACT, 21, events, sizeof(events),
            options, sizeof(options));
    CHECK_EQ(fixture.request_count, 1);
    fixture_complete(&fixture, 0, 1);
    CHECK(reply());
    CHECK_EQ(header.datagram_count, 2);
    CHECK_EQ(header.entry_count, 17);
    CHECK(reply());
    CHECK_EQ(header.datagram_index, 1);
    CHECK_EQ(header.entry_first, 17);
    CHECK_EQ(header.entry_count, 4);
    CHECK(!client_receive(&fixture, &client, &answer));
    CHECK_EQ(fixture.net->table.charge_used, 1);
    CHECK(client_acknowledge(&fixture, &client, 1));
    CHECK_EQ(fixture.net->table.charge_used, 0);
    fixture_close(&fixture);
}

/** A request's memory is used again; what the engine did to the last one's pointers must not matter
 *  (it clears the place of balances that nobody wants: the next request that wanted them
 *  crashed). */
static void memory_is_reused(void) {
    CHECK(begin());
    struct compact_transfer event = {.amount = 1};
    const uint8_t options[8] = {NET_OPTION_BALANCES, 0};
    uint128_t id = 3;
    for (uint64_t number = 1; number <= 30; number += 3) {
        client_transfers(&fixture, &client, number, 5);
        fixture_complete_all(&fixture);
        CHECK(reply());
        request(number + 1, OPERATION_CREATE_TRANSFERS, EVENT_FORMAT_COMPACT, 1, &event,
                sizeof(event), options, sizeof(options));
        CHECK_EQ(fixture.requests[0]->wait_group, 0);
        fixture_complete_all(&fixture);
        CHECK(reply());
        CHECK_EQ(answer.body_bytes, 56 + 80);
        request(number + 2, OPERATION_LOOKUP_ACCOUNTS, 0, 1, &id, sizeof(id), NULL, 0);
        fixture_complete_all(&fixture);
        CHECK(reply());
        CHECK_EQ(answer.body_bytes, 56 + 16 + 128);
    }
    fixture_close(&fixture);
}

/** A lookup's reply over many datagrams: every id answered once, found ones with their record, none
 *  split. */
static void lookups(void) {
    CHECK(begin());
    static uint128_t ids[90];
    for (unsigned i = 0; i < 90; i++)
        ids[i] = uint128_make(7, 1000 + i);
    for (uint64_t number = 1, count = 1; count <= 72; count += number == 1 ? 8 : 9, number++) {
        request(number, number & 1 ? OPERATION_LOOKUP_ACCOUNTS : OPERATION_LOOKUP_TRANSFERS,
                EVENT_FORMAT_FULL, (uint16_t)count, ids, count * 16, NULL, 0);
        CHECK_EQ(fixture.request_count, 1);
        CHECK_EQ((uintptr_t)fixture.requests[0]->records % 16, 0);
        fixture_complete(&fixture, 0, 1);
        unsigned next = 0, datagrams = 0;
        do {
            CHECK(reply());
            CHECK(answer.packet.payload_bytes <= 1472);
            CHECK_EQ(header.request, number);
            CHECK_EQ(header.datagram_index, datagrams++);
            CHECK_EQ(header.entry_first, next);
            const uint8_t *at = answer.body + 56;
            for (unsigned i = 0; i < header.entry_count; i++, next++) {
                struct result result;
                memcpy(&result, at, sizeof(result));
                at += sizeof(result);
                CHECK_EQ(result.status, next % 3 == 2 ? LOOKUP_STATUS_absent : LOOKUP_STATUS_found);
                if (result.status != LOOKUP_STATUS_found)
                    continue;
                struct account account;
                memcpy(&account, at, sizeof(account));
                at += sizeof(account);
                CHECK(account.id == ids[next]);
                CHECK_EQ(account.ledger, next);
            }
            CHECK_EQ(at - answer.body, answer.body_bytes);
        } while (datagrams < header.datagram_count);
        CHECK_EQ(next, count);
        CHECK(datagrams <= NET_REPLY_DATAGRAMS_MAX);
        CHECK(client_acknowledge(&fixture, &client, number));
    }
    request(client.acknowledged + 1, OPERATION_LOOKUP_ACCOUNTS, EVENT_FORMAT_FULL, 73, ids, 73 * 16,
            NULL, 0);
    CHECK_EQ(fixture.request_count, 0);
    CHECK(reply());
    CHECK_EQ(header.code, REQUEST_CODE_malformed);
    fixture_close(&fixture);
}

/** The largest payload: full requests, and the longest reply that there is. */
static void jumbo(void) {
    fixture_prepare(&fixture);
    struct net_config config = fixture_config(&fixture);
    client = client_make(1, 4);
    config.payload_max = client.payload_max = NET_PAYLOAD_MAX;
    fixture_open_with(&fixture, &config);
    CHECK(client_connect(&fixture, &client));
    CHECK_EQ(client.welcome.payload_max, NET_PAYLOAD_MAX);
    static struct compact_transfer events[139];
    const uint8_t options[8] = {NET_OPTION_BALANCES, 0};
    request(1, OPERATION_CREATE_TRANSFERS, EVENT_FORMAT_COMPACT, 138, events, 138 * 64, options, 8);
    CHECK_EQ(fixture.request_count, 1);
    fixture_complete_all(&fixture);
    for (unsigned entries = 0; entries < 138; entries += header.entry_count) {
        CHECK(reply());
        CHECK_EQ(header.code, REQUEST_CODE_ok);
        CHECK_EQ(header.entry_first, entries);
    }
    request(2, OPERATION_CREATE_TRANSFERS, EVENT_FORMAT_COMPACT, 139, events, sizeof(events), NULL,
            0);
    CHECK(reply());
    CHECK_EQ(header.code, REQUEST_CODE_malformed);

    static uint128_t ids[489];
    request(3, OPERATION_LOOKUP_ACCOUNTS, EVENT_FORMAT_FULL, 489, ids, sizeof(ids), NULL, 0);
    CHECK(reply());
    CHECK_EQ(header.code, REQUEST_CODE_malformed);
    request(4, OPERATION_LOOKUP_ACCOUNTS, EVENT_FORMAT_FULL, 488, ids, 488 * 16, NULL, 0);
    CHECK_EQ(fixture.request_count, 1);
    struct engine_request *lookup = fixture.requests[fixture.request_count = 0];
    for (unsigned i = 0; i < 488; i++)
        lookup->results[i] = (struct result){.status = LOOKUP_STATUS_found};
    net_reply(fixture.net, lookup, fixture.now_ns);
    net_flush(fixture.net, fixture.now_ns);
    for (unsigned i = 0; i < NET_REPLY_DATAGRAMS_MAX; i++) {
        CHECK(reply());
        CHECK_EQ(header.datagram_count, NET_REPLY_DATAGRAMS_MAX);
        CHECK_EQ(header.entry_count, 61);
        CHECK_EQ(answer.packet.payload_bytes, 40 + 24 + 32 + 61 * 144);
    }
    CHECK(client_acknowledge(&fixture, &client, 4));
    fixture_close(&fixture);
}

/** Refused with a code, before any effect; the number is used up and the refusal stored like any
 *  reply. */
static void refused_requests(void) {
    static const uint8_t bytes[1500];
    static const uint8_t cut[8] = {NET_OPTION_DEADLINE, 8}, wrong[8] = {NET_OPTION_BALANCES, 1},
                         lonely[8] = {0, 0, 0, 0, 0, 0, 0, NET_OPTION_RECEIPT},
                         future[24] = {NET_OPTION_MINIMUM_TOKEN, 16, 4},
                         ahead[24] = {NET_OPTION_MINIMUM_TOKEN, 16, 3, [10] = 1};
    static const struct {
        const char *what;
        uint8_t operation, format;
        uint16_t count;
        size_t bytes;
        const uint8_t *options;
        uint16_t options_bytes;
        enum request_code want;
    } cases[] = {
        {"operation 0", 0, 0, 1, 128, NULL, 0, REQUEST_CODE_unsupported_operation},
        {"operation 5", 5, 0, 1, 128, NULL, 0, REQUEST_CODE_unsupported_operation},
        {"operation 255", 255, 0, 1, 128, NULL, 0, REQUEST_CODE_unsupported_operation},
        {"format 2", 2, 2, 1, 128, NULL, 0, REQUEST_CODE_malformed},
        {"compact accounts", 1, 1, 1, 64, NULL, 0, REQUEST_CODE_malformed},
        {"compact lookup", 3, 1, 1, 16, NULL, 0, REQUEST_CODE_malformed},
        {"no event", 2, 1, 0, 0, NULL, 0, REQUEST_CODE_malformed},
        {"a byte too few", 2, 1, 2, 127, NULL, 0, REQUEST_CODE_malformed},
        {"a byte too many", 2, 1, 2, 129, NULL, 0, REQUEST_CODE_malformed},
        {"count too small", 2, 0, 1, 256, NULL, 0, REQUEST_CODE_malformed},
        {"count wraps", 2, 1, 0xffff, 64, NULL, 0, REQUEST_CODE_malformed},
        {"datagram over the limit", 2, 1, 22, 22 * 64, bytes, 8, REQUEST_CODE_malformed},
        {"lookup's reply too long", 3, 0, 80, 80 * 16, NULL, 0, REQUEST_CODE_malformed},
        {"options not a multiple of 8", 2, 1, 1, 64, bytes, 4, REQUEST_CODE_malformed},
        {"option runs out", 2, 1, 1, 64, cut, 8, REQUEST_CODE_malformed},
        {"option of the wrong length", 2, 1, 1, 64, wrong, 8, REQUEST_CODE_malformed},
        {"option without a length", 2, 1, 1, 64, lonely, 8, REQUEST_CODE_malformed},
        {"token of a later term", 3, 0, 1, 16, future, 24, REQUEST_CODE_replica_behind},
        {"token of a later group", 3, 0, 1, 16, ahead, 24, REQUEST_CODE_replica_behind},
    };
    CHECK(begin());
    const unsigned count = sizeof(cases) / sizeof(cases[0]);
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < count; i++) {
            request(i + 1, cases[i].operation, cases[i].format, cases[i].count, bytes,
                    cases[i].bytes, cases[i].options, cases[i].options_bytes);
            CHECK(reply());
            if (header.code != cases[i].want)
                printf("%s: code %u, should be %u\n", cases[i].what, header.code, cases[i].want);
            CHECK_EQ(header.code, cases[i].want);
            CHECK_EQ(header.request, i + 1);
            CHECK_EQ(header.entry_count, 0);
            CHECK_EQ(header.datagram_count, 1);
            CHECK_EQ(answer.body_bytes, 56);
        }
    CHECK_EQ(fixture.request_count, 0);
    CHECK_EQ(counters()->requests, 0);
    CHECK_EQ(counters()->malformed, count - 2);
    CHECK_EQ(counters()->behind, 2);
    CHECK_EQ(counters()->duplicates, count);
    /* options that claim more than there is */
    uint8_t body[24] = {(uint8_t)(count + 1), [16] = 2, 1, 1, 0, 8};
    client_send(&fixture, &client, NET_REQUEST, body, sizeof(body));
    fixture_pump(&fixture);
    CHECK(reply());
    CHECK_EQ(header.code, REQUEST_CODE_malformed);
    /* too short to have a number: nobody to answer to */
    for (size_t cut_at = 0; cut_at < 24; cut_at++)
        client_send(&fixture, &client, NET_REQUEST, body, cut_at);
    fixture_pump(&fixture);
    CHECK_EQ(counters()->drop_malformed, 24);
    CHECK(!client_receive(&fixture, &client, &answer));
    CHECK_EQ(fixture.net->table.replies.free_count, 1024 - count - 1);
    CHECK(client_acknowledge(&fixture, &client, count + 1));
    CHECK_EQ(fixture.net->table.replies.free_count, 1024);
    fixture_close(&fixture);
}

/** Once our group reaches it, the token is met. */
static void minimum_token(void) {
    CHECK(begin());
    uint128_t id = 5;
    const uint8_t options[24] = {NET_OPTION_MINIMUM_TOKEN, 16, 3, [10] = 8};
    client_transfers(&fixture, &client, 1, 1);
    fixture_complete(&fixture, 0, 7);
    CHECK(reply());
    request(2, OPERATION_LOOKUP_ACCOUNTS, 0, 1, &id, 16, options, 24);
    CHECK(reply());
    CHECK_EQ(header.code, REQUEST_CODE_replica_behind);
    client_transfers(&fixture, &client, 3, 1);
    fixture_complete(&fixture, 0, 8);
    CHECK(reply());
    request(4, OPERATION_LOOKUP_ACCOUNTS, 0, 1, &id, 16, options, 24);
    CHECK_EQ(fixture.request_count, 1);
    fixture_complete_all(&fixture);
    fixture_close(&fixture);
}

int main(void) {
    fixture_start();
    TEST_RUN(compact_transfers);
    TEST_RUN(full_events_and_options);
    TEST_RUN(balances_over_two_datagrams);
    TEST_RUN(memory_is_reused);
    TEST_RUN(lookups);
    TEST_RUN(jumbo);
    TEST_RUN(refused_requests);
    TEST_RUN(minimum_token);
    return TEST_DONE();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/client/client_fixture.h"

/** Sessions: window, credit, retransmission, loss, restarts, deadlines. Time is virtual. */

static struct tally_transfer transfers[TALLY_EVENTS_MAX];
static struct tally_result results[TALLY_EVENTS_MAX];
static uint64_t seed;

static void close_all(struct fake_network *network, struct tally_client *client) {
    tally_client_close(client);
    fake_network_close(network);
}

static void test_handshake_and_blocking_calls(void) {
    struct fake_network *network = fake_network_open(1);
    struct tally_client *client = fake_client_open(network, NULL);
    struct tally_account account = {.id = 7, .ledger = 1, .code = 1}, found;
    struct tally_result result;
    struct tally_balances balances;
    struct tally_info info;
    tally_uint128_t id = 7;
    CHECK(client);
    tally_client_info(client, &info);
    CHECK_EQ(info.partitions, 256);
    CHECK_EQ(info.payload_max, 1472);
    CHECK_EQ(info.window, NET_WINDOW_DEFAULT);
    CHECK_EQ(tally_create_accounts(client, &account, 1, &result), 0);
    CHECK_EQ(result.status, TALLY_ACCOUNT_STATUS_created);
    CHECK_EQ(tally_create_accounts(client, &account, 1, &result), 0);
    CHECK_EQ(result.status, TALLY_ACCOUNT_STATUS_exists);
    CHECK_EQ(result.flags, 0);
    CHECK_EQ(tally_lookup_accounts(client, &id, 1, &result, &found), 0);
    CHECK_EQ(result.status, TALLY_LOOKUP_STATUS_found);
    CHECK(found.id == 7 && found.timestamp != 0);
    fill_transfers(transfers, 2, 1);
    transfers[1].amount = FAKE_AMOUNT_REFUSED;
    CHECK_EQ(tally_create_transfers(client, transfers, 1, &result, &balances), 0);
    CHECK(result.status == TALLY_TRANSFER_STATUS_created &&
          balances.debits_posted == transfers[0].amount);
    CHECK_EQ(tally_create_transfers(client, transfers + 1, 1, &result, NULL), 0);
    CHECK_EQ(result.status, TALLY_TRANSFER_STATUS_exceeds_credits);
    CHECK_EQ(network->server.violations, 0);
    CHECK_EQ(network->server.sessions, 1);
    close_all(network, client);
}

static void test_a_lossy_handshake_gets_through(void) {
    for (uint64_t i = 0; i < 50; i++) {
        struct fake_network *network = fake_network_open(seed + i);
        network->loss_percent = 40;
        network->duplicate_percent = 20;
        struct tally_client *client = fake_client_open(network, NULL);
        CHECK(client);
        CHECK_EQ(network->server.violations, 0);
        close_all(network, client);
    }
}

static void test_window_and_credit_are_respected(void) {
    struct fake_network *network = fake_network_open(1);
    network->server.window = 64;
    struct tally_client *client = fake_client_open(network, NULL);
    fill_transfers(transfers, TALLY_EVENTS_MAX, 1);
    struct counted_request counted =
        transfer_request(transfers, TALLY_EVENTS_MAX, results, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    CHECK(fake_client_run(network, client, &counted.done, 5 * NS_PER_SECOND));
    CHECK_EQ(network->server.violations, 0);
    CHECK_EQ(network->server.outstanding_max, 64);
    CHECK_EQ(network->server.created, TALLY_EVENTS_MAX);
    CHECK_EQ(counted.done_count, 1);
    CHECK_EQ(counted.request.code, TALLY_OK);
    close_all(network, client);
}

/** Credit comes only with acknowledgements: the client sends them when it has nothing else to
 *  send. */
static void test_little_credit_is_enough(void) {
    for (unsigned loss = 0; loss <= 20; loss += 20) {
        struct fake_network *network = fake_network_open(seed);
        network->server.credit_span = 3;
        struct tally_client *client = fake_client_open(network, NULL);
        network->loss_percent = loss;
        fill_transfers(transfers, 1000, 1);
        struct counted_request counted =
            transfer_request(transfers, 1000, results, TALLY_REQUEST_UNORDERED);
        counted.request.timeout_ms = 60000;
        CHECK_EQ(tally_submit(client, &counted.request), 0);
        CHECK(fake_client_run(network, client, &counted.done, 60 * NS_PER_SECOND));
        CHECK_EQ(counted.request.code, TALLY_OK);
        CHECK_EQ(network->server.violations, 0);
        CHECK(network->server.outstanding_max <= 3);
        CHECK_EQ(client->stats.sessions, 1);
        close_all(network, client);
    }
}

static void test_the_callers_window_is_respected_too(void) {
    struct fake_network *network = fake_network_open(1);
    struct tally_client *client = fake_client_open(network, &(struct tally_options){.window = 3});
    fill_transfers(transfers, 2200, 1);
    struct counted_request counted =
        transfer_request(transfers, 2200, results, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    while (!counted.done) {
        tally_client_poll(client);
        CHECK(client->session.outstanding <= 3);
    }
    CHECK_EQ(network->server.created, 2200);
    close_all(network, client);
}

/** Many requests over a bad network, perhaps with restarts: each is called back once, and each
 *  event took effect once. */
static void rough_run(struct fake_network *network, struct tally_client *client,
                      unsigned request_count, unsigned restarts) {
    static struct counted_request counted[1500];
    unsigned done = 0, next = 0;
    uint64_t until_ns = network->now_ns + 300 * NS_PER_SECOND;
    fill_transfers(transfers, request_count * 5, 1);
    for (unsigned i = 0; i < request_count * 5; i++) {
        if (i % 5 < 2) /* chains of three, and two single events */
            transfers[i].flags = TALLY_TRANSFER_LINKED;
        if (i % 35 == 1)
            transfers[i].amount = FAKE_AMOUNT_REFUSED;
    }
    while (done < request_count && network->now_ns < until_ns) {
        if (next < request_count && fake_random(&network->random) % 4 == 0) {
            uint32_t flags = fake_random(&network->random) % 2 ? TALLY_REQUEST_UNORDERED : 0;
            counted[next] = transfer_request(&transfers[next * 5], 5, &results[next * 5], flags);
            counted[next].request.timeout_ms = 200000;
            CHECK_EQ(tally_submit(client, &counted[next].request), 0);
            next++;
        }
        if (restarts && network->restart_at_ns == 0 && fake_random(&network->random) % 400 == 0) {
            network->restart_at_ns = network->now_ns;
            network->dead_for_ns = fake_random(&network->random) % (300 * NS_PER_MS);
            restarts--;
        }
        done += tally_client_poll(client);
        const struct parcel *parcel;
        TAILQ_FOREACH(parcel, &client->sent, link)
        CHECK(parcel->number > client->session.acknowledged);
    }
    CHECK_EQ(done, request_count);
    for (unsigned i = 0; i < request_count * 5; i++) {
        struct fake_record *record = fake_server_find(&network->server, transfers[i].id);
        uint32_t status = results[i].status;
        CHECK_EQ(counted[i / 5].done_count, 1);
        bool chain_fails = i % 5 < 3 && (i - i % 5 + 1) % 35 == 1;
        if (!chain_fails) {
            CHECK(record && record->kind == 2 && record->executions == 1);
            CHECK(
                status == TALLY_TRANSFER_STATUS_created ||
                (status == TALLY_TRANSFER_STATUS_exists && results[i].flags & TALLY_RESULT_RESENT));
            CHECK_EQ(results[i].timestamp, record->timestamp);
        } else if (i % 35 == 1) {
            CHECK(record && record->kind == 3);
            CHECK(status == TALLY_TRANSFER_STATUS_exceeds_credits ||
                  (status == TALLY_TRANSFER_STATUS_id_already_failed &&
                   results[i].flags & TALLY_RESULT_RESENT));
        } else {
            CHECK(!record);
            CHECK_EQ(status, TALLY_TRANSFER_STATUS_linked_event_failed);
        }
    }
    CHECK_EQ(network->server.violations, 0);
}

static void test_loss_duplication_reordering(void) {
    for (uint64_t i = 0; i < 20; i++) {
        struct fake_network *network = fake_network_open(seed + i);
        struct tally_client *client = fake_client_open(network, NULL);
        network->loss_percent = (unsigned)i;
        network->duplicate_percent = 10;
        network->jitter_ns = 2 * NS_PER_MS;
        rough_run(network, client, 400, 0);
        close_all(network, client);
        if (test_this_failed)
            return;
    }
}

static void test_restarts_of_the_server(void) {
    for (uint64_t i = 0; i < 20; i++) {
        struct fake_network *network = fake_network_open(seed + 100 + i);
        struct tally_client *client = fake_client_open(network, NULL);
        network->loss_percent = 3;
        network->jitter_ns = NS_PER_MS;
        rough_run(network, client, 1500, 5);
        struct tally_stats stats;
        tally_client_stats(client, &stats);
        CHECK(stats.sessions >= 2);
        close_all(network, client);
        if (test_this_failed)
            return;
    }
}

static void test_retransmission_backs_off_then_a_new_session(void) {
    struct fake_network *network = fake_network_open(4);
    struct tally_client *client = fake_client_open(network, NULL);
    fill_transfers(transfers, 1, 1);
    network->server.dead = true;
    struct counted_request counted = transfer_request(transfers, 1, results, 0);
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    struct tally_stats stats;
    uint64_t sent_ns[8], count = 0, last = 0;
    while (!counted.done && count < 8) {
        tally_client_poll(client);
        tally_client_stats(client, &stats);
        if (stats.requests_sent + stats.retransmissions != last)
            sent_ns[count++] = network->now_ns;
        last = stats.requests_sent + stats.retransmissions;
        if (stats.hellos > 2)
            break;
    }
    CHECK(count >= 3);
    for (unsigned i = 2; i < count; i++) {
        uint64_t gap = sent_ns[i] - sent_ns[i - 1], before = sent_ns[i - 1] - sent_ns[i - 2];
        CHECK(gap > before * 14 / 10 && gap < before * 28 / 10);
    }
    CHECK(sent_ns[1] - sent_ns[0] >= CLIENT_RTO_MIN_NS);
    CHECK(network->now_ns - sent_ns[0] >= CLIENT_SILENCE_NS);
    close_all(network, client);
}

/** Round trips suddenly take a hundred times as long as the RTO: retransmissions end soon,
 *  though none of them can be measured. */
static void test_a_longer_path_is_learnt(void) {
    struct fake_network *network = fake_network_open(seed);
    struct tally_client *client = fake_client_open(network, &(struct tally_options){.window = 8});
    fill_transfers(transfers, TALLY_EVENTS_MAX, 1);
    struct tally_result result;
    for (unsigned i = 0; i < 50; i++)
        CHECK_EQ(tally_create_transfers(client, transfers + i, 1, &result, NULL), 0);
    CHECK_EQ(client->session.rto_ns, CLIENT_RTO_MIN_NS);
    network->delay_ns = 60 * NS_PER_MS;
    struct counted_request counted =
        transfer_request(transfers, 8000, results, TALLY_REQUEST_UNORDERED);
    counted.request.timeout_ms = 100000;
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    fake_client_run(network, client, &counted.done, 3 * NS_PER_SECOND);
    uint64_t before = client->stats.retransmissions;
    CHECK(fake_client_run(network, client, &counted.done, 60 * NS_PER_SECOND));
    CHECK_EQ(client->stats.retransmissions, before);
    CHECK(before < 8 * 8);
    CHECK_EQ(client->stats.sessions, 1);
    close_all(network, client);
}

/** The server is off its core for a while: a few requests are sent again, not the whole window. */
static void test_an_absent_server_is_not_flooded(void) {
    struct fake_network *network = fake_network_open(seed);
    struct tally_client *client = fake_client_open(network, NULL);
    fill_transfers(transfers, 5000, 1);
    struct counted_request counted =
        transfer_request(transfers, 5000, results, TALLY_REQUEST_UNORDERED);
    network->server.dead = true;
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    CHECK(!fake_client_run(network, client, &counted.done, 140 * NS_PER_MS));
    CHECK(client->stats.retransmissions > 0 && client->stats.retransmissions < 60);
    network->server.dead = false;
    CHECK(fake_client_run(network, client, &counted.done, 2 * NS_PER_SECOND));
    CHECK_EQ(client->stats.sessions, 1);
    CHECK_EQ(network->server.created, 5000);
    close_all(network, client);
}

static void test_a_slow_server_keeps_its_session(void) {
    struct fake_network *network = fake_network_open(5);
    struct tally_client *client = fake_client_open(network, NULL);
    struct tally_stats stats;
    fill_transfers(transfers, 3, 1);
    CHECK_EQ(tally_create_transfers(client, transfers, 1, results, NULL), 0);
    network->server.hold = true; /* accepted, not decided: only ACKs are answered */
    struct counted_request counted = transfer_request(transfers + 1, 1, results + 1, 0);
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    CHECK(!fake_client_run(network, client, &counted.done, 2 * NS_PER_SECOND));
    network->server.hold = false;
    CHECK(fake_client_run(network, client, &counted.done, 3 * NS_PER_SECOND));
    tally_client_stats(client, &stats);
    CHECK_EQ(stats.sessions, 1);
    CHECK(stats.retransmissions > 3);
    CHECK_EQ(results[1].status, TALLY_TRANSFER_STATUS_created);
    CHECK_EQ(results[1].flags, 0);
    close_all(network, client);
}

static void test_idle_sessions_are_kept_alive(void) {
    struct fake_network *network = fake_network_open(11);
    struct tally_client *client = fake_client_open(network, NULL);
    network->tick_ns = 10 * NS_PER_MS;
    bool never = false;
    fake_client_run(network, client, &never, NS_PER_SECOND);
    uint64_t acks = network->server.acks;
    fake_client_run(network, client, &never, 100 * NS_PER_SECOND);
    CHECK_EQ(network->server.acks - acks, 6);
    network->tick_ns = 10000;
    network->now_ns += 70 * NS_PER_SECOND; /* nobody polled */
    fill_transfers(transfers, 1, 1);
    CHECK_EQ(tally_create_transfers(client, transfers, 1, results, NULL), 0);
    CHECK_EQ(results[0].flags, 0);
    struct tally_stats stats;
    tally_client_stats(client, &stats);
    CHECK_EQ(stats.sessions, 2);
    CHECK_EQ(stats.retransmissions, 0);
    close_all(network, client);
}

static void test_a_full_transport_is_waited_for(void) {
    struct fake_network *network = fake_network_open(12);
    struct tally_client *client = fake_client_open(network, NULL);
    fill_transfers(transfers, 500, 1);
    bool never = false;
    network->full = true;
    fake_client_run(network, client, &never,
                    16 * NS_PER_SECOND); /* the ACK that is due waits too */
    struct counted_request counted =
        transfer_request(transfers, 500, results, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(tally_submit(client, &counted.request), 0);
    CHECK(!fake_client_run(network, client, &counted.done, 20 * NS_PER_MS));
    network->full = false;
    CHECK(fake_client_run(network, client, &counted.done, 20 * NS_PER_MS));
    CHECK_EQ(network->server.created, 500);
    close_all(network, client);
}

static void test_garbage_is_counted_and_dropped(void) {
    struct fake_network *network = fake_network_open(seed);
    struct tally_client *client = fake_client_open(network, NULL);
    struct tally_stats before, after;
    uint8_t bytes[1472];
    tally_client_stats(client, &before);
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t length = (uint32_t)(fake_random(&network->random) % sizeof(bytes)) + 1;
        for (uint32_t k = 0; k < length; k++)
            bytes[k] = (uint8_t)fake_random(&network->random);
        if (i % 2 && length >= sizeof(struct net_header)) /* a good header, and anything behind */
            client_wire_seal(bytes, length, (uint8_t)(fake_random(&network->random) % 9),
                             client->session.id, network->server.counter + 1 + i);
        struct fake_datagram *datagram = &network->datagrams[network->count++];
        *datagram =
            (struct fake_datagram){.due_ns = network->now_ns, .length = length, .port = FAKE_PORT};
        memcpy(datagram->bytes, bytes, length);
        tally_client_poll(client);
    }
    tally_client_stats(client, &after);
    CHECK(after.datagrams_bad - before.datagrams_bad > 10000);
    CHECK(strcmp(tally_client_problem(client), "") == 0);
    CHECK_EQ(after.sessions, 1);
    close_all(network, client);
}

static void test_ping_touches_no_session(void) {
    struct fake_network *network = fake_network_open(15);
    struct tally_client *client = fake_client_open(network, NULL);
    uint64_t rtt_ns = 0;
    CHECK_EQ(tally_ping(client, 100, &rtt_ns), 0);
    CHECK(rtt_ns >= 2 * network->delay_ns && rtt_ns < 3 * network->delay_ns);
    CHECK_EQ(network->server.sessions, 1);
    network->server.dead = true;
    CHECK_EQ(tally_ping(client, 100, &rtt_ns), -ETIMEDOUT);
    close_all(network, client);
}

static void test_replay_window(void) {
    struct replay_window window = {0};
    CHECK(!client_wire_counter_accept(&window, 0));
    CHECK(client_wire_counter_accept(&window, 1) && !client_wire_counter_accept(&window, 1));
    CHECK(client_wire_counter_accept(&window, 1000) && client_wire_counter_accept(&window, 2) &&
          !client_wire_counter_accept(&window, 2));
    CHECK(client_wire_counter_accept(&window, 1025) && !client_wire_counter_accept(&window, 1) &&
          client_wire_counter_accept(&window, 3));
    CHECK(client_wire_counter_accept(&window, 100000) &&
          !client_wire_counter_accept(&window, 100000 - 1024));
    CHECK(client_wire_counter_accept(&window, 100000 - 1023) &&
          !client_wire_counter_accept(&window, 100000 - 1023));
}

int main(void) {
    seed = test_seed(20240607);
    TEST_RUN(test_handshake_and_blocking_calls);
    TEST_RUN(test_a_lossy_handshake_gets_through);
    TEST_RUN(test_window_and_credit_are_respected);
    TEST_RUN(test_little_credit_is_enough);
    TEST_RUN(test_the_callers_window_is_respected_too);
    TEST_RUN(test_loss_duplication_reordering);
    TEST_RUN(test_restarts_of_the_server);
    TEST_RUN(test_retransmission_backs_off_then_a_new_session);
    TEST_RUN(test_a_longer_path_is_learnt);
    TEST_RUN(test_an_absent_server_is_not_flooded);
    TEST_RUN(test_a_slow_server_keeps_its_session);
    TEST_RUN(test_idle_sessions_are_kept_alive);
    TEST_RUN(test_a_full_transport_is_waited_for);
    TEST_RUN(test_garbage_is_counted_and_dropped);
    TEST_RUN(test_ping_touches_no_session);
    TEST_RUN(test_replay_window);
    return TEST_DONE();
}

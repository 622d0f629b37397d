/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/net/net_fixture.h"

/** What a session bounds and survives: counters, numbers, acknowledgements, load, loss. */

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

static bool begin_with(void (*change)(struct net_config *config)) {
    fixture_prepare(&fixture);
    struct net_config config = fixture_config(&fixture);
    change(&config);
    fixture_open_with(&fixture, &config);
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

static void replayed_datagrams(void) {
    CHECK(begin());
    uint8_t datagram[FRAME_BYTES], body[24 + 64] = {1, [16] = 2, 1, 1};
    size_t bytes = client_datagram(&client, NET_REQUEST, body, sizeof(body), datagram);
    client_send_raw(&fixture, &client, datagram, bytes);
    fixture_pump(&fixture);
    CHECK_EQ(fixture.request_count, 1);
    struct snapshot before = snapshot_take(&fixture);
    for (unsigned i = 0; i < 5; i++)
        client_send_raw(&fixture, &client, datagram, bytes);
    fixture_pump(&fixture);
    CHECK_EQ(counters()->drop_replay, 5);
    CHECK(snapshot_same(&before, &fixture));
    fixture_complete_all(&fixture);
    CHECK(reply());
    before = snapshot_take(&fixture);
    client_send_raw(&fixture, &client, datagram, bytes);
    fixture_pump(&fixture);
    CHECK(snapshot_same(&before, &fixture));
    CHECK(!client_receive(&fixture, &client, &answer));

    /* a forged counter far ahead does not move the window: the tag comes first */
    client.counter = 1000000;
    bytes = client_datagram(&client, NET_REQUEST, body, sizeof(body), datagram);
    datagram[30] ^= 1;
    before = snapshot_take(&fixture);
    client_send_raw(&fixture, &client, datagram, bytes);
    fixture_pump(&fixture);
    CHECK_EQ(counters()->drop_tag, 1);
    CHECK(snapshot_same(&before, &fixture));
    /* a true one does, and what is 1024 behind it is too old */
    client.counter = 5000;
    client_send(&fixture, &client, NET_ACK, (uint8_t[16]){0}, 16);
    client.counter = 5001 - NET_REPLAY_WINDOW - 1;
    client_send(&fixture, &client, NET_ACK, (uint8_t[16]){0}, 16);
    client_send(&fixture, &client, NET_ACK, (uint8_t[16]){0}, 16);
    fixture_pump(&fixture);
    CHECK_EQ(counters()->drop_replay, 7);
    CHECK_EQ(counters()->acks, 2);
    fixture_close(&fixture);
}

static void request_number_window(void) {
    CHECK(begin());
    CHECK_EQ(client.credit, 64);
    client_transfers(&fixture, &client, 0, 1);
    client_transfers(&fixture, &client, 65, 1);
    client_transfers(&fixture, &client, UINT64_MAX, 1);
    CHECK_EQ(counters()->drop_window, 3);
    CHECK_EQ(fixture.request_count, 0);
    /* in any order; all of the credit at once */
    for (unsigned i = 64; i >= 1; i--)
        client_transfers(&fixture, &client, i, 1);
    CHECK_EQ(fixture.request_count, 64);
    CHECK_EQ(counters()->requests, 64);
    while (fixture.request_count > 0)
        fixture_complete(&fixture, fixture.request_count / 2, 1);
    for (unsigned i = 0; i < 64; i++)
        CHECK(reply());
    CHECK_EQ(client.credit, 64); /* nothing acknowledged, nothing new */
    /* every slot is replied now, and beyond the credit there is none to acknowledge */
    for (uint64_t lie = 65; lie != 0; lie = lie == 65 ? UINT64_MAX : 0)
        client_send(&fixture, &client, NET_ACK, &(struct net_ack){.acknowledged = lie},
                    sizeof(struct net_ack));
    fixture_pump(&fixture);
    CHECK_EQ(counters()->drop_malformed, 2);
    client_transfers(&fixture, &client, 65, 1);
    CHECK_EQ(counters()->drop_window, 4);
    CHECK(client_acknowledge(&fixture, &client, 10));
    CHECK_EQ(client.credit, 74);
    client_transfers(&fixture, &client, 74, 1);
    CHECK_EQ(fixture.request_count, 1);
    client_transfers(&fixture, &client, 75, 1);
    client_transfers(&fixture, &client, 10, 1);
    client_transfers(&fixture, &client, 1, 1);
    CHECK_EQ(counters()->drop_window, 7);
    fixture_complete_all(&fixture);
    fixture_close(&fixture);
}

/** The edge moves by the client's word only, and only over what has been replied. */
static void acknowledgements(void) {
    CHECK(begin());
    for (unsigned i = 1; i <= 5; i++)
        client_transfers(&fixture, &client, i, 1);
    fixture_complete(&fixture, 0, 1);
    fixture_complete(&fixture, 0, 1);
    fixture_complete(&fixture, 1, 1); /* 1, 2 and 4 */
    for (unsigned i = 0; i < 3; i++)
        CHECK(reply());
    static const uint64_t lies[] = {3, 4, 6, 64, 65, 66, 1000000, UINT64_MAX};
    for (unsigned i = 0; i < 8; i++) {
        struct net_ack ack = {.acknowledged = lies[i]};
        client_send(&fixture, &client, NET_ACK, &ack, sizeof(ack));
        client.acknowledged = lies[i];
        client_transfers(&fixture, &client, 6, 1);
    }
    client_send(&fixture, &client, NET_ACK, lies, 15);
    client_send(&fixture, &client, NET_ACK, lies, 17);
    fixture_pump(&fixture);
    client.acknowledged = 0;
    CHECK_EQ(counters()->drop_malformed, 18);
    CHECK_EQ(fixture.request_count, 2);
    CHECK(!client_receive(&fixture, &client, &answer));
    CHECK_EQ(fixture.net->table.replies.free_count, 1024 - 3);
    CHECK(client_acknowledge(&fixture, &client, 2));
    CHECK_EQ(fixture.net->table.replies.free_count, 1024 - 1);
    /* an older one changes nothing */
    struct net_ack ack = {.acknowledged = 1};
    client_send(&fixture, &client, NET_ACK, &ack, sizeof(ack));
    fixture_pump(&fixture);
    CHECK(client_receive(&fixture, &client, &answer));
    memcpy(&ack, answer.body, sizeof(ack));
    CHECK_EQ(ack.acknowledged, 2);
    CHECK_EQ(ack.credit, 66);
    /* requests carry them too */
    fixture_complete_all(&fixture);
    client.acknowledged = 5;
    client_transfers(&fixture, &client, 6, 1);
    CHECK_EQ(fixture.net->table.replies.free_count, 1024);
    fixture_complete_all(&fixture);
    fixture_close(&fixture);
}

static void duplicates(void) {
    CHECK(begin());
    client_transfers(&fixture, &client, 1, 3);
    client_transfers(&fixture, &client, 1, 3);
    client_transfers(&fixture, &client, 1, 2); /* the number says it, not what is in it */
    CHECK_EQ(fixture.request_count, 1);
    CHECK_EQ(counters()->duplicates, 2);
    CHECK(!client_receive(&fixture, &client, &answer));
    fixture_complete_all(&fixture);
    CHECK(reply()); /* lost, say */
    struct answer first = answer;
    for (unsigned i = 0; i < 3; i++) {
        client_transfers(&fixture, &client, 1, 3);
        CHECK(reply());
        CHECK(answer.header.counter > first.header.counter);
        CHECK_EQ(answer.body_bytes, first.body_bytes);
        CHECK(memcmp(answer.body, first.body, first.body_bytes) == 0);
    }
    CHECK_EQ(fixture.request_count, 0);
    CHECK_EQ(counters()->requests, 1);
    CHECK_EQ(counters()->duplicates, 5);
    CHECK_EQ(counters()->replies, 1);
    CHECK(client_acknowledge(&fixture, &client, 1));
    client_transfers(&fixture, &client, 1, 3);
    CHECK_EQ(counters()->drop_window, 1);
    CHECK(!client_receive(&fixture, &client, &answer));
    fixture_close(&fixture);
}

/** A reply sent again tells the credit of now. */
static void resent_reply_has_new_credit(void) {
    CHECK(begin());
    client_transfers(&fixture, &client, 1, 1);
    client_transfers(&fixture, &client, 2, 1);
    fixture_complete_all(&fixture);
    CHECK(reply());
    CHECK(reply());
    CHECK_EQ(header.request + (uint64_t)(int64_t)header.credit_ahead, 64);
    CHECK(client_acknowledge(&fixture, &client, 1));
    client_transfers(&fixture, &client, 2, 1);
    CHECK(reply());
    CHECK_EQ(header.request, 2);
    CHECK_EQ(header.request + (uint64_t)(int64_t)header.credit_ahead, 65);
    fixture_close(&fixture);
}

static bool retry_after(uint32_t *us) {
    const uint8_t *options = answer.body + sizeof(header);
    if (options[0] != NET_OPTION_TOKEN || options[26] != NET_OPTION_RETRY_AFTER || options[27] != 4)
        return false;
    memcpy(us, options + 28, 4);
    return true;
}

static void overloaded(void) {
    CHECK(begin());
    uint32_t us = 0;
    client_transfers(&fixture, &client, 1, 1);
    net_note_delay(fixture.net, 50 * NS_PER_MS);
    client_transfers(&fixture, &client, 2, 1);
    CHECK_EQ(fixture.request_count, 2);
    net_note_delay(fixture.net, 80 * NS_PER_MS);
    client_transfers(&fixture, &client, 3, 1);
    CHECK_EQ(fixture.request_count, 2);
    CHECK(reply());
    CHECK_EQ(header.request, 3);
    CHECK_EQ(header.code, REQUEST_CODE_overloaded);
    CHECK(retry_after(&us));
    CHECK_EQ(us, 80000);
    CHECK_EQ(counters()->overloaded, 1);
    net_note_delay(fixture.net, 0);
    /* its number is used up: the same answer, also when there is no load any more */
    client_transfers(&fixture, &client, 3, 1);
    CHECK(reply());
    CHECK_EQ(header.code, REQUEST_CODE_overloaded);
    CHECK_EQ(counters()->overloaded, 1);
    client_transfers(&fixture, &client, 4, 1);
    CHECK_EQ(fixture.request_count, 3);
    fixture_complete_all(&fixture);
    fixture_close(&fixture);
}

static void few_reply_buffers(struct net_config *config) {
    config->request_max = 128;
    config->reply_buffers = 128 + 16;
}

/** Lookups with long replies are refused before there is no buffer for them; short requests go
 *  on. */
static void reply_buffers_run_short(void) {
    CHECK(begin_with(few_reply_buffers));
    static uint128_t ids[72];
    unsigned accepted = 0;
    CHECK_EQ(client.credit, 16 + 64 / 8);
    for (unsigned i = 1; i <= 10; i++) {
        request(i, OPERATION_LOOKUP_ACCOUNTS, 0, 72, ids, sizeof(ids), NULL, 0);
        accepted = fixture.request_count;
    }
    CHECK_EQ(accepted, 2); /* 2 x 7 datagrams beyond the first, of 16 */
    CHECK_EQ(counters()->overloaded, 8);
    client_transfers(&fixture, &client, 11, 1);
    CHECK_EQ(fixture.request_count, 3);
    for (unsigned i = 0; i < 8; i++) {
        CHECK(reply());
        CHECK_EQ(header.code, REQUEST_CODE_overloaded);
    }
    fixture_complete_all(&fixture);
    for (unsigned i = 0; i < 12; i++) /* every third id is absent: 6 datagrams each */
        CHECK(reply());
    CHECK_EQ(fixture.net->table.charge_used, 2 * 5);
    CHECK(reply());
    CHECK(!client_receive(&fixture, &client, &answer));
    /* the charge holds back the credit until they are acknowledged */
    CHECK(client_acknowledge(&fixture, &client, 1));
    CHECK_EQ(client.credit, 24);
    CHECK(client_acknowledge(&fixture, &client, 11));
    CHECK_EQ(client.credit, 11 + 24);
    CHECK_EQ(fixture.net->table.charge_used, 0);
    CHECK_EQ(fixture.net->table.replies.free_count, 144);
    fixture_close(&fixture);
}

/** The port takes nothing: replies wait, then are dropped and counted, and are sent again when
 *  asked for. */
static void port_stands_still(void) {
    CHECK(begin());
    unsigned depth = fixture.port.tx.depth;
    fixture.port.tx.depth = 1;
    fixture.port.tx.first = 0;
    for (unsigned round = 0; round < NET_TX_QUEUE / 64 + 1; round++) {
        for (unsigned i = 1; i <= 64; i++)
            client_transfers(&fixture, &client, i, 1);
        fixture_complete_all(&fixture);
    }
    CHECK_EQ(counters()->tx_dropped, 64 - 1);
    CHECK_EQ(fixture.net->tx_count, NET_TX_QUEUE);
    unsigned got = 0;
    while (reply()) {
        got++;
        net_flush(fixture.net, fixture.now_ns);
    }
    CHECK_EQ(got, NET_TX_QUEUE + 1);
    fixture.port.tx.first = 0;
    fixture.port.tx.depth = depth;
    client_transfers(&fixture, &client, 64, 1);
    CHECK(reply());
    CHECK_EQ(header.request, 64);
    fixture_close(&fixture);
}

/** No packet buffer left: the reply is stored all the same. */
static void packets_run_out(void) {
    CHECK(begin());
    client_transfers(&fixture, &client, 1, 1);
    static struct rte_mbuf *taken[4096];
    unsigned count = 0;
    while ((taken[count] = rte_pktmbuf_alloc(fixture_pool)) != NULL)
        count++;
    fixture_complete_all(&fixture);
    CHECK_EQ(counters()->tx_dropped, 1);
    while (count > 0)
        rte_pktmbuf_free(taken[--count]);
    client_transfers(&fixture, &client, 1, 1);
    CHECK(reply());
    CHECK_EQ(header.entry_count, 1);
    CHECK_EQ(counters()->requests, 1);
    fixture_close(&fixture);
}

/** Many clients, lossy both ways, random order: every request is executed exactly once and
 *  answered, and all memory comes back. */
static void lossy_network(void) {
    uint64_t seed = test_seed(4);
    enum { CLIENTS = 4, NUMBERS = 300 };
    static uint8_t executed[CLIENTS][NUMBERS + 1], replied[CLIENTS][NUMBERS + 1];
    memset(executed, 0, sizeof(executed));
    memset(replied, 0, sizeof(replied));
    struct client clients[CLIENTS];
    fixture_open(&fixture);
    for (unsigned c = 0; c < CLIENTS; c++) {
        clients[c] = client_make(c, c & 1 ? 6 : 4);
        CHECK(client_connect(&fixture, &clients[c]));
    }
    unsigned done = 0;
    for (unsigned round = 0; round < 200000 && done < CLIENTS * NUMBERS; round++) {
        struct client *self = &clients[test_random(&seed) % CLIENTS];
        unsigned c = (unsigned)(self - clients);
        uint64_t edge = self->acknowledged;
        while (edge < NUMBERS && replied[c][edge + 1])
            edge++;
        self->acknowledged = edge;
        uint64_t number = edge + 1 + test_random(&seed) % 40;
        unsigned before = fixture.request_count;
        if (number <= NUMBERS && number <= self->credit && !replied[c][number] &&
            test_random(&seed) % 3)
            client_transfers(&fixture, self, number, (uint16_t)(1 + number % 21));
        else if (test_random(&seed) % 2) {
            struct net_ack ack = {.acknowledged = edge};
            client_send(&fixture, self, NET_ACK, &ack, sizeof(ack));
            fixture_pump(&fixture);
        }
        if (fixture.request_count > before) {
            const struct net_context *context = fixture.requests[before]->owner;
            CHECK_EQ(context->number, number);
            executed[c][number]++;
        }
        while (fixture.request_count > 0 && test_random(&seed) % 3 == 0)
            fixture_complete(&fixture, (unsigned)(test_random(&seed) % fixture.request_count), 1);
        uint8_t frame[FRAME_BYTES];
        size_t bytes;
        while ((bytes = port_memory_take(&fixture.port, frame, sizeof(frame))) > 0) {
            if (test_random(&seed) % 3 == 0)
                continue; /* lost */
            for (unsigned to = 0; to < CLIENTS; to++) {
                struct packet packet;
                struct net_header datagram;
                if (packet_decode(&clients[to].self, frame, bytes, 0, &packet) != PACKET_UDP)
                    continue;
                memcpy(&datagram, packet.payload, sizeof(datagram));
                if (datagram.type == NET_ACK) {
                    struct net_ack ack;
                    memcpy(&ack, packet.payload + sizeof(datagram), sizeof(ack));
                    if (ack.credit > clients[to].credit)
                        clients[to].credit = ack.credit;
                    continue;
                }
                memcpy(&header, packet.payload + sizeof(datagram), sizeof(header));
                CHECK_EQ(header.entry_count, 1 + header.request % 21);
                uint64_t credit = header.request + (uint64_t)(int64_t)header.credit_ahead;
                if (credit > clients[to].credit)
                    clients[to].credit = credit;
                done += !replied[to][header.request];
                replied[to][header.request] = 1;
            }
        }
    }
    CHECK_EQ(done, CLIENTS * NUMBERS);
    for (unsigned c = 0; c < CLIENTS; c++)
        for (unsigned n = 1; n <= NUMBERS; n++)
            CHECK_EQ(executed[c][n], 1);
    fixture_complete_all(&fixture);
    for (unsigned c = 0; c < CLIENTS; c++)
        client_send(&fixture, &clients[c], NET_GOODBYE, NULL, 0);
    fixture_pump(&fixture);
    CHECK_EQ(fixture.net->table.open_count, 0);
    CHECK_EQ(fixture.net->table.replies.free_count, 1024);
    CHECK_EQ(fixture.net->table.rest_used, 0);
    CHECK_EQ(fixture.net->table.charge_used, 0);
    fixture_close(&fixture);
}

int main(void) {
    fixture_start();
    TEST_RUN(replayed_datagrams);
    TEST_RUN(request_number_window);
    TEST_RUN(acknowledgements);
    TEST_RUN(duplicates);
    TEST_RUN(resent_reply_has_new_credit);
    TEST_RUN(overloaded);
    TEST_RUN(reply_buffers_run_short);
    TEST_RUN(port_stands_still);
    TEST_RUN(packets_run_out);
    TEST_RUN(lossy_network);
    return TEST_DONE();
}

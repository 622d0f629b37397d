/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/unit/net/net_fixture.h"

/** HELLO to GOODBYE: how sessions begin and end, and what never opens or ends one. */

static struct fixture fixture;
static struct answer answer;

static const struct net_counters *counters(void) {
    return net_counters(fixture.net);
}

static void open_refuses_bad_configuration(void) {
    fixture_prepare(&fixture);
    struct net_config bad[9];
    for (unsigned i = 0; i < 9; i++)
        bad[i] = fixture_config(&fixture);
    memset(bad[0].ipv4, 0, 4), memset(bad[0].ipv6, 0, 16);
    bad[1].udp_port = 0;
    bad[2].payload_max = NET_HELLO_BYTES;
    bad[3].payload_max = NET_PAYLOAD_MAX + 1;
    bad[4].window = 96;
    bad[5].window = 32;
    bad[6].session_max = bad[6].request_max + 1;
    bad[7].reply_buffers = bad[7].request_max + NET_REPLY_DATAGRAMS_MAX - 1;
    bad[8].payload_max = NET_PAYLOAD_MAX; /* and packets of 2 KiB */
    bad[8].pool = rte_pktmbuf_pool_create("small", 15, 0, 0, 2048 + RTE_PKTMBUF_HEADROOM, 0);
    CHECK(bad[8].pool != NULL);
    for (unsigned i = 0; i < 9; i++) {
        char error[200] = "";
        struct net *net = NULL;
        CHECK_EQ(net_open(&bad[i], &net, error, sizeof(error)), -EINVAL);
        CHECK(net == NULL && error[0] != '\0');
    }
    rte_mempool_free(bad[8].pool);
    port_memory_close(&fixture.port);
}

static void connect_ipv4_and_ipv6(void) {
    fixture_open(&fixture);
    for (uint8_t family = 4; family <= 6; family += 2) {
        struct client client = client_make(family, family);
        CHECK(client_connect(&fixture, &client));
        const struct net_welcome *welcome = &client.welcome;
        CHECK(client.session != 0);
        CHECK_EQ(welcome->cell_id[2], 7);
        CHECK_EQ(welcome->term, 3);
        CHECK_EQ(welcome->hash_seed, 99);
        CHECK_EQ(welcome->cell_time_ns, fixture.cell_time_ns);
        CHECK_EQ(welcome->credit, 64);
        CHECK_EQ(welcome->partitions, 256);
        CHECK_EQ(welcome->payload_max,
                 family == 4 ? NET_PAYLOAD_IPV4_DEFAULT : NET_PAYLOAD_IPV6_DEFAULT);
        CHECK_EQ(welcome->window, 64);
        CHECK_EQ(welcome->id_time, 1);
        CHECK_EQ(welcome->lcores, 1);
        CHECK_EQ(welcome->ports[0], NET_UDP_PORT_DEFAULT);
        CHECK_EQ(welcome->id_window_ms, 3600000);
        client_transfers(&fixture, &client, 1, 2);
        CHECK_EQ(fixture.request_count, 1);
        fixture_complete_all(&fixture);
        struct net_reply_header header;
        fixture.last_counter = 0;
        CHECK(client_reply(&fixture, &client, &answer, &header));
        CHECK_EQ(header.entry_count, 2);
    }
    CHECK_EQ(counters()->sessions, 2);
    CHECK_EQ(counters()->hellos, 4);
    fixture_close(&fixture);
}

/** The answer to an address that is not proven is no longer than the question, and costs no
 *  memory. */
static void cookie_is_stateless(void) {
    fixture_open(&fixture);
    struct snapshot before = snapshot_take(&fixture);
    for (unsigned i = 0; i < 100; i++) {
        struct client client = client_make(i, 4);
        uint8_t cookie[16];
        CHECK(client_cookie(&fixture, &client, cookie));
    }
    CHECK(snapshot_same(&before, &fixture));
    CHECK_EQ(counters()->sessions, 0);
    fixture_close(&fixture);
}

static void negotiated_payload(void) {
    fixture_open(&fixture);
    static const struct {
        uint16_t asked, want;
    } cases[] = {{0, 1472}, {1400, 1400}, {1471, 1471}, {8952, 1472}};
    for (unsigned i = 0; i < 4; i++) {
        struct client client = client_make(i, 4);
        client.payload_max = cases[i].asked;
        CHECK(client_connect(&fixture, &client));
        CHECK_EQ(client.welcome.payload_max, cases[i].want);
    }
    struct client client = client_make(9, 4);
    client.payload_max = NET_HELLO_BYTES - 1;
    client_hello(&fixture, &client, NULL);
    CHECK(!client_receive(&fixture, &client, &answer));
    CHECK_EQ(counters()->drop_malformed, 1);
    fixture_close(&fixture);
}

static void lost_welcome(void) {
    fixture_open(&fixture);
    struct client client = client_make(1, 4);
    uint8_t cookie[16];
    CHECK(client_cookie(&fixture, &client, cookie));
    CHECK(client_welcome(&fixture, &client, cookie));
    uint64_t session = client.session;
    for (unsigned i = 0; i < 3; i++) {
        CHECK(client_welcome(&fixture, &client, cookie));
        CHECK_EQ(client.session, session);
    }
    /* the cookie has expired meanwhile: a new one opens the same door */
    fixture.now_ns += NET_COOKIE_LIFE_NS + NS_PER_SECOND;
    client_hello(&fixture, &client, cookie);
    CHECK(client_receive(&fixture, &client, &answer));
    CHECK_EQ(answer.header.type, NET_COOKIE);
    CHECK(client_cookie(&fixture, &client, cookie));
    CHECK(client_welcome(&fixture, &client, cookie));
    CHECK_EQ(client.session, session);
    CHECK_EQ(counters()->sessions, 1);

    /* once it is used, a HELLO that was late opens and ends nothing */
    client_transfers(&fixture, &client, 1, 1);
    CHECK_EQ(fixture.request_count, 1);
    client_hello(&fixture, &client, cookie);
    CHECK(!client_receive(&fixture, &client, &answer));
    CHECK_EQ(counters()->hellos_waiting, 1);
    CHECK_EQ(counters()->sessions, 1);
    fixture_complete_all(&fixture);
    CHECK(client_receive(&fixture, &client, &answer));
    CHECK_EQ(answer.header.type, NET_REPLY);
    fixture_close(&fixture);
}

static void bad_hellos(void) {
    fixture_open(&fixture);
    struct client client = client_make(1, 4);
    uint8_t cookie[16], datagram[FRAME_BYTES], body[NET_HELLO_BYTES] = {0};
    CHECK(client_cookie(&fixture, &client, cookie));
    struct snapshot before = snapshot_take(&fixture);
    static const size_t lengths[] = {0, 1, 55, 56, 1359, 1361};
    for (unsigned i = 0; i < 6; i++)
        client_send(&fixture, &client, NET_HELLO, body, lengths[i]);
    fixture_pump(&fixture);
    CHECK_EQ(counters()->drop_malformed, 6);
    size_t bytes = client_datagram(&client, NET_HELLO, body, 1360, datagram);
    datagram[100] ^= 1;
    client_send_raw(&fixture, &client, datagram, bytes);
    fixture_pump(&fixture);
    CHECK_EQ(counters()->drop_tag, 1);
    /* somebody else's cookie is no better than none */
    struct client other = client_make(2, 4);
    client_hello(&fixture, &other, cookie);
    CHECK(client_receive(&fixture, &other, &answer));
    CHECK_EQ(answer.header.type, NET_COOKIE);
    CHECK(snapshot_same(&before, &fixture));
    CHECK_EQ(counters()->sessions, 0);
    fixture_close(&fixture);
}

/** The new session of a client instance is answered only after every accepted request of its old
 *  one is decided. */
static void turnover(void) {
    fixture_open(&fixture);
    struct client client = client_make(1, 4);
    CHECK(client_connect(&fixture, &client));
    struct client old = client;
    client_transfers(&fixture, &client, 1, 1);
    client_transfers(&fixture, &client, 2, 1);
    CHECK_EQ(fixture.request_count, 2);
    fixture_complete(&fixture, 1, 5);
    CHECK(client_receive(&fixture, &client, &answer));

    uint8_t cookie[16];
    client.nonce++;
    fixture.now_ns += NS_PER_MS;
    CHECK(client_cookie(&fixture, &client, cookie));
    for (unsigned i = 0; i < 3; i++) {
        client_hello(&fixture, &client, cookie);
        CHECK(!client_receive(&fixture, &client, &answer));
    }
    CHECK_EQ(counters()->hellos_waiting, 3);
    CHECK_EQ(counters()->sessions, 1);
    /* the old one takes nothing any more */
    client_transfers(&fixture, &old, 3, 1);
    CHECK_EQ(fixture.request_count, 1);
    CHECK_EQ(counters()->drop_session, 1);
    /* and its last reply goes nowhere */
    fixture_complete_all(&fixture);
    CHECK(!client_receive(&fixture, &client, &answer));
    CHECK_EQ(fixture.net->table.open_count, 0);
    CHECK_EQ(fixture.net->table.replies.free_count, 1024);

    CHECK(client_welcome(&fixture, &client, cookie));
    CHECK(client.session != old.session);
    CHECK_EQ(counters()->sessions, 2);
    CHECK_EQ(counters()->sessions_ended, 1);
    client_transfers(&fixture, &old, 4, 1);
    CHECK_EQ(counters()->drop_session, 2);
    client_transfers(&fixture, &client, 1, 1);
    CHECK_EQ(fixture.request_count, 1);
    fixture_complete_all(&fixture);
    fixture_close(&fixture);
}

/** A HELLO that the network kept for a while must not end the session that came after it. */
static void delayed_hello_ends_nothing(void) {
    fixture_open(&fixture);
    struct client client = client_make(1, 4);
    uint8_t first[16], second[16];
    CHECK(client_cookie(&fixture, &client, first));
    CHECK(client_welcome(&fixture, &client, first));
    struct client late = client;
    client.nonce++;
    fixture.now_ns += NS_PER_MS;
    CHECK(client_cookie(&fixture, &client, second));
    fixture.now_ns += NS_PER_MS;
    CHECK(client_welcome(&fixture, &client, second));
    CHECK_EQ(counters()->sessions_ended, 1);
    /* the first HELLO again: its cookie is older than the session, so it gets a cookie and no
     * more */
    struct snapshot before = snapshot_take(&fixture);
    client_hello(&fixture, &late, first);
    CHECK(client_receive(&fixture, &late, &answer));
    CHECK_EQ(answer.header.type, NET_COOKIE);
    CHECK(snapshot_same(&before, &fixture));
    client_transfers(&fixture, &client, 1, 1);
    CHECK_EQ(fixture.request_count, 1);
    fixture_complete_all(&fixture);
    fixture_close(&fixture);
}

/** A client that comes from another port with the same instance: a new session, and the end of the
 *  old. */
static void moved_client(void) {
    fixture_open(&fixture);
    struct client client = client_make(1, 4);
    CHECK(client_connect(&fixture, &client));
    struct client moved = client;
    moved.self.udp_port++;
    /* requests from there are nobody's */
    client_transfers(&fixture, &moved, 1, 1);
    moved.self.udp_port--;
    moved.self.ipv4[3]++;
    client_transfers(&fixture, &moved, 1, 1);
    CHECK_EQ(counters()->drop_session, 2);
    CHECK_EQ(fixture.request_count, 0);
    /* the Ethernet address may change: the reply goes where the request came from */
    moved = client;
    moved.self.mac[5] = 0x77;
    client_transfers(&fixture, &moved, 1, 1);
    CHECK_EQ(fixture.request_count, 1);
    fixture_complete_all(&fixture);
    CHECK(client_receive(&fixture, &moved, &answer));
    CHECK_EQ(answer.frame[5], 0x77);

    moved = client;
    moved.self.udp_port += 9;
    CHECK(client_connect(&fixture, &moved)); /* same nonce, another address */
    CHECK(moved.session != client.session);
    CHECK_EQ(fixture.net->table.open_count, 1);
    fixture_close(&fixture);
}

static void goodbye(void) {
    fixture_open(&fixture);
    struct client client = client_make(1, 4);
    CHECK(client_connect(&fixture, &client));
    client_transfers(&fixture, &client, 1, 1);
    fixture_complete_all(&fixture);
    CHECK(client_receive(&fixture, &client, &answer));
    client_send(&fixture, &client, NET_GOODBYE, NULL, 0);
    fixture_pump(&fixture);
    CHECK_EQ(fixture.net->table.open_count, 0);
    CHECK_EQ(fixture.net->table.replies.free_count, 1024);
    CHECK(!client_receive(&fixture, &client, &answer));
    client_transfers(&fixture, &client, 2, 1);
    CHECK_EQ(counters()->drop_session, 1);

    /* with a request in progress it ends when that is decided */
    CHECK(client_connect(&fixture, &client));
    client_transfers(&fixture, &client, 1, 1);
    client_send(&fixture, &client, NET_GOODBYE, NULL, 0);
    fixture_pump(&fixture);
    CHECK_EQ(fixture.net->table.open_count, 1);
    client_transfers(&fixture, &client, 2, 1);
    CHECK_EQ(counters()->drop_session, 2);
    fixture_complete_all(&fixture);
    CHECK_EQ(fixture.net->table.open_count, 0);
    CHECK_EQ(counters()->goodbyes, 2);
    CHECK_EQ(counters()->sessions_ended, 2);
    fixture_close(&fixture);
}

static void silence(void) {
    fixture_open(&fixture);
    struct client unused = client_make(1, 4), idle = client_make(2, 4), busy = client_make(3, 4),
                  alive = client_make(4, 4);
    CHECK(client_connect(&fixture, &unused) && client_connect(&fixture, &idle) &&
          client_connect(&fixture, &busy) && client_connect(&fixture, &alive));
    CHECK(client_acknowledge(&fixture, &idle, 0));
    CHECK(client_acknowledge(&fixture, &alive, 0));
    client_transfers(&fixture, &busy, 1, 1);
    uint64_t start = fixture.now_ns;

    fixture.now_ns = start + NET_SESSION_UNUSED_NS + NS_PER_MS * 5;
    fixture_pump(&fixture);
    CHECK_EQ(fixture.net->table.open_count, 3);
    CHECK_EQ(counters()->sessions_timed_out, 1);
    client_transfers(&fixture, &unused, 1, 1);
    CHECK_EQ(counters()->drop_session, 1);

    for (unsigned i = 1; i <= 5; i++) {
        fixture.now_ns = start + i * 15 * NS_PER_SECOND;
        CHECK(client_acknowledge(&fixture, &alive, 0));
    }
    fixture_pump(&fixture);
    CHECK_EQ(fixture.net->table.open_count, 2); /* idle has gone */
    CHECK_EQ(counters()->sessions_timed_out, 2);

    /* busy stays as long as its request is in progress, and its time begins with the reply */
    fixture.now_ns += NS_PER_SECOND;
    fixture_complete_all(&fixture);
    CHECK(client_receive(&fixture, &busy, &answer));
    fixture_pump(&fixture);
    CHECK_EQ(fixture.net->table.open_count, 2);
    fixture.now_ns += NET_SESSION_IDLE_NS + 1;
    fixture_pump(&fixture);
    CHECK_EQ(fixture.net->table.open_count, 0);
    CHECK_EQ(counters()->sessions_timed_out, 4);
    CHECK_EQ(fixture.net->table.replies.free_count, 1024);
    fixture_close(&fixture);
}

static void every_session_taken(void) {
    fixture_open(&fixture);
    struct client clients[6];
    uint8_t cookie[16];
    for (unsigned i = 0; i < 6; i++)
        clients[i] = client_make(i, 4);
    for (unsigned i = 0; i < 4; i++)
        CHECK(client_connect(&fixture, &clients[i]));
    CHECK(client_acknowledge(&fixture, &clients[0], 0));
    CHECK(client_cookie(&fixture, &clients[4], cookie));
    struct snapshot before = snapshot_take(&fixture);
    client_hello(&fixture, &clients[4], cookie);
    CHECK(!client_receive(&fixture, &clients[4], &answer));
    CHECK_EQ(counters()->sessions_full, 1);
    CHECK(snapshot_same(&before, &fixture));
    /* an instance that has one gets its new one even so */
    clients[0].nonce++;
    CHECK(client_connect(&fixture, &clients[0]));
    CHECK_EQ(counters()->sessions_full, 1);
    client_send(&fixture, &clients[2], NET_GOODBYE, NULL, 0);
    fixture_pump(&fixture);
    CHECK(client_welcome(&fixture, &clients[4], cookie));
    CHECK_EQ(counters()->sessions, 6);
    fixture_close(&fixture);
}

/** Frames that need no session, through net_rx: answered, sent, counted. */
static void answers_without_a_session(void) {
    fixture_open(&fixture);
    const uint8_t arp[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0,  9, 8, 6,
                             0,    1,    8,    0,    6,    4,    0, 1, 2, 0, 0,  0, 0, 9,
                             10,   7,    0,    9,    0,    0,    0, 0, 0, 0, 10, 7, 0, 1};
    uint8_t ping[42] = {2,    0, 0,  0,  0, 1, 2, 0, 0,  0, 0, 9, 8,  0,  /* Ethernet */
                        0x45, 0, 0,  28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 7,  /* IPv4 */
                        0,    9, 10, 7,  0, 1, 8, 0, 0,  0, 0, 1, 0,  1}; /* ICMP */
    uint16_t checksum = packet_checksum(ping + 14, 20);
    memcpy(ping + 24, &checksum, 2);
    checksum = packet_checksum(ping + 34, 8);
    memcpy(ping + 36, &checksum, 2);
    uint8_t frame[FRAME_BYTES];
    CHECK_EQ(port_memory_put(&fixture.port, arp, sizeof(arp)), 0);
    CHECK_EQ(port_memory_put(&fixture.port, ping, sizeof(ping)), 0);
    CHECK_EQ(fixture_pump(&fixture), 2);
    CHECK_EQ(port_memory_take(&fixture.port, frame, sizeof(frame)), 60);
    CHECK_EQ(frame[21], 2);
    CHECK_EQ(port_memory_take(&fixture.port, frame, sizeof(frame)), 42);
    CHECK_EQ(frame[34], 0);
    CHECK_EQ(counters()->arp, 1);
    CHECK_EQ(counters()->icmp, 1);
    CHECK_EQ(counters()->tx_packets, 2);

    net_announce(fixture.net);
    CHECK_EQ(net_flush(fixture.net, fixture.now_ns), 2);
    CHECK_EQ(port_memory_take(&fixture.port, frame, sizeof(frame)), 60);
    CHECK_EQ(port_memory_take(&fixture.port, frame, sizeof(frame)), 86);
    fixture_close(&fixture);
}

/** Bad frames of each kind through net_rx: each in its own counter, nothing changed, nothing
 *  sent. */
static void dropped_frames_are_counted(void) {
    fixture_open(&fixture);
    struct client client = client_make(1, 4);
    CHECK(client_connect(&fixture, &client));
    client_transfers(&fixture, &client, 1, 1);
    struct snapshot before = snapshot_take(&fixture);
    uint8_t datagram[FRAME_BYTES], frame[FRAME_BYTES], good[FRAME_BYTES];
    size_t bytes = client_datagram(&client, NET_GOODBYE, NULL, 0, datagram);
    size_t length = client_frame(&client, datagram, bytes, good);
    const struct net_counters *c = counters();
    static const struct {
        unsigned at;
        uint8_t value;
        size_t counter;
    } cases[] = {
        {12, 0x81, offsetof(struct net_counters, drop_ethernet)},
        {24, 0x99, offsetof(struct net_counters, drop_ip)},
        {41, 0x99, offsetof(struct net_counters, drop_udp)},
        {45, 0x99, offsetof(struct net_counters, drop_udp)},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memcpy(frame, good, length);
        frame[cases[i].at] ^= cases[i].value;
        uint64_t counted = *(const uint64_t *)((const char *)c + cases[i].counter);
        CHECK_EQ(port_memory_put(&fixture.port, frame, length), 0);
        fixture_pump(&fixture);
        CHECK_EQ(*(const uint64_t *)((const char *)c + cases[i].counter), counted + 1);
    }
    for (unsigned cut = 0; cut < length; cut++) {
        CHECK_EQ(port_memory_put(&fixture.port, good, cut), 0);
        fixture_pump(&fixture);
    }
    /* good frames around bad datagrams */
    uint64_t headers = c->drop_header;
    for (size_t cut = 0; cut < sizeof(struct net_header); cut++)
        client_send_raw(&fixture, &client, datagram, cut);
    for (unsigned type = 0; type < 256; type++) {
        if (type == NET_HELLO || (type >= NET_REQUEST && type != NET_REPLY && type <= NET_GOODBYE))
            continue;
        client_send(&fixture, &client, (uint8_t)type, NULL, 0);
    }
    for (unsigned at = 0; at < 3; at += 2) {
        client_datagram(&client, NET_GOODBYE, NULL, 0, datagram);
        datagram[at] += 1; /* version, key phase */
        tag_seal(datagram, bytes);
        client_send_raw(&fixture, &client, datagram, bytes);
    }
    fixture_pump(&fixture);
    CHECK_EQ(c->drop_header, headers + sizeof(struct net_header) + 252 + 2);
    /* of a session that is not there, or with a tag that is not right */
    uint64_t session = client.session;
    for (unsigned bit = 0; bit < 64; bit++) {
        client.session = session ^ 1ull << bit;
        client_send(&fixture, &client, NET_GOODBYE, NULL, 0);
    }
    client.session = 0;
    client_send(&fixture, &client, NET_GOODBYE, NULL, 0);
    client.session = session;
    fixture_pump(&fixture);
    CHECK_EQ(c->drop_session, 65);
    for (unsigned at = 24; at < 40; at++) {
        client_datagram(&client, NET_GOODBYE, NULL, 0, datagram);
        datagram[at] ^= 1;
        client_send_raw(&fixture, &client, datagram, bytes);
    }
    fixture_pump(&fixture);
    CHECK_EQ(c->drop_tag, 16);
    CHECK(snapshot_same(&before, &fixture));
    CHECK(!client_receive(&fixture, &client, &answer));
    fixture_complete_all(&fixture);
    fixture_close(&fixture);
}

int main(void) {
    fixture_start();
    TEST_RUN(open_refuses_bad_configuration);
    TEST_RUN(connect_ipv4_and_ipv6);
    TEST_RUN(cookie_is_stateless);
    TEST_RUN(negotiated_payload);
    TEST_RUN(lost_welcome);
    TEST_RUN(bad_hellos);
    TEST_RUN(turnover);
    TEST_RUN(delayed_hello_ends_nothing);
    TEST_RUN(moved_client);
    TEST_RUN(goodbye);
    TEST_RUN(silence);
    TEST_RUN(every_session_taken);
    TEST_RUN(answers_without_a_session);
    TEST_RUN(dropped_frames_are_counted);
    return TEST_DONE();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/net/net_fixture.h"

/** What the port tells about packets, and what it is told: checksum verdicts, offloads,
 *  segments. */

static struct fixture fixture;
static struct client client;
static struct answer answer;

static bool begin(bool trusted, bool offload, uint8_t family) {
    fixture_prepare(&fixture);
    struct net_config config = fixture_config(&fixture);
    config.rx_checksum_trusted = trusted;
    config.tx_checksum_ipv4 = config.tx_checksum_udp = offload;
    fixture_open_with(&fixture, &config);
    client = client_make(1, family);
    return offload || client_connect(&fixture, &client);
}

/** The packet that arrives next. */
static struct rte_mbuf *arriving(void) {
    return fixture.port.rx.packets[fixture.port.rx.first];
}

/** An ACK with damage at an offset of its frame, and the port's verdicts on it. @return whether it
 *  was answered */
static bool damaged(size_t at, uint64_t verdicts) {
    struct net_ack ack = {0};
    client_send(&fixture, &client, NET_ACK, &ack, sizeof(ack));
    rte_pktmbuf_mtod(arriving(), uint8_t *)[at] ^= 1;
    arriving()->ol_flags |= verdicts;
    fixture_pump(&fixture);
    return client_receive(&fixture, &client, &answer);
}

enum { IPV4_CHECKSUM = 14 + 10, UDP_CHECKSUM = 34 + 6 };

static void verdicts_are_believed_if_configured(void) {
    static const struct {
        bool trusted;
        size_t at;
        uint64_t verdicts;
        bool accepted;
    } cases[] = {
        {true, IPV4_CHECKSUM, RTE_MBUF_F_RX_IP_CKSUM_GOOD, true},
        {true, IPV4_CHECKSUM, RTE_MBUF_F_RX_L4_CKSUM_GOOD, false},
        {true, IPV4_CHECKSUM, RTE_MBUF_F_RX_IP_CKSUM_BAD, false},
        {true, IPV4_CHECKSUM, RTE_MBUF_F_RX_IP_CKSUM_NONE, false},
        {true, UDP_CHECKSUM, RTE_MBUF_F_RX_L4_CKSUM_GOOD, true},
        {true, UDP_CHECKSUM, RTE_MBUF_F_RX_IP_CKSUM_GOOD, false},
        {true, UDP_CHECKSUM, RTE_MBUF_F_RX_L4_CKSUM_BAD, false},
        {true, UDP_CHECKSUM, RTE_MBUF_F_RX_L4_CKSUM_NONE, false},
        {false, IPV4_CHECKSUM, RTE_MBUF_F_RX_IP_CKSUM_GOOD, false},
        {false, UDP_CHECKSUM, RTE_MBUF_F_RX_L4_CKSUM_GOOD, false},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK(begin(cases[i].trusted, false, 4));
        CHECK_EQ(damaged(cases[i].at, cases[i].verdicts), cases[i].accepted);
        const struct net_counters *counters = net_counters(fixture.net);
        CHECK_EQ(counters->drop_ip + counters->drop_udp, !cases[i].accepted);
        fixture_close(&fixture);
    }
}

/** The port's verdict is about checksums only: the tag is verified in any case. */
static void tag_is_verified_in_any_case(void) {
    CHECK(begin(true, false, 4));
    CHECK(!damaged(PACKET_HEADERS_IPV4 + 40,
                   RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD));
    CHECK_EQ(net_counters(fixture.net)->drop_tag, 1);
    fixture_close(&fixture);
}

static void packets_in_pieces(void) {
    CHECK(begin(false, false, 4));
    struct net_ack ack = {0};
    client_send(&fixture, &client, NET_ACK, &ack, sizeof(ack));
    struct rte_mbuf *first = arriving(), *second = rte_pktmbuf_alloc(fixture_pool);
    CHECK(second != NULL);
    memset(rte_pktmbuf_append(second, 10), 0, 10);
    CHECK_EQ(rte_pktmbuf_chain(first, second), 0);
    struct snapshot before = snapshot_take(&fixture);
    fixture_pump(&fixture);
    CHECK(snapshot_same(&before, &fixture));
    CHECK_EQ(net_counters(fixture.net)->drop_ethernet, 1);
    fixture_close(&fixture);
}

/** With offload the port gets flags, lengths of the headers, and the pseudo header's sum. */
static void offloads_are_asked_for(void) {
    for (uint8_t family = 4; family <= 6; family += 2) {
        CHECK(begin(false, true, family));
        client_hello(&fixture, &client, NULL);
        CHECK_EQ(fixture.port.tx.count, 1);
        const struct rte_mbuf *sent = fixture.port.tx.packets[fixture.port.tx.first];
        uint64_t want =
            RTE_MBUF_F_TX_UDP_CKSUM |
            (family == 4 ? RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM : RTE_MBUF_F_TX_IPV6);
        CHECK(sent->ol_flags == want);
        CHECK_EQ(sent->l2_len, 14);
        CHECK_EQ(sent->l3_len, family == 4 ? 20 : 40);
        CHECK_EQ(sent->pkt_len, sent->data_len);
        uint8_t *frame = rte_pktmbuf_mtod(sent, uint8_t *);
        size_t udp = family == 4 ? 34 : 54;
        if (family == 4) {
            CHECK_EQ(frame[IPV4_CHECKSUM] | frame[IPV4_CHECKSUM + 1], 0);
            uint16_t checksum = packet_checksum(frame + 14, 20);
            memcpy(frame + IPV4_CHECKSUM, &checksum, 2);
        }
        uint16_t checksum = packet_checksum(frame + udp, sent->data_len - udp);
        memcpy(frame + udp + 6, &checksum, 2);
        CHECK(client_receive(&fixture, &client, &answer));
        CHECK_EQ(answer.header.type, NET_COOKIE);
        fixture_close(&fixture);
    }
}

/** Without it, no flag is left on packets that are sent back in place of those that came. */
static void answers_carry_no_flags(void) {
    CHECK(begin(true, false, 4));
    uint8_t arp[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0,  9, 8, 6,
                       0,    1,    8,    0,    6,    4,    0, 1, 2, 0, 0,  0, 0, 9,
                       10,   7,    0,    9,    0,    0,    0, 0, 0, 0, 10, 7, 0, 1};
    CHECK_EQ(port_memory_put(&fixture.port, arp, sizeof(arp)), 0);
    arriving()->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD | RTE_MBUF_F_RX_IP_CKSUM_GOOD;
    fixture_pump(&fixture);
    CHECK_EQ(fixture.port.tx.count, 1);
    CHECK(fixture.port.tx.packets[fixture.port.tx.first]->ol_flags == 0);
    fixture_close(&fixture);
}

/** Bursts larger than NET_BURST arrive over several turns, in order. */
static void long_queue(void) {
    CHECK(begin(false, false, 4));
    struct net_ack ack = {0};
    for (unsigned i = 0; i < 3 * NET_BURST + 5; i++)
        client_send(&fixture, &client, NET_ACK, &ack, sizeof(ack));
    struct engine_request *requests[NET_BURST];
    unsigned packets = 0, bursts[5] = {NET_BURST, NET_BURST, NET_BURST, 5, 0};
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(net_rx(fixture.net, fixture.now_ns, fixture.cell_time_ns, requests, &packets), 0);
        CHECK_EQ(packets, bursts[i]);
    }
    CHECK_EQ(net_flush(fixture.net, fixture.now_ns), 3 * NET_BURST + 5);
    uint64_t last = 0;
    while (client_receive(&fixture, &client, &answer)) {
        CHECK(answer.header.counter > last);
        last = answer.header.counter;
    }
    CHECK_EQ(net_counters(fixture.net)->acks, 3 * NET_BURST + 5);
    fixture_close(&fixture);
}

int main(void) {
    fixture_start();
    TEST_RUN(verdicts_are_believed_if_configured);
    TEST_RUN(tag_is_verified_in_any_case);
    TEST_RUN(packets_in_pieces);
    TEST_RUN(offloads_are_asked_for);
    TEST_RUN(answers_carry_no_flags);
    TEST_RUN(long_queue);
    return TEST_DONE();
}

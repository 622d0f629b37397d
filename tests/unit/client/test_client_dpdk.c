/* SPDX-License-Identifier: Apache-2.0 */
#include <rte_eal.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "net/client/transport_dpdk.h"
#include "net/net.h"
#include "net/port_memory.h"
#include "tests/unit/client/client_fixture.h"

/** The client over a DPDK port, against the server's real packet path: frames are carried
 *  between two ports in memory, and requests are answered as created. Time is virtual. */

enum { FRAME_BYTES = 2048, DEPTH = 1024, PARTITIONS = 256 };

static const uint8_t server_mac[6] = {2, 0, 0, 0, 0, 1}, client_mac[6] = {2, 0, 0, 0, 0, 2};
static const uint8_t server_ipv4[4] = {10, 7, 0, 1}, client_ipv4[4] = {10, 7, 0, 2};

static struct rte_mempool *pool;
static struct tally_transfer transfers[TALLY_EVENTS_MAX];
static struct tally_result results[TALLY_EVENTS_MAX];

struct bench {
    struct clock clock;
    struct random random;
    struct port client_port; /**< whatever it does, the server has its turn */
    struct port_memory client_end, server_end;
    struct net *net;
    uint64_t now_ns, events, lookups, random_state;
    uint64_t timestamp;
    unsigned loss_percent;
};

static struct bench bench;

static void carry(struct port_memory *from, struct port_memory *to) {
    uint8_t frame[FRAME_BYTES];
    size_t bytes;
    while ((bytes = port_memory_take(from, frame, sizeof(frame))) > 0)
        if (fake_random(&bench.random_state) % 100 >= bench.loss_percent)
            port_memory_put(to, frame, bytes);
}

static void answer(struct engine_request *request) {
    bool lookup = request->operation >= OPERATION_LOOKUP_ACCOUNTS;
    for (uint32_t i = 0; i < request->event_count; i++) {
        request->results[i] =
            (struct result){.timestamp = ++bench.timestamp, .status = TRANSFER_STATUS_created};
        if (request->options & REQUEST_BALANCES)
            request->balances[i] = (struct balances){.debits_posted = bench.timestamp};
        if (lookup) {
            const uint128_t *ids = request->events;
            bool found = ids[i] % 2 == 0;
            request->results[i] =
                (struct result){.status = found ? LOOKUP_STATUS_found : LOOKUP_STATUS_absent};
            if (found)
                ((struct transfer *)request->records)[i] =
                    (struct transfer){.id = ids[i], .amount = ids[i] * 3};
        }
    }
    bench.events += lookup ? 0 : request->event_count;
    bench.lookups += lookup ? request->event_count : 0;
}

static void turn(void) {
    struct engine_request *requests[NET_BURST];
    unsigned packets;
    bench.now_ns += 5000;
    carry(&bench.client_end, &bench.server_end);
    do {
        unsigned count = net_rx(bench.net, bench.now_ns, 1700000000 * NS_PER_SECOND + bench.now_ns,
                                requests, &packets);
        for (unsigned i = 0; i < count; i++) {
            answer(requests[i]);
            net_reply(bench.net, requests[i], bench.now_ns);
        }
    } while (packets);
    net_flush(bench.net, bench.now_ns);
    carry(&bench.server_end, &bench.client_end);
}

static uint64_t bench_clock(struct clock *clock) {
    (void)clock;
    turn();
    return bench.now_ns;
}

static void bench_fill(struct random *random, void *bytes, size_t length) {
    (void)random;
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)fake_random(&bench.random_state);
}

static unsigned bench_rx(struct port *port, struct rte_mbuf **packets, unsigned count) {
    (void)port;
    turn(); /* while the transport waits for ARP, nobody reads the clock */
    return bench.client_end.port.rx(&bench.client_end.port, packets, count);
}

static unsigned bench_tx(struct port *port, struct rte_mbuf **packets, unsigned count) {
    (void)port;
    return bench.client_end.port.tx(&bench.client_end.port, packets, count);
}

static bool bench_open(void) {
    static uint8_t placement[PARTITIONS];
    char error[200];
    bench = (struct bench){.now_ns = NS_PER_SECOND, .random_state = 5, .timestamp = 100};
    bench.clock.monotonic_ns = bench_clock;
    bench.random.fill = bench_fill;
    bench.client_port = (struct port){.rx = bench_rx, .tx = bench_tx};
    struct net_config config = {
        .port = &bench.server_end.port,
        .random = &bench.random,
        .pool = pool,
        .udp_port = NET_UDP_PORT_DEFAULT,
        .payload_max = NET_PAYLOAD_IPV4_DEFAULT,
        .session_max = 4,
        .window = 64,
        .reply_buffers = 1024,
        .request_max = 512,
        .queueing_delay_max_ns = NS_PER_SECOND,
        .identity = {.cell_id = {7}, .partitions = PARTITIONS, .id_time = 1, .hash_seed = 99},
        .term = 3,
        .lcores = 1,
        .ports = {NET_UDP_PORT_DEFAULT},
        .placement = placement,
        .id_window_ms = 3600000,
    };
    memcpy(config.mac, server_mac, 6);
    memcpy(config.ipv4, server_ipv4, 4);
    return port_memory_open(&bench.client_end, pool, DEPTH) == 0 &&
           port_memory_open(&bench.server_end, pool, DEPTH) == 0 &&
           net_open(&config, &bench.net, error, sizeof(error)) == 0;
}

static void bench_close(struct tally_client *client) {
    tally_client_close(client);
    net_close(bench.net);
    port_memory_close(&bench.client_end);
    port_memory_close(&bench.server_end);
}

static struct transport_dpdk_config transport_config(void) {
    struct transport_dpdk_config config = {.port = &bench.client_port, .pool = pool};
    memcpy(config.mac, client_mac, 6);
    memcpy(config.ipv4, client_ipv4, 4);
    memcpy(config.server_ipv4, server_ipv4, 4);
    return config;
}

static struct tally_client *bench_client(void) {
    struct transport_dpdk_config config = transport_config();
    struct tally_transport *transport;
    struct tally_client *client;
    char error[200] = "";
    if (transport_dpdk_open(&config, &transport, error, sizeof(error)) < 0 ||
        client_start(&(struct tally_options){0}, transport, &bench.clock, &bench.random, &client,
                     error, sizeof(error)) < 0) {
        printf("%s\n", error);
        return NULL;
    }
    for (unsigned turns = 0; client->session.state != SESSION_OPEN && turns < 1000000; turns++)
        tally_client_poll(client);
    return client;
}

static void test_requests_through_the_real_packet_path(void) {
    CHECK(bench_open());
    struct tally_client *client = bench_client();
    CHECK(client && client->session.state == SESSION_OPEN);
    fill_transfers(transfers, TALLY_EVENTS_MAX, 1);
    struct counted_request counted =
        transfer_request(transfers, TALLY_EVENTS_MAX, results, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(tally_request_wait(client, &counted.request), 0);
    CHECK_EQ(count_status(results, TALLY_EVENTS_MAX, TALLY_TRANSFER_STATUS_created),
             TALLY_EVENTS_MAX);
    CHECK_EQ(bench.events, TALLY_EVENTS_MAX);
    CHECK_EQ(net_counters(bench.net)->requests, (TALLY_EVENTS_MAX + 21) / 22);
    CHECK_EQ(net_counters(bench.net)->drop_window, 0);
    CHECK_EQ(net_counters(bench.net)->malformed, 0);
    bench_close(client);
    CHECK_EQ(rte_mempool_in_use_count(pool), 0);
}

static void test_lookups_and_balances(void) {
    static tally_uint128_t ids[500];
    static struct tally_transfer records[500];
    static struct tally_balances balances[100];
    CHECK(bench_open());
    struct tally_client *client = bench_client();
    CHECK(client);
    for (unsigned i = 0; i < 500; i++)
        ids[i] = i + 1;
    CHECK_EQ(tally_lookup_transfers(client, ids, 500, results, records), 0);
    for (unsigned i = 0; i < 500; i++) {
        CHECK_EQ(results[i].status,
                 ids[i] % 2 ? TALLY_LOOKUP_STATUS_absent : TALLY_LOOKUP_STATUS_found);
        CHECK(ids[i] % 2 || (records[i].id == ids[i] && records[i].amount == ids[i] * 3));
    }
    fill_transfers(transfers, 100, 1);
    CHECK_EQ(tally_create_transfers(client, transfers, 100, results, balances), 0);
    for (unsigned i = 0; i < 100; i++)
        CHECK(balances[i].debits_posted == results[i].timestamp);
    CHECK_EQ(net_counters(bench.net)->malformed, 0);
    bench_close(client);
    CHECK_EQ(rte_mempool_in_use_count(pool), 0);
}

static void test_frames_get_lost(void) {
    CHECK(bench_open());
    struct tally_client *client = bench_client();
    CHECK(client);
    bench.loss_percent = 10;
    fill_transfers(transfers, TALLY_EVENTS_MAX, 1);
    struct counted_request counted =
        transfer_request(transfers, TALLY_EVENTS_MAX, results, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(tally_request_wait(client, &counted.request), 0);
    CHECK_EQ(count_status(results, TALLY_EVENTS_MAX, TALLY_TRANSFER_STATUS_created),
             TALLY_EVENTS_MAX);
    CHECK_EQ(bench.events, TALLY_EVENTS_MAX); /* no number executed twice */
    struct tally_stats stats;
    tally_client_stats(client, &stats);
    CHECK_EQ(stats.sessions, 1);
    CHECK(stats.retransmissions > 10);
    bench_close(client);
    CHECK_EQ(rte_mempool_in_use_count(pool), 0);
}

static void test_nobody_answers_arp(void) {
    struct tally_transport *transport;
    char error[200] = "";
    CHECK(bench_open());
    struct transport_dpdk_config config = transport_config();
    config.server_ipv4[3] = 99;
    CHECK_EQ(transport_dpdk_open(&config, &transport, error, sizeof(error)), -ETIMEDOUT);
    CHECK(strstr(error, "10.7.0.99"));
    config = transport_config();
    config.payload_max = 4000;
    CHECK_EQ(transport_dpdk_open(&config, &transport, error, sizeof(error)), -EINVAL);
    bench_close(NULL);
    CHECK_EQ(rte_mempool_in_use_count(pool), 0);
}

int main(void) {
    char *arguments[] = {"test",
                         "--no-huge",
                         "-m",
                         "64",
                         "--no-pci",
                         "--no-shconf",
                         "--no-telemetry",
                         "--log-level",
                         "lib.eal:error",
                         "--lcores",
                         "0@0"};
    if (rte_eal_init(sizeof(arguments) / sizeof(arguments[0]), arguments) < 0 ||
        !(pool =
              rte_pktmbuf_pool_create("test", 4095, 0, 0, FRAME_BYTES + RTE_PKTMBUF_HEADROOM, 0))) {
        printf("EAL does not start\n0 passed, 1 failed\n");
        return 1;
    }
    TEST_RUN(test_requests_through_the_real_packet_path);
    TEST_RUN(test_lookups_and_balances);
    TEST_RUN(test_frames_get_lost);
    TEST_RUN(test_nobody_answers_arp);
    int failed = TEST_DONE();
    rte_eal_cleanup();
    return failed;
}

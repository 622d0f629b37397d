/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>

#include <rte_eal.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "net/net.h"
#include "net/port_dpdk.h"
#include "net/protocol.h"
#include "tests/lib/test.h"

/** Finding, opening and using DPDK devices that need no hardware: net_ring gives back what it is
 *  sent. Real ones are in tests/integration. */

static struct port_dpdk port;
static char error[300];

static int open_port(const char *name, uint16_t mtu, const uint8_t *ipv6) {
    const struct port_dpdk_config config = {.name = name,
                                            .mtu = mtu,
                                            .rx_descriptors = 64,
                                            .tx_descriptors = 64,
                                            .packets = 256,
                                            .ipv6 = ipv6};
    error[0] = '\0';
    return port_dpdk_open(&port, &config, error, sizeof(error));
}

static void missing_devices(void) {
    static const char *const names[] = {"net_tap9", "", "7", "31", "99999999999", "0x", "-1", " 0"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        CHECK_EQ(open_port(names[i], 0, NULL), -ENODEV);
        CHECK(strstr(error, "net_ring0") != NULL); /* says what there is */
        CHECK(strchr(error, '\n') == NULL);
    }
    char small[20];
    const struct port_dpdk_config config = {.name = "net_tap9"};
    CHECK_EQ(port_dpdk_open(&port, &config, small, sizeof(small)), -ENODEV);
    CHECK_EQ(strlen(small), sizeof(small) - 1);
}

static void mtu_out_of_range(void) {
    CHECK_EQ(open_port("net_ring0", 20, NULL), -EINVAL);
    CHECK(strstr(error, "mtu 20") != NULL);
}

/** Frames go out, come back, and leak nowhere. */
static void loop(void) {
    static const uint8_t ipv6[16] = {0xfd, [15] = 1};
    CHECK_EQ(open_port("net_ring0", 0, ipv6), 0);
    CHECK_EQ(port.mtu, 1500);
    CHECK_EQ(port.payload_max, NET_PAYLOAD_IPV4_DEFAULT);
    CHECK_EQ(rte_mempool_in_use_count(port.pool), 0);
    struct rte_mbuf *packets[NET_BURST];
    unsigned total = 0;
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < NET_BURST; i++) {
            packets[i] = rte_pktmbuf_alloc(port.pool);
            CHECK(packets[i] != NULL);
            memset(rte_pktmbuf_append(packets[i], 60), (int)i, 60);
        }
        unsigned sent = port.port.tx(&port.port, packets, NET_BURST);
        CHECK_EQ(sent, NET_BURST);
        unsigned received = port.port.rx(&port.port, packets, NET_BURST);
        CHECK_EQ(received, NET_BURST);
        for (unsigned i = 0; i < received; i++) {
            CHECK_EQ(packets[i]->data_len, 60);
            CHECK_EQ(*rte_pktmbuf_mtod(packets[i], uint8_t *), i);
            rte_pktmbuf_free(packets[i]);
        }
        total += received;
        CHECK_EQ(port.port.rx(&port.port, packets, NET_BURST), 0);
    }
    struct port_dpdk_statistics statistics;
    port_dpdk_statistics(&port, &statistics);
    CHECK_EQ(statistics.rx_packets, total);
    CHECK_EQ(statistics.tx_packets, total);
    CHECK_EQ(rte_mempool_in_use_count(port.pool), 0);
    port_dpdk_close(&port);
    CHECK(port.pool == NULL);
    CHECK_EQ(open_port("net_ring0", 0, NULL), -ENODEV); /* closed is gone */
}

/** By number, and a ring that is full takes no more: the rest stays the caller's. */
static void full_ring(void) {
    CHECK_EQ(open_port("1", 0, NULL), 0);
    struct rte_mbuf *packets[NET_BURST];
    unsigned sent = 0, wanted = 0;
    do {
        for (unsigned i = 0; i < NET_BURST; i++)
            CHECK((packets[i] = rte_pktmbuf_alloc(port.pool)) != NULL);
        unsigned taken = port.port.tx(&port.port, packets, NET_BURST);
        for (unsigned i = taken; i < NET_BURST; i++)
            rte_pktmbuf_free(packets[i]);
        sent += taken;
        wanted += NET_BURST;
    } while (sent == wanted && wanted < 100000 / NET_BURST * NET_BURST &&
             rte_mempool_avail_count(port.pool) >= NET_BURST);
    unsigned received = 0, count;
    while ((count = port.port.rx(&port.port, packets, NET_BURST)) > 0) {
        received += count;
        for (unsigned i = 0; i < count; i++)
            rte_pktmbuf_free(packets[i]);
    }
    CHECK_EQ(received, sent);
    CHECK_EQ(rte_mempool_in_use_count(port.pool), 0);
    port_dpdk_close(&port);
}

/** Ignored before EAL starts; the kernel then does not queue them. */
static void signals_are_ignored(void) {
    struct sigaction action;
    CHECK_EQ(sigaction(SIGRTMIN, NULL, &action), 0);
    CHECK(action.sa_handler == SIG_IGN);
    CHECK_EQ(sigaction(SIGRTMAX, NULL, &action), 0);
    CHECK(action.sa_handler == SIG_IGN);
    CHECK_EQ(raise(SIGRTMIN + 3), 0);
}

int main(void) {
    char *arguments[] = {"test",           "--no-huge",   "-m",       "64",
                         "--no-pci",       "--no-shconf", "--vdev",   "net_ring0",
                         "--vdev",         "net_ring1",   "--lcores", "0@0",
                         "--no-telemetry", "--log-level", "*:error"};
    port_dpdk_prepare_signals();
    if (rte_eal_init(sizeof(arguments) / sizeof(arguments[0]), arguments) < 0) {
        printf("EAL does not start\n0 passed, 1 failed\n");
        return 1;
    }
    TEST_RUN(missing_devices);
    TEST_RUN(mtu_out_of_range);
    TEST_RUN(loop);
    TEST_RUN(full_ring);
    TEST_RUN(signals_are_ignored);
    return TEST_DONE();
}

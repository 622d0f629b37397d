/* SPDX-License-Identifier: Apache-2.0 */
/** port-bridge: passes every frame between two DPDK ports, both ways, until SIGTERM. With it a client on a kernel interface
 *  reaches a tallyd whose port the kernel cannot see (vhost), over net_af_packet on one side and net_virtio_user on the other.
 *  Usage: port-bridge PORT PORT EAL-arguments... */
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <rte_eal.h>
#include <rte_mbuf.h>

#include "net/port_dpdk.h"

#define BURST 32
#define PACKETS 4096

static atomic_bool stop;

static void on_signal(int number) {
    (void)number;
    atomic_store_explicit(&stop, true, memory_order_relaxed);
}

/** @return packets received */
static unsigned forward(struct port *from, struct port *to) {
    struct rte_mbuf *packets[BURST];
    unsigned received = from->rx(from, packets, BURST), sent = 0;
    if (received > 0)
        sent = to->tx(to, packets, received);
    for (unsigned i = sent; i < received; i++) /* like a wire, it drops what does not fit */
        rte_pktmbuf_free(packets[i]);
    return received;
}

int main(int argc, char **argv) {
    struct port_dpdk ports[2];
    if (argc < 4) {
        fprintf(stderr, "usage: port-bridge PORT PORT EAL-arguments...\n");
        return 2;
    }
    const char *names[2] = {argv[1], argv[2]};
    argv[2] = argv[0];
    port_dpdk_prepare_signals();
    if (rte_eal_init(argc - 2, argv + 2) < 0)
        return 1;
    for (int i = 0; i < 2; i++) {
        struct port_dpdk_config config = {
            .name = names[i], .packets = PACKETS, .software_checksums = true};
        char error[256];
        if (port_dpdk_open(&ports[i], &config, error, sizeof(error)) != 0) {
            fprintf(stderr, "port-bridge: %s\n", error);
            return 1;
        }
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    fprintf(stderr, "port-bridge: ready\n");
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        unsigned moved = forward(&ports[0].port, &ports[1].port);
        moved += forward(&ports[1].port, &ports[0].port);
        if (moved == 0)
            sched_yield();
    }
    rte_eal_cleanup();
    return 0;
}

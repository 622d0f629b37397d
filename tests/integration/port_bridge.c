/* SPDX-License-Identifier: Apache-2.0 */
/** port-bridge: passes every frame between two DPDK ports, both ways, until SIGTERM. With it a client on a kernel interface
 *  reaches a tallyd whose port the kernel cannot see (vhost), over net_af_packet on one side and net_virtio_user on the other.
 *  LOSS and DOUBLE are how many frames of 1000 it drops, and how many it passes twice, by a generator that starts with SEED.
 *  Usage: port-bridge PORT PORT LOSS DOUBLE SEED EAL-arguments... */
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
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

struct faults {
    unsigned loss, twice; /**< of 1000 */
    uint64_t random;
};

static bool happens(struct faults *faults, unsigned per_thousand) {
    faults->random = faults->random * 6364136223846793005u + 1442695040888963407u;
    return per_thousand > 0 && (faults->random >> 33) % 1000 < per_thousand;
}

/** Like a wire, it drops what does not fit. */
static void pass(struct port *to, struct rte_mbuf *packet) {
    if (to->tx(to, &packet, 1) == 0)
        rte_pktmbuf_free(packet);
}

/** @return packets received */
static unsigned forward(struct port_dpdk *from, struct port_dpdk *to, struct faults *faults) {
    struct rte_mbuf *packets[BURST];
    unsigned received = from->port.rx(&from->port, packets, BURST);
    for (unsigned i = 0; i < received; i++) {
        if (happens(faults, faults->loss)) {
            rte_pktmbuf_free(packets[i]);
            continue;
        }
        if (happens(faults, faults->twice)) {
            struct rte_mbuf *twin = rte_pktmbuf_copy(packets[i], to->pool, 0, UINT32_MAX);
            if (twin != NULL)
                pass(&to->port, twin);
        }
        pass(&to->port, packets[i]);
    }
    return received;
}

int main(int argc, char **argv) {
    struct port_dpdk ports[2];
    if (argc < 7) {
        fprintf(stderr, "usage: port-bridge PORT PORT LOSS DOUBLE SEED EAL-arguments...\n");
        return 2;
    }
    struct faults faults = {.loss = (unsigned)strtoul(argv[3], NULL, 10),
                            .twice = (unsigned)strtoul(argv[4], NULL, 10),
                            .random = strtoull(argv[5], NULL, 10)};
    const char *names[2] = {argv[1], argv[2]};
    argv[5] = argv[0];
    port_dpdk_prepare_signals();
    if (rte_eal_init(argc - 5, argv + 5) < 0)
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
    signal(SIGPIPE, SIG_IGN); /* the other side of virtio-user may go first */
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    fprintf(stderr, "port-bridge: ready\n");
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        unsigned moved = forward(&ports[0], &ports[1], &faults);
        moved += forward(&ports[1], &ports[0], &faults);
        if (moved == 0)
            sched_yield();
    }
    for (int i = 0; i < 2; i++)
        port_dpdk_close(&ports[i]);
    rte_eal_cleanup();
    return 0;
}

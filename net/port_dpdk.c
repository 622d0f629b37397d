/* SPDX-License-Identifier: Apache-2.0 */
#include "net/port_dpdk.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "net/protocol.h"

enum {
    DESCRIPTORS_DEFAULT = 1024,
    POOL_CACHE = 256,
    IPV4_UDP_BYTES = 20 + 8,
};

static unsigned dpdk_rx(struct port *port, struct rte_mbuf **packets, unsigned count) {
    struct port_dpdk *dpdk = (struct port_dpdk *)port;
    return rte_eth_rx_burst(dpdk->number, 0, packets, (uint16_t)count);
}

static unsigned dpdk_tx(struct port *port, struct rte_mbuf **packets, unsigned count) {
    struct port_dpdk *dpdk = (struct port_dpdk *)port;
    unsigned ready = count;
    if (dpdk->tx_prepare) {
        ready = rte_eth_tx_prepare(dpdk->number, 0, packets, (uint16_t)count);
        if (ready == 0 && count > 0) { /* never let one packet stand in the way of the others */
            rte_pktmbuf_free(packets[0]);
            dpdk->tx_errors++;
            return 1;
        }
    }
    return rte_eth_tx_burst(dpdk->number, 0, packets, (uint16_t)ready);
}

void port_dpdk_prepare_signals(void) {
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
        signal(number, SIG_IGN);
}

static int fail(int status, char *error, size_t error_bytes, const char *what, const char *name) {
    snprintf(error, error_bytes, "port %s: %s: %s", name, what, strerror(-status));
    return status;
}

static int port_missing(char *error, size_t error_bytes, const char *name) {
    size_t used = (size_t)snprintf(error, error_bytes,
                                   "no port %s (its driver may have refused it); there are:", name);
    uint16_t number;
    unsigned found = 0;
    RTE_ETH_FOREACH_DEV(number) {
        char other[RTE_ETH_NAME_MAX_LEN];
        if (used < error_bytes && rte_eth_dev_get_name_by_port(number, other) == 0)
            used += (size_t)snprintf(error + used, error_bytes - used, " %s", other);
        found++;
    }
    if (found == 0)
        snprintf(error, error_bytes,
                 "no port %s, nor any other: name a device behind \"--\", as in "
                 "--vdev=net_af_packet0,iface=eth1 or -a 0000:01:00.0; its driver says above if it "
                 "refused",
                 name);
    return -ENODEV;
}

static bool port_find(const char *name, uint16_t *number) {
    if (rte_eth_dev_get_port_by_name(name, number) == 0)
        return true;
    char *end;
    unsigned long value = strtoul(name, &end, 10);
    if (*name < '0' || *name > '9' || *end != '\0' || value >= RTE_MAX_ETHPORTS ||
        !rte_eth_dev_is_valid_port((uint16_t)value))
        return false;
    *number = (uint16_t)value;
    return true;
}

/** Configure one queue each way, with the offloads that we use. */
static int port_configure(struct port_dpdk *port, const struct port_dpdk_config *config,
                          const struct rte_eth_dev_info *info) {
    const uint64_t rx_wanted = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
    struct rte_eth_conf conf = {0};
    if (!config->software_checksums)
        conf.txmode.offloads =
            info->tx_offload_capa & (RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM);
    if (config->rx_checksum_trusted && (info->rx_offload_capa & rx_wanted) == rx_wanted)
        conf.rxmode.offloads = rx_wanted;
    conf.rxmode.mtu = config->mtu;
    if (conf.rxmode.mtu == 0 && rte_eth_dev_get_mtu(port->number, &port->mtu) == 0)
        conf.rxmode.mtu = port->mtu;
    int status = rte_eth_dev_configure(port->number, 1, 1, &conf);
    port->tx_checksum_ipv4 = conf.txmode.offloads & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
    port->tx_checksum_udp = conf.txmode.offloads & RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
    port->tx_prepare = conf.txmode.offloads != 0;
    port->rx_checksum = conf.rxmode.offloads != 0;
    return status;
}

static int port_mtu(struct port_dpdk *port, const struct port_dpdk_config *config) {
    int status = rte_eth_dev_get_mtu(port->number, &port->mtu);
    if (status != 0)
        return status;
    if (config->mtu != 0) {
        /* configuring has told ethdev, this tells the driver; some take it from the
         * configuration */
        status = rte_eth_dev_set_mtu(port->number, config->mtu);
        if (status != 0 && !(status == -ENOTSUP && port->mtu == config->mtu))
            return status;
        port->mtu = config->mtu;
    }
    unsigned payload = port->mtu > IPV4_UDP_BYTES ? port->mtu - IPV4_UDP_BYTES : 0;
    port->payload_max = (uint16_t)(payload < NET_PAYLOAD_MAX ? payload : NET_PAYLOAD_MAX);
    return 0;
}

static int port_pool(struct port_dpdk *port, unsigned packets, int socket) {
    char name[RTE_MEMPOOL_NAMESIZE];
    unsigned room =
        RTE_PKTMBUF_HEADROOM + port->mtu + 32u; /* Ethernet, two VLAN tags, check sequence */
    if (room < RTE_MBUF_DEFAULT_BUF_SIZE)
        room = RTE_MBUF_DEFAULT_BUF_SIZE;
    snprintf(name, sizeof(name), "port%u", port->number);
    port->pool = rte_pktmbuf_pool_create(name, packets, POOL_CACHE, 0, (uint16_t)room, socket);
    return port->pool == NULL ? -rte_errno : 0;
}

/** Frames to the solicited-node group: by filter if the device has one, else all groups, else
 *  everything. */
static int port_listen(const struct port_dpdk *port, const uint8_t *ipv6) {
    struct rte_ether_addr group = {{0x33, 0x33, 0xff, ipv6[13], ipv6[14], ipv6[15]}};
    if (rte_eth_dev_set_mc_addr_list(port->number, &group, 1) == 0 ||
        rte_eth_allmulticast_enable(port->number) == 0)
        return 0;
    return rte_eth_promiscuous_enable(port->number);
}

int port_dpdk_open(struct port_dpdk *port, const struct port_dpdk_config *config, char *error,
                   size_t error_bytes) {
    struct rte_eth_dev_info info;
    struct rte_ether_addr mac;
    const char *name = config->name;
    *port = (struct port_dpdk){.port = {.rx = dpdk_rx, .tx = dpdk_tx}};
    if (!port_find(name, &port->number))
        return port_missing(error, error_bytes, name);
    int status = rte_eth_dev_info_get(port->number, &info);
    if (status != 0)
        return fail(status, error, error_bytes, "no information", name);
    if (config->mtu != 0 && (config->mtu < info.min_mtu || config->mtu > info.max_mtu)) {
        snprintf(error, error_bytes, "port %s: mtu %u is out of its range, %u to %u", name,
                 config->mtu, info.min_mtu, info.max_mtu);
        return -EINVAL;
    }
    status = port_configure(port, config, &info);
    if (status != 0)
        return fail(status, error, error_bytes, "cannot be configured", name);
    status = port_mtu(port, config);
    if (status != 0)
        return fail(status, error, error_bytes, "its mtu cannot be read or set", name);

    uint16_t rx = config->rx_descriptors ? config->rx_descriptors : DESCRIPTORS_DEFAULT;
    uint16_t tx = config->tx_descriptors ? config->tx_descriptors : DESCRIPTORS_DEFAULT;
    int socket = rte_eth_dev_socket_id(port->number);
    status = rte_eth_dev_adjust_nb_rx_tx_desc(port->number, &rx, &tx);
    if (status != 0)
        return fail(status, error, error_bytes, "does not tell its ring sizes", name);
    status = port_pool(port, rx + tx + 2 * POOL_CACHE + config->packets, socket);
    if (status != 0)
        return fail(status, error, error_bytes, "no memory for its packets", name);

    const char *what = "its receive queue cannot be set up";
    status = rte_eth_rx_queue_setup(port->number, 0, rx, (unsigned)socket, NULL, port->pool);
    if (status == 0) {
        what = "its transmit queue cannot be set up";
        status = rte_eth_tx_queue_setup(port->number, 0, tx, (unsigned)socket, NULL);
    }
    if (status == 0) {
        what = "cannot be started";
        status = rte_eth_dev_start(port->number);
    }
    if (status == 0 && config->ipv6 != NULL) {
        what = "cannot listen to its IPv6 group";
        status = port_listen(port, config->ipv6);
    }
    if (status == 0) {
        what = "does not tell its Ethernet address";
        status = rte_eth_macaddr_get(port->number, &mac);
    }
    if (status != 0) {
        port_dpdk_close(port);
        return fail(status, error, error_bytes, what, name);
    }
    memcpy(port->mac, mac.addr_bytes, sizeof(port->mac));
    return 0;
}

void port_dpdk_close(struct port_dpdk *port) {
    (void)rte_eth_dev_stop(port->number); /* fails when it was never started */
    (void)rte_eth_dev_close(port->number);
    rte_mempool_free(port->pool);
    port->pool = NULL;
}

void port_dpdk_statistics(const struct port_dpdk *port, struct port_dpdk_statistics *statistics) {
    struct rte_eth_stats stats;
    *statistics = (struct port_dpdk_statistics){0};
    if (rte_eth_stats_get(port->number, &stats) != 0)
        return;
    *statistics = (struct port_dpdk_statistics){
        .rx_packets = stats.ipackets,
        .tx_packets = stats.opackets,
        .rx_missed = stats.imissed,
        .rx_errors = stats.ierrors,
        .tx_errors = stats.oerrors + port->tx_errors,
        .rx_no_buffer = stats.rx_nombuf,
    };
}

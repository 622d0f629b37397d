/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_PORT_DPDK_H
#define TALLY_NET_PORT_DPDK_H

#include "engine/base/seams.h"

/** A port of the system bound to a DPDK ethdev, one queue of it.
 *  Owner: the lcore that uses it; opening and closing are control work. */

struct rte_mempool;

struct port_dpdk {
    struct port port;         /**< first: a pointer to it is a pointer to this */
    uint16_t number;          /**< DPDK's */
    struct rte_mempool *pool; /**< of received packets, and for packets to send */
    uint64_t tx_errors;       /**< packets that the driver refused to prepare; dropped */
    /* what the device is and can do, for net_config */
    uint8_t mac[6];
    uint16_t mtu;
    uint16_t payload_max;  /**< UDP payload over IPv4 */
    bool tx_checksum_ipv4; /**< it fills in checksums */
    bool tx_checksum_udp;
    bool tx_prepare;  /**< packets with offloads go through rte_eth_tx_prepare first */
    bool rx_checksum; /**< it verifies checksums, and was asked to */
};

struct port_dpdk_config {
    const char *name; /**< as EAL knows the device ("net_tap0", "0000:01:00.0"), or a port number */
    uint16_t mtu;     /**< wanted; 0: as the device comes */
    uint16_t rx_descriptors, tx_descriptors; /**< 0: 1024; the device may round them */
    bool software_checksums;                 /**< leave the device's transmit offloads alone */
    bool rx_checksum_trusted; /**< let the device verify; else that is done in software */
    unsigned packets;         /**< in the pool, beyond what rings and caches hold */
    const uint8_t *ipv6;      /**< listen to its solicited-node group; NULL: none */
};

/** Before rte_eal_init: ignore the real-time signals with which net_tap announces packets. The
 *  driver polls all the same, and the signals cost it nine tenths of its rate. They must not be
 *  blocked instead: the queue of signals would fill. */
void port_dpdk_prepare_signals(void);

/** Find, configure and start a device. A device whose driver failed does not fail rte_eal_init; it
 *  is found missing here.
 *  @param error  one line that says what is wrong, filled when the answer is not 0
 *  @return 0, -ENODEV (no such port; the error names those that there are), -ENOMEM, or the
 *  driver's -errno */
int port_dpdk_open(struct port_dpdk *port, const struct port_dpdk_config *config, char *error,
                   size_t error_bytes);
/** Stop and close the device. Packets of its pool may no longer be in use. */
void port_dpdk_close(struct port_dpdk *port);

/** What the device itself counted. */
struct port_dpdk_statistics {
    uint64_t rx_packets, tx_packets, rx_missed, rx_errors, tx_errors, rx_no_buffer;
};
void port_dpdk_statistics(const struct port_dpdk *port, struct port_dpdk_statistics *statistics);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_CLIENT_TRANSPORT_DPDK_H
#define TALLY_NET_CLIENT_TRANSPORT_DPDK_H

#include <stdbool.h>

#include "net/client/transport.h"
#include "net/port_dpdk.h"

/** The client's packet path over a DPDK port of its own, for machines that have one: no kernel
 *  in between, and nothing to sleep on, so the client has to be polled. IPv4; no routing: server
 *  and client are on one link.
 *  Flow:  session -> [transport_dpdk] -> port -> wire -> port -> [transport_dpdk] -> session
 *  Owner: the client's thread, which is also the port's. A library of its own (tally-dpdk), so
 *  that libtally needs no DPDK. */

struct transport_dpdk_config {
    struct port *port;
    struct rte_mempool *pool; /**< for packets to send */
    uint8_t mac[6], ipv4[4];  /**< our own */
    uint8_t server_mac[6];    /**< all zero: found by ARP */
    uint8_t server_ipv4[4];
    uint16_t udp_port;    /**< our own; 0: one from the dynamic range, at random */
    uint16_t server_port; /**< 0: 7711 */
    uint16_t payload_max; /**< largest UDP payload that the port takes; 0: 1472 */
    bool tx_checksum_ipv4, tx_checksum_udp; /**< the port fills them in */
    bool rx_checksum_trusted;               /**< the port's verdict GOOD may be believed */
};

/** What is known of a port, into a configuration; addresses are left to the caller. */
void transport_dpdk_describe(struct port_dpdk *port, struct transport_dpdk_config *config);

/** Hand it to tally_client_open in tally_options.transport. The port stays the caller's, and
 *  outlives it. Blocks for up to a second to find the server's Ethernet address.
 *  @param error one line when the answer is not 0
 *  @return 0, -EINVAL (packets of the pool are too small), -ENOMEM, -ETIMEDOUT (nobody answered
 *           ARP) */
int transport_dpdk_open(const struct transport_dpdk_config *config,
                        struct tally_transport **transport, char *error, size_t error_bytes);

#endif

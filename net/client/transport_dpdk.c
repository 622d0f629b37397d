/* SPDX-License-Identifier: Apache-2.0 */
#include "net/client/transport_dpdk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_arp.h>
#include <rte_cycles.h>
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <rte_random.h>

#include "net/packet.h"
#include "net/protocol.h"

#define TRANSPORT_BURST 64
#define ARP_TRIES 20
#define ARP_WAIT_MS 50
#define DYNAMIC_PORT_FIRST 49152
#define DYNAMIC_PORTS 16384

struct transport_dpdk {
    struct tally_transport base;
    struct port *port;
    struct rte_mempool *pool;
    struct packet_self self;
    struct packet_peer server; /**< its port is set for each datagram */
    bool rx_checksum_trusted;
    bool server_known;
};

/* --- sending ---------------------------------------------------------------------------------- */

static void mbuf_offload(const struct transport_dpdk *dpdk, struct rte_mbuf *mbuf) {
    if (dpdk->self.tx_checksum_udp)
        mbuf->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_UDP_CKSUM;
    if (dpdk->self.tx_checksum_ipv4)
        mbuf->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
    mbuf->l2_len = sizeof(struct rte_ether_hdr);
    mbuf->l3_len = 20;
    mbuf->l4_len = 8;
}

static unsigned dpdk_send(struct tally_transport *transport,
                          const struct tally_transport_datagram *datagrams, unsigned count) {
    struct transport_dpdk *dpdk = (struct transport_dpdk *)transport;
    struct rte_mbuf *packets[TRANSPORT_BURST];
    count = count < TRANSPORT_BURST ? count : TRANSPORT_BURST;
    if (rte_pktmbuf_alloc_bulk(dpdk->pool, packets, count) != 0)
        return 0;
    for (unsigned i = 0; i < count; i++) {
        size_t length = datagrams[i].length;
        /* transport_dpdk_open has compared the pool with payload_max */
        uint8_t *frame =
            (uint8_t *)rte_pktmbuf_append(packets[i], (uint16_t)(PACKET_HEADERS_IPV4 + length));
        memcpy(frame + PACKET_HEADERS_IPV4, datagrams[i].bytes, length);
        dpdk->server.port = datagrams[i].port;
        packet_encode_udp(&dpdk->self, &dpdk->server, frame, length);
        mbuf_offload(dpdk, packets[i]);
    }
    unsigned sent = dpdk->port->tx(dpdk->port, packets, count);
    if (sent < count)
        rte_pktmbuf_free_bulk(packets + sent, count - sent);
    return sent;
}

/* --- receiving -------------------------------------------------------------------------------- */

/** Learn the server's Ethernet address from whatever ARP packet it sends: its answer, or its
 *  announcement after a start. */
static void learn_server(struct transport_dpdk *dpdk, const uint8_t *frame, size_t bytes) {
    const struct rte_ether_hdr *ethernet = (const struct rte_ether_hdr *)frame;
    const struct rte_arp_hdr *arp = (const struct rte_arp_hdr *)(ethernet + 1);
    if (bytes < sizeof(*ethernet) + sizeof(*arp) ||
        ethernet->ether_type != rte_cpu_to_be_16(RTE_ETHER_TYPE_ARP) ||
        memcmp(&arp->arp_data.arp_sip, dpdk->server.ip, 4) != 0)
        return;
    memcpy(dpdk->server.mac, &arp->arp_data.arp_sha, 6);
    dpdk->server_known = true;
}

/** Take one frame. @return whether it was the server's datagram, now in `datagram`. The mbuf is
 *  taken. */
static bool receive_frame(struct transport_dpdk *dpdk, struct rte_mbuf *mbuf,
                          struct tally_transport_datagram *datagram) {
    uint8_t *frame = rte_pktmbuf_mtod(mbuf, uint8_t *);
    struct packet packet;
    unsigned verified = 0;
    bool taken = false;
    if (mbuf->nb_segs != 1 || mbuf->data_len + rte_pktmbuf_tailroom(mbuf) < PACKET_ANSWER_ROOM) {
        rte_pktmbuf_free(mbuf);
        return false;
    }
    if (dpdk->rx_checksum_trusted) {
        if ((mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD)
            verified |= PACKET_VERIFIED_IPV4;
        if ((mbuf->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
            verified |= PACKET_VERIFIED_UDP;
    }
    learn_server(dpdk, frame, mbuf->data_len);
    enum packet_kind kind = packet_decode(&dpdk->self, frame, mbuf->data_len, verified, &packet);
    if (kind == PACKET_ARP_ANSWER || kind == PACKET_ICMP_ANSWER) {
        mbuf->ol_flags = 0;
        mbuf->data_len = (uint16_t)packet.answer_bytes;
        mbuf->pkt_len = (uint32_t)packet.answer_bytes;
        if (dpdk->port->tx(dpdk->port, &mbuf, 1) == 1)
            return false;
    } else if (kind == PACKET_UDP && packet.peer.family == 4 &&
               memcmp(packet.peer.ip, dpdk->server.ip, 4) == 0 &&
               packet.payload_bytes <= datagram->length) {
        memcpy(datagram->bytes, packet.payload, packet.payload_bytes);
        datagram->length = (uint32_t)packet.payload_bytes;
        datagram->port = packet.peer.port;
        taken = true;
    }
    rte_pktmbuf_free(mbuf);
    return taken;
}

static unsigned dpdk_receive(struct tally_transport *transport,
                             struct tally_transport_datagram *datagrams, unsigned count) {
    struct transport_dpdk *dpdk = (struct transport_dpdk *)transport;
    struct rte_mbuf *packets[TRANSPORT_BURST];
    unsigned kept = 0;
    count = count < TRANSPORT_BURST ? count : TRANSPORT_BURST;
    unsigned received = dpdk->port->rx(dpdk->port, packets, count);
    for (unsigned i = 0; i < received; i++)
        kept += receive_frame(dpdk, packets[i], &datagrams[kept]);
    return kept;
}

static int dpdk_fd(struct tally_transport *transport) {
    (void)transport;
    return -1;
}

static void dpdk_close(struct tally_transport *transport) {
    free(transport);
}

/* --- opening ---------------------------------------------------------------------------------- */

void transport_dpdk_describe(struct port_dpdk *port, struct transport_dpdk_config *config) {
    config->port = &port->port;
    config->pool = port->pool;
    memcpy(config->mac, port->mac, sizeof(config->mac));
    config->payload_max = port->payload_max;
    config->tx_checksum_ipv4 = port->tx_checksum_ipv4;
    config->tx_checksum_udp = port->tx_checksum_udp;
    config->rx_checksum_trusted = port->rx_checksum;
}

/** Ask once who has the server's address. */
static void ask_for_server(struct transport_dpdk *dpdk) {
    struct rte_mbuf *mbuf = rte_pktmbuf_alloc(dpdk->pool);
    uint8_t *frame = mbuf ? (uint8_t *)rte_pktmbuf_append(mbuf, PACKET_ANSWER_ROOM) : NULL;
    if (frame) {
        size_t bytes = packet_encode_arp_announcement(&dpdk->self, frame);
        struct rte_arp_hdr *arp = (struct rte_arp_hdr *)(frame + sizeof(struct rte_ether_hdr));
        memcpy(&arp->arp_data.arp_tip, dpdk->server.ip, 4);
        rte_pktmbuf_trim(mbuf, (uint16_t)(PACKET_ANSWER_ROOM - bytes));
        if (dpdk->port->tx(dpdk->port, &mbuf, 1) == 1)
            return;
    }
    rte_pktmbuf_free(mbuf);
}

static int find_server(struct transport_dpdk *dpdk) {
    struct rte_mbuf *packets[TRANSPORT_BURST];
    struct tally_transport_datagram nowhere = {.length = 0};
    for (unsigned tries = 0; tries < ARP_TRIES && !dpdk->server_known; tries++) {
        uint64_t until = rte_get_timer_cycles() + rte_get_timer_hz() * ARP_WAIT_MS / 1000;
        ask_for_server(dpdk);
        while (!dpdk->server_known && rte_get_timer_cycles() < until) {
            unsigned received = dpdk->port->rx(dpdk->port, packets, TRANSPORT_BURST);
            for (unsigned i = 0; i < received; i++)
                receive_frame(dpdk, packets[i], &nowhere);
        }
    }
    return dpdk->server_known ? 0 : -ETIMEDOUT;
}

int transport_dpdk_open(const struct transport_dpdk_config *config,
                        struct tally_transport **transport, char *error, size_t error_bytes) {
    static const uint8_t unknown[6];
    uint16_t payload_max = config->payload_max ? config->payload_max : NET_PAYLOAD_IPV4_DEFAULT;
    payload_max = payload_max < NET_PAYLOAD_MAX ? payload_max : NET_PAYLOAD_MAX;
    unsigned room = rte_pktmbuf_data_room_size(config->pool) - (unsigned)RTE_PKTMBUF_HEADROOM;
    unsigned needed = payload_max + (unsigned)PACKET_HEADERS_IPV4;
    if (needed > room) {
        snprintf(error, error_bytes, "packets of the pool hold %u bytes; payload_max %u needs %u",
                 room, payload_max, needed);
        return -EINVAL;
    }
    struct transport_dpdk *dpdk = calloc(1, sizeof(*dpdk));
    if (!dpdk) {
        snprintf(error, error_bytes, "no memory for a transport");
        return -ENOMEM;
    }
    dpdk->base = (struct tally_transport){
        .send = dpdk_send,
        .receive = dpdk_receive,
        .fd = dpdk_fd,
        .close = dpdk_close,
        .server_port = config->server_port ? config->server_port : NET_UDP_PORT_DEFAULT,
        .payload_max = payload_max,
    };
    dpdk->port = config->port;
    dpdk->pool = config->pool;
    dpdk->rx_checksum_trusted = config->rx_checksum_trusted;
    dpdk->self.udp_port = config->udp_port
                              ? config->udp_port
                              : (uint16_t)(DYNAMIC_PORT_FIRST + rte_rand_max(DYNAMIC_PORTS));
    dpdk->self.tx_checksum_ipv4 = config->tx_checksum_ipv4;
    dpdk->self.tx_checksum_udp = config->tx_checksum_udp;
    memcpy(dpdk->self.mac, config->mac, 6);
    memcpy(dpdk->self.ipv4, config->ipv4, 4);
    dpdk->server.family = 4;
    memcpy(dpdk->server.ip, config->server_ipv4, 4);
    memcpy(dpdk->server.mac, config->server_mac, 6);
    dpdk->server_known = memcmp(config->server_mac, unknown, 6) != 0;
    int rc = dpdk->server_known ? 0 : find_server(dpdk);
    if (rc < 0) {
        snprintf(error, error_bytes, "nobody answers ARP for %u.%u.%u.%u on this port",
                 config->server_ipv4[0], config->server_ipv4[1], config->server_ipv4[2],
                 config->server_ipv4[3]);
        free(dpdk);
        return rc;
    }
    *transport = &dpdk->base;
    return 0;
}

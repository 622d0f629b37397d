/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_PACKET_H
#define TALLY_NET_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Frames: what is in one, whether it is sound and for us, and the answers that need no session.
 *  Flow:  port -> [packet_decode] -> net_rx;  net_reply -> [packet_encode_udp] -> port
 *  Owner: nobody, pure functions over one frame. Bounds: one cursor over one length. Keeps: INV-10.
 *  RFC 826 (ARP), 791, 1071 (checksums), 792, 768, 8200, 4443, 4861 (neighbour discovery). */

enum {
    PACKET_HEADERS_IPV4 = 14 + 20 + 8, /**< Ethernet, IPv4, UDP */
    PACKET_HEADERS_IPV6 = 14 + 40 + 8,
    PACKET_ANSWER_ROOM =
        128, /**< bytes that a frame's buffer must hold at least: an answer may be longer */
};

/** Our side of the wire. All-zero addresses are not used. */
struct packet_self {
    uint8_t mac[6];
    uint8_t ipv4[4];
    uint8_t ipv6[16];
    uint16_t udp_port;
    bool tx_checksum_ipv4; /**< the port fills in the checksum */
    bool tx_checksum_udp;
};

/** The other side: where a datagram came from, and so where its answer goes. */
struct packet_peer {
    uint8_t family; /**< 4 or 6 */
    uint8_t mac[6];
    uint16_t port;
    uint8_t ip[16]; /**< IPv4: the first four, the others are zero */
};

enum packet_kind {
    PACKET_UDP,         /**< a datagram for our port */
    PACKET_ARP_ANSWER,  /**< the frame now is the answer, send it */
    PACKET_ICMP_ANSWER, /**< the same: echo, or neighbour advertisement */
    PACKET_DROP_ETHERNET,
    PACKET_DROP_IP,
    PACKET_DROP_FRAGMENT,
    PACKET_DROP_PROTOCOL,
    PACKET_DROP_UDP,
};

/** What the port has verified already. */
enum packet_verified {
    PACKET_VERIFIED_IPV4 = 1 << 0, /**< IPv4 header checksum */
    PACKET_VERIFIED_UDP = 1 << 1,  /**< UDP checksum */
};

struct packet {
    struct packet_peer peer; /**< of PACKET_UDP */
    uint8_t *payload;        /**< of PACKET_UDP */
    size_t payload_bytes;
    size_t answer_bytes; /**< of the frame, for the answers */
};

/** Look at one frame. Answers overwrite it.
 *  @param frame     in a buffer of PACKET_ANSWER_ROOM bytes or more
 *  @param verified  enum packet_verified
 *  @return enum packet_kind */
enum packet_kind packet_decode(const struct packet_self *self, uint8_t *frame, size_t frame_bytes,
                               unsigned verified, struct packet *packet);

/** Bytes in front of a payload to this peer. */
static inline size_t packet_header_bytes(const struct packet_peer *peer) {
    return peer->family == 4 ? PACKET_HEADERS_IPV4 : PACKET_HEADERS_IPV6;
}

/** Write Ethernet, IP and UDP headers in front of a payload that stands in place behind them.
 *  Checksums that the port fills in are prepared as DPDK wants them (IPv4: 0, UDP: that of the
 *  pseudo header). */
void packet_encode_udp(const struct packet_self *self, const struct packet_peer *peer,
                       uint8_t *frame, size_t payload_bytes);

/** Write a gratuitous ARP request (PACKET_ARP_BYTES) or an unsolicited neighbour advertisement.
 *  @return bytes */
size_t packet_encode_arp_announcement(const struct packet_self *self, uint8_t *frame);
size_t packet_encode_ipv6_announcement(const struct packet_self *self, uint8_t *frame);

/** Internet checksum (RFC 1071) of a stretch of bytes, in memory order, complemented. */
uint16_t packet_checksum(const void *bytes, size_t length);

#endif

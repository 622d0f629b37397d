/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_UNIT_NET_PACKET_FIXTURE_H
#define TALLY_TESTS_UNIT_NET_PACKET_FIXTURE_H

#include <stdbool.h>

#include "net/packet.h"
#include "tests/lib/test.h"

/** A server and a client as addresses, and good frames between them; no session, no EAL. */

static const struct packet_self server = {
    .mac = {2, 0, 0, 0, 0, 1},
    .ipv4 = {10, 7, 0, 1},
    .ipv6 = {0xfd, 0, [13] = 0x12, [14] = 0x34, [15] = 0x56},
    .udp_port = 7711,
};
static const struct packet_self client = {
    .mac = {2, 0, 0, 0, 0, 9},
    .ipv4 = {10, 7, 0, 9},
    .ipv6 = {0xfd, 0, [15] = 9},
    .udp_port = 5555,
};

/* the server's solicited-node group */
static const uint8_t group_ip[16] = {0xff, 0x02, [11] = 1, 0xff, 0x12, 0x34, 0x56};
static const uint8_t group_mac[6] = {0x33, 0x33, 0xff, 0x12, 0x34, 0x56};

enum { BUFFER = 2048 };

static inline struct packet_peer peer_of(const struct packet_self *self, uint8_t family) {
    struct packet_peer peer = {.family = family, .port = self->udp_port};
    memcpy(peer.mac, self->mac, 6);
    if (family == 4)
        memcpy(peer.ip, self->ipv4, 4);
    else
        memcpy(peer.ip, self->ipv6, 16);
    return peer;
}

/** A good datagram from the client. @return bytes of the frame */
static inline size_t make_udp(uint8_t family, uint8_t *frame, size_t payload_bytes) {
    struct packet_peer peer = peer_of(&server, family);
    size_t headers = packet_header_bytes(&peer);
    for (size_t i = 0; i < payload_bytes; i++)
        frame[headers + i] = (uint8_t)(i * 7);
    packet_encode_udp(&client, &peer, frame, payload_bytes);
    return headers + payload_bytes;
}

#endif

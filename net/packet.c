/* SPDX-License-Identifier: Apache-2.0 */
#include "net/packet.h"

#include <string.h>

#include <rte_arp.h>
#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_icmp.h>
#include <rte_ip.h>
#include <rte_udp.h>

/** What is left of the frame. Every header is taken from here, so no length is trusted twice. */
struct cursor {
    uint8_t *at;
    size_t left;
};

static void *cursor_take(struct cursor *cursor, size_t bytes) {
    if (cursor->left < bytes)
        return NULL;
    void *taken = cursor->at;
    cursor->at += bytes;
    cursor->left -= bytes;
    return taken;
}

/** ICMPv6 neighbour solicitation and advertisement. */
struct icmp6_neighbour {
    uint8_t type;
    uint8_t code;
    uint16_t checksum;
    uint32_t flags;
    uint8_t target[16];
} __attribute__((packed, aligned(2)));

/** Options of neighbour discovery: type, length in units of 8, an Ethernet address. */
struct icmp6_option {
    uint8_t type;
    uint8_t units;
    uint8_t mac[6];
};

enum {
    ARP_FRAME_BYTES = 60, /* the least that Ethernet carries, without its check sequence */
    ICMP_ECHO_REPLY = 0,
    ICMP_ECHO_REQUEST = 8,
    ICMP6_ECHO_REQUEST = 128,
    ICMP6_ECHO_REPLY = 129,
    ICMP6_SOLICITATION = 135,
    ICMP6_ADVERTISEMENT = 136,
    ICMP6_OPTION_SOURCE = 1,
    ICMP6_OPTION_TARGET = 2,
    HOP_LIMIT = 64,
    HOP_LIMIT_LINK = 255, /* a router would have lowered it: the sender is on this link */
    PROTOCOL_ICMP = 1,
    PROTOCOL_UDP = 17,
    PROTOCOL_ICMP6 = 58,
};

static const uint8_t mac_broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t mac_all_nodes[6] = {0x33, 0x33, 0, 0, 0, 1};
static const uint8_t ipv6_all_nodes[16] = {0xff, 0x02, [15] = 1};
static const uint8_t ipv6_solicited[13] = {0xff, 0x02, [11] = 1, [12] = 0xff};
static const uint8_t zero[16];

static bool is_zero(const uint8_t *bytes, size_t length) {
    return memcmp(bytes, zero, length) == 0;
}

/* --- checksums -------------------------------------------------------------------------------- */

/** Sum of 32-bit words in memory order; pieces of even length may follow one another. */
static uint64_t sum_add(uint64_t sum, const void *bytes, size_t length) {
    const uint8_t *at = bytes;
    for (; length >= 4; at += 4, length -= 4) {
        uint32_t word;
        memcpy(&word, at, 4);
        sum += word;
    }
    uint32_t rest = 0;
    memcpy(&rest, at, length);
    return sum + rest;
}

static uint16_t sum_fold(uint64_t sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint16_t packet_checksum(const void *bytes, size_t length) {
    return (uint16_t)~sum_fold(sum_add(0, bytes, length));
}

static uint64_t sum_pseudo_ipv4(const struct rte_ipv4_hdr *ip, size_t bytes) {
    struct {
        uint32_t source, destination;
        uint16_t protocol, length;
    } pseudo = {ip->src_addr, ip->dst_addr, rte_cpu_to_be_16(ip->next_proto_id),
                rte_cpu_to_be_16((uint16_t)bytes)};
    return sum_add(0, &pseudo, sizeof(pseudo));
}

static uint64_t sum_pseudo_ipv6(const struct rte_ipv6_hdr *ip, size_t bytes) {
    struct {
        uint8_t source[16], destination[16];
        uint32_t length, protocol;
    } pseudo = {.length = rte_cpu_to_be_32((uint32_t)bytes),
                .protocol = rte_cpu_to_be_32(ip->proto)};
    memcpy(pseudo.source, ip->src_addr, 16);
    memcpy(pseudo.destination, ip->dst_addr, 16);
    return sum_add(0, &pseudo, sizeof(pseudo));
}

/* --- answers in place ------------------------------------------------------------------------- */

static void ethernet_encode(uint8_t *frame, const uint8_t *to, const uint8_t *from, uint16_t type) {
    struct rte_ether_hdr *ethernet = (struct rte_ether_hdr *)frame;
    memmove(&ethernet->dst_addr, to, 6);
    memcpy(&ethernet->src_addr, from, 6);
    ethernet->ether_type = rte_cpu_to_be_16(type);
}

static enum packet_kind decode_arp(const struct packet_self *self, uint8_t *frame,
                                   struct cursor cursor, struct packet *packet) {
    struct rte_arp_hdr *arp = cursor_take(&cursor, sizeof(*arp));
    if (arp == NULL || arp->arp_hardware != rte_cpu_to_be_16(RTE_ARP_HRD_ETHER) ||
        arp->arp_protocol != rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4) || arp->arp_hlen != 6 ||
        arp->arp_plen != 4 || arp->arp_opcode != rte_cpu_to_be_16(RTE_ARP_OP_REQUEST) ||
        is_zero(self->ipv4, 4) || memcmp(&arp->arp_data.arp_tip, self->ipv4, 4) != 0)
        return PACKET_DROP_ETHERNET;

    const struct rte_ether_hdr *ethernet = (const struct rte_ether_hdr *)frame;
    uint8_t asker[6];
    memcpy(asker, &ethernet->src_addr, 6);
    arp->arp_opcode = rte_cpu_to_be_16(RTE_ARP_OP_REPLY);
    arp->arp_data.arp_tha = arp->arp_data.arp_sha;
    arp->arp_data.arp_tip = arp->arp_data.arp_sip;
    memcpy(&arp->arp_data.arp_sha, self->mac, 6);
    memcpy(&arp->arp_data.arp_sip, self->ipv4, 4);
    ethernet_encode(frame, asker, self->mac, RTE_ETHER_TYPE_ARP);
    size_t used = sizeof(*ethernet) + sizeof(*arp);
    memset(frame + used, 0, ARP_FRAME_BYTES - used);
    packet->answer_bytes = ARP_FRAME_BYTES;
    return PACKET_ARP_ANSWER;
}

static enum packet_kind decode_icmp(const struct packet_self *self, uint8_t *frame,
                                    struct rte_ipv4_hdr *ip, struct cursor cursor,
                                    struct packet *packet) {
    size_t bytes = cursor.left;
    struct rte_icmp_hdr *icmp = cursor_take(&cursor, sizeof(*icmp));
    if (icmp == NULL || packet_checksum(icmp, bytes) != 0)
        return PACKET_DROP_IP;
    if (icmp->icmp_type != ICMP_ECHO_REQUEST || icmp->icmp_code != 0)
        return PACKET_DROP_PROTOCOL;

    icmp->icmp_type = ICMP_ECHO_REPLY;
    icmp->icmp_cksum = 0;
    icmp->icmp_cksum = packet_checksum(icmp, bytes);
    ip->dst_addr = ip->src_addr;
    memcpy(&ip->src_addr, self->ipv4, 4);
    ip->time_to_live = HOP_LIMIT;
    ip->hdr_checksum = 0;
    ip->hdr_checksum = packet_checksum(ip, sizeof(*ip));
    ethernet_encode(frame, frame + 6, self->mac, RTE_ETHER_TYPE_IPV4);
    packet->answer_bytes = sizeof(struct rte_ether_hdr) + sizeof(*ip) + bytes;
    return PACKET_ICMP_ANSWER;
}

/** Write an advertisement of our address. */
static size_t advertisement_encode(const struct packet_self *self, uint8_t *frame,
                                   const uint8_t *to_mac, const uint8_t *to_ip, uint32_t flags) {
    struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(frame + sizeof(struct rte_ether_hdr));
    struct icmp6_neighbour *body = (struct icmp6_neighbour *)(ip + 1);
    struct icmp6_option *option = (struct icmp6_option *)(body + 1);
    size_t bytes = sizeof(*body) + sizeof(*option);

    ip->vtc_flow = rte_cpu_to_be_32(6u << 28);
    ip->payload_len = rte_cpu_to_be_16((uint16_t)bytes);
    ip->proto = PROTOCOL_ICMP6;
    ip->hop_limits = HOP_LIMIT_LINK;
    memmove(ip->dst_addr, to_ip, 16);
    memcpy(ip->src_addr, self->ipv6, 16);
    body->type = ICMP6_ADVERTISEMENT;
    body->code = 0;
    body->checksum = 0;
    body->flags = rte_cpu_to_be_32(flags);
    memcpy(body->target, self->ipv6, 16);
    option->type = ICMP6_OPTION_TARGET;
    option->units = 1;
    memcpy(option->mac, self->mac, 6);
    body->checksum = (uint16_t)~sum_fold(sum_add(sum_pseudo_ipv6(ip, bytes), body, bytes));
    ethernet_encode(frame, to_mac, self->mac, RTE_ETHER_TYPE_IPV6);
    return sizeof(struct rte_ether_hdr) + sizeof(*ip) + bytes;
}

enum {
    ADVERTISEMENT_SOLICITED = 1 << 30,
    ADVERTISEMENT_OVERRIDE = 1 << 29,
};

static enum packet_kind decode_solicitation(const struct packet_self *self, uint8_t *frame,
                                            struct rte_ipv6_hdr *ip, struct cursor cursor,
                                            struct packet *packet) {
    struct icmp6_neighbour *body = cursor_take(&cursor, sizeof(*body));
    if (body == NULL || ip->hop_limits != HOP_LIMIT_LINK || body->code != 0)
        return PACKET_DROP_IP;
    bool detection = is_zero(ip->src_addr, 16); /* of a duplicate address: the asker has none yet */
    if (detection && memcmp(ip->dst_addr, ipv6_solicited, sizeof(ipv6_solicited)) != 0)
        return PACKET_DROP_IP;
    while (cursor.left > 0) {
        const struct icmp6_option *option = (const struct icmp6_option *)cursor.at;
        if (cursor.left < sizeof(*option) || option->units == 0 ||
            cursor_take(&cursor, (size_t)option->units * 8) == NULL ||
            (detection && option->type == ICMP6_OPTION_SOURCE))
            return PACKET_DROP_IP;
    }
    if (memcmp(body->target, self->ipv6, 16) != 0)
        return PACKET_DROP_ETHERNET;
    packet->answer_bytes =
        detection ? advertisement_encode(self, frame, mac_all_nodes, ipv6_all_nodes,
                                         ADVERTISEMENT_OVERRIDE)
                  : advertisement_encode(self, frame, frame + 6, ip->src_addr,
                                         ADVERTISEMENT_SOLICITED | ADVERTISEMENT_OVERRIDE);
    return PACKET_ICMP_ANSWER;
}

static enum packet_kind decode_icmp6(const struct packet_self *self, uint8_t *frame,
                                     struct rte_ipv6_hdr *ip, struct cursor cursor,
                                     struct packet *packet) {
    size_t bytes = cursor.left;
    if (bytes < 4 || sum_fold(sum_add(sum_pseudo_ipv6(ip, bytes), cursor.at, bytes)) != 0xffff)
        return PACKET_DROP_IP;
    struct icmp6_neighbour *body = (struct icmp6_neighbour *)cursor.at;
    if (body->type == ICMP6_SOLICITATION)
        return decode_solicitation(self, frame, ip, cursor, packet);
    if (body->type != ICMP6_ECHO_REQUEST || body->code != 0)
        return PACKET_DROP_PROTOCOL;
    if (memcmp(ip->dst_addr, self->ipv6, 16) != 0 || is_zero(ip->src_addr, 16))
        return PACKET_DROP_ETHERNET;

    memcpy(ip->dst_addr, ip->src_addr, 16);
    memcpy(ip->src_addr, self->ipv6, 16);
    ip->hop_limits = HOP_LIMIT;
    body->type = ICMP6_ECHO_REPLY;
    body->checksum = 0;
    body->checksum = (uint16_t)~sum_fold(sum_add(sum_pseudo_ipv6(ip, bytes), body, bytes));
    ethernet_encode(frame, frame + 6, self->mac, RTE_ETHER_TYPE_IPV6);
    packet->answer_bytes = sizeof(struct rte_ether_hdr) + sizeof(*ip) + bytes;
    return PACKET_ICMP_ANSWER;
}

/* --- datagrams -------------------------------------------------------------------------------- */

/** @param pseudo  sum of the pseudo header for the cursor's length */
static enum packet_kind decode_udp(const struct packet_self *self, uint64_t pseudo, bool verified,
                                   struct cursor cursor, struct packet *packet) {
    size_t bytes = cursor.left;
    const struct rte_udp_hdr *udp = cursor_take(&cursor, sizeof(*udp));
    if (udp == NULL || rte_be_to_cpu_16(udp->dgram_len) != bytes || udp->dgram_cksum == 0 ||
        udp->src_port == 0 || udp->dst_port != rte_cpu_to_be_16(self->udp_port))
        return PACKET_DROP_UDP;
    if (!verified && sum_fold(sum_add(pseudo, udp, bytes)) != 0xffff)
        return PACKET_DROP_UDP;
    packet->peer.port = rte_be_to_cpu_16(udp->src_port);
    packet->payload = cursor.at;
    packet->payload_bytes = cursor.left;
    return PACKET_UDP;
}

static enum packet_kind decode_ipv4(const struct packet_self *self, uint8_t *frame,
                                    struct cursor cursor, unsigned verified,
                                    struct packet *packet) {
    size_t room = cursor.left;
    struct rte_ipv4_hdr *ip = cursor_take(&cursor, sizeof(*ip));
    if (ip == NULL || ip->version_ihl != RTE_IPV4_VHL_DEF)
        return PACKET_DROP_IP;
    size_t total = rte_be_to_cpu_16(ip->total_length);
    if (total < sizeof(*ip) || total > room)
        return PACKET_DROP_IP;
    if (!(verified & PACKET_VERIFIED_IPV4) && packet_checksum(ip, sizeof(*ip)) != 0)
        return PACKET_DROP_IP;
    if (is_zero(self->ipv4, 4) || memcmp(&ip->dst_addr, self->ipv4, 4) != 0)
        return PACKET_DROP_ETHERNET;
    const uint8_t *source = (const uint8_t *)&ip->src_addr;
    if (source[0] == 0 || source[0] >= 224 || memcmp(source, self->ipv4, 4) == 0)
        return PACKET_DROP_IP; /* no host's address, or our own: an answer would go in circles */
    if (ip->fragment_offset & rte_cpu_to_be_16(RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK))
        return PACKET_DROP_FRAGMENT;

    cursor.left = total - sizeof(*ip); /* what follows is Ethernet's padding */
    if (ip->next_proto_id == PROTOCOL_ICMP)
        return decode_icmp(self, frame, ip, cursor, packet);
    if (ip->next_proto_id != PROTOCOL_UDP)
        return PACKET_DROP_PROTOCOL;
    packet->peer.family = 4;
    memcpy(packet->peer.ip, source, 4);
    return decode_udp(self, sum_pseudo_ipv4(ip, cursor.left), verified & PACKET_VERIFIED_UDP,
                      cursor, packet);
}

static enum packet_kind decode_ipv6(const struct packet_self *self, uint8_t *frame,
                                    struct cursor cursor, unsigned verified,
                                    struct packet *packet) {
    struct rte_ipv6_hdr *ip = cursor_take(&cursor, sizeof(*ip));
    if (ip == NULL || rte_be_to_cpu_32(ip->vtc_flow) >> 28 != 6 ||
        rte_be_to_cpu_16(ip->payload_len) > cursor.left)
        return PACKET_DROP_IP;
    cursor.left = rte_be_to_cpu_16(ip->payload_len);
    if (is_zero(self->ipv6, 16))
        return PACKET_DROP_ETHERNET;
    bool group = memcmp(ip->dst_addr, ipv6_solicited, sizeof(ipv6_solicited)) == 0 &&
                 memcmp(ip->dst_addr + 13, self->ipv6 + 13, 3) == 0;
    if (!group && memcmp(ip->dst_addr, self->ipv6, 16) != 0)
        return PACKET_DROP_ETHERNET;
    if (ip->src_addr[0] == 0xff || memcmp(ip->src_addr, self->ipv6, 16) == 0)
        return PACKET_DROP_IP;

    if (ip->proto == PROTOCOL_ICMP6)
        return decode_icmp6(self, frame, ip, cursor, packet);
    if (ip->proto == 44)
        return PACKET_DROP_FRAGMENT;
    if (ip->proto != PROTOCOL_UDP)
        return PACKET_DROP_PROTOCOL;
    if (group || is_zero(ip->src_addr, 16))
        return PACKET_DROP_IP;
    packet->peer.family = 6;
    memcpy(packet->peer.ip, ip->src_addr, 16);
    return decode_udp(self, sum_pseudo_ipv6(ip, cursor.left), verified & PACKET_VERIFIED_UDP,
                      cursor, packet);
}

enum packet_kind packet_decode(const struct packet_self *self, uint8_t *frame, size_t frame_bytes,
                               unsigned verified, struct packet *packet) {
    struct cursor cursor = {frame, frame_bytes};
    const struct rte_ether_hdr *ethernet = cursor_take(&cursor, sizeof(*ethernet));
    if (ethernet == NULL || (ethernet->src_addr.addr_bytes[0] & 1))
        return PACKET_DROP_ETHERNET;
    const uint8_t *to = ethernet->dst_addr.addr_bytes;
    uint16_t type = rte_be_to_cpu_16(ethernet->ether_type);
    bool ours = memcmp(to, self->mac, 6) == 0;
    memset(&packet->peer, 0, sizeof(packet->peer));
    memcpy(packet->peer.mac, &ethernet->src_addr, 6);
    packet->answer_bytes = 0;

    if (type == RTE_ETHER_TYPE_ARP && (ours || memcmp(to, mac_broadcast, 6) == 0))
        return decode_arp(self, frame, cursor, packet);
    if (type == RTE_ETHER_TYPE_IPV4 && ours)
        return decode_ipv4(self, frame, cursor, verified, packet);
    /* solicited-node group: 33:33:ff and the address's last three bytes; the IPv6 address
     * decides */
    bool group = to[0] == 0x33 && to[1] == 0x33 && to[2] == 0xff;
    if (type == RTE_ETHER_TYPE_IPV6 && (ours || group))
        return decode_ipv6(self, frame, cursor, verified, packet);
    return PACKET_DROP_ETHERNET;
}

/* --- sending ---------------------------------------------------------------------------------- */

void packet_encode_udp(const struct packet_self *self, const struct packet_peer *peer,
                       uint8_t *frame, size_t payload_bytes) {
    uint8_t *behind = frame + sizeof(struct rte_ether_hdr);
    size_t udp_bytes = sizeof(struct rte_udp_hdr) + payload_bytes;
    struct rte_udp_hdr *udp;
    uint64_t pseudo;
    if (peer->family == 4) {
        struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)behind;
        *ip = (struct rte_ipv4_hdr){
            .version_ihl = RTE_IPV4_VHL_DEF,
            .total_length = rte_cpu_to_be_16((uint16_t)(sizeof(*ip) + udp_bytes)),
            .fragment_offset = rte_cpu_to_be_16(RTE_IPV4_HDR_DF_FLAG),
            .time_to_live = HOP_LIMIT,
            .next_proto_id = PROTOCOL_UDP,
        };
        memcpy(&ip->src_addr, self->ipv4, 4);
        memcpy(&ip->dst_addr, peer->ip, 4);
        if (!self->tx_checksum_ipv4)
            ip->hdr_checksum = packet_checksum(ip, sizeof(*ip));
        pseudo = sum_pseudo_ipv4(ip, udp_bytes);
        udp = (struct rte_udp_hdr *)(ip + 1);
        ethernet_encode(frame, peer->mac, self->mac, RTE_ETHER_TYPE_IPV4);
    } else {
        struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)behind;
        ip->vtc_flow = rte_cpu_to_be_32(6u << 28);
        ip->payload_len = rte_cpu_to_be_16((uint16_t)udp_bytes);
        ip->proto = PROTOCOL_UDP;
        ip->hop_limits = HOP_LIMIT;
        memcpy(ip->src_addr, self->ipv6, 16);
        memcpy(ip->dst_addr, peer->ip, 16);
        pseudo = sum_pseudo_ipv6(ip, udp_bytes);
        udp = (struct rte_udp_hdr *)(ip + 1);
        ethernet_encode(frame, peer->mac, self->mac, RTE_ETHER_TYPE_IPV6);
    }
    udp->src_port = rte_cpu_to_be_16(self->udp_port);
    udp->dst_port = rte_cpu_to_be_16(peer->port);
    udp->dgram_len = rte_cpu_to_be_16((uint16_t)udp_bytes);
    udp->dgram_cksum = 0;
    if (self->tx_checksum_udp) {
        udp->dgram_cksum = sum_fold(pseudo);
    } else {
        uint16_t checksum = (uint16_t)~sum_fold(sum_add(pseudo, udp, udp_bytes));
        udp->dgram_cksum = checksum == 0 ? 0xffff : checksum; /* 0 would say "none" */
    }
}

size_t packet_encode_arp_announcement(const struct packet_self *self, uint8_t *frame) {
    memset(frame, 0, ARP_FRAME_BYTES);
    ethernet_encode(frame, mac_broadcast, self->mac, RTE_ETHER_TYPE_ARP);
    struct rte_arp_hdr *arp = (struct rte_arp_hdr *)(frame + sizeof(struct rte_ether_hdr));
    arp->arp_hardware = rte_cpu_to_be_16(RTE_ARP_HRD_ETHER);
    arp->arp_protocol = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
    arp->arp_hlen = 6;
    arp->arp_plen = 4;
    arp->arp_opcode = rte_cpu_to_be_16(RTE_ARP_OP_REQUEST);
    memcpy(&arp->arp_data.arp_sha, self->mac, 6);
    memcpy(&arp->arp_data.arp_sip, self->ipv4, 4);
    memcpy(&arp->arp_data.arp_tip, self->ipv4, 4);
    return ARP_FRAME_BYTES;
}

size_t packet_encode_ipv6_announcement(const struct packet_self *self, uint8_t *frame) {
    return advertisement_encode(self, frame, mac_all_nodes, ipv6_all_nodes, ADVERTISEMENT_OVERRIDE);
}

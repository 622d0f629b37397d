/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/net/packet_fixture.h"

/** Datagrams in frames: good ones, and everything that makes them bad. */

static void udp_round_trip(void) {
    for (uint8_t family = 4; family <= 6; family += 2)
        for (size_t bytes = 0; bytes < 1452; bytes += 1 + bytes / 7) {
            uint8_t frame[BUFFER];
            struct packet packet;
            size_t length = make_udp(family, frame, bytes);
            CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_UDP);
            CHECK_EQ(packet.payload_bytes, bytes);
            CHECK_EQ(packet.payload - frame, length - bytes);
            struct packet_peer want = peer_of(&client, family);
            CHECK(memcmp(&packet.peer, &want, sizeof(want)) == 0);
        }
}

/** RFC 1071's example, an odd length, and the sum that is all ones. */
static void checksum_of_known_bytes(void) {
    const uint8_t rfc[8] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    uint16_t checksum = packet_checksum(rfc, sizeof(rfc));
    CHECK_EQ(((const uint8_t *)&checksum)[0], 0x22);
    CHECK_EQ(((const uint8_t *)&checksum)[1], 0x0d);
    const uint8_t odd[3] = {0x12, 0x34, 0x56}; /* 1234 + 5600 = 6834 */
    checksum = packet_checksum(odd, sizeof(odd));
    CHECK_EQ(((const uint8_t *)&checksum)[0], 0x97);
    CHECK_EQ(((const uint8_t *)&checksum)[1], 0xcb);
    CHECK_EQ(packet_checksum("", 0), 0xffff);
}

/** A computed UDP checksum of 0 is sent as ffff: 0 means "none". */
static void udp_checksum_is_never_zero(void) {
    unsigned found = 0;
    for (uint32_t value = 0; value <= 0xffff; value++) {
        uint8_t frame[BUFFER];
        struct packet packet;
        struct packet_peer peer = peer_of(&server, 4);
        uint16_t word = (uint16_t)value;
        memcpy(frame + PACKET_HEADERS_IPV4, &word, 2);
        packet_encode_udp(&client, &peer, frame, 2);
        CHECK(frame[40] != 0 || frame[41] != 0);
        found += frame[40] == 0xff && frame[41] == 0xff;
        CHECK_EQ(packet_decode(&server, frame, PACKET_HEADERS_IPV4 + 2, 0, &packet), PACKET_UDP);
    }
    CHECK(found >= 1);
}

/** One byte of a good datagram set to something else; with the IPv4 header's checksum made right
 *  again where asked. */
static void bad_bytes(void) {
    static const struct {
        const char *what;
        uint8_t family;
        uint16_t at;
        uint8_t value;
        bool fix; /* the IPv4 header checksum */
        enum packet_kind want;
    } cases[] = {
        {"destination: another station", 4, 5, 8, false, PACKET_DROP_ETHERNET},
        {"destination: broadcast bit", 4, 0, 3, false, PACKET_DROP_ETHERNET},
        {"source: a group", 4, 6, 3, false, PACKET_DROP_ETHERNET},
        {"type: VLAN", 4, 12, 0x81, false, PACKET_DROP_ETHERNET},
        {"version 5", 4, 14, 0x55, true, PACKET_DROP_IP},
        {"header of 16 bytes", 4, 14, 0x44, true, PACKET_DROP_IP},
        {"options", 4, 14, 0x46, true, PACKET_DROP_IP},
        {"total length over the frame", 4, 16, 0x40, true, PACKET_DROP_IP},
        {"total length 19", 4, 17, 19, true, PACKET_DROP_IP},
        {"more fragments", 4, 20, 0x20, true, PACKET_DROP_FRAGMENT},
        {"fragment offset", 4, 21, 1, true, PACKET_DROP_FRAGMENT},
        {"header checksum", 4, 24, 0x77, false, PACKET_DROP_IP},
        {"time to live, checksum not adjusted", 4, 22, 1, false, PACKET_DROP_IP},
        {"TCP", 4, 23, 6, true, PACKET_DROP_PROTOCOL},
        {"source 0.x", 4, 26, 0, true, PACKET_DROP_IP},
        {"source multicast", 4, 26, 224, true, PACKET_DROP_IP},
        {"source is our own address", 4, 29, 1, true, PACKET_DROP_IP},
        {"destination address", 4, 33, 2, true, PACKET_DROP_ETHERNET},
        {"source port", 4, 35, 1, false, PACKET_DROP_UDP},
        {"destination port", 4, 37, 1, false, PACKET_DROP_UDP},
        {"UDP length short", 4, 39, 9, false, PACKET_DROP_UDP},
        {"UDP length long", 4, 38, 0x20, false, PACKET_DROP_UDP},
        {"UDP checksum", 4, 40, 0x12, false, PACKET_DROP_UDP},
        {"payload", 4, 60, 0xff, false, PACKET_DROP_UDP},
        {"version 7", 6, 14, 0x70, false, PACKET_DROP_IP},
        {"payload length over the frame", 6, 18, 0x40, false, PACKET_DROP_IP},
        {"hop-by-hop options", 6, 20, 0, false, PACKET_DROP_PROTOCOL},
        {"routing header", 6, 20, 43, false, PACKET_DROP_PROTOCOL},
        {"fragment header", 6, 20, 44, false, PACKET_DROP_FRAGMENT},
        {"TCP", 6, 20, 6, false, PACKET_DROP_PROTOCOL},
        {"source multicast", 6, 22, 0xff, false, PACKET_DROP_IP},
        {"source address", 6, 37, 8, false, PACKET_DROP_UDP},
        {"destination address", 6, 53, 8, false, PACKET_DROP_ETHERNET},
        {"UDP length", 6, 59, 9, false, PACKET_DROP_UDP},
        {"UDP checksum", 6, 60, 0x12, false, PACKET_DROP_UDP},
        {"payload", 6, 80, 0xff, false, PACKET_DROP_UDP},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t frame[BUFFER];
        struct packet packet;
        size_t length = make_udp(cases[i].family, frame, 100);
        CHECK(frame[cases[i].at] != cases[i].value);
        frame[cases[i].at] = cases[i].value;
        if (cases[i].fix) {
            memset(frame + 24, 0, 2);
            uint16_t checksum = packet_checksum(frame + 14, 20);
            memcpy(frame + 24, &checksum, 2);
        }
        enum packet_kind kind = packet_decode(&server, frame, length, 0, &packet);
        if (kind != cases[i].want)
            printf("IPv%u, %s: verdict %u, should be %u\n", cases[i].family, cases[i].what, kind,
                   cases[i].want);
        CHECK_EQ(kind, cases[i].want);
    }
}

static void truncated(void) {
    for (uint8_t family = 4; family <= 6; family += 2) {
        uint8_t frame[BUFFER];
        struct packet packet;
        size_t length = make_udp(family, frame, 100);
        for (size_t cut = 0; cut < length; cut++) {
            uint8_t copy[BUFFER];
            memcpy(copy, frame, cut);
            CHECK(packet_decode(&server, copy, cut, 0, &packet) >= PACKET_DROP_ETHERNET);
        }
        /* behind the packet comes Ethernet's padding: any amount */
        CHECK_EQ(packet_decode(&server, frame, length + 50, 0, &packet), PACKET_UDP);
        CHECK_EQ(packet.payload_bytes, 100);
    }
}

/** What the port vouches for is not looked at again; a zero UDP checksum is refused even so. */
static void verified_by_the_port(void) {
    uint8_t frame[BUFFER];
    struct packet packet;
    size_t length = make_udp(4, frame, 100);
    frame[24] ^= 1;
    frame[60] ^= 1;
    CHECK_EQ(packet_decode(&server, frame, length, PACKET_VERIFIED_IPV4, &packet), PACKET_DROP_UDP);
    CHECK_EQ(packet_decode(&server, frame, length, PACKET_VERIFIED_UDP, &packet), PACKET_DROP_IP);
    unsigned both = PACKET_VERIFIED_IPV4 | PACKET_VERIFIED_UDP;
    CHECK_EQ(packet_decode(&server, frame, length, both, &packet), PACKET_UDP);
    memset(frame + 40, 0, 2);
    CHECK_EQ(packet_decode(&server, frame, length, both, &packet), PACKET_DROP_UDP);
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_DROP_IP);
}

/** What a right checksum does not make right. */
static void soundly_wrong_udp(void) {
    uint8_t frame[BUFFER];
    struct packet packet;
    size_t length = make_udp(4, frame, 100);
    memset(frame + 34, 0, 2); /* source port 0 */
    CHECK_EQ(packet_decode(&server, frame, length, PACKET_VERIFIED_UDP, &packet), PACKET_DROP_UDP);
    for (int off = -2; off <= 2; off++) { /* its length is not that of the packet around it */
        length = make_udp(4, frame, 100);
        frame[39] = (uint8_t)(frame[39] + off);
        CHECK_EQ(packet_decode(&server, frame, length, PACKET_VERIFIED_UDP, &packet),
                 off == 0 ? PACKET_UDP : PACKET_DROP_UDP);
    }
    /* to the solicited-node group, and from no address */
    length = make_udp(6, frame, 100);
    memcpy(frame + 38, group_ip, 16);
    CHECK_EQ(packet_decode(&server, frame, length, PACKET_VERIFIED_UDP, &packet), PACKET_DROP_IP);
    length = make_udp(6, frame, 100);
    memset(frame + 22, 0, 16);
    CHECK_EQ(packet_decode(&server, frame, length, PACKET_VERIFIED_UDP, &packet), PACKET_DROP_IP);
}

static void zero_checksum(void) {
    for (uint8_t family = 4; family <= 6; family += 2) {
        uint8_t frame[BUFFER];
        struct packet packet;
        size_t length = make_udp(family, frame, 100);
        memset(frame + (family == 4 ? 40 : 60), 0, 2);
        CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_DROP_UDP);
    }
}

/** With offload the port gets the pseudo header's sum and adds the rest. */
static void offloaded_checksums(void) {
    for (uint8_t family = 4; family <= 6; family += 2) {
        struct packet_self offloading = client;
        offloading.tx_checksum_ipv4 = offloading.tx_checksum_udp = true;
        struct packet_peer peer = peer_of(&server, family);
        uint8_t frame[BUFFER], plain[BUFFER];
        struct packet packet;
        size_t length = make_udp(family, plain, 101);
        memcpy(frame, plain, length);
        packet_encode_udp(&offloading, &peer, frame, 101);
        size_t udp = packet_header_bytes(&peer) - 8;
        if (family == 4) {
            CHECK_EQ(frame[24] | frame[25], 0);
            uint16_t checksum = packet_checksum(frame + 14, 20);
            memcpy(frame + 24, &checksum, 2);
        }
        uint16_t checksum = packet_checksum(frame + udp, 109);
        memcpy(frame + udp + 6, &checksum, 2);
        CHECK(memcmp(frame, plain, length) == 0);
        CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_UDP);
    }
}

/** Random bytes and good frames with random damage: no verdict but the ones above, nothing beyond
 *  the buffer. */
static void random_frames(void) {
    uint64_t seed = test_seed(1);
    for (unsigned round = 0; round < 200000; round++) {
        uint8_t *frame = malloc(PACKET_ANSWER_ROOM + 1500);
        struct packet packet;
        size_t length = make_udp(round & 1 ? 6 : 4, frame, test_random(&seed) % 1400);
        unsigned damage = (unsigned)(test_random(&seed) % 5);
        while (damage-- > 0)
            frame[test_random(&seed) % (test_random(&seed) % 2 ? 80 : length)] =
                (uint8_t)test_random(&seed);
        if (test_random(&seed) % 4 == 0)
            length = test_random(&seed) % (length + 1);
        unsigned verified = (unsigned)(test_random(&seed) % 4);
        enum packet_kind kind = packet_decode(&server, frame, length, verified, &packet);
        bool sound = kind <= PACKET_DROP_UDP;
        if (kind == PACKET_UDP)
            sound =
                packet.payload >= frame && packet.payload + packet.payload_bytes <= frame + length;
        if (kind == PACKET_ARP_ANSWER || kind == PACKET_ICMP_ANSWER)
            sound = packet.answer_bytes <= length || packet.answer_bytes <= PACKET_ANSWER_ROOM;
        free(frame);
        CHECK(sound);
    }
}

int main(void) {
    TEST_RUN(udp_round_trip);
    TEST_RUN(checksum_of_known_bytes);
    TEST_RUN(udp_checksum_is_never_zero);
    TEST_RUN(bad_bytes);
    TEST_RUN(truncated);
    TEST_RUN(verified_by_the_port);
    TEST_RUN(soundly_wrong_udp);
    TEST_RUN(zero_checksum);
    TEST_RUN(offloaded_checksums);
    TEST_RUN(random_frames);
    return TEST_DONE();
}

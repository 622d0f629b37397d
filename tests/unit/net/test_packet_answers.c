/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/net/packet_fixture.h"

/** Frames that are answered without a session: ARP, echo, neighbour discovery. */

/* --- ARP -------------------------------------------------------------------------------------- */

static const uint8_t arp_request[42] = {
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,  0, 0, 0, 0, 9, 0x08, 0x06, /* Ethernet */
    0,    1,    8,    0,    6,    4,    0,  1,                         /* request */
    2,    0,    0,    0,    0,    9,    10, 7, 0, 9,                   /* from */
    0,    0,    0,    0,    0,    0,    10, 7, 0, 1,                   /* who has */
};
static const uint8_t arp_reply[42] = {
    2, 0, 0, 0, 0, 9, 2,  0, 0, 0, 0, 1, 0x08, 0x06, /* Ethernet */
    0, 1, 8, 0, 6, 4, 0,  2,                         /* reply */
    2, 0, 0, 0, 0, 1, 10, 7, 0, 1,                   /* from */
    2, 0, 0, 0, 0, 9, 10, 7, 0, 9,                   /* to */
};

static void arp(void) {
    uint8_t frame[BUFFER];
    struct packet packet;
    memset(frame, 0x55, sizeof(frame));
    memcpy(frame, arp_request, sizeof(arp_request));
    CHECK_EQ(packet_decode(&server, frame, sizeof(arp_request), 0, &packet), PACKET_ARP_ANSWER);
    CHECK_EQ(packet.answer_bytes, 60);
    CHECK(memcmp(frame, arp_reply, sizeof(arp_reply)) == 0);
    for (size_t i = sizeof(arp_reply); i < 60; i++)
        CHECK_EQ(frame[i], 0);
    CHECK_EQ(frame[60], 0x55);

    /* asked directly; a probe from a station without an address */
    memcpy(frame, arp_request, sizeof(arp_request));
    memcpy(frame, server.mac, 6);
    memset(frame + 28, 0, 4);
    CHECK_EQ(packet_decode(&server, frame, 60, 0, &packet), PACKET_ARP_ANSWER);

    static const struct {
        unsigned at;
        uint8_t value;
    } bad[] = {{5, 8}, {15, 6}, {16, 9}, {18, 8}, {19, 16}, {21, 2}, {21, 0}, {41, 2}, {38, 11}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memcpy(frame, arp_request, sizeof(arp_request));
        frame[bad[i].at] = bad[i].value;
        CHECK_EQ(packet_decode(&server, frame, 60, 0, &packet), PACKET_DROP_ETHERNET);
    }
    for (size_t cut = 0; cut < sizeof(arp_request); cut++) {
        memcpy(frame, arp_request, sizeof(arp_request));
        CHECK_EQ(packet_decode(&server, frame, cut, 0, &packet), PACKET_DROP_ETHERNET);
    }
    struct packet_self no_ipv4 = server;
    memset(no_ipv4.ipv4, 0, 4);
    memcpy(frame, arp_request, sizeof(arp_request));
    memset(frame + 38, 0, 4);
    CHECK_EQ(packet_decode(&no_ipv4, frame, 60, 0, &packet), PACKET_DROP_ETHERNET);
}

/* --- echo ------------------------------------------------------------------------------------- */

static void set16(uint8_t *at, unsigned value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put_checksum(uint8_t *at, uint16_t checksum) {
    memcpy(at, &checksum, 2);
}

/** Frame around an ICMP message from the client. @return bytes of the frame */
static size_t make_icmp4(uint8_t *frame, const uint8_t *message, size_t bytes) {
    make_udp(4, frame, 0);
    set16(frame + 16, (unsigned)(20 + bytes));
    frame[23] = 1;
    memset(frame + 24, 0, 2);
    put_checksum(frame + 24, packet_checksum(frame + 14, 20));
    memcpy(frame + 34, message, bytes);
    memset(frame + 36, 0, 2);
    put_checksum(frame + 36, packet_checksum(frame + 34, bytes));
    return 34 + bytes;
}

/** The checksum with the pseudo header, written out once more: of addresses, length, protocol,
 *  message. */
static uint16_t icmp6_checksum(const uint8_t *frame, size_t bytes) {
    uint8_t all[BUFFER] = {0};
    memcpy(all, frame + 22, 32);
    set16(all + 34, (unsigned)bytes);
    all[39] = 58;
    memcpy(all + 40, frame + 54, bytes);
    return packet_checksum(all, 40 + bytes);
}

static size_t make_icmp6(uint8_t *frame, const uint8_t *to_mac, const uint8_t *to_ip,
                         const uint8_t *message, size_t bytes) {
    make_udp(6, frame, 0);
    memcpy(frame, to_mac, 6);
    memcpy(frame + 38, to_ip, 16);
    set16(frame + 18, (unsigned)bytes);
    frame[20] = 58;
    frame[21] = 255;
    memcpy(frame + 54, message, bytes);
    memset(frame + 56, 0, 2);
    put_checksum(frame + 56, icmp6_checksum(frame, bytes));
    return 54 + bytes;
}

static void ping_ipv4(void) {
    uint8_t message[64] = {8, 0, 0, 0, 0x12, 0x34, 0, 1, 'h', 'e', 'l', 'l', 'o'}, frame[BUFFER];
    struct packet packet;
    size_t length = make_icmp4(frame, message, 63);
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_ICMP_ANSWER);
    CHECK_EQ(packet.answer_bytes, length);
    CHECK(memcmp(frame, client.mac, 6) == 0 && memcmp(frame + 6, server.mac, 6) == 0);
    CHECK(memcmp(frame + 26, server.ipv4, 4) == 0 && memcmp(frame + 30, client.ipv4, 4) == 0);
    CHECK_EQ(packet_checksum(frame + 14, 20), 0);
    CHECK_EQ(packet_checksum(frame + 34, 63), 0);
    CHECK_EQ(frame[34], 0);
    CHECK(memcmp(frame + 38, message + 4, 59) == 0);

    length = make_icmp4(frame, message, 63);
    frame[50] ^= 1;
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_DROP_IP);
    length = make_icmp4(frame, message, 7);
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_DROP_IP);
    message[0] = 3; /* unreachable: no answer to that */
    length = make_icmp4(frame, message, 63);
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_DROP_PROTOCOL);
    message[0] = 0; /* an answer to nothing */
    length = make_icmp4(frame, message, 63);
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_DROP_PROTOCOL);
}

static void ping_ipv6(void) {
    uint8_t message[64] = {128, 0, 0, 0, 0x12, 0x34, 0, 1, 'h', 'e', 'l', 'l', 'o'}, frame[BUFFER];
    struct packet packet;
    size_t length = make_icmp6(frame, server.mac, server.ipv6, message, 63);
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_ICMP_ANSWER);
    CHECK_EQ(packet.answer_bytes, length);
    CHECK(memcmp(frame, client.mac, 6) == 0 && memcmp(frame + 6, server.mac, 6) == 0);
    CHECK(memcmp(frame + 22, server.ipv6, 16) == 0 && memcmp(frame + 38, client.ipv6, 16) == 0);
    CHECK_EQ(frame[54], 129);
    CHECK_EQ(icmp6_checksum(frame, 63), 0);
    CHECK(memcmp(frame + 58, message + 4, 59) == 0);

    length = make_icmp6(frame, group_mac, group_ip, message, 63);
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_DROP_ETHERNET);
    length = make_icmp6(frame, server.mac, server.ipv6, message, 63);
    frame[80] ^= 1;
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_DROP_IP);
    message[0] = 134; /* router advertisement */
    length = make_icmp6(frame, server.mac, server.ipv6, message, 63);
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_DROP_PROTOCOL);
}

/* --- neighbour discovery ---------------------------------------------------------------------- */

enum { SOLICITATION = 24, WITH_OPTION = 32 };

/** A solicitation for the server's address with the source link-layer option. */
static void solicitation_message(uint8_t *message) {
    memset(message, 0, WITH_OPTION);
    message[0] = 135;
    memcpy(message + 8, server.ipv6, 16);
    message[24] = 1;
    message[25] = 1;
    memcpy(message + 26, client.mac, 6);
}

static void solicitation(void) {
    uint8_t message[WITH_OPTION], frame[BUFFER];
    struct packet packet;
    for (unsigned direct = 0; direct < 2; direct++)
        for (unsigned option = 0; option < 2; option++) {
            solicitation_message(message);
            size_t length =
                make_icmp6(frame, direct ? server.mac : group_mac, direct ? server.ipv6 : group_ip,
                           message, option ? WITH_OPTION : SOLICITATION);
            CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_ICMP_ANSWER);
            CHECK_EQ(packet.answer_bytes, 54 + 32);
            CHECK(memcmp(frame, client.mac, 6) == 0 && memcmp(frame + 6, server.mac, 6) == 0);
            CHECK(memcmp(frame + 22, server.ipv6, 16) == 0);
            CHECK(memcmp(frame + 38, client.ipv6, 16) == 0);
            CHECK_EQ(frame[21], 255);
            CHECK_EQ(frame[54], 136);
            CHECK_EQ(frame[58], 0x60); /* solicited, override */
            CHECK(memcmp(frame + 62, server.ipv6, 16) == 0);
            CHECK_EQ(frame[78], 2);
            CHECK_EQ(frame[79], 1);
            CHECK(memcmp(frame + 80, server.mac, 6) == 0);
            CHECK_EQ(icmp6_checksum(frame, 32), 0);
        }
}

/** A station that asks whether the address is free has none itself: everybody hears the answer. */
static void duplicate_address_detection(void) {
    uint8_t message[WITH_OPTION], frame[BUFFER];
    struct packet packet;
    solicitation_message(message);
    size_t length = make_icmp6(frame, group_mac, group_ip, message, SOLICITATION);
    memset(frame + 22, 0, 16);
    memset(frame + 56, 0, 2);
    put_checksum(frame + 56, icmp6_checksum(frame, SOLICITATION));
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_ICMP_ANSWER);
    const uint8_t all_mac[6] = {0x33, 0x33, 0, 0, 0, 1}, all_ip[16] = {0xff, 2, [15] = 1};
    CHECK(memcmp(frame, all_mac, 6) == 0 && memcmp(frame + 38, all_ip, 16) == 0);
    CHECK_EQ(frame[58], 0x20); /* not solicited */
    CHECK_EQ(icmp6_checksum(frame, 32), 0);

    length = make_icmp6(frame, group_mac, group_ip, message, WITH_OPTION);
    memset(frame + 22, 0, 16);
    memset(frame + 56, 0, 2);
    put_checksum(frame + 56, icmp6_checksum(frame, WITH_OPTION));
    CHECK_EQ(packet_decode(&server, frame, length, 0, &packet), PACKET_DROP_IP);
}

static void bad_solicitations(void) {
    static const struct {
        const char *what;
        unsigned at;
        uint8_t value;
        size_t bytes;
        enum packet_kind want;
    } cases[] = {
        {"hop limit 254", 21, 254, WITH_OPTION, PACKET_DROP_IP},
        {"code", 55, 1, WITH_OPTION, PACKET_DROP_IP},
        {"target: somebody else", 77, 1, WITH_OPTION, PACKET_DROP_ETHERNET},
        {"option of no length", 79, 0, WITH_OPTION, PACKET_DROP_IP},
        {"option too long", 79, 2, WITH_OPTION, PACKET_DROP_IP},
        {"option cut", 79, 1, WITH_OPTION - 1, PACKET_DROP_IP},
        {"message cut", 54, 135, SOLICITATION - 1, PACKET_DROP_IP},
        {"group of another address", 53, 0x57, WITH_OPTION, PACKET_DROP_ETHERNET},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t message[WITH_OPTION], frame[BUFFER];
        struct packet packet;
        solicitation_message(message);
        size_t length = make_icmp6(frame, group_mac, group_ip, message, cases[i].bytes);
        frame[cases[i].at] = cases[i].value;
        memset(frame + 56, 0, 2);
        put_checksum(frame + 56, icmp6_checksum(frame, cases[i].bytes));
        enum packet_kind kind = packet_decode(&server, frame, length, 0, &packet);
        if (kind != cases[i].want)
            printf("%s: verdict %u, should be %u\n", cases[i].what, kind, cases[i].want);
        CHECK_EQ(kind, cases[i].want);
    }
}

static void announcements(void) {
    uint8_t frame[BUFFER];
    CHECK_EQ(packet_encode_arp_announcement(&server, frame), 60);
    const uint8_t want[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0,  1, 8, 6,
                              0,    1,    8,    0,    6,    4,    0, 1, 2, 0, 0,  0, 0, 1,
                              10,   7,    0,    1,    0,    0,    0, 0, 0, 0, 10, 7, 0, 1};
    CHECK(memcmp(frame, want, sizeof(want)) == 0);
    CHECK_EQ(packet_encode_ipv6_announcement(&server, frame), 86);
    CHECK_EQ(frame[54], 136);
    CHECK_EQ(frame[58], 0x20);
    CHECK_EQ(icmp6_checksum(frame, 32), 0);
}

int main(void) {
    TEST_RUN(arp);
    TEST_RUN(ping_ipv4);
    TEST_RUN(ping_ipv6);
    TEST_RUN(solicitation);
    TEST_RUN(duplicate_address_detection);
    TEST_RUN(bad_solicitations);
    TEST_RUN(announcements);
    return TEST_DONE();
}

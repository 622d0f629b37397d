/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/hash.h"
#include "tests/unit/client/client_fixture.h"

/** Ids: time, order, place; names. */

static void test_ids_grow_and_carry_time_and_place(void) {
    struct fake_network *network = fake_network_open(1);
    struct tally_client *client = fake_client_open(network, NULL);
    tally_uint128_t last = 0;
    uint64_t first_ms = 0;
    network->tick_ns = 1000;
    for (unsigned i = 0; i < 100000; i++) {
        tally_uint128_t account = 1 + fake_random(&network->random) % 5000;
        tally_uint128_t id = tally_id(client, account);
        unsigned partition = hash_partition(hash_id(account, network->server.hash_seed), 256);
        CHECK(id > last);
        CHECK_EQ((uint64_t)id & 0xffff, partition);
        CHECK_EQ(tally_account_partition(client, account), partition);
        uint64_t cell_ms = 1700000000000ULL + network->now_ns / NS_PER_MS;
        first_ms = first_ms ? first_ms : id_time_ms(id);
        CHECK(id_time_ms(id) <= cell_ms && id_time_ms(id) + 2 >= cell_ms);
        last = id;
    }
    CHECK(id_time_ms(last) >= first_ms + 99);
    CHECK(((uint64_t)tally_id(client, 0) & 0xffff) < 256);
    tally_client_close(client);
    fake_network_close(network);
}

static void test_ids_grow_while_time_stands_still(void) {
    struct fake_network *network = fake_network_open(2);
    struct tally_client *client = fake_client_open(network, NULL);
    tally_uint128_t last = tally_id(client, 5);
    network->tick_ns = 0;
    client->id_low =
        UINT64_MAX - (20ULL << 32); /* nearly used up: the next millisecond is borrowed */
    last =
        ((tally_uint128_t)client->id_ms << 80) | ((tally_uint128_t)client->id_low << 16) | 0xffff;
    for (unsigned i = 0; i < 100000; i++) {
        tally_uint128_t id = tally_id(client, 5);
        CHECK(id > last);
        last = id;
    }
    tally_client_close(client);
    fake_network_close(network);
}

/** The table of net/PROTOCOL.md section 13. */
static void test_partitions_agree_with_the_protocol(void) {
    static const struct {
        uint64_t high, low, seed;
        unsigned of_256, of_1000;
    } rows[] = {
        {0, 0, 0, 0, 0},
        {0, 1, 0, 102, 102},
        {1, 0, 0, 251, 123},
        {0, 1, 0x0123456789abcdef, 143, 199},
        {0x0123456789abcdef, 0xfedcba9876543210, 0x0123456789abcdef, 82, 218},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, 228, 340},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fake_network *network = fake_network_open(3);
        network->server.hash_seed = rows[i].seed;
        struct tally_client *client = fake_client_open(network, NULL);
        CHECK_EQ(tally_account_partition(client, uint128_make(rows[i].high, rows[i].low)),
                 rows[i].of_256);
        tally_client_close(client);
        network->server.partitions = 1000;
        client = fake_client_open(network, NULL);
        CHECK_EQ(tally_account_partition(client, uint128_make(rows[i].high, rows[i].low)),
                 rows[i].of_1000);
        tally_client_close(client);
        fake_network_close(network);
    }
}

static void test_datagrams_agree_with_the_protocol(void) {
    static const uint8_t goodbye_tag[16] = {0x0d, 0xbe, 0xc0, 0xb8, 0xea, 0xb1, 0x40, 0xd8,
                                            0x36, 0x27, 0xef, 0x37, 0xe9, 0x29, 0x88, 0xd6};
    static const uint8_t hello_tag[16] = {0x24, 0x13, 0x41, 0xf3, 0xa2, 0x50, 0x88, 0x89,
                                          0xdf, 0xb8, 0xa9, 0x36, 0xb3, 0x0a, 0x09, 0xdf};
    static const uint8_t no_cookie[16];
    uint8_t datagram[NET_HELLO_BYTES];
    static struct session session;
    client_wire_seal(datagram, 40, NET_GOODBYE, 0x1122334455667788, 5);
    CHECK(memcmp(datagram + 24, goodbye_tag, 16) == 0);
    CHECK(client_wire_verify(datagram, 40));
    datagram[9] ^= 1;
    CHECK(!client_wire_verify(datagram, 40));
    for (unsigned i = 0; i < 16; i++)
        session.instance[i] = (uint8_t)(i + 1);
    CHECK_EQ(client_wire_hello_encode(&session, 0x1020304050607080, no_cookie, 1472, datagram),
             NET_HELLO_BYTES);
    CHECK(memcmp(datagram + 24, hello_tag, 16) == 0);
}

static void test_names(void) {
    CHECK(strcmp(tally_transfer_status_name(46), "exists") == 0);
    CHECK(strcmp(tally_transfer_status_name(UINT32_MAX), "created") == 0);
    CHECK(strcmp(tally_account_status_name(21), "exists") == 0);
    CHECK(strcmp(tally_lookup_status_name(3), "expired") == 0);
    CHECK(strcmp(tally_transfer_status_name(TALLY_STATUS_unknown), "unknown") == 0);
    CHECK(strcmp(tally_transfer_status_name(999), "?") == 0);
    CHECK(strcmp(tally_code_name(TALLY_NOT_SENT), "not_sent") == 0);
    CHECK(strcmp(tally_code_name(99), "?") == 0);
}

int main(void) {
    TEST_RUN(test_ids_grow_and_carry_time_and_place);
    TEST_RUN(test_ids_grow_while_time_stands_still);
    TEST_RUN(test_partitions_agree_with_the_protocol);
    TEST_RUN(test_datagrams_agree_with_the_protocol);
    TEST_RUN(test_names);
    return TEST_DONE();
}

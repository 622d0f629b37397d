/* SPDX-License-Identifier: Apache-2.0 */
#include "net/cookie.h"
#include "net/session.h"
#include "net/tag.h"
#include "engine/base/hash.h"
#include "tests/lib/test.h"

/** The parts under the sessions: cookies, tags, counters, credits. */

struct seeded {
    struct random random;
    uint64_t state;
};

static void seeded_fill(struct random *random, void *bytes, size_t length) {
    struct seeded *seeded = (struct seeded *)random;
    for (uint8_t *at = bytes; length > 0; at++, length--)
        *at = (uint8_t)(test_random(&seeded->state) >> 8);
}

/** SipHash-2-4 of 15 bytes 00 .. 0e under the key 00 .. 0f: the example of its paper. */
static void siphash_vector(void) {
    struct cookie_key key;
    uint8_t bytes[16];
    for (unsigned i = 0; i < 16; i++)
        bytes[i] = (uint8_t)i;
    memcpy(&key, bytes, 16);
    CHECK(siphash(&key, bytes, 15) == 0xa129ca6149be45e5u);
}

static void cookie(void) {
    const struct cookie_key key = {{1, 2}}, other_key = {{1, 3}};
    const struct packet_peer peer = {.family = 4, .port = 9, .ip = {10, 0, 0, 1}};
    const uint8_t instance[16] = {5}, other_instance[16] = {6}, none[16] = {0};
    uint8_t made[16];
    uint64_t now = 50 * NS_PER_SECOND, issued = 0;
    cookie_make(&key, now, &peer, instance, made);
    CHECK(cookie_check(&key, now, &peer, instance, made, &issued));
    CHECK_EQ(issued, now);
    CHECK(cookie_check(&key, now + NET_COOKIE_LIFE_NS, &peer, instance, made, &issued));
    CHECK(!cookie_check(&key, now + NET_COOKIE_LIFE_NS + 1, &peer, instance, made, &issued));
    CHECK(!cookie_check(&key, now - 1, &peer, instance, made, &issued));
    CHECK(!cookie_check(&other_key, now, &peer, instance, made, &issued));
    CHECK(!cookie_check(&key, now, &peer, other_instance, made, &issued));
    CHECK(!cookie_check(&key, now, &peer, instance, none, &issued));
    CHECK(!cookie_check(&key, 0, &peer, instance, none, &issued));
    struct packet_peer moved = peer;
    moved.port = 10;
    CHECK(!cookie_check(&key, now, &moved, instance, made, &issued));
    moved = peer;
    moved.ip[3] = 2;
    CHECK(!cookie_check(&key, now, &moved, instance, made, &issued));
    moved = peer;
    moved.mac[3] = 2; /* the Ethernet address may change */
    CHECK(cookie_check(&key, now, &moved, instance, made, &issued));
    for (unsigned bit = 0; bit < 128; bit++) {
        uint8_t damaged[16];
        memcpy(damaged, made, 16);
        damaged[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(!cookie_check(&key, now, &peer, instance, damaged, &issued));
    }
}

/** The vectors of PROTOCOL.md. */
static void tag_vectors(void) {
    uint8_t goodbye[40] = {1, 7, [8] = 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 5};
    const uint8_t want[16] = {0x0d, 0xbe, 0xc0, 0xb8, 0xea, 0xb1, 0x40, 0xd8,
                              0x36, 0x27, 0xef, 0x37, 0xe9, 0x29, 0x88, 0xd6};
    memset(goodbye + 24, 0x99, 16); /* what stood there does not matter */
    tag_seal(goodbye, sizeof(goodbye));
    CHECK(memcmp(goodbye + 24, want, 16) == 0);
    CHECK(tag_verify(goodbye, sizeof(goodbye)));
    for (unsigned at = 0; at < sizeof(goodbye); at++) {
        tag_seal(goodbye, sizeof(goodbye));
        goodbye[at] ^= 0x10;
        CHECK(!tag_verify(goodbye, sizeof(goodbye)));
        goodbye[at] ^= at < 24 ? 0x10 : 0;
    }
}

static void hash_vectors(void) {
    CHECK(hash_id(0, 0) == 0);
    CHECK(hash_id(1, 0) == 0x405507f8e1d86866u);
    CHECK(hash_id(uint128_make(1, 0), 0) == 0x3458dac6c41b5efbu);
    CHECK(hash_id(1, 0x0123456789abcdefu) == 0x66decd48605a378fu);
    CHECK_EQ(hash_partition(hash_id(uint128_make(0x0123456789abcdefu, 0xfedcba9876543210u),
                                    0x0123456789abcdefu),
                            1000),
             218);
    CHECK_EQ(hash_partition(hash_id(UINT128_MAX, UINT64_MAX), 256), 228);
}

/** The replay window against a plain list of everything seen. */
static void replay_window(void) {
    uint64_t seed = test_seed(2);
    for (unsigned round = 0; round < 40; round++) {
        struct session session = {0};
        static bool seen[200000];
        memset(seen, 0, sizeof(seen));
        uint64_t highest = 0;
        CHECK(!session_counter_fresh(&session, 0));
        for (unsigned i = 0; i < 5000; i++) {
            uint64_t jump = test_random(&seed);
            uint64_t counter =
                highest + 1 + (jump % 64 == 0 ? (jump >> 8) % 3000 : (jump >> 8) % 4);
            if (jump % 3 == 0)
                counter =
                    highest > 1500 ? highest - (jump >> 8) % 1500 : (jump >> 8) % (highest + 1);
            if (counter >= sizeof(seen))
                break;
            bool want = counter > highest ||
                        (counter != 0 && highest - counter < NET_REPLAY_WINDOW && !seen[counter]);
            CHECK_EQ(session_counter_fresh(&session, counter), want);
            CHECK_EQ(session_counter_fresh(&session, counter), want); /* asking changes nothing */
            if (!want)
                continue;
            session_counter_note(&session, counter);
            seen[counter] = true;
            highest = counter > highest ? counter : highest;
        }
        CHECK_EQ(session.rx_counter, highest);
    }
}

/** Table against what must always hold: sums of credits and charges, buffers, chains. */
static bool table_sound(const struct session_table *table) {
    uint64_t granted = 0, rest = 0, charged = 0, stored = 0;
    unsigned open = 0;
    for (unsigned i = 0; i < table->session_max; i++) {
        const struct session *session = &table->sessions[i];
        if (session->id == 0)
            continue;
        open++;
        uint64_t held = session->credit - session->edge;
        if (session->credit < session->edge || held > table->window)
            return false;
        granted += held;
        rest += held > table->share ? held - table->share : 0;
        charged += session->charged;
        for (uint64_t n = session->edge + 1; n <= session->credit; n++)
            if (session_slot(table, session, n)->state == SLOT_REPLIED)
                for (uint32_t r = session_slot(table, session, n)->reply; r != NET_NONE;
                     r = table->replies.next[r])
                    stored++;
    }
    return open == table->open_count && granted <= table->request_max && rest == table->rest_used &&
           rest <= table->rest_max && charged == table->charge_used &&
           charged <= table->charge_max &&
           stored + table->replies.free_count == table->request_max + table->charge_max;
}

/** Sessions come and go, requests are answered with more or fewer datagrams, acknowledged late or
 *  never. */
static void credits_never_exceed_buffers(void) {
    struct seeded seeded = {.random.fill = seeded_fill, .state = test_seed(3)};
    const struct session_limits limits = {.session_max = 20,
                                          .window = 64,
                                          .request_max = 300,
                                          .reply_buffers = 400,
                                          .reply_bytes = 100};
    struct session_table table;
    CHECK_EQ(session_table_open(&table, &limits), 0);
    uint64_t used[20] = {0}, edge[20] = {0}, refused = 0;
    for (unsigned round = 0; round < 200000; round++) {
        uint64_t dice = test_random(&seeded.state);
        unsigned at = (unsigned)(dice >> 32) % limits.session_max;
        struct session *session = &table.sessions[at];
        if (session->id == 0) {
            uint8_t instance[16] = {0};
            memcpy(instance, &dice, 8);
            struct session *opened = session_open(&table, &seeded.random, instance, 0);
            CHECK(opened != NULL && opened->credit >= 1);
            at = (unsigned)(opened - table.sessions);
            used[at] = edge[at] = 0;
        } else if (dice % 1000 == 0) {
            CHECK(session_find(&table, session->id) == session);
            CHECK(session_find_instance(&table, session->instance) == session);
            CHECK(session_end(&table, session));
        } else if (dice % 3 == 0) {
            edge[at] += (dice >> 8) % (used[at] - edge[at] + 1);
            CHECK(session_acknowledgement_valid(&table, session, edge[at]));
            CHECK(!session_acknowledgement_valid(&table, session, used[at] + 1));
            uint64_t before = session->credit;
            session_acknowledge(&table, session, edge[at]);
            CHECK(session->credit >= before);
        } else if (used[at] < session->credit) {
            struct slot *slot = session_slot(&table, session, used[at] + 1);
            CHECK_EQ(slot->state, SLOT_FREE);
            unsigned wanted = 1 + (unsigned)(dice >> 8) % NET_REPLY_DATAGRAMS_MAX;
            if (session_reserve(&table, session, slot, wanted) != 0) {
                refused++;
                CHECK_EQ(session_reserve(&table, session, slot, 1), 0);
                wanted = 1;
            }
            unsigned needed = 1 + (unsigned)(dice >> 16) % wanted;
            session_reserve_trim(&table, session, slot, needed);
            slot->reply = NET_NONE;
            for (unsigned i = 0; i < needed; i++) {
                uint32_t buffer = reply_store_take(&table.replies);
                table.replies.next[buffer] = slot->reply;
                slot->reply = buffer;
            }
            slot->state = SLOT_REPLIED;
            used[at]++;
        }
        if (round % 16 == 0)
            CHECK(table_sound(&table));
    }
    CHECK(refused > 0);
    /* whoever acknowledges everything may go on */
    for (unsigned i = 0; i < limits.session_max; i++)
        if (table.sessions[i].id != 0) {
            session_acknowledge(&table, &table.sessions[i], used[i]);
            CHECK(table.sessions[i].credit > used[i]);
        }
    CHECK(table_sound(&table));
    session_table_close(&table);
}

static void table_full(void) {
    struct seeded seeded = {.random.fill = seeded_fill, .state = 5};
    const struct session_limits limits = {.session_max = 100,
                                          .window = 64,
                                          .request_max = 100,
                                          .reply_buffers = 108,
                                          .reply_bytes = 100};
    struct session_table table;
    uint64_t ids[100];
    CHECK_EQ(session_table_open(&table, &limits), 0);
    for (unsigned i = 0; i < 100; i++) {
        uint8_t instance[16] = {0, (uint8_t)i}; /* all in one chain */
        struct session *session = session_open(&table, &seeded.random, instance, 0);
        CHECK(session != NULL && session->credit == 1);
        ids[i] = session->id;
    }
    uint8_t instance[16] = {1};
    CHECK(session_open(&table, &seeded.random, instance, 0) == NULL);
    for (unsigned i = 0; i < 100; i += 2)
        session_forget(&table, session_find(&table, ids[i]));
    for (unsigned i = 0; i < 100; i++) {
        uint8_t name[16] = {0, (uint8_t)i};
        CHECK_EQ(session_find(&table, ids[i]) != NULL, i % 2);
        CHECK_EQ(session_find_instance(&table, name) != NULL, i % 2);
    }
    CHECK(session_find(&table, 0) == NULL);
    CHECK_EQ(table.open_count, 50);
    CHECK(table_sound(&table));
    session_table_close(&table);
}

/** One client alone gets a full window; eight busy ones share fairly. */
static void shares(void) {
    struct seeded seeded = {.random.fill = seeded_fill, .state = 6};
    const struct session_limits limits = {.session_max = 1024,
                                          .window = 256,
                                          .request_max = 4096,
                                          .reply_buffers = 8192,
                                          .reply_bytes = 100};
    struct session_table table;
    CHECK_EQ(session_table_open(&table, &limits), 0);
    struct session *sessions[8];
    for (unsigned i = 0; i < 8; i++) {
        uint8_t instance[16] = {(uint8_t)i};
        sessions[i] = session_open(&table, &seeded.random, instance, 0);
        if (i == 0)
            CHECK_EQ(sessions[0]->credit, 256);
    }
    for (unsigned round = 0; round < 1000; round++)
        for (unsigned i = 0; i < 8; i++) {
            session_slot(&table, sessions[i], sessions[i]->edge + 1)->state = SLOT_REPLIED;
            session_slot(&table, sessions[i], sessions[i]->edge + 1)->reply = NET_NONE;
            session_slot(&table, sessions[i], sessions[i]->edge + 1)->datagrams = 1;
            session_acknowledge(&table, sessions[i], sessions[i]->edge + 1);
        }
    for (unsigned i = 0; i < 8; i++) {
        uint64_t held = sessions[i]->credit - sessions[i]->edge;
        CHECK(held > 120 && held < 150); /* 2 + 2048 / 15 */
    }
    session_table_close(&table);
}

int main(void) {
    TEST_RUN(siphash_vector);
    TEST_RUN(cookie);
    TEST_RUN(tag_vectors);
    TEST_RUN(hash_vectors);
    TEST_RUN(replay_window);
    TEST_RUN(credits_never_exceed_buffers);
    TEST_RUN(table_full);
    TEST_RUN(shares);
    return TEST_DONE();
}

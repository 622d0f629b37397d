/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_UNIT_NET_FIXTURE_H
#define TALLY_TESTS_UNIT_NET_FIXTURE_H

#include <rte_eal.h>
#include <rte_mbuf.h>

#include "net/net_state.h"
#include "net/port_memory.h"
#include "net/tag.h"
#include "tests/lib/test.h"

/** A server behind a memory port, clients that speak to it in frames, and a fake engine: the test
 *  completes the requests itself. */

enum {
    FRAME_BYTES = 9216, /* a jumbo frame fits */
    FRAME_DEPTH = 1024,
    SECOND = 1000000000,
};

/** A client's side of the wire. */
struct client {
    struct packet_self self;
    struct packet_peer server;
    uint8_t instance[16];
    uint64_t nonce;
    uint64_t session, counter; /**< last counter used */
    uint64_t credit, acknowledged;
    uint16_t payload_max;
    struct net_welcome welcome;
};

/** A frame that the server sent. */
struct answer {
    uint8_t frame[FRAME_BYTES];
    size_t frame_bytes;
    struct packet packet;
    struct net_header header;
    const uint8_t *body;
    size_t body_bytes;
};

struct seeded_random {
    struct random random;
    uint64_t state;
};

struct fixture {
    struct seeded_random random;
    struct port_memory port;
    struct net *net;
    uint64_t now_ns, cell_time_ns;
    struct engine_request *requests[4096]; /**< in the engine, oldest first */
    unsigned request_count;
    uint64_t last_counter; /**< of the server's datagrams, they must grow */
};

static struct rte_mempool *fixture_pool;
static uint8_t fixture_placement[PARTITIONS_MAX];

static const uint8_t server_mac[6] = {2, 0, 0, 0, 0, 1};
static const uint8_t server_ipv4[4] = {10, 7, 0, 1};
static const uint8_t server_ipv6[16] = {0xfd, 0, [13] = 0x12, [14] = 0x34, [15] = 0x56};

static void fixture_fill(struct random *random, void *bytes, size_t length) {
    struct seeded_random *seeded = (struct seeded_random *)random;
    for (uint8_t *at = bytes; length > 0; at++, length--)
        *at = (uint8_t)(test_random(&seeded->state) >> 24);
}

static inline void fixture_start(void) {
    char *arguments[] = {"test",
                         "--no-huge",
                         "-m",
                         "64",
                         "--no-pci",
                         "--no-shconf",
                         "--no-telemetry",
                         "--log-level",
                         "lib.eal:error",
                         "--lcores",
                         "0@0"};
    if (rte_eal_init(sizeof(arguments) / sizeof(arguments[0]), arguments) < 0) {
        printf("EAL does not start\n0 passed, 1 failed\n");
        exit(1);
    }
    fixture_pool =
        rte_pktmbuf_pool_create("test", 4095, 0, 0, FRAME_BYTES + RTE_PKTMBUF_HEADROOM, 0);
    if (fixture_pool == NULL) {
        printf("no packets\n0 passed, 1 failed\n");
        exit(1);
    }
}

static inline struct net_config fixture_config(struct fixture *fixture) {
    struct net_config config = {
        .port = &fixture->port.port,
        .random = &fixture->random.random,
        .pool = fixture_pool,
        .udp_port = NET_UDP_PORT_DEFAULT,
        .payload_max = NET_PAYLOAD_IPV4_DEFAULT,
        .session_max = 4,
        .window = 64,
        .reply_buffers = 1024,
        .request_max = 512,
        .queueing_delay_max_ns = 50 * NS_PER_MS,
        .identity = {.cell_id = {7, 7, 7}, .partitions = 256, .id_time = 1, .hash_seed = 99},
        .term = 3,
        .lcores = 1,
        .ports = {NET_UDP_PORT_DEFAULT},
        .placement = fixture_placement,
        .id_window_ms = 3600000,
    };
    memcpy(config.mac, server_mac, 6);
    memcpy(config.ipv4, server_ipv4, 4);
    memcpy(config.ipv6, server_ipv6, 16);
    return config;
}

static inline void fixture_open_with(struct fixture *fixture, const struct net_config *config) {
    char error[200] = "";
    if (net_open(config, &fixture->net, error, sizeof(error)) != 0) {
        printf("net_open: %s\n", error);
        exit(1);
    }
}

static inline void fixture_prepare(struct fixture *fixture) {
    memset(fixture, 0, sizeof(*fixture));
    fixture->random.random.fill = fixture_fill;
    fixture->random.state = 42;
    fixture->now_ns = 1000ull * SECOND;
    fixture->cell_time_ns = 1700000000ull * SECOND;
    if (port_memory_open(&fixture->port, fixture_pool, FRAME_DEPTH) != 0)
        exit(1);
}

static inline void fixture_open(struct fixture *fixture) {
    fixture_prepare(fixture);
    struct net_config config = fixture_config(fixture);
    fixture_open_with(fixture, &config);
}

/** Packets that have an end of their own in the counters: together they are all that came. */
static inline uint64_t fixture_accounted(const struct fixture *fixture) {
    const struct net_counters *c = net_counters(fixture->net);
    return c->arp + c->icmp + c->drop_ethernet + c->drop_ip + c->drop_fragment + c->drop_protocol +
           c->drop_udp + c->drop_header + c->drop_session + c->drop_tag + c->drop_replay +
           c->drop_window + c->drop_malformed + c->malformed + c->overloaded + c->behind +
           c->duplicates + c->requests + c->acks + c->goodbyes + c->hellos + c->hellos_waiting +
           c->sessions_full;
}

/** Every packet is accounted for, and every buffer is where it belongs. */
static inline void fixture_close(struct fixture *fixture) {
    const struct net_counters *counters = net_counters(fixture->net);
    if (fixture_accounted(fixture) != counters->rx_packets) {
        printf("counters: %" PRIu64 " packets came, %" PRIu64 " are accounted for\n",
               counters->rx_packets, fixture_accounted(fixture));
        test_this_failed = 1;
    }
    net_close(fixture->net);
    port_memory_close(&fixture->port);
    if (rte_mempool_in_use_count(fixture_pool) != 0) {
        printf("%u packets leaked\n", rte_mempool_in_use_count(fixture_pool));
        test_this_failed = 1;
    }
}

/** Let everything that waits arrive; requests go to the fake engine's list. @return packets
 *  received */
static inline unsigned fixture_pump(struct fixture *fixture) {
    unsigned packets, total = 0;
    do {
        fixture->request_count += net_rx(fixture->net, fixture->now_ns, fixture->cell_time_ns,
                                         fixture->requests + fixture->request_count, &packets);
        total += packets;
    } while (packets > 0);
    net_flush(fixture->net, fixture->now_ns);
    return total;
}

static inline uint32_t fixture_found(const struct engine_request *request, uint32_t i) {
    (void)request;
    return i % 3 == 2 ? LOOKUP_STATUS_absent : LOOKUP_STATUS_found;
}

/** The fake engine decides a request: recognizable results, every third lookup absent. */
static inline void fixture_complete(struct fixture *fixture, unsigned index, seq_t group) {
    struct engine_request *request = fixture->requests[index];
    bool lookup = request->operation >= OPERATION_LOOKUP_ACCOUNTS;
    for (uint32_t i = 0; i < request->event_count; i++) {
        request->results[i] = (struct result){
            .timestamp = lookup ? 0 : 1000 + i,
            .status = lookup ? fixture_found(request, i) : TRANSFER_STATUS_created,
        };
        if (lookup)
            ((struct account *)request->records)[i] =
                (struct account){.id = ((const uint128_t *)request->events)[i], .ledger = i};
        else if (request->options & REQUEST_BALANCES)
            request->balances[i] = (struct balances){.debits_posted = i, .credits_posted = 7};
    }
    request->wait_group = group;
    fixture->request_count--;
    memmove(&fixture->requests[index], &fixture->requests[index + 1],
            (fixture->request_count - index) * sizeof(fixture->requests[0]));
    if (!(request->options & REQUEST_BALANCES))
        request->balances = NULL; /* an engine may clear what it was not asked for */
    net_reply(fixture->net, request, fixture->now_ns);
    net_flush(fixture->net, fixture->now_ns);
}

static inline void fixture_complete_all(struct fixture *fixture) {
    while (fixture->request_count > 0)
        fixture_complete(fixture, 0, 5);
}

/* --- the client's side ------------------------------------------------------------------------ */

static inline struct client client_make(unsigned number, uint8_t family) {
    struct client client = {
        .self = {.mac = {2, 0, 0, 0, 1, (uint8_t)number},
                 .ipv4 = {10, 7, 0, (uint8_t)(10 + number)},
                 .ipv6 = {0xfd, 0, [14] = 1, [15] = (uint8_t)number},
                 .udp_port = (uint16_t)(40000 + number)},
        .server = {.family = family, .port = NET_UDP_PORT_DEFAULT},
        .instance = {0xaa, (uint8_t)number},
        .nonce = 5000 + number,
    };
    memcpy(client.server.mac, server_mac, 6);
    if (family == 4)
        memcpy(client.server.ip, server_ipv4, 4);
    else
        memcpy(client.server.ip, server_ipv6, 16);
    return client;
}

/** Put a datagram into a frame. @return bytes of the frame */
static inline size_t client_frame(const struct client *client, const void *payload, size_t bytes,
                                  uint8_t *frame) {
    size_t headers = packet_header_bytes(&client->server);
    memcpy(frame + headers, payload, bytes);
    packet_encode_udp(&client->self, &client->server, frame, bytes);
    return headers + bytes;
}

static inline void client_send_raw(struct fixture *fixture, const struct client *client,
                                   const void *payload, size_t bytes) {
    uint8_t frame[FRAME_BYTES * 2];
    if (port_memory_put(&fixture->port, frame, client_frame(client, payload, bytes, frame)) != 0)
        exit(1);
}

/** Header with the next counter, tag, body. @return bytes of the datagram */
static inline size_t client_datagram(struct client *client, uint8_t type, const void *body,
                                     size_t bytes, uint8_t *datagram) {
    struct net_header header = {.version = NET_VERSION, .type = type};
    if (type != NET_HELLO) {
        header.session = client->session;
        header.counter = ++client->counter;
    }
    memcpy(datagram, &header, sizeof(header));
    if (bytes > 0)
        memcpy(datagram + sizeof(header), body, bytes);
    tag_seal(datagram, sizeof(header) + bytes);
    return sizeof(header) + bytes;
}

static inline void client_send(struct fixture *fixture, struct client *client, uint8_t type,
                               const void *body, size_t bytes) {
    uint8_t datagram[FRAME_BYTES];
    client_send_raw(fixture, client, datagram,
                    client_datagram(client, type, body, bytes, datagram));
}

/** Next frame from the server. @return whether there is one that is a datagram to this client,
 *  sound in all parts */
static inline bool client_receive(struct fixture *fixture, const struct client *client,
                                  struct answer *answer) {
    answer->frame_bytes = port_memory_take(&fixture->port, answer->frame, sizeof(answer->frame));
    if (answer->frame_bytes == 0)
        return false;
    if (packet_decode(&client->self, answer->frame, answer->frame_bytes, 0, &answer->packet) !=
            PACKET_UDP ||
        answer->packet.payload_bytes < sizeof(struct net_header) ||
        memcmp(answer->packet.peer.mac, server_mac, 6) != 0 ||
        answer->packet.peer.port != NET_UDP_PORT_DEFAULT) {
        printf("the server sent something that is no datagram to the client\n");
        test_this_failed = 1;
        return false;
    }
    memcpy(&answer->header, answer->packet.payload, sizeof(answer->header));
    if (!tag_verify(answer->packet.payload, answer->packet.payload_bytes)) {
        printf("the server sent a wrong tag\n");
        test_this_failed = 1;
        return false;
    }
    answer->body = answer->packet.payload + sizeof(answer->header);
    answer->body_bytes = answer->packet.payload_bytes - sizeof(answer->header);
    return true;
}

static inline void client_hello(struct fixture *fixture, struct client *client,
                                const uint8_t *cookie) {
    uint8_t body[NET_HELLO_BYTES - sizeof(struct net_header)] = {0};
    struct net_hello hello = {.nonce = client->nonce, .payload_max = client->payload_max};
    memcpy(hello.client_instance, client->instance, 16);
    if (cookie != NULL)
        memcpy(hello.cookie, cookie, 16);
    memcpy(body, &hello, sizeof(hello));
    client_send(fixture, client, NET_HELLO, body, sizeof(body));
    fixture_pump(fixture);
}

/** HELLO without a cookie. @return whether one came */
static inline bool client_cookie(struct fixture *fixture, struct client *client, uint8_t *cookie) {
    struct answer answer;
    struct net_cookie got;
    client_hello(fixture, client, NULL);
    if (!client_receive(fixture, client, &answer) || answer.header.type != NET_COOKIE ||
        answer.body_bytes != sizeof(got))
        return false;
    memcpy(&got, answer.body, sizeof(got));
    memcpy(cookie, got.cookie, 16);
    return got.nonce == client->nonce;
}

/** HELLO with a cookie. @return whether a WELCOME came; it is taken */
static inline bool client_welcome(struct fixture *fixture, struct client *client,
                                  const uint8_t *cookie) {
    struct answer answer;
    client_hello(fixture, client, cookie);
    if (!client_receive(fixture, client, &answer) || answer.header.type != NET_WELCOME)
        return false;
    memcpy(&client->welcome, answer.body, sizeof(client->welcome));
    client->session = answer.header.session;
    client->counter = 0;
    client->acknowledged = 0;
    client->credit = client->welcome.credit;
    return client->welcome.nonce == client->nonce &&
           answer.body_bytes == sizeof(client->welcome) + client->welcome.partitions;
}

static inline bool client_connect(struct fixture *fixture, struct client *client) {
    uint8_t cookie[16];
    fixture->now_ns += NS_PER_MS;
    return client_cookie(fixture, client, cookie) && client_welcome(fixture, client, cookie);
}

/** Body of a request: header, options, events. @return bytes */
static inline size_t request_body(uint8_t *body, struct net_request_header header,
                                  const void *options, const void *events, size_t events_bytes) {
    memcpy(body, &header, sizeof(header));
    if (options != NULL)
        memcpy(body + sizeof(header), options, header.options_bytes);
    if (events != NULL)
        memcpy(body + sizeof(header) + header.options_bytes, events, events_bytes);
    return sizeof(header) + header.options_bytes + events_bytes;
}

/** Send a request made of anything. */
static inline void client_request(struct fixture *fixture, struct client *client,
                                  struct net_request_header header, const void *events,
                                  size_t events_bytes, const void *options) {
    uint8_t body[FRAME_BYTES * 2];
    header.acknowledged = client->acknowledged;
    client_send(fixture, client, NET_REQUEST, body,
                request_body(body, header, options, events, events_bytes));
    fixture_pump(fixture);
}

/** Send `count` compact transfers as request `number`. */
static inline void client_transfers(struct fixture *fixture, struct client *client, uint64_t number,
                                    uint16_t count) {
    struct compact_transfer events[64] = {0};
    uint8_t body[FRAME_BYTES * 3];
    for (uint16_t i = 0; i < count; i++)
        events[i] = (struct compact_transfer){.id = {number * 100 + i}, .amount = i + 1u};
    struct net_request_header header = {
        .request = number,
        .acknowledged = client->acknowledged,
        .operation = OPERATION_CREATE_TRANSFERS,
        .event_format = EVENT_FORMAT_COMPACT,
        .event_count = count,
    };
    client_send(fixture, client, NET_REQUEST, body,
                request_body(body, header, NULL, events, count * sizeof(events[0])));
    fixture_pump(fixture);
}

/** Next reply datagram. @return whether there is one; its counter is higher than all before */
static inline bool client_reply(struct fixture *fixture, struct client *client,
                                struct answer *answer, struct net_reply_header *header) {
    if (!client_receive(fixture, client, answer) || answer->header.type != NET_REPLY ||
        answer->header.session != client->session || answer->body_bytes < sizeof(*header))
        return false;
    memcpy(header, answer->body, sizeof(*header));
    if (answer->header.counter <= fixture->last_counter) {
        printf("the server used a counter twice\n");
        test_this_failed = 1;
    }
    fixture->last_counter = answer->header.counter;
    uint64_t credit = header->request + (uint64_t)(int64_t)header->credit_ahead;
    if (credit > client->credit)
        client->credit = credit;
    return true;
}

/** ACK, and the server's ACK. @return whether it came */
static inline bool client_acknowledge(struct fixture *fixture, struct client *client,
                                      uint64_t acknowledged) {
    struct net_ack ack = {.acknowledged = acknowledged};
    struct answer answer;
    client_send(fixture, client, NET_ACK, &ack, sizeof(ack));
    fixture_pump(fixture);
    if (!client_receive(fixture, client, &answer) || answer.header.type != NET_ACK)
        return false;
    memcpy(&ack, answer.body, sizeof(ack));
    fixture->last_counter = answer.header.counter;
    client->acknowledged = acknowledged;
    client->credit = ack.credit;
    return answer.body_bytes == sizeof(ack) && ack.acknowledged == acknowledged;
}

/* --- nothing changed -------------------------------------------------------------------------- */

/** What must be the same after input that is dropped before its tag is verified. */
struct snapshot {
    struct session sessions[8];
    uint64_t slots_digest;
    uint32_t rest_used, charge_used, replies_free;
    unsigned open_count, request_count, tx_waiting;
};

static inline struct snapshot snapshot_take(const struct fixture *fixture) {
    const struct session_table *table = &fixture->net->table;
    struct snapshot snapshot;
    memset(&snapshot, 0, sizeof(snapshot));
    for (unsigned i = 0; i < table->session_max && i < 8; i++)
        snapshot.sessions[i] = table->sessions[i];
    size_t bytes = (size_t)table->session_max * table->window * sizeof(struct slot);
    for (size_t i = 0; i < bytes; i++)
        snapshot.slots_digest = snapshot.slots_digest * 31 + ((const uint8_t *)table->slots)[i];
    snapshot.rest_used = table->rest_used;
    snapshot.charge_used = table->charge_used;
    snapshot.replies_free = table->replies.free_count;
    snapshot.open_count = table->open_count;
    snapshot.request_count = fixture->request_count;
    snapshot.tx_waiting = fixture->port.tx.count + fixture->net->tx_count;
    return snapshot;
}

static inline bool snapshot_same(const struct snapshot *a, const struct fixture *fixture) {
    struct snapshot b = snapshot_take(fixture);
    return memcmp(a, &b, sizeof(b)) == 0;
}

#endif

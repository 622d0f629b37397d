/* SPDX-License-Identifier: Apache-2.0 */
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_mbuf.h>

#include "net/cookie.h"
#include "net/net_state.h"
#include "net/tag.h"

/** Arbitrary packets through net_rx. The input is a list of steps: an action, a length, so many
 *  bytes. What the server must not do: crash, touch a byte behind the packet, lose count of a
 *  packet, a request or a buffer. Two targets: what anybody can send who has no session
 *  (FUZZ_BEFORE_SESSION), and what a client can. */

/** What a step does with its bytes. */
enum action {
    ACTION_FRAME,    /* they are a frame */
    ACTION_ICMP,     /* hop limit, destination, message: in a good frame, its checksum right */
    ACTION_DATAGRAM, /* they are the payload of a good frame */
    ACTION_SESSION,  /* a type, and what stands behind a good header of the open session */
    ACTION_REQUEST,  /* how to fit it, and a request of a number in the window */
    ACTION_HELLO,    /* instance and nonce of a HELLO with a good cookie */
    ACTION_COMPLETE, /* statuses, with which the engine finishes a request */
    ACTION_TIME,     /* how much of it passes */
};

static const enum action actions[] = {
#ifdef FUZZ_BEFORE_SESSION
    ACTION_FRAME, ACTION_ICMP, ACTION_DATAGRAM, ACTION_HELLO, ACTION_TIME,
#else
    ACTION_FRAME,   ACTION_ICMP,  ACTION_DATAGRAM, ACTION_SESSION,
    ACTION_REQUEST, ACTION_HELLO, ACTION_COMPLETE, ACTION_TIME,
#endif
};
enum { ACTION_COUNT = sizeof(actions) / sizeof(actions[0]) };

enum { FRAME_MAX = 2048, SESSIONS = 3, REQUESTS = 24, REPLIES = 40, WINDOW = 64 };

static struct rte_mempool *rx_pool, *tx_pool;

/** A port that hands over one packet, the memory behind it poisoned, and swallows what is sent. */
struct fuzz_port {
    struct port port;
    struct rte_mbuf *packet;
};

struct fuzz_random {
    struct random random;
    uint64_t state;
};

struct world {
    struct fuzz_port port;
    struct fuzz_random random;
    struct net *net;
    struct engine_request *requests[REQUESTS];
    unsigned request_count;
    uint64_t now_ns;
    struct packet_self client;
    struct packet_peer server;
};

static unsigned fuzz_rx(struct port *port, struct rte_mbuf **packets, unsigned count) {
    struct fuzz_port *fuzz = (struct fuzz_port *)port;
    if (fuzz->packet == NULL || count == 0)
        return 0;
    packets[0] = fuzz->packet;
    fuzz->packet = NULL;
    return 1;
}

static unsigned fuzz_tx(struct port *port, struct rte_mbuf **packets, unsigned count) {
    (void)port;
    for (unsigned i = 0; i < count; i++)
        rte_pktmbuf_free(packets[i]);
    return count;
}

static void fuzz_fill(struct random *random, void *bytes, size_t length) {
    struct fuzz_random *fuzz = (struct fuzz_random *)random;
    for (uint8_t *at = bytes; length > 0; at++, length--)
        *at = (uint8_t)((fuzz->state = fuzz->state * 6364136223846793005u + 1442695040888963407u) >>
                        56);
}

static void check(bool condition, const char *what) {
    if (condition)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

/** @param room  bytes of the buffer that the server may touch */
static void receive(struct world *world, const uint8_t *frame, size_t bytes, size_t room) {
    struct rte_mbuf *packet = rte_pktmbuf_alloc(rx_pool);
    check(packet != NULL, "no packet leaks");
    uint8_t *data = (uint8_t *)rte_pktmbuf_append(packet, (uint16_t)bytes);
    memcpy(data, frame, bytes);
    uint8_t *end = data + bytes + rte_pktmbuf_tailroom(packet);
    room = room > bytes ? room : bytes;
    ASAN_POISON_MEMORY_REGION(data + room, (size_t)(end - data) - room);
    world->port.packet = packet;
    unsigned packets;
    struct engine_request *requests[NET_BURST];
    unsigned count = net_rx(world->net, world->now_ns, world->now_ns, requests, &packets);
    ASAN_UNPOISON_MEMORY_REGION(data, (size_t)(end - data));
    check(packets == 1, "the packet was taken");
    for (unsigned i = 0; i < count; i++) {
        check(world->request_count < REQUESTS, "requests are bounded");
        world->requests[world->request_count++] = requests[i];
    }
    net_flush(world->net, world->now_ns);
}

static void receive_datagram(struct world *world, const void *payload, size_t bytes) {
    uint8_t frame[FRAME_MAX];
    size_t headers = packet_header_bytes(&world->server);
    memcpy(frame + headers, payload, bytes);
    packet_encode_udp(&world->client, &world->server, frame, bytes);
    receive(world, frame, headers + bytes, 0);
}

static void receive_hello(struct world *world, const uint8_t *bytes, size_t length) {
    uint8_t datagram[NET_HELLO_BYTES] = {NET_VERSION, NET_HELLO};
    struct net_hello hello = {.nonce = length > 1 ? bytes[1] : 0,
                              .client_instance = {length > 0 ? bytes[0] % 5 : 0}};
    struct packet_peer peer = {.family = world->server.family, .port = world->client.udp_port};
    memcpy(peer.ip, peer.family == 4 ? world->client.ipv4 : world->client.ipv6,
           peer.family == 4 ? 4 : 16);
    cookie_make(&world->net->cookie_key, world->now_ns, &peer, hello.client_instance, hello.cookie);
    if (length > 2)
        memcpy(&hello.payload_max, bytes + 1, 2);
    memcpy(datagram + sizeof(struct net_header), &hello, sizeof(hello));
    tag_seal(datagram, sizeof(datagram));
    receive_datagram(world, datagram, sizeof(datagram));
}

/** The session that was opened last, of those that are open. */
static struct session *any_session(struct world *world) {
    struct session *found = NULL;
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct session *session = &world->net->table.sessions[i];
        if (session->id != 0 && (found == NULL || session->opened_ns >= found->opened_ns))
            found = session;
    }
    return found;
}

/** ICMP or ICMPv6 to the server's address or its solicited-node group. */
static void receive_icmp(struct world *world, const uint8_t *bytes, size_t length) {
    if (length < 6)
        return;
    bool ipv6 = world->server.family == 6;
    size_t body = length - 2, headers = packet_header_bytes(&world->server) - 8;
    uint8_t frame[FRAME_MAX], pseudo[FRAME_MAX] = {0};
    packet_encode_udp(&world->client, &world->server, frame, 0);
    memcpy(frame + headers, bytes + 2, body);
    memset(frame + headers + 2, 0, 2);
    size_t summed = 0;
    if (ipv6) {
        frame[18] = (uint8_t)(body >> 8), frame[19] = (uint8_t)body;
        frame[20] = 58;
        frame[21] = bytes[0] & 1 ? 255 : bytes[0];
        if (bytes[1] & 1) {
            memcpy(frame, (uint8_t[6]){0x33, 0x33, 0xff, 0, 0, 1}, 6);
            memcpy(frame + 38, (uint8_t[16]){0xff, 2, [11] = 1, [12] = 0xff, [15] = 1}, 16);
        }
        if (bytes[1] & 2) /* an address is looked for; where it has 16 bytes, it is ours */
            frame[headers] = 135;
        if ((bytes[1] & 6) == 6 && body >= 24)
            memcpy(frame + headers + 8, world->server.ip, 16);
        if (bytes[1] & 8)
            memset(frame + 22, 0, 16);
        memcpy(pseudo, frame + 22, 32);
        pseudo[34] = (uint8_t)(body >> 8), pseudo[35] = (uint8_t)body, pseudo[39] = 58;
        summed = 40;
    } else {
        frame[16] = (uint8_t)((20 + body) >> 8), frame[17] = (uint8_t)(20 + body);
        frame[23] = 1;
        memset(frame + 24, 0, 2);
        uint16_t checksum = packet_checksum(frame + 14, 20);
        memcpy(frame + 24, &checksum, 2);
    }
    memcpy(pseudo + summed, frame + headers, body);
    uint16_t checksum = packet_checksum(pseudo, summed + body);
    memcpy(frame + headers + 2, &checksum, 2);
    receive(world, frame, headers + body, PACKET_ANSWER_ROOM);
}

/** Set number and acknowledgement, and if `how` has 0x40 operation, format and count to what the
 *  length is right for.
 *  @return the body's length, cut to whole events then */
static size_t request_fit(const struct world *world, const struct session *session, uint8_t how,
                          uint8_t *body, size_t length) {
    struct net_request_header header;
    if (length < sizeof(header))
        return length;
    memcpy(&header, body, sizeof(header));
    header.request = session->edge + how % 16;
    header.acknowledged = session->edge;
    if (how >= 128) /* the oldest reply is acknowledged, if there is one */
        header.acknowledged +=
            session_slot(&world->net->table, session, session->edge + 1)->state == SLOT_REPLIED;
    if (how & 0x40) {
        static const uint8_t event_bytes[8] = {128, 128, 64, 16, 16, 64, 64, 64};
        unsigned kind = header.operation % 8;
        header.operation = (uint8_t)(kind == 0   ? OPERATION_CREATE_ACCOUNTS
                                     : kind == 3 ? OPERATION_LOOKUP_ACCOUNTS
                                     : kind == 4 ? OPERATION_LOOKUP_TRANSFERS
                                                 : OPERATION_CREATE_TRANSFERS);
        header.event_format = event_bytes[kind] == 64;
        size_t left = length - sizeof(header);
        header.options_bytes = (uint16_t)(header.options_bytes % 9 * 8);
        if (header.options_bytes > left)
            header.options_bytes = 0;
        left -= header.options_bytes;
        header.event_count = (uint16_t)(left / event_bytes[kind]);
        length -= left % event_bytes[kind];
    }
    memcpy(body, &header, sizeof(header));
    return length;
}

static void receive_in_session(struct world *world, enum action action, const uint8_t *bytes,
                               size_t length) {
    struct session *session = any_session(world);
    uint8_t datagram[FRAME_MAX];
    if (session == NULL || length == 0)
        return;
    struct net_header header = {.version = NET_VERSION,
                                .type = action == ACTION_REQUEST ? NET_REQUEST : bytes[0],
                                .session = session->id,
                                .counter = session->rx_counter + 1};
    memcpy(datagram, &header, sizeof(header));
    memcpy(datagram + sizeof(header), bytes + 1, length - 1);
    length--;
    if (action == ACTION_REQUEST)
        length = request_fit(world, session, bytes[0], datagram + sizeof(header), length);
    tag_seal(datagram, sizeof(header) + length);
    receive_datagram(world, datagram, sizeof(header) + length);
}

static void complete(struct world *world, const uint8_t *bytes, size_t length) {
    if (world->request_count == 0)
        return;
    unsigned index = (length > 0 ? bytes[0] : 0u) % world->request_count;
    struct engine_request *request = world->requests[index];
    world->requests[index] = world->requests[--world->request_count];
    bool lookup = request->operation >= OPERATION_LOOKUP_ACCOUNTS;
    for (uint32_t i = 0; i < request->event_count; i++) {
        uint32_t status = length > 1 ? bytes[1 + i % (length - 1)] : 1;
        request->results[i] = (struct result){.status = status};
        if (lookup)
            memset((struct account *)request->records + i, (int)status, sizeof(struct account));
        else if (request->options & REQUEST_BALANCES)
            memset(&request->balances[i], (int)status, sizeof(struct balances));
    }
    request->wait_group = world->now_ns;
    net_reply(world->net, request, world->now_ns);
    net_flush(world->net, world->now_ns);
}

static void check_sums(const struct world *world) {
    const struct net_counters *c = net_counters(world->net);
    const struct session_table *table = &world->net->table;
    uint64_t ends = c->arp + c->icmp + c->drop_ethernet + c->drop_ip + c->drop_fragment +
                    c->drop_protocol + c->drop_udp + c->drop_header + c->drop_session +
                    c->drop_tag + c->drop_replay + c->drop_window + c->drop_malformed +
                    c->malformed + c->overloaded + c->behind + c->duplicates + c->requests +
                    c->acks + c->goodbyes + c->hellos + c->hellos_waiting + c->sessions_full;
    check(ends == c->rx_packets, "every packet is counted once");
    uint64_t granted = 0, charged = 0, in_progress = 0, stored = 0;
    for (unsigned i = 0; i < SESSIONS; i++) {
        const struct session *session = &table->sessions[i];
        if (session->id == 0)
            continue;
        granted += session->credit - session->edge;
        charged += session->charged;
        in_progress += session->in_progress;
        for (uint64_t n = session->edge + 1; n <= session->credit; n++)
            if (session_slot(table, session, n)->state == SLOT_REPLIED)
                for (uint32_t r = session_slot(table, session, n)->reply; r != NET_NONE;
                     r = table->replies.next[r])
                    stored++;
    }
    check(granted <= table->request_max, "credits are bounded");
    check(charged == table->charge_used && charged <= table->charge_max, "charges are bounded");
    check(in_progress == world->request_count, "requests in progress are those in the engine");
    check(stored + table->replies.free_count == REPLIES, "no reply buffer leaks");
}

static void world_open(struct world *world, bool ipv6) {
    static uint8_t placement[8];
    memset(world, 0, sizeof(*world));
    world->port.port = (struct port){.rx = fuzz_rx, .tx = fuzz_tx};
    world->random.random.fill = fuzz_fill;
    world->random.state = 7;
    world->now_ns = NS_PER_SECOND;
    world->client = (struct packet_self){.mac = {2, 0, 0, 0, 0, 9},
                                         .ipv4 = {10, 7, 0, 9},
                                         .ipv6 = {0xfd, [15] = 9},
                                         .udp_port = 999};
    world->server = (struct packet_peer){.family = ipv6 ? 6 : 4,
                                         .mac = {2, 0, 0, 0, 0, 1},
                                         .port = NET_UDP_PORT_DEFAULT,
                                         .ip = {10, 7, 0, 1}};
    if (ipv6)
        memcpy(world->server.ip, (uint8_t[16]){0xfd, [15] = 1}, 16);
    const struct net_config config = {
        .port = &world->port.port,
        .random = &world->random.random,
        .pool = tx_pool,
        .mac = {2, 0, 0, 0, 0, 1},
        .ipv4 = {10, 7, 0, 1},
        .ipv6 = {0xfd, [15] = 1},
        .udp_port = NET_UDP_PORT_DEFAULT,
        .payload_max = NET_PAYLOAD_IPV4_DEFAULT,
        .session_max = SESSIONS,
        .window = WINDOW,
        .reply_buffers = REPLIES,
        .request_max = REQUESTS,
        .queueing_delay_max_ns = NS_PER_SECOND,
        .identity = {.partitions = sizeof(placement)},
        .term = 1,
        .lcores = 1,
        .placement = placement,
    };
    char error[100];
    check(net_open(&config, &world->net, error, sizeof(error)) == 0, "the server opens");
}

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count;
    (void)arguments;
    char *eal[] = {"fuzz",        "--no-huge",      "-m",          "64",           "--no-pci",
                   "--no-shconf", "--no-telemetry", "--log-level", "lib.eal:error"};
    if (rte_eal_init(sizeof(eal) / sizeof(eal[0]), eal) < 0)
        exit(1);
    rx_pool = rte_pktmbuf_pool_create("rx", 63, 0, 0, FRAME_MAX + RTE_PKTMBUF_HEADROOM, 0);
    tx_pool = rte_pktmbuf_pool_create("tx", 63, 0, 0, FRAME_MAX + RTE_PKTMBUF_HEADROOM, 0);
    check(rx_pool != NULL && tx_pool != NULL, "there are packets");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    static struct world world;
    if (length == 0)
        return 0;
    world_open(&world, input[0] & 1);
#ifndef FUZZ_BEFORE_SESSION
    receive_hello(&world, NULL, 0); /* most inputs want a session; a GOODBYE ends it */
#endif
    for (size_t at = 1; at + 3 <= length;) {
        enum action action = actions[input[at] % ACTION_COUNT];
        size_t bytes = (size_t)(input[at + 1] | input[at + 2] << 8) % 1473;
        at += 3;
        if (bytes > length - at)
            bytes = length - at;
        const uint8_t *step = input + at;
        at += bytes;
        switch (action) {
        case ACTION_FRAME:
            receive(&world, step, bytes, PACKET_ANSWER_ROOM);
            break;
        case ACTION_ICMP:
            receive_icmp(&world, step, bytes);
            break;
        case ACTION_DATAGRAM:
            receive_datagram(&world, step, bytes);
            break;
        case ACTION_SESSION:
        case ACTION_REQUEST:
            receive_in_session(&world, action, step, bytes);
            break;
        case ACTION_HELLO:
            receive_hello(&world, step, bytes);
            break;
        case ACTION_COMPLETE:
            complete(&world, step, bytes);
            break;
        case ACTION_TIME:
            world.now_ns += (bytes > 0 ? step[0] : 0u) * (NS_PER_SECOND / 3);
            net_note_delay(world.net, bytes > 1 ? step[1] * (NS_PER_SECOND / 128) : 0);
            net_flush(world.net, world.now_ns);
            break;
        }
        check_sums(&world);
    }
    while (world.request_count > 0)
        complete(&world, NULL, 0);
    check_sums(&world);
    net_close(world.net);
    check(rte_mempool_in_use_count(rx_pool) == 0 && rte_mempool_in_use_count(tx_pool) == 0,
          "no packet leaks");
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/client/fake_network.h"

#include <stdlib.h>
#include <string.h>

static void network_enqueue(struct fake_network *network, const uint8_t *bytes, uint32_t length,
                            uint16_t port, bool to_server) {
    network->sent++;
    unsigned copies = 1 + (fake_random(&network->random) % 100 < network->duplicate_percent);
    for (unsigned i = 0; i < copies; i++) {
        if (fake_random(&network->random) % 100 < network->loss_percent ||
            network->count == FAKE_DATAGRAMS_MAX) {
            network->lost++;
            continue;
        }
        struct fake_datagram *datagram = &network->datagrams[network->count++];
        uint64_t jitter =
            network->jitter_ns ? fake_random(&network->random) % network->jitter_ns : 0;
        datagram->due_ns = network->now_ns + network->delay_ns + jitter;
        datagram->order = network->order++;
        datagram->to_server = to_server;
        datagram->port = port;
        datagram->length = length;
        memcpy(datagram->bytes, bytes, length);
    }
}

static void network_emit(void *context, const uint8_t *datagram, uint32_t length,
                         uint16_t from_port) {
    network_enqueue(context, datagram, length, from_port, false);
}

/** Index of the earliest datagram in that direction, or -1. */
static int network_earliest(const struct fake_network *network, bool to_server) {
    int best = -1;
    for (unsigned i = 0; i < network->count; i++) {
        const struct fake_datagram *datagram = &network->datagrams[i];
        if (datagram->to_server != to_server || datagram->due_ns > network->now_ns)
            continue;
        if (best < 0 || datagram->due_ns < network->datagrams[best].due_ns ||
            (datagram->due_ns == network->datagrams[best].due_ns &&
             datagram->order < network->datagrams[best].order))
            best = (int)i;
    }
    return best;
}

static void network_remove(struct fake_network *network, int index) {
    network->datagrams[index] = network->datagrams[--network->count];
}

static uint64_t network_clock(struct clock *clock) {
    struct fake_network *network =
        (struct fake_network *)((uint8_t *)clock - offsetof(struct fake_network, clock));
    int index;
    network->now_ns += network->tick_ns;
    if (network->restart_at_ns && network->now_ns >= network->restart_at_ns) {
        fake_server_restart(&network->server);
        network->server.dead = network->now_ns < network->restart_at_ns + network->dead_for_ns;
        if (!network->server.dead)
            network->restart_at_ns = 0;
    }
    while ((index = network_earliest(network, true)) >= 0) {
        struct fake_datagram datagram = network->datagrams[index];
        network_remove(network, index);
        fake_server_take(&network->server, network->now_ns, datagram.bytes, datagram.length,
                         datagram.port, network_emit, network);
    }
    return network->now_ns;
}

static void network_random(struct random *random, void *bytes, size_t length) {
    struct fake_network *network =
        (struct fake_network *)((uint8_t *)random - offsetof(struct fake_network, random_source));
    uint8_t *out = bytes;
    for (size_t i = 0; i < length; i++)
        out[i] = (uint8_t)fake_random(&network->random);
}

static unsigned network_send(struct tally_transport *transport,
                             const struct tally_transport_datagram *datagrams, unsigned count) {
    struct fake_network *network = (struct fake_network *)transport;
    if (network->full)
        return 0;
    for (unsigned i = 0; i < count; i++)
        network_enqueue(network, datagrams[i].bytes, datagrams[i].length, datagrams[i].port, true);
    return count;
}

static unsigned network_receive(struct tally_transport *transport,
                                struct tally_transport_datagram *datagrams, unsigned count) {
    struct fake_network *network = (struct fake_network *)transport;
    unsigned received = 0;
    int index;
    while (received < count && (index = network_earliest(network, false)) >= 0) {
        struct fake_datagram *datagram = &network->datagrams[index];
        memcpy(datagrams[received].bytes, datagram->bytes, datagram->length);
        datagrams[received].length = datagram->length;
        datagrams[received].port = datagram->port;
        received++;
        network_remove(network, index);
    }
    return received;
}

static int network_fd(struct tally_transport *transport) {
    (void)transport;
    return -1;
}

static void network_transport_close(struct tally_transport *transport) {
    (void)transport; /* the test closes the network */
}

struct fake_network *fake_network_open(uint64_t seed) {
    struct fake_network *network = calloc(1, sizeof(*network));
    network->datagrams = calloc(FAKE_DATAGRAMS_MAX, sizeof(network->datagrams[0]));
    network->random = seed;
    network->transport = (struct tally_transport){.send = network_send,
                                                  .receive = network_receive,
                                                  .fd = network_fd,
                                                  .close = network_transport_close,
                                                  .server_port = FAKE_PORT,
                                                  .payload_max = NET_PAYLOAD_IPV4_DEFAULT};
    network->clock.monotonic_ns = network_clock;
    network->random_source.fill = network_random;
    network->now_ns = NS_PER_SECOND;
    network->tick_ns = 10000;
    network->delay_ns = 20000;
    fake_server_open(&network->server, seed ^ 0x5eed);
    return network;
}

void fake_network_close(struct fake_network *network) {
    fake_server_close(&network->server);
    free(network->datagrams);
    free(network);
}

struct tally_client *fake_client_open(struct fake_network *network,
                                      const struct tally_options *options) {
    static const struct tally_options defaults;
    struct tally_client *client;
    char error[200];
    if (client_start(options ? options : &defaults, &network->transport, &network->clock,
                     &network->random_source, &client, error, sizeof(error)) < 0)
        return NULL;
    uint64_t until_ns = network->now_ns + 20 * NS_PER_SECOND;
    while (client->session.state != SESSION_OPEN && network->now_ns < until_ns)
        tally_client_poll(client);
    return client->session.state == SESSION_OPEN ? client : NULL;
}

bool fake_client_run(struct fake_network *network, struct tally_client *client, const bool *done,
                     uint64_t for_ns) {
    uint64_t until_ns = network->now_ns + for_ns;
    while (!*done && network->now_ns < until_ns)
        tally_client_poll(client);
    return *done;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_port.h"

#include <rte_mbuf.h>

#include "net/protocol.h"

/** Where UDP's payload begins in a frame, as its own headers say; 0: it is none. Reads the frame only. */
static size_t payload_of(const uint8_t *frame, size_t length, size_t *bytes) {
    if (length < PACKET_HEADERS_IPV4)
        return 0;
    size_t headers = 0;
    if (frame[12] == 0x08 && frame[13] == 0x00 && frame[14] == 0x45 && frame[23] == 17)
        headers = PACKET_HEADERS_IPV4;
    else if (frame[12] == 0x86 && frame[13] == 0xdd && frame[20] == 17)
        headers = PACKET_HEADERS_IPV6;
    if (headers == 0 || length < headers)
        return 0;
    size_t said = (size_t)frame[headers - 4] << 8 | frame[headers - 3];
    if (said < 8 || said - 8 > length - headers)
        return 0;
    *bytes = said - 8;
    return headers;
}

/** One line of the trace about a datagram. */
static void say(const struct sim_port *port, const char *way, const uint8_t *payload,
                size_t bytes) {
    static const char *const types[] = {"?",       "HELLO", "COOKIE", "WELCOME",
                                        "REQUEST", "REPLY", "ACK",    "GOODBYE"};
    uint64_t session = 0, counter = 0, number = 0;
    if (bytes >= 48) {
        memcpy(&session, payload + 8, 8);
        memcpy(&counter, payload + 16, 8);
        memcpy(&number, payload + 40, 8);
    }
    unsigned type = bytes >= 40 && payload[1] <= 7 ? payload[1] : 0;
    sim_say(port->sim, "port",
            "%s %s, session %" PRIx64 ", counter %" PRIu64 ", number %" PRIu64 ", %zu bytes", way,
            types[type], session, counter, type == 4 || type == 5 ? number : 0, bytes);
}

/* --- in ------------------------------------------------------------------------------------------------------------- */

void sim_port_deliver(struct sim_port *port, const struct sim_frame *frame) {
    struct rte_mbuf *packet = NULL;
    if (port->count < SIM_PORT_DEPTH)
        packet = rte_pktmbuf_alloc(port->pool);
    if (!packet) {
        sim_fault(port->sim, SIM_FAULT_port_full);
        return;
    }
    memcpy(rte_pktmbuf_append(packet, (uint16_t)frame->length), frame->bytes, frame->length);
    port->queue[(port->first + port->count++) % SIM_PORT_DEPTH] = packet;
}

static unsigned port_rx(struct port *base, struct rte_mbuf **packets, unsigned count) {
    struct sim_port *port = (struct sim_port *)base;
    unsigned taken = 0;
    for (; taken < count && port->count != 0; port->count--) {
        struct rte_mbuf *packet = port->queue[port->first];
        const uint8_t *frame = rte_pktmbuf_mtod(packet, const uint8_t *);
        size_t bytes, headers = payload_of(frame, packet->data_len, &bytes);
        port->first = (port->first + 1) % SIM_PORT_DEPTH;
        if (headers) {
            if (port->sim->tracing)
                say(port, "in ", frame + headers, bytes);
            oracle_packet_in(port->oracle, frame + headers, bytes);
        }
        packets[taken++] = packet;
    }
    return taken;
}

/* --- out ------------------------------------------------------------------------------------------------------------ */

static void send(struct sim_port *port, struct rte_mbuf *packet) {
    const uint8_t *frame = rte_pktmbuf_mtod(packet, const uint8_t *);
    size_t bytes, headers = payload_of(frame, packet->data_len, &bytes);
    unsigned to = port->find(port->context, frame);
    if (headers) {
        if (port->sim->tracing)
            say(port, "out", frame + headers, bytes);
        oracle_packet_out(port->oracle, frame + headers, bytes);
    }
    if (to < SIM_ENDPOINTS)
        sim_network_send(port->network, port->endpoint, to, frame, packet->data_len);
}

static unsigned port_tx(struct port *base, struct rte_mbuf **packets, unsigned count) {
    struct sim_port *port = (struct sim_port *)base;
    unsigned taken = count;
    if (count != 0 && !port->dead && sim_chance(&port->random, port->tx_full_ppm)) {
        sim_fault(port->sim, SIM_FAULT_port_full);
        taken = (unsigned)sim_below(&port->random, count);
    }
    for (unsigned i = 0; i < taken; i++) {
        if (!port->dead)
            send(port, packets[i]);
        rte_pktmbuf_free(packets[i]);
    }
    return taken;
}

void sim_port_clear(struct sim_port *port) {
    for (; port->count != 0; port->count--) {
        rte_pktmbuf_free(port->queue[port->first]);
        port->first = (port->first + 1) % SIM_PORT_DEPTH;
    }
}

void sim_port_open(struct sim_port *port, struct sim *sim, struct sim_network *network,
                   struct rte_mempool *pool, unsigned number) {
    memset(port, 0, sizeof(*port));
    port->port = (struct port){.rx = port_rx, .tx = port_tx};
    port->sim = sim;
    port->network = network;
    port->pool = pool;
    port->random = sim_random_make(sim->seed, 3 + 1000 * number);
    port->endpoint = number;
    const uint8_t last = (uint8_t)(1 + number);
    port->self = (struct packet_self){.mac = {2, 0, 0, 0, 0, last},
                                      .ipv4 = {10, 7, 0, last},
                                      .ipv6 = {0xfd, [14] = 0x12, [15] = last},
                                      .udp_port = NET_UDP_PORT_DEFAULT};
}

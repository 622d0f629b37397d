/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_mbuf.h>
#include <rte_prefetch.h>

#include "net/net_state.h"
#include "net/tag.h"

/* --- opening ---------------------------------------------------------------------------------- */

static int refuse(char *error, size_t error_bytes, const char *text) {
    snprintf(error, error_bytes, "%s", text);
    return -EINVAL;
}

static int config_check(struct net_config *config, char *error, size_t error_bytes) {
    static const uint8_t zero[16];
    if (memcmp(config->ipv4, zero, 4) == 0 && memcmp(config->ipv6, zero, 16) == 0)
        return refuse(error, error_bytes, "no address: an IPv4 or an IPv6 address is needed");
    if (config->udp_port == 0)
        return refuse(error, error_bytes, "UDP port 0 cannot be used; choose 1 to 65535");
    if (config->payload_max < NET_HELLO_BYTES + 20 || config->payload_max > NET_PAYLOAD_MAX)
        return refuse(error, error_bytes, "payload limit out of range: 1420 to 8952 bytes fit");
    if (config->window < 64 || config->window > 4096 ||
        (config->window & (config->window - 1)) != 0)
        return refuse(error, error_bytes,
                      "window out of range: a power of two from 64 to 4096 fits");
    if (config->request_max == 0) {
        config->request_max = config->reply_buffers / 2;
        if (config->request_max > NET_REQUESTS_DEFAULT_MAX)
            config->request_max = NET_REQUESTS_DEFAULT_MAX;
    }
    if (config->session_max == 0 || config->session_max > config->request_max)
        return refuse(error, error_bytes,
                      "there must be a session, and a request for each of them");
    if (config->reply_buffers < config->request_max + NET_REPLY_DATAGRAMS_MAX)
        return refuse(error, error_bytes, "fewer reply buffers than requests and one long reply");
    if (config->identity.partitions == 0 || config->identity.partitions > PARTITIONS_MAX ||
        config->lcores == 0 || config->lcores > LCORES_MAX)
        return refuse(error, error_bytes, "partitions or lcores out of range");
    if (rte_pktmbuf_data_room_size(config->pool) <
        RTE_PKTMBUF_HEADROOM + PACKET_HEADERS_IPV4 + config->payload_max)
        return refuse(error, error_bytes, "packet buffers are smaller than the payload limit");
    return 0;
}

/** Events, results and records of every request that can be outstanding. Records and balances share
 *  their place: no operation has both. */
static int contexts_open(struct net *net) {
    unsigned count = net->config.request_max;
    size_t payload = net->config.payload_max;
    size_t lookups =
        (payload - 96) / (sizeof(struct result) + sizeof(struct account)) * NET_REPLY_DATAGRAMS_MAX;
    size_t creates = payload / sizeof(struct compact_transfer);
    size_t results = lookups > creates ? lookups : creates;
    size_t answer_bytes = lookups * sizeof(struct account);
    if (answer_bytes < creates * sizeof(struct balances))
        answer_bytes = creates * sizeof(struct balances);
    size_t event_bytes = (payload + CACHE_LINE_BYTES - 1) & ~(size_t)(CACHE_LINE_BYTES - 1);

    net->contexts = session_memory(count, sizeof(*net->contexts));
    net->events = session_memory(count, event_bytes);
    net->results = session_memory(count, results * sizeof(struct result));
    net->answers = session_memory(count, answer_bytes);
    if (net->contexts == NULL || net->events == NULL || net->results == NULL ||
        net->answers == NULL)
        return -ENOMEM;
    for (unsigned i = count; i-- > 0;) {
        struct net_context *context = &net->contexts[i];
        context->events = net->events + i * event_bytes;
        context->results = net->results + i * results;
        context->answers = net->answers + i * answer_bytes;
        context->next_free = net->free_contexts;
        net->free_contexts = context;
    }
    return 0;
}

int net_open(const struct net_config *config, struct net **opened, char *error,
             size_t error_bytes) {
    struct net *net = session_memory(1, sizeof(*net));
    if (net == NULL) {
        snprintf(error, error_bytes, "no memory for the network's state");
        return -ENOMEM;
    }
    net->config = *config;
    int status = config_check(&net->config, error, error_bytes);
    if (status != 0) {
        free(net);
        return status;
    }
    memcpy(net->placement, config->placement, config->identity.partitions);
    memcpy(net->self.mac, config->mac, 6);
    memcpy(net->self.ipv4, config->ipv4, 4);
    memcpy(net->self.ipv6, config->ipv6, 16);
    net->self.udp_port = config->udp_port;
    net->self.tx_checksum_ipv4 = config->tx_checksum_ipv4;
    net->self.tx_checksum_udp = config->tx_checksum_udp;
    config->random->fill(config->random, &net->cookie_key, sizeof(net->cookie_key));

    const struct session_limits limits = {
        .session_max = net->config.session_max,
        .window = net->config.window,
        .request_max = net->config.request_max,
        .reply_buffers = net->config.reply_buffers,
        .reply_bytes = net->config.payload_max - sizeof(struct net_header),
    };
    if (contexts_open(net) != 0 || session_table_open(&net->table, &limits) != 0) {
        snprintf(error, error_bytes, "no memory for %u sessions, %u requests and %u reply buffers",
                 limits.session_max, limits.request_max, limits.reply_buffers);
        net_close(net);
        return -ENOMEM;
    }
    *opened = net;
    return 0;
}

void net_close(struct net *net) {
    for (unsigned i = 0; i < net->tx_count; i++)
        rte_pktmbuf_free(net->tx[i]);
    session_table_close(&net->table);
    free(net->contexts);
    free(net->events);
    free(net->results);
    free(net->answers);
    free(net);
}

/* --- receiving -------------------------------------------------------------------------------- */

static struct engine_request *receive_datagram(struct net *net, struct net_datagram *datagram) {
    struct net_counters *counters = &net->counters;
    struct net_header *header = &datagram->header;
    if (datagram->length < sizeof(*header)) {
        counters->drop_header++;
        return NULL;
    }
    memcpy(header, datagram->bytes, sizeof(*header));
    if (header->version != NET_VERSION || header->key_phase != 0 ||
        (header->type != NET_HELLO && header->type != NET_REQUEST && header->type != NET_ACK &&
         header->type != NET_GOODBYE)) {
        counters->drop_header++;
        return NULL;
    }
    if (header->type == NET_HELLO) {
        net_hello(net, datagram);
        return NULL;
    }

    struct session *session = session_find(&net->table, header->session);
    if (session == NULL || session->closing || session->peer.family != datagram->peer->family ||
        session->peer.port != datagram->peer->port ||
        memcmp(session->peer.ip, datagram->peer->ip, sizeof(session->peer.ip)) != 0) {
        counters->drop_session++;
        return NULL;
    }
    if (!session_counter_fresh(session, header->counter)) {
        counters->drop_replay++;
        return NULL;
    }
    if (!tag_verify(datagram->bytes, datagram->length)) {
        counters->drop_tag++;
        return NULL;
    }
    session_counter_note(session, header->counter);
    session->used = true;
    session->heard_ns = datagram->now_ns;

    if (header->type == NET_REQUEST)
        return net_request_decode(net, session, datagram);
    if (header->type == NET_GOODBYE) {
        net_goodbye(net, session);
        return NULL;
    }
    struct net_ack ack;
    if (net_body_bytes(datagram) != sizeof(ack)) {
        counters->drop_malformed++;
        return NULL;
    }
    memcpy(&ack, net_body(datagram), sizeof(ack));
    if (!session_acknowledgement_valid(&net->table, session, ack.acknowledged)) {
        counters->drop_malformed++;
        return NULL;
    }
    session_acknowledge(&net->table, session, ack.acknowledged);
    counters->acks++;
    struct net_outgoing outgoing;
    if (net_send_begin(net, datagram->peer, sizeof(*header) + sizeof(ack), &outgoing)) {
        ack = (struct net_ack){.acknowledged = session->edge, .credit = session->credit};
        memcpy(outgoing.bytes + sizeof(*header), &ack, sizeof(ack));
        net_send(net, &outgoing, NET_ACK, session);
    }
    return NULL;
}

static unsigned checksums_verified(const struct net *net, const struct rte_mbuf *mbuf) {
    unsigned verified = 0;
    if (!net->config.rx_checksum_trusted)
        return 0;
    if ((mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD)
        verified |= PACKET_VERIFIED_IPV4;
    if ((mbuf->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
        verified |= PACKET_VERIFIED_UDP;
    return verified;
}

/** Queue a packet; it is dropped, counted, when the port has not taken any for so long that the
 *  queue is full. */
static void queue_packet(struct net *net, struct rte_mbuf *mbuf);

/** Send the received frame back: packet_decode has turned it into its answer. */
static void answer_in_place(struct net *net, struct rte_mbuf *mbuf, size_t bytes) {
    mbuf->ol_flags = 0;
    mbuf->data_len = (uint16_t)bytes;
    mbuf->pkt_len = (uint32_t)bytes;
    queue_packet(net, mbuf);
}

/** @return a request for the engine, or NULL. The mbuf is taken. */
static struct engine_request *receive(struct net *net, struct rte_mbuf *mbuf, uint64_t now_ns,
                                      uint64_t cell_time_ns) {
    struct net_counters *counters = &net->counters;
    struct packet packet;
    enum packet_kind kind = PACKET_DROP_ETHERNET;
    if (mbuf->nb_segs == 1 && mbuf->data_len + rte_pktmbuf_tailroom(mbuf) >= PACKET_ANSWER_ROOM)
        kind = packet_decode(&net->self, rte_pktmbuf_mtod(mbuf, uint8_t *), mbuf->data_len,
                             checksums_verified(net, mbuf), &packet);
    struct engine_request *request = NULL;
    switch (kind) {
    case PACKET_UDP:
        request = receive_datagram(net, &(struct net_datagram){.peer = &packet.peer,
                                                               .bytes = packet.payload,
                                                               .length = packet.payload_bytes,
                                                               .now_ns = now_ns,
                                                               .cell_time_ns = cell_time_ns});
        break;
    case PACKET_ARP_ANSWER:
        counters->arp++;
        answer_in_place(net, mbuf, packet.answer_bytes);
        return NULL;
    case PACKET_ICMP_ANSWER:
        counters->icmp++;
        answer_in_place(net, mbuf, packet.answer_bytes);
        return NULL;
    case PACKET_DROP_ETHERNET:
        counters->drop_ethernet++;
        break;
    case PACKET_DROP_IP:
        counters->drop_ip++;
        break;
    case PACKET_DROP_FRAGMENT:
        counters->drop_fragment++;
        break;
    case PACKET_DROP_PROTOCOL:
        counters->drop_protocol++;
        break;
    case PACKET_DROP_UDP:
        counters->drop_udp++;
        break;
    }
    rte_pktmbuf_free(mbuf);
    return request;
}

unsigned net_rx(struct net *net, uint64_t now_ns, uint64_t cell_time_ns,
                struct engine_request **requests, unsigned *packets) {
    struct rte_mbuf *mbufs[NET_BURST];
    unsigned count = net->config.port->rx(net->config.port, mbufs, NET_BURST);
    unsigned request_count = 0;
    for (unsigned i = 0; i < count; i++)
        rte_prefetch0(rte_pktmbuf_mtod(mbufs[i], void *));
    for (unsigned i = 0; i < count; i++) {
        struct engine_request *request = receive(net, mbufs[i], now_ns, cell_time_ns);
        if (request != NULL)
            requests[request_count++] = request;
    }
    net->counters.rx_packets += count;
    *packets = count;
    return request_count;
}

/* --- sending ---------------------------------------------------------------------------------- */

/** Offer what is queued to the port. What it does not take stays queued. */
static unsigned transmit(struct net *net) {
    if (net->tx_count == 0)
        return 0;
    unsigned sent = net->config.port->tx(net->config.port, net->tx, net->tx_count);
    assert(sent <= net->tx_count);
    net->tx_count -= sent;
    memmove(net->tx, net->tx + sent, net->tx_count * sizeof(net->tx[0]));
    net->counters.tx_packets += sent;
    return sent;
}

static void queue_packet(struct net *net, struct rte_mbuf *mbuf) {
    if (net->tx_count == NET_TX_QUEUE && transmit(net) == 0) {
        net->counters.tx_dropped++;
        rte_pktmbuf_free(mbuf);
        return;
    }
    net->tx[net->tx_count++] = mbuf;
}

bool net_send_begin(struct net *net, const struct packet_peer *peer, size_t length,
                    struct net_outgoing *outgoing) {
    struct rte_mbuf *mbuf = rte_pktmbuf_alloc(net->config.pool);
    if (mbuf == NULL) {
        net->counters.tx_dropped++;
        return false;
    }
    size_t headers = packet_header_bytes(peer);
    uint8_t *frame = (uint8_t *)rte_pktmbuf_append(mbuf, (uint16_t)(headers + length));
    assert(frame != NULL); /* net_open has compared the pool with payload_max */
    *outgoing = (struct net_outgoing){mbuf, frame + headers, length, peer};
    return true;
}

void net_send(struct net *net, struct net_outgoing *outgoing, uint8_t type,
              struct session *session) {
    const struct net_header header = {
        .version = NET_VERSION,
        .type = type,
        .session = session == NULL ? 0 : session->id,
        .counter = session == NULL ? 0 : ++session->tx_counter,
    };
    struct rte_mbuf *mbuf = outgoing->mbuf;
    const struct packet_peer *peer = outgoing->peer;
    memcpy(outgoing->bytes, &header, sizeof(header));
    tag_seal(outgoing->bytes, outgoing->length);
    packet_encode_udp(&net->self, peer, rte_pktmbuf_mtod(mbuf, uint8_t *), outgoing->length);

    uint64_t family = peer->family == 4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6;
    if (net->self.tx_checksum_udp)
        mbuf->ol_flags |= family | RTE_MBUF_F_TX_UDP_CKSUM;
    if (net->self.tx_checksum_ipv4 && peer->family == 4)
        mbuf->ol_flags |= family | RTE_MBUF_F_TX_IP_CKSUM;
    mbuf->l2_len = 14;
    mbuf->l3_len = peer->family == 4 ? 20 : 40;
    mbuf->l4_len = 8;
    queue_packet(net, mbuf);
}

/** Look at a few sessions in turn: those that fell silent are forgotten. */
static void sweep_sessions(struct net *net, uint64_t now_ns) {
    struct session_table *table = &net->table;
    for (unsigned i = 0; i < 4 && i < table->session_max; i++) {
        struct session *session = &table->sessions[net->sweep];
        net->sweep = (net->sweep + 1) % table->session_max;
        uint64_t limit = session->used ? NET_SESSION_IDLE_NS : NET_SESSION_UNUSED_NS;
        if (session->id == 0 || session->in_progress > 0 || now_ns <= session->heard_ns ||
            now_ns - session->heard_ns <= limit)
            continue;
        session_forget(table, session);
        net->counters.sessions_timed_out++;
    }
}

unsigned net_flush(struct net *net, uint64_t now_ns) {
    sweep_sessions(net, now_ns);
    return transmit(net);
}

void net_note_delay(struct net *net, uint64_t queueing_delay_ns) {
    net->delay_ns = queueing_delay_ns;
}

void net_announce(struct net *net) {
    static const uint8_t zero[16];
    for (unsigned i = 0; i < 2; i++) {
        if (i == 0 ? memcmp(net->self.ipv4, zero, 4) == 0 : memcmp(net->self.ipv6, zero, 16) == 0)
            continue;
        struct rte_mbuf *mbuf = rte_pktmbuf_alloc(net->config.pool);
        if (mbuf == NULL) {
            net->counters.tx_dropped++;
            continue;
        }
        uint8_t *frame = rte_pktmbuf_mtod(mbuf, uint8_t *);
        answer_in_place(net, mbuf,
                        i == 0 ? packet_encode_arp_announcement(&net->self, frame)
                               : packet_encode_ipv6_announcement(&net->self, frame));
    }
}

const struct net_counters *net_counters(const struct net *net) {
    return &net->counters;
}

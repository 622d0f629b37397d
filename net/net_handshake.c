/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "engine/base/planted.h"
#include "net/net_state.h"
#include "net/tag.h"

/* A HELLO is answered with
 *   1. COOKIE, when its cookie is not good, or is older than the session that it would end: a HELLO
 *      that the network has kept for a while cannot end anything;
 *   2. nothing, when it repeats the one that opened a session which has been used since: the client
 *      has the WELCOME;
 *   3. the same WELCOME, when that session has not been used: the WELCOME was lost;
 *   4. nothing, while an older session of the instance has requests in progress;
 *   5. nothing, when every session is taken;
 *   6. the WELCOME of a new session. */

static void send_cookie(struct net *net, const struct net_datagram *datagram,
                        const struct net_hello *hello) {
    struct net_outgoing outgoing;
    struct net_cookie cookie = {.nonce = hello->nonce, .server_time_ns = datagram->cell_time_ns};
    cookie_make(&net->cookie_key, datagram->now_ns, datagram->peer, hello->client_instance,
                cookie.cookie);
    net->counters.hellos++;
    if (!net_send_begin(net, datagram->peer, sizeof(struct net_header) + sizeof(cookie), &outgoing))
        return;
    memcpy(outgoing.bytes + sizeof(struct net_header), &cookie, sizeof(cookie));
    net_send(net, &outgoing, NET_COOKIE, NULL);
}

static void send_welcome(struct net *net, const struct net_datagram *datagram,
                         struct session *session) {
    const struct net_config *config = &net->config;
    struct net_outgoing outgoing;
    struct net_welcome welcome = {
        .nonce = session->nonce,
        .term = config->term,
        .hash_seed = config->identity.hash_seed,
        .cell_time_ns = datagram->cell_time_ns,
        .credit = session->credit,
        .partitions = config->identity.partitions,
        .payload_max = session->payload_max,
        .window = (uint16_t)config->window,
        .id_time = config->identity.id_time != 0,
        .lcores = (uint8_t)config->lcores,
        .id_window_ms = config->id_window_ms,
    };
    memcpy(welcome.cell_id, config->identity.cell_id, sizeof(welcome.cell_id));
    memcpy(welcome.ports, config->ports, config->lcores * sizeof(welcome.ports[0]));
    net->counters.hellos++;
    size_t length = sizeof(struct net_header) + sizeof(welcome) + welcome.partitions;
    if (!net_send_begin(net, datagram->peer, length, &outgoing))
        return;
    uint8_t *body = outgoing.bytes + sizeof(struct net_header);
    memcpy(body, &welcome, sizeof(welcome));
    memcpy(body + sizeof(welcome), net->placement, welcome.partitions);
    net_send(net, &outgoing, NET_WELCOME, session);
}

static bool same_peer(const struct packet_peer *a, const struct packet_peer *b) {
    return a->family == b->family && a->port == b->port && memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

/** Smaller of what we and the client can take. */
static uint16_t payload_max(const struct net *net, const struct net_datagram *datagram,
                            const struct net_hello *hello) {
    bool ipv4 = datagram->peer->family == 4;
    uint16_t ours = (uint16_t)(net->config.payload_max - (ipv4 ? 0 : 20));
    uint16_t theirs = hello->payload_max;
    if (theirs == 0)
        theirs = ipv4 ? NET_PAYLOAD_IPV4_DEFAULT : NET_PAYLOAD_IPV6_DEFAULT;
    return theirs < ours ? theirs : ours;
}

void net_hello(struct net *net, struct net_datagram *datagram) {
    struct net_counters *counters = &net->counters;
    struct net_hello hello;
    if (datagram->length != NET_HELLO_BYTES) {
        counters->drop_malformed++;
        return;
    }
    if (!tag_verify(datagram->bytes, datagram->length)) {
        counters->drop_tag++;
        return;
    }
    memcpy(&hello, net_body(datagram), sizeof(hello));
    if (hello.payload_max != 0 && hello.payload_max < NET_HELLO_BYTES) {
        counters->drop_malformed++;
        return;
    }
    uint64_t issued_ns;
    bool good = cookie_check(&net->cookie_key, datagram->now_ns, datagram->peer,
                             hello.client_instance, hello.cookie, &issued_ns);
    struct session *old = good && !PLANTED(old_session_lives)
                              ? session_find_instance(&net->table, hello.client_instance)
                              : NULL;
    bool repeated = old != NULL && !old->closing && old->nonce == hello.nonce &&
                    same_peer(&old->peer, datagram->peer);
    if (!good || (old != NULL && !old->closing && !repeated && issued_ns <= old->opened_ns)) {
        send_cookie(net, datagram, &hello);
        return;
    }
    if (repeated && !old->used) {
        send_welcome(net, datagram, old);
        return;
    }
    if (repeated || (old != NULL && !session_end(&net->table, old))) {
        counters->hellos_waiting++;
        return;
    }
    if (old != NULL)
        counters->sessions_ended++;
    struct session *session =
        session_open(&net->table, net->config.random, hello.client_instance, datagram->now_ns);
    if (session == NULL) {
        counters->sessions_full++;
        return;
    }
    counters->sessions++;
    session->peer = *datagram->peer;
    session->nonce = hello.nonce;
    session->payload_max = payload_max(net, datagram, &hello);
    send_welcome(net, datagram, session);
}

void net_goodbye(struct net *net, struct session *session) {
    net->counters.goodbyes++;
    if (session_end(&net->table, session))
        net->counters.sessions_ended++;
}

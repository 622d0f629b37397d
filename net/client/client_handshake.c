/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "net/client/client_internal.h"

/** HELLO, COOKIE, WELCOME (net/PROTOCOL.md section 3), and what arrives in general. */

static void handshake_hello(struct tally_client *client, uint64_t nonce, const uint8_t cookie[16]) {
    uint8_t datagram[NET_HELLO_BYTES];
    uint32_t length =
        client_wire_hello_encode(&client->session, nonce, cookie, client->payload_max, datagram);
    struct tally_transport_datagram out = {
        .bytes = datagram, .length = length, .port = client->transport->server_port};
    client->stats.datagrams_sent += client->transport->send(client->transport, &out, 1);
    client->stats.hellos++;
}

void client_session_handshake_timer(struct tally_client *client) {
    struct session *session = &client->session;
    if (client->now_ns < session->hello_due_ns)
        return;
    handshake_hello(client, session->nonce, session->cookie);
    if (session->hello_tries++ == 0)
        session->hello_sent_ns = client->now_ns;
    session->hello_due_ns = client->now_ns + client_session_jittered(client, session->hello_rto_ns);
    session->hello_rto_ns = session->hello_rto_ns * 2 < CLIENT_HELLO_RTO_MAX_NS
                                ? session->hello_rto_ns * 2
                                : CLIENT_HELLO_RTO_MAX_NS;
}

void client_session_start(struct tally_client *client) {
    struct session *session = &client->session;
    session->state = SESSION_HELLO;
    session->id = 0;
    client->random->fill(client->random, &session->nonce, sizeof(session->nonce));
    memset(session->cookie, 0, sizeof(session->cookie));
    session->hello_tries = 0;
    session->hello_rto_ns = CLIENT_HELLO_RTO_NS;
    session->hello_due_ns = client->now_ns;
}

void client_session_renew(struct tally_client *client, const char *why) {
    struct session *session = &client->session;
    struct parcel *parcel;
    snprintf(client->problem, sizeof(client->problem), "%s; asking for a new session", why);
    memset(session->by_number, 0, session->by_number_size * sizeof(session->by_number[0]));
    session->outstanding = 0;
    while ((parcel = TAILQ_FIRST(&client->sent))) {
        parcel->uncertain |= parcel->transmissions > 0;
        client_parcel_move(client, parcel, parcel->live ? PARCEL_READY : PARCEL_FREE);
    }
    client_session_start(client);
}

static void handshake_cookie(struct tally_client *client, const uint8_t *datagram,
                             uint32_t length) {
    struct session *session = &client->session;
    struct net_cookie cookie;
    if (length < sizeof(struct net_header) + sizeof(cookie)) {
        client->stats.datagrams_bad++;
        return;
    }
    memcpy(&cookie, datagram + sizeof(struct net_header), sizeof(cookie));
    if (client->ping_sent_ns && cookie.nonce == client->ping_nonce) {
        client->ping_rtt_ns = client->now_ns - client->ping_sent_ns;
        client->ping_sent_ns = 0;
        return;
    }
    if (session->state == SESSION_OPEN || cookie.nonce != session->nonce ||
        memcmp(session->cookie, cookie.cookie, sizeof(cookie.cookie)) == 0)
        return;
    memcpy(session->cookie, cookie.cookie, sizeof(cookie.cookie));
    if (session->state == SESSION_HELLO) {
        if (session->hello_tries == 1)
            client_session_note_rtt(session, client->now_ns - session->hello_sent_ns);
        session->state = SESSION_COOKIE;
        session->hello_rto_ns = CLIENT_HELLO_RTO_NS;
        session->hello_due_ns = client->now_ns;
        client_session_handshake_timer(client);
    }
    /* a second cookie replaces one that has expired, and goes with the next HELLO */
}

static bool welcome_is_sane(const struct tally_client *client, const struct net_welcome *welcome,
                            const uint8_t *placement, uint32_t placement_bytes) {
    if (welcome->partitions < 1 || welcome->partitions > PARTITIONS_MAX ||
        welcome->partitions > placement_bytes || welcome->lcores < 1 ||
        welcome->lcores > LCORES_MAX || welcome->payload_max < NET_HELLO_BYTES ||
        welcome->payload_max > client->payload_max || welcome->window < 1)
        return false;
    for (uint32_t partition = 0; partition < welcome->partitions; partition++)
        if (placement[partition] >= welcome->lcores)
            return false;
    return true;
}

static bool welcome_is_our_cell(struct tally_client *client, const struct net_welcome *welcome) {
    struct session *session = &client->session;
    if (session->cell_known &&
        memcmp(session->cell_id, welcome->cell_id, sizeof(session->cell_id)) != 0) {
        snprintf(client->problem, sizeof(client->problem),
                 "the server now holds another ledger (cell) than the one this client began with; "
                 "nothing is sent to it");
        return false;
    }
    return true;
}

static void session_adopt(struct tally_client *client, const struct net_welcome *welcome,
                          const uint8_t *placement) {
    struct session *session = &client->session;
    memcpy(session->cell_id, welcome->cell_id, sizeof(session->cell_id));
    session->cell_known = true;
    session->term = welcome->term;
    session->hash_seed = welcome->hash_seed;
    session->cell_time_ns = welcome->cell_time_ns;
    session->id_window_ms = welcome->id_window_ms;
    session->partitions = welcome->partitions;
    session->lcores = welcome->lcores;
    session->payload_max = welcome->payload_max;
    client_parcel_note_payload(client);
    session->id_time = welcome->id_time;
    memcpy(session->ports, welcome->ports, sizeof(session->ports));
    memcpy(session->placement, placement, welcome->partitions);
    session->next_number = 1;
    session->acknowledged = session->acknowledged_sent = 0;
    session->credit = welcome->credit;
    uint32_t window = client->options.window ? client->options.window : welcome->window;
    window = window < welcome->window ? window : welcome->window;
    session->window = window < session->by_number_size ? window : session->by_number_size;
    session->window_now = session->window;
    session->window_gain = session->overloads = session->probes = 0;
    session->outstanding = 0;
    session->ack_due_ns = session->retransmit_hint_ns = CLIENT_NEVER;
    session->probe_due_ns = 0;
    session->last_answer_ns = session->opened_ns = client->now_ns;
}

static void handshake_welcome(struct tally_client *client, const uint8_t *datagram,
                              uint32_t length) {
    struct session *session = &client->session;
    struct net_header header;
    struct net_welcome welcome;
    const uint32_t head = sizeof(header) + sizeof(welcome);
    if (session->state == SESSION_OPEN)
        return;
    memcpy(&header, datagram, sizeof(header));
    if (length >= head)
        memcpy(&welcome, datagram + sizeof(header), sizeof(welcome));
    if (length < head || header.session == 0 ||
        !welcome_is_sane(client, &welcome, datagram + head, length - head)) {
        client->stats.datagrams_bad++;
        return;
    }
    if (welcome.nonce != session->nonce || !welcome_is_our_cell(client, &welcome))
        return;
    session_adopt(client, &welcome, datagram + head);
    session->id = header.session;
    session->counter = 0;
    memset(&session->replay, 0, sizeof(session->replay));
    client_wire_counter_accept(&session->replay, header.counter);
    session->state = SESSION_OPEN;
    client->problem[0] = 0;
    client->stats.sessions++;
    client_session_send_ack(client);
}

static void receive_reply(struct tally_client *client, const uint8_t *datagram, uint32_t length) {
    struct session *session = &client->session;
    struct wire_reply reply;
    if (client_wire_reply_decode(datagram, length, &reply) < 0) {
        client->stats.datagrams_bad++;
        return;
    }
    uint64_t number = reply.header.request;
    uint64_t credit = number + (uint64_t)(int64_t)reply.header.credit_ahead;
    if ((int64_t)(credit - session->credit) > 0)
        session->credit = credit;
    struct parcel *parcel = session->by_number[number & (session->by_number_size - 1)];
    if (parcel && parcel->number == number)
        client_reply_take(client, parcel, &reply);
    else
        client->stats.duplicates++;
}

static void receive_ack(struct tally_client *client, const uint8_t *datagram, uint32_t length) {
    struct net_ack ack;
    if (length < sizeof(struct net_header) + sizeof(ack)) {
        client->stats.datagrams_bad++;
        return;
    }
    memcpy(&ack, datagram + sizeof(struct net_header), sizeof(ack));
    if (ack.credit > client->session.credit)
        client->session.credit = ack.credit;
}

static void receive_datagram(struct tally_client *client, uint8_t *datagram, uint32_t length) {
    struct session *session = &client->session;
    struct net_header header;
    if (!client_wire_verify(datagram, length)) {
        client->stats.datagrams_bad++;
        return;
    }
    memcpy(&header, datagram, sizeof(header));
    if (header.type == NET_COOKIE) {
        handshake_cookie(client, datagram, length);
        return;
    }
    if (header.type == NET_WELCOME) {
        handshake_welcome(client, datagram, length);
        return;
    }
    if (session->state != SESSION_OPEN || header.session != session->id ||
        (header.type != NET_REPLY && header.type != NET_ACK)) {
        client->stats.datagrams_bad++;
        return;
    }
    if (!client_wire_counter_accept(&session->replay, header.counter)) {
        client->stats.duplicates++;
        return;
    }
    session->last_answer_ns = client->now_ns;
    session->probes = 0;
    if (header.type == NET_REPLY)
        receive_reply(client, datagram, length);
    else
        receive_ack(client, datagram, length);
}

/** At most a few bursts, so that sending has its turn; but all that waits on a transport that is
 *  polled, for some give little at a time, and timers should not run before answers that are
 *  here already. */
void client_session_receive(struct tally_client *client) {
    bool polled = client->transport->fd(client->transport) < 0;
    for (unsigned round = 0; round < 32; round++) {
        for (unsigned i = 0; i < CLIENT_BURST; i++)
            client->rx[i].length = client->payload_max;
        unsigned count = client->transport->receive(client->transport, client->rx, CLIENT_BURST);
        client->stats.datagrams_received += count;
        for (unsigned i = 0; i < count; i++)
            receive_datagram(client, client->rx[i].bytes, client->rx[i].length);
        if (count == 0 || (count < CLIENT_BURST && !polled))
            return;
    }
}

void client_session_ping(struct tally_client *client) {
    static const uint8_t no_cookie[16];
    client->random->fill(client->random, &client->ping_nonce, sizeof(client->ping_nonce));
    client->ping_sent_ns = client->now_ns;
    client->ping_rtt_ns = 0;
    handshake_hello(client, client->ping_nonce, no_cookie);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "net/client/client_internal.h"

/** A session as net/PROTOCOL.md sections 4, 7 and 8 want it: numbers, window, acknowledgements,
 *  retransmission. The handshake is in client_handshake.c. */

/** `ns` and up to a quarter more. */
uint64_t client_session_jittered(struct tally_client *client, uint64_t ns) {
    return ns + (ns / 4 * (client_jitter(client) >> 16) >> 16);
}

static uint64_t smaller(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

uint32_t client_session_room(const struct tally_client *client) {
    const struct session *session = &client->session;
    if (session->state != SESSION_OPEN || session->outstanding >= session->window_now)
        return 0;
    uint64_t highest = smaller(session->credit, session->acknowledged + session->by_number_size);
    if (session->next_number > highest)
        return 0;
    return (uint32_t)smaller(highest - session->next_number + 1,
                             session->window_now - session->outstanding);
}

static bool session_wants_to_send(const struct tally_client *client) {
    return client->queue_head || client->open_count || client->ready_count;
}

static bool session_out_of_credit(const struct tally_client *client) {
    const struct session *session = &client->session;
    return session->next_number > session->credit && session_wants_to_send(client);
}

/* --- sending ---------------------------------------------------------------------------------- */

static void session_seal_request(struct tally_client *client, struct parcel *parcel) {
    struct session *session = &client->session;
    client_wire_request_seal(parcel, session->id, ++session->counter, session->acknowledged);
    session->acknowledged_sent = session->acknowledged;
    session->ack_due_ns = CLIENT_NEVER;
    session->alive_due_ns = client->now_ns + CLIENT_ALIVE_NS;
}

/** Events of the parcel are on the wire from now on, so their outcome is unknown until it is
 *  answered. */
static void session_note_sent(struct tally_client *client, struct parcel *parcel) {
    if (!parcel->settling)
        for (unsigned i = 0; i < parcel->item_count; i++) {
            const struct parcel_item *item = &parcel->items[i];
            item->request->results[item->index].status = TALLY_STATUS_unknown;
        }
    client->stats.events_sent += parcel->item_count;
    client->stats.requests_sent++;
}

static void session_number_parcel(struct tally_client *client, struct parcel *parcel) {
    struct session *session = &client->session;
    parcel->number = session->next_number++;
    parcel->transmissions = parcel->silent_timeouts = 0;
    parcel->replies_seen = 0;
    assert(!session->by_number[parcel->number & (session->by_number_size - 1)]);
    session->by_number[parcel->number & (session->by_number_size - 1)] = parcel;
    session->outstanding++;
    client_wire_request_encode(parcel);
    const struct parcel_item *first = &parcel->items[0];
    uint8_t operation = (uint8_t)first->request->operation;
    parcel->port = session->ports[client_parcel_event_lcore(client, operation,
                                                            first->request->events, first->index)];
    session_note_sent(client, parcel);
    session_seal_request(client, parcel);
    client_parcel_move(client, parcel, PARCEL_SENT);
}

static void session_transmitted(struct tally_client *client, struct parcel *parcel) {
    struct session *session = &client->session;
    uint64_t doubled = parcel->transmissions ? 2 * parcel->wait_ns : 0;
    uint64_t wait = doubled > session->rto_ns ? doubled : session->rto_ns;
    parcel->wait_ns = smaller(wait, CLIENT_RTO_MAX_NS);
    if (parcel->transmissions++ == 0)
        parcel->first_sent_ns = client->now_ns;
    parcel->sent_ns = client->now_ns;
    parcel->due_ns = client->now_ns + client_session_jittered(client, parcel->wait_ns);
    session->retransmit_hint_ns = smaller(session->retransmit_hint_ns, parcel->due_ns);
}

/** Hand tx[0 .. count-1] to the transport. What it does not take is tried again within a
 *  millisecond. */
static void session_transmit(struct tally_client *client, unsigned count) {
    struct session *session = &client->session;
    unsigned taken = client->transport->send(client->transport, client->tx, count);
    for (unsigned i = 0; i < count; i++) {
        struct parcel *parcel = client->tx_parcels[i];
        if (i < taken) {
            session_transmitted(client, parcel);
        } else {
            parcel->due_ns = client->now_ns + NS_PER_MS;
            session->retransmit_hint_ns = smaller(session->retransmit_hint_ns, parcel->due_ns);
        }
    }
    client->stats.datagrams_sent += taken;
}

/** A parcel that an earlier session with larger datagrams filled stays as it is: unknown, or not
 *  sent. */
static bool session_parcel_fits(struct tally_client *client, struct parcel *parcel) {
    if (parcel->live <= client_parcel_capacity(client, &parcel->class))
        return true;
    for (unsigned i = 0; i < parcel->item_count; i++)
        if (parcel->items[i].request)
            client_item_done(client, &parcel->items[i]);
    client_parcel_move(client, parcel, PARCEL_FREE);
    return false;
}

void client_session_send_ready(struct tally_client *client) {
    struct session *session = &client->session;
    uint32_t room = client_session_room(client);
    if (room && client->ready_count && session->outstanding == 0 &&
        client->now_ns >
            session->alive_due_ns - CLIENT_ALIVE_NS + NET_SESSION_IDLE_NS - NS_PER_SECOND) {
        client_session_renew(client, "the session was idle for too long");
        return;
    }
    while (room && !TAILQ_EMPTY(&client->ready)) {
        unsigned count = 0;
        while (room && count < CLIENT_BURST && !TAILQ_EMPTY(&client->ready)) {
            struct parcel *parcel = TAILQ_FIRST(&client->ready);
            if (!session_parcel_fits(client, parcel))
                continue;
            session_number_parcel(client, parcel);
            client->tx[count] = (struct tally_transport_datagram){
                .bytes = parcel->datagram, .length = parcel->datagram_bytes, .port = parcel->port};
            client->tx_parcels[count++] = parcel;
            room--;
        }
        session_transmit(client, count);
    }
}

/** @return whether the transport took it */
static bool session_send_control(struct tally_client *client, uint8_t type, const void *body,
                                 uint32_t body_bytes) {
    struct session *session = &client->session;
    uint8_t datagram[sizeof(struct net_header) + sizeof(struct net_ack)];
    uint32_t length = (uint32_t)sizeof(struct net_header) + body_bytes;
    memcpy(datagram + sizeof(struct net_header), body, body_bytes);
    client_wire_seal(datagram, length, type, session->id, ++session->counter);
    struct tally_transport_datagram out = {
        .bytes = datagram, .length = length, .port = client->transport->server_port};
    bool taken = client->transport->send(client->transport, &out, 1) == 1;
    client->stats.datagrams_sent += taken;
    return taken;
}

void client_session_send_ack(struct tally_client *client) {
    struct session *session = &client->session;
    struct net_ack ack = {.acknowledged = session->acknowledged};
    if (!session_send_control(client, NET_ACK, &ack, sizeof(ack))) {
        session->ack_due_ns = session->alive_due_ns = client->now_ns + NS_PER_MS;
        return;
    }
    session->acknowledged_sent = session->acknowledged;
    session->ack_due_ns = CLIENT_NEVER;
    session->alive_due_ns = client->now_ns + CLIENT_ALIVE_NS;
}

void client_session_goodbye(struct tally_client *client) {
    if (client->session.state == SESSION_OPEN)
        session_send_control(client, NET_GOODBYE, "", 0);
}

/** Out of credit with everything received: the answer to an ACK tells the new credit. */
static void session_probe_credit(struct tally_client *client) {
    struct session *session = &client->session;
    if (client->now_ns < session->probe_due_ns)
        return;
    if (session->probes >= CLIENT_SILENT_TIMEOUTS_MAX &&
        client->now_ns - session->last_answer_ns >= CLIENT_SILENCE_NS) {
        client_session_renew(client, "no answer from the server");
        return;
    }
    unsigned shift =
        session->probes < CLIENT_PROBE_SHIFT_MAX ? session->probes : CLIENT_PROBE_SHIFT_MAX;
    client_session_send_ack(client);
    session->probes++;
    session->probe_due_ns =
        client->now_ns +
        client_session_jittered(client, smaller(CLIENT_PROBE_NS << shift, CLIENT_RTO_MAX_NS));
}

void client_session_ack_if_due(struct tally_client *client) {
    struct session *session = &client->session;
    if (session->state != SESSION_OPEN)
        return;
    bool starved = session_out_of_credit(client);
    uint64_t owed = session->acknowledged - session->acknowledged_sent;
    if (owed && (starved || client->now_ns >= session->ack_due_ns || owed >= session->window / 2))
        client_session_send_ack(client);
    if (starved && session->outstanding == 0)
        session_probe_credit(client);
    if (client->now_ns >= session->alive_due_ns)
        client_session_send_ack(client);
}

/* --- answers ---------------------------------------------------------------------------------- */

/** RFC 6298, section 2, with a clock granularity of nothing. */
void client_session_note_rtt(struct session *session, uint64_t sample_ns) {
    if (session->srtt_ns == 0) {
        session->srtt_ns = sample_ns;
        session->rttvar_ns = sample_ns / 2;
    } else {
        uint64_t error = session->srtt_ns > sample_ns ? session->srtt_ns - sample_ns
                                                      : sample_ns - session->srtt_ns;
        session->rttvar_ns = (3 * session->rttvar_ns + error) / 4;
        session->srtt_ns = (7 * session->srtt_ns + sample_ns) / 8;
    }
    uint64_t rto = session->srtt_ns + 4 * session->rttvar_ns;
    rto = rto < CLIENT_RTO_MIN_NS ? CLIENT_RTO_MIN_NS : rto;
    session->rto_ns = smaller(rto, CLIENT_RTO_MAX_NS);
}

void client_session_parcel_answered(struct tally_client *client, struct parcel *parcel) {
    struct session *session = &client->session;
    uint32_t mask = session->by_number_size - 1;
    session->by_number[parcel->number & mask] = NULL;
    session->outstanding--;
    while (session->acknowledged + 1 < session->next_number &&
           !session->by_number[(session->acknowledged + 1) & mask])
        session->acknowledged++;
    if (parcel->transmissions == 1) /* else it is not known which one was answered (Karn) */
        client_session_note_rtt(session, client->now_ns - parcel->first_sent_ns);
    if (session->ack_due_ns == CLIENT_NEVER && session->acknowledged > session->acknowledged_sent)
        session->ack_due_ns = client->now_ns + CLIENT_ACK_DELAY_NS;
}

/** The window grows by one for every window of answers, and is halved after three refusals in a
 *  row. */
void client_session_note_load(struct session *session, bool overloaded) {
    if (overloaded) {
        if (++session->overloads >= CLIENT_OVERLOADS_MAX) {
            session->overloads = 0;
            session->window_now = session->window_now > 1 ? session->window_now / 2 : 1;
        }
        return;
    }
    session->overloads = 0;
    if (session->window_now < session->window && ++session->window_gain >= session->window_now) {
        session->window_gain = 0;
        session->window_now++;
    }
}

void client_session_parcel_delay(struct tally_client *client, struct parcel *parcel,
                                 uint32_t retry_after_us) {
    unsigned shift = parcel->refusals < 10 ? parcel->refusals : 10;
    uint64_t wait = smaller(CLIENT_BACKOFF_MIN_NS << shift, CLIENT_BACKOFF_MAX_NS);
    uint64_t asked = (uint64_t)retry_after_us * 1000;
    parcel->refusals++;
    if (parcel->live == 0) {
        client_parcel_move(client, parcel, PARCEL_FREE);
        return;
    }
    parcel->due_ns = client->now_ns + client_session_jittered(client, wait > asked ? wait : asked);
    client->delayed_hint_ns = smaller(client->delayed_hint_ns, parcel->due_ns);
    client_parcel_move(client, parcel, PARCEL_DELAYED);
}

/* --- timers ----------------------------------------------------------------------------------- */

/** Whether nothing at all has come since this parcel was sent. */
static bool session_is_silent(const struct session *session, const struct parcel *parcel) {
    return session->last_answer_ns < parcel->sent_ns;
}

/** Count a timeout. @return whether the session counts as lost */
static bool session_timed_out(struct tally_client *client, struct parcel *parcel) {
    const struct session *session = &client->session;
    parcel->silent_timeouts = session_is_silent(session, parcel) ? parcel->silent_timeouts + 1 : 0;
    return parcel->silent_timeouts >= CLIENT_SILENT_TIMEOUTS_MAX &&
           client->now_ns - session->last_answer_ns >= CLIENT_SILENCE_NS;
}

/** Round trips have become longer than we think, or there is loss: what is sent from now on
 *  waits longer too, until a request that was sent once is answered. Else an RTO that is too
 *  small would make every request a retransmission, and none of them could ever be measured. */
static void session_back_off(struct tally_client *client) {
    struct session *session = &client->session;
    if (client->now_ns < session->backoff_ns)
        return;
    session->backoff_ns = client->now_ns + session->rto_ns;
    session->rto_ns = smaller(2 * session->rto_ns, CLIENT_RTO_MAX_NS);
}

/** Whether a parcel is to be sent again now. While nothing at all comes back, the server is more
 *  likely away for a moment than the network has lost a whole window: then only the oldest few are
 *  sent again, and the others wait for what becomes of those.
 *  @param position in the order of first transmissions */
static bool session_is_due(struct tally_client *client, struct parcel *parcel, unsigned position) {
    struct session *session = &client->session;
    if (parcel->due_ns > client->now_ns)
        return false;
    if (position < CLIENT_PROBES_MAX || !parcel->transmissions ||
        !session_is_silent(session, parcel))
        return true;
    parcel->due_ns = client->now_ns + client_session_jittered(client, session->rto_ns);
    return false;
}

/** Retransmit what is due. While nothing at all comes back, an ACK goes with it now and then: a
 *  server that is merely slow answers it, which shows that the session lives. */
static void session_retransmit(struct tally_client *client) {
    struct session *session = &client->session;
    struct parcel *parcel;
    unsigned count = 0, position = 0;
    bool silent = false;
    session->retransmit_hint_ns = CLIENT_NEVER;
    TAILQ_FOREACH(parcel, &client->sent, link) {
        silent |= position == 0 && parcel->transmissions && session_is_silent(session, parcel);
        if (count == CLIENT_BURST || !session_is_due(client, parcel, position++)) {
            session->retransmit_hint_ns = smaller(session->retransmit_hint_ns, parcel->due_ns);
            continue;
        }
        if (parcel->transmissions) {
            if (session_timed_out(client, parcel)) {
                client_session_renew(client, "no answer from the server");
                return;
            }
            client->stats.retransmissions++;
            session_back_off(client);
        }
        session_seal_request(client, parcel);
        client->tx[count] = (struct tally_transport_datagram){
            .bytes = parcel->datagram, .length = parcel->datagram_bytes, .port = parcel->port};
        client->tx_parcels[count++] = parcel;
    }
    if (count)
        session_transmit(client, count);
    if (!silent)
        return;
    if (client->now_ns >= session->probe_due_ns) {
        client_session_send_ack(client);
        session->probe_due_ns = client->now_ns + CLIENT_PROBE_NS;
    }
    session->retransmit_hint_ns = smaller(session->retransmit_hint_ns, session->probe_due_ns);
}

static void session_undelay(struct tally_client *client) {
    struct parcel *parcel = TAILQ_FIRST(&client->delayed), *next;
    client->delayed_hint_ns = CLIENT_NEVER;
    for (; parcel; parcel = next) {
        next = TAILQ_NEXT(parcel, link);
        if (parcel->due_ns <= client->now_ns)
            client_parcel_move(client, parcel, PARCEL_READY);
        else
            client->delayed_hint_ns = smaller(client->delayed_hint_ns, parcel->due_ns);
    }
}

void client_session_timers(struct tally_client *client) {
    if (client->now_ns >= client->delayed_hint_ns)
        session_undelay(client);
    if (client->session.state != SESSION_OPEN)
        client_session_handshake_timer(client);
    else if (client->now_ns >= client->session.retransmit_hint_ns)
        session_retransmit(client);
}

uint64_t client_session_next_ns(const struct tally_client *client) {
    const struct session *session = &client->session;
    uint64_t next = client->delayed_hint_ns;
    if (session->state != SESSION_OPEN)
        return smaller(next, session->hello_due_ns);
    next = smaller(next, session->retransmit_hint_ns);
    next = smaller(next, session->ack_due_ns);
    next = smaller(next, session->alive_due_ns);
    if (session->outstanding == 0 && session_out_of_credit(client))
        next = smaller(next, session->probe_due_ns);
    if (session_wants_to_send(client) && client_session_room(client))
        next = client->now_ns;
    return next;
}

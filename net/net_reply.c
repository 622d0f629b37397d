/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "engine/base/planted.h"
#include "net/net_state.h"

/** A reply being encoded into stored datagrams. */
struct encoder {
    struct reply_store *store;
    uint32_t first, last; /**< the chain so far */
    unsigned count;
    size_t room; /**< bytes that one stored datagram may hold */
    struct net_reply_header header;
    uint8_t options[NET_REPLY_OPTIONS_BYTES];
};

static void encoder_begin(struct encoder *encoder, struct net *net, const struct session *session,
                          uint64_t number, uint8_t operation) {
    *encoder = (struct encoder){
        .store = &net->table.replies,
        .first = NET_NONE,
        .last = NET_NONE,
        .room = session->payload_max - sizeof(struct net_header),
        .header = {.request = number,
                   .operation = operation,
                   .options_bytes = NET_REPLY_OPTIONS_BYTES},
    };
}

static void encoder_options(struct encoder *encoder, term_t term, seq_t seq,
                            uint64_t retry_after_ns) {
    const uint64_t token[3] = {term, seq, 0};
    uint8_t *at = encoder->options;
    at[0] = NET_OPTION_TOKEN;
    at[1] = sizeof(token);
    memcpy(at + 2, token, sizeof(token));
    at += 2 + sizeof(token);
    if (retry_after_ns != 0) {
        uint32_t us = (uint32_t)(retry_after_ns / 1000);
        at[0] = NET_OPTION_RETRY_AFTER;
        at[1] = sizeof(us);
        memcpy(at + 2, &us, sizeof(us));
    }
}

/** Start the next datagram of the reply. */
static void encoder_datagram(struct encoder *encoder, uint16_t entry_first) {
    uint32_t index = reply_store_take(encoder->store);
    if (encoder->last == NET_NONE)
        encoder->first = index;
    else
        encoder->store->next[encoder->last] = index;
    encoder->last = index;
    encoder->header.datagram_index = (uint8_t)encoder->count++;
    encoder->header.entry_first = entry_first;
    uint8_t *bytes = reply_store_bytes(encoder->store, index);
    memcpy(bytes, &encoder->header, sizeof(encoder->header));
    memcpy(bytes + sizeof(encoder->header), encoder->options, sizeof(encoder->options));
    encoder->store->lengths[index] = sizeof(encoder->header) + sizeof(encoder->options);
}

/** @return room for an entry that is never split */
static uint8_t *encoder_entry(struct encoder *encoder, uint32_t event, size_t bytes) {
    if (encoder->last == NET_NONE || encoder->store->lengths[encoder->last] + bytes > encoder->room)
        encoder_datagram(encoder, (uint16_t)event);
    uint8_t *datagram = reply_store_bytes(encoder->store, encoder->last);
    uint8_t *entry = datagram + encoder->store->lengths[encoder->last];
    encoder->store->lengths[encoder->last] += (uint16_t)bytes;
    assert(encoder->store->lengths[encoder->last] <= encoder->room);
    struct net_reply_header *header = (struct net_reply_header *)datagram;
    header->entry_count++;
    return entry;
}

/** Every datagram says how many there are. */
static void encoder_finish(struct encoder *encoder, struct slot *slot) {
    for (uint32_t i = encoder->first; i != NET_NONE; i = encoder->store->next[i]) {
        struct net_reply_header *header =
            (struct net_reply_header *)reply_store_bytes(encoder->store, i);
        header->datagram_count = (uint8_t)encoder->count;
    }
    slot->state = SLOT_REPLIED;
    slot->operation = encoder->header.operation;
    slot->reply = encoder->first;
}

static void encode_entries(struct encoder *encoder, const struct engine_request *request) {
    bool lookup = request->operation == OPERATION_LOOKUP_ACCOUNTS ||
                  request->operation == OPERATION_LOOKUP_TRANSFERS;
    bool balances = !lookup && (request->options & REQUEST_BALANCES);
    for (uint32_t i = 0; i < request->event_count; i++) {
        bool shifted = PLANTED(reply_shifted) && i + 1 == request->event_count;
        const struct result *result = &request->results[shifted ? 0 : i];
        const void *behind = NULL;
        size_t behind_bytes = 0;
        if (balances) {
            behind = &request->balances[i];
            behind_bytes = sizeof(struct balances);
        } else if (lookup && result->status == LOOKUP_STATUS_found) {
            behind = (const uint8_t *)request->records + i * sizeof(struct account);
            behind_bytes = sizeof(struct account);
        }
        uint8_t *entry = encoder_entry(encoder, i, sizeof(*result) + behind_bytes);
        memcpy(entry, result, sizeof(*result));
        if (behind_bytes > 0)
            memcpy(entry + sizeof(*result), behind, behind_bytes);
    }
}

void net_reply_resend(struct net *net, const struct packet_peer *peer, struct session *session,
                      uint64_t number) {
    const struct reply_store *store = &net->table.replies;
    struct slot *slot = session_slot(&net->table, session, number);
    assert(slot->state == SLOT_REPLIED);
    for (uint32_t i = slot->reply; i != NET_NONE; i = store->next[i]) {
        struct net_outgoing outgoing;
        size_t length = sizeof(struct net_header) + store->lengths[i];
        if (!net_send_begin(net, peer, length, &outgoing))
            return;
        struct net_reply_header *header = (struct net_reply_header *)reply_store_bytes(store, i);
        assert(header->request == number);
        header->credit_ahead = (int32_t)(session->credit - number);
        memcpy(outgoing.bytes + sizeof(struct net_header), header, store->lengths[i]);
        net_send(net, &outgoing, NET_REPLY, session);
    }
}

void net_reply_refuse(struct net *net, const struct net_datagram *datagram, struct session *session,
                      const struct net_request_header *request, enum request_code code,
                      uint64_t retry_after_ns) {
    struct slot *slot = session_slot(&net->table, session, request->request);
    int status = session_reserve(&net->table, session, slot, 1);
    assert(status == 0);
    struct encoder encoder;
    encoder_begin(&encoder, net, session, request->request, request->operation);
    encoder.header.code = (uint8_t)code;
    encoder_options(&encoder, net->config.term, net->seq, retry_after_ns);
    encoder_datagram(&encoder, 0);
    encoder_finish(&encoder, slot);
    net->counters.replies++;
    net_reply_resend(net, datagram->peer, session, request->request);
}

void net_reply(struct net *net, struct engine_request *request, uint64_t now_ns) {
    struct net_context *context = request->owner;
    struct session *session = context->session;
    struct slot *slot = session_slot(&net->table, session, context->number);
    assert(slot->state == SLOT_IN_PROGRESS && session->in_progress > 0);
    if (request->wait_group > net->seq)
        net->seq = request->wait_group;

    struct encoder encoder;
    encoder_begin(&encoder, net, session, context->number, request->operation);
    encoder_options(&encoder, net->config.term, request->wait_group, 0);
    /* What failed as a whole has no entries: nothing in its results means anything. */
    encoder.header.code = (uint8_t)request->code;
    if (request->code == REQUEST_CODE_ok)
        encode_entries(&encoder, request);
    else
        encoder_datagram(&encoder, 0);
    assert(encoder.count >= 1);
    session_reserve_trim(&net->table, session, slot, encoder.count);
    encoder_finish(&encoder, slot);
    net->counters.replies++;
    session->in_progress--;
    session->heard_ns = session->heard_ns < now_ns ? now_ns : session->heard_ns;
    context->next_free = net->free_contexts;
    net->free_contexts = context;

    if (session->closing) { /* its client listens no more */
        if (session->in_progress == 0) {
            session_forget(&net->table, session);
            net->counters.sessions_ended++;
        }
        return;
    }
    struct packet_peer peer = session->peer;
    memcpy(peer.mac, context->mac, sizeof(peer.mac));
    net_reply_resend(net, &peer, session, context->number);
}

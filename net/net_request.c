/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "engine/base/planted.h"
#include "net/net_state.h"

/** What a request's options say. */
struct options {
    uint16_t engine; /**< enum request_option */
    term_t minimum_term;
    seq_t minimum_seq;
};

/** @return whether they can be read to the end */
static bool options_decode(const uint8_t *at, size_t left, struct options *options) {
    *options = (struct options){0};
    while (left > 0) {
        uint8_t type = at[0];
        if (type == NET_OPTION_PAD) {
            at++, left--;
            continue;
        }
        if (left < 2 || left - 2 < at[1])
            return false;
        size_t length = at[1], wanted = length;
        const uint8_t *value = at + 2;
        switch (type) {
        case NET_OPTION_MINIMUM_TOKEN:
            wanted = 16;
            if (length == wanted) {
                memcpy(&options->minimum_term, value, 8);
                memcpy(&options->minimum_seq, value + 8, 8);
            }
            break;
        case NET_OPTION_MAXIMUM_AGE: /* a primary's state is never old, */
        case NET_OPTION_DEADLINE:    /* and it never waits to become newer */
            wanted = 8;
            break;
        case NET_OPTION_BALANCES:
            wanted = 0;
            options->engine |= REQUEST_BALANCES;
            break;
        case NET_OPTION_RECEIPT:
            wanted = 0;
            break;
        case NET_OPTION_STALE_OK:
            wanted = 0;
            options->engine |= REQUEST_STALE_OK;
            break;
        }
        if (length != wanted)
            return false;
        at = value + length;
        left -= 2 + length;
    }
    return true;
}

/** A request's body, understood. */
struct decoded {
    struct net_request_header header;
    struct options options;
    const uint8_t *events;
    size_t events_bytes;
    size_t datagrams; /**< that its reply can take */
};

/** @return the code to refuse it with, or ok */
static enum request_code body_decode(const struct session *session,
                                     const struct net_datagram *datagram, struct decoded *decoded) {
    const struct net_request_header *header = &decoded->header;
    size_t event_bytes, entry_bytes = sizeof(struct result);
    if (datagram->length > session->payload_max)
        return REQUEST_CODE_malformed;
    switch (header->operation) {
    case OPERATION_CREATE_ACCOUNTS:
    case OPERATION_CREATE_TRANSFERS:
        event_bytes = sizeof(struct transfer);
        break;
    case OPERATION_LOOKUP_ACCOUNTS:
    case OPERATION_LOOKUP_TRANSFERS:
        event_bytes = sizeof(uint128_t);
        entry_bytes += sizeof(struct account);
        break;
    default:
        return REQUEST_CODE_unsupported_operation;
    }
    if (header->event_format == EVENT_FORMAT_COMPACT &&
        header->operation == OPERATION_CREATE_TRANSFERS)
        event_bytes = sizeof(struct compact_transfer);
    else if (header->event_format != EVENT_FORMAT_FULL)
        return REQUEST_CODE_malformed;

    size_t left = net_body_bytes(datagram) - sizeof(*header);
    const uint8_t *behind = net_body(datagram) + sizeof(*header);
    if (header->options_bytes % 8 != 0 || header->options_bytes > left ||
        !options_decode(behind, header->options_bytes, &decoded->options))
        return REQUEST_CODE_malformed;
    decoded->events = behind + header->options_bytes;
    decoded->events_bytes = left - header->options_bytes;
    if (header->event_count == 0 || header->event_count * event_bytes != decoded->events_bytes)
        return REQUEST_CODE_malformed;
    if (decoded->options.engine & REQUEST_BALANCES && event_bytes != sizeof(uint128_t))
        entry_bytes += sizeof(struct balances);
    decoded->datagrams =
        net_reply_datagrams(session->payload_max, header->event_count, entry_bytes);
    if (decoded->datagrams > NET_REPLY_DATAGRAMS_MAX)
        return REQUEST_CODE_malformed;
    return REQUEST_CODE_ok;
}

/** Whether our state holds what the token names. Every group that this cell gave a token for in an
 *  earlier term is in the log that this term began with. */
static bool token_met(const struct net *net, const struct options *options) {
    return options->minimum_term < net->config.term ||
           (options->minimum_term == net->config.term && options->minimum_seq <= net->seq);
}

/** @return how long a refused client should wait: as long as requests wait here now, within
 *  reason */
static uint64_t retry_after_ns(const struct net *net) {
    uint64_t wait = net->delay_ns;
    if (wait < NS_PER_MS)
        wait = NS_PER_MS;
    return wait < NS_PER_SECOND ? wait : NS_PER_SECOND;
}

static struct engine_request *context_fill(struct net *net, struct session *session,
                                           const struct net_datagram *datagram,
                                           const struct decoded *decoded) {
    struct net_context *context = net->free_contexts;
    assert(context != NULL); /* as many as all credits together */
    net->free_contexts = context->next_free;
    context->session = session;
    context->number = decoded->header.request;
    memcpy(context->mac, datagram->peer->mac, sizeof(context->mac));
    memcpy(context->events, decoded->events, decoded->events_bytes);

    /* all of it anew: what the engine left there is its own */
    context->request = (struct engine_request){
        .operation = decoded->header.operation,
        .event_format = decoded->header.event_format,
        .options = decoded->options.engine,
        .event_count = decoded->header.event_count,
        .events = context->events,
        .owner = context,
        .results = context->results,
        .balances = context->answers,
        .records = context->answers,
    };
    return &context->request;
}

struct engine_request *net_request_decode(struct net *net, struct session *session,
                                          const struct net_datagram *datagram) {
    struct net_counters *counters = &net->counters;
    struct decoded decoded;
    const struct net_request_header *header = &decoded.header;
    if (net_body_bytes(datagram) < sizeof(*header)) {
        counters->drop_malformed++;
        return NULL;
    }
    memcpy(&decoded.header, net_body(datagram), sizeof(*header));
    if (!session_acknowledgement_valid(&net->table, session, header->acknowledged)) {
        counters->drop_malformed++;
        return NULL;
    }
    session_acknowledge(&net->table, session, header->acknowledged);
    if ((header->request <= session->edge && !PLANTED(window_edge_ignored)) ||
        header->request > session->credit) {
        counters->drop_window++;
        return NULL;
    }
    struct slot *slot = session_slot(&net->table, session, header->request);
    if (slot->state != SLOT_FREE && !(PLANTED(duplicate_executed) && slot->state == SLOT_REPLIED)) {
        counters->duplicates++;
        if (slot->state == SLOT_REPLIED)
            net_reply_resend(net, datagram->peer, session, header->request);
        return NULL;
    }

    enum request_code code = body_decode(session, datagram, &decoded);
    if (code != REQUEST_CODE_ok) {
        counters->malformed++;
        net_reply_refuse(net, datagram, session, header, code, 0);
        return NULL;
    }
    if (!token_met(net, &decoded.options)) {
        counters->behind++;
        net_reply_refuse(net, datagram, session, header, REQUEST_CODE_replica_behind, 0);
        return NULL;
    }
    if (net->delay_ns > net->config.queueing_delay_max_ns ||
        session_reserve(&net->table, session, slot, (unsigned)decoded.datagrams) != 0) {
        counters->overloaded++;
        net_reply_refuse(net, datagram, session, header, REQUEST_CODE_overloaded,
                         retry_after_ns(net));
        return NULL;
    }
    slot->state = SLOT_IN_PROGRESS;
    slot->operation = header->operation;
    slot->reply = NET_NONE;
    session->in_progress++;
    counters->requests++;
    counters->events += header->event_count;
    return context_fill(net, session, datagram, &decoded);
}

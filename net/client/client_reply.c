/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "engine/base/planted.h"
#include "net/client/client_internal.h"

/** Answers into results. A datagram is taken as a whole or not at all: its entries are measured
 *  before one is stored. */

static bool reply_is_lookup(const struct parcel *parcel) {
    return parcel->class.operation == OPERATION_LOOKUP_ACCOUNTS ||
           parcel->class.operation == OPERATION_LOOKUP_TRANSFERS;
}

static uint32_t entry_bytes(const struct parcel *parcel, const struct result *result) {
    uint32_t bytes = sizeof(struct result);
    if (reply_is_lookup(parcel))
        return bytes +
               (result->status == LOOKUP_STATUS_found ? (uint32_t)sizeof(struct account) : 0);
    return bytes +
           (parcel->class.options & TALLY_REQUEST_BALANCES ? (uint32_t)sizeof(struct balances) : 0);
}

static bool reply_is_whole(const struct parcel *parcel, const struct wire_reply *reply) {
    if ((uint32_t)reply->header.entry_first + reply->header.entry_count > parcel->item_count)
        return false;
    uint32_t at = 0;
    for (unsigned i = 0; i < reply->header.entry_count; i++) {
        struct result result;
        if (reply->entries_bytes - at < sizeof(result))
            return false;
        memcpy(&result, reply->entries + at, sizeof(result));
        if (reply->entries_bytes - at < entry_bytes(parcel, &result))
            return false;
        at += entry_bytes(parcel, &result);
    }
    return at == reply->entries_bytes;
}

static void entry_store(const struct parcel *parcel, const struct parcel_item *item,
                        const struct result *result, const uint8_t *rest,
                        const struct wire_reply *reply) {
    struct tally_request *request = item->request;
    if (reply->token_term > request->term ||
        (reply->token_term == request->term && reply->token_seq > request->seq)) {
        request->term = reply->token_term;
        request->seq = reply->token_seq;
    }
    if (parcel->settling) {
        client_settle_entry(item, parcel->class.operation, result, rest);
        return;
    }
    bool lookup = reply_is_lookup(parcel);
    request->results[item->index] = (struct tally_result){
        .timestamp = result->timestamp,
        .status = result->status,
        .flags = parcel->uncertain && !lookup ? TALLY_RESULT_RESENT : 0,
    };
    if (lookup && result->status == LOOKUP_STATUS_found)
        memcpy((uint8_t *)request->records + item->index * sizeof(struct account), rest,
               sizeof(struct account));
    if (parcel->class.options & TALLY_REQUEST_BALANCES && !lookup)
        memcpy(&request->balances[item->index], rest, sizeof(struct balances));
}

static void entries_store(const struct parcel *parcel, const struct wire_reply *reply) {
    const uint8_t *cursor = reply->entries;
    for (unsigned i = 0; i < reply->header.entry_count; i++) {
        unsigned first = PLANTED(client_misplaces_entries) ? 0 : reply->header.entry_first;
        const struct parcel_item *item = &parcel->items[first + i];
        struct result result;
        memcpy(&result, cursor, sizeof(result));
        if (item->request)
            entry_store(parcel, item, &result, cursor + sizeof(result), reply);
        cursor += entry_bytes(parcel, &result);
    }
}

static void parcel_done(struct tally_client *client, struct parcel *parcel) {
    for (unsigned i = 0; i < parcel->item_count; i++)
        if (parcel->items[i].request)
            client_item_done(client, &parcel->items[i]);
    client_parcel_move(client, parcel, PARCEL_FREE);
}

static void parcel_set_status(const struct parcel *parcel, uint32_t status, uint8_t code) {
    for (unsigned i = 0; i < parcel->item_count; i++) {
        const struct parcel_item *item = &parcel->items[i];
        if (!item->request)
            continue;
        if (code)
            request_state(item->request)->refused = code;
        if (!parcel->settling)
            item->request->results[item->index].status = status;
    }
}

/** The server refused the datagram as a whole. What an earlier session sent of it stays unknown. */
static void reply_refused(struct tally_client *client, struct parcel *parcel,
                          const struct wire_reply *reply) {
    uint8_t code = reply->header.code;
    client_session_parcel_answered(client, parcel);
    switch (code) {
    case REQUEST_CODE_overloaded:
        client->stats.overloaded++;
        client_session_note_load(&client->session, true);
        parcel_set_status(parcel,
                          parcel->uncertain ? TALLY_STATUS_unknown : TALLY_STATUS_overloaded, 0);
        client_session_parcel_delay(client, parcel, reply->retry_after_us);
        return;
    case REQUEST_CODE_unknown_outcome: /* the same ids again: what took effect answers `exists` */
        parcel->uncertain = true;
        client_session_parcel_delay(client, parcel, reply->retry_after_us);
        return;
    default:
        parcel_set_status(parcel, parcel->uncertain ? TALLY_STATUS_unknown : TALLY_STATUS_refused,
                          code);
        parcel_done(client, parcel);
    }
}

void client_reply_take(struct tally_client *client, struct parcel *parcel,
                       const struct wire_reply *reply) {
    const struct net_reply_header *header = &reply->header;
    if (header->operation != parcel->class.operation) {
        client->stats.datagrams_bad++;
        return;
    }
    if (header->code != REQUEST_CODE_ok) {
        reply_refused(client, parcel, reply);
        return;
    }
    if (!reply_is_whole(parcel, reply)) {
        client->stats.datagrams_bad++;
        return;
    }
    uint8_t bit = (uint8_t)(1u << header->datagram_index);
    if (parcel->replies_seen & bit) {
        client->stats.duplicates++;
        return;
    }
    entries_store(parcel, reply);
    parcel->replies_seen |= bit;
    if (parcel->replies_seen != (uint8_t)((1u << header->datagram_count) - 1))
        return;
    client_session_parcel_answered(client, parcel);
    client_session_note_load(&client->session, false);
    if (!client_settle_chains(client, parcel))
        parcel_done(client, parcel);
}

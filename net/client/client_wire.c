/* SPDX-License-Identifier: Apache-2.0 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <string.h>

#include "net/client/client_internal.h"

static void wire_tag(const uint8_t *datagram, uint32_t length, uint8_t tag[16]) {
    XXH128_hash_t hash = XXH3_128bits(datagram, length);
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    memcpy(tag, canonical.digest, 16);
}

void client_wire_seal(uint8_t *datagram, uint32_t length, uint8_t type, uint64_t session,
                      uint64_t counter) {
    struct net_header header = {
        .version = NET_VERSION, .type = type, .session = session, .counter = counter};
    memcpy(datagram, &header, sizeof(header));
    wire_tag(datagram, length, header.tag);
    memcpy(datagram + offsetof(struct net_header, tag), header.tag, sizeof(header.tag));
}

bool client_wire_verify(uint8_t *datagram, uint32_t length) {
    uint8_t received[16], computed[16];
    uint8_t *tag = datagram + offsetof(struct net_header, tag);
    if (length < sizeof(struct net_header) || datagram[0] != NET_VERSION ||
        datagram[offsetof(struct net_header, key_phase)] != 0)
        return false;
    memcpy(received, tag, sizeof(received));
    memset(tag, 0, sizeof(received));
    wire_tag(datagram, length, computed);
    memcpy(tag, received, sizeof(received));
    return memcmp(received, computed, sizeof(received)) == 0;
}

bool client_wire_counter_accept(struct replay_window *window, uint64_t counter) {
    const uint64_t size = NET_REPLAY_WINDOW;
    if (counter == 0 || counter + size <= window->highest)
        return false;
    uint64_t *word = &window->seen[counter % size / 64], bit = 1ULL << (counter % 64);
    if (counter <= window->highest) {
        if (*word & bit)
            return false;
        *word |= bit;
        return true;
    }
    uint64_t steps = counter - window->highest;
    if (steps >= size)
        memset(window->seen, 0, sizeof(window->seen));
    else
        for (uint64_t skipped = window->highest + 1; skipped <= counter; skipped++)
            window->seen[skipped % size / 64] &= ~(1ULL << (skipped % 64));
    *word |= bit;
    window->highest = counter;
    return true;
}

uint32_t client_wire_hello_encode(const struct session *session, uint64_t nonce,
                                  const uint8_t cookie[16], uint16_t payload_max,
                                  uint8_t *datagram) {
    struct net_hello hello = {.nonce = nonce, .payload_max = payload_max};
    memcpy(hello.client_instance, session->instance, sizeof(hello.client_instance));
    memcpy(hello.cookie, cookie, sizeof(hello.cookie));
    memset(datagram, 0, NET_HELLO_BYTES);
    memcpy(datagram + sizeof(struct net_header), &hello, sizeof(hello));
    client_wire_seal(datagram, NET_HELLO_BYTES, NET_HELLO, 0, 0);
    return NET_HELLO_BYTES;
}

static uint32_t wire_options_encode(uint8_t flags, uint8_t *options) {
    uint8_t *cursor = options;
    if (flags & TALLY_REQUEST_BALANCES) {
        *cursor++ = NET_OPTION_BALANCES;
        *cursor++ = 0;
    }
    if (flags & TALLY_REQUEST_STALE_OK) {
        *cursor++ = NET_OPTION_STALE_OK;
        *cursor++ = 0;
    }
    while ((cursor - options) % 8)
        *cursor++ = NET_OPTION_PAD;
    return (uint32_t)(cursor - options);
}

static void wire_compact(const struct tally_transfer *transfer, uint8_t *out) {
    struct compact_transfer compact = {
        .amount = (uint64_t)transfer->amount,
        .ledger = transfer->ledger,
        .code = transfer->code,
        .flags = transfer->flags,
    };
    memcpy(compact.id, &transfer->id, 16);
    memcpy(compact.debit_account_id, &transfer->debit_account_id, 16);
    memcpy(compact.credit_account_id, &transfer->credit_account_id, 16);
    memcpy(out, &compact, sizeof(compact));
}

static uint8_t *wire_event_encode(const struct parcel *parcel, const struct parcel_item *item,
                                  uint8_t *out) {
    const uint8_t *events = item->request->events;
    if (parcel->class.operation == OPERATION_LOOKUP_ACCOUNTS ||
        parcel->class.operation == OPERATION_LOOKUP_TRANSFERS) {
        /* a settling lookup asks for ids of events, which come first in them */
        size_t stride = parcel->settling ? sizeof(struct tally_transfer) : sizeof(tally_uint128_t);
        memcpy(out, events + item->index * stride, sizeof(tally_uint128_t));
        return out + sizeof(tally_uint128_t);
    }
    const uint8_t *event = events + item->index * sizeof(struct tally_transfer);
    if (parcel->class.event_format == EVENT_FORMAT_COMPACT) {
        wire_compact((const struct tally_transfer *)event, out);
        return out + sizeof(struct compact_transfer);
    }
    memcpy(out, event, sizeof(struct tally_transfer));
    return out + sizeof(struct tally_transfer);
}

void client_wire_request_encode(struct parcel *parcel) {
    unsigned kept = 0;
    for (unsigned i = 0; i < parcel->item_count; i++)
        if (parcel->items[i].request)
            parcel->items[kept++] = parcel->items[i];
    parcel->item_count = (uint16_t)kept;
    uint8_t *cursor =
        parcel->datagram + sizeof(struct net_header) + sizeof(struct net_request_header);
    uint32_t options_bytes = wire_options_encode(parcel->class.options, cursor);
    cursor += options_bytes;
    for (unsigned i = 0; i < kept; i++)
        cursor = wire_event_encode(parcel, &parcel->items[i], cursor);
    struct net_request_header header = {
        .request = parcel->number,
        .operation = parcel->class.operation,
        .event_format = parcel->class.event_format,
        .event_count = (uint16_t)kept,
        .options_bytes = (uint16_t)options_bytes,
    };
    memcpy(parcel->datagram + sizeof(struct net_header), &header, sizeof(header));
    parcel->datagram_bytes = (uint32_t)(cursor - parcel->datagram);
}

void client_wire_request_seal(struct parcel *parcel, uint64_t session, uint64_t counter,
                              uint64_t acknowledged) {
    memcpy(parcel->datagram + sizeof(struct net_header) +
               offsetof(struct net_request_header, acknowledged),
           &acknowledged, sizeof(acknowledged));
    client_wire_seal(parcel->datagram, parcel->datagram_bytes, NET_REQUEST, session, counter);
}

/** @return 0, or -EBADMSG when an option runs over the end */
static int wire_options_decode(const uint8_t *options, uint32_t length, struct wire_reply *reply) {
    uint32_t at = 0;
    while (at < length) {
        uint8_t type = options[at++];
        if (type == NET_OPTION_PAD)
            continue;
        if (at >= length || options[at] > length - at - 1)
            return -EBADMSG;
        uint8_t bytes = options[at++];
        if (type == NET_OPTION_TOKEN && bytes == 24) {
            memcpy(&reply->token_term, options + at, 8);
            memcpy(&reply->token_seq, options + at + 8, 8);
        } else if (type == NET_OPTION_RETRY_AFTER && bytes == 4) {
            memcpy(&reply->retry_after_us, options + at, 4);
        }
        at += bytes;
    }
    return 0;
}

int client_wire_reply_decode(const uint8_t *datagram, uint32_t length, struct wire_reply *reply) {
    const uint32_t head = sizeof(struct net_header) + sizeof(struct net_reply_header);
    memset(reply, 0, sizeof(*reply));
    if (length < head)
        return -EBADMSG;
    memcpy(&reply->header, datagram + sizeof(struct net_header), sizeof(reply->header));
    if (reply->header.options_bytes > length - head || reply->header.datagram_count == 0 ||
        reply->header.datagram_count > NET_REPLY_DATAGRAMS_MAX ||
        reply->header.datagram_index >= reply->header.datagram_count)
        return -EBADMSG;
    reply->entries = datagram + head + reply->header.options_bytes;
    reply->entries_bytes = length - head - reply->header.options_bytes;
    return wire_options_decode(datagram + head, reply->header.options_bytes, reply);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "engine/base/hash.h"
#include "net/client/client_internal.h"

/** Requests into parcels. The unit that is never divided is a linked chain, or, of a request
 *  whose events are in order, as many chains as fit one datagram: its next unit waits for the
 *  answer to this one. */
struct unit {
    uint32_t first, count;
    struct parcel_class class;
    bool chain_open; /**< its last event is linked: nothing may follow it in the datagram */
};

static uint8_t request_options(const struct tally_request *request) {
    return (uint8_t)(request->flags & (TALLY_REQUEST_BALANCES | TALLY_REQUEST_STALE_OK));
}

static bool operation_is_lookup(uint8_t operation) {
    return operation == OPERATION_LOOKUP_ACCOUNTS || operation == OPERATION_LOOKUP_TRANSFERS;
}

void client_parcel_note_payload(struct tally_client *client) {
    uint32_t heads = sizeof(struct net_header) + sizeof(struct net_request_header);
    uint32_t payload = client->session.payload_max;
    uint32_t reply_room = payload - heads - NET_REPLY_OPTIONS_BYTES;
    uint32_t answers = NET_REPLY_DATAGRAMS_MAX *
                       (reply_room / (uint32_t)(sizeof(struct result) + sizeof(struct account)));
    for (unsigned options = 0; options < 2; options++) {
        uint32_t room = payload - heads - (options ? 8 : 0);
        uint32_t ids = room / (uint32_t)sizeof(uint128_t);
        ids = ids < answers ? ids : answers;
        struct parcel_capacity *capacity = &client->capacity[options];
        capacity->ids = ids < client->items_max ? ids : client->items_max;
        capacity->events[EVENT_FORMAT_FULL] = room / (uint32_t)sizeof(struct transfer);
        capacity->events[EVENT_FORMAT_COMPACT] = room / (uint32_t)sizeof(struct compact_transfer);
    }
}

uint32_t client_parcel_capacity(const struct tally_client *client,
                                const struct parcel_class *class) {
    const struct parcel_capacity *capacity = &client->capacity[class->options != 0];
    return operation_is_lookup(class->operation) ? capacity->ids
                                                 : capacity->events[class->event_format];
}

static uint32_t partition_of_event(const struct session *session, uint8_t operation,
                                   const void *events, uint32_t index) {
    const struct tally_transfer *transfer = events;
    const tally_uint128_t *ids = events;
    switch (operation) {
    case OPERATION_CREATE_ACCOUNTS:
        return hash_partition(
            hash_id(((const struct tally_account *)events)[index].id, session->hash_seed),
            session->partitions);
    case OPERATION_LOOKUP_ACCOUNTS:
        return hash_partition(hash_id(ids[index], session->hash_seed), session->partitions);
    case OPERATION_LOOKUP_TRANSFERS:
        return (uint32_t)((uint64_t)ids[index] & 0xffff) % session->partitions;
    default:
        break;
    }
    transfer += index;
    /* a post or void that leaves its accounts to the pending transfer lives where that does */
    if (transfer->debit_account_id == 0 && transfer->pending_id != 0)
        return (uint32_t)((uint64_t)transfer->pending_id & 0xffff) % session->partitions;
    return hash_partition(hash_id(transfer->debit_account_id, session->hash_seed),
                          session->partitions);
}

uint8_t client_parcel_event_lcore(const struct tally_client *client, uint8_t operation,
                                  const void *events, uint32_t index) {
    if (client->session.lcores == 1)
        return 0;
    return client->session
        .placement[partition_of_event(&client->session, operation, events, index)];
}

static uint16_t event_flags(const struct tally_request *request, uint32_t index) {
    return request->operation == TALLY_CREATE_ACCOUNTS
               ? ((const struct tally_account *)request->events)[index].flags
               : ((const struct tally_transfer *)request->events)[index].flags;
}

static bool event_is_plain(const struct tally_request *request, uint32_t index) {
    if (request->operation != TALLY_CREATE_TRANSFERS)
        return false;
    const struct tally_transfer *transfer = (const struct tally_transfer *)request->events + index;
    return (uint64_t)(transfer->amount >> 64) == 0 && transfer->pending_id == 0 &&
           transfer->user_data_128 == 0 && transfer->user_data_64 == 0 &&
           transfer->user_data_32 == 0 && transfer->timeout == 0 && transfer->timestamp == 0;
}

_Static_assert((int)TALLY_ACCOUNT_LINKED == (int)TALLY_TRANSFER_LINKED, "one test for both");

/** The chain that starts at `first`: its length, and whether all of it is plain. */
static uint32_t chain_length(const struct tally_request *request, uint32_t first, bool *plain,
                             bool *chain_open) {
    uint32_t index = first;
    *plain = event_is_plain(request, index);
    while (event_flags(request, index) & TALLY_TRANSFER_LINKED) {
        if (index + 1 == request->count) {
            *chain_open = true;
            return index + 1 - first;
        }
        index++;
        *plain = *plain && event_is_plain(request, index);
    }
    *chain_open = false;
    return index + 1 - first;
}

int client_parcel_check_chains(const struct tally_client *client,
                               const struct tally_request *request) {
    const struct parcel_capacity *capacity = &client->capacity[request_options(request) != 0];
    if (operation_is_lookup((uint8_t)request->operation))
        return 0;
    for (uint32_t first = 0; first < request->count;) {
        bool plain, chain_open;
        uint32_t length = chain_length(request, first, &plain, &chain_open);
        if (length > capacity->events[plain ? EVENT_FORMAT_COMPACT : EVENT_FORMAT_FULL])
            return -EMSGSIZE;
        first += length;
    }
    return 0;
}

static bool request_is_ordered(const struct tally_request *request) {
    return !(request->flags & TALLY_REQUEST_UNORDERED) &&
           !operation_is_lookup((uint8_t)request->operation);
}

/** The next unit of a request. @return false when it fits no datagram (the session's are smaller
 *  than they were) */
static bool unit_next(const struct tally_client *client, const struct tally_request *request,
                      struct unit *unit) {
    uint8_t operation = (uint8_t)request->operation;
    uint32_t first = request_state(request)->next_event;
    *unit = (struct unit){
        .first = first,
        .count = 1,
        .class = {.operation = operation,
                  .options = request_options(request),
                  .resent = (uint8_t)request_state(request)->resent,
                  .lcore = client_parcel_event_lcore(client, operation, request->events, first)},
    };
    if (operation_is_lookup(operation))
        return true;
    uint16_t imported =
        operation == OPERATION_CREATE_ACCOUNTS ? TALLY_ACCOUNT_IMPORTED : TALLY_TRANSFER_IMPORTED;
    unit->class.imported = (event_flags(request, 0) & imported) != 0;
    const uint32_t *capacity = client->capacity[unit->class.options != 0].events;
    bool plain;
    unit->count = chain_length(request, first, &plain, &unit->chain_open);
    unit->class.event_format = plain ? EVENT_FORMAT_COMPACT : EVENT_FORMAT_FULL;
    if (unit->count > capacity[unit->class.event_format])
        return false;
    while (request_is_ordered(request) && first + unit->count < request->count) {
        uint32_t next = first + unit->count;
        bool next_plain, next_open;
        uint32_t length = chain_length(request, next, &next_plain, &next_open);
        uint8_t format = plain && next_plain ? EVENT_FORMAT_COMPACT : EVENT_FORMAT_FULL;
        if (unit->count + length > capacity[format] ||
            client_parcel_event_lcore(client, operation, request->events, next) !=
                unit->class.lcore)
            break;
        unit->count += length;
        unit->chain_open = next_open;
        unit->class.event_format = format;
        plain = format == EVENT_FORMAT_COMPACT;
    }
    return true;
}

static struct parcel_list *parcel_list_of(struct tally_client *client, enum parcel_state state) {
    switch (state) {
    case PARCEL_OPEN:
        return &client->open;
    case PARCEL_READY:
        return &client->ready;
    case PARCEL_SENT:
        return &client->sent;
    case PARCEL_DELAYED:
        return &client->delayed;
    default:
        return &client->free;
    }
}

void client_parcel_move(struct tally_client *client, struct parcel *parcel,
                        enum parcel_state state) {
    TAILQ_REMOVE(parcel_list_of(client, parcel->state), parcel, link);
    client->open_count -= parcel->state == PARCEL_OPEN;
    client->ready_count -= parcel->state == PARCEL_READY;
    parcel->state = state;
    client->open_count += state == PARCEL_OPEN;
    client->ready_count += state == PARCEL_READY;
    if (state == PARCEL_FREE) {
        parcel->item_count = parcel->live = 0;
        parcel->uncertain = parcel->settling = false;
        parcel->refusals = 0;
        TAILQ_INSERT_HEAD(&client->free, parcel, link);
    } else {
        TAILQ_INSERT_TAIL(parcel_list_of(client, state), parcel, link);
    }
}

/** An open parcel with room for the unit, or NULL when every parcel is in use. */
static struct parcel *parcel_for(struct tally_client *client, const struct unit *unit) {
    struct parcel *parcel;
    uint32_t capacity = client_parcel_capacity(client, &unit->class);
    TAILQ_FOREACH(parcel, &client->open, link) {
        if (memcmp(&parcel->class, &unit->class, sizeof(unit->class)) != 0)
            continue;
        if (parcel->item_count + unit->count <= capacity)
            return parcel;
        client_parcel_move(client, parcel, PARCEL_READY);
        break;
    }
    parcel = TAILQ_FIRST(&client->free);
    if (!parcel)
        return NULL;
    client_parcel_move(client, parcel, PARCEL_OPEN);
    parcel->class = unit->class;
    parcel->uncertain = unit->class.resent;
    return parcel;
}

static void parcel_append(struct tally_client *client, struct parcel *parcel,
                          struct tally_request *request, const struct unit *unit) {
    struct request_state *state = request_state(request);
    for (uint32_t i = 0; i < unit->count; i++)
        parcel->items[parcel->item_count++] =
            (struct parcel_item){.request = request, .index = unit->first + i};
    parcel->live += (uint16_t)unit->count;
    state->next_event += unit->count;
    state->in_flight += unit->count;
    client->queued_events -= unit->count;
    uint32_t capacity = client_parcel_capacity(client, &unit->class);
    if (unit->chain_open || parcel->item_count == capacity)
        client_parcel_move(client, parcel, PARCEL_READY);
}

static void queue_pop(struct tally_client *client) {
    struct request_state *state = request_state(client->queue_head);
    client->queue_head = state->queue_next;
    if (!client->queue_head)
        client->queue_tail = &client->queue_head;
    state->queue_next = NULL;
}

/** A unit that no datagram of this session can take stays not_sent. */
static void unit_give_up(struct tally_client *client, struct tally_request *request,
                         const struct unit *unit) {
    struct request_state *state = request_state(request);
    state->next_event += unit->count;
    state->in_flight += unit->count;
    client->queued_events -= unit->count;
    for (uint32_t i = 0; i < unit->count; i++)
        client_item_done(client,
                         &(struct parcel_item){.request = request, .index = unit->first + i});
}

void client_parcel_pack(struct tally_client *client, uint32_t ready_wanted) {
    while (client->queue_head && client->ready_count < ready_wanted) {
        struct tally_request *request = client->queue_head;
        struct request_state *state = request_state(request);
        struct unit unit;
        bool fits = unit_next(client, request, &unit);
        struct parcel *parcel = fits ? parcel_for(client, &unit) : NULL;
        if (fits && !parcel)
            return;
        bool last = state->next_event + unit.count == request->count;
        if (last || request_is_ordered(request)) {
            queue_pop(client);
            state->phase = last ? REQUEST_PACKED : REQUEST_WAITING;
        }
        if (fits)
            parcel_append(client, parcel, request, &unit);
        else
            unit_give_up(client, request, &unit);
    }
}

void client_parcel_flush(struct tally_client *client, uint32_t ready_wanted) {
    while (client->ready_count < ready_wanted && !TAILQ_EMPTY(&client->open))
        client_parcel_move(client, TAILQ_FIRST(&client->open), PARCEL_READY);
}

void client_parcel_forget_expired(struct tally_client *client) {
    for (uint32_t i = 0; i < client->parcel_count; i++) {
        struct parcel *parcel = &client->parcels[i];
        if (parcel->state == PARCEL_FREE)
            continue;
        for (unsigned k = 0; k < parcel->item_count; k++) {
            struct parcel_item *item = &parcel->items[k];
            if (item->request && request_state(item->request)->phase == REQUEST_EXPIRED) {
                item->request = NULL;
                parcel->live--;
            }
        }
        /* one that is sent keeps its number until the reply comes or the session ends */
        if (parcel->live == 0 && parcel->state != PARCEL_SENT)
            client_parcel_move(client, parcel, PARCEL_FREE);
    }
}

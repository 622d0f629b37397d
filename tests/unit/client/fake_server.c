/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/client/fake_server.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"

#define HEAD ((uint32_t)(sizeof(struct net_header) + sizeof(struct net_request_header)))

uint64_t fake_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void fake_server_open(struct fake_server *server, uint64_t seed) {
    *server = (struct fake_server){
        .partitions = 256,
        .lcores = 1,
        .port = FAKE_PORT,
        .payload_max = NET_PAYLOAD_IPV4_DEFAULT,
        .window = NET_WINDOW_DEFAULT,
        .hash_seed = 0x0123456789abcdef,
        .timestamp = 1000,
        .random = seed,
    };
    memset(server->cell_id, 0xce, sizeof(server->cell_id));
    server->replies = calloc(FAKE_NUMBERS_MAX, sizeof(server->replies[0]));
    server->records = calloc(FAKE_IDS_MAX, sizeof(server->records[0]));
    fake_server_restart(server);
}

static void forget_replies(struct fake_server *server) {
    for (unsigned i = 0; i < FAKE_NUMBERS_MAX; i++)
        server->replies[i].number = 0;
}

void fake_server_restart(struct fake_server *server) {
    server->session = 0;
    memset(server->instance, 0, sizeof(server->instance));
    for (unsigned i = 0; i < sizeof(server->cookie); i++)
        server->cookie[i] = (uint8_t)fake_random(&server->random);
    forget_replies(server);
}

void fake_server_close(struct fake_server *server) {
    for (unsigned i = 0; i < FAKE_NUMBERS_MAX; i++)
        free(server->replies[i].datagrams);
    free(server->replies);
    free(server->records);
}

/* --- ledger ----------------------------------------------------------------------------------- */

static struct fake_record *record_slot(struct fake_server *server, tally_uint128_t id) {
    uint32_t at = (uint32_t)hash_id(id, 7) & (FAKE_IDS_MAX - 1);
    for (;; at = (at + 1) & (FAKE_IDS_MAX - 1)) {
        struct fake_record *record = &server->records[at];
        if (!record->kind || memcmp(record->bytes, &id, sizeof(id)) == 0)
            return record;
    }
}

struct fake_record *fake_server_find(struct fake_server *server, tally_uint128_t id) {
    struct fake_record *record = record_slot(server, id);
    return record->kind ? record : NULL;
}

static struct result event_decide(struct fake_server *server, const struct tally_transfer *event,
                                  bool account) {
    struct fake_record *record = record_slot(server, event->id);
    struct result result = {.timestamp = ++server->timestamp, .status = TRANSFER_STATUS_created};
    if (!account && event->id < server->horizon) {
        result.status = TRANSFER_STATUS_id_expired;
    } else if (record->kind == 3) {
        result.status = TRANSFER_STATUS_id_already_failed;
    } else if (record->kind) {
        result.status =
            account ? (uint32_t)ACCOUNT_STATUS_exists : (uint32_t)TRANSFER_STATUS_exists;
        result.timestamp = record->timestamp;
    } else if (!account && event->amount == FAKE_AMOUNT_REFUSED) {
        result.status = TRANSFER_STATUS_exceeds_credits;
        memcpy(record->bytes, &event->id, sizeof(event->id));
        record->kind = 3;
    }
    return result;
}

static void event_install(struct fake_server *server, const struct tally_transfer *event,
                          uint64_t timestamp, bool account) {
    struct fake_record *record = record_slot(server, event->id);
    memcpy(record->bytes, event, sizeof(record->bytes));
    memcpy(record->bytes + offsetof(struct tally_transfer, timestamp), &timestamp,
           sizeof(timestamp));
    record->timestamp = timestamp;
    record->kind = account ? 1 : 2;
    record->executions++;
    server->created++;
    if (!account)
        server->debits_posted += event->amount;
}

static void chain_execute(struct fake_server *server, const struct tally_transfer *events,
                          unsigned count, bool account, struct result *results) {
    unsigned failed = count;
    for (unsigned i = 0; i < count && failed == count; i++) {
        results[i] = event_decide(server, &events[i], account);
        if (results[i].status != TRANSFER_STATUS_created)
            failed = i;
    }
    for (unsigned i = 0; i < count; i++) {
        if (failed == count)
            event_install(server, &events[i], results[i].timestamp, account);
        else if (i != failed)
            results[i] = (struct result){.timestamp = server->timestamp,
                                         .status = TRANSFER_STATUS_linked_event_failed};
    }
}

static void events_execute(struct fake_server *server, const struct tally_transfer *events,
                           unsigned count, bool account, struct result *results) {
    for (unsigned first = 0, length; first < count; first += length) {
        for (length = 1; events[first + length - 1].flags & TALLY_TRANSFER_LINKED; length++)
            if (first + length == count)
                break;
        bool chain_open = events[first + length - 1].flags & TALLY_TRANSFER_LINKED;
        if (!chain_open) {
            chain_execute(server, events + first, length, account, results + first);
            continue;
        }
        for (unsigned i = first; i < first + length; i++)
            results[i] = (struct result){.timestamp = ++server->timestamp,
                                         .status = i + 1 == first + length
                                                       ? TRANSFER_STATUS_linked_event_chain_open
                                                       : TRANSFER_STATUS_linked_event_failed};
    }
}

/* --- requests --------------------------------------------------------------------------------- */

struct fake_request {
    struct net_request_header header;
    const uint8_t *events;
    uint32_t events_bytes;
    bool balances;
    struct tally_transfer full[1024]; /**< accounts too, for both are 128 bytes */
};

static bool request_parse(const uint8_t *datagram, uint32_t length, struct fake_request *request) {
    memcpy(&request->header, datagram + sizeof(struct net_header), sizeof(request->header));
    if (request->header.options_bytes % 8 || HEAD + request->header.options_bytes > length)
        return false;
    request->events = datagram + HEAD + request->header.options_bytes;
    request->events_bytes = length - HEAD - request->header.options_bytes;
    request->balances = request->header.options_bytes && datagram[HEAD] == NET_OPTION_BALANCES;
    bool lookup = request->header.operation >= OPERATION_LOOKUP_ACCOUNTS;
    uint32_t bytes = lookup ? 16 : request->header.event_format == EVENT_FORMAT_COMPACT ? 64 : 128;
    if (request->header.event_count == 0 ||
        request->events_bytes != request->header.event_count * bytes)
        return false;
    for (unsigned i = 0; i < request->header.event_count; i++) {
        const uint8_t *event = request->events + i * bytes;
        memset(&request->full[i], 0, sizeof(request->full[i]));
        memcpy(&request->full[i], event, bytes == 64 ? 48 : bytes);
        if (bytes == 64) {
            struct compact_transfer compact;
            memcpy(&compact, event, sizeof(compact));
            request->full[i].amount = compact.amount;
            request->full[i].ledger = compact.ledger;
            request->full[i].code = compact.code;
            request->full[i].flags = compact.flags;
        }
    }
    return true;
}

struct fake_writer {
    struct fake_server *server;
    struct fake_reply *reply;
    struct net_reply_header header;
    uint32_t at; /**< in the datagram of header.datagram_index */
};

static uint8_t *writer_datagram(struct fake_writer *writer, unsigned index) {
    return writer->reply->datagrams + (size_t)index * NET_PAYLOAD_MAX;
}

static void writer_close(struct fake_writer *writer) {
    unsigned index = writer->header.datagram_index;
    memcpy(writer_datagram(writer, index) + sizeof(struct net_header), &writer->header,
           sizeof(writer->header));
    writer->reply->lengths[index] = writer->at;
    writer->reply->datagram_count = (uint8_t)(index + 1);
}

static void writer_begin(struct fake_writer *writer, unsigned index, unsigned entry_first) {
    uint8_t *options = writer_datagram(writer, index) + HEAD;
    uint64_t token[3] = {1, writer->server->timestamp, 0};
    memset(options, 0, NET_REPLY_OPTIONS_BYTES);
    options[0] = NET_OPTION_TOKEN;
    options[1] = sizeof(token);
    memcpy(options + 2, token, sizeof(token));
    writer->header.datagram_index = (uint8_t)index;
    writer->header.entry_first = (uint16_t)entry_first;
    writer->header.entry_count = 0;
    writer->header.options_bytes = NET_REPLY_OPTIONS_BYTES;
    writer->at = HEAD + NET_REPLY_OPTIONS_BYTES;
}

static void writer_entry(struct fake_writer *writer, const struct result *result, const void *rest,
                         uint32_t bytes) {
    if (writer->at + sizeof(*result) + bytes > writer->server->payload_max) {
        unsigned next = writer->header.entry_first + writer->header.entry_count;
        writer_close(writer);
        writer_begin(writer, writer->header.datagram_index + 1u, next);
    }
    uint8_t *out = writer_datagram(writer, writer->header.datagram_index) + writer->at;
    memcpy(out, result, sizeof(*result));
    memcpy(out + sizeof(*result), rest, bytes);
    writer->at += (uint32_t)sizeof(*result) + bytes;
    writer->header.entry_count++;
}

static void request_execute(struct fake_server *server, struct fake_request *request,
                            struct fake_writer *writer) {
    struct result results[1024];
    uint8_t operation = request->header.operation;
    bool account = operation == OPERATION_CREATE_ACCOUNTS || operation == OPERATION_LOOKUP_ACCOUNTS;
    unsigned count = request->header.event_count;
    if (operation <= OPERATION_CREATE_TRANSFERS)
        events_execute(server, request->full, count, account, results);
    for (unsigned i = 0; i < count; i++) {
        if (operation <= OPERATION_CREATE_TRANSFERS) {
            struct balances balances = {.debits_posted = server->debits_posted};
            writer_entry(writer, &results[i], &balances, request->balances ? sizeof(balances) : 0);
            continue;
        }
        struct fake_record *record = fake_server_find(server, request->full[i].id);
        bool expired = !account && request->full[i].id < server->horizon;
        bool found = !expired && record && record->kind == (account ? 1u : 2u);
        struct result result = {.status = expired ? LOOKUP_STATUS_expired
                                          : found ? LOOKUP_STATUS_found
                                                  : LOOKUP_STATUS_absent};
        writer_entry(writer, &result, record ? record->bytes : (const uint8_t *)"",
                     found ? 128 : 0);
    }
}

static void reply_emit(struct fake_server *server, struct fake_reply *reply, uint16_t port,
                       fake_emit *emit, void *context) {
    if (server->mute_replies)
        return;
    for (unsigned i = 0; i < reply->datagram_count; i++) {
        uint8_t *datagram = reply->datagrams + (size_t)i * NET_PAYLOAD_MAX;
        struct net_reply_header header;
        memcpy(&header, datagram + sizeof(struct net_header), sizeof(header));
        header.datagram_count = reply->datagram_count;
        header.credit_ahead = (int32_t)(int64_t)(server->credit - reply->number);
        memcpy(datagram + sizeof(struct net_header), &header, sizeof(header));
        client_wire_seal(datagram, reply->lengths[i], NET_REPLY, server->session,
                         ++server->counter);
        emit(context, datagram, reply->lengths[i], port);
    }
}

static void grant(struct fake_server *server) {
    uint64_t credit = server->edge + (server->credit_span ? server->credit_span : server->window);
    if (server->credit < credit)
        server->credit = credit;
}

static void note_acknowledged(struct fake_server *server, uint64_t acknowledged) {
    for (; server->edge < acknowledged; server->edge++)
        if (server->replies[(server->edge + 1) % FAKE_NUMBERS_MAX].number != server->edge + 1) {
            server->violations++; /* a reply that never was */
            return;
        }
    grant(server);
}

static void note_port(struct fake_server *server, const struct fake_request *request,
                      uint16_t to_port) {
    uint8_t operation = request->header.operation;
    const struct tally_transfer *first = &request->full[0];
    tally_uint128_t home =
        operation == OPERATION_CREATE_TRANSFERS ? first->debit_account_id : first->id;
    unsigned partition = hash_partition(hash_id(home, server->hash_seed), server->partitions);
    if (operation == OPERATION_LOOKUP_TRANSFERS)
        return;
    server->wrong_port += to_port != server->port + partition % server->lcores;
}

static void take_request(struct fake_server *server, const uint8_t *datagram, uint32_t length,
                         uint16_t to_port, fake_emit *emit, void *context) {
    static struct fake_request request;
    if (!request_parse(datagram, length, &request)) {
        server->violations++;
        return;
    }
    note_acknowledged(server, request.header.acknowledged);
    uint64_t number = request.header.request;
    if (number <= server->edge)
        return;
    if (number > server->credit) {
        server->violations++;
        return;
    }
    struct fake_reply *reply = &server->replies[number % FAKE_NUMBERS_MAX];
    if (reply->number == number) {
        server->duplicates++;
        server->violations += reply->request_bytes != length;
        reply_emit(server, reply, to_port, emit, context);
        return;
    }
    server->used = true;
    if (server->hold)
        return;
    server->requests++;
    server->events += request.header.event_count;
    server->requests_lookup += request.header.operation >= OPERATION_LOOKUP_ACCOUNTS;
    server->requests_compact += request.header.event_format == EVENT_FORMAT_COMPACT;
    server->requests_full += request.header.event_format == EVENT_FORMAT_FULL &&
                             request.header.operation <= OPERATION_CREATE_TRANSFERS;
    if (request.header.event_count > server->events_max)
        server->events_max = request.header.event_count;
    if (number - server->edge > server->outstanding_max)
        server->outstanding_max = number - server->edge;
    note_port(server, &request, to_port);
    if (!reply->datagrams)
        reply->datagrams = calloc(NET_REPLY_DATAGRAMS_MAX, NET_PAYLOAD_MAX);
    reply->number = number;
    reply->request_bytes = (uint16_t)length;
    struct fake_writer writer = {.server = server, .reply = reply};
    writer.header =
        (struct net_reply_header){.request = number, .operation = request.header.operation};
    writer_begin(&writer, 0, 0);
    if (server->overload_count) {
        server->overload_count--;
        server->overloads++;
        writer.header.code = REQUEST_CODE_overloaded;
        uint8_t *option = writer_datagram(&writer, 0) + HEAD;
        option[0] = NET_OPTION_RETRY_AFTER;
        option[1] = 4;
        memcpy(option + 2, &server->retry_after_us, 4);
        memset(option + 6, 0, NET_REPLY_OPTIONS_BYTES - 6);
    } else {
        request_execute(server, &request, &writer);
        if (server->unknown_count) {
            server->unknown_count--;
            writer_begin(&writer, 0, 0);
            writer.header.code = REQUEST_CODE_unknown_outcome;
        }
    }
    writer_close(&writer);
    reply_emit(server, reply, to_port, emit, context);
}

/* --- handshake -------------------------------------------------------------------------------- */

static void emit_welcome(struct fake_server *server, uint64_t nonce, fake_emit *emit,
                         void *context) {
    uint8_t out[NET_HELLO_BYTES];
    struct net_welcome welcome = {.nonce = nonce,
                                  .term = 1,
                                  .hash_seed = server->hash_seed,
                                  .cell_time_ns = 1700000000000000000ULL + server->now_ns,
                                  .credit = server->credit,
                                  .partitions = server->partitions,
                                  .payload_max = server->payload_max,
                                  .window = server->window,
                                  .id_time = 1,
                                  .lcores = (uint8_t)server->lcores,
                                  .id_window_ms = 3600000};
    memcpy(welcome.cell_id, server->cell_id, sizeof(welcome.cell_id));
    for (unsigned i = 0; i < server->lcores; i++)
        welcome.ports[i] = (uint16_t)(server->port + i);
    memcpy(out + sizeof(struct net_header), &welcome, sizeof(welcome));
    uint32_t length = sizeof(struct net_header) + sizeof(welcome);
    for (unsigned i = 0; i < server->partitions; i++)
        out[length++] = (uint8_t)(i % server->lcores);
    client_wire_seal(out, length, NET_WELCOME, server->session, ++server->counter);
    emit(context, out, length, server->port);
}

static void take_hello(struct fake_server *server, const uint8_t *datagram, uint32_t length,
                       fake_emit *emit, void *context) {
    struct net_hello hello;
    memcpy(&hello, datagram + sizeof(struct net_header), sizeof(hello));
    server->hellos++;
    if (length != NET_HELLO_BYTES) {
        server->violations++;
        return;
    }
    if (memcmp(hello.cookie, server->cookie, sizeof(hello.cookie)) != 0) {
        uint8_t out[sizeof(struct net_header) + sizeof(struct net_cookie)];
        struct net_cookie cookie = {.nonce = hello.nonce,
                                    .server_time_ns = 1700000000000000000ULL + server->now_ns};
        memcpy(cookie.cookie, server->cookie, sizeof(cookie.cookie));
        memcpy(out + sizeof(struct net_header), &cookie, sizeof(cookie));
        client_wire_seal(out, sizeof(out), NET_COOKIE, 0, 0);
        emit(context, out, sizeof(out), server->port);
        return;
    }
    bool same = server->session && server->nonce == hello.nonce &&
                memcmp(server->instance, hello.client_instance, sizeof(server->instance)) == 0;
    if (same && server->used)
        return;
    if (!same) {
        server->session = fake_random(&server->random) | 1;
        server->nonce = hello.nonce;
        memcpy(server->instance, hello.client_instance, sizeof(server->instance));
        server->counter = server->edge = 0;
        server->used = false;
        server->credit = 0;
        grant(server);
        server->sessions++;
        memset(&server->replay, 0, sizeof(server->replay));
        forget_replies(server);
    }
    emit_welcome(server, hello.nonce, emit, context);
}

static void take_ack(struct fake_server *server, const uint8_t *datagram, fake_emit *emit,
                     void *context) {
    struct net_ack ack;
    uint8_t out[sizeof(struct net_header) + sizeof(struct net_ack)];
    memcpy(&ack, datagram + sizeof(struct net_header), sizeof(ack));
    server->acks++;
    note_acknowledged(server, ack.acknowledged);
    ack = (struct net_ack){.acknowledged = server->edge, .credit = server->credit};
    memcpy(out + sizeof(struct net_header), &ack, sizeof(ack));
    client_wire_seal(out, sizeof(out), NET_ACK, server->session, ++server->counter);
    if (!server->mute_replies)
        emit(context, out, sizeof(out), server->port);
}

void fake_server_take(struct fake_server *server, uint64_t now_ns, const uint8_t *datagram,
                      uint32_t length, uint16_t to_port, fake_emit *emit, void *context) {
    uint8_t copy[NET_PAYLOAD_MAX];
    struct net_header header;
    server->now_ns = now_ns;
    if (server->dead)
        return;
    memcpy(copy, datagram, length);
    if (!client_wire_verify(copy, length)) {
        server->violations++;
        return;
    }
    memcpy(&header, copy, sizeof(header));
    if (header.type == NET_HELLO) {
        take_hello(server, copy, length, emit, context);
        return;
    }
    if (header.session != server->session || header.session == 0 ||
        !client_wire_counter_accept(&server->replay, header.counter))
        return;
    if (header.type == NET_REQUEST)
        take_request(server, copy, length, to_port, emit, context);
    else if (header.type == NET_ACK)
        take_ack(server, copy, emit, context);
    else if (header.type == NET_GOODBYE)
        fake_server_restart(server);
}

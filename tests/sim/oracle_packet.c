/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <xxhash.h>

#include "tests/sim/oracle_internal.h"

/* Datagrams, after net/PROTOCOL.md. */

#define HEADER 40u
#define INNER 24u

enum datagram { HELLO = 1, COOKIE, WELCOME, REQUEST, REPLY, ACK, GOODBYE };

/** Whether this is a datagram at all: its tag says so. */
static bool tag_right(const uint8_t *payload, size_t bytes) {
    uint8_t copy[9216];
    XXH128_canonical_t canonical;
    if (bytes < HEADER || bytes > sizeof(copy) || payload[0] != 1 || payload[2] != 0)
        return false;
    memcpy(copy, payload, bytes);
    memset(copy + 24, 0, 16);
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(copy, bytes));
    return memcmp(canonical.digest, payload + 24, 16) == 0;
}

static struct net_session *session_get(const struct oracle *oracle, uint64_t id) {
    return oracle_map_get(&oracle->sessions, id);
}

/* --- what clients send ----------------------------------------------------------------------------------------------------------------- */

static void hello_in(struct oracle *oracle, const uint8_t *payload) {
    uint64_t nonce = u64_at(payload, HEADER + 16);
    for (size_t i = 0; i < oracle->hello_count; i++) {
        if (oracle->hellos[i].nonce == nonce)
            return;
    }
    struct hello *hello =
        ORACLE_PUSH(oracle, oracle->hellos, oracle->hello_count, oracle->hello_capacity);
    hello->nonce = nonce;
    memcpy(hello->instance, payload + HEADER, 16);
}

/** Options of a request. @return false: malformed */
static bool take_options(struct net_request *request, const uint8_t *options, size_t bytes) {
    static const uint8_t lengths[] = {0, 16, 8, 8, 0, 0, 0};
    size_t at = 0;
    while (at < bytes) {
        uint8_t type = options[at++];
        if (type == 0)
            continue;
        if (at == bytes || options[at] > bytes - at - 1)
            return false;
        uint8_t length = options[at++];
        if (type < sizeof(lengths) && length != lengths[type])
            return false;
        request->balances |= type == 4;
        request->stale_ok |= type == 6;
        at += length;
    }
    return true;
}

static size_t event_bytes(const struct net_request *request) {
    if (request->operation == OPERATION_LOOKUP_ACCOUNTS ||
        request->operation == OPERATION_LOOKUP_TRANSFERS)
        return request->format == 0 ? 16 : 0;
    if (request->operation == OPERATION_CREATE_TRANSFERS)
        return request->format == 0 ? 128 : request->format == 1 ? 64 : 0;
    return request->operation == OPERATION_CREATE_ACCOUNTS && request->format == 0 ? 128 : 0;
}

static void take_event(struct asked *asked, const uint8_t *event) {
    if (asked->request->operation == OPERATION_CREATE_ACCOUNTS) {
        memcpy(&asked->account, event, 128);
    } else if (asked->request->format == 0) {
        memcpy(&asked->transfer, event, 128);
    } else {
        asked->transfer = (struct transfer){.id = u128_at(event, 0),
                                            .debit_account_id = u128_at(event, 16),
                                            .credit_account_id = u128_at(event, 32),
                                            .amount = u64_at(event, 48),
                                            .ledger = u32_at(event, 56),
                                            .code = u16_at(event, 60),
                                            .flags = u16_at(event, 62)};
    }
}

static void take_events(struct oracle *oracle, struct net_request *request, const uint8_t *events,
                        size_t size) {
    bool accounts = request->operation == OPERATION_CREATE_ACCOUNTS;
    bool creates = accounts || request->operation == OPERATION_CREATE_TRANSFERS;
    if (!creates) {
        request->ids = oracle_take(oracle, request->event_count * sizeof(*request->ids));
        memcpy(request->ids, events, request->event_count * 16u);
        return;
    }
    request->events = oracle_take(oracle, request->event_count * sizeof(*request->events));
    struct oracle_map *map = accounts ? &oracle->asked_accounts : &oracle->asked_transfers;
    for (uint32_t i = 0; i < request->event_count; i++) {
        struct asked *asked = &request->events[i];
        asked->request = request;
        asked->index = i;
        take_event(asked, events + i * size);
        uint128_t id = accounts ? asked->account.id : asked->transfer.id;
        asked->next = oracle_map_get(map, id);
        oracle_map_put(oracle, map, id, asked);
    }
}

/** Whether the longest answer to a lookup fits eight datagrams. */
static bool answer_fits(const struct net_request *request) {
    return request->event_count <= 8u * ((request->session->payload_max - 96u) / 144u);
}

static void request_in(struct oracle *oracle, const uint8_t *payload, size_t bytes) {
    struct net_session *session = session_get(oracle, u64_at(payload, 8));
    const uint8_t *inner = payload + HEADER;
    if (!session || session->dead || session->superseded || bytes < HEADER + INNER)
        return;
    uint64_t number = u64_at(inner, 0);
    if (oracle_map_get(&session->requests, number))
        return;
    struct net_request *request = oracle_take(oracle, sizeof(*request));
    *request = (struct net_request){
        .session = session,
        .number = number,
        .operation = inner[16],
        .format = inner[17],
        .event_count = u16_at(inner, 18),
        .floor_alone = oracle->shown_volatile,
        .floor_alone_at = oracle->shown_newest_at,
        .floor = oracle->shown_durable,
        .floor_at = oracle->shown_durable_at,
    };
    oracle_map_put(oracle, &session->requests, number, request);
    oracle->counts.requests++;
    size_t options = u16_at(inner, 20), left = bytes - HEADER - INNER, size = event_bytes(request);
    request->malformed = !size || !request->event_count || options % 8 || options > left ||
                         (left - options) != size * request->event_count ||
                         !take_options(request, inner + INNER, options) ||
                         (size == 16 && !answer_fits(request));
    if (!request->malformed)
        take_events(oracle, request, inner + INNER + options, size);
}

bool oracle_packet_in(struct oracle *oracle, const void *payload, size_t bytes) {
    const uint8_t *datagram = payload;
    if (oracle->violation[0])
        return false;
    if (!tag_right(datagram, bytes))
        return true;
    if (datagram[1] == HELLO && bytes >= HEADER + 56)
        hello_in(oracle, datagram);
    if (datagram[1] == REQUEST)
        request_in(oracle, datagram, bytes);
    return true;
}

/* --- what the node sends ----------------------------------------------------------------------------------------------------------------- */

/** Cell time never falls, and is at or above every timestamp that anybody has seen. */
static bool clock_shown(struct oracle *oracle, const char *where, uint64_t cell_time) {
    if (oracle->group_count && oracle->groups[oracle->group_count - 1].lcores > 1)
        return true; /* each lcore tells its own, and they may be apart by some nanoseconds */
    uint64_t least =
        oracle->shown_volatile > oracle->shown_clock ? oracle->shown_volatile : oracle->shown_clock;
    if (cell_time < least)
        return oracle_fail(oracle, "time", "%s tells cell time %" PRIu64 " after %" PRIu64, where,
                           cell_time, least);
    oracle->shown_clock = cell_time;
    return true;
}

/** A newer session of the same client ends its older ones: all of theirs has been decided. */
static void supersede(struct oracle *oracle, const struct net_session *newer, uint64_t cell_time) {
    for (struct net_session *session = oracle->all_sessions; session; session = session->next) {
        if (session != newer && !session->dead && !session->superseded &&
            memcmp(session->instance, newer->instance, 16) == 0) {
            session->superseded = true;
            session->superseded_at = cell_time;
        }
    }
}

static bool welcome_out(struct oracle *oracle, const uint8_t *payload, size_t bytes) {
    const uint8_t *inner = payload + HEADER;
    uint64_t id = u64_at(payload, 8), nonce = u64_at(inner, 0), cell_time = u64_at(inner, 40);
    const struct hello *hello = NULL;
    if (bytes < HEADER + 240)
        return oracle_fail(oracle, "reply", "a WELCOME of %zu bytes", bytes);
    for (size_t i = 0; i < oracle->hello_count && !hello; i++) {
        if (oracle->hellos[i].nonce == nonce)
            hello = &oracle->hellos[i];
    }
    if (!hello)
        return oracle_fail(oracle, "reply", "a WELCOME that nobody asked for");
    if (memcmp(inner + 8, oracle->config.cell_id, 16) != 0 ||
        u64_at(inner, 32) != oracle->config.hash_seed ||
        u32_at(inner, 56) != oracle->config.partitions || inner[64] != oracle->config.id_time)
        return oracle_fail(oracle, "reply", "a WELCOME of another cell");
    if (u64_at(inner, 24) < oracle->term)
        return oracle_fail(oracle, "INV-7", "term %" PRIu64 " after term %" PRIu64,
                           u64_at(inner, 24), oracle->term);
    oracle->term = u64_at(inner, 24);
    struct net_session *session = session_get(oracle, id);
    if (session) /* sent again */
        return (!session->dead && session->nonce == nonce) ||
               oracle_fail(oracle, "INV-4", "session %" PRIx64 " is used again", id);
    if (!clock_shown(oracle, "WELCOME", cell_time))
        return false;
    session = oracle_take(oracle, sizeof(*session));
    *session = (struct net_session){
        .id = id,
        .term = oracle->term,
        .nonce = nonce,
        .counter = u64_at(payload, 16),
        .credit = u64_at(inner, 48),
        .payload_max = u16_at(inner, 60),
        .next = oracle->all_sessions,
    };
    memcpy(session->instance, hello->instance, 16);
    oracle->all_sessions = session;
    oracle_map_put(oracle, &oracle->sessions, id, session);
    supersede(oracle, session, cell_time);
    return true;
}

static bool credit_shown(struct oracle *oracle, struct net_session *session, uint64_t credit) {
    if (credit < session->credit)
        return oracle_fail(oracle, "credit",
                           "session %" PRIx64 ": credit fell from %" PRIu64 " to %" PRIu64,
                           session->id, session->credit, credit);
    session->credit = credit;
    return true;
}

/** TOKEN of a reply. @return false: there is none, or it is malformed */
static bool token_of(const uint8_t *options, size_t bytes, term_t *term, seq_t *seq) {
    size_t at = 0;
    while (at < bytes) {
        uint8_t type = options[at++];
        if (type == 0)
            continue;
        if (at == bytes || options[at] > bytes - at - 1)
            return false;
        uint8_t length = options[at++];
        if (type == 16 && length == 24) {
            *term = u64_at(options, at);
            *seq = u64_at(options, at + 8);
            return true;
        }
        at += length;
    }
    return false;
}

/** Keep the entries of one datagram; those that were there before must be the same. */
static bool take_entries(struct oracle *oracle, struct net_request *request, const uint8_t *bytes,
                         size_t left, uint32_t first, uint32_t count) {
    bool lookup = !request->events;
    if (first + count > request->event_count)
        return oracle_fail(oracle, "reply", "request %" PRIu64 ": more entries than events",
                           request->number);
    for (uint32_t i = first; i < first + count; i++) {
        size_t size = lookup || !request->balances ? 16 : 80;
        if (left >= 16 && lookup && u32_at(bytes, 8) == LOOKUP_STATUS_found)
            size = 144;
        if (left < size)
            return oracle_fail(oracle, "reply", "request %" PRIu64 ": an entry is cut",
                               request->number);
        if (!request->entries[i]) {
            request->entries[i] = oracle_take(oracle, size);
            request->entry_bytes[i] = size;
            memcpy(request->entries[i], bytes, size);
        } else if (request->entry_bytes[i] != size ||
                   memcmp(request->entries[i], bytes, size) != 0) {
            return oracle_fail(oracle, "INV-4",
                               "request %" PRIu64 " of session %" PRIx64
                               " is answered again, differently (event %" PRIu32 ")",
                               request->number, request->session->id, i);
        }
        bytes += size;
        left -= size;
    }
    return left == 0 ||
           oracle_fail(oracle, "reply", "request %" PRIu64 ": bytes behind the entries",
                       request->number);
}

static bool reply_out(struct oracle *oracle, const uint8_t *payload, size_t bytes) {
    struct net_session *session = session_get(oracle, u64_at(payload, 8));
    const uint8_t *inner = payload + HEADER;
    if (!session || session->dead || bytes < HEADER + INNER)
        return oracle_fail(oracle, "reply", "an answer in a session that is not there");
    uint64_t number = u64_at(inner, 0);
    struct net_request *request = oracle_map_get(&session->requests, number);
    if (!request)
        return oracle_fail(oracle, "reply", "an answer to request %" PRIu64 " that never came",
                           number);
    if (!credit_shown(oracle, session, number + (uint64_t)(int32_t)u32_at(inner, 8)))
        return false;
    uint8_t code = inner[12], index = inner[14], count = inner[15];
    size_t options = u16_at(inner, 20), left = bytes - HEADER - INNER;
    term_t term = 0;
    seq_t seq = 0;
    if (options > left || !token_of(inner + INNER, options, &term, &seq) || index >= count ||
        count > 8 || inner[13] != request->operation || term != session->term)
        return oracle_fail(oracle, "reply", "request %" PRIu64 ": its answer is malformed", number);
    bool again = request->datagram_count != 0;
    if (again &&
        (request->code != code || request->datagram_count != count || request->token_seq != seq))
        return oracle_fail(oracle, "INV-4",
                           "request %" PRIu64 " of session %" PRIx64
                           " is answered again, differently",
                           number, session->id);
    request->code = code;
    request->datagram_count = count;
    request->token_seq = seq;
    if (!again && code == REQUEST_CODE_ok && !request->malformed) {
        request->entries = oracle_take(oracle, request->event_count * sizeof(*request->entries));
        request->entry_bytes =
            oracle_take(oracle, request->event_count * sizeof(*request->entry_bytes));
    }
    if (code != REQUEST_CODE_ok || request->malformed) {
        if (u16_at(inner, 18) != 0)
            return oracle_fail(oracle, "reply", "request %" PRIu64 ": entries beside code %u",
                               number, code);
    } else if (!take_entries(oracle, request, inner + INNER + options, left - options,
                             u16_at(inner, 16), u16_at(inner, 18))) {
        return false;
    }
    request->datagrams_seen |= 1ull << index;
    if (request->answered || request->datagrams_seen != (1ull << count) - 1)
        return true;
    request->answered = true;
    for (uint32_t i = 0; request->entries && i < request->event_count; i++) {
        if (!request->entries[i])
            return oracle_fail(oracle, "reply",
                               "request %" PRIu64 ": event %" PRIu32 " is not answered", number, i);
    }
    return reply_check(oracle, request);
}

bool oracle_packet_out(struct oracle *oracle, const void *payload, size_t bytes) {
    const uint8_t *datagram = payload;
    if (oracle->violation[0])
        return false;
    if (!tag_right(datagram, bytes))
        return oracle_fail(oracle, "reply", "the node sends a datagram with a wrong tag");
    if (datagram[1] == COOKIE)
        return clock_shown(oracle, "COOKIE", u64_at(datagram, HEADER + 24));
    struct net_session *session = session_get(oracle, u64_at(datagram, 8));
    if (session) {
        if (u64_at(datagram, 16) <= session->counter)
            return oracle_fail(oracle, "reply",
                               "session %" PRIx64 ": counter %" PRIu64 " is used again",
                               session->id, u64_at(datagram, 16));
        session->counter = u64_at(datagram, 16);
    }
    switch (datagram[1]) {
    case WELCOME:
        return welcome_out(oracle, datagram, bytes);
    case REPLY:
        return reply_out(oracle, datagram, bytes);
    case ACK:
        return session && bytes >= HEADER + 16
                   ? credit_shown(oracle, session, u64_at(datagram, HEADER + 8))
                   : oracle_fail(oracle, "reply", "an ACK in a session that is not there");
    default:
        return oracle_fail(oracle, "reply", "the node sends a datagram of type %u", datagram[1]);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_UNIT_CLIENT_FAKE_SERVER_H
#define TALLY_TESTS_UNIT_CLIENT_FAKE_SERVER_H

#include <stdbool.h>

#include "net/client/client_internal.h"
#include "net/protocol.h"

/** A server for the client's tests: handshake, one session, window, stored replies, and a ledger
 *  that knows ids and sums. It is strict: what a client must not do is counted in `violations`.
 *  No thread, clock or socket inside.
 *  Flow: datagram -> [fake_server_take] -> emit */

#define FAKE_IDS_MAX (1u << 16)
#define FAKE_NUMBERS_MAX (1u << 12) /**< request numbers of a session whose replies are kept */
#define FAKE_LCORES 4
#define FAKE_PORT 7711

/** An amount that is always refused, as exceeds_credits, and burns the id. */
#define FAKE_AMOUNT_REFUSED 666

typedef void fake_emit(void *context, const uint8_t *datagram, uint32_t length, uint16_t from_port);

struct fake_record {
    uint8_t bytes[128];
    uint64_t timestamp;
    uint32_t kind; /**< 0 free, 1 account, 2 transfer, 3 burnt transfer id */
    uint32_t executions;
};

struct fake_reply {
    uint64_t number;
    uint16_t request_bytes; /**< a number always stands for the same request */
    uint8_t datagram_count;
    uint32_t lengths[NET_REPLY_DATAGRAMS_MAX];
    uint8_t *datagrams; /**< NET_REPLY_DATAGRAMS_MAX x NET_PAYLOAD_MAX, taken when first used */
};

struct fake_server {
    /* configuration */
    uint32_t partitions, lcores;
    uint16_t payload_max, window;
    uint16_t port;        /**< of the first lcore */
    uint16_t credit_span; /**< credit granted ahead of the lower edge, at most `window`; 0: that */
    uint64_t hash_seed;
    uint8_t cell_id[16];
    /* faults */
    bool dead;               /**< takes nothing */
    bool mute_replies;       /**< executes, and answers neither requests nor ACKs */
    bool hold;               /**< requests are accepted and not decided; only ACKs are answered */
    uint32_t overload_count; /**< so many of the next requests are refused */
    uint32_t retry_after_us;
    tally_uint128_t horizon; /**< transfer ids below it are forgotten */
    uint32_t unknown_count;  /**< so many of the next requests execute and answer unknown_outcome */
    /* session */
    uint64_t now_ns, session, nonce, counter, edge, credit, sessions;
    bool used;
    uint8_t instance[16], cookie[16];
    struct replay_window replay;
    struct fake_reply *replies; /**< FAKE_NUMBERS_MAX */
    /* ledger */
    struct fake_record *records; /**< FAKE_IDS_MAX, open addressing */
    uint64_t timestamp;
    tally_uint128_t debits_posted;
    /* what tests look at */
    /** Numbers beyond the credit, changed requests, acknowledgements of nothing. */
    uint64_t violations;
    uint64_t requests, events, duplicates, acks, hellos, overloads;
    uint64_t requests_compact, requests_full, requests_lookup, events_max, wrong_port;
    uint64_t created; /**< events that took effect */
    uint64_t outstanding_max;
    uint64_t random;
};

/** splitmix64. */
uint64_t fake_random(uint64_t *state);
void fake_server_open(struct fake_server *server, uint64_t seed);
void fake_server_close(struct fake_server *server);
/** kill -9 and a new start: sessions are gone, the ledger is not. */
void fake_server_restart(struct fake_server *server);
void fake_server_take(struct fake_server *server, uint64_t now_ns, const uint8_t *datagram,
                      uint32_t length, uint16_t to_port, fake_emit *emit, void *context);
struct fake_record *fake_server_find(struct fake_server *server, tally_uint128_t id);

#endif

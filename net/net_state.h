/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_STATE_H
#define TALLY_NET_STATE_H

#include "net/cookie.h"
#include "net/net.h"
#include "net/packet.h"
#include "net/session.h"

/** Inside of struct net, for the files that make it up:
 *  net.c dispatch and sending, net_handshake.c sessions, net_request.c decoding, net_reply.c
 *  encoding. */

enum { NET_TX_QUEUE = 512 };

/** A request in the engine, and everything that it needs meanwhile. */
struct net_context {
    struct engine_request request; /**< owner: this */
    struct session *session;
    uint64_t number; /**< request number */
    uint8_t mac[6];  /**< Ethernet address that it came from */
    void *events;    /**< 16-byte aligned copy of the events */
    struct result *results;
    void *answers; /**< records of a lookup, or balances: no operation has both */
    struct net_context *next_free;
};

struct net {
    struct net_config config;
    struct packet_self self;
    struct cookie_key cookie_key;
    uint64_t delay_ns; /**< queueing delay, as last told */
    seq_t seq;         /**< newest group of any reply */
    struct net_context *free_contexts;
    struct session_table table;
    struct net_counters counters;
    unsigned sweep; /**< next session that housekeeping looks at */
    unsigned tx_count;
    struct rte_mbuf *tx[NET_TX_QUEUE];
    /* memory */
    struct net_context *contexts;
    uint8_t *events, *answers;
    struct result *results;
    uint8_t placement[PARTITIONS_MAX];
};

/** A datagram that has arrived, its header read and verified; `body` stands behind the header. */
struct net_datagram {
    struct net_header header;
    const struct packet_peer *peer;
    uint8_t *bytes;
    size_t length; /**< of the whole datagram */
    uint64_t now_ns;
    uint64_t cell_time_ns;
};

static inline const uint8_t *net_body(const struct net_datagram *datagram) {
    return datagram->bytes + sizeof(struct net_header);
}
static inline size_t net_body_bytes(const struct net_datagram *datagram) {
    return datagram->length - sizeof(struct net_header);
}

/** A packet being made. */
struct net_outgoing {
    struct rte_mbuf *mbuf;
    uint8_t *bytes; /**< the datagram: header first, to be filled behind it */
    size_t length;
    const struct packet_peer *peer;
};

/** Begin a datagram. @return false, counted, when there is no buffer: the other side asks again */
bool net_send_begin(struct net *net, const struct packet_peer *peer, size_t length,
                    struct net_outgoing *outgoing);
/** Fill in its headers and tag, and queue it. @param session  its id and next counter are used;
 *  NULL: both 0 */
void net_send(struct net *net, struct net_outgoing *outgoing, uint8_t type,
              struct session *session);

void net_hello(struct net *net, struct net_datagram *datagram);
void net_goodbye(struct net *net, struct session *session);

/** @return a request for the engine, or NULL when the datagram has been dealt with */
struct engine_request *net_request_decode(struct net *net, struct session *session,
                                          const struct net_datagram *datagram);

/** Answer a request without executing it; stored like any reply. @param retry_after_ns  with
 *  `overloaded`, else 0 */
void net_reply_refuse(struct net *net, const struct net_datagram *datagram, struct session *session,
                      const struct net_request_header *request, enum request_code code,
                      uint64_t retry_after_ns);
/** Send the stored reply of a request again. */
void net_reply_resend(struct net *net, const struct packet_peer *peer, struct session *session,
                      uint64_t number);

/** Datagrams that a reply of `count` entries of at most `entry_bytes` each can take. */
static inline size_t net_reply_datagrams(uint16_t payload_max, size_t count, size_t entry_bytes) {
    size_t room = payload_max - sizeof(struct net_header) - sizeof(struct net_reply_header) -
                  NET_REPLY_OPTIONS_BYTES;
    size_t fit = room / entry_bytes;
    return (count + fit - 1) / fit;
}

#endif

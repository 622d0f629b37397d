/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_SESSION_H
#define TALLY_NET_SESSION_H

#include "engine/base/seams.h"
#include "net/packet.h"
#include "net/protocol.h"

/** Sessions: who may send which request number, what was answered, and who may use how much of our
 *  memory.
 *  Flow:  HELLO -> session_open -> [requests, acknowledgements] -> session_forget
 *  Owner: the engine lcore. Bounds: session_max x window slots; credits as below. Keeps: INV-4,
 *  INV-9, INV-10.
 *
 *  Credit. A request number that a client may use and has not acknowledged (lower edge < n <=
 *  credit) may need a context and a stored reply datagram, so the sum of (credit - edge) over all
 *  sessions never exceeds request_max, and there are as many of both. A reply of several datagrams
 *  is charged for those after the first; the sum of all charges never exceeds charge_max, which is
 *  what reply buffers there are beyond request_max. Every session can always hold `share` of the
 *  credit; what is above comes from a common rest, of which a session takes at most an eighth of
 *  what is left. So n busy sessions settle at rest / (n + 7) each, and a new one always finds
 *  some. */

/** Index of no session, no buffer. */
#define NET_NONE UINT32_MAX

enum slot_state {
    SLOT_FREE = 0,
    SLOT_IN_PROGRESS,
    SLOT_REPLIED,
};

/** What became of one request number. */
struct slot {
    uint8_t state;     /**< enum slot_state */
    uint8_t operation; /**< of the request */
    uint8_t
        datagrams; /**< of the reply: stored ones once replied, reserved ones while in progress */
    uint8_t reserved;
    uint32_t reply; /**< first stored datagram of the reply, NET_NONE before */
};

struct session {
    uint64_t id;         /**< never 0 while open */
    uint64_t edge;       /**< replies up to this request number are acknowledged and forgotten */
    uint64_t credit;     /**< highest request number that the client may use; never falls */
    uint64_t rx_counter; /**< highest counter seen */
    uint64_t tx_counter; /**< last one used */
    struct slot *slots;  /**< request number n is slots[n % window] */
    uint32_t charged;    /**< reply datagrams beyond the first of each reply */
    uint32_t in_progress;
    uint16_t payload_max;
    bool used;    /**< a datagram of the session has come */
    bool closing; /**< accepts nothing; forgotten once nothing is in progress */
    struct packet_peer peer;
    uint64_t heard_ns;
    uint64_t opened_ns;
    uint64_t nonce; /**< of the HELLO that opened it */
    uint8_t instance[16];
    uint32_t next_by_id,
        next_by_instance; /**< chains of the two indexes; next_by_id also of the free list */
    uint64_t rx_seen[NET_REPLAY_WINDOW / 64]; /**< counter c is bit c % NET_REPLAY_WINDOW */
};

/** Stored reply datagrams, without their net_header. A reply's are a chain. */
struct reply_store {
    uint8_t *bytes;
    uint32_t *next;
    uint16_t *lengths;
    size_t stride; /**< bytes */
    uint32_t free; /**< head of the free chain */
    uint32_t free_count;
};

struct session_table {
    struct session *sessions;
    struct slot *slots;
    uint32_t *by_id, *by_instance; /**< heads of chains; bucket_mask + 1 of each */
    uint32_t bucket_mask;
    uint32_t free;
    unsigned session_max, open_count, window;
    struct reply_store replies;
    uint32_t request_max, share, rest_max, rest_used, charge_max, charge_used;
};

struct session_limits {
    unsigned session_max;
    unsigned window;        /**< power of two */
    unsigned request_max;   /**< at least session_max */
    unsigned reply_buffers; /**< at least request_max + NET_REPLY_DATAGRAMS_MAX */
    size_t reply_bytes;     /**< largest stored datagram */
};

/** @return 0 or -ENOMEM (nothing is left behind) */
int session_table_open(struct session_table *table, const struct session_limits *limits);
void session_table_close(struct session_table *table);

/** @return NULL when there is none */
struct session *session_find(struct session_table *table, uint64_t id);
struct session *session_find_instance(struct session_table *table, const uint8_t instance[16]);

/** Open a session with a random id that nobody has. The caller fills peer, nonce, payload_max.
 *  @return NULL when every session is taken */
struct session *session_open(struct session_table *table, struct random *random,
                             const uint8_t instance[16], uint64_t now_ns);

/** Accept nothing more; forget it now if nothing is in progress. @return whether it is forgotten */
bool session_end(struct session_table *table, struct session *session);
/** Stored replies and the id are gone. Nothing may be in progress. */
void session_forget(struct session_table *table, struct session *session);

/** Whether this counter may be accepted. Changes nothing: first the tag has to be verified. */
bool session_counter_fresh(const struct session *session, uint64_t counter);
void session_counter_note(struct session *session, uint64_t counter);

/** Whether every request up to `acknowledged` has been replied to, so that a client can have the
 *  replies. */
bool session_acknowledgement_valid(const struct session_table *table, const struct session *session,
                                   uint64_t acknowledged);
/** Forget the replies up to a valid acknowledgement and move the credit. */
void session_acknowledge(struct session_table *table, struct session *session,
                         uint64_t acknowledged);

static inline struct slot *session_slot(const struct session_table *table,
                                        const struct session *session, uint64_t request) {
    return &session->slots[request & (table->window - 1)];
}

/** Reserve `datagrams` for the reply of a new request. @return 0, or -EAGAIN when there are not so
 *  many: one is always there */
int session_reserve(struct session_table *table, struct session *session, struct slot *slot,
                    unsigned datagrams);
/** Give back what the reply did not need. */
void session_reserve_trim(struct session_table *table, struct session *session, struct slot *slot,
                          unsigned datagrams);

/** Take a buffer for one datagram of a reply; one is there, for it was reserved. */
uint32_t reply_store_take(struct reply_store *store);
static inline uint8_t *reply_store_bytes(const struct reply_store *store, uint32_t index) {
    return store->bytes + (size_t)index * store->stride;
}

/** Zeroed, pre-faulted memory for `count` objects, on huge pages where it is large. free() it.
 *  @return NULL: none */
void *session_memory(size_t count, size_t bytes);

#endif

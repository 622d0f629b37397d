/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_CLIENT_CLIENT_INTERNAL_H
#define TALLY_NET_CLIENT_CLIENT_INTERNAL_H

#include <stdbool.h>
#include <sys/queue.h>

#include "engine/base/seams.h"
#include "net/client/tally.h"
#include "net/client/transport.h"
#include "net/protocol.h"

/** Inside libtally.
 *  Flow:  tally_submit -> queue -> [parcel: open -> ready -> sent] -> reply -> results -> done
 *  Owner: the client's thread. Bounds: parcel_count parcels, taken at open. Keeps: INV-4, INV-9.
 *
 *  A parcel is the content of one request datagram: events of one or more requests. Its request
 *  number lives for one transmission under that number (and its retransmissions); in a new
 *  session, or after `overloaded`, the same events get a new one. An event's result says how far
 *  it came: not_sent, then unknown once it is sent, then the server's answer. */

#define CLIENT_BURST 64             /**< datagrams handed to the transport at a time */
#define CLIENT_OPEN_PARCELS_MAX 128 /**< parcels that are still being filled: lcores x formats */
#define CLIENT_TIMEOUT_DEFAULT_MS 5000
#define CLIENT_SOCKET_BUFFER_DEFAULT (4u << 20)
#define CLIENT_WINDOW_DEFAULT 1024 /**< room for what a server may grant */
#define CLIENT_WINDOW_MAX 4096
/* timers of net/PROTOCOL.md sections 3, 4, 7 and 8 */
#define CLIENT_ACK_DELAY_NS (5 * NS_PER_MS)
#define CLIENT_ALIVE_NS                                                                            \
    (15 * NS_PER_SECOND) /**< an ACK is sent when nothing else was for so long */
#define CLIENT_RTO_INITIAL_NS (50 * NS_PER_MS)
/** Above the turns of a scheduler: on shared cores an answer is late far more often than lost. */
#define CLIENT_RTO_MIN_NS (20 * NS_PER_MS)
#define CLIENT_RTO_MAX_NS (1000 * NS_PER_MS)
#define CLIENT_PROBES_MAX 4 /**< requests that are sent again while nothing comes back */
#define CLIENT_PROBE_NS (25 * NS_PER_MS) /**< an ACK so often while nothing comes back */
#define CLIENT_PROBE_SHIFT_MAX 8         /**< doublings of the time between probes for credit */
#define CLIENT_SILENT_TIMEOUTS_MAX                                                                 \
    3 /**< timeouts in a row without any answer before the session counts as lost */
/** ... and at least so much silence, for a server on shared cores may be off its core for some
 *  turns of the scheduler. */
#define CLIENT_SILENCE_NS (150 * NS_PER_MS)
#define CLIENT_HELLO_RTO_NS (100 * NS_PER_MS)
#define CLIENT_HELLO_RTO_MAX_NS (1000 * NS_PER_MS)
#define CLIENT_OVERLOADS_MAX 3                /**< in a row before the window is halved */
#define CLIENT_BACKOFF_MIN_NS (NS_PER_MS / 4) /**< after `overloaded` without a retry-after */
#define CLIENT_BACKOFF_MAX_NS (200 * NS_PER_MS)
#define CLIENT_NEVER UINT64_MAX

struct parcel_item {
    struct tally_request *request; /**< NULL: given up, nobody waits for the answer */
    uint32_t index;                /**< of the event in the request */
};

enum parcel_state {
    PARCEL_FREE,
    PARCEL_OPEN,    /**< being filled */
    PARCEL_READY,   /**< waits for the window */
    PARCEL_SENT,    /**< has a number, waits for its reply */
    PARCEL_DELAYED, /**< refused as overloaded, waits for its time */
};

/** What two events must share to travel in one datagram. */
struct parcel_class {
    uint8_t operation;    /**< enum operation */
    uint8_t event_format; /**< enum event_format */
    uint8_t options;      /**< TALLY_REQUEST_BALANCES, TALLY_REQUEST_STALE_OK */
    uint8_t imported;     /**< a datagram imports or does not, as its first event says */
    uint8_t resent;       /**< the caller settles an unknown outcome */
    uint8_t lcore;
};

struct parcel {
    TAILQ_ENTRY(parcel) link;
    enum parcel_state state;
    struct parcel_class class;
    bool uncertain; /**< sent under an earlier number whose reply never came */
    bool settling;  /**< a lookup on behalf of resent chains (client_settle.c) */
    uint16_t item_count;
    uint16_t live;        /**< items with a request */
    uint16_t port;        /**< where it was first sent */
    uint8_t replies_seen; /**< bit per datagram of the reply */
    uint32_t datagram_bytes;
    uint64_t number;
    uint64_t first_sent_ns;
    uint64_t sent_ns;       /**< last transmission */
    uint64_t due_ns;        /**< SENT: retransmission; DELAYED: next try */
    uint64_t wait_ns;       /**< from the last transmission to the next, without jitter */
    unsigned transmissions; /**< under this number */
    unsigned silent_timeouts;
    unsigned refusals;         /**< in a row */
    struct parcel_item *items; /**< items_max */
    uint8_t *datagram;         /**< payload_max bytes */
};
TAILQ_HEAD(parcel_list, parcel);

enum request_phase {
    REQUEST_QUEUED = 1, /**< on the queue: some events are in no parcel yet */
    REQUEST_WAITING,    /**< ordered: the next events go when the ones on their way are answered */
    REQUEST_PACKED,     /**< every event is in a parcel */
    REQUEST_EXPIRED,
    REQUEST_DONE,
};

/** What the client keeps in tally_request.internal. */
struct request_state {
    struct tally_request *all_next, *all_prev;
    struct tally_request *queue_next;
    uint64_t deadline_ns;
    uint32_t next_event; /**< first one in no parcel */
    uint32_t pending;    /**< events without an answer */
    uint32_t in_flight;  /**< events in parcels */
    uint32_t phase;      /**< enum request_phase */
    uint16_t refused;    /**< enum tally_code of a parcel that the server refused as a whole */
    uint16_t resent;     /**< 1: an earlier request of the same events ended as unknown */
};
_Static_assert(sizeof(struct request_state) <= sizeof(((struct tally_request *)0)->internal),
               "fits");

/** Counters of one direction: the highest one seen, and which of the 1024 up to it. */
struct replay_window {
    uint64_t highest;
    uint64_t seen[NET_REPLAY_WINDOW / 64]; /**< bit counter % 1024 */
};

enum session_state {
    SESSION_HELLO,  /**< asks for a cookie */
    SESSION_COOKIE, /**< has a cookie, asks for a session */
    SESSION_OPEN,
};

struct session {
    enum session_state state;
    uint64_t id;
    uint64_t counter;            /**< of the last datagram sent */
    struct replay_window replay; /**< counters of the server's direction */
    uint64_t nonce;              /**< of the handshake */
    uint8_t instance[16];
    uint8_t cookie[16];
    uint64_t hello_due_ns, hello_rto_ns, hello_sent_ns;
    unsigned hello_tries; /**< with this nonce */
    uint64_t next_number; /**< of the next request, from 1 */
    uint64_t acknowledged, acknowledged_sent;
    uint64_t ack_due_ns;   /**< CLIENT_NEVER: none is owed */
    uint64_t probe_due_ns; /**< out of credit, or nothing comes back: when to ask again by an ACK */
    unsigned probes;       /**< of those, without any answer */
    uint64_t alive_due_ns; /**< when to show that this client lives */
    uint64_t credit;
    uint32_t window;     /**< outstanding at most: the least of server, options and room for them */
    uint32_t window_now; /**< of that, as `overloaded` allows */
    uint32_t window_gain; /**< answers since window_now last grew */
    uint32_t overloads;   /**< in a row */
    uint32_t outstanding;
    uint64_t last_answer_ns;
    uint64_t srtt_ns, rttvar_ns;
    /** Doubled by timeouts until a round trip is measured (RFC 6298, 5.5 to 5.7). */
    uint64_t rto_ns;
    uint64_t backoff_ns; /**< when the next timeout doubles it: many at one time count once */
    uint64_t retransmit_hint_ns; /**< nothing is due before */
    uint64_t opened_ns;
    struct parcel **by_number; /**< number % by_number_size */
    uint32_t by_number_size;   /**< a power of two, above every window */
    /* from WELCOME */
    uint8_t cell_id[16];
    bool cell_known;
    uint64_t term, hash_seed, cell_time_ns, id_window_ms;
    uint32_t partitions, lcores;
    uint32_t payload_max;
    bool id_time;
    uint16_t ports[LCORES_MAX];
    uint8_t placement[PARTITIONS_MAX];
};

/** How much fits one datagram. */
struct parcel_capacity {
    uint32_t ids;       /**< of a lookup */
    uint32_t events[2]; /**< by enum event_format */
};

struct tally_client {
    struct tally_options options;
    struct tally_transport *transport;
    struct clock *clock;
    struct random *random;
    uint64_t now_ns; /**< of this turn */
    uint64_t jitter; /**< generator's state */
    bool polling;    /**< inside of a turn: callbacks may run */
    bool closing;    /**< nothing more may be submitted */
    int epoll_fd, timer_fd;
    uint64_t timer_armed_ns;
    uint16_t payload_max; /**< room of a parcel and of a receive buffer */

    struct session session;

    struct parcel *parcels;
    uint32_t parcel_count, items_max;
    struct parcel_capacity capacity[2]; /**< without options, and with */
    struct parcel_list free, open, ready, sent, delayed;
    uint32_t open_count, ready_count;
    uint64_t delayed_hint_ns;

    struct tally_request *queue_head, **queue_tail; /**< not packed completely */
    struct tally_request *all_head;                 /**< every request that is not done */
    uint64_t expiry_hint_ns;
    uint32_t queued_events;
    unsigned completed; /**< in this poll */

    struct tally_transport_datagram tx[CLIENT_BURST];
    struct parcel *tx_parcels[CLIENT_BURST];
    struct tally_transport_datagram rx[CLIENT_BURST];
    uint8_t *rx_bytes;
    struct parcel_item *items; /**< of all parcels */
    uint8_t *datagrams;        /**< of all parcels */

    uint64_t id_ms, id_low; /**< of the last id */
    uint64_t ping_nonce, ping_sent_ns, ping_rtt_ns;
    struct tally_stats stats;
    char problem[160];
};

static inline struct request_state *request_state(const struct tally_request *request) {
    return (struct request_state *)(uintptr_t)request->internal;
}

/* --- client.c --------------------------------------------------------------------------------- */

/** Open without waiting for the server: what tests call, with their own network, clock and
 *  randomness.
 *  @return 0, -EINVAL, -ENOMEM, -errno */
int client_start(const struct tally_options *options, struct tally_transport *transport,
                 struct clock *clock, struct random *random, struct tally_client **client,
                 char *error, size_t error_bytes);
/** Nothing may be waited for any more; the client is about to be freed. */
void client_expire_all(struct tally_client *client);
void client_sleep(struct tally_client *client);
/** tally_request_wait() of events that may have taken effect before. */
int client_resend_wait(struct tally_client *client, struct tally_request *request);
/** Time of the next thing to do, or CLIENT_NEVER. */
uint64_t client_next_ns(const struct tally_client *client);
/** A number below 2^32, for jitter. */
uint32_t client_jitter(struct tally_client *client);
/** Mark the request's answer and call back. */
void client_request_complete(struct tally_client *client, struct tally_request *request);
/** One event of a parcel has its final answer. */
void client_item_done(struct tally_client *client, const struct parcel_item *item);
/** Pack what is queued and send what the window allows. @param flush also parcels that are not
 *  full */
void client_push(struct tally_client *client, bool flush);

/* --- client_open.c ---------------------------------------------------------------------------- */

/** Let the descriptor be readable at that time, or earlier. */
void client_timer_arm_at(struct tally_client *client, uint64_t when_ns);
/** ... when the next thing is to be done. */
void client_timer_arm(struct tally_client *client);
void client_timer_drain(struct tally_client *client);

/* --- client_pack.c: requests into parcels ----------------------------------------------------- */

/** Events of one datagram in this session, 1..items_max. */
uint32_t client_parcel_capacity(const struct tally_client *client,
                                const struct parcel_class *class);
/** The session's datagrams have another size. */
void client_parcel_note_payload(struct tally_client *client);
/** Where an event lives. */
uint8_t client_parcel_event_lcore(const struct tally_client *client, uint8_t operation,
                                  const void *events, uint32_t index);
/** @return 0, or -EMSGSIZE when a linked chain fits no datagram */
int client_parcel_check_chains(const struct tally_client *client,
                               const struct tally_request *request);
/** Move queued events into parcels until `ready_wanted` are ready, the queue or the parcels are
 *  used up. */
void client_parcel_pack(struct tally_client *client, uint32_t ready_wanted);
/** Parcels that are being filled become ready, the oldest first, until `ready_wanted` are. */
void client_parcel_flush(struct tally_client *client, uint32_t ready_wanted);
void client_parcel_move(struct tally_client *client, struct parcel *parcel,
                        enum parcel_state state);
/** Forget items whose request has expired. */
void client_parcel_forget_expired(struct tally_client *client);

/* --- client_wire.c: parcels and handshake into bytes ------------------------------------------ */

/** Write header fields that are new with every transmission: counter and tag. */
void client_wire_seal(uint8_t *datagram, uint32_t length, uint8_t type, uint64_t session,
                      uint64_t counter);
/** @return whether version, length, key phase and tag are right */
bool client_wire_verify(uint8_t *datagram, uint32_t length);
/** Take note of a verified counter. @return whether it is new */
bool client_wire_counter_accept(struct replay_window *window, uint64_t counter);
/** Encode the parcel's request (unsealed): drops items without request first. */
void client_wire_request_encode(struct parcel *parcel);
/** Set what is new with every transmission: acknowledgement, counter, tag. */
void client_wire_request_seal(struct parcel *parcel, uint64_t session, uint64_t counter,
                              uint64_t acknowledged);
uint32_t client_wire_hello_encode(const struct session *session, uint64_t nonce,
                                  const uint8_t cookie[16], uint16_t payload_max,
                                  uint8_t *datagram);

/** One reply datagram, taken apart and checked against its own length. */
struct wire_reply {
    struct net_reply_header header;
    uint32_t retry_after_us; /**< 0: not said */
    uint64_t token_term, token_seq;
    const uint8_t *entries;
    uint32_t entries_bytes;
};
/** @return 0 or -EBADMSG */
int client_wire_reply_decode(const uint8_t *datagram, uint32_t length, struct wire_reply *reply);

/* --- client_handshake.c ----------------------------------------------------------------------- */

void client_session_start(struct tally_client *client);
void client_session_handshake_timer(struct tally_client *client);
/** Give up the session and say HELLO; parcels on their way go again in the next one. */
void client_session_renew(struct tally_client *client, const char *why);
void client_session_receive(struct tally_client *client);
/** Send a HELLO whose COOKIE sets ping_rtt_ns. */
void client_session_ping(struct tally_client *client);

/* --- client_session.c: window, acknowledgements, timers --------------------------------------- */

/** A parcel has its whole answer: its number is free, the window moves. */
void client_session_parcel_answered(struct tally_client *client, struct parcel *parcel);
/** Its events go again later, under a new number: the server refused them before any effect, or
 *  does not know. */
void client_session_parcel_delay(struct tally_client *client, struct parcel *parcel,
                                 uint32_t retry_after_us);
void client_session_note_rtt(struct session *session, uint64_t sample_ns);
void client_session_note_load(struct session *session, bool overloaded);
void client_session_send_ack(struct tally_client *client);
uint64_t client_session_jittered(struct tally_client *client, uint64_t ns);
void client_session_timers(struct tally_client *client);
/** Request datagrams that may be sent now. */
uint32_t client_session_room(const struct tally_client *client);
void client_session_send_ready(struct tally_client *client);
void client_session_ack_if_due(struct tally_client *client);
void client_session_goodbye(struct tally_client *client);
uint64_t client_session_next_ns(const struct tally_client *client);

/* --- client_reply.c: answers into results ----------------------------------------------------- */

void client_reply_take(struct tally_client *client, struct parcel *parcel,
                       const struct wire_reply *reply);

/* --- client_settle.c -------------------------------------------------------------------------- */

/** A resent chain answers `exists` for one member and linked_event_failed for the others: look
 *  the members up.
 *  @return whether the parcel is on its way again, as that lookup */
bool client_settle_chains(struct tally_client *client, struct parcel *parcel);
/** Answer to such a lookup. */
void client_settle_entry(const struct parcel_item *item, uint8_t operation,
                         const struct result *result, const void *record);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_H
#define TALLY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** libtally: the client of a tally ledger, over UDP.
 *  Flow:  tally_submit -> datagrams, packed by destination -> tallyd -> results ->
 *          tally_request.done
 *  Owner: the thread that uses the client. One client is one thread's at a time; different
 *  clients share nothing.
 *  Bounds: all memory is taken by tally_client_open; requests, events and results are the
 *  caller's.
 *  Keeps: INV-4 (an event takes effect at most once, however often it is sent).
 *
 *  Every call that can fail operationally returns 0 or -errno. What became of an event stands in
 *  its result; what became of a request as a whole in its code. Amounts are whole numbers in the
 *  ledger's smallest unit; timestamps are nanoseconds of Unix time; integers are in the
 *  machine's order, which must be little-endian. */

__extension__ typedef unsigned __int128 tally_uint128_t;

#define TALLY_PORT_DEFAULT 7711
#define TALLY_EVENTS_MAX 8190 /**< events of one request */
#define TALLY_AMOUNT_MAX (~(tally_uint128_t)0)

#if defined(__GNUC__)
#define TALLY_API __attribute__((visibility("default")))
#else
#define TALLY_API
#endif

/* --- the data model: the same 128 bytes as on the wire ---------------------------------------- */

enum tally_account_flag {
    TALLY_ACCOUNT_LINKED = 1 << 0,
    TALLY_ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS = 1 << 1,
    TALLY_ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS = 1 << 2, /**< not together with the former */
    TALLY_ACCOUNT_HISTORY = 1 << 3,
    TALLY_ACCOUNT_IMPORTED = 1 << 4,
    TALLY_ACCOUNT_CLOSED = 1 << 5,
};

enum tally_transfer_flag {
    TALLY_TRANSFER_LINKED =
        1 << 0, /**< takes effect only together with the next event of the request */
    TALLY_TRANSFER_PENDING = 1 << 1,
    TALLY_TRANSFER_POST_PENDING = 1 << 2,
    TALLY_TRANSFER_VOID_PENDING = 1 << 3,
    TALLY_TRANSFER_BALANCING_DEBIT = 1 << 4,
    TALLY_TRANSFER_BALANCING_CREDIT = 1 << 5,
    TALLY_TRANSFER_CLOSING_DEBIT = 1 << 6,
    TALLY_TRANSFER_CLOSING_CREDIT = 1 << 7,
    TALLY_TRANSFER_IMPORTED = 1 << 8,
};

struct tally_account {
    tally_uint128_t id; /**< not 0, not 2^128-1 */
    tally_uint128_t debits_pending;
    tally_uint128_t debits_posted;
    tally_uint128_t credits_pending;
    tally_uint128_t credits_posted;
    tally_uint128_t user_data_128;
    uint64_t user_data_64;
    uint32_t user_data_32;
    uint32_t reserved; /**< zero */
    uint32_t ledger;
    uint16_t code;
    uint16_t flags;     /**< enum tally_account_flag */
    uint64_t timestamp; /**< ns; zero unless imported */
};

struct tally_transfer {
    tally_uint128_t id; /**< from tally_id(); not 0, not 2^128-1 */
    tally_uint128_t debit_account_id;
    tally_uint128_t credit_account_id;
    tally_uint128_t amount;
    tally_uint128_t pending_id;
    tally_uint128_t user_data_128;
    uint64_t user_data_64;
    uint32_t user_data_32;
    uint32_t timeout; /**< seconds, of a pending transfer; 0: never */
    uint32_t ledger;
    uint16_t code;
    uint16_t flags;     /**< enum tally_transfer_flag */
    uint64_t timestamp; /**< ns; zero unless imported */
};

struct tally_balances {
    tally_uint128_t debits_pending;
    tally_uint128_t debits_posted;
    tally_uint128_t credits_pending;
    tally_uint128_t credits_posted;
};

/** Statuses of transfers, in the order in which they are checked. X(name, number). */
#define TALLY_TRANSFER_STATUS_TABLE(X)                                                             \
    X(linked_event_chain_open, 2)                                                                  \
    X(linked_event_failed, 1)                                                                      \
    X(imported_event_expected, 56)                                                                 \
    X(imported_event_not_expected, 57)                                                             \
    X(timestamp_must_be_zero, 3)                                                                   \
    X(imported_event_timestamp_out_of_range, 58)                                                   \
    X(imported_event_timestamp_must_not_advance, 59)                                               \
    X(reserved_flag, 4)                                                                            \
    X(id_must_not_be_zero, 5)                                                                      \
    X(id_must_not_be_int_max, 6)                                                                   \
    X(not_authorized, 203)                                                                         \
    X(id_expired, 200)                                                                             \
    X(id_in_future, 201)                                                                           \
    X(exists_with_different_flags, 36)                                                             \
    X(exists_with_different_pending_id, 40)                                                        \
    X(exists_with_different_timeout, 44)                                                           \
    X(exists_with_different_debit_account_id, 37)                                                  \
    X(exists_with_different_credit_account_id, 38)                                                 \
    X(exists_with_different_amount, 39)                                                            \
    X(exists_with_different_user_data_128, 41)                                                     \
    X(exists_with_different_user_data_64, 42)                                                      \
    X(exists_with_different_user_data_32, 43)                                                      \
    X(exists_with_different_ledger, 67)                                                            \
    X(exists_with_different_code, 45)                                                              \
    X(exists, 46)                                                                                  \
    X(id_already_failed, 68)                                                                       \
    X(memory_full, 202)                                                                            \
    X(flags_are_mutually_exclusive, 7)                                                             \
    X(debit_account_id_must_not_be_zero, 8)                                                        \
    X(debit_account_id_must_not_be_int_max, 9)                                                     \
    X(credit_account_id_must_not_be_zero, 10)                                                      \
    X(credit_account_id_must_not_be_int_max, 11)                                                   \
    X(accounts_must_be_different, 12)                                                              \
    X(pending_id_must_be_zero, 13)                                                                 \
    X(pending_id_must_not_be_zero, 14)                                                             \
    X(pending_id_must_not_be_int_max, 15)                                                          \
    X(pending_id_must_be_different, 16)                                                            \
    X(timeout_reserved_for_pending_transfer, 17)                                                   \
    X(closing_transfer_must_be_pending, 64)                                                        \
    X(ledger_must_not_be_zero, 19)                                                                 \
    X(code_must_not_be_zero, 20)                                                                   \
    X(debit_account_not_found, 21)                                                                 \
    X(credit_account_not_found, 22)                                                                \
    X(accounts_must_have_the_same_ledger, 23)                                                      \
    X(transfer_must_have_the_same_ledger_as_accounts, 24)                                          \
    X(pending_id_expired, 210)                                                                     \
    X(pending_transfer_not_found, 25)                                                              \
    X(pending_transfer_not_pending, 26)                                                            \
    X(pending_transfer_has_different_debit_account_id, 27)                                         \
    X(pending_transfer_has_different_credit_account_id, 28)                                        \
    X(pending_transfer_has_different_ledger, 29)                                                   \
    X(pending_transfer_has_different_code, 30)                                                     \
    X(exceeds_pending_transfer_amount, 31)                                                         \
    X(pending_transfer_has_different_amount, 32)                                                   \
    X(pending_transfer_already_posted, 33)                                                         \
    X(pending_transfer_already_voided, 34)                                                         \
    X(pending_transfer_expired, 35)                                                                \
    X(imported_event_timestamp_must_not_regress, 60)                                               \
    X(imported_event_timestamp_must_postdate_debit_account, 61)                                    \
    X(imported_event_timestamp_must_postdate_credit_account, 62)                                   \
    X(imported_event_timeout_must_be_zero, 63)                                                     \
    X(debit_account_already_closed, 65)                                                            \
    X(credit_account_already_closed, 66)                                                           \
    X(overflows_debits_pending, 47)                                                                \
    X(overflows_credits_pending, 48)                                                               \
    X(overflows_debits_posted, 49)                                                                 \
    X(overflows_credits_posted, 50)                                                                \
    X(overflows_debits, 51)                                                                        \
    X(overflows_credits, 52)                                                                       \
    X(overflows_timeout, 53)                                                                       \
    X(exceeds_credits, 54)                                                                         \
    X(exceeds_debits, 55)                                                                          \
    X(created, 4294967295u)

/** Statuses of accounts, likewise. */
#define TALLY_ACCOUNT_STATUS_TABLE(X)                                                              \
    X(linked_event_chain_open, 2)                                                                  \
    X(linked_event_failed, 1)                                                                      \
    X(imported_event_expected, 22)                                                                 \
    X(imported_event_not_expected, 23)                                                             \
    X(timestamp_must_be_zero, 3)                                                                   \
    X(imported_event_timestamp_out_of_range, 24)                                                   \
    X(imported_event_timestamp_must_not_advance, 25)                                               \
    X(reserved_field, 4)                                                                           \
    X(reserved_flag, 5)                                                                            \
    X(id_must_not_be_zero, 6)                                                                      \
    X(id_must_not_be_int_max, 7)                                                                   \
    X(not_authorized, 203)                                                                         \
    X(exists_with_different_flags, 15)                                                             \
    X(exists_with_different_user_data_128, 16)                                                     \
    X(exists_with_different_user_data_64, 17)                                                      \
    X(exists_with_different_user_data_32, 18)                                                      \
    X(exists_with_different_ledger, 19)                                                            \
    X(exists_with_different_code, 20)                                                              \
    X(exists, 21)                                                                                  \
    X(memory_full, 202)                                                                            \
    X(flags_are_mutually_exclusive, 8)                                                             \
    X(debits_pending_must_be_zero, 9)                                                              \
    X(debits_posted_must_be_zero, 10)                                                              \
    X(credits_pending_must_be_zero, 11)                                                            \
    X(credits_posted_must_be_zero, 12)                                                             \
    X(ledger_must_not_be_zero, 13)                                                                 \
    X(code_must_not_be_zero, 14)                                                                   \
    X(imported_event_timestamp_must_not_regress, 26)                                               \
    X(created, 4294967295u)

/** Answers to the ids of a lookup; `expired`: so old that the ledger no longer knows. */
#define TALLY_LOOKUP_STATUS_TABLE(X)                                                               \
    X(found, 1)                                                                                    \
    X(absent, 2)                                                                                   \
    X(expired, 3)

/** What only the client can say of an event. Not from the server, and above all of its numbers but
 *  `created`. */
#define TALLY_CLIENT_STATUS_TABLE(X)                                                               \
    X(unknown, 1000)    /* sent, and no answer in time: it may have taken effect or not */         \
    X(overloaded, 1001) /* refused before any effect until the time was up */                      \
    X(not_sent, 1002)   /* never sent: no effect */                                                \
    X(refused, 1003)    /* the request's code says why: no effect */

#define X(name, number) TALLY_TRANSFER_STATUS_##name = number,
__extension__ enum tally_transfer_status { TALLY_TRANSFER_STATUS_TABLE(X) };
#undef X
#define X(name, number) TALLY_ACCOUNT_STATUS_##name = number,
__extension__ enum tally_account_status { TALLY_ACCOUNT_STATUS_TABLE(X) };
#undef X
#define X(name, number) TALLY_LOOKUP_STATUS_##name = number,
enum tally_lookup_status { TALLY_LOOKUP_STATUS_TABLE(X) };
#undef X
#define X(name, number) TALLY_STATUS_##name = number,
enum tally_client_status { TALLY_CLIENT_STATUS_TABLE(X) };
#undef X

/** Outcome of a whole request: the worst of its parts. */
enum tally_code {
    TALLY_OK = 0, /**< every event has the server's answer (which may well be a refusal) */
    /** Some events were refused before any effect, again and again until the deadline. */
    TALLY_OVERLOADED = 1,
    TALLY_MALFORMED = 2,             /**< the server could not read it: versions differ */
    TALLY_UNSUPPORTED_OPERATION = 3, /**< the server does not do this */
    /** Some events were sent and not answered in time: see tally_transfer_settle(). */
    TALLY_UNKNOWN = 4,
    TALLY_REPLICA_BEHIND = 5, /**< a replica that has not seen what was asked for */
    /** Some events were never sent, the others are answered: no effect of those. */
    TALLY_NOT_SENT = 6,
};

/** Names as written in the tables above; "?" for a number in no table. Never NULL. */
TALLY_API const char *tally_transfer_status_name(uint32_t status);
TALLY_API const char *tally_account_status_name(uint32_t status);
TALLY_API const char *tally_lookup_status_name(uint32_t status);
TALLY_API const char *tally_code_name(int code);

enum tally_result_flag {
    /** The event was sent again in a new session after an unknown outcome (its server was
     * restarted, or out of reach). Then `exists` means that it was created by one of the
     * transmissions, with the timestamp of that, and `id_already_failed` that one of them was
     * refused. */
    TALLY_RESULT_RESENT = 1 << 0,
};

struct tally_result {
    /** ns; of `exists` the first one, of a refusal the time of its decision; 0 where the server
     *  said nothing. */
    uint64_t timestamp;
    /** Enum tally_transfer_status, tally_account_status or tally_lookup_status, or
     *  tally_client_status. */
    uint32_t status;
    uint32_t flags; /**< enum tally_result_flag */
};

/* --- a client --------------------------------------------------------------------------------- */

struct tally_client;
struct tally_transport;

/** Zero means the default everywhere. */
struct tally_options {
    const char *server; /**< "ADDR", "ADDR:PORT" or "[IPv6]:PORT"; NULL: 127.0.0.1 */
    /** Of opening, and of a request that names none of its own; default 5000. */
    uint32_t timeout_ms;
    /** Datagrams outstanding at a time, default and at most what the server grants. */
    uint32_t window;
    /** Largest UDP payload in bytes; default 1472 over IPv4, 1452 over IPv6. */
    uint16_t payload_max;
    /** Wanted SO_RCVBUF and SO_SNDBUF; default 4 MiB (the kernel may give less). */
    uint32_t socket_buffer_bytes;
    /** Another packet path than a kernel socket. The client closes it, unless opening failed. */
    struct tally_transport *transport;
};

/** Open a client and a session on the server. Blocks until the server answered.
 *  @param error one line for a human when the answer is not 0
 *  @return 0, -EINVAL (the options), -ENOMEM, -ETIMEDOUT (no answer), -errno of the socket */
TALLY_API int tally_client_open(const struct tally_options *options, struct tally_client **client,
                                char *error, size_t error_bytes);

/** Say goodbye and free everything. Requests that are not done are done now, with what is known of
 *  them (`unknown` or `not_sent`). Not from a callback. */
TALLY_API void tally_client_close(struct tally_client *client);

/** A descriptor that is readable when tally_client_poll() has something to do; for poll, epoll or
 *  select. The client's own: neither read nor close it. -1 if the transport has none: poll without
 *  sleeping then. */
TALLY_API int tally_client_fd(const struct tally_client *client);

/** Go on: take what has arrived, send what is queued, retransmit what is late, end what is overdue,
 *  call back what is done. Never blocks. Not from a callback.
 *  @return requests completed in this call */
TALLY_API unsigned tally_client_poll(struct tally_client *client);

/** What stands in the way at the moment, in one line; "" while a session is open. Valid until the
 *  next call. */
TALLY_API const char *tally_client_problem(const struct tally_client *client);

/* --- requests --------------------------------------------------------------------------------- */

enum tally_operation {
    TALLY_CREATE_ACCOUNTS = 1,
    TALLY_CREATE_TRANSFERS = 2,
    TALLY_LOOKUP_ACCOUNTS = 3,
    TALLY_LOOKUP_TRANSFERS = 4,
};

enum tally_request_flag {
    /** Fill `balances`: of the debit account (or the account itself) after the event. */
    TALLY_REQUEST_BALANCES = 1 << 0,
    TALLY_REQUEST_STALE_OK = 1 << 1, /**< a lookup need not wait for the log */
    /** The events may execute in any order (each linked chain stays whole and in order): datagrams
     * are packed by destination and sent side by side. Without this flag the events of a request
     * behave as if executed one after the other, which costs a round trip per datagram of 22 plain
     * transfers or 11 other events. */
    TALLY_REQUEST_UNORDERED = 1 << 2,
};

/** One request. The caller owns it, fills in the first part (zero the rest), and leaves it and the
 *  arrays alone from tally_submit() until `done` is called, which happens exactly once. Small
 *  requests, of one event even, share datagrams. */
struct tally_request {
    uint32_t operation;  /**< enum tally_operation */
    uint32_t flags;      /**< enum tally_request_flag */
    uint32_t count;      /**< events or ids, 1..TALLY_EVENTS_MAX */
    uint32_t timeout_ms; /**< from submission; 0: the client's default */
    /** Count of struct tally_account, struct tally_transfer or (lookups) tally_uint128_t. */
    const void *events;
    struct tally_result *results; /**< count, filled */
    /** Count, filled with TALLY_REQUEST_BALANCES; zero where not known; else unused. */
    struct tally_balances *balances;
    /** Lookups: count of struct tally_account or struct tally_transfer, filled where `found`. */
    void *records;
    /** Called from tally_client_poll() or a blocking call (or tally_client_close()). May submit,
     * must not poll, block or close. */
    void (*done)(struct tally_client *client, struct tally_request *request);
    void *context; /**< the caller's */

    int code;      /**< answer: enum tally_code */
    uint64_t term; /**< answer: the newest (term, seq) that the results rest on */
    uint64_t seq;

    uint64_t internal[10]; /**< the client's */
};

/** Queue a request. It is sent by the next tally_client_poll(), or earlier when a datagram is full.
 *  @return 0, -EINVAL (operation, flags, count, missing arrays), -EMSGSIZE (a linked chain does not
 *  fit one datagram), -ESHUTDOWN (from a callback of a closing client). Nothing is queued then. */
TALLY_API int tally_submit(struct tally_client *client, struct tally_request *request);

/** Blocking calls. They submit, sleep on the descriptor and poll until the answer is there or the
 *  client's timeout is over; other requests' callbacks run meanwhile. In the order of the events.
 *  Not from a callback.
 *  @param results count, filled
 *  @param balances NULL or count, filled: the debit account's after each transfer
 *  @return 0 when every event has an answer of the server; -EINVAL, -EMSGSIZE as tally_submit();
 *  -ETIMEDOUT: some events are `unknown`; -EBUSY: some were refused as `overloaded`, none is
 *  unknown; -ENOTCONN: some were not sent, none is unknown; -EPROTO: the server refused the request
 *  as a whole */
TALLY_API int tally_create_accounts(struct tally_client *client,
                                    const struct tally_account *accounts, uint32_t count,
                                    struct tally_result *results);
TALLY_API int tally_create_transfers(struct tally_client *client,
                                     const struct tally_transfer *transfers, uint32_t count,
                                     struct tally_result *results, struct tally_balances *balances);
/** @param accounts count, filled where the result is TALLY_LOOKUP_STATUS_found */
TALLY_API int tally_lookup_accounts(struct tally_client *client, const tally_uint128_t *ids,
                                    uint32_t count, struct tally_result *results,
                                    struct tally_account *accounts);
TALLY_API int tally_lookup_transfers(struct tally_client *client, const tally_uint128_t *ids,
                                     uint32_t count, struct tally_result *results,
                                     struct tally_transfer *transfers);
/** Any request, blocking; `done` is not called. The code is in the request; the answer as above. */
TALLY_API int tally_request_wait(struct tally_client *client, struct tally_request *request);

enum tally_settle {
    TALLY_SETTLE_RESEND = 1, /**< send the same events again: what had no effect may take it now */
    /** Open a new session, which ends all that the old one sent, then look the ids up. */
    TALLY_SETTLE_LOOKUP = 2,
};

/** Settle transfers whose outcome is `unknown`. Blocks, like the calls above. Other requests of
 *  this client that are on their way are sent again in the new session.
 *  @param results count; after TALLY_SETTLE_RESEND as of tally_create_transfers with
 *  TALLY_RESULT_RESENT set, and never `not_sent`: what could not be sent again stays `unknown`; after TALLY_SETTLE_LOOKUP enum tally_lookup_status, where `found`
 *  carries the transfer's timestamp and `absent` says that it did not and will not take effect
 *  @return as the blocking calls */
TALLY_API int tally_transfer_settle(struct tally_client *client, enum tally_settle how,
                                    const struct tally_transfer *transfers, uint32_t count,
                                    struct tally_result *results);

/* --- ids -------------------------------------------------------------------------------------- */

/** A new transfer id: 48 bits of cell time in ms, 64 bits that grow within it, 16 bits of place.
 *  Later ids of a client are larger than earlier ones. Two clients make the same id with a
 *  probability below 2^-62 a pair and millisecond.
 *  @param home_account_id the debit account: the transfer is then decided where that account lives;
 *  0: anywhere */
TALLY_API tally_uint128_t tally_id(struct tally_client *client, tally_uint128_t home_account_id);

/** A new transfer id with the place of another transfer: for one that posts or voids it. */
TALLY_API tally_uint128_t tally_id_beside(struct tally_client *client, tally_uint128_t transfer_id);

/** The partition of an account, 0 .. partitions-1. */
TALLY_API uint32_t tally_account_partition(const struct tally_client *client,
                                           tally_uint128_t account_id);

/* --- looking in ------------------------------------------------------------------------------- */

/** The session, as the server's WELCOME said. */
struct tally_info {
    uint8_t cell_id[16];
    uint64_t session;
    uint64_t term;
    uint32_t partitions;
    uint32_t lcores;      /**< engine lcores, each with a UDP port */
    uint32_t payload_max; /**< bytes */
    uint32_t window;      /**< datagrams outstanding at most */
    uint32_t id_time;     /**< 1: ids carry time and expire */
    uint64_t id_window_ms;
};
TALLY_API void tally_client_info(const struct tally_client *client, struct tally_info *info);

/** Counters since the client was opened, and the present state. Times in nanoseconds. */
struct tally_stats {
    uint64_t datagrams_sent;
    uint64_t datagrams_received;
    uint64_t datagrams_bad;   /**< received and not understood: wrong tag, session, length */
    uint64_t requests_sent;   /**< request datagrams, each counted once */
    uint64_t retransmissions; /**< of request datagrams */
    uint64_t events_sent;     /**< each transmission under a new number counted */
    uint64_t duplicates;      /**< replies that were there already */
    uint64_t overloaded;      /**< request datagrams refused before any effect */
    uint64_t unknown;         /**< events that ended as `unknown` */
    uint64_t sessions;        /**< opened; 1 while nothing went wrong */
    uint64_t hellos;
    uint64_t rtt_ns;      /**< smoothed */
    uint64_t rttvar_ns;   /**< smoothed deviation */
    uint64_t rto_ns;      /**< retransmission timeout */
    uint32_t outstanding; /**< request datagrams on their way */
    uint32_t credit;      /**< request numbers that may still be used */
};
TALLY_API void tally_client_stats(const struct tally_client *client, struct tally_stats *stats);

/** One round trip of the handshake's first step, which touches no ledger. Blocks.
 *  @return 0 with *rtt_ns set, or -ETIMEDOUT */
TALLY_API int tally_ping(struct tally_client *client, uint32_t timeout_ms, uint64_t *rtt_ns);

/** The library's version, as "0.1.0". */
TALLY_API const char *tally_version(void);

#ifdef __cplusplus
}
#endif

#endif

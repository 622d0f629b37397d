/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_PROTOCOL_H
#define TALLY_NET_PROTOCOL_H

#include "engine/base/status.h"
#include "engine/base/types.h"

/** Every structure and limit on the wire. The words for it are in net/PROTOCOL.md. Little-endian,
 *  packed by layout: no field is misaligned relative to the start of the UDP payload.
 *
 *  Datagram:  net_header (40)  then, by type:
 *    HELLO    net_hello, zero padded to NET_HELLO_BYTES in all
 *    COOKIE   net_cookie
 *    WELCOME  net_welcome, then partitions x u8 placement
 *    REQUEST  net_request_header (24), options, events
 *    REPLY    net_reply_header (24), options, entries
 *    ACK      net_ack
 *    GOODBYE  nothing */

#define NET_VERSION 1
#define NET_UDP_PORT_DEFAULT 7711
#define NET_PAYLOAD_IPV4_DEFAULT 1472
#define NET_PAYLOAD_IPV6_DEFAULT 1452
#define NET_PAYLOAD_MAX 8952
#define NET_HELLO_BYTES 1400 /**< a HELLO is as long as the longest answer to it */
#define NET_WINDOW_DEFAULT                                                                         \
    256 /**< requests of a session that may be outstanding; a power of two, at least 64 */
#define NET_REPLAY_WINDOW 1024    /**< counters that are remembered behind the highest one */
#define NET_REPLY_DATAGRAMS_MAX 8 /**< a request whose answer could take more is `malformed` */

#define NET_COOKIE_LIFE_NS (5 * NS_PER_SECOND)
#define NET_SESSION_UNUSED_NS                                                                      \
    (10 * NS_PER_SECOND) /**< a session that never sent anything is forgotten */
#define NET_SESSION_IDLE_NS (60 * NS_PER_SECOND) /**< ... and so is one that fell silent */

enum net_type {
    NET_HELLO = 1,
    NET_COOKIE = 2,
    NET_WELCOME = 3,
    NET_REQUEST = 4,
    NET_REPLY = 5,
    NET_ACK = 6,
    NET_GOODBYE = 7,
};

/** 40 bytes. Associated data once there is encryption; plaintext then starts behind it. */
struct net_header {
    uint8_t version;   /**< NET_VERSION */
    uint8_t type;      /**< enum net_type */
    uint8_t key_phase; /**< 0 without encryption */
    uint8_t reserved[5];
    uint64_t session; /**< chosen by the server; 0 in HELLO and COOKIE */
    /** New for every transmission, also of the same request; per session and direction, from 1;
     *  0 in HELLO and COOKIE. */
    uint64_t counter;
    /** Without encryption: XXH3-128 (canonical form, seed 0) of the datagram with this field
     *  zero. */
    uint8_t tag[16];
};

/** 56 bytes. */
struct net_hello {
    /** Random, one per client object; a new session of it ends its old one. */
    uint8_t client_instance[16];
    uint64_t nonce;     /**< echoed; a new one for each session that is wanted */
    uint8_t cookie[16]; /**< zero at first, then as COOKIE said */
    /** Largest UDP payload that the client takes; 0: the default of the address family. */
    uint16_t payload_max;
    uint16_t reserved[3];
    uint64_t reserved2;
};

/** 40 bytes. */
struct net_cookie {
    uint64_t nonce;
    /** Time, and a keyed hash of it, address, port and instance; good for NET_COOKIE_LIFE_NS. */
    uint8_t cookie[16];
    uint64_t server_time_ns; /**< cell time, for the client's first ids */
    uint64_t reserved;
};

/** 240 bytes, then `partitions` bytes: the lcore that owns each partition. net_header.session is
 *  the new session. */
struct net_welcome {
    uint64_t nonce;
    uint8_t cell_id[16];
    uint64_t term;
    uint64_t hash_seed; /**< of the partition hash */
    uint64_t cell_time_ns;
    uint64_t credit; /**< highest request number that the client may use; numbers start at 1 */
    uint32_t partitions;
    uint16_t payload_max; /**< of every datagram of this session, both ways */
    uint16_t window;      /**< requests that may be outstanding */
    uint8_t id_time;      /**< 1: ids carry time */
    uint8_t lcores;       /**< ports that are used below */
    uint16_t reserved[3];
    uint64_t id_window_ms; /**< ids older than this may be refused */
    uint64_t reserved2[4];
    uint16_t ports[64]; /**< UDP port of each lcore */
};

/** 24 bytes. */
struct net_request_header {
    uint64_t request; /**< number: 1, 2, 3 ... each used for one request only */
    /** Replies to every request up to this number have been received; moves the window. */
    uint64_t acknowledged;
    uint8_t operation;    /**< enum operation */
    uint8_t event_format; /**< enum event_format */
    uint16_t event_count;
    uint16_t options_bytes; /**< a multiple of 8 */
    uint16_t reserved;
};

/** 24 bytes. A reply takes datagram_count datagrams, each with its own net_header. */
struct net_reply_header {
    uint64_t request;
    int32_t credit_ahead; /**< credit = request + credit_ahead */
    uint8_t code;         /**< enum request_code; entries only when it is ok */
    uint8_t operation;
    uint8_t datagram_index; /**< 0 .. datagram_count - 1 */
    uint8_t datagram_count;
    uint16_t entry_first; /**< index of the event that the first entry here answers */
    uint16_t entry_count;
    uint16_t options_bytes; /**< a multiple of 8 */
    uint16_t reserved;
};

/** 16 bytes. Moves the window when there is no request to send, keeps the session alive, and asks
 *  for the credit: the server answers each with one of its own. */
struct net_ack {
    uint64_t acknowledged; /**< client: as in a request; server: the window's lower edge */
    uint64_t credit;       /**< server: highest request number that the client may use; client: 0 */
};

/** Options: type, length of the value, value; type 0 is one byte of padding. Unknown types are
 *  skipped. */
enum net_option {
    NET_OPTION_PAD = 0,
    NET_OPTION_MINIMUM_TOKEN = 1, /**< request: u64 term, u64 seq */
    NET_OPTION_MAXIMUM_AGE = 2,   /**< request: u64 us */
    NET_OPTION_DEADLINE = 3,      /**< request: u64 us from arrival */
    NET_OPTION_BALANCES = 4,      /**< request: no value; entries carry balances */
    NET_OPTION_RECEIPT = 5,       /**< request: no value; not answered yet */
    NET_OPTION_STALE_OK = 6,      /**< request: no value */
    NET_OPTION_TOKEN = 16,        /**< reply: u64 term, u64 seq, u64 age in us */
    NET_OPTION_RETRY_AFTER = 17,  /**< reply with `overloaded`: u32 us */
};

/** Options of every reply datagram: TOKEN and RETRY_AFTER, or TOKEN and padding. */
#define NET_REPLY_OPTIONS_BYTES 32

/** Entries of a reply: create: struct result, then struct balances if they were wanted.
 *  lookup: struct result, then the 128-byte record if the status is `found`. An entry is never
 *  split. */

_Static_assert(sizeof(struct net_header) == 40, "40 bytes");
_Static_assert(sizeof(struct net_hello) == 56, "56 bytes");
_Static_assert(sizeof(struct net_cookie) == 40, "40 bytes");
_Static_assert(sizeof(struct net_welcome) == 240, "240 bytes");
_Static_assert(sizeof(struct net_request_header) == 24, "24 bytes");
_Static_assert(sizeof(struct net_reply_header) == 24, "24 bytes");
_Static_assert(sizeof(struct net_ack) == 16, "16 bytes");
_Static_assert(sizeof(struct net_header) + sizeof(struct net_welcome) + PARTITIONS_MAX <=
                   NET_HELLO_BYTES,
               "a WELCOME is never longer than the HELLO that asked for it");

#endif

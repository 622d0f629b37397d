/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_NET_H
#define TALLY_NET_NET_H

#include "engine/base/seams.h"
#include "engine/engine.h"

/** Packets on one side, engine requests on the other, for one engine lcore and its port.
 *  Flow:  port -> [net_rx] -> engine -> [net_reply] -> [net_flush] -> port
 *  Owner: the engine lcore. Bounds: session_max x window. Keeps: INV-4, INV-9, INV-10.
 *  Format: net/PROTOCOL.md. No thread, clock, file or global inside: time and randomness come in. */

struct net;
struct rte_mempool;

struct net_config {
    struct port *port;
    struct random *random;
    struct rte_mempool *pool; /**< for replies; received packets bring their own */
    uint8_t mac[6];
    uint8_t ipv4[4];  /**< all zero: no IPv4 */
    uint8_t ipv6[16]; /**< all zero: no IPv6 */
    uint16_t udp_port;
    /** UDP payload over IPv4 that the port's MTU allows (MTU - 28), NET_HELLO_BYTES + 20 to
     *  NET_PAYLOAD_MAX. Over IPv6 it is 20 less. */
    uint16_t payload_max;
    bool tx_checksum_ipv4;    /**< the port fills in IPv4 header checksums */
    bool tx_checksum_udp;     /**< the port fills in UDP checksums */
    bool rx_checksum_trusted; /**< the port's verdict GOOD may be believed */
    unsigned session_max;     /**< sessions at a time; at most request_max */
    unsigned window;          /**< requests of a session; a power of two, at least 64 */
    /** Stored reply datagrams, all sessions together. What is above request_max serves long
     *  replies. */
    unsigned reply_buffers;
    /** Requests of all sessions together that may be outstanding, and so the sum of all credits.
     *  0: half of reply_buffers, at most NET_REQUESTS_DEFAULT_MAX. */
    unsigned request_max;
    uint64_t queueing_delay_max_ns; /**< beyond it new requests are `overloaded` */
    struct wal_identity identity;
    term_t term;
    uint16_t lcores;
    uint16_t ports[LCORES_MAX];
    const uint8_t *placement; /**< identity.partitions bytes */
    uint64_t id_window_ms;
};

#define NET_REQUESTS_DEFAULT_MAX 4096 /**< each takes 12 KB with payloads of 1472 bytes */

/** @return 0, -ENOMEM, -EINVAL (with `error` filled) */
int net_open(const struct net_config *config, struct net **net, char *error, size_t error_bytes);
void net_close(struct net *net);

/** Receive a burst, answer what needs no engine (ARP, neighbour discovery, echo, handshakes,
 *  duplicates, refusals), and decode the rest. @return requests decoded; `requests` has room for
 *  NET_BURST of them. Each goes back through net_reply. */
#define NET_BURST 32
unsigned net_rx(struct net *net, uint64_t now_ns, uint64_t cell_time_ns,
                struct engine_request **requests, unsigned *packets);

/** Encode, store and queue the reply of a completed request. */
void net_reply(struct net *net, struct engine_request *request, uint64_t now_ns);

/** Queueing delay as the lcore sees it now: with it net_rx decides on `overloaded`. */
void net_note_delay(struct net *net, uint64_t queueing_delay_ns);

/** Send what is queued; housekeeping of idle sessions. @return packets sent */
unsigned net_flush(struct net *net, uint64_t now_ns);

/** Announce our address once (gratuitous ARP, unsolicited neighbour advertisement). */
void net_announce(struct net *net);

/** Everything that arrived and what became of it. X(name, what). */
#define NET_COUNTER_TABLE(X)                                                                       \
    X(rx_packets, "packets received")                                                              \
    X(tx_packets, "packets sent")                                                                  \
    X(tx_dropped, "packets that the port did not take; their replies are resent on demand")        \
    X(arp, "ARP packets handled")                                                                  \
    X(icmp, "echo requests and neighbour solicitations handled")                                   \
    X(drop_ethernet, "not for us, or not IP or ARP")                                               \
    X(drop_ip, "bad IP header: length, version, checksum, options")                                \
    X(drop_fragment, "fragments")                                                                  \
    X(drop_protocol, "IP, but neither UDP nor an echo request or neighbour solicitation")          \
    X(drop_udp, "bad UDP: length, checksum, zero checksum, wrong port")                            \
    X(drop_header, "bad datagram header: short, version, type")                                    \
    X(drop_session, "unknown session")                                                             \
    X(drop_tag, "tag does not verify")                                                             \
    X(drop_replay, "counter seen before or too old")                                               \
    X(drop_window, "request number below or beyond the window")                                    \
    X(drop_malformed, "handshake or acknowledgement that does not parse")                          \
    X(malformed, "requests refused as malformed or unsupported")                                   \
    X(overloaded, "requests refused before any effect")                                            \
    X(behind, "requests refused because their minimum token is ahead of us")                       \
    X(duplicates, "requests seen again: reply resent, or still in progress")                       \
    X(requests, "requests passed to the engine")                                                   \
    X(events, "events in them")                                                                    \
    X(replies, "replies encoded")                                                                  \
    X(acks, "ACKs answered")                                                                       \
    X(goodbyes, "GOODBYEs taken")                                                                  \
    X(hellos, "HELLOs answered")                                                                   \
    X(hellos_waiting,                                                                              \
      "HELLOs not answered: the old session has requests in progress, or the new one is in use")   \
    X(sessions_full, "HELLOs not answered because every session is taken")                         \
    X(sessions, "sessions opened")                                                                 \
    X(sessions_ended, "sessions ended by their client")                                            \
    X(sessions_timed_out, "sessions forgotten because nothing came any more")

struct net_counters {
#define X(name, what) uint64_t name;
    NET_COUNTER_TABLE(X)
#undef X
};
const struct net_counters *net_counters(const struct net *net);

#endif

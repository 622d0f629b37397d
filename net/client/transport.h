/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_CLIENT_TRANSPORT_H
#define TALLY_NET_CLIENT_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

/** The client's packet path: bursts of UDP payloads to and from one server address.
 *  Flow:  session -> [transport] -> network -> [transport] -> session
 *  Owner: the client's thread. Bounds: the implementation's queues; what they do not take stays
 *  the caller's. Implementations embed struct tally_transport as their first member. */

struct tally_transport_datagram {
    uint8_t *bytes;  /**< UDP payload */
    uint32_t length; /**< send: bytes of it; receive: room before, bytes after */
    uint16_t port;   /**< UDP port of the server: destination, or source */
};

struct tally_transport {
    /** @return how many were taken, at most `count`; the rest stay the caller's (the queue is
     *           full) */
    unsigned (*send)(struct tally_transport *transport,
                     const struct tally_transport_datagram *datagrams, unsigned count);
    /** Only what the server's address sent; longer datagrams than there is room for are left out.
     *  @return how many were received, at most `count`; 0 when nothing waits */
    unsigned (*receive)(struct tally_transport *transport,
                        struct tally_transport_datagram *datagrams, unsigned count);
    /** A descriptor that is readable when something waits, or -1: the path has to be polled. */
    int (*fd)(struct tally_transport *transport);
    void (*close)(struct tally_transport *transport);
    uint16_t server_port; /**< where a HELLO goes */
    uint16_t payload_max; /**< largest UDP payload of the path by default, bytes */
};

/** Over an ordinary UDP socket. Not connected, for the server answers from several ports.
 *  @param server as in struct tally_options
 *  @param error one line when the answer is not 0
 *  @return 0, -EINVAL (the address), -ENOMEM, -errno */
int transport_socket_open(const char *server, uint32_t buffer_bytes,
                          struct tally_transport **transport, char *error, size_t error_bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/client/transport.h"
#include "net/protocol.h"

/** A UDP socket: sendmmsg and recvmmsg, SOCKET_BURST at a time. */

#define SOCKET_BURST 64

struct transport_socket {
    struct tally_transport base;
    int fd;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } server;
    socklen_t server_bytes;
    struct sockaddr_storage names[SOCKET_BURST];
    struct iovec iov[SOCKET_BURST];
    struct mmsghdr messages[SOCKET_BURST];
};

static void socket_name(const struct transport_socket *socket, uint16_t port,
                        struct sockaddr_storage *name) {
    memcpy(name, &socket->server, sizeof(socket->server));
    if (socket->server.any.sa_family == AF_INET)
        ((struct sockaddr_in *)name)->sin_port = htons(port);
    else
        ((struct sockaddr_in6 *)name)->sin6_port = htons(port);
}

static unsigned socket_send(struct tally_transport *transport,
                            const struct tally_transport_datagram *datagrams, unsigned count) {
    struct transport_socket *socket = (struct transport_socket *)transport;
    unsigned done = 0;
    count = count < SOCKET_BURST ? count : SOCKET_BURST;
    for (unsigned i = 0; i < count; i++) {
        socket_name(socket, datagrams[i].port, &socket->names[i]);
        socket->iov[i] =
            (struct iovec){.iov_base = datagrams[i].bytes, .iov_len = datagrams[i].length};
        socket->messages[i].msg_hdr = (struct msghdr){.msg_name = &socket->names[i],
                                                      .msg_namelen = socket->server_bytes,
                                                      .msg_iov = &socket->iov[i],
                                                      .msg_iovlen = 1};
    }
    while (done < count) {
        int sent = sendmmsg(socket->fd, socket->messages + done, count - done, MSG_DONTWAIT);
        if (sent > 0)
            done += (unsigned)sent;
        else if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS))
            break;
        else if (sent < 0 && errno != EINTR)
            done++; /* unreachable and the like: lost on the way, and sent again by the timer */
    }
    return done;
}

/** The source port, or 0 when it is not the server's address. */
static uint16_t socket_source(const struct transport_socket *socket,
                              const struct sockaddr_storage *name) {
    if (name->ss_family != socket->server.any.sa_family)
        return 0;
    if (name->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)name;
        return v4->sin_addr.s_addr == socket->server.v4.sin_addr.s_addr ? ntohs(v4->sin_port) : 0;
    }
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)name;
    return memcmp(&v6->sin6_addr, &socket->server.v6.sin6_addr, 16) == 0 ? ntohs(v6->sin6_port) : 0;
}

static unsigned socket_receive(struct tally_transport *transport,
                               struct tally_transport_datagram *datagrams, unsigned count) {
    struct transport_socket *socket = (struct transport_socket *)transport;
    unsigned kept = 0;
    count = count < SOCKET_BURST ? count : SOCKET_BURST;
    for (unsigned i = 0; i < count; i++) {
        socket->iov[i] =
            (struct iovec){.iov_base = datagrams[i].bytes, .iov_len = datagrams[i].length};
        socket->messages[i].msg_hdr = (struct msghdr){.msg_name = &socket->names[i],
                                                      .msg_namelen = sizeof(socket->names[i]),
                                                      .msg_iov = &socket->iov[i],
                                                      .msg_iovlen = 1};
    }
    int received = recvmmsg(socket->fd, socket->messages, count, MSG_DONTWAIT, NULL);
    for (int i = 0; i < received; i++) {
        uint16_t port = socket_source(socket, &socket->names[i]);
        if (port == 0 || socket->messages[i].msg_hdr.msg_flags & MSG_TRUNC)
            continue;
        /* buffers change places, so that what is kept stands in front */
        struct tally_transport_datagram whole = {
            .bytes = datagrams[i].bytes, .length = socket->messages[i].msg_len, .port = port};
        datagrams[i] = datagrams[kept];
        datagrams[kept++] = whole;
    }
    return kept;
}

static int socket_fd(struct tally_transport *transport) {
    return ((struct transport_socket *)transport)->fd;
}

static void socket_close(struct tally_transport *transport) {
    struct transport_socket *socket = (struct transport_socket *)transport;
    close(socket->fd);
    free(socket);
}

/** Take "ADDR", "ADDR:PORT", "[IPv6]", "[IPv6]:PORT" or a bare IPv6 address apart. @return 0 or
 *  -EINVAL */
static int server_split(const char *server, char *host, size_t host_bytes, char *port,
                        size_t port_bytes) {
    const char *end = server + strlen(server), *colon = strrchr(server, ':');
    snprintf(port, port_bytes, "%d", NET_UDP_PORT_DEFAULT);
    if (*server == '[') {
        const char *bracket = strchr(server, ']');
        if (!bracket || (bracket[1] && bracket[1] != ':'))
            return -EINVAL;
        colon = bracket[1] ? bracket + 1 : NULL;
        server++;
        end = bracket;
    } else if (colon && strchr(server, ':') != colon) {
        colon = NULL; /* several colons: an IPv6 address without a port */
    } else if (colon) {
        end = colon;
    }
    if (colon) {
        char *rest;
        long number = strtol(colon + 1, &rest, 10);
        if (*rest || rest == colon + 1 || number < 1 || number > 65535)
            return -EINVAL;
        snprintf(port, port_bytes, "%ld", number);
    }
    if (end == server || (size_t)(end - server) >= host_bytes)
        return -EINVAL;
    memcpy(host, server, (size_t)(end - server));
    host[end - server] = 0;
    return 0;
}

static int socket_resolve(const char *server, struct transport_socket *socket, char *error,
                          size_t error_bytes) {
    char host[256], port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *found;
    if (server_split(server, host, sizeof(host), port, sizeof(port)) < 0) {
        snprintf(error, error_bytes, "server '%s' is not ADDR, ADDR:PORT or [IPv6]:PORT", server);
        return -EINVAL;
    }
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc) {
        snprintf(error, error_bytes, "server '%s': %s", server, gai_strerror(rc));
        return -EINVAL;
    }
    memcpy(&socket->server, found->ai_addr, found->ai_addrlen);
    socket->server_bytes = found->ai_addrlen;
    socket->base.server_port = ntohs(found->ai_family == AF_INET ? socket->server.v4.sin_port
                                                                 : socket->server.v6.sin6_port);
    socket->base.payload_max =
        found->ai_family == AF_INET ? NET_PAYLOAD_IPV4_DEFAULT : NET_PAYLOAD_IPV6_DEFAULT;
    freeaddrinfo(found);
    return 0;
}

int transport_socket_open(const char *server, uint32_t buffer_bytes,
                          struct tally_transport **transport, char *error, size_t error_bytes) {
    struct transport_socket *out = calloc(1, sizeof(*out));
    if (!out) {
        snprintf(error, error_bytes, "no memory for a socket");
        return -ENOMEM;
    }
    int rc = socket_resolve(server, out, error, error_bytes);
    if (rc == 0) {
        out->fd = socket(out->server.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (out->fd < 0) {
            rc = -errno;
            snprintf(error, error_bytes, "no UDP socket: %s", strerror(errno));
        }
    }
    if (rc < 0) {
        free(out);
        return rc;
    }
    /* best effort: without privileges the kernel bounds the buffers by net.core.rmem_max; and
     * the server drops fragments in any case */
    int bytes = (int)buffer_bytes, probe = IP_PMTUDISC_PROBE;
    if (setsockopt(out->fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
        setsockopt(out->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    if (setsockopt(out->fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        setsockopt(out->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    if (out->server.any.sa_family == AF_INET)
        setsockopt(out->fd, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof(probe));
    else
        setsockopt(out->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &probe, sizeof(probe));
    out->base.send = socket_send;
    out->base.receive = socket_receive;
    out->base.fd = socket_fd;
    out->base.close = socket_close;
    *transport = &out->base;
    return 0;
}

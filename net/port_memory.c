/* SPDX-License-Identifier: Apache-2.0 */
#include "net/port_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_mbuf.h>

static bool queue_push(struct port_memory_queue *queue, struct rte_mbuf *packet) {
    if (queue->count == queue->depth)
        return false;
    queue->packets[(queue->first + queue->count++) % queue->depth] = packet;
    return true;
}

static struct rte_mbuf *queue_pop(struct port_memory_queue *queue) {
    if (queue->count == 0)
        return NULL;
    struct rte_mbuf *packet = queue->packets[queue->first];
    queue->first = (queue->first + 1) % queue->depth;
    queue->count--;
    return packet;
}

static unsigned memory_rx(struct port *port, struct rte_mbuf **packets, unsigned count) {
    struct port_memory *memory = (struct port_memory *)port;
    unsigned taken = 0;
    while (taken < count && (packets[taken] = queue_pop(&memory->rx)) != NULL)
        taken++;
    return taken;
}

static unsigned memory_tx(struct port *port, struct rte_mbuf **packets, unsigned count) {
    struct port_memory *memory = (struct port_memory *)port;
    unsigned sent = 0;
    while (sent < count && queue_push(&memory->tx, packets[sent]))
        sent++;
    return sent;
}

int port_memory_open(struct port_memory *port, struct rte_mempool *pool, unsigned depth) {
    *port = (struct port_memory){
        .port = {.rx = memory_rx, .tx = memory_tx},
        .pool = pool,
        .rx = {.packets = calloc(depth, sizeof(struct rte_mbuf *)), .depth = depth},
        .tx = {.packets = calloc(depth, sizeof(struct rte_mbuf *)), .depth = depth},
    };
    if (port->rx.packets != NULL && port->tx.packets != NULL)
        return 0;
    port_memory_close(port);
    return -ENOMEM;
}

void port_memory_close(struct port_memory *port) {
    struct rte_mbuf *packet;
    while ((packet = queue_pop(&port->rx)) != NULL || (packet = queue_pop(&port->tx)) != NULL)
        rte_pktmbuf_free(packet);
    free(port->rx.packets);
    free(port->tx.packets);
    port->rx.packets = port->tx.packets = NULL;
}

int port_memory_put(struct port_memory *port, const void *frame, size_t bytes) {
    struct rte_mbuf *packet = rte_pktmbuf_alloc(port->pool);
    if (packet == NULL)
        return -ENOMEM;
    if (bytes > rte_pktmbuf_tailroom(packet)) {
        rte_pktmbuf_free(packet);
        return -EMSGSIZE;
    }
    if (bytes > 0) /* an empty frame may come as NULL */
        memcpy(rte_pktmbuf_append(packet, (uint16_t)bytes), frame, bytes);
    if (queue_push(&port->rx, packet))
        return 0;
    rte_pktmbuf_free(packet);
    return -EAGAIN;
}

size_t port_memory_take(struct port_memory *port, void *frame, size_t bytes_max) {
    struct rte_mbuf *packet = queue_pop(&port->tx);
    if (packet == NULL)
        return 0;
    size_t bytes = packet->data_len;
    memcpy(frame, rte_pktmbuf_mtod(packet, void *), bytes < bytes_max ? bytes : bytes_max);
    rte_pktmbuf_free(packet);
    return bytes;
}

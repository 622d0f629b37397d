/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_PORT_MEMORY_H
#define TALLY_NET_PORT_MEMORY_H

#include "engine/base/seams.h"

/** A port without a wire, for tests and simulation: two bounded queues of packets in memory.
 *  Flow:  port_memory_put -> [rx queue] -> port.rx;  port.tx -> [tx queue] -> port_memory_take
 *  Owner: one thread. Bounds: `depth` packets each way. */

struct rte_mempool;

struct port_memory_queue {
    struct rte_mbuf **packets;
    unsigned depth, first, count;
};

struct port_memory {
    struct port port; /**< first: a pointer to it is a pointer to this */
    struct rte_mempool *pool;
    struct port_memory_queue rx, tx;
};

/** @param pool  where port_memory_put takes packets from. @return 0 or -ENOMEM */
int port_memory_open(struct port_memory *port, struct rte_mempool *pool, unsigned depth);
/** Packets that are still queued go back to their pools. */
void port_memory_close(struct port_memory *port);

/** Let a frame arrive. @return 0, -EAGAIN (queue full), -ENOMEM (no packet left) or -EMSGSIZE (too
 *  long for one) */
int port_memory_put(struct port_memory *port, const void *frame, size_t bytes);
/** Take the oldest frame that was sent. @return its length, 0 when there is none; what does not fit
 *  `bytes_max` is cut */
size_t port_memory_take(struct port_memory *port, void *frame, size_t bytes_max);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_PORT_H
#define TALLY_TESTS_SIM_SIM_PORT_H

#include "engine/base/seams.h"
#include "net/packet.h"
#include "tests/sim/oracle.h"
#include "tests/sim/sim_network.h"

/** A node's port on the simulated network. The oracle sees every datagram that the node takes or gives away.
 *  Flow:  sim_network -> sim_port_deliver -> [queue] -> port.rx -> net;  net -> port.tx -> sim_network
 *  Owner: one node. Bounds: SIM_PORT_DEPTH packets that were not taken yet, as a NIC's ring. */

#define SIM_PORT_DEPTH 512

struct rte_mempool;

struct sim_port {
    struct port port; /**< first */
    struct sim *sim;
    struct sim_random random;
    struct sim_network *network;
    struct oracle *oracle;
    struct rte_mempool *pool;
    unsigned endpoint;
    struct packet_self self;
    struct rte_mbuf *queue[SIM_PORT_DEPTH];
    unsigned first, count;
    uint32_t tx_full_ppm; /**< bursts of which the port takes a part only */
    bool dead;            /**< the node is gone: what it still sends is not sent */
    /** Which endpoint has an address. @return SIM_ENDPOINTS: none */
    unsigned (*find)(void *context, const uint8_t mac[6]);
    void *context;
};

void sim_port_open(struct sim_port *port, struct sim *sim, struct sim_network *network,
                   struct rte_mempool *pool, unsigned number);
/** Whatever waits is dropped. */
void sim_port_clear(struct sim_port *port);
/** A frame arrives. What the ring has no room for is lost. */
void sim_port_deliver(struct sim_port *port, const struct sim_frame *frame);

#endif

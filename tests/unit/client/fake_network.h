/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_UNIT_CLIENT_FAKE_NETWORK_H
#define TALLY_TESTS_UNIT_CLIENT_FAKE_NETWORK_H

#include "tests/unit/client/fake_server.h"

/** A client's transport, clock and randomness over a virtual network with one fake server behind
 *  it. Time goes on by `tick_ns` whenever the client reads the clock, and what is due is
 *  delivered then: one seed is one history.
 *  Owner: the test. Bounds: FAKE_DATAGRAMS_MAX on their way. */

#define FAKE_DATAGRAMS_MAX 4096

struct fake_datagram {
    uint64_t due_ns;
    uint64_t order;
    bool to_server;
    uint16_t port;
    uint32_t length;
    uint8_t bytes[NET_PAYLOAD_IPV4_DEFAULT];
};

struct fake_network {
    struct tally_transport transport; /**< first, as transport.h asks */
    struct clock clock;
    struct random random_source;
    struct fake_server server;
    uint64_t now_ns, tick_ns;
    uint64_t random;
    /* faults, both ways */
    unsigned loss_percent, duplicate_percent;
    uint64_t delay_ns, jitter_ns;        /**< one way; jitter reorders */
    bool full;                           /**< the transport takes nothing */
    uint64_t restart_at_ns, dead_for_ns; /**< kill the server then, for so long; 0: never */
    /* on their way */
    struct fake_datagram *datagrams;
    unsigned count;
    uint64_t order;
    uint64_t sent, lost;
};

struct fake_network *fake_network_open(uint64_t seed);
void fake_network_close(struct fake_network *network);

/** A client on it, with an open session. @return NULL when that did not succeed */
struct tally_client *fake_client_open(struct fake_network *network,
                                      const struct tally_options *options);

/** Turn the client until *done, or the virtual time is over. @return *done */
bool fake_client_run(struct fake_network *network, struct tally_client *client, const bool *done,
                     uint64_t for_ns);

#endif

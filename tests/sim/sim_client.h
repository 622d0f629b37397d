/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_CLIENT_H
#define TALLY_TESTS_SIM_SIM_CLIENT_H

#include "engine/base/seams.h"
#include "net/client/client_internal.h"
#include "tests/sim/oracle.h"
#include "tests/sim/sim_work.h"

/** A client: the shipped library over a simulated transport, clock and randomness, and an application that never lets go of a
 *  request once the faults have stopped.
 *  Flow:  sim_work -> [sim_client] -> libtally -> sim_network;  sim_network -> inbox -> libtally
 *  Owner: one world. Bounds: SIM_INBOX datagrams not taken yet, SIM_OUTSTANDING requests. */

#define SIM_INBOX 256
#define SIM_OUTSTANDING 8

struct sim_client {
    struct tally_transport transport; /**< first */
    struct sim *sim;
    const struct sim_work_plan *plan;
    struct sim_book *book;
    struct sim_network *network;
    struct oracle *oracle; /**< that what the library tells is shown to */
    struct sim_random random;
    struct clock clock;
    struct random seam_random;
    struct sim_random seam_state;
    struct packet_self self;
    struct packet_peer server;
    unsigned endpoint, server_endpoint;
    struct tally_client *library; /**< NULL: it is not there */
    bool mute;                    /**< it died: nothing that the library still sends is sent */
    bool quiet;                   /**< no new requests; those that are open are settled */
    uint64_t back_ns;             /**< when it comes back */
    uint64_t submit_ns;           /**< the next new request */
    uint64_t think_ns;
    uint64_t next_ns;
    unsigned first;   /**< accounts created so far */
    unsigned checked; /**< accounts looked up in the end, up to `check` */
    unsigned check;
    unsigned left;    /**< requests still to be made */
    uint64_t numbers; /**< requests made */
    struct sim_frame *inbox[SIM_INBOX];
    unsigned inbox_first, inbox_count;
    struct sim_request *requests; /**< SIM_OUTSTANDING */
    char name[12];
};

void sim_client_open(struct sim_client *client, struct sim *sim, const struct sim_plan *plan,
                     struct sim_book *book, struct sim_network *network, unsigned number);
void sim_client_close(struct sim_client *client);
/** Who it talks to. */
void sim_client_serve_by(struct sim_client *client, const struct packet_self *server,
                         unsigned endpoint);

void sim_client_deliver(struct sim_client *client, struct sim_frame *frame);
uint64_t sim_client_next_ns(const struct sim_client *client);
void sim_client_step(struct sim_client *client);

/** It dies, or says goodbye; it comes back as another instance. */
void sim_client_leave(struct sim_client *client, bool crash, uint64_t back_ns);
/** No new requests, but a lookup of every account. */
void sim_client_quiet(struct sim_client *client);
/** Whether everything it asked for is settled. */
bool sim_client_settled(const struct sim_client *client);
/** What it is still waiting for, for messages. */
void sim_client_describe(const struct sim_client *client, char *text, size_t bytes);

#endif

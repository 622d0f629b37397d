/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_WORK_H
#define TALLY_TESTS_SIM_SIM_WORK_H

#include "net/client/tally.h"
#include "tests/sim/sim_plan.h"

/** What clients ask for: requests drawn by the seed's weights, from accounts and transfers that all clients know of.
 *  Flow:  sim_client -> [sim_work] -> tally_request
 *  Owner: one world. Decides nothing about what is right; most of it is wrong now and then on purpose. */

#define SIM_EVENTS_MAX 64
#define SIM_BOOK 256

/** What was asked for lately, for retries, resolutions and lookups. */
struct sim_book {
    struct sim *sim;
    const struct sim_work_plan *plan;
    struct sim_random random;
    uint128_t account_base;                    /**< account i has this id plus i */
    struct tally_transfer transfers[SIM_BOOK]; /**< the newest at (count - 1) % SIM_BOOK */
    uint64_t count;
    uint64_t pendings[SIM_BOOK]; /**< numbers of transfers that ask for a reservation */
    uint64_t pending_count;
    uint64_t import_ns; /**< a time for the next imported event */
};

/** One request and all its arrays. */
struct sim_request {
    struct tally_request request; /**< first */
    bool busy;
    bool again; /**< its outcome is open: it is sent once more at `again_ns` */
    uint64_t again_ns;
    unsigned attempts;
    uint64_t number;
    _Alignas(16) uint8_t events[SIM_EVENTS_MAX * sizeof(struct tally_transfer)];
    struct tally_result results[SIM_EVENTS_MAX];
    struct tally_balances balances[SIM_EVENTS_MAX];
    _Alignas(16) uint8_t records[SIM_EVENTS_MAX * sizeof(struct tally_transfer)];
};

void sim_book_open(struct sim_book *book, struct sim *sim, const struct sim_work_plan *plan);
/** A request as the seed likes it. @param first  the client's first ones create the accounts */
void sim_work_draw(struct sim_book *book, struct tally_client *client, struct sim_request *request,
                   unsigned first);
/** A lookup of all accounts from `first` on, as many as fit. @return how many */
unsigned sim_work_lookup_all(struct sim_book *book, struct sim_request *request, unsigned first);

#endif

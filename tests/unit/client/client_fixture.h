/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_UNIT_CLIENT_CLIENT_FIXTURE_H
#define TALLY_TESTS_UNIT_CLIENT_CLIENT_FIXTURE_H

#include <errno.h>

#include "tests/lib/test.h"
#include "tests/unit/client/fake_network.h"

/** What every test of the client needs: events to send, and a request that notes how often it
 *  was called back. */

struct counted_request {
    struct tally_request request; /**< first */
    unsigned done_count;
    bool done;
};

static inline void counted_done(struct tally_client *client, struct tally_request *request) {
    struct counted_request *counted = (struct counted_request *)request;
    (void)client;
    counted->done_count++;
    counted->done = true;
}

/** Plain transfers with ids `first_id`, first_id + 1 ... over many debit accounts. */
static inline void fill_transfers(struct tally_transfer *transfers, uint32_t count,
                                  uint64_t first_id) {
    memset(transfers, 0, count * sizeof(*transfers));
    for (uint32_t i = 0; i < count; i++) {
        transfers[i].id = first_id + i;
        transfers[i].debit_account_id = 1000 + (first_id + i) % 997;
        transfers[i].credit_account_id = 1;
        transfers[i].amount = 1 + i % 100;
        transfers[i].ledger = 1;
        transfers[i].code = 1;
    }
}

static inline struct counted_request transfer_request(const struct tally_transfer *transfers,
                                                      uint32_t count, struct tally_result *results,
                                                      uint32_t flags) {
    return (struct counted_request){.request = {.operation = TALLY_CREATE_TRANSFERS,
                                                .flags = flags,
                                                .count = count,
                                                .events = transfers,
                                                .results = results,
                                                .done = counted_done}};
}

/** How many of the results have that status. */
static inline uint32_t count_status(const struct tally_result *results, uint32_t count,
                                    uint32_t status) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++)
        found += results[i].status == status;
    return found;
}

#endif

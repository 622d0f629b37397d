/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_LOAD_WORK_H
#define TALLY_PERF_LOAD_WORK_H

#include <stdbool.h>

#include "net/client/tally.h"
#include "perf/load/load_keys.h"

/** What is asked of the ledger: the next request of a workload, and whether its answer is right.
 *  Flow:  load_run -> [load_source_next] -> tally_submit -> answer -> [load_source_done]
 *  Owner: one thread each. Everything follows from the seed, but for ids, which carry time. */

enum load_workload {
    LOAD_TRANSFERS, /**< between random pairs of accounts */
    LOAD_WALLET, /**< bets and payouts between a user, who must not overdraw, and a house account */
    LOAD_HOLD,   /**< pending transfers, then posted (two thirds) or voided */
    LOAD_READS,  /**< balances */
    LOAD_MATCHDAY, /**< a day in small: see load_day_rate() */
};

/** Requests are measured by what they are part of. */
enum load_phase {
    LOAD_PHASE_ALL, /**< of every workload but the match day */
    LOAD_PHASE_DEPOSIT,
    LOAD_PHASE_BEFORE, /**< bets, and the surge at kick-off */
    LOAD_PHASE_PLAY,   /**< bets, and balance reads that jump with every score */
    LOAD_PHASE_SETTLEMENT,
    LOAD_PHASES,
};
extern const char *const load_phase_names[LOAD_PHASES];

/** The accounts, alike for all threads. */
struct load_world {
    enum load_workload workload;
    uint64_t accounts; /**< of users */
    uint64_t houses;
    uint64_t run_id; /**< high half of the accounts' ids */
    uint32_t batch;  /**< events of a request */
    uint32_t amount_max;
    struct load_keys keys;
};

#define LOAD_LEDGER 1
#define LOAD_CODE 1
#define LOAD_DEPOSIT 1000000000000ULL /**< what a user has in the beginning */

struct load_unit {
    enum load_phase phase;
    uint32_t operation, flags, count;
    struct tally_transfer *transfers; /**< room for a batch; its bytes hold ids for a lookup */
    struct tally_result *results;
    struct tally_account *records;
};

struct load_source {
    const struct load_world *world;
    struct tally_client *client;
    uint64_t random;
    uint64_t checksum; /**< of what was moved and answered: which accounts, how much */
    /* holds that were answered and not yet resolved: a ring */
    struct tally_transfer *holds;
    uint64_t holds_room, holds_first, holds_count;
};

static inline tally_uint128_t load_account_id(const struct load_world *world, uint64_t number) {
    return (tally_uint128_t)world->run_id << 64 | (number + 1);
}
/** House accounts stand behind the users', the bank that all money comes from behind those. */
static inline tally_uint128_t load_house_id(const struct load_world *world, uint64_t number) {
    return load_account_id(world, world->accounts + number);
}
static inline tally_uint128_t load_bank_id(const struct load_world *world) {
    return load_account_id(world, world->accounts + world->houses);
}

/** @return 0 or -ENOMEM */
int load_source_open(struct load_source *source, const struct load_world *world,
                     struct tally_client *client, uint64_t seed);
void load_source_close(struct load_source *source);
/** Fill the next request. @param day how far the day is, 0..1 */
void load_source_next(struct load_source *source, double day, struct load_unit *unit);
/** Every event has an answer of the server. @return how many are not what they should be */
uint32_t load_source_done(struct load_source *source, const struct load_unit *unit);

/** How many times the normal rate a match day has at this time of day: deposits, bets, the surge at kick-off, reads that jump with each
 *  score, settlement at thirty times. Always 1 for other workloads. */
double load_day_rate(const struct load_world *world, double day);

/** Make the accounts and give every user money. Blocks; shows progress on a terminal.
 *  @return 0, or -errno with `error` filled */
int load_world_make(const struct load_world *world, struct tally_client *client, char *error,
                    size_t error_bytes);
/** Do the books balance, over all accounts of this run? Blocks.
 *  @return 0, -EBADMSG (they do not), -errno; `error` filled */
int load_world_prove(const struct load_world *world, struct tally_client *client, char *error,
                     size_t error_bytes);

#endif

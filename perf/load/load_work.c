/* SPDX-License-Identifier: Apache-2.0 */
#include "perf/load/load_work.h"

#include <errno.h>
#include <stdlib.h>

#include "perf/bench.h"

#define HOLDS_ROOM 65536u

const char *const load_phase_names[LOAD_PHASES] = {"all", "deposit", "before", "play",
                                                   "settlement"};

/* --- the day --------------------------------------------------------------------------------------------------------- */

#define DAY_BEFORE 0.15     /**< deposits end */
#define DAY_KICK_OFF 0.35   /**< the surge begins */
#define DAY_PLAY 0.40       /**< ... and ends */
#define DAY_SETTLEMENT 0.85 /**< the match is over */
#define DAY_SCORES 6        /**< during play, evenly */

static enum load_phase day_phase(double day) {
    return day < DAY_BEFORE       ? LOAD_PHASE_DEPOSIT
           : day < DAY_PLAY       ? LOAD_PHASE_BEFORE
           : day < DAY_SETTLEMENT ? LOAD_PHASE_PLAY
                                  : LOAD_PHASE_SETTLEMENT;
}

/** How long ago the last score was: 0 just now, 1 the next one is due. */
static double since_score(double day) {
    double scores = (day - DAY_PLAY) / (DAY_SETTLEMENT - DAY_PLAY) * DAY_SCORES;
    return scores - (double)(uint64_t)scores;
}

double load_day_rate(const struct load_world *world, double day) {
    if (world->workload != LOAD_MATCHDAY)
        return 1;
    switch (day_phase(day)) {
    case LOAD_PHASE_BEFORE:
        return day < DAY_KICK_OFF ? 1 + 2 * (day - DAY_BEFORE) / (DAY_KICK_OFF - DAY_BEFORE) : 5;
    case LOAD_PHASE_PLAY:
        return 8 - 7 * since_score(day);
    case LOAD_PHASE_SETTLEMENT:
        return 30;
    default:
        return 1;
    }
}

/* --- requests -------------------------------------------------------------------------------------------------------- */

static struct tally_transfer *add_transfer(struct load_source *source, struct load_unit *unit,
                                           tally_uint128_t debit, tally_uint128_t credit) {
    struct tally_transfer *transfer = &unit->transfers[unit->count++];
    *transfer = (struct tally_transfer){
        .id = tally_id(source->client, debit),
        .debit_account_id = debit,
        .credit_account_id = credit,
        .amount = 1 + bench_below(&source->random, source->world->amount_max),
        .ledger = LOAD_LEDGER,
        .code = LOAD_CODE,
    };
    return transfer;
}

static void add_pair(struct load_source *source, struct load_unit *unit) {
    const struct load_world *world = source->world;
    uint64_t debit = load_key(&world->keys, &source->random),
             credit = load_key(&world->keys, &source->random);
    if (credit == debit)
        credit = debit + 1 < world->accounts ? debit + 1 : 0;
    add_transfer(source, unit, load_account_id(world, debit), load_account_id(world, credit));
}

static tally_uint128_t any_user(struct load_source *source) {
    return load_account_id(source->world, load_key(&source->world->keys, &source->random));
}

static tally_uint128_t any_house(struct load_source *source) {
    return load_house_id(source->world, bench_below(&source->random, source->world->houses));
}

static void fill_wallet(struct load_source *source, struct load_unit *unit, bool bets) {
    while (unit->count < source->world->batch) {
        tally_uint128_t user = any_user(source), house = any_house(source);
        if (bets)
            add_transfer(source, unit, user, house);
        else
            add_transfer(source, unit, house, user);
    }
}

static void fill_reads(struct load_source *source, struct load_unit *unit) {
    tally_uint128_t *ids = (void *)unit->transfers;
    unit->operation = TALLY_LOOKUP_ACCOUNTS;
    while (unit->count < source->world->batch)
        ids[unit->count++] = any_user(source);
}

static void fill_holds(struct load_source *source, struct load_unit *unit) {
    while (unit->count < source->world->batch)
        add_transfer(source, unit, any_user(source), any_house(source))->flags =
            TALLY_TRANSFER_PENDING;
}

static void fill_resolutions(struct load_source *source, struct load_unit *unit) {
    while (unit->count < source->world->batch) {
        const struct tally_transfer *hold =
            &source->holds[source->holds_first++ % source->holds_room];
        source->holds_count--;
        bool post = bench_below(&source->random, 3) != 0;
        unit->transfers[unit->count++] = (struct tally_transfer){
            .id = tally_id_beside(source->client, hold->id),
            .pending_id = hold->id,
            .amount = post ? TALLY_AMOUNT_MAX : 0,
            .flags = post ? TALLY_TRANSFER_POST_PENDING : TALLY_TRANSFER_VOID_PENDING,
        };
    }
}

static void fill_day(struct load_source *source, double day, struct load_unit *unit) {
    const struct load_world *world = source->world;
    unit->phase = day_phase(day);
    switch (unit->phase) {
    case LOAD_PHASE_DEPOSIT:
        while (unit->count < world->batch)
            add_transfer(source, unit, load_bank_id(world), any_user(source));
        break;
    case LOAD_PHASE_PLAY:
        if (bench_below(&source->random, 8) != 0)
            fill_reads(source, unit);
        else
            fill_wallet(source, unit, true);
        break;
    default:
        fill_wallet(source, unit, unit->phase == LOAD_PHASE_BEFORE);
    }
}

void load_source_next(struct load_source *source, double day, struct load_unit *unit) {
    unit->phase = LOAD_PHASE_ALL;
    unit->operation = TALLY_CREATE_TRANSFERS;
    unit->flags = TALLY_REQUEST_UNORDERED;
    unit->count = 0;
    switch (source->world->workload) {
    case LOAD_TRANSFERS:
        while (unit->count < source->world->batch)
            add_pair(source, unit);
        break;
    case LOAD_WALLET:
        fill_wallet(source, unit, bench_random(&source->random) >> 63);
        break;
    case LOAD_HOLD:
        if (source->holds_count >= source->world->batch)
            fill_resolutions(source, unit);
        else
            fill_holds(source, unit);
        break;
    case LOAD_READS:
        fill_reads(source, unit);
        break;
    case LOAD_MATCHDAY:
        fill_day(source, day, unit);
        break;
    }
}

/* --- answers --------------------------------------------------------------------------------------------------------- */

static void keep_hold(struct load_source *source, const struct tally_transfer *hold) {
    if (source->holds_count == source->holds_room)
        return; /* left as it is: a hold without a timeout */
    source->holds[(source->holds_first + source->holds_count++) % source->holds_room] = *hold;
}

uint32_t load_source_done(struct load_source *source, const struct load_unit *unit) {
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < unit->count; i++) {
        const struct tally_result *result = &unit->results[i];
        if (unit->operation == TALLY_LOOKUP_ACCOUNTS) {
            const tally_uint128_t *ids = (const void *)unit->transfers;
            bool right =
                result->status == TALLY_LOOKUP_STATUS_found && unit->records[i].id == ids[i];
            wrong += !right;
            source->checksum += (uint64_t)ids[i];
            continue;
        }
        const struct tally_transfer *transfer = &unit->transfers[i];
        bool again =
            result->status == TALLY_TRANSFER_STATUS_exists && (result->flags & TALLY_RESULT_RESENT);
        if (result->status != TALLY_TRANSFER_STATUS_created && !again) {
            wrong++;
            continue;
        }
        source->checksum += (uint64_t)transfer->amount * ((uint64_t)transfer->debit_account_id | 1);
        if (transfer->flags & TALLY_TRANSFER_PENDING)
            keep_hold(source, transfer);
    }
    return wrong;
}

int load_source_open(struct load_source *source, const struct load_world *world,
                     struct tally_client *client, uint64_t seed) {
    *source = (struct load_source){
        .world = world,
        .client = client,
        .random = (seed + 1) * 0x9e3779b97f4a7c15u,
        .holds_room = HOLDS_ROOM,
    };
    if (world->workload != LOAD_HOLD)
        return 0;
    source->holds = calloc(source->holds_room, sizeof(*source->holds));
    return source->holds == NULL ? -ENOMEM : 0;
}

void load_source_close(struct load_source *source) {
    free(source->holds);
}

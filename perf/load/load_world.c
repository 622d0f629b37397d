/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/load/load_work.h"

/* The accounts of a run: made before, proved after. Outside of every measurement. */

#define STEP 4096u

struct step {
    struct tally_account accounts[STEP];
    struct tally_transfer transfers[STEP];
    tally_uint128_t ids[STEP];
    struct tally_result results[STEP];
};

static uint64_t all_accounts(const struct load_world *world) {
    return world->accounts + world->houses + 1;
}

static void show_progress(const char *what, uint64_t done, uint64_t of) {
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s %3u %%%s", what, (unsigned)(done * 100 / of),
                done == of ? "\r                                        \r" : "");
}

static int ask(struct tally_client *client, struct tally_request *request, const char *what,
               char *error, size_t error_bytes) {
    int rc = tally_request_wait(client, request);
    if (rc != 0)
        snprintf(error, error_bytes, "%s: %s (%s)", what, tally_code_name(request->code),
                 strerrordesc_np(-rc));
    return rc;
}

static int make_accounts(const struct load_world *world, struct tally_client *client,
                         struct step *step, char *error, size_t error_bytes) {
    bool floors = world->workload != LOAD_TRANSFERS && world->workload != LOAD_READS;
    for (uint64_t first = 0; first < all_accounts(world);) {
        uint32_t count = 0;
        for (; count < STEP && first + count < all_accounts(world); count++)
            step->accounts[count] = (struct tally_account){
                .id = load_account_id(world, first + count),
                .ledger = LOAD_LEDGER,
                .code = LOAD_CODE,
                .flags = floors && first + count < world->accounts
                             ? TALLY_ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS
                             : 0,
            };
        struct tally_request request = {.operation = TALLY_CREATE_ACCOUNTS,
                                        .flags = TALLY_REQUEST_UNORDERED,
                                        .count = count,
                                        .events = step->accounts,
                                        .results = step->results};
        int rc = ask(client, &request, "making accounts", error, error_bytes);
        for (uint32_t i = 0; rc == 0 && i < count; i++) {
            if (step->results[i].status == TALLY_ACCOUNT_STATUS_created ||
                step->results[i].status == TALLY_ACCOUNT_STATUS_exists)
                continue;
            snprintf(error, error_bytes, "making accounts: %s; give tallyd more memory",
                     tally_account_status_name(step->results[i].status));
            rc = -ENOMEM;
        }
        if (rc != 0)
            return rc;
        first += count;
        show_progress("making accounts", first, all_accounts(world));
    }
    return 0;
}

static int make_deposits(const struct load_world *world, struct tally_client *client,
                         struct step *step, char *error, size_t error_bytes) {
    for (uint64_t first = 0; first < world->accounts;) {
        uint32_t count = 0;
        for (; count < STEP && first + count < world->accounts; count++)
            step->transfers[count] = (struct tally_transfer){
                .id = tally_id(client, load_bank_id(world)),
                .debit_account_id = load_bank_id(world),
                .credit_account_id = load_account_id(world, first + count),
                .amount = LOAD_DEPOSIT,
                .ledger = LOAD_LEDGER,
                .code = LOAD_CODE,
            };
        struct tally_request request = {.operation = TALLY_CREATE_TRANSFERS,
                                        .flags = TALLY_REQUEST_UNORDERED,
                                        .count = count,
                                        .events = step->transfers,
                                        .results = step->results};
        int rc = ask(client, &request, "first deposits", error, error_bytes);
        for (uint32_t i = 0; rc == 0 && i < count; i++) {
            if (step->results[i].status == TALLY_TRANSFER_STATUS_created ||
                step->results[i].status == TALLY_TRANSFER_STATUS_exists)
                continue;
            snprintf(error, error_bytes, "first deposits: %s",
                     tally_transfer_status_name(step->results[i].status));
            rc = -EPROTO;
        }
        if (rc != 0)
            return rc;
        first += count;
        show_progress("first deposits", first, world->accounts);
    }
    return 0;
}

int load_world_make(const struct load_world *world, struct tally_client *client, char *error,
                    size_t error_bytes) {
    struct step *step = malloc(sizeof(*step));
    if (step == NULL) {
        snprintf(error, error_bytes, "out of memory");
        return -ENOMEM;
    }
    int rc = make_accounts(world, client, step, error, error_bytes);
    if (rc == 0 && world->workload != LOAD_TRANSFERS && world->workload != LOAD_READS)
        rc = make_deposits(world, client, step, error, error_bytes);
    free(step);
    return rc;
}

int load_world_prove(const struct load_world *world, struct tally_client *client, char *error,
                     size_t error_bytes) {
    struct step *step = malloc(sizeof(*step));
    tally_uint128_t posted = 0, pending = 0; /* debits less credits */
    int rc = 0;
    if (step == NULL) {
        snprintf(error, error_bytes, "out of memory");
        return -ENOMEM;
    }
    for (uint64_t first = 0; rc == 0 && first < all_accounts(world);) {
        uint32_t count = 0;
        for (; count < STEP && first + count < all_accounts(world); count++)
            step->ids[count] = load_account_id(world, first + count);
        struct tally_request request = {.operation = TALLY_LOOKUP_ACCOUNTS,
                                        .flags = TALLY_REQUEST_UNORDERED,
                                        .count = count,
                                        .events = step->ids,
                                        .results = step->results,
                                        .records = step->accounts};
        rc = ask(client, &request, "reading balances", error, error_bytes);
        for (uint32_t i = 0; rc == 0 && i < count; i++) {
            const struct tally_account *account = &step->accounts[i];
            if (step->results[i].status != TALLY_LOOKUP_STATUS_found) {
                snprintf(error, error_bytes, "account %" PRIu64 " of this run is gone", first + i);
                rc = -EBADMSG;
            }
            posted += account->debits_posted - account->credits_posted;
            pending += account->debits_pending - account->credits_pending;
        }
        first += count;
        show_progress("reading balances", first, all_accounts(world));
    }
    if (rc == 0 && (posted != 0 || pending != 0)) {
        snprintf(error, error_bytes, "debits and credits of this run's accounts differ");
        rc = -EBADMSG;
    }
    free(step);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tally_cli.h"

/** account create, account show, balance. */

bool cli_account_is_there(uint32_t status) {
    return status == TALLY_ACCOUNT_STATUS_created || status == TALLY_ACCOUNT_STATUS_exists;
}

/* --- create ----------------------------------------------------------------------------------- */

static void print_created(const struct cli *cli, const struct tally_account *account,
                          const struct tally_result *result) {
    const char *status = tally_account_status_name(result->status);
    if (cli->json) {
        struct json_object *object = output_object();
        output_uint128(object, "id", account->id);
        output_text(object, "status", status);
        output_uint64(object, "timestamp", result->timestamp);
        output_print(object);
        return;
    }
    output_line_uint128("account", account->id);
    output_line("status", status);
    output_line_time("timestamp", result->timestamp);
}

int tally_account_create(struct cli *cli, int argc, char **argv) {
    struct tally_account account = {0};
    uint64_t ledger = 0, code = 0, user_data_64 = 0, user_data_32 = 0;
    unsigned operands;
    const struct args_option options[] = {
        {"ledger", 0, ARGS_NUMBER, &ledger, "N", "ledger, 1 to 2^32-1", true, 1, UINT32_MAX, NULL},
        {"code", 0, ARGS_NUMBER, &code, "N", "kind of account, 1 to 65535", true, 1, UINT16_MAX,
         NULL},
        {"id", 0, ARGS_ID, &account.id, "ID", "its id; without it a new one is made", false, 0, 0,
         NULL},
        {"flag", 0, ARGS_FLAGS, &account.flags, "NAME", "may be given many times:", false, 0, 0,
         cli_account_flags},
        {"user-data-128", 0, ARGS_AMOUNT, &account.user_data_128, "N", "yours to use", false, 0, 0,
         NULL},
        {"user-data-64", 0, ARGS_NUMBER, &user_data_64, "N", "yours to use", false, 0, UINT64_MAX,
         NULL},
        {"user-data-32", 0, ARGS_NUMBER, &user_data_32, "N", "yours to use", false, 0, UINT32_MAX,
         NULL},
        {NULL},
    };
    const struct args_command command = {
        "account create", "Create an account.", "", 0, 0, options, NULL};
    enum args_answer answer = args_parse(&command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    account.ledger = (uint32_t)ledger;
    account.code = (uint16_t)code;
    account.user_data_64 = user_data_64;
    account.user_data_32 = (uint32_t)user_data_32;
    int exit_status = cli_connect(cli);
    if (exit_status)
        return exit_status;
    if (!account.id)
        account.id = tally_id(cli->client, 0);
    struct tally_result result;
    int rc = tally_create_accounts(cli->client, &account, 1, &result);
    if (rc == 0 || result.status != TALLY_STATUS_not_sent)
        print_created(cli, &account, &result);
    if (rc < 0)
        return cli_no_answer(cli, rc);
    return cli_account_is_there(result.status) ? CLI_DONE : CLI_REFUSED;
}

/* --- show and balance ------------------------------------------------------------------------- */

struct found_accounts {
    tally_uint128_t *ids;
    struct tally_result *results;
    struct tally_account *accounts;
    unsigned count;
};

static void found_free(struct found_accounts *found) {
    free(found->ids);
    free(found->results);
    free(found->accounts);
}

static void print_missing(const struct cli *cli, tally_uint128_t id,
                          const struct tally_result *result) {
    char digits[40];
    if (cli->json) {
        struct json_object *object = output_object();
        output_uint128(object, "id", id);
        output_text(object, "status", tally_lookup_status_name(result->status));
        output_print(object);
    } else {
        printf("account %s: %s\n", args_decimal(id, digits),
               tally_lookup_status_name(result->status));
    }
}

/** Look the operands up. @return CLI_DONE, or what to exit with */
static int find_accounts(struct cli *cli, unsigned count, char **argv,
                         struct found_accounts *found) {
    found->count = count;
    found->ids = calloc(count, sizeof(*found->ids));
    found->results = calloc(count, sizeof(*found->results));
    found->accounts = calloc(count, sizeof(*found->accounts));
    if (!found->ids || !found->results || !found->accounts) {
        args_complain("no memory for %u accounts", count);
        return CLI_USAGE;
    }
    for (unsigned i = 0; i < count; i++)
        if (args_id("account id", argv[i], &found->ids[i]) < 0)
            return CLI_USAGE;
    int exit_status = cli_connect(cli);
    if (exit_status)
        return exit_status;
    int rc = tally_lookup_accounts(cli->client, found->ids, count, found->results, found->accounts);
    return rc < 0 ? cli_no_answer(cli, rc) : CLI_DONE;
}

static int show(struct cli *cli, unsigned count, char **argv,
                void (*print)(struct cli *, const struct found_accounts *)) {
    struct found_accounts found = {0};
    int exit_status = find_accounts(cli, count, argv, &found);
    if (exit_status == CLI_DONE) {
        print(cli, &found);
        for (unsigned i = 0; i < count; i++)
            if (found.results[i].status != TALLY_LOOKUP_STATUS_found) {
                print_missing(cli, found.ids[i], &found.results[i]);
                exit_status = CLI_REFUSED;
            }
    }
    found_free(&found);
    return exit_status;
}

static void print_accounts(struct cli *cli, const struct found_accounts *found) {
    bool first = true;
    for (unsigned i = 0; i < found->count; i++) {
        if (found->results[i].status != TALLY_LOOKUP_STATUS_found)
            continue;
        if (cli->json) {
            struct json_object *object = output_object();
            output_account_fields(object, &found->accounts[i]);
            output_print(object);
            continue;
        }
        printf("%s", first ? "" : "\n");
        output_account(&found->accounts[i]);
        first = false;
    }
}

int tally_account_show(struct cli *cli, int argc, char **argv) {
    const struct args_command command = {"account show",
                                         "Show accounts with all their fields.",
                                         "ID...",
                                         1,
                                         TALLY_EVENTS_MAX,
                                         NULL,
                                         NULL};
    unsigned count;
    enum args_answer answer = args_parse(&command, argc, argv, &count);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    return show(cli, count, argv, print_accounts);
}

enum { BALANCE_COLUMNS = 5, SCREEN_COLUMNS = 80 };

static tally_uint128_t balance_field(const struct tally_account *account, unsigned column) {
    const tally_uint128_t fields[BALANCE_COLUMNS] = {
        account->id, account->debits_pending, account->debits_posted, account->credits_pending,
        account->credits_posted};
    return fields[column];
}

static const char *const balance_names[BALANCE_COLUMNS] = {
    "account", "debits_pending", "debits_posted", "credits_pending", "credits_posted"};

/** @return the table's width */
static unsigned balance_widths(const struct found_accounts *found, unsigned *widths) {
    unsigned total = BALANCE_COLUMNS - 1;
    char digits[40];
    for (unsigned column = 0; column < BALANCE_COLUMNS; column++) {
        widths[column] = (unsigned)strlen(balance_names[column]);
        for (unsigned i = 0; i < found->count; i++) {
            unsigned length =
                (unsigned)strlen(args_decimal(balance_field(&found->accounts[i], column), digits));
            widths[column] = length > widths[column] ? length : widths[column];
        }
        total += widths[column];
    }
    return total;
}

static void print_balance_table(const struct found_accounts *found, const unsigned *widths) {
    char digits[40];
    for (unsigned column = 0; column < BALANCE_COLUMNS; column++)
        printf("%*s%s", (int)widths[column], balance_names[column],
               column + 1 < BALANCE_COLUMNS ? " " : "\n");
    for (unsigned i = 0; i < found->count; i++)
        for (unsigned column = 0;
             found->results[i].status == TALLY_LOOKUP_STATUS_found && column < BALANCE_COLUMNS;
             column++)
            printf("%*s%s", (int)widths[column],
                   args_decimal(balance_field(&found->accounts[i], column), digits),
                   column + 1 < BALANCE_COLUMNS ? " " : "\n");
}

static void print_balances(struct cli *cli, const struct found_accounts *found) {
    unsigned widths[BALANCE_COLUMNS];
    bool table = !cli->json && balance_widths(found, widths) <= SCREEN_COLUMNS;
    if (table) {
        print_balance_table(found, widths);
        return;
    }
    for (unsigned i = 0; i < found->count; i++) {
        const struct tally_account *account = &found->accounts[i];
        if (found->results[i].status != TALLY_LOOKUP_STATUS_found)
            continue;
        if (cli->json) {
            struct json_object *object = output_object();
            for (unsigned column = 0; column < BALANCE_COLUMNS; column++)
                output_uint128(object, column ? balance_names[column] : "id",
                               balance_field(account, column));
            output_print(object);
            continue;
        }
        for (unsigned column = 0; column < BALANCE_COLUMNS; column++)
            output_line_uint128(balance_names[column], balance_field(account, column));
    }
}

int tally_balance(struct cli *cli, int argc, char **argv) {
    const struct args_command command = {
        "balance", "Show the four balances of accounts.", "ID...", 1, TALLY_EVENTS_MAX, NULL, NULL};
    unsigned count;
    enum args_answer answer = args_parse(&command, argc, argv, &count);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    return show(cli, count, argv, print_balances);
}

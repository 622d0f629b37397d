/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/tally_cli.h"

/** transfer, hold, post, void: one transfer each. */

bool cli_transfer_is_there(uint32_t status) {
    return status == TALLY_TRANSFER_STATUS_created || status == TALLY_TRANSFER_STATUS_exists;
}

/** @param balances NULL when there was no answer */
static void print_outcome(const struct cli *cli, const struct tally_transfer *transfer,
                          const struct tally_result *result,
                          const struct tally_balances *balances) {
    const char *status = tally_transfer_status_name(result->status);
    if (cli->json) {
        struct json_object *object = output_object(), *inner = balances ? output_object() : NULL;
        output_uint128(object, "id", transfer->id);
        output_text(object, "status", status);
        output_uint64(object, "timestamp", result->timestamp);
        if (balances) {
            output_balance_fields(inner, balances);
            json_object_object_add(object, "debit_account", inner);
        }
        output_print(object);
        return;
    }
    output_line_uint128("transfer", transfer->id);
    output_line("status", status);
    output_line_time("timestamp", result->timestamp);
    if (!balances)
        return;
    printf("debit account after it\n");
    output_line_uint128("  debits_pending", balances->debits_pending);
    output_line_uint128("  debits_posted", balances->debits_posted);
    output_line_uint128("  credits_pending", balances->credits_pending);
    output_line_uint128("  credits_posted", balances->credits_posted);
}

static int create_one(struct cli *cli, struct tally_transfer *transfer) {
    struct tally_result result;
    struct tally_balances balances;
    int exit_status = cli_connect(cli);
    if (exit_status)
        return exit_status;
    if (!transfer->id)
        transfer->id = transfer->pending_id ? tally_id_beside(cli->client, transfer->pending_id)
                                            : tally_id(cli->client, transfer->debit_account_id);
    int rc = tally_create_transfers(cli->client, transfer, 1, &result, &balances);
    if (rc == 0 || result.status != TALLY_STATUS_not_sent)
        print_outcome(cli, transfer, &result, rc == 0 ? &balances : NULL);
    if (rc == -ETIMEDOUT)
        args_complain("no answer in time; the same command with the --id above settles it");
    if (rc < 0)
        return cli_no_answer(cli, rc);
    return cli_transfer_is_there(result.status) ? CLI_DONE : CLI_REFUSED;
}

/** What transfer and hold share. One command a process, so one of these. */
static struct {
    struct tally_transfer transfer;
    uint64_t ledger, code, timeout, user_data_64, user_data_32;
} fields;

static const struct args_option hold_options[] = {
    {"timeout-s", 0, ARGS_NUMBER, &fields.timeout, "N", "seconds until it expires; 0: never", false,
     0, UINT32_MAX, NULL},
    {"debit", 0, ARGS_ID, &fields.transfer.debit_account_id, "ID", "account to debit", true},
    {"credit", 0, ARGS_ID, &fields.transfer.credit_account_id, "ID", "account to credit", true},
    {"amount", 0, ARGS_AMOUNT, &fields.transfer.amount, "N", "in the ledger's smallest unit", true},
    {"ledger", 0, ARGS_NUMBER, &fields.ledger, "N", "of both accounts", true, 1, UINT32_MAX, NULL},
    {"code", 0, ARGS_NUMBER, &fields.code, "N", "kind of transfer, 1 to 65535", true, 1, UINT16_MAX,
     NULL},
    {"id", 0, ARGS_ID, &fields.transfer.id, "ID", "its id (it carries time); without it a new one"},
    {"flag", 0, ARGS_FLAGS, &fields.transfer.flags, "NAME", "may be given many times:", false, 0, 0,
     cli_transfer_flags},
    {"user-data-128", 0, ARGS_AMOUNT, &fields.transfer.user_data_128, "N", "yours to use"},
    {"user-data-64", 0, ARGS_NUMBER, &fields.user_data_64, "N", "yours to use", false, 0,
     UINT64_MAX, NULL},
    {"user-data-32", 0, ARGS_NUMBER, &fields.user_data_32, "N", "yours to use", false, 0,
     UINT32_MAX, NULL},
    {NULL},
};
/** All but the timeout. */
static const struct args_option *const transfer_options = hold_options + 1;

static int create_fields(struct cli *cli, const struct args_command *command, uint16_t more_flags,
                         int argc, char **argv) {
    struct tally_transfer *transfer = &fields.transfer;
    unsigned operands;
    enum args_answer answer = args_parse(command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    transfer->ledger = (uint32_t)fields.ledger;
    transfer->code = (uint16_t)fields.code;
    transfer->timeout = (uint32_t)fields.timeout;
    transfer->user_data_64 = fields.user_data_64;
    transfer->user_data_32 = (uint32_t)fields.user_data_32;
    transfer->flags |= more_flags;
    return create_one(cli, transfer);
}

int tally_transfer_create(struct cli *cli, int argc, char **argv) {
    const struct args_command command = {
        "transfer", "Move an amount from one account to another.", "", 0, 0, transfer_options,
        NULL};
    return create_fields(cli, &command, 0, argc, argv);
}

int tally_hold(struct cli *cli, int argc, char **argv) {
    const struct args_command command = {
        "hold", "Reserve an amount: a pending transfer, to be posted or voided.",
        "",     0,
        0,      hold_options,
        NULL};
    return create_fields(cli, &command, TALLY_TRANSFER_PENDING, argc, argv);
}

static int resolve(struct cli *cli, const struct args_command *command,
                   struct tally_transfer *transfer, int argc, char **argv) {
    unsigned operands;
    enum args_answer answer = args_parse(command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    if (args_id("pending transfer's id", argv[0], &transfer->pending_id) < 0)
        return CLI_USAGE;
    return create_one(cli, transfer);
}

int tally_post(struct cli *cli, int argc, char **argv) {
    struct tally_transfer transfer = {.flags = TALLY_TRANSFER_POST_PENDING,
                                      .amount = TALLY_AMOUNT_MAX};
    const struct args_option options[] = {
        {"amount", 0, ARGS_AMOUNT, &transfer.amount, "N",
         "less than was held; the rest is released", false, 0, 0, NULL},
        {"id", 0, ARGS_ID, &transfer.id, "ID", "id of the posting; without it a new one is made",
         false, 0, 0, NULL},
        {NULL},
    };
    const struct args_command command = {"post", "Post a held amount.", "PENDING_ID", 1, 1, options,
                                         NULL};
    return resolve(cli, &command, &transfer, argc, argv);
}

int tally_void(struct cli *cli, int argc, char **argv) {
    struct tally_transfer transfer = {.flags = TALLY_TRANSFER_VOID_PENDING};
    const struct args_option options[] = {
        {"id", 0, ARGS_ID, &transfer.id, "ID", "id of the voiding; without it a new one is made",
         false, 0, 0, NULL},
        {NULL},
    };
    const struct args_command command = {
        "void", "Release a held amount.", "PENDING_ID", 1, 1, options, NULL};
    return resolve(cli, &command, &transfer, argc, argv);
}

/* --- show ------------------------------------------------------------------------------------- */

int tally_transfer_show(struct cli *cli, int argc, char **argv) {
    enum { SHOWN_MAX = 64 };
    const struct args_command command = {"transfer show",
                                         "Show transfers with all their fields.",
                                         "ID...",
                                         1,
                                         SHOWN_MAX,
                                         NULL,
                                         NULL};
    tally_uint128_t ids[SHOWN_MAX];
    struct tally_result results[SHOWN_MAX];
    struct tally_transfer transfers[SHOWN_MAX];
    unsigned count;
    char digits[40];
    enum args_answer answer = args_parse(&command, argc, argv, &count);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    for (unsigned i = 0; i < count; i++)
        if (args_id("transfer id", argv[i], &ids[i]) < 0)
            return CLI_USAGE;
    int exit_status = cli_connect(cli);
    if (exit_status)
        return exit_status;
    int rc = tally_lookup_transfers(cli->client, ids, count, results, transfers);
    if (rc < 0)
        return cli_no_answer(cli, rc);
    for (unsigned i = 0; i < count; i++) {
        bool found = results[i].status == TALLY_LOOKUP_STATUS_found;
        const char *status = tally_lookup_status_name(results[i].status);
        if (cli->json) {
            struct json_object *object = output_object();
            if (found)
                output_transfer_fields(object, &transfers[i]);
            else
                output_uint128(object, "id", ids[i]);
            if (!found)
                output_text(object, "status", status);
            output_print(object);
        } else if (found) {
            printf("%s", i ? "\n" : "");
            output_transfer(&transfers[i]);
        } else {
            printf("transfer %s: %s\n", args_decimal(ids[i], digits), status);
        }
        if (!found)
            exit_status = CLI_REFUSED;
    }
    return exit_status;
}

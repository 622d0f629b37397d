/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/tally_cli.h"
#include "tools/tally_csv.h"

/** load: transfers from a CSV file, a batch after the other. A file is read through once before
 *  anything is sent, so that a bad line sends nothing; standard input cannot be. */

enum { LOAD_BATCH = 4096, LOAD_FAILURES_SHOWN = 20, LOAD_SETTLE_TRIES = 3 };

struct load {
    struct cli *cli;
    const char *name;
    struct csv csv;
    bool unordered, tty;
    struct tally_transfer *transfers; /**< TALLY_EVENTS_MAX */
    struct tally_result *results;
    uint64_t *lines; /**< of each transfer of the batch */
    uint32_t count;
    uint64_t file_bytes; /**< 0: not known */
    uint64_t sent, created, exists, failed, unknown;
    uint64_t began_ns, shown_ns;
};

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* --- what people see -------------------------------------------------------------------------- */

static void show_progress(struct load *load, bool last) {
    enum { BAR = 30 };
    uint64_t now = now_ns();
    if (!load->tty || (!last && now - load->shown_ns < 100000000u))
        return;
    load->shown_ns = now;
    double seconds = (double)(now - load->began_ns) / 1e9;
    double rate = seconds > 0 ? (double)load->sent / seconds : 0;
    if (load->file_bytes) {
        unsigned filled = (unsigned)(load->csv.bytes * BAR / load->file_bytes);
        filled = filled < BAR ? filled : BAR;
        fprintf(stderr, "\r[%.*s%*s] %3u %%  %" PRIu64 " transfers, %.0f/s ", (int)filled,
                "##############################", (int)(BAR - filled), "", filled * 100 / BAR,
                load->sent, rate);
    } else {
        fprintf(stderr, "\r%" PRIu64 " transfers, %.0f/s ", load->sent, rate);
    }
    if (last)
        fprintf(stderr, "\n");
}

static void show_failure(struct load *load, uint32_t index, const char *status) {
    char id[40];
    if (load->cli->json) {
        struct json_object *object = output_object();
        output_number(object, "line", load->lines[index]);
        output_uint128(object, "id", load->transfers[index].id);
        output_text(object, "status", status);
        output_print(object);
        return;
    }
    uint64_t shown = load->failed + load->unknown;
    if (shown <= LOAD_FAILURES_SHOWN)
        fprintf(stderr, "%sline %" PRIu64 ": %s (id %s)\n", load->tty ? "\r\033[K" : "",
                load->lines[index], status, args_decimal(load->transfers[index].id, id));
    if (shown == LOAD_FAILURES_SHOWN)
        fprintf(stderr, "more failures are counted only; --json lists them all\n");
}

static void show_summary(struct load *load) {
    double seconds = (double)(now_ns() - load->began_ns) / 1e9;
    double rate = seconds > 0 ? (double)load->sent / seconds : 0;
    if (load->cli->json) {
        struct json_object *object = output_object();
        output_number(object, "transfers", load->sent);
        output_number(object, "created", load->created);
        output_number(object, "exists", load->exists);
        output_number(object, "failed", load->failed);
        output_number(object, "unknown", load->unknown);
        output_double(object, "seconds", seconds);
        output_double(object, "transfers_per_second", rate);
        output_print(object);
        return;
    }
    output_line_uint128("transfers", load->sent);
    output_line_uint128("created", load->created);
    output_line_uint128("exists", load->exists);
    output_line_uint128("failed", load->failed);
    if (load->unknown)
        output_line_uint128("unknown", load->unknown);
    printf("%-19s %.2f s, %.0f transfers/s\n", "time", seconds, rate);
}

/* --- batches ---------------------------------------------------------------------------------- */

/** Without the server's word. */
static bool open_status(uint32_t status) {
    return status == TALLY_STATUS_unknown || status == TALLY_STATUS_not_sent ||
           status == TALLY_STATUS_overloaded;
}

static void count_results(struct load *load) {
    for (uint32_t i = 0; i < load->count; i++) {
        uint32_t status = load->results[i].status;
        if (status == TALLY_TRANSFER_STATUS_created ||
            (status == TALLY_TRANSFER_STATUS_exists &&
             load->results[i].flags & TALLY_RESULT_RESENT)) {
            load->created++;
        } else if (status == TALLY_TRANSFER_STATUS_exists) {
            load->exists++;
        } else {
            bool unknown = open_status(status);
            load->unknown += unknown;
            load->failed += !unknown;
            show_failure(load, i, tally_transfer_status_name(status));
        }
    }
    load->sent += load->count;
}

/** Send again what has no answer, and only that: what is answered stays answered, and what may have
 *  taken effect stays unknown when it cannot be sent again. @return as the blocking calls */
static int settle_open(struct load *load) {
    struct tally_transfer *transfers = calloc(load->count, sizeof(*transfers));
    struct tally_result *results = calloc(load->count, sizeof(*results));
    int rc = -ENOMEM;
    uint32_t count = 0;
    if (transfers && results) {
        for (uint32_t i = 0; i < load->count; i++) {
            if (open_status(load->results[i].status))
                transfers[count++] = load->transfers[i];
        }
        rc = tally_transfer_settle(load->cli->client, TALLY_SETTLE_RESEND, transfers, count,
                                   results);
        for (uint32_t i = 0, at = 0; i < load->count; i++) {
            struct tally_result *result = &load->results[i];
            if (!open_status(result->status))
                continue;
            bool sent = result->status == TALLY_STATUS_unknown;
            *result = results[at++];
            if (sent && open_status(result->status)) {
                result->status = TALLY_STATUS_unknown;
                rc = -ETIMEDOUT;
            }
        }
    }
    free(transfers);
    free(results);
    return rc;
}

static int send_batch(struct load *load) {
    struct tally_request request = {.operation = TALLY_CREATE_TRANSFERS,
                                    .flags = load->unordered ? TALLY_REQUEST_UNORDERED : 0,
                                    .count = load->count,
                                    .events = load->transfers,
                                    .results = load->results};
    int rc = tally_request_wait(load->cli->client, &request);
    if (rc == -EMSGSIZE || rc == -EINVAL) {
        args_complain("%s: a linked chain that ends at or before line %" PRIu64
                      " is too long for one datagram",
                      load->name, load->lines[load->count - 1]);
        return CLI_USAGE;
    }
    for (unsigned tries = 0;
         (rc == -ETIMEDOUT || rc == -ENOTCONN || rc == -EBUSY) && tries < LOAD_SETTLE_TRIES;
         tries++)
        rc = settle_open(load);
    count_results(load);
    load->count = 0;
    show_progress(load, false);
    if (rc == -ENOTCONN || rc == -EBUSY) {
        args_complain("no answer in time; the transfers after the last answer were not sent");
        return CLI_UNKNOWN;
    }
    return rc < 0 ? cli_no_answer(load->cli, rc) : CLI_DONE;
}

/** Send what is collected when a chain has just ended and the batch is large, or at the end. */
static int maybe_send(struct load *load, bool end) {
    bool chain_open = load->count && load->transfers[load->count - 1].flags & TALLY_TRANSFER_LINKED;
    if (load->count &&
        (end || (load->count >= LOAD_BATCH && !chain_open) || load->count == TALLY_EVENTS_MAX))
        return send_batch(load);
    return CLI_DONE;
}

static int complain_line(const struct load *load) {
    args_complain("%s: %s", load->name, load->csv.error);
    return CLI_USAGE;
}

static int send_all(struct load *load) {
    int rc, exit_status = CLI_DONE;
    while (exit_status == CLI_DONE &&
           (rc = csv_read(&load->csv, &load->transfers[load->count])) > 0) {
        struct tally_transfer *transfer = &load->transfers[load->count];
        if (!load->csv.has_id)
            transfer->id = transfer->pending_id
                               ? tally_id_beside(load->cli->client, transfer->pending_id)
                               : tally_id(load->cli->client, transfer->debit_account_id);
        load->lines[load->count++] = load->csv.line;
        exit_status = maybe_send(load, false);
    }
    if (exit_status == CLI_DONE)
        exit_status = maybe_send(load, true);
    if (exit_status == CLI_DONE && rc < 0)
        exit_status = complain_line(load);
    show_progress(load, true);
    show_summary(load);
    return exit_status     ? exit_status
           : load->unknown ? CLI_UNKNOWN
           : load->failed  ? CLI_REFUSED
                           : CLI_DONE;
}

/* --- the file --------------------------------------------------------------------------------- */

/** Read a regular file through and go back to its beginning. @return CLI_DONE or CLI_USAGE */
static int check_file(struct load *load, FILE *file) {
    struct stat status;
    struct tally_transfer transfer;
    int rc = csv_begin(&load->csv, file);
    if (rc < 0)
        return complain_line(load);
    if (fstat(fileno(file), &status) < 0 || !S_ISREG(status.st_mode))
        return CLI_DONE;
    while ((rc = csv_read(&load->csv, &transfer)) > 0) {
    }
    if (rc < 0)
        return complain_line(load);
    rewind(file);
    load->file_bytes = (uint64_t)status.st_size;
    return csv_begin(&load->csv, file) < 0 ? complain_line(load) : CLI_DONE;
}

static int load_file(struct load *load, FILE *file) {
    int exit_status = check_file(load, file);
    if (exit_status == CLI_DONE)
        exit_status = cli_connect(load->cli);
    if (exit_status)
        return exit_status;
    load->transfers = calloc(TALLY_EVENTS_MAX + 1, sizeof(*load->transfers));
    load->results = calloc(TALLY_EVENTS_MAX, sizeof(*load->results));
    load->lines = calloc(TALLY_EVENTS_MAX, sizeof(*load->lines));
    load->tty = isatty(STDERR_FILENO) && !load->cli->json;
    load->began_ns = now_ns();
    if (load->transfers && load->results && load->lines) {
        exit_status = send_all(load);
    } else {
        args_complain("no memory for a batch of transfers");
        exit_status = CLI_USAGE;
    }
    free(load->transfers);
    free(load->results);
    free(load->lines);
    return exit_status;
}

int tally_load(struct cli *cli, int argc, char **argv) {
    static struct load load;
    const struct args_option options[] = {
        {"unordered", 0, ARGS_SWITCH, &load.unordered, NULL,
         "lines may execute in any order: faster", false, 0, 0, NULL},
        {NULL},
    };
    const struct args_command command = {
        "load",
        "Create the transfers of a CSV file.",
        "FILE.csv",
        1,
        1,
        options,
        "The first line names the columns: debit_account_id, credit_account_id, amount,\n"
        "ledger, code, and if wanted id, pending_id, user_data_128, user_data_64,\n"
        "user_data_32, timeout, flags, timestamp. Flags are names, separated by spaces\n"
        "or '|', or a number. FILE may be - for standard input. With ids in the file,\n"
        "loading it again creates nothing twice; without, new ones are made each time.\n"
        "Lines that are linked stay together and in order, with --unordered too.\n"};
    unsigned operands;
    enum args_answer answer = args_parse(&command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    bool standard_input = strcmp(argv[0], "-") == 0;
    load.cli = cli;
    load.name = standard_input ? "standard input" : argv[0];
    FILE *file = standard_input ? stdin : fopen(argv[0], "r");
    if (!file) {
        args_complain("%s: %s", argv[0], strerror(errno));
        return CLI_USAGE;
    }
    int exit_status = load_file(&load, file);
    if (!standard_input)
        fclose(file);
    return exit_status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/shell.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/shell_ledger.h"
#include "tools/shell_request.h"

#define LINE_BYTES_MAX ((size_t)32 << 20)
#define MEMORY_BYTES_DEFAULT ((size_t)256 << 20)
#define EXIT_USAGE 2

static const char usage[] =
    "usage: tally shell [--partitions N] [--lcores N] [--id-time on|off] [--wal DIR]\n"
    "                   [--memory BYTES[K|M|G]] [--test]";

static const char help[] =
    "\n"
    "The engine without a network: one JSON request a line on standard input, one JSON answer a\n"
    "line on standard output.\n"
    "\n"
    "  --partitions N   1 to 1024 (256)\n"
    "  --lcores N       engine lcores that share the partitions, turned by one thread (1)\n"
    "  --id-time off    transfer ids carry no time and are remembered for ever (on)\n"
    "  --wal DIR        keeps the log there: formatted when empty, recovered when not\n"
    "  --memory BYTES   of the engine (256M)\n"
    "  --test           allows put_balances; excludes --wal\n"
    "\n"
    "  {\"op\":\"create_accounts\",\"events\":[{\"id\":1,\"ledger\":1,\"code\":1}, ...]}\n"
    "  {\"op\":\"create_transfers\",\"events\":[{\"id\":1,\"debit_account_id\":1, ...}], "
    "\"balances\":true}\n"
    "  {\"op\":\"lookup_accounts\",\"ids\":[1, ...]}    the same: lookup_transfers\n"
    "  {\"op\":\"advance\",\"ns\":\"1000000000\"}      moves the clock, expires what is due\n"
    "  {\"op\":\"put_balances\",\"id\":1,\"debits_pending\":0, ...}\n"
    "\n"
    "Integers are numbers or strings of digits; flags are names or a number; what is absent is 0.\n"
    "\"now\":\"NS\" in any request sets the clock first, which starts at 1 ns, stands still by "
    "itself\n"
    "and never goes back. A line that is wrong is answered {\"error\":...} and changes nothing.\n";

struct options {
    struct shell_ledger_config ledger;
    bool test;
    bool help;
};

struct shell {
    struct options options;
    struct shell_ledger *ledger;
    struct shell_json json;
    struct shell_request request;
    struct shell_output output;
    char *line;
    size_t line_bytes, line_capacity;
};

static int usage_error(const char *what, const char *value) {
    fprintf(stderr, "tally shell: %s%s; 'tally shell --help' lists what there is\n", what, value);
    return -EINVAL;
}

/** A whole number, with a suffix K, M or G where `suffixes`. @return 0 or -EINVAL */
static int number_parse(const char *text, bool suffixes, uint64_t maximum, uint64_t *value) {
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    if (errno || end == text || *text < '0' || *text > '9')
        return -EINVAL;
    unsigned shift = 0;
    if (suffixes && *end && strchr("KMG", *end))
        shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 30, end++;
    if (*end || *value > maximum >> shift)
        return -EINVAL;
    *value <<= shift;
    return 0;
}

static uint64_t machine_memory_bytes(void) {
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int option_take(int option, const char *argument, struct options *options) {
    uint64_t value;
    switch (option) {
    case 'p':
        if (number_parse(argument, false, PARTITIONS_MAX, &value) || value == 0)
            return usage_error("--partitions must be 1 to 1024, not ", argument);
        options->ledger.partitions = (unsigned)value;
        return 0;
    case 'l':
        if (number_parse(argument, false, LCORES_MAX, &value) || value == 0)
            return usage_error("--lcores must be 1 to 64, not ", argument);
        options->ledger.lcores = (unsigned)value;
        return 0;
    case 'i':
        if (strcmp(argument, "on") != 0 && strcmp(argument, "off") != 0)
            return usage_error("--id-time must be on or off, not ", argument);
        options->ledger.id_time = strcmp(argument, "on") == 0;
        return 0;
    case 'w':
        options->ledger.wal_directory = argument;
        return *argument ? 0 : usage_error("--wal needs the name of a directory", "");
    case 'm':
        if (number_parse(argument, true, SIZE_MAX >> 1, &value) || value == 0)
            return usage_error("--memory must be a number of bytes such as 64M, not ", argument);
        if (value > machine_memory_bytes())
            return usage_error("--memory is more than this machine has in all: ", argument);
        options->ledger.memory_bytes = value;
        return 0;
    case 't':
        options->test = true;
        return 0;
    default:
        options->help = true;
        return 0;
    }
}

static int options_parse(int argc, char **argv, struct options *options) {
    static const struct option known[] = {
        {"partitions", required_argument, NULL, 'p'},
        {"lcores", required_argument, NULL, 'l'},
        {"id-time", required_argument, NULL, 'i'},
        {"wal", required_argument, NULL, 'w'},
        {"memory", required_argument, NULL, 'm'},
        {"test", no_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    *options = (struct options){
        .ledger = {.id_time = -1, .memory_bytes = MEMORY_BYTES_DEFAULT},
    };
    opterr = 0;
    optind = 0;
    for (;;) {
        int at = optind ? optind : 1;
        int option = getopt_long(argc, argv, "+:", known, NULL);
        if (option == -1)
            break;
        if (option == ':')
            return usage_error("a value is missing after ", argv[at]);
        if (option == '?')
            return usage_error("unknown option ", argv[at]);
        if (option_take(option, optarg, options))
            return -EINVAL;
    }
    if (optind < argc)
        return usage_error("unexpected argument ", argv[optind]);
    if (options->test && options->ledger.wal_directory)
        return usage_error("--test excludes --wal, for what it changes is not logged", "");
    return 0;
}

/** Read a line without its line feed. @return 1, 0 at the end, -E2BIG (read past it), -ENOMEM or
 * -EIO */
static int line_read(struct shell *shell, FILE *input) {
    bool too_long = false;
    shell->line_bytes = 0;
    for (;;) {
        int byte = getc_unlocked(input);
        if (byte == EOF && ferror(input))
            return -EIO;
        if (byte == EOF && shell->line_bytes == 0 && !too_long)
            return 0;
        if (byte == EOF || byte == '\n')
            return too_long ? -E2BIG : 1;
        if (shell->line_bytes == LINE_BYTES_MAX) {
            too_long = true;
            continue;
        }
        if (shell->line_bytes == shell->line_capacity) {
            size_t capacity = shell->line_capacity ? shell->line_capacity * 2 : 4096;
            char *grown = realloc(shell->line, capacity);
            if (!grown)
                return -ENOMEM;
            shell->line = grown;
            shell->line_capacity = capacity;
        }
        shell->line[shell->line_bytes++] = (char)byte;
    }
}

static void answer_error(struct shell *shell, const char *error) {
    shell_output_text(&shell->output, "{\"error\":");
    shell_output_string(&shell->output, error);
    shell_output_text(&shell->output, "}");
}

static int advance(struct shell *shell) {
    struct shell_request *request = &shell->request;
    uint64_t cell_time = shell_ledger_cell_time(shell->ledger);
    if (cell_time > SHELL_CLOCK_MAX_NS || request->advance_ns > SHELL_CLOCK_MAX_NS - cell_time) {
        snprintf(request->error, sizeof(request->error),
                 "ns: out of range, cell time is %" PRIu64 " and must stay below %" PRIu64,
                 cell_time, SHELL_CLOCK_MAX_NS);
        answer_error(shell, request->error);
        return 0;
    }
    shell_ledger_clock(shell->ledger, cell_time + request->advance_ns);
    int error = shell_ledger_settle(shell->ledger);
    if (error)
        return error;
    shell_output_text(&shell->output, "{\"now\":");
    shell_output_quoted(&shell->output, cell_time + request->advance_ns);
    shell_output_text(&shell->output, "}");
    return 0;
}

static int put_balances(struct shell *shell) {
    struct shell_request *request = &shell->request;
    if (shell_ledger_put_balances(shell->ledger, request->account_id, &request->balances))
        answer_error(shell, "id: there is no such account");
    else
        shell_output_text(&shell->output, "{\"ok\":true}");
    return 0;
}

/** Put the answer to one line together. @return 0, or -errno when the ledger cannot go on */
static int line_answer(struct shell *shell) {
    struct shell_request *request = &shell->request;
    int error = shell_json_parse(&shell->json, shell->line, shell->line_bytes);
    if (error == -EBADMSG) {
        snprintf(request->error, sizeof(request->error), "column %zu: %s", shell->json.error_column,
                 shell->json.error);
        answer_error(shell, request->error);
        return 0;
    }
    if (error)
        return error;
    if (shell_request_read(request, &shell->json, shell->options.test)) {
        answer_error(shell, request->error);
        return 0;
    }
    if (request->has_now)
        shell_ledger_clock(shell->ledger, request->now_ns);
    if (request->operation == SHELL_ADVANCE)
        return advance(shell);
    if (request->operation == SHELL_PUT_BALANCES)
        return put_balances(shell);
    error = shell_ledger_run(shell->ledger, &request->request);
    if (!error)
        shell_request_answer(request, &shell->output);
    return error;
}

/** Answer line after line. @return 0 at the end of the input, or -errno */
static int shell_loop(struct shell *shell) {
    for (;;) {
        int error = line_read(shell, stdin);
        if (error == 0)
            return 0;
        if (error == -E2BIG) {
            answer_error(shell, "the line is longer than 32 MiB");
            error = 0;
        } else if (error > 0) {
            error = line_answer(shell);
        }
        if (!error)
            error = shell_output_flush(&shell->output, STDOUT_FILENO);
        if (error)
            return error;
    }
}

static void shell_free(struct shell *shell) {
    free(shell->line);
    shell_json_free(&shell->json);
    shell_request_close(&shell->request);
    shell_output_free(&shell->output);
}

int shell_main(int argc, char **argv) {
    struct shell shell = {0};
    char message[512];
    if (options_parse(argc, argv, &shell.options))
        return EXIT_USAGE;
    if (shell.options.help) {
        puts(usage);
        fputs(help, stdout);
        return EXIT_SUCCESS;
    }
    signal(SIGPIPE, SIG_IGN);
    int error = shell_ledger_open(&shell.options.ledger, &shell.ledger, message, sizeof(message));
    if (error) {
        fprintf(stderr, "tally shell: %s\n", message);
        return EXIT_USAGE;
    }
    error = shell_request_open(&shell.request);
    if (!error)
        error = shell_loop(&shell);
    if (error)
        fprintf(stderr, "tally shell: %s\n",
                error == -EIO && *shell_ledger_error(shell.ledger)
                    ? shell_ledger_error(shell.ledger)
                    : strerror(-error));
    if (shell_ledger_close(shell.ledger) && !error) {
        fprintf(stderr, "tally shell: the log could not be finished\n");
        error = -EIO;
    }
    shell_free(&shell);
    return error ? EXIT_FAILURE : EXIT_SUCCESS;
}

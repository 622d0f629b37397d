/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/shell.h"
#include "tools/tally_cli.h"

/** The program `tally`: finds the command and runs it. */

static const struct tally_command {
    const char *name;
    int (*run)(struct cli *cli, int argc, char **argv);
    const char *operands;
    const char *summary;
} commands[] = {
    {"account create", tally_account_create, "--ledger N --code N", "create an account"},
    {"account show", tally_account_show, "ID...", "show accounts"},
    {"balance", tally_balance, "ID...", "show the balances of accounts"},
    {"transfer", tally_transfer_create, "--debit ID --credit ID ...", "move an amount"},
    {"transfer show", tally_transfer_show, "ID...", "show transfers"},
    {"hold", tally_hold, "--debit ID --credit ID ...", "reserve an amount: a pending transfer"},
    {"post", tally_post, "PENDING_ID", "post a held amount, or part of it"},
    {"void", tally_void, "PENDING_ID", "release a held amount"},
    {"load", tally_load, "FILE.csv", "create the transfers of a CSV file"},
    {"ping", tally_ping_command, "[-c N]", "measure the round trip to the server"},
    {"wal dump", tally_wal_dump, "DIR|FILE", "print the groups and records of a log"},
    {"wal verify", tally_wal_verify, "DIR", "verify the log of a data directory"},
    {"checkpoint", tally_checkpoint, "[--data DIR]", "let a running tallyd take a checkpoint"},
    {"checkpoint list", tally_checkpoint_list, "[--data DIR]",
     "show the checkpoints that are kept"},
    {"checkpoint verify", tally_checkpoint_verify, "[--data DIR]", "verify them, every byte"},
    {"backup", tally_backup, "DIR [--data SOURCE]", "copy a data directory, running or not"},
    {"replay", tally_replay, "[--until TIME|SEQ] [--into D]", "rebuild the state as of then"},
    {"shell", NULL, "[options]", "the engine alone, JSON in and out"},
    {"help", NULL, "[COMMAND]", "this, or all about a command"},
    {"version", NULL, "", "print the version"},
};

enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

static struct cli cli = {.timeout_ms = 5000};

static const struct args_option common_options[] = {
    {"server", 's', ARGS_TEXT, &cli.server, "ADDR[:PORT]",
     "default: $TALLY_SERVER, else 127.0.0.1:7711", false, 0, 0, NULL},
    {"timeout", 't', ARGS_NUMBER, &cli.timeout_ms, "MS",
     "wait so long for an answer (default 5000)", false, 1, 3600000, NULL},
    {"json", 'j', ARGS_SWITCH, &cli.json, NULL, "one JSON object a line", false, 0, 0, NULL},
    {NULL},
};

static void print_overview(void) {
    printf("usage: tally [options] COMMAND ...\n\ncommands\n");
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        char left[64];
        snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].operands);
        printf("  %-36s %s\n", left, commands[i].summary);
    }
    printf("\noptions\n"
           "  --server, -s ADDR[:PORT]  default: $TALLY_SERVER, else 127.0.0.1:7711\n"
           "  --timeout, -t MS          wait so long for an answer (default 5000)\n"
           "  --json, -j                one JSON object a line; integers of 64 and 128 bits\n"
           "                            are decimal strings\n"
           "\nIds and amounts are decimal or 0x hex.\n"
           "\nexit status\n"
           "  0  done (an event that exists already, with the same fields, is done too)\n"
           "  1  the ledger refused: some event was not created, some id was not\n"
           "     found; or tallyd gave a checkpoint up\n"
           "  2  bad flags, files or input\n"
           "  3  no answer, or an outcome that is not known\n"
           "  4  damaged data\n");
}

/* --- what the commands share ------------------------------------------------------------------ */

int cli_connect(struct cli *context) {
    char error[300];
    struct tally_options options = {.server = context->server,
                                    .timeout_ms = (uint32_t)context->timeout_ms};
    int rc = tally_client_open(&options, &context->client, error, sizeof(error));
    if (rc == 0)
        return CLI_DONE;
    args_complain("%s", error);
    return rc == -ETIMEDOUT ? CLI_UNKNOWN : CLI_USAGE;
}

int cli_no_answer(struct cli *context, int rc) {
    const char *problem = tally_client_problem(context->client);
    const char *what = rc == -EBUSY      ? "the server is overloaded; nothing was done"
                       : rc == -ENOTCONN ? "not sent; nothing was done"
                       : rc == -EPROTO
                           ? "the server does not understand this request; are versions the same?"
                           : "no answer in time; the outcome is unknown";
    args_complain("%s%s%s", what, *problem ? ": " : "", problem);
    return CLI_UNKNOWN;
}

/* --- finding the command ---------------------------------------------------------------------- */

/** The command whose words stand at argv[0]; the longest one. @param words set to their number,
 *  1 or 2 */
static const struct tally_command *find_command(int argc, char **argv, int *words) {
    const struct tally_command *found = NULL;
    char two[128];
    snprintf(two, sizeof(two), "%.60s %.60s", argv[0], argc > 1 ? argv[1] : "");
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, two) == 0) {
            *words = 2;
            return &commands[i];
        }
        if (strcmp(commands[i].name, argv[0]) == 0) {
            *words = 1;
            found = &commands[i];
        }
    }
    return found;
}

static int complain_command(int argc, char **argv) {
    const char *names[COMMAND_COUNT + 2] = {"account", "wal"}, *subcommands[COMMAND_COUNT] = {NULL};
    unsigned count = 2, subcommand_count = 0;
    size_t length = strlen(argv[0]);
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        names[count++] = commands[i].name;
        if (strncmp(commands[i].name, argv[0], length) == 0 && commands[i].name[length] == ' ')
            subcommands[subcommand_count++] = commands[i].name + length + 1;
    }
    if (subcommand_count && argc > 1 &&
        (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_overview();
        return CLI_DONE;
    }
    if (subcommand_count) {
        const char *near = argc > 1 ? args_nearest(argv[1], subcommands, subcommand_count) : NULL;
        if (near)
            args_complain("there is no '%s %s'; did you mean '%s %s'?", argv[0], argv[1], argv[0],
                          near);
        else
            args_complain("'%s' needs one of: %s%s%s", argv[0], subcommands[0],
                          subcommand_count > 1 ? ", " : "",
                          subcommand_count > 1 ? subcommands[1] : "");
        return CLI_USAGE;
    }
    const char *near = args_nearest(argv[0], names, count);
    if (near)
        args_complain("there is no command '%s'; did you mean '%s'?", argv[0], near);
    else
        args_complain("there is no command '%s'; 'tally help' lists them", argv[0]);
    return CLI_USAGE;
}

static int run_command(int argc, char **argv);

static int run_help(int argc, char **argv) {
    int words;
    if (argc == 0) {
        print_overview();
        return CLI_DONE;
    }
    const struct tally_command *command = find_command(argc, argv, &words);
    char *arguments[] = {argv[0], argc > 1 ? argv[1] : NULL, NULL, NULL}, help[] = "--help";
    if (!command)
        return complain_command(argc, argv);
    if (!command->run && strcmp(command->name, "shell") != 0) {
        print_overview();
        return CLI_DONE;
    }
    arguments[words] = help;
    return run_command(words + 1, arguments);
}

static int run_command(int argc, char **argv) {
    int words;
    const struct tally_command *command = find_command(argc, argv, &words);
    if (!command)
        return complain_command(argc, argv);
    if (command->run)
        return command->run(&cli, argc - words, argv + words);
    if (strcmp(command->name, "shell") == 0)
        return shell_main(argc, argv);
    if (strcmp(command->name, "help") == 0)
        return run_help(argc - 1, argv + 1);
    printf("tally %s\n", tally_version());
    return CLI_DONE;
}

int main(int argc, char **argv) {
    bool help;
    args_common = common_options;
    cli.server = getenv("TALLY_SERVER");
    int at = args_parse_common(argc - 1, argv + 1, &help);
    if (at < 0)
        return CLI_USAGE;
    if (help) {
        print_overview();
        return CLI_DONE;
    }
    if (at == argc - 1) {
        args_complain("which command? 'tally help' lists them");
        return CLI_USAGE;
    }
    int exit_status = run_command(argc - 1 - at, argv + 1 + at);
    tally_client_close(cli.client);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        args_complain("the output could not be written: %s", strerror(errno));
        return CLI_USAGE;
    }
    return exit_status;
}

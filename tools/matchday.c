/* SPDX-License-Identifier: Apache-2.0 */
/** tally-matchday: a match day of a betting wallet against a running tallyd, over the network, with a
 *  book of its own.
 *  Flow:  open accounts -> deposits -> early bets -> goals and balance reads -> kick-off bets ->
 *         overdrafts -> settlement -> proof from outside; with --bank the replay of a bank's year.
 *  tallyd may be killed and started again at any moment: what has no answer is sent again with the
 *  same ids. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "tools/matchday_bank.h"
#include "tools/matchday_day.h"

struct options {
    const char *server;
    const char *bank;
    uint32_t wallets;
    uint32_t outstanding;
    uint32_t stall_s;
    uint64_t rate;
    uint64_t seed;
};

/* --- options and main
 * ------------------------------------------------------------------------------------------------
 */

static const char usage[] =
    "usage: tally-matchday [--server ADDR[:PORT]] [--wallets N] [--rate EVENTS_PER_S]\n"
    "                      [--outstanding N] [--stall-s N] [--seed N] [--bank FILE]\n"
    "  --server       where tallyd is (default 127.0.0.1)\n"
    "  --wallets      how many customers bet (default 20000)\n"
    "  --rate         pace of all but the settlement, which goes as fast as it can\n"
    "                 (default 20000; 0: no pace)\n"
    "  --outstanding  requests on their way at a time (default 2048)\n"
    "  --stall-s      give up after so many seconds without an answer (default 60)\n"
    "  --seed         another day (default 1)\n"
    "  --bank         replay this file of bank transactions instead of a match day\n";

static int option_number(const char *name, const char *text, uint64_t least, uint64_t most,
                         uint64_t *number) {
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || *number < least ||
        *number > most) {
        fprintf(stderr,
                "tally-matchday: --%s is '%s', should be a number from %" PRIu64 " to %" PRIu64
                "\n",
                name, text, least, most);
        return -EINVAL;
    }
    return 0;
}

/** @return 0, 1 (help was asked for) or -EINVAL */
static int options_parse(int argc, char **argv, struct options *options) {
    static const struct option known[] = {
        {"server", required_argument, NULL, 's'},
        {"wallets", required_argument, NULL, 'w'},
        {"rate", required_argument, NULL, 'r'},
        {"outstanding", required_argument, NULL, 'o'},
        {"stall-s", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 'e'},
        {"bank", required_argument, NULL, 'b'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    uint64_t wallets = 20000, outstanding = 2048, stall_s = 60;
    int option, index = 0, error = 0;
    *options = (struct options){.rate = 20000, .seed = 1};
    while (error == 0 && (option = getopt_long(argc, argv, ":", known, &index)) != -1) {
        switch (option) {
        case 's':
            options->server = optarg;
            break;
        case 'w':
            error = option_number(known[index].name, optarg, 1, 1000000, &wallets);
            break;
        case 'r':
            error = option_number(known[index].name, optarg, 0, 1000000000, &options->rate);
            break;
        case 'o':
            error = option_number(known[index].name, optarg, 1, 1 << 20, &outstanding);
            break;
        case 't':
            error = option_number(known[index].name, optarg, 1, 3600, &stall_s);
            break;
        case 'e':
            error = option_number(known[index].name, optarg, 0, UINT64_MAX, &options->seed);
            break;
        case 'b':
            options->bank = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return 1;
        case ':':
            fprintf(stderr, "tally-matchday: %s needs a value; --help shows what there is\n",
                    argv[optind - 1]);
            return -EINVAL;
        default:
            fprintf(stderr, "tally-matchday: unknown flag '%s'; --help shows what there is\n",
                    argv[optind - 1]);
            return -EINVAL;
        }
    }
    if (error == 0 && optind < argc) {
        fprintf(stderr, "tally-matchday: unexpected argument '%s'; --help shows what there is\n",
                argv[optind]);
        error = -EINVAL;
    }
    if (error == 0 && options->bank != NULL && access(options->bank, R_OK) != 0) {
        fprintf(stderr, "tally-matchday: --bank %s: %s\n", options->bank, strerror(errno));
        error = -EINVAL;
    }
    options->wallets = (uint32_t)wallets;
    options->outstanding = (uint32_t)outstanding;
    options->stall_s = (uint32_t)stall_s;
    return error;
}

static void report_client(struct tally_client *client) {
    struct tally_stats stats;
    tally_client_stats(client, &stats);
    printf("  %" PRIu64 " datagrams sent, %" PRIu64 " retransmitted, %" PRIu64 " session%s\n",
           stats.datagrams_sent, stats.retransmissions, stats.sessions,
           stats.sessions == 1 ? "" : "s");
}

/** High half of this run's account ids: another one each time, and never the one that holds the
 * largest id. */
static uint64_t run_id_make(void) {
    uint64_t run_id;
    if (getrandom(&run_id, sizeof(run_id), 0) != sizeof(run_id))
        run_id = run_now_ns();
    return run_id >> 1;
}

static bool match_day(struct tally_client *client, struct run *run, const struct options *options,
                      struct day *day) {
    *day = (struct day){
        .client = client,
        .run = run,
        .run_id = run_id_make(),
        .random = options->seed,
        .wallets = options->wallets,
        .rate = options->rate,
    };
    if (day_open(day) != 0) {
        fprintf(stderr, "tally-matchday: no memory for the book of %u wallets\n", options->wallets);
        return false;
    }
    bool good = day_play(day) && day_prove(day);
    report_client(client);
    return good;
}

static bool bank_year(struct tally_client *client, struct run *run, const char *path,
                      struct bank **bank) {
    int error = bank_replay(client, run, path, run_id_make(), bank);
    if (error < 0)
        fprintf(stderr, "tally-matchday: bank replay: %s\n", strerror(-error));
    return error == 0;
}

int main(int argc, char **argv) {
    struct options options;
    struct tally_client *client;
    struct run *run = NULL;
    struct day day = {0};
    struct bank *bank = NULL;
    char error_text[256] = "";
    int error = options_parse(argc, argv, &options);
    if (error != 0)
        return error < 0 ? 2 : 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct tally_options client_options = {
        .server = options.server,
        .timeout_ms = options.stall_s < 30 ? options.stall_s * 1000 : 30000,
    };
    error = tally_client_open(&client_options, &client, error_text, sizeof(error_text));
    if (error != 0) {
        fprintf(stderr, "tally-matchday: %s\n", error_text);
        return error == -EINVAL ? 2 : 1;
    }
    bool good = run_open(client, options.outstanding, options.stall_s, &run) == 0;
    if (good) {
        run_report_head();
        good = options.bank ? bank_year(client, run, options.bank, &bank)
                            : match_day(client, run, &options, &day);
    }
    tally_client_close(client);
    if (run != NULL)
        run_close(run);
    bank_free(bank);
    day_close(&day);
    printf("%s\n", good ? "all as it should be" : "NOT as it should be");
    return good ? 0 : 1;
}

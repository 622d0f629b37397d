/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tools/tally_cli.h"

/** ping: round trips of the handshake's first step. */

enum { PINGS_MAX = 100000 };

static void print_round(const struct cli *cli, uint64_t number, bool answered, uint64_t rtt_ns) {
    if (cli->json) {
        struct json_object *object = output_object();
        output_number(object, "ping", number);
        output_text(object, "status", answered ? "ok" : "timeout");
        if (answered)
            output_double(object, "rtt_us", (double)rtt_ns / 1e3);
        output_print(object);
    } else if (answered) {
        printf("answer %" PRIu64 " after %.1f us\n", number, (double)rtt_ns / 1e3);
    } else {
        printf("answer %" PRIu64 " did not come in time\n", number);
    }
    fflush(stdout);
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void print_summary(const struct cli *cli, uint64_t *times_ns, uint64_t sent,
                          uint64_t answered) {
    double minimum = 0, median = 0, maximum = 0;
    if (answered) {
        qsort(times_ns, answered, sizeof(times_ns[0]), compare);
        minimum = (double)times_ns[0] / 1e3;
        median = (double)times_ns[answered / 2] / 1e3;
        maximum = (double)times_ns[answered - 1] / 1e3;
    }
    if (cli->json) {
        struct json_object *object = output_object();
        output_number(object, "sent", sent);
        output_number(object, "answered", answered);
        output_double(object, "rtt_min_us", minimum);
        output_double(object, "rtt_p50_us", median);
        output_double(object, "rtt_max_us", maximum);
        output_print(object);
        return;
    }
    printf("%" PRIu64 " sent, %" PRIu64 " answered", sent, answered);
    if (answered)
        printf("; round trip min %.1f, median %.1f, max %.1f us", minimum, median, maximum);
    printf("\n");
}

int tally_ping_command(struct cli *cli, int argc, char **argv) {
    uint64_t count = 4, interval_ms = 200, answered = 0;
    const struct args_option options[] = {
        {"count", 'c', ARGS_NUMBER, &count, "N", "how many (default 4)", false, 1, PINGS_MAX, NULL},
        {"interval", 'i', ARGS_NUMBER, &interval_ms, "MS", "pause between them (default 200)",
         false, 0, 60000, NULL},
        {NULL},
    };
    const struct args_command command = {
        "ping", "Measure the round trip to the server; touches no ledger.", "", 0, 0, options,
        NULL};
    unsigned operands;
    enum args_answer answer = args_parse(&command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    int exit_status = cli_connect(cli);
    uint64_t *times_ns = calloc(count, sizeof(*times_ns));
    for (uint64_t number = 1; exit_status == CLI_DONE && times_ns && number <= count; number++) {
        uint64_t rtt_ns = 0;
        bool here = tally_ping(cli->client, (uint32_t)cli->timeout_ms, &rtt_ns) == 0;
        if (here)
            times_ns[answered++] = rtt_ns;
        print_round(cli, number, here, rtt_ns);
        struct timespec pause = {.tv_sec = (time_t)(interval_ms / 1000),
                                 .tv_nsec = (long)(interval_ms % 1000) * 1000000};
        if (number < count)
            nanosleep(&pause, NULL);
    }
    if (exit_status == CLI_DONE && times_ns) {
        print_summary(cli, times_ns, count, answered);
        exit_status = answered == count ? CLI_DONE : CLI_UNKNOWN;
    }
    free(times_ns);
    return exit_status;
}

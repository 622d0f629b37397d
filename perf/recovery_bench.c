/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/hash.h"
#include "engine/recovery.h"
#include "perf/bench.h"
#include "perf/recovery_data.h"
#include "perf/recovery_roofline.h"

/** Recovery on one core (or several): a checkpoint of many accounts, then a log of plain transfers between random pairs of them, through the
 *  same driver as tallyd's. Recovery and roofline take turns, so that noise hits both. */

#define ACCOUNT_BYTES 240 /**< an account, its index entries, and what growth leaves unused */
#define TRANSFER_BYTES 100

struct bench {
    struct recovery_data data;
    double accounts, transfers, partitions, workers, rounds;
    bool json;
    struct engine *engine;
    struct wal_board *board;
    struct wal_lane *lane;
    uint64_t errors, checksum;
    uint64_t checkpoint_ns, log_ns, verify_ns, roof_checkpoint_ns, roof_log_ns;
};

static int engine_start(struct bench *bench) {
    char error[256];
    bench->board = aligned_alloc(CACHE_LINE_BYTES, sizeof(*bench->board));
    bench->lane = aligned_alloc(CACHE_LINE_BYTES, sizeof(*bench->lane));
    if (!bench->board || !bench->lane)
        return -1;
    memset(bench->board, 0, sizeof(*bench->board));
    memset(bench->lane, 0, sizeof(*bench->lane));
    const struct engine_config config = {
        .partitions = bench->data.partitions,
        .lcores = 1,
        .hash_seed = bench->data.identity.hash_seed,
        .digest_seed = bench->data.identity.digest_seed,
        .id_time = true,
        .memory_bytes = bench->data.accounts * ACCOUNT_BYTES +
                        bench->data.transfers * TRANSFER_BYTES + (256u << 20),
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .horizon_back_ms = 3600000,
        .horizon_slack_ms = 1000,
        .prefault = true,
        .board = bench->board,
        .lanes = bench->lane,
    };
    if (engine_open(&config, &bench->engine, error, sizeof(error)) == 0)
        return 0;
    fprintf(stderr, "recovery: %s\n", error);
    return -1;
}

/** What came back must be what was written down; the log's own totals and the tables' digests were compared on the way. */
static void verify(struct bench *bench, const struct wal_position *position,
                   const struct recovery_report *report) {
    struct engine_totals totals;
    engine_totals(bench->engine, &totals);
    bench->errors += totals.accounts != bench->data.accounts;
    bench->errors += totals.transfer_ids != bench->data.transfers;
    bench->errors += position->seq != bench->data.last_seq;
    bench->errors += report->log_bytes != bench->data.log_bytes;
    uint64_t checksum = (uint64_t)bench->data.posted;
    for (unsigned p = 0; p < bench->data.partitions; p++) {
        uint128_t digest = engine_partition_digest(bench->engine, p);
        checksum = hash_mix64(checksum ^ (uint64_t)digest ^ (uint64_t)(digest >> 64));
    }
    bench->errors += bench->checksum && bench->checksum != checksum;
    bench->checksum = checksum;
}

/** @return 0 or 1 after saying what is wrong */
static int recover(struct bench *bench) {
    const struct recovery_config config = {.disk = bench->data.disk,
                                           .identity = &bench->data.identity,
                                           .workers = (unsigned)bench->workers,
                                           .threads = bench->workers > 1};
    struct recovery_report report;
    struct wal_position position;
    char error[512];
    engine_clear(bench->engine);
    uint64_t start = bench_now_ns();
    if (recovery_run(&config, bench->engine, &position, &report, error, sizeof(error)) != 0) {
        fprintf(stderr, "recovery: %s\n", error);
        return 1;
    }
    uint64_t took = bench_now_ns() - start;
    bench->checkpoint_ns += report.checkpoint_ns;
    bench->log_ns += report.log_ns;
    bench->verify_ns += took - report.checkpoint_ns - report.log_ns;
    verify(bench, &position, &report);
    wal_position_release(&position);
    return 0;
}

static void usage(FILE *out) {
    fprintf(out, "usage: perf/run recovery [--accounts N] [--transfers N] [--partitions N] "
                 "[--workers N] [--rounds N] [--json]\n");
}

/** @return 0 to go on, else 1 + the exit status */
static int options(struct bench *bench, int argc, char **argv) {
    const struct {
        const char *name;
        double minimum, maximum, *value;
    } numbers[] = {
        {"accounts", 2, 100e6, &bench->accounts},
        {"transfers", 1, 400e6, &bench->transfers},
        {"partitions", 1, PARTITIONS_MAX, &bench->partitions},
        {"workers", 1, LCORES_MAX, &bench->workers},
        {"rounds", 1, 100, &bench->rounds},
    };
    const unsigned count = sizeof(numbers) / sizeof(numbers[0]);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            bench->json = true;
            continue;
        }
        if (!strcmp(argv[i], "--help")) {
            usage(stdout);
            return 1;
        }
        unsigned which = 0;
        while (which < count &&
               (strncmp(argv[i], "--", 2) || strcmp(argv[i] + 2, numbers[which].name)))
            which++;
        if (which == count || i + 1 == argc) {
            fprintf(stderr, "perf/run recovery: \"%s\" %s\n", argv[i],
                    which == count ? "is no option; see --help" : "needs a number");
            return 1 + 2;
        }
        char *end;
        *numbers[which].value = strtod(argv[++i], &end);
        if (*end || !*argv[i] || *numbers[which].value < numbers[which].minimum ||
            *numbers[which].value > numbers[which].maximum) {
            fprintf(stderr,
                    "perf/run recovery: --%s is \"%s\"; it must be a number from %.10g to %.10g\n",
                    numbers[which].name, argv[i], numbers[which].minimum, numbers[which].maximum);
            return 1 + 2;
        }
    }
    return 0;
}

static bool memory_suffices(const struct bench *bench) {
    uint64_t need = bench->data.accounts * (ACCOUNT_BYTES + 2 * sizeof(struct account) + 32) +
                    bench->data.transfers * (TRANSFER_BYTES + 80 + 48);
    uint64_t have = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (need + (512u << 20) <= have)
        return true;
    fprintf(stderr,
            "recovery: about %" PRIu64 " MiB of memory are needed and %" PRIu64
            " MiB are free; ask for less with --accounts or --transfers\n",
            (need >> 20) + 512, have >> 20);
    return false;
}

static void report(const struct bench *bench, double total_s) {
    const double rounds = bench->rounds, bytes = (double)bench->data.checkpoint_bytes * rounds;
    const double transfers = (double)bench->data.transfers * rounds;
    double figure = transfers / ((double)bench->log_ns / 1e9) / bench->workers;
    double roof = transfers / ((double)bench->roof_log_ns / 1e9);
    double checkpoint = bytes / ((double)bench->checkpoint_ns / 1e9) / bench->workers;
    double checkpoint_roof = bytes / ((double)bench->roof_checkpoint_ns / 1e9);
    if (bench->json) {
        bench_json_start("recovery", figure, roof, "transfers/s/core");
        printf(",\"checkpoint_figure\":%.0f,\"checkpoint_roofline\":%.0f,\"checkpoint_ratio\":%.3f,"
               "\"checkpoint_unit\":\"bytes/s/core\",\"workers\":%.0f,\"accounts\":%" PRIu64
               ",\"transfers\":%" PRIu64 ",\"verify_s\":%.2f,\"total_s\":%.1f",
               checkpoint, checkpoint_roof, checkpoint / checkpoint_roof, bench->workers,
               bench->data.accounts, bench->data.transfers, (double)bench->verify_ns / 1e9 / rounds,
               total_s);
        bench_json_end(bench->checksum, bench->errors);
        return;
    }
    printf("log         %8.2f M transfers/s and core\nroofline    %8.2f M/s\nratio       %8.2f\n"
           "checkpoint  %8.2f GB/s and core\nroofline    %8.2f GB/s\nratio       %8.2f\n"
           "%" PRIu64 " accounts, %" PRIu64 " transfers, %.0f workers, %.2f s of verification each "
           "time, %.1f s in all, %" PRIu64 " errors\n",
           figure / 1e6, roof / 1e6, figure / roof, checkpoint / 1e9, checkpoint_roof / 1e9,
           checkpoint / checkpoint_roof, bench->data.accounts, bench->data.transfers,
           bench->workers, (double)bench->verify_ns / 1e9 / rounds, total_s, bench->errors);
}

int main(int argc, char **argv) {
    struct bench bench = {
        .accounts = 10e6, .transfers = 6e6, .partitions = 256, .workers = 1, .rounds = 3};
    struct recovery_roofline roofline;
    uint64_t begun = bench_now_ns();
    int problem = options(&bench, argc, argv);
    if (problem)
        return problem - 1;
    bench.data.accounts = (uint64_t)bench.accounts;
    bench.data.transfers = (uint64_t)bench.transfers;
    bench.data.partitions = (unsigned)bench.partitions;
    bench.rounds = (double)(unsigned)bench.rounds;
    bench.workers = (double)(unsigned)bench.workers;
    if (!memory_suffices(&bench))
        return 1;
    if (recovery_data_make(&bench.data) || recovery_roofline_open(&roofline, &bench.data) ||
        engine_start(&bench)) {
        fprintf(stderr, "recovery: not enough memory\n");
        return 1;
    }
    for (unsigned round = 0; round < bench.rounds; round++) {
        bench.roof_checkpoint_ns += recovery_roofline_checkpoint(&roofline, &bench.data);
        bench.roof_log_ns += recovery_roofline_log(&roofline, &bench.data);
        if (recover(&bench))
            return 1;
    }
    bench.checksum ^= roofline.checksum;
    report(&bench, (double)(bench_now_ns() - begun) / 1e9);
    engine_close(bench.engine);
    recovery_data_free(&bench.data);
    return bench.errors ? 1 : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "perf/checkpoint_bench.h"
#include "wal/checkpoint_inspect.h"

/** Options in, figures out. */

/* --- what came of it ------------------------------------------------------------------------------------------------- */

uint64_t checkpoint_verify(struct bench *bench) {
    uint64_t checksum = 0;
    for (unsigned p = 0; p < bench->partitions; p++) {
        uint128_t digest = engine_partition_digest(bench->engine, p);
        bench->errors += digest != engine_partition_digest_recompute(bench->engine, p);
        checksum = hash_mix64(checksum ^ (uint64_t)digest ^ (uint64_t)(digest >> 64));
    }
    seq_t seqs[CHECKPOINT_LIST_MAX];
    struct disk *disk = data_dir_disk(bench->dir);
    int count = checkpoint_list(disk, seqs, CHECKPOINT_LIST_MAX);
    bench->errors += count < 1;
    for (int i = count - 1; i >= 0 && i == count - 1; i--) {
        struct checkpoint_summary summary;
        char error[512];
        if (checkpoint_inspect(disk, &data_dir_settings(bench->dir)->identity, seqs[i], NULL, NULL,
                               &summary, error, sizeof(error))) {
            fprintf(stderr, "checkpoint: %s\n", error);
            bench->errors++;
        }
        bench->checkpoint_records = summary.accounts + summary.pendings + summary.ids;
        bench->errors += summary.accounts != bench->accounts;
    }
    bench->errors += bench->rejected;
    return checksum;
}

static double us(const struct load_histogram *histogram, double quantile) {
    return (double)load_histogram_quantile(histogram, quantile) / 1e3;
}

static double pause_us(const struct bench *bench) {
    uint64_t slice_ns = bench->slices->max_ns;
    return (double)(slice_ns > bench->begin_ns ? slice_ns : bench->begin_ns) / 1e3;
}

static void report_json(const struct bench *bench, uint64_t checksum, double total_s) {
    static const char *const names[PHASES] = {"before", "during"};
    const struct load_histogram *slices = bench->slices;
    double before = us(bench->latencies[PHASE_BEFORE], 0.999);
    double during = us(bench->latencies[PHASE_DURING], 0.999);
    bench_json_start("checkpoint", during, before, "us p99.9");
    printf(",\"p999_ratio\":%.3f,\"longest_pause_us\":%.1f,\"begin_us\":%.1f,\"noise_us\":%.1f",
           during / before, pause_us(bench), (double)bench->begin_ns / 1e3,
           (double)bench->noise_ns / 1e3);
    printf(",\"slices\":%" PRIu64 ",\"slice_us_p50\":%.1f,\"slice_us_p999\":%.1f", slices->total,
           us(slices, 0.5), us(slices, 0.999));
    for (unsigned i = 0; i < PHASES; i++)
        printf(",\"%s_us_p50\":%.1f,\"%s_us_p99\":%.1f,\"%s_us_p999\":%.1f", names[i],
               us(bench->latencies[i], 0.5), names[i], us(bench->latencies[i], 0.99), names[i],
               us(bench->latencies[i], 0.999));
    printf(",\"checkpoints\":%u,\"checkpoint_bytes\":%" PRIu64
           ",\"checkpoint_s\":%.2f,\"records\":%" PRIu64 ",\"accounts\":%u,\"partitions\":%u,"
           "\"rate\":%.0f,\"requests\":%" PRIu64 ",\"late\":%" PRIu64 ",\"total_s\":%.1f",
           bench->checkpoints, bench->checkpoint_bytes, (double)bench->checkpoint_ns / 1e9,
           bench->checkpoint_records, bench->accounts, bench->partitions, bench->rate,
           bench->requests, bench->late, total_s);
    bench_json_end(checksum, bench->errors);
}

void checkpoint_report(const struct bench *bench, uint64_t checksum, double total_s) {
    static const char *const names[PHASES] = {"before", "during"};
    if (bench->json) {
        report_json(bench, checksum, total_s);
        return;
    }
    for (unsigned i = 0; i < PHASES; i++)
        printf("%s    p50 %8.1f us  p99 %8.1f us  p99.9 %8.1f us\n", names[i],
               us(bench->latencies[i], 0.5), us(bench->latencies[i], 0.99),
               us(bench->latencies[i], 0.999));
    printf("slices    p50 %8.1f us  p99.9 %6.1f us of CPU time, %" PRIu64 " of them\n"
           "pause     longest %.1f us, to begin %.1f us; nothing at all: %.1f us\n",
           us(bench->slices, 0.5), us(bench->slices, 0.999), bench->slices->total, pause_us(bench),
           (double)bench->begin_ns / 1e3, (double)bench->noise_ns / 1e3);
    printf("%u checkpoints, %.0f MB in %.2f s; %.2f M transfers/s in requests of %u, %u accounts, "
           "%.1f s in all, %" PRIu64 " errors\n",
           bench->checkpoints, (double)bench->checkpoint_bytes / 1e6,
           (double)bench->checkpoint_ns / 1e9, bench->rate / 1e6, REQUEST_EVENTS, bench->accounts,
           total_s, bench->errors);
}

/* --- options --------------------------------------------------------------------------------------------------------- */

static void usage(FILE *out) {
    fprintf(out, "usage: perf/run checkpoint [--accounts N] [--seconds S] [--rate TRANSFERS] "
                 "[--checkpoints N] [--partitions N] [--chunks N] [--data DIR] [--json]\n");
}

/** @return 0, or 2 after saying in one line what is wrong with --`name` */
static int option_number(const char *name, double minimum, double maximum, double *value) {
    char *end;
    *value = strtod(optarg, &end);
    if (*optarg && !*end && *value >= minimum && *value <= maximum)
        return 0;
    fprintf(stderr,
            "perf/run checkpoint: --%s is \"%s\"; it must be a number from %.10g to %.10g\n", name,
            optarg, minimum, maximum);
    return 2;
}

int checkpoint_options_parse(struct bench *bench, int argc, char **argv) {
    static const struct option options[] = {{"accounts", required_argument, NULL, 'a'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"rate", required_argument, NULL, 'r'},
                                            {"checkpoints", required_argument, NULL, 'n'},
                                            {"partitions", required_argument, NULL, 'p'},
                                            {"chunks", required_argument, NULL, 'c'},
                                            {"data", required_argument, NULL, 'd'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    int option, error = 0;
    double value = 0;
    opterr = 0;
    while (!error && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'a':
            error = option_number("accounts", 2, floor(memory / 2 / ACCOUNT_BYTES), &value);
            bench->accounts = (uint32_t)value;
            break;
        case 's':
            error = option_number("seconds", 0.2, 60, &bench->seconds);
            break;
        case 'r':
            error = option_number("rate", 1000, 20e6, &bench->rate);
            break;
        case 'n':
            error = option_number("checkpoints", 1, 10, &value);
            bench->checkpoints = (unsigned)value;
            break;
        case 'p':
            error = option_number("partitions", 1, PARTITIONS_MAX, &value);
            bench->partitions = (unsigned)value;
            break;
        case 'c':
            error = option_number("chunks", 32, WAL_CHUNKS_MAX, &value);
            bench->chunks = (unsigned)value;
            break;
        case 'd':
            bench->parent = optarg;
            break;
        case 'j':
            bench->json = true;
            break;
        case 'h':
            usage(stdout);
            return 1;
        default:
            fprintf(stderr,
                    "perf/run checkpoint: \"%s\" is not an option, or lacks its value; see "
                    "perf/run checkpoint --help\n",
                    argv[optind - 1]);
            return 2;
        }
    }
    if (!error && optind < argc) {
        fprintf(stderr,
                "perf/run checkpoint: \"%s\" is not an option; see perf/run checkpoint --help\n",
                argv[optind]);
        error = 2;
    }
    return error;
}

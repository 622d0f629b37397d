/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/check.h"
#include "engine/base/hash.h"
#include "engine/engine.h"
#include "perf/bench.h"
#include "perf/engine_roofline.h"

/** The engine alone on one core: transfers between random pairs of accounts, through the same functions as the server calls, with a
 *  WAL that writes nothing and commits at once. Engine and roofline take turns, slice by slice, so that noise hits both. */

#define BATCH_EVENTS 22 /**< what one Ethernet frame carries */
#define BATCHES 16
#define ACCOUNT_BYTES 200 /**< an account, its index entry, and what growth leaves unused */
#define CLOCK_START_NS (1700000000ull * NS_PER_SECOND)

struct bench {
    uint32_t accounts;
    double seconds;
    unsigned partitions;
    bool json;
    struct engine *engine;
    struct engine_lcore *lcore;
    struct wal_board *board;
    struct wal_lane *lane;
    uint64_t random;
    uint64_t now_ns;
    uint64_t id_sequence;
    uint64_t executed, rejected, errors;
    struct engine_request requests[BATCHES];
    struct compact_transfer events[BATCHES][BATCH_EVENTS];
    struct result results[BATCHES][BATCH_EVENTS];
};

/** The WAL's side of the contract without a disk: every group is open for one turn and then committed. */
static void null_wal_step(struct bench *bench) {
    struct wal_lane *lane = bench->lane;
    uint32_t head = atomic_load_explicit(&lane->handover_head, memory_order_acquire);
    uint32_t tail = atomic_load_explicit(&lane->handover_tail, memory_order_relaxed);
    for (; tail != head; tail++)
        atomic_store_explicit(&bench->board->commit_seq, lane->handovers[tail % 16].seq,
                              memory_order_release);
    atomic_store_explicit(&lane->handover_tail, tail, memory_order_release);
    seq_t open_group = atomic_load_explicit(&bench->board->open_group, memory_order_relaxed);
    bool wanted = atomic_load_explicit(&lane->wanted_group, memory_order_relaxed) == open_group;
    if (!wanted && !atomic_load_explicit(&lane->segment_bytes, memory_order_relaxed))
        return;
    uint64_t ms = atomic_load_explicit(&lane->cell_time, memory_order_relaxed) / NS_PER_MS;
    uint64_t horizon = ms > 3600000 ? ms - 3600000 : 0;
    atomic_store_explicit(&bench->board->horizon_ms[(open_group + 1) % WAL_HORIZONS], horizon,
                          memory_order_relaxed);
    atomic_store_explicit(&bench->board->open_group, open_group + 1, memory_order_release);
}

static void turn(struct bench *bench) {
    engine_clock(bench->lcore, bench->now_ns);
    engine_execute(bench->lcore, BATCHES * BATCH_EVENTS);
    engine_seal(bench->lcore);
    null_wal_step(bench);
    engine_seal(bench->lcore);
    null_wal_step(bench);
}

static void drain(struct bench *bench, struct engine_request **done) {
    unsigned left = BATCHES;
    while (left) {
        turn(bench);
        left -= engine_completed(bench->lcore, done, BATCHES);
    }
}

static uint128_t account_id(uint64_t number) {
    return uint128_make(hash_mix64(number + 1), number + 1);
}

static int accounts_create(struct bench *bench) {
    enum { STEP = 4096 };
    struct account *accounts = aligned_alloc(16, sizeof(struct account) * STEP);
    struct result *results = calloc(STEP, sizeof(struct result));
    if (!accounts || !results)
        return -1;
    uint64_t created = 0;
    for (uint64_t number = 0; number < bench->accounts;) {
        uint32_t count = 0;
        for (; count < STEP && number < bench->accounts; count++, number++)
            accounts[count] = (struct account){.id = account_id(number), .ledger = 1, .code = 1};
        struct engine_request request = {.operation = OPERATION_CREATE_ACCOUNTS,
                                         .event_count = count,
                                         .events = accounts,
                                         .results = results};
        struct engine_request *done[1];
        engine_submit(bench->lcore, &request);
        while (!engine_completed(bench->lcore, done, 1))
            turn(bench);
        for (uint32_t i = 0; i < count; i++)
            created += results[i].status == ACCOUNT_STATUS_created;
    }
    free(accounts);
    free(results);
    return created == bench->accounts ? 0 : -1;
}

/** Transfers as a client makes them: time-ordered ids whose low bits name the debit account's partition. */
static void batches_make(struct bench *bench) {
    for (unsigned b = 0; b < BATCHES; b++) {
        for (unsigned e = 0; e < BATCH_EVENTS; e++) {
            struct compact_transfer *event = &bench->events[b][e];
            uint64_t debit = bench_below(&bench->random, bench->accounts);
            uint64_t credit = bench_below(&bench->random, bench->accounts - 1);
            credit += credit >= debit;
            uint128_t debit_id = account_id(debit), credit_id = account_id(credit);
            uint64_t sequence = ++bench->id_sequence;
            uint64_t place = account_partition(debit_id, 1, bench->partitions);
            uint128_t id =
                (uint128_t)(bench->now_ns / NS_PER_MS) << 80 | (uint128_t)sequence << 16 | place;
            *event = (struct compact_transfer){
                .id = {(uint64_t)id, (uint64_t)(id >> 64)},
                .debit_account_id = {(uint64_t)debit_id, (uint64_t)(debit_id >> 64)},
                .credit_account_id = {(uint64_t)credit_id, (uint64_t)(credit_id >> 64)},
                .amount = 1 + (sequence & 1023),
                .ledger = 1,
                .code = 1,
            };
        }
        bench->requests[b] = (struct engine_request){
            .operation = OPERATION_CREATE_TRANSFERS,
            .event_format = EVENT_FORMAT_COMPACT,
            .event_count = BATCH_EVENTS,
            .events = bench->events[b],
            .results = bench->results[b],
        };
    }
}

/** @return ns that the engine took; making the events is not measured */
static uint64_t engine_slice(struct bench *bench, uint64_t events) {
    struct engine_request *done[BATCHES];
    uint64_t spent = 0;
    for (uint64_t made = 0; made < events; made += BATCHES * BATCH_EVENTS) {
        batches_make(bench);
        uint64_t start = bench_now_ns();
        for (unsigned b = 0; b < BATCHES; b++)
            engine_submit(bench->lcore, &bench->requests[b]);
        drain(bench, done);
        uint64_t took = bench_now_ns() - start;
        spent += took;
        bench->now_ns += took;
        for (unsigned b = 0; b < BATCHES; b++) {
            for (unsigned e = 0; e < BATCH_EVENTS; e++) {
                bench->executed++;
                bench->rejected += bench->results[b][e].status != TRANSFER_STATUS_created;
            }
        }
    }
    return spent;
}

/** Money in equals money out, and the running digests are what the tables say. */
static uint64_t verify(struct bench *bench, uint64_t *errors) {
    struct balances sum = {0};
    for (uint64_t number = 0; number < bench->accounts; number++) {
        const struct account *account = engine_account_find(bench->engine, account_id(number));
        if (!account) {
            (*errors)++;
            continue;
        }
        sum.debits_posted += account->debits_posted;
        sum.credits_posted += account->credits_posted;
    }
    *errors += sum.debits_posted != sum.credits_posted || sum.debits_posted == 0;
    uint64_t checksum = (uint64_t)sum.debits_posted;
    for (unsigned p = 0; p < bench->partitions; p++) {
        uint128_t digest = engine_partition_digest(bench->engine, p);
        *errors += digest != engine_partition_digest_recompute(bench->engine, p);
        checksum = hash_mix64(checksum ^ (uint64_t)digest ^ (uint64_t)(digest >> 64));
    }
    return checksum;
}

static void usage(FILE *out) {
    fprintf(out, "usage: perf/run engine [--accounts N] [--seconds S] [--partitions N] [--json]\n");
}

/** @return 0, or 2 after saying in one line what is wrong with --`name` */
static int option_number(const char *name, const char *text, double minimum, double maximum,
                         double *value) {
    char *end;
    *value = strtod(text, &end);
    if (*text && !*end && *value >= minimum && *value <= maximum)
        return 0;
    fprintf(stderr, "perf/run engine: --%s is \"%s\"; it must be a number from %.10g to %.10g\n",
            name, text, minimum, maximum);
    return 2;
}

/** Accounts for which there is memory: their records and index, the roofline's, and half of it for everything else. */
static double accounts_max(void) {
    double bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    return floor(bytes / 2 / (ACCOUNT_BYTES + 160));
}

static int options_parse(struct bench *bench, int argc, char **argv) {
    static const struct option options[] = {{"accounts", required_argument, NULL, 'a'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"partitions", required_argument, NULL, 'p'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int option, error = 0;
    double value = 0;
    opterr = 0;
    while (!error && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'a':
            error = option_number("accounts", optarg, 2, accounts_max(), &value);
            bench->accounts = (uint32_t)value;
            break;
        case 's':
            error = option_number("seconds", optarg, 0.1, 60, &bench->seconds);
            break;
        case 'p':
            error = option_number("partitions", optarg, 1, PARTITIONS_MAX, &value);
            bench->partitions = (unsigned)value;
            break;
        case 'j':
            bench->json = true;
            break;
        case 'h':
            usage(stdout);
            return 1;
        default:
            fprintf(stderr,
                    "perf/run engine: \"%s\" is not an option, or lacks its value; see perf/run "
                    "engine --help\n",
                    argv[optind - 1]);
            return 2;
        }
    }
    if (!error && optind < argc) {
        fprintf(stderr, "perf/run engine: \"%s\" is not an option; see perf/run engine --help\n",
                argv[optind]);
        error = 2;
    }
    return error;
}

static int bench_open(struct bench *bench) {
    bench->board = aligned_alloc(CACHE_LINE_BYTES, sizeof(struct wal_board));
    bench->lane = aligned_alloc(CACHE_LINE_BYTES, sizeof(struct wal_lane));
    if (!bench->board || !bench->lane)
        return -1;
    memset(bench->board, 0, sizeof(*bench->board));
    memset(bench->lane, 0, sizeof(*bench->lane));
    bench->random = 88172645463325252u;
    bench->now_ns = CLOCK_START_NS;
    struct engine_config config = {
        .partitions = bench->partitions,
        .lcores = 1,
        .hash_seed = 1,
        .digest_seed = 2,
        .id_time = true,
        /* Account and index, and ids at up to 20 M/s for as long as is measured. */
        .memory_bytes = (size_t)bench->accounts * ACCOUNT_BYTES +
                        (size_t)(bench->seconds / 2 * 20e6 * 64) + (256u << 20),
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .digest_interval_ns = NS_PER_SECOND,
        .horizon_back_ms = 3600000,
        .horizon_slack_ms = 1000,
        .prefault = true,
        .board = bench->board,
        .lanes = bench->lane,
    };
    char error[256];
    if (engine_open(&config, &bench->engine, error, sizeof(error))) {
        fprintf(stderr, "engine: %s\n", error);
        return -1;
    }
    bench->lcore = engine_lcore(bench->engine, 0);
    atomic_store(&bench->board->open_group, 1);
    return engine_replay_finish(bench->engine, 0, 1, CLOCK_START_NS, 0);
}

int main(int argc, char **argv) {
    static struct bench bench = {
        .accounts = 10000000, .seconds = 8, .partitions = PARTITIONS_DEFAULT};
    int usage_error = options_parse(&bench, argc, argv);
    if (usage_error)
        return usage_error == 1 ? 0 : usage_error;
    uint64_t started = bench_now_ns();
    if (bench_open(&bench) || accounts_create(&bench)) {
        fprintf(stderr, "engine: the accounts could not be made\n");
        return 1;
    }
    struct roofline roofline;
    if (roofline_open(&roofline, bench.accounts)) {
        fprintf(stderr, "engine: not enough memory for the roofline\n");
        return 1;
    }
    const uint64_t slice = 500000;
    engine_slice(&bench, slice);
    roofline_slice(&roofline, slice);
    bench.executed = bench.rejected = 0;
    uint64_t engine_ns = 0, roofline_ns = 0, slices = 0, begin = bench_now_ns();
    while ((double)engine_ns < bench.seconds * 1e9 / 2 &&
           (double)(bench_now_ns() - begin) < bench.seconds * 2e9) {
        engine_ns += engine_slice(&bench, slice);
        roofline_ns += roofline_slice(&roofline, slice);
        slices++;
    }
    double figure = (double)bench.executed / ((double)engine_ns / 1e9);
    double roof = (double)(slices * slice) / ((double)roofline_ns / 1e9);
    bench.errors += bench.rejected;
    uint64_t checksum = verify(&bench, &bench.errors) ^ roofline.checksum;
    double total = (double)(bench_now_ns() - started) / 1e9;
    if (bench.json) {
        bench_json_start("engine", figure, roof, "transfers/s");
        printf(",\"accounts\":%u,\"partitions\":%u,\"transfers\":%" PRIu64
               ",\"measured_s\":%.2f,\"total_s\":%.1f",
               bench.accounts, bench.partitions, bench.executed, (double)engine_ns / 1e9, total);
        bench_json_end(checksum, bench.errors);
    } else {
        printf("engine    %8.2f M transfers/s\nroofline  %8.2f M/s\nratio     %8.2f\n"
               "%u accounts, %u partitions, %" PRIu64 " transfers in %.1f s of engine time, "
               "%.1f s in all, %" PRIu64 " errors\n",
               figure / 1e6, roof / 1e6, figure / roof, bench.accounts, bench.partitions,
               bench.executed, (double)engine_ns / 1e9, total, bench.errors);
    }
    return bench.errors ? 1 : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/check.h"
#include "engine/base/hash.h"
#include "engine/checkpoint.h"
#include "engine/engine_internal.h"
#include "perf/bench.h"
#include "perf/load/load_histogram.h"
#include "wal/checkpoint_format.h"
#include "wal/checkpoint_inspect.h"
#include "wal/data_dir.h"

/** What a checkpoint costs those who use the engine meanwhile: engine on one core, WAL on the other, a real log and real checkpoints in
 *  a directory of its own, and requests of plain transfers at a fixed rate, whether or not the earlier ones came back. */

#define REQUEST_EVENTS 22 /**< what one Ethernet frame carries */
#define REQUESTS 8192     /**< on their way at most */
#define ACCOUNT_BYTES 200 /**< an account, its index entry, and what growth leaves unused */
#define HORIZON_BACK_MS 3600000u
#define CLOCK_START_NS (1700000000ull * NS_PER_SECOND)
#define WARM_UP_NS (1500 * NS_PER_MS)
#define CHECKPOINT_PATIENCE_NS (40 * NS_PER_SECOND)

struct slot {
    struct engine_request request;
    uint64_t due_ns;
    struct compact_transfer events[REQUEST_EVENTS];
    struct result results[REQUEST_EVENTS];
    struct slot *next;
};

enum phase { PHASE_BEFORE, PHASE_DURING, PHASES };

struct bench {
    /* options */
    uint32_t accounts;
    double seconds, rate; /**< transfers/s */
    unsigned partitions, checkpoints, chunks;
    const char *parent;
    bool json;
    /* the node */
    char path[512];
    struct data_dir *dir;
    struct wal_board *board;
    struct wal_lane *lane;
    struct engine *engine;
    struct engine_lcore *lcore;
    struct wal *wal;
    pthread_t wal_thread;
    _Atomic bool wal_leave;
    /* the load */
    struct slot *slots, *free;
    uint64_t started_ns, next_due_ns, interval_ns;
    uint64_t random, id_sequence;
    uint64_t requests, rejected, errors, late;
    enum phase phase;
    bool measuring;
    struct load_histogram *latencies[PHASES];
    struct load_histogram *slices; /**< CPU time of the walk's, and of begins */
    uint64_t begin_ns;             /**< the longest of the begins */
    uint64_t noise_ns;             /**< the longest that as good as nothing took: interrupts */
    uint64_t checkpoint_ns, checkpoint_bytes, checkpoint_records;
    seq_t seen_seq;
};

static uint64_t cpu_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- opening --------------------------------------------------------------------------------------------------------- */

/** As tallyd's lcores: a core of their own, and short, frequent turns where it is not quite their own. */
static void thread_settle(unsigned number) {
    cpu_set_t allowed, one;
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } attributes = {.size = 48, .policy = SCHED_OTHER, .runtime_ns = 10 * NS_PER_MS};
    syscall(SYS_sched_setattr, 0, &attributes, 0);
    sched_getaffinity(0, sizeof(allowed), &allowed);
    for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--) {
        if (!CPU_ISSET(cpu, &allowed) || number--)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof(one), &one);
        return;
    }
}

static void *wal_main(void *context) {
    struct bench *bench = context;
    thread_settle(1);
    while (!atomic_load_explicit(&bench->wal_leave, memory_order_relaxed) ||
           !wal_drained(bench->wal, bench_now_ns())) {
        if (!wal_step(bench->wal, bench_now_ns()))
            sched_yield();
        if (atomic_load_explicit(&bench->board->failed, memory_order_relaxed))
            break;
    }
    return NULL;
}

static uint128_t account_id(uint64_t number) {
    return uint128_make(hash_mix64(number + 1), number + 1);
}

/** As if they had been recovered: this takes no log. */
static int accounts_make(struct bench *bench) {
    for (uint64_t number = 0; number < bench->accounts; number++) {
        const struct account account = {
            .id = account_id(number),
            .ledger = 1,
            .code = 1,
            .timestamp = CLOCK_START_NS - bench->accounts + number,
        };
        if (!account_apply_create(bench->lcore, &account,
                                  hash_id(account.id, bench->engine->config.hash_seed), 0))
            return -1;
    }
    return 0;
}

static int engine_start(struct bench *bench, const struct wal_identity *identity) {
    double seconds = bench->seconds + bench->checkpoints * 8 + 4;
    struct engine_config config = {
        .partitions = bench->partitions,
        .lcores = 1,
        .hash_seed = identity->hash_seed,
        .digest_seed = identity->digest_seed,
        .id_time = true,
        .memory_bytes = (size_t)bench->accounts * ACCOUNT_BYTES +
                        (size_t)(seconds * bench->rate * 80) + (256u << 20),
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .digest_interval_ns = NS_PER_SECOND,
        .horizon_back_ms = HORIZON_BACK_MS,
        .horizon_slack_ms = 1000,
        .checkpoint_chunks = bench->chunks,
        .prefault = true,
        .board = bench->board,
        .lanes = bench->lane,
    };
    char error[256];
    if (engine_open(&config, &bench->engine, error, sizeof(error))) {
        fprintf(stderr, "checkpoint: %s\n", error);
        return -1;
    }
    bench->lcore = engine_lcore(bench->engine, 0);
    return accounts_make(bench);
}

static int bench_open(struct bench *bench) {
    char error[512];
    struct data_dir_settings settings = {
        .identity = {.cell_id = "tally checkpoint",
                     .partitions = bench->partitions,
                     .id_time = 1,
                     .hash_seed = 1,
                     .digest_seed = 2,
                     .file_bytes = DATA_DIR_FILE_BYTES_DEFAULT},
        .groups_in_flight = DATA_DIR_GROUPS_IN_FLIGHT_DEFAULT,
    };
    bench->board = aligned_alloc(CACHE_LINE_BYTES, sizeof(struct wal_board));
    bench->lane = aligned_alloc(CACHE_LINE_BYTES, sizeof(struct wal_lane));
    bench->slots = aligned_alloc(CACHE_LINE_BYTES, REQUESTS * sizeof(struct slot));
    bench->slices = calloc(1, sizeof(*bench->slices));
    for (unsigned i = 0; i < PHASES; i++)
        bench->latencies[i] = calloc(1, sizeof(struct load_histogram));
    if (!bench->board || !bench->lane || !bench->slots || !bench->slices ||
        !bench->latencies[PHASE_BEFORE] || !bench->latencies[PHASE_DURING])
        return -1;
    memset(bench->board, 0, sizeof(*bench->board));
    memset(bench->lane, 0, sizeof(*bench->lane));
    memset(bench->slots, 0, REQUESTS * sizeof(struct slot));
    for (unsigned i = 0; i < REQUESTS; i++) {
        bench->slots[i].next = bench->free;
        bench->free = &bench->slots[i];
    }
    snprintf(bench->path, sizeof(bench->path), "%s/tally-checkpoint-XXXXXX", bench->parent);
    if (!mkdtemp(bench->path)) {
        fprintf(stderr, "checkpoint: no folder can be made in %s: %s\n", bench->parent,
                strerror(errno));
        bench->path[0] = '\0';
        return -1;
    }
    if (data_dir_format(bench->path, &settings, error, sizeof(error)) ||
        data_dir_open(bench->path, DATA_DIR_LOCK, &bench->dir, error, sizeof(error))) {
        fprintf(stderr, "checkpoint: %s\n", error);
        return -1;
    }
    if (engine_start(bench, &settings.identity))
        return -1;
    struct wal_config config = {
        .disk = data_dir_disk(bench->dir),
        .identity = settings.identity,
        .term = 1,
        .position = {.file_number = 1},
        .board = bench->board,
        .lanes = bench->lane,
        .lane_count = 1,
        .groups_in_flight = settings.groups_in_flight,
        .file_bytes = settings.identity.file_bytes,
        .group_bytes_wanted = 256u << 10,
        .group_delay_ns = 100000,
        .horizon_back_ms = HORIZON_BACK_MS,
        .horizon_minimum_ms = 60000,
    };
    if (wal_open(&config, &bench->wal, error, sizeof(error))) {
        fprintf(stderr, "checkpoint: %s\n", error);
        return -1;
    }
    return engine_replay_finish(bench->engine, 0, 1, CLOCK_START_NS, 0);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static void bench_close(struct bench *bench) {
    if (bench->wal)
        wal_close(bench->wal);
    engine_close(bench->engine);
    if (bench->dir)
        data_dir_close(bench->dir);
    if (bench->path[0])
        nftw(bench->path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* --- the load -------------------------------------------------------------------------------------------------------- */

/** Transfers as a client makes them: time-ordered ids whose low bits name the debit account's partition. */
static void events_make(struct bench *bench, struct slot *slot, uint64_t cell_ns) {
    for (unsigned e = 0; e < REQUEST_EVENTS; e++) {
        uint64_t debit = bench_below(&bench->random, bench->accounts);
        uint64_t credit = bench_below(&bench->random, bench->accounts - 1);
        credit += credit >= debit;
        uint128_t debit_id = account_id(debit), credit_id = account_id(credit);
        uint64_t sequence = ++bench->id_sequence;
        uint64_t place = account_partition(debit_id, 1, bench->partitions);
        uint128_t id = (uint128_t)(cell_ns / NS_PER_MS) << 80 | (uint128_t)sequence << 16 | place;
        slot->events[e] = (struct compact_transfer){
            .id = {(uint64_t)id, (uint64_t)(id >> 64)},
            .debit_account_id = {(uint64_t)debit_id, (uint64_t)(debit_id >> 64)},
            .credit_account_id = {(uint64_t)credit_id, (uint64_t)(credit_id >> 64)},
            .amount = 1 + (sequence & 1023),
            .ledger = 1,
            .code = 1,
        };
    }
    slot->request = (struct engine_request){
        .operation = OPERATION_CREATE_TRANSFERS,
        .event_format = EVENT_FORMAT_COMPACT,
        .event_count = REQUEST_EVENTS,
        .events = slot->events,
        .results = slot->results,
        .owner = slot,
    };
}

static unsigned submit_due(struct bench *bench, uint64_t now_ns, bool more) {
    unsigned count = 0;
    for (; more && bench->next_due_ns <= now_ns; bench->next_due_ns += bench->interval_ns) {
        struct slot *slot = bench->free;
        if (!slot) { /* it stays due, and that counts */
            bench->late++;
            break;
        }
        bench->free = slot->next;
        slot->due_ns = bench->next_due_ns;
        events_make(bench, slot, engine_cell_time(bench->lcore));
        engine_submit(bench->lcore, &slot->request);
        bench->requests++;
        count++;
    }
    return count;
}

static unsigned take_completed(struct bench *bench) {
    struct engine_request *done[64];
    unsigned count = engine_completed(bench->lcore, done, 64);
    uint64_t now_ns = bench_now_ns();
    for (unsigned i = 0; i < count; i++) {
        struct slot *slot = done[i]->owner;
        for (unsigned e = 0; e < REQUEST_EVENTS; e++)
            bench->rejected += slot->results[e].status != TRANSFER_STATUS_created;
        if (bench->measuring)
            load_histogram_add(bench->latencies[bench->phase], now_ns - slot->due_ns, 1);
        slot->next = bench->free;
        bench->free = slot;
    }
    return count;
}

/** Hand the group over; the longest of those that begin a checkpoint is noted. */
static unsigned seal(struct bench *bench) {
    seq_t seq = atomic_load_explicit(&bench->board->checkpoint_seq, memory_order_relaxed);
    if (likely(seq == bench->seen_seq))
        return engine_seal(bench->lcore);
    bench->seen_seq = seq;
    uint64_t start_ns = cpu_now_ns();
    unsigned sealed = engine_seal(bench->lcore);
    uint64_t took_ns = cpu_now_ns() - start_ns;
    bench->begin_ns = took_ns > bench->begin_ns ? took_ns : bench->begin_ns;
    return sealed;
}

static unsigned walk(struct bench *bench) {
    if (likely(bench->phase != PHASE_DURING))
        return engine_checkpoint(bench->lcore);
    uint64_t start_ns = cpu_now_ns();
    unsigned count = engine_checkpoint(bench->lcore);
    if (count)
        load_histogram_add(bench->slices, cpu_now_ns() - start_ns, 1);
    return count;
}

/** One turn, in the order of engine/lcore.c. @param more whether new requests are made */
static void turn(struct bench *bench, bool more) {
    uint64_t now_ns = bench_now_ns();
    engine_clock(bench->lcore, CLOCK_START_NS + now_ns - bench->started_ns);
    unsigned work = submit_due(bench, now_ns, more);
    work += engine_execute(bench->lcore, 1024);
    work += seal(bench);
    work += take_completed(bench);
    work += walk(bench);
    if (!work)
        sched_yield();
}

/** @return 0, or -1 when the log has failed or the checkpoint has come to nothing */
static int checkpoint_once(struct bench *bench) {
    const struct wal_checkpoints *checkpoints = wal_checkpoints(bench->wal);
    uint64_t start_ns = bench_now_ns();
    bench->phase = PHASE_DURING;
    uint64_t ticket = wal_checkpoint_want(bench->wal);
    while (atomic_load_explicit(&checkpoints->served, memory_order_acquire) < ticket &&
           !atomic_load_explicit(&bench->board->failed, memory_order_relaxed) &&
           bench_now_ns() - start_ns < CHECKPOINT_PATIENCE_NS)
        turn(bench, true);
    bench->phase = PHASE_BEFORE;
    bench->checkpoint_ns += bench_now_ns() - start_ns;
    bench->checkpoint_bytes += atomic_load(&checkpoints->bytes);
    return atomic_load(&checkpoints->served) < ticket || atomic_load(&checkpoints->error) ? -1 : 0;
}

/** A thread's CPU time holds the interrupts that it happened to serve, and what the host took: how long does a slice of nothing take? */
static void noise_note(struct bench *bench) {
    uint64_t start_ns = cpu_now_ns(), took_ns;
    for (unsigned i = 0; i < 5000; i++)
        __asm__ volatile("" ::"r"(i));
    took_ns = cpu_now_ns() - start_ns;
    bench->noise_ns = took_ns > bench->noise_ns ? took_ns : bench->noise_ns;
}

static void live(struct bench *bench, uint64_t ns) {
    uint64_t end_ns = bench_now_ns() + ns;
    while (bench_now_ns() < end_ns &&
           !atomic_load_explicit(&bench->board->failed, memory_order_relaxed)) {
        turn(bench, true);
        if (!bench->measuring)
            noise_note(bench);
    }
}

static int measure(struct bench *bench) {
    bench->started_ns = bench->next_due_ns = bench_now_ns();
    bench->interval_ns = (uint64_t)(1e9 * REQUEST_EVENTS / bench->rate);
    live(bench, WARM_UP_NS);
    int problem = 0;
    for (unsigned i = 0; i < bench->checkpoints && !problem; i++) {
        bench->measuring = true;
        live(bench, (uint64_t)(bench->seconds * 1e9 / bench->checkpoints));
        problem = checkpoint_once(bench);
        /* What is still in its wake belongs to neither. */
        bench->measuring = false;
        live(bench, 200 * NS_PER_MS);
    }
    uint64_t deadline_ns = bench_now_ns() + 5 * NS_PER_SECOND;
    while (!engine_idle(bench->lcore) && bench_now_ns() < deadline_ns)
        turn(bench, false);
    return problem || !engine_idle(bench->lcore) ? -1 : 0;
}

/* --- what came of it ------------------------------------------------------------------------------------------------- */

/** The digests are what the tables say, and the checkpoints what they say of themselves. */
static uint64_t verify(struct bench *bench) {
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

static void report(const struct bench *bench, double total_s) {
    static const char *const names[PHASES] = {"before", "during"};
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

static int options_parse(struct bench *bench, int argc, char **argv) {
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

int main(int argc, char **argv) {
    static struct bench bench = {.accounts = 10000000,
                                 .seconds = 8,
                                 .rate = 1000000,
                                 .partitions = PARTITIONS_DEFAULT,
                                 .checkpoints = 2,
                                 .chunks = 512,
                                 .random = 88172645463325252u};
    bench.parent = getenv("TALLY_PERF_DIR") ? getenv("TALLY_PERF_DIR") : ".";
    int problem = options_parse(&bench, argc, argv);
    if (problem)
        return problem == 1 ? 0 : problem;
    uint64_t begin_ns = bench_now_ns(), checksum = 0;
    problem = bench_open(&bench);
    if (problem)
        fprintf(stderr, "checkpoint: the node could not be made\n");
    if (!problem && pthread_create(&bench.wal_thread, NULL, wal_main, &bench) == 0) {
        thread_settle(0);
        problem = measure(&bench);
        engine_drain(bench.lcore);
        atomic_store(&bench.wal_leave, true);
        pthread_join(bench.wal_thread, NULL);
        if (problem)
            fprintf(stderr, "checkpoint: it was not published: %s\n", wal_error(bench.wal));
        bench.errors += problem != 0;
        checksum = verify(&bench);
        double total_s = (double)(bench_now_ns() - begin_ns) / 1e9;
        if (bench.json)
            report_json(&bench, checksum, total_s);
        else
            report(&bench, total_s);
        problem = bench.errors != 0;
    }
    bench_close(&bench);
    return problem ? 1 : 0;
}

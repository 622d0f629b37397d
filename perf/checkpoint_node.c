/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/engine_internal.h"
#include "perf/checkpoint_bench.h"

/** The node that checkpoints are taken of: accounts as if they had been recovered, a log and checkpoints in a new directory. */

/** As tallyd's lcores: a core of their own, and short, frequent turns where it is not quite their own. */
void checkpoint_thread_settle(unsigned number) {
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
    checkpoint_thread_settle(1);
    while (!atomic_load_explicit(&bench->wal_leave, memory_order_relaxed) ||
           !wal_drained(bench->wal, bench_now_ns())) {
        if (!wal_step(bench->wal, bench_now_ns()))
            sched_yield();
        if (atomic_load_explicit(&bench->board->failed, memory_order_relaxed))
            break;
    }
    return NULL;
}

int checkpoint_node_start(struct bench *bench) {
    return pthread_create(&bench->wal_thread, NULL, wal_main, bench);
}

void checkpoint_node_stop(struct bench *bench) {
    engine_drain(bench->lcore);
    atomic_store(&bench->wal_leave, true);
    pthread_join(bench->wal_thread, NULL);
}

/** As if they had been recovered: this takes no log. */
static int accounts_make(struct bench *bench) {
    for (uint64_t number = 0; number < bench->accounts; number++) {
        const struct account account = {
            .id = bench_account_id(number),
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

int checkpoint_node_open(struct bench *bench) {
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

void checkpoint_node_close(struct bench *bench) {
    if (bench->wal)
        wal_close(bench->wal);
    engine_close(bench->engine);
    if (bench->dir)
        data_dir_close(bench->dir);
    if (bench->path[0])
        nftw(bench->path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_CHECKPOINT_BENCH_H
#define TALLY_PERF_CHECKPOINT_BENCH_H

#include <pthread.h>

#include "engine/base/hash.h"
#include "engine/engine.h"
#include "perf/bench.h"
#include "perf/load/load_histogram.h"
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

static inline uint128_t bench_account_id(uint64_t number) {
    return uint128_make(hash_mix64(number + 1), number + 1);
}

/* checkpoint_node.c: engine, log and directory of the bench. Each says on stderr what is wrong. @return 0 or -1 */
int checkpoint_node_open(struct bench *bench);
/** The thread of the WAL. @return 0 or an errno */
int checkpoint_node_start(struct bench *bench);
/** What was accepted is answered: let the WAL finish. */
void checkpoint_node_stop(struct bench *bench);
void checkpoint_node_close(struct bench *bench);
/** A core of its own for this thread, counted from the last. */
void checkpoint_thread_settle(unsigned number);

/* checkpoint_report.c */
/** @return 0; 1: help was asked for; 2: something is wrong, and was said */
int checkpoint_options_parse(struct bench *bench, int argc, char **argv);
/** The digests are what the tables say, and the newest checkpoint what it says of itself; else bench->errors. @return a checksum */
uint64_t checkpoint_verify(struct bench *bench);
void checkpoint_report(const struct bench *bench, uint64_t checksum, double total_s);

#endif

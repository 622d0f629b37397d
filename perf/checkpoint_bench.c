/* SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/check.h"
#include "engine/checkpoint.h"
#include "perf/checkpoint_bench.h"

/** The engine's core: turns as in engine/lcore.c, requests that come when they are due, and stamps around what a checkpoint does. */

static uint64_t cpu_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- the load -------------------------------------------------------------------------------------------------------- */

/** Transfers as a client makes them: time-ordered ids whose low bits name the debit account's partition. */
static void events_make(struct bench *bench, struct slot *slot, uint64_t cell_ns) {
    for (unsigned e = 0; e < REQUEST_EVENTS; e++) {
        uint64_t debit = bench_below(&bench->random, bench->accounts);
        uint64_t credit = bench_below(&bench->random, bench->accounts - 1);
        credit += credit >= debit;
        uint128_t debit_id = bench_account_id(debit), credit_id = bench_account_id(credit);
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

int main(int argc, char **argv) {
    static struct bench bench = {.accounts = 10000000,
                                 .seconds = 8,
                                 .rate = 1000000,
                                 .partitions = PARTITIONS_DEFAULT,
                                 .checkpoints = 2,
                                 .chunks = 512,
                                 .random = 88172645463325252u};
    bench.parent = getenv("TALLY_PERF_DIR") ? getenv("TALLY_PERF_DIR") : ".";
    int problem = checkpoint_options_parse(&bench, argc, argv);
    if (problem)
        return problem == 1 ? 0 : problem;
    uint64_t begin_ns = bench_now_ns(), checksum = 0;
    problem = checkpoint_node_open(&bench);
    if (problem)
        fprintf(stderr, "checkpoint: the node could not be made\n");
    if (!problem && checkpoint_node_start(&bench) == 0) {
        checkpoint_thread_settle(0);
        problem = measure(&bench);
        checkpoint_node_stop(&bench);
        if (problem)
            fprintf(stderr, "checkpoint: it was not published: %s\n", wal_error(bench.wal));
        bench.errors += problem != 0;
        checksum = checkpoint_verify(&bench);
        checkpoint_report(&bench, checksum, (double)(bench_now_ns() - begin_ns) / 1e9);
        problem = bench.errors != 0;
    }
    checkpoint_node_close(&bench);
    return problem ? 1 : 0;
}

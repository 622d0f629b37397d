/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sched.h>

#include "engine/checkpoint.h"
#include "engine/engine.h"
#include "engine/recovery.h"
#include "tests/lib/test.h"
#include "wal/disk_memory.h"

/** Engine lcores on threads of their own beside the WAL's: real rings, real races (this is what a thread sanitizer should look at). Each
 *  thread makes transfers of every kind between random accounts of all partitions. Afterwards money in equals money out, digests are what
 *  the tables say, and the log alone, or the newest checkpoint and what follows, gives the same state to a fresh engine with one lcore. */

enum {
    LCORES_TESTED = 3,
    PARTITIONS = 16,
    ACCOUNTS = 400,
    BATCH = 20,
    IMPORTS = 150, /* accounts of one request: more than an lcore looks up together */
    IMPORTS_ONE_IN = 40,
    OUTSTANDING = 24,
    FILE_BYTES = 64 << 20,
    LEDGER = 7,
};

struct unit {
    struct engine_request request;
    struct transfer events[BATCH];
    struct account imports[IMPORTS];
    struct result results[IMPORTS];
    struct balances balances[BATCH];
    bool busy;
};

struct worker {
    struct node *node;
    unsigned index;
    pthread_t thread;
    uint64_t random;
    uint64_t events_left, created, answered, imported;
    uint128_t last_pending; /**< made by this worker; 0: none */
    uint64_t next_id;
    struct unit units[OUTSTANDING];
};

static struct node {
    struct wal_board *board;
    struct wal_lane *lanes;
    struct engine *engine;
    struct disk *disk;
    struct wal *wal;
    struct wal_identity identity;
    unsigned lcores;
    pthread_t wal_thread;
    _Atomic unsigned working; /**< threads that are not through */
    _Atomic bool stop;
    _Atomic uint64_t import_timestamp;
    struct worker workers[LCORES_TESTED];
} node;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t below(uint64_t *state, uint64_t bound) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (*state * 0x2545f4914f6cdd1du >> 16) % bound;
}

/* --- the threads --------------------------------------------------------------------------------------------------------- */

static void *wal_main(void *context) {
    (void)context;
    for (;;) {
        uint64_t now = now_ns();
        if (!wal_step(node.wal, now))
            sched_yield();
        if (atomic_load(&node.stop) && wal_drained(node.wal, now))
            return NULL;
        if (atomic_load(&node.board->failed))
            return NULL;
    }
}

static void event_make(struct worker *worker, struct transfer *event) {
    uint64_t kind = below(&worker->random, 10);
    uint64_t debit = 1 + below(&worker->random, ACCOUNTS),
             credit = 1 + below(&worker->random, ACCOUNTS);
    uint128_t id =
        uint128_make(worker->index + 1, worker->next_id++ << 16 | below(&worker->random, 65536));
    *event = (struct transfer){.id = id, .ledger = LEDGER, .code = 1};
    if (kind == 0 && worker->last_pending) {
        bool post = below(&worker->random, 2);
        event->pending_id = worker->last_pending;
        event->amount = post ? UINT128_MAX : 0;
        event->flags = post ? TRANSFER_POST_PENDING : TRANSFER_VOID_PENDING;
        event->ledger = event->code = 0;
        worker->last_pending = 0;
        return;
    }
    event->debit_account_id = debit;
    event->credit_account_id = credit == debit ? debit % ACCOUNTS + 1 : credit;
    event->amount = 1 + below(&worker->random, 50);
    if (kind == 1) {
        event->flags = TRANSFER_PENDING;
        worker->last_pending = id;
    }
    if (kind == 2)
        event->flags = TRANSFER_LINKED;
}

/** Accounts that belong to any lcore: who creates them has all tables to itself meanwhile. */
static void unit_import(struct worker *worker, struct unit *unit) {
    uint64_t timestamp = atomic_fetch_add(&node.import_timestamp, IMPORTS);
    for (unsigned i = 0; i < IMPORTS; i++)
        unit->imports[i] = (struct account){.id = uint128_make(worker->index + 1, timestamp + i),
                                            .ledger = LEDGER,
                                            .code = 1,
                                            .flags = ACCOUNT_IMPORTED,
                                            .timestamp = timestamp + i};
    unit->request = (struct engine_request){.operation = OPERATION_CREATE_ACCOUNTS,
                                            .event_count = IMPORTS,
                                            .events = unit->imports,
                                            .owner = unit,
                                            .results = unit->results};
    unit->busy = true;
    engine_submit(engine_lcore(node.engine, worker->index), &unit->request);
}

static void unit_submit(struct worker *worker, struct unit *unit) {
    if (below(&worker->random, IMPORTS_ONE_IN) == 0) {
        unit_import(worker, unit);
        return;
    }
    for (unsigned i = 0; i < BATCH; i++)
        event_make(worker, &unit->events[i]);
    unit->events[BATCH - 1].flags &= (uint16_t)~TRANSFER_LINKED;
    unit->request = (struct engine_request){
        .operation = OPERATION_CREATE_TRANSFERS,
        .event_format = EVENT_FORMAT_FULL,
        .options = below(&worker->random, 2) ? REQUEST_BALANCES : 0,
        .event_count = BATCH,
        .events = unit->events,
        .owner = unit,
        .results = unit->results,
        .balances = unit->balances,
    };
    unit->busy = true;
    worker->events_left -= BATCH;
    engine_submit(engine_lcore(node.engine, worker->index), &unit->request);
}

static void turn(struct worker *worker) {
    struct engine_lcore *lcore = engine_lcore(node.engine, worker->index);
    struct engine_request *done[16];
    engine_clock(lcore, now_ns());
    unsigned work = engine_exchange(lcore) + engine_execute(lcore, 256) + engine_seal(lcore);
    work += engine_checkpoint(lcore);
    unsigned count = engine_completed(lcore, done, 16);
    for (unsigned i = 0; i < count; i++) {
        struct unit *unit = done[i]->owner;
        bool transfers = done[i]->operation == OPERATION_CREATE_TRANSFERS;
        uint64_t created = 0;
        for (unsigned event = 0; event < done[i]->event_count; event++)
            created += unit->results[event].status == TRANSFER_STATUS_created;
        *(transfers ? &worker->created : &worker->imported) += created;
        worker->answered += transfers ? done[i]->event_count : 0;
        unit->busy = false;
    }
    if (!work && !count)
        sched_yield();
}

static void *engine_main(void *context) {
    struct worker *worker = context;
    struct engine_lcore *lcore = engine_lcore(node.engine, worker->index);
    bool through = false;
    while (!atomic_load(&node.stop)) {
        for (unsigned i = 0; i < OUTSTANDING && worker->events_left >= BATCH; i++)
            if (!worker->units[i].busy)
                unit_submit(worker, &worker->units[i]);
        turn(worker);
        if (!through && worker->events_left < BATCH && engine_idle(lcore)) {
            through = true;
            atomic_fetch_sub(&node.working, 1);
        }
    }
    return NULL;
}

/* --- the node ------------------------------------------------------------------------------------------------------------- */

static int engine_make(unsigned lcores, struct wal_board *board, struct wal_lane *lanes,
                       struct engine **engine) {
    char error[256];
    struct engine_config config = {
        .partitions = PARTITIONS,
        .lcores = lcores,
        .hash_seed = node.identity.hash_seed,
        .digest_seed = node.identity.digest_seed,
        .memory_bytes = (size_t)64 << 20,
        .checkpoint_chunks = 32,
        .checkpoint_slice = 16, /* so that much happens meanwhile */
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .board = board,
        .lanes = lanes,
    };
    return engine_open(&config, engine, error, sizeof(error));
}

static void *zeroed(size_t bytes) {
    bytes = (bytes + CACHE_LINE_BYTES - 1) & ~(size_t)(CACHE_LINE_BYTES - 1);
    void *memory = aligned_alloc(CACHE_LINE_BYTES, bytes);
    if (memory)
        memset(memory, 0, bytes);
    return memory;
}

static int node_open(unsigned lcores, uint64_t seed, uint64_t events, bool checkpoints) {
    char error[256];
    memset(&node, 0, sizeof(node));
    node.lcores = lcores;
    node.identity = (struct wal_identity){.cell_id = {1},
                                          .partitions = PARTITIONS,
                                          .hash_seed = seed,
                                          .digest_seed = ~seed,
                                          .file_bytes = FILE_BYTES};
    node.board = zeroed(sizeof(*node.board));
    node.lanes = zeroed(sizeof(*node.lanes) * lcores);
    if (!node.board || !node.lanes || engine_make(lcores, node.board, node.lanes, &node.engine) ||
        disk_memory_open(&node.disk) || disk_memory_resize(node.disk, 1, FILE_BYTES))
        return -1;
    struct wal_config config = {
        .disk = node.disk,
        .identity = node.identity,
        .term = 1,
        .position = {.file_number = 1},
        .board = node.board,
        .lanes = node.lanes,
        .lane_count = lcores,
        .groups_in_flight = 4,
        .file_bytes = FILE_BYTES,
        .group_bytes_wanted = 64 << 10,
        .group_delay_ns = 20000,
        .digest_interval_ns = 5 * NS_PER_MS,
        .checkpoint_interval_ns = checkpoints ? 10 * NS_PER_MS : 0,
    };
    if (wal_open(&config, &node.wal, error, sizeof(error)) ||
        engine_replay_finish(node.engine, 0, 1, 1, 0))
        return -1;
    atomic_store(&node.working, lcores);
    for (unsigned i = 0; i < lcores; i++)
        node.workers[i] = (struct worker){.node = &node,
                                          .index = i,
                                          .random = seed * 64 + i + 1,
                                          .events_left = events,
                                          .next_id = 1};
    return 0;
}

static void node_close(void) {
    wal_close(node.wal);
    engine_close(node.engine);
    disk_memory_close(node.disk);
    free(node.board);
    free(node.lanes);
}

/** All accounts by one request to the first lcore, turned by hand. */
static bool accounts_make(void) {
    static struct account accounts[ACCOUNTS];
    static struct result results[ACCOUNTS];
    struct engine_request request = {.operation = OPERATION_CREATE_ACCOUNTS,
                                     .event_count = ACCOUNTS,
                                     .events = accounts,
                                     .results = results,
                                     .owner = NULL};
    for (unsigned i = 0; i < ACCOUNTS; i++)
        accounts[i] = (struct account){.id = i + 1, .ledger = LEDGER, .code = 1};
    atomic_store(&node.import_timestamp, 0);
    engine_submit(engine_lcore(node.engine, 0), &request);
    struct engine_request *done = NULL;
    while (!done) {
        for (unsigned i = 0; i < node.lcores; i++) {
            struct engine_lcore *lcore = engine_lcore(node.engine, i);
            engine_clock(lcore, now_ns());
            engine_exchange(lcore);
            engine_execute(lcore, 256);
            engine_seal(lcore);
            engine_completed(lcore, &done, done ? 0 : 1);
        }
        wal_step(node.wal, now_ns());
    }
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        if (results[i].status != ACCOUNT_STATUS_created)
            return false;
        if (results[i].timestamp >= atomic_load(&node.import_timestamp))
            atomic_store(&node.import_timestamp, results[i].timestamp + 1);
    }
    return true;
}

static bool books_balance(const struct engine *engine) {
    uint128_t posted = 0, pending = 0;
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        const struct account *account = engine_account_find(engine, i + 1);
        posted += account->debits_posted - account->credits_posted;
        pending += account->debits_pending - account->credits_pending;
    }
    return posted == 0 && pending == 0;
}

static unsigned passed_over;

static void warning(void *context, const char *line) {
    (void)context;
    printf("%s\n", line);
    passed_over++;
}

/** What the log says, alone or behind a checkpoint, read by an engine with one lcore. */
static void check_log(void) {
    struct wal_board *board = zeroed(sizeof(*board));
    struct wal_lane *lane = zeroed(sizeof(*lane));
    struct engine *engine;
    struct wal_position position;
    struct recovery_report report;
    char error[512] = "";
    CHECK(board && lane);
    CHECK_EQ(engine_make(1, board, lane, &engine), 0);
    struct recovery_config config = {.disk = node.disk,
                                     .identity = &node.identity,
                                     .workers = 2,
                                     .read_only = true,
                                     .warning = warning};
    passed_over = 0;
    int rc = recovery_run(&config, engine, &position, &report, error, sizeof(error));
    if (rc)
        printf("%s\n", error);
    CHECK_EQ(rc, 0);
    CHECK_EQ(passed_over, 0);
    CHECK_EQ(report.checkpoint_seq, atomic_load(&wal_checkpoints(node.wal)->published_seq));
    wal_position_release(&position);
    for (unsigned p = 0; p < PARTITIONS; p++)
        CHECK(engine_partition_digest(engine, p) == engine_partition_digest(node.engine, p));
    CHECK(books_balance(engine));
    engine_close(engine);
    free(board);
    free(lane);
}

static void run(unsigned lcores, uint64_t seed, uint64_t events, bool checkpoints) {
    CHECK_EQ(node_open(lcores, seed, events, checkpoints), 0);
    CHECK(accounts_make());
    pthread_create(&node.wal_thread, NULL, wal_main, NULL);
    for (unsigned i = 0; i < lcores; i++)
        pthread_create(&node.workers[i].thread, NULL, engine_main, &node.workers[i]);
    uint64_t deadline = now_ns() + 100 * NS_PER_SECOND;
    while (atomic_load(&node.working) && now_ns() < deadline)
        sched_yield();
    CHECK_EQ(atomic_load(&node.working), 0);
    atomic_store(&node.stop, true);
    uint64_t created = 0, answered = 0, imported = 0;
    for (unsigned i = 0; i < lcores; i++) {
        pthread_join(node.workers[i].thread, NULL);
        created += node.workers[i].created;
        answered += node.workers[i].answered;
        imported += node.workers[i].imported;
    }
    pthread_join(node.wal_thread, NULL);
    CHECK_EQ(atomic_load(&node.board->failed), 0);
    CHECK_EQ(answered, events / BATCH * BATCH * lcores);
    CHECK(created > answered / 2);
    CHECK(imported > IMPORTS);
    CHECK(books_balance(node.engine));
    for (unsigned p = 0; p < PARTITIONS; p++)
        CHECK(engine_partition_digest(node.engine, p) ==
              engine_partition_digest_recompute(node.engine, p));
    check_log();
    printf("     %u lcores: %" PRIu64 " of %" PRIu64 " transfers created, %" PRIu64
           " accounts imported\n",
           lcores, created, answered, imported);
    node_close();
}

static uint64_t seed;

static void two_lcores(void) {
    run(2, seed, 20000, false);
}

static void three_lcores(void) {
    run(3, seed + 1, 15000, false);
}

static void two_lcores_and_checkpoints(void) {
    run(2, seed, 20000, true);
}

static void three_lcores_and_checkpoints(void) {
    run(3, seed + 1, 15000, true);
}

static void one_lcore(void) {
    run(1, seed + 2, 20000, false);
}

int main(void) {
    seed = test_seed(1);
    TEST_RUN(one_lcore);
    TEST_RUN(two_lcores);
    TEST_RUN(three_lcores);
    TEST_RUN(two_lcores_and_checkpoints);
    TEST_RUN(three_lcores_and_checkpoints);
    return TEST_DONE();
}

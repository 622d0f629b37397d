/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/test.h"

#include "engine/engine.h"
#include "wal/wal_lane.h"

/** A chain whose second member fails tells that its first one would have succeeded, and so what that one was decided on: here a pending
 *  transfer that is not committed yet. The answer left at once; after a crash the pending transfer could be gone, and the first member's
 *  failure would have been the answer. */

#define START_NS (1700000000ull * NS_PER_SECOND)
#define START_MS (START_NS / NS_PER_MS)

static struct wal_board board;
static struct wal_lane lane;
static struct engine *engine;
static struct engine_lcore *lcore;
static struct result results[3][4];
static struct account accounts[2] __attribute__((aligned(16)));
static struct transfer transfers[3] __attribute__((aligned(16)));

static bool start(void) {
    char error[256];
    const struct engine_config config = {
        .partitions = 4,
        .lcores = 1,
        .hash_seed = 1,
        .digest_seed = 2,
        .id_time = true,
        .memory_bytes = (size_t)16 << 20,
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .horizon_back_ms = 60000,
        .horizon_slack_ms = 1000,
        .board = &board,
        .lanes = &lane,
    };
    if (engine_open(&config, &engine, error, sizeof(error)) != 0)
        return false;
    lcore = engine_lcore(engine, 0);
    for (unsigned i = 0; i < WAL_HORIZONS; i++)
        atomic_store(&board.horizon_ms[i], START_MS - 60000);
    atomic_store(&board.open_group, 1);
    if (engine_replay_finish(engine, 0, 1, START_NS, START_MS - 60000) != 0)
        return false;
    engine_clock(lcore, START_NS);
    return true;
}

static void submit(struct engine_request *request, enum operation operation, const void *events,
                   uint32_t count, struct result *into) {
    *request = (struct engine_request){
        .operation = (uint8_t)operation, .events = events, .event_count = count, .results = into};
    engine_submit(lcore, request);
    engine_execute(lcore, 10);
}

/** Open the next group, so that the one before is handed over, and commit it. */
static unsigned commit_next(struct engine_request **done) {
    seq_t open = atomic_load(&board.open_group);
    atomic_store(&board.open_group, open + 1);
    engine_seal(lcore);
    wal_lane_handover_taken(&lane);
    atomic_store(&board.commit_seq, open);
    return engine_completed(lcore, done, 4);
}

static struct transfer transfer(unsigned number) {
    return (struct transfer){.id = (uint128_t)START_MS << 80 | number,
                             .debit_account_id = 1,
                             .credit_account_id = 2,
                             .amount = 5,
                             .ledger = 1,
                             .code = 1};
}

static void a_failed_chain_waits_for_what_its_first_members_saw(void) {
    struct engine_request requests[3], *done[4];
    CHECK(start());
    for (unsigned i = 0; i < 2; i++)
        accounts[i] = (struct account){.id = 1 + i, .ledger = 1, .code = 1};
    submit(&requests[0], OPERATION_CREATE_ACCOUNTS, accounts, 2, results[0]);
    CHECK_EQ(commit_next(done), 1);

    transfers[0] = transfer(4);
    transfers[0].flags = TRANSFER_PENDING;
    submit(&requests[1], OPERATION_CREATE_TRANSFERS, &transfers[0], 1, results[1]);
    transfers[1] = transfer(8);
    transfers[1].flags = TRANSFER_POST_PENDING | TRANSFER_LINKED;
    transfers[1].pending_id = transfers[0].id;
    transfers[2] = (struct transfer){.id = transfers[1].id + 4, .flags = TRANSFER_POST_PENDING};
    transfers[2].pending_id = transfers[2].id; /* a failure that depends on nothing */
    submit(&requests[2], OPERATION_CREATE_TRANSFERS, &transfers[1], 2, results[2]);
    CHECK_EQ(results[2][0].status, TRANSFER_STATUS_linked_event_failed);
    CHECK_EQ(results[2][1].status, TRANSFER_STATUS_pending_id_must_be_different);
    CHECK_EQ(engine_completed(lcore, done, 4), 0);
    CHECK_EQ(commit_next(done), 2);
    engine_close(engine);
}

int main(void) {
    TEST_RUN(a_failed_chain_waits_for_what_its_first_members_saw);
    return TEST_DONE();
}

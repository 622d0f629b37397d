/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"

#include "engine/engine.h"
#include "wal/wal_lane.h"

/** What leaves the engine, and when: the WAL's side of the contract is played by hand, so that a group stays open, in flight or committed
 *  for as long as a test wants. */

static struct wal_board board;
static struct wal_lane lane;
static struct engine *engine;
static struct engine_lcore *lcore;
static uint8_t last_segment[1 << 16]; /**< copy of what was handed over last */
static const uint64_t start_ns = 1700000000ull * 1000000000ull;

static void start(void) {
    memset(&board, 0, sizeof(board));
    memset(&lane, 0, sizeof(lane));
    struct engine_config config = {
        .partitions = 4,
        .lcores = 1,
        .hash_seed = 1,
        .digest_seed = 0x123456789abcdef1u,
        .id_time = true,
        .memory_bytes = (size_t)64 << 20,
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .horizon_back_ms = 3600000,
        .horizon_slack_ms = 1000,
        .board = &board,
        .lanes = &lane,
    };
    char error[256];
    if (engine_open(&config, &engine, error, sizeof(error)) != 0)
        abort();
    lcore = engine_lcore(engine, 0);
    for (unsigned i = 0; i < WAL_HORIZONS; i++)
        atomic_store(&board.horizon_ms[i], start_ns / NS_PER_MS - 3600000);
    atomic_store(&board.open_group, 1);
    if (engine_replay_finish(engine, 0, 1, start_ns, start_ns / NS_PER_MS - 3600000) != 0)
        abort();
    engine_clock(lcore, start_ns);
}

/** Open the next group: the engine hands its segment over. */
static void seal(void) {
    atomic_store(&board.open_group, atomic_load(&board.open_group) + 1);
    engine_seal(lcore);
    const struct wal_handover *part = wal_lane_handover_peek(&lane);
    if (part->length <= sizeof(last_segment))
        memcpy(last_segment, part->bytes, part->length);
    wal_lane_handover_taken(&lane);
}

static void commit(seq_t seq) {
    atomic_store(&board.commit_seq, seq);
}

static bool completes(struct engine_request *request) {
    struct engine_request *done[4];
    engine_execute(lcore, 1000);
    engine_seal(lcore);
    unsigned count = engine_completed(lcore, done, 4);
    return count == 1 && done[0] == request;
}

static struct account accounts[2] __attribute__((aligned(16)));
static struct transfer transfers[4] __attribute__((aligned(16)));
static struct result results[4];

static struct engine_request request_of(enum operation operation, const void *events,
                                        uint32_t count) {
    return (struct engine_request){.operation = (uint8_t)operation,
                                   .events = events,
                                   .event_count = count,
                                   .results = results};
}

/** Two accounts and a transfer between them, in groups 1 and 2, all committed; group 3 is open. */
static void with_a_transfer(void) {
    start();
    accounts[0] = (struct account){.id = 1, .ledger = 1, .code = 1};
    accounts[1] = (struct account){.id = 2, .ledger = 1, .code = 1};
    struct engine_request request = request_of(OPERATION_CREATE_ACCOUNTS, accounts, 2);
    engine_submit(lcore, &request);
    engine_execute(lcore, 10);
    seal();
    commit(1);
    struct engine_request *done[2];
    engine_completed(lcore, done, 2);
    transfers[0] = (struct transfer){.id = (uint128_t)(start_ns / NS_PER_MS) << 80 | 5,
                                     .debit_account_id = 1,
                                     .credit_account_id = 2,
                                     .amount = 7,
                                     .ledger = 1,
                                     .code = 1};
    request = request_of(OPERATION_CREATE_TRANSFERS, transfers, 1);
    engine_submit(lcore, &request);
    engine_execute(lcore, 10);
    seal();
    commit(2);
    engine_completed(lcore, done, 2);
}

static void test_nothing_leaves_before_its_group_is_committed(void) {
    start();
    accounts[0] = (struct account){.id = 1, .ledger = 1, .code = 1};
    struct engine_request request = request_of(OPERATION_CREATE_ACCOUNTS, accounts, 1);
    engine_submit(lcore, &request);
    CHECK(!completes(&request));
    seal();
    CHECK(!completes(&request));
    commit(1);
    CHECK(completes(&request));
    CHECK_EQ(request.wait_group, 1);
    CHECK_EQ(results[0].status, ACCOUNT_STATUS_created);
    CHECK(engine_idle(lcore));
    engine_close(engine);
}

static void test_reads_wait_for_what_they_show(void) {
    for (unsigned stale = 0; stale < 2; stale++) {
        with_a_transfer();
        struct account found[1] __attribute__((aligned(16)));
        uint128_t id = 1;
        transfers[1] = transfers[0];
        transfers[1].id++;
        struct engine_request write = request_of(OPERATION_CREATE_TRANSFERS, &transfers[1], 1);
        engine_submit(lcore, &write);
        engine_execute(lcore, 10);
        struct engine_request read = request_of(OPERATION_LOOKUP_ACCOUNTS, &id, 1);
        read.records = found;
        read.options = stale ? REQUEST_STALE_OK : 0;
        engine_submit(lcore, &read);
        CHECK(!completes(&read));
        seal();
        struct engine_request *done[4];
        CHECK_EQ(engine_completed(lcore, done, 4), 0);
        commit(3);
        CHECK_EQ(engine_completed(lcore, done, 4), 2);
        CHECK_EQ(found[0].debits_posted, 14);
        engine_close(engine);
    }
}

static void test_a_read_of_committed_state_does_not_wait(void) {
    with_a_transfer();
    struct account found[1] __attribute__((aligned(16)));
    uint128_t id = 1;
    struct engine_request read = request_of(OPERATION_LOOKUP_ACCOUNTS, &id, 1);
    read.records = found;
    engine_submit(lcore, &read);
    CHECK(completes(&read));
    CHECK_EQ(found[0].debits_posted, 7);
    CHECK_EQ(found[0].reserved, 0);
    engine_close(engine);
}

static void test_what_the_horizon_decided_waits_for_its_group(void) {
    with_a_transfer();
    transfers[1] = transfers[0];
    transfers[1].id = 77;
    struct engine_request request = request_of(OPERATION_CREATE_TRANSFERS, &transfers[1], 1);
    engine_submit(lcore, &request);
    CHECK(!completes(&request));
    CHECK_EQ(results[0].status, TRANSFER_STATUS_id_expired);
    CHECK_EQ(atomic_load(&lane.wanted_group), 3);
    seal();
    commit(3);
    CHECK(completes(&request));
    engine_close(engine);
}

static void test_no_free_log_buffer_no_decision(void) {
    with_a_transfer();
    /* Group 2 is committed; open so many that the buffer of the newest is still in use. */
    for (unsigned i = 0; i < WAL_BUFFERS; i++)
        seal();
    transfers[1] = transfers[0];
    transfers[1].id++;
    struct engine_request request = request_of(OPERATION_CREATE_TRANSFERS, &transfers[1], 1);
    engine_submit(lcore, &request);
    CHECK(!completes(&request));
    CHECK_EQ(request.next_event, 0);
    commit(3);
    /* A turn to see the commit, one to take the buffer, one to decide. */
    for (unsigned turn = 0; turn < 3; turn++)
        CHECK(!completes(&request));
    CHECK_EQ(request.next_event, 1);
    seal();
    commit(atomic_load(&board.open_group) - 1);
    CHECK(completes(&request));
    CHECK_EQ(results[0].status, TRANSFER_STATUS_created);
    engine_close(engine);
}

/** Answer the one fetch that waits with the last segment's first transfer record, one byte of it changed by `flip`. */
static void answer_fetch(size_t at, uint8_t flip, int status) {
    wal_place_t place;
    uint64_t cookie;
    if (!wal_lane_fetch_peek(&lane, &place, &cookie))
        return;
    wal_lane_fetch_taken(&lane);
    struct wal_fetch *slot = wal_lane_answer_slot(&lane);
    slot->place = place;
    slot->cookie = cookie;
    slot->status = status;
    slot->length = sizeof(struct wal_record_transfer);
    memcpy(slot->record, last_segment + wal_place_offset_bytes(place), slot->length);
    slot->record[at] ^= flip;
    wal_lane_answer_put(&lane);
}

static void test_a_record_from_the_log_must_be_the_one_remembered(void) {
    static const struct {
        size_t at;
        uint8_t flip;
        int status;
        uint32_t code;
    } cases[] = {
        {0, 0, 0, REQUEST_CODE_ok},
        {offsetof(struct wal_record_transfer, amount), 1, 0, REQUEST_CODE_unknown_outcome},
        {offsetof(struct wal_record_transfer, id), 1, 0, REQUEST_CODE_unknown_outcome},
        {offsetof(struct wal_record_transfer, debit_account_id) + 3, 4, 0,
         REQUEST_CODE_unknown_outcome},
        {offsetof(struct wal_record_transfer, timestamp), 1, 0, REQUEST_CODE_unknown_outcome},
        {0, 0, -EIO, REQUEST_CODE_unknown_outcome},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        with_a_transfer();
        struct transfer found[1] __attribute__((aligned(16)));
        memset(found, 0, sizeof(found));
        struct engine_request read = request_of(OPERATION_LOOKUP_TRANSFERS, &transfers[0].id, 1);
        read.records = found;
        engine_submit(lcore, &read);
        CHECK(!completes(&read));
        answer_fetch(cases[i].at, cases[i].flip, cases[i].status);
        CHECK(completes(&read));
        CHECK_EQ(read.code, cases[i].code);
        if (read.code == REQUEST_CODE_ok) {
            CHECK_EQ(results[0].status, LOOKUP_STATUS_found);
            CHECK(found[0].id == transfers[0].id && found[0].amount == 7);
            CHECK_EQ(found[0].timestamp, results[0].timestamp);
        }
        engine_close(engine);
    }
}

/** The file in which the record stood has gone. If the horizon has passed the id meanwhile, that is as it should be (the simulator saw
 *  the record's timestamp beside `expired`); if not, the file was lost (it saw `expired` then, too). */
static void test_what_the_log_no_longer_holds(void) {
    for (unsigned lost = 0; lost < 2; lost++) {
        with_a_transfer();
        struct transfer found[1] __attribute__((aligned(16)));
        struct engine_request read = request_of(OPERATION_LOOKUP_TRANSFERS, &transfers[0].id, 1);
        read.records = found;
        engine_submit(lcore, &read);
        CHECK(!completes(&read));
        for (unsigned i = 0; i < WAL_HORIZONS && !lost; i++)
            atomic_store(&board.horizon_ms[i], start_ns / NS_PER_MS + 1);
        seal();
        commit(3);
        answer_fetch(0, 0, -ENOENT);
        bool complete = completes(&read);
        CHECK_EQ(complete, lost); /* `expired` waits for the group that says so */
        seal();
        commit(4);
        CHECK(complete || completes(&read));
        CHECK_EQ(read.code, lost ? REQUEST_CODE_unknown_outcome : REQUEST_CODE_ok);
        CHECK(lost || (results[0].status == LOOKUP_STATUS_expired && results[0].timestamp == 0));
        engine_close(engine);
    }
}

static void test_a_retry_with_other_fields_asks_the_log(void) {
    with_a_transfer();
    transfers[1] = transfers[0];
    transfers[1].amount = 8;
    struct engine_request request = request_of(OPERATION_CREATE_TRANSFERS, &transfers[1], 1);
    engine_submit(lcore, &request);
    CHECK(!completes(&request));
    answer_fetch(0, 0, 0);
    CHECK(completes(&request));
    CHECK_EQ(results[0].status, TRANSFER_STATUS_exists_with_different_amount);
    /* The same fields need no log. */
    request = request_of(OPERATION_CREATE_TRANSFERS, &transfers[0], 1);
    engine_submit(lcore, &request);
    CHECK(completes(&request));
    CHECK_EQ(results[0].status, TRANSFER_STATUS_exists);
    engine_close(engine);
}

int main(void) {
    TEST_RUN(test_nothing_leaves_before_its_group_is_committed);
    TEST_RUN(test_reads_wait_for_what_they_show);
    TEST_RUN(test_a_read_of_committed_state_does_not_wait);
    TEST_RUN(test_what_the_horizon_decided_waits_for_its_group);
    TEST_RUN(test_no_free_log_buffer_no_decision);
    TEST_RUN(test_a_record_from_the_log_must_be_the_one_remembered);
    TEST_RUN(test_what_the_log_no_longer_holds);
    TEST_RUN(test_a_retry_with_other_fields_asks_the_log);
    return TEST_DONE();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "tests/unit/engine/checkpoint_fixture.h"

/** Checkpoints when something runs out: chunks, memory, patience, the bits of a group's number; and when there is nothing to save. */

static struct node node, other;
static struct node_batch batch;
static struct snapshot at;

static const struct node_config plain_config = {.partitions = 4,
                                                .checkpoint_chunks = 32,
                                                .memory_bytes = (size_t)96 << 20,
                                                .id_time = true,
                                                .horizon_back_ms = 3600000};

static void start(const struct node_config *config) {
    node_open(&node, config);
    node_begin(&node, 0, NODE_START_NS, NODE_START_NS / NS_PER_MS - config->horizon_back_ms);
}

/** Accounts 1 .. count of ledger 1. */
static bool make_accounts(unsigned count) {
    static struct account accounts[4096] __attribute__((aligned(16)));
    static struct result results[4096];
    for (unsigned made = 0; made < count;) {
        unsigned now = count - made < 4096 ? count - made : 4096;
        for (unsigned i = 0; i < now; i++)
            accounts[i] = (struct account){.id = ++made, .ledger = 1, .code = 1};
        struct engine_request request = {.operation = OPERATION_CREATE_ACCOUNTS,
                                         .event_count = now,
                                         .events = accounts,
                                         .results = results};
        if (!node_run(&node, &request))
            return false;
        node_seal(&node, false);
    }
    return true;
}

static struct transfer transfers[REQUEST_EVENTS_MAX] __attribute__((aligned(16)));
static struct result results[REQUEST_EVENTS_MAX];
static uint64_t next_id;

/** Transfers between accounts first, first + 1; first + 2, first + 3; ... */
static struct engine_request pairs(unsigned first, unsigned count, uint16_t flags) {
    for (unsigned i = 0; i < count; i++)
        transfers[i] = (struct transfer){.id = (uint128_t)(node.now_ns / NS_PER_MS) << 80 |
                                               (uint128_t)++next_id << 16 | i,
                                         .debit_account_id = first + 2 * i,
                                         .credit_account_id = first + 2 * i + 1,
                                         .amount = 5,
                                         .ledger = 1,
                                         .code = 1,
                                         .flags = i + 1 < count ? flags : 0};
    return (struct engine_request){.operation = OPERATION_CREATE_TRANSFERS,
                                   .event_count = count,
                                   .events = transfers,
                                   .results = results};
}

/** The checkpoint of group `seq` is whole: it must be what `at` says. */
static const char *restored_differs(seq_t seq) {
    struct checkpoint_manifest manifest;
    char error[256];
    const struct node_group *group = NULL;
    for (unsigned i = 0; i < node.group_count; i++)
        group = node.groups[i].seq == seq ? &node.groups[i] : group;
    struct node_config config = node.config;
    config.memory_bytes *= 2;
    node_open(&other, &config);
    node_manifest(&node, group, at.digest, &manifest);
    const char *what = NULL;
    if (node_restore(&other, &node, &manifest, 2, seq, error, sizeof(error))) {
        printf("restoring: %s\n", error);
        what = "what cannot be restored";
    }
    struct snapshot got;
    snapshot_take(&other, &got);
    if (!what)
        what = snapshot_differs(&got, &at, true);
    if (what)
        printf("%s differ\n", what);
    snapshot_release(&got);
    node_close(&other);
    return what;
}

static seq_t begin(void) {
    snapshot_take(&node, &at);
    node_seal(&node, true);
    return node.groups[node.group_count - 1].seq;
}

static void end(void) {
    snapshot_release(&at);
    node_close(&node);
}

/** Give chunks back and walk on until the checkpoint is whole. */
static bool walk_to_the_end(void) {
    for (unsigned turn = 0; turn < 100000 && !node.complete; turn++) {
        engine_checkpoint(node.lcore);
        node_chunks(&node, WAL_CHUNKS_MAX);
    }
    return node.complete;
}

static void test_an_empty_engine(void) {
    start(&plain_config);
    seq_t seq = begin();
    CHECK(walk_to_the_end());
    CHECK_EQ(node.chunk_count, 1);
    CHECK(!restored_differs(seq));
    end();
}

static void test_nothing_changes_meanwhile(void) {
    start(&plain_config);
    CHECK(make_accounts(5000));
    seq_t seq = begin();
    CHECK(walk_to_the_end());
    /* Four partitions; chunks of the walk hold one and the beginning of the next at most. */
    for (unsigned i = 0; i + 1 < node.chunk_count; i++) {
        const struct checkpoint_chunk_header *header = &node.chunks[i].header;
        CHECK_EQ(header->kind, CHECKPOINT_ACCOUNTS);
        CHECK(header->partition_last - header->partition_first <= 1);
    }
    CHECK_EQ(node.chunk_count, 5000 / 1023 + 1 + 1);
    CHECK(!restored_differs(seq));
    end();
}

static void test_no_chunk_no_decision(void) {
    start(&plain_config);
    CHECK(make_accounts(60000));
    seq_t seq = begin();
    /* The WAL takes and gives nothing back: the walk stops at half of them. */
    while (engine_checkpoint(node.lcore))
        continue;
    node_chunks(&node, 0);
    CHECK_EQ(node.chunk_count, 15);
    /* Changes take the rest, each of an account that has not been saved: 2 an event. */
    struct engine_request request;
    unsigned first = 1, executed = 0;
    for (;; first += 2 * 4000, executed += 4000) {
        CHECK(first < 60000);
        request = pairs(first, 4000, 0);
        engine_submit(node.lcore, &request);
        node.unfinished++;
        engine_execute(node.lcore, 10000);
        if (request.next_event < request.event_count)
            break;
        node_seal(&node, false);
    }
    executed += request.next_event;
    CHECK(request.next_event < 4000 && executed > 4000);
    node_chunks(&node, 0);
    CHECK(node.chunk_count >= 32 - 4);
    uint32_t stopped = request.next_event;
    for (unsigned turn = 0; turn < 10; turn++) {
        node_seal(&node, false);
        engine_execute(node.lcore, 10000);
        CHECK_EQ(engine_checkpoint(node.lcore), 0);
        CHECK_EQ(request.next_event, stopped);
    }
    /* Reads go on. */
    uint128_t id = 7;
    static struct account found[1] __attribute__((aligned(16)));
    CHECK(!node.complete);
    /* One that comes back is enough to go on, and all are enough for the end. */
    node_chunks(&node, 3);
    engine_checkpoint(node.lcore);
    engine_execute(node.lcore, 10000);
    CHECK(request.next_event > stopped);
    for (unsigned turn = 0; turn < 100 && request.next_event < request.event_count; turn++) {
        node_chunks(&node, 4);
        engine_checkpoint(node.lcore);
        engine_execute(node.lcore, 10000);
    }
    CHECK_EQ(request.next_event, request.event_count);
    node_seal(&node, false);
    struct engine_request read = {.operation = OPERATION_LOOKUP_ACCOUNTS,
                                  .event_count = 1,
                                  .events = &id,
                                  .results = results,
                                  .records = found};
    CHECK(node_run(&node, &read));
    CHECK(walk_to_the_end());
    CHECK(!restored_differs(seq));
    end();
}

static void test_the_longest_chain_waits_for_chunks(void) {
    start(&plain_config);
    CHECK(make_accounts(60000));
    seq_t seq = begin();
    while (engine_checkpoint(node.lcore))
        continue;
    node_chunks(&node, 0);
    struct engine_request request = pairs(20001, REQUEST_EVENTS_MAX, TRANSFER_LINKED);
    engine_submit(node.lcore, &request);
    node.unfinished++;
    engine_execute(node.lcore, 10000);
    CHECK_EQ(request.next_event, 0);
    node_chunks(&node, WAL_CHUNKS_MAX);
    checkpoint_walk(node.lcore, 1);
    engine_execute(node.lcore, 10000);
    CHECK_EQ(request.next_event, REQUEST_EVENTS_MAX);
    CHECK_EQ(results[0].status, TRANSFER_STATUS_created);
    CHECK_EQ(results[REQUEST_EVENTS_MAX - 1].status, TRANSFER_STATUS_created);
    CHECK(walk_to_the_end());
    CHECK(!restored_differs(seq));
    end();
}

static void live(struct history *history, unsigned requests) {
    for (unsigned i = 0; i < requests; i++) {
        node.now_ns += 20 * NS_PER_MS;
        history_next(history, node.now_ns, &batch);
        if (!node_run(&node, &batch.request))
            abort();
        node_seal(&node, false);
    }
}

static void test_an_abandoned_checkpoint(void) {
    for (unsigned early = 0; early < 2; early++) {
        struct history history = {.random = test_seed(21), .accounts_max = 300};
        start(&plain_config);
        live(&history, 100);
        for (unsigned round = 0; round < 20; round++) {
            seq_t given_up = begin();
            for (unsigned i = 0; i < round; i++) {
                live(&history, 1);
                checkpoint_walk(node.lcore, 5);
            }
            atomic_store(&node.board->checkpoint_abandoned, given_up);
            if (!early) { /* else the lcore hears of it when the next one begins */
                CHECK_EQ(engine_checkpoint(node.lcore), 0);
                CHECK(!node.lcore->checkpointing);
            }
            node_chunks_forget(&node);
            snapshot_release(&at);
            seq_t seq = begin();
            CHECK(node.lcore->checkpointing);
            live(&history, 2);
            CHECK(walk_to_the_end());
            CHECK(!restored_differs(seq));
            snapshot_release(&at);
            node_chunks_forget(&node);
            engine_checkpoint(node.lcore);
        }
        /* None was lost on the way: the longest chain still finds room. */
        begin();
        CHECK(checkpoint_has_room(node.lcore, REQUEST_EVENTS_MAX));
        end();
    }
}

static void test_memory_is_nearly_full(void) {
    struct history history = {.random = test_seed(22), .accounts_max = 100000};
    struct node_config config = plain_config;
    config.memory_bytes = (size_t)2 << 20;
    start(&config);
    unsigned full = 0, requests = 0;
    while (full < 50 && ++requests < 5000) {
        live(&history, 1);
        for (unsigned i = 0; i < batch.request.event_count; i++)
            full += batch.results[i].status == TRANSFER_STATUS_memory_full;
    }
    CHECK_EQ(full >= 50, true);
    seq_t seq = begin();
    for (unsigned turn = 0; turn < 100000 && !node.complete; turn++) {
        checkpoint_walk(node.lcore, 50);
        node_chunks(&node, 2);
        live(&history, 1);
    }
    CHECK(node.complete);
    CHECK(!restored_differs(seq));
    end();
}

static void test_old_groups_are_refreshed(void) {
    node_open(&node, &plain_config);
    node_begin(&node, (seq_t)5 << 30, NODE_START_NS, NODE_START_NS / NS_PER_MS - 3600000);
    CHECK(make_accounts(2000));
    seq_t seq = atomic_load(&node.board->open_group);
    unsigned old = 0, young = 0;
    for (unsigned p = 0; p < 4; p++) {
        struct account_table *accounts = &node.engine->partitions[p].accounts;
        for (uint32_t slot = 0; slot < accounts->slab.count; slot++) {
            uint32_t age = slot % 2 ? (1u << 30) + 1 + slot : (1u << 30) - slot;
            account_at(accounts, slot)->reserved = (uint32_t)seq - age;
        }
    }
    CHECK_EQ(begin(), seq);
    CHECK(walk_to_the_end());
    for (unsigned p = 0; p < 4; p++) {
        struct account_table *accounts = &node.engine->partitions[p].accounts;
        for (uint32_t slot = 0; slot < accounts->slab.count; slot++) {
            uint32_t group = account_at(accounts, slot)->reserved;
            CHECK(group == (slot % 2 ? (uint32_t)seq : (uint32_t)seq - (1u << 30) + slot));
            old += slot % 2;
            young += !(slot % 2);
        }
    }
    CHECK(old > 900 && young > 900);
    CHECK(!restored_differs(seq));
    end();
}

/** What two lcores hold goes into one checkpoint, each one's partitions from its own lane. */
static void test_two_lcores(void) {
    enum { LCORES = 2, PARTITIONS = 7, ACCOUNTS = 3000 };
    struct engine *engine;
    struct wal_lane *lanes = aligned_alloc(CACHE_LINE_BYTES, LCORES * sizeof(*lanes));
    CHECK(lanes);
    memset(lanes, 0, LCORES * sizeof(*lanes));
    struct node_config config = plain_config;
    config.partitions = PARTITIONS;
    node_open(&node, &config); /* whose board is used, and which the chunks are restored from */
    struct engine_config two = node.engine->config;
    char error[256];
    two.lcores = LCORES;
    two.lanes = lanes;
    CHECK_EQ(engine_open(&two, &engine, error, sizeof(error)), 0);
    for (unsigned i = 1; i <= ACCOUNTS; i++) {
        struct account account = {.id = i, .ledger = 1, .code = 1, .timestamp = i};
        uint64_t hash = hash_id(account.id, two.hash_seed);
        unsigned home = hash_partition(hash, PARTITIONS) % LCORES;
        CHECK(account_apply_create(engine_lcore(engine, home), &account, hash, 1));
    }
    atomic_store(&node.board->commit_seq, 1);
    atomic_store(&node.board->open_group, 2);
    CHECK_EQ(engine_replay_finish(engine, 1, 1, NODE_START_NS, 0), 0);
    atomic_store(&node.board->checkpoint_seq, 2);
    atomic_store(&node.board->open_group, 3);
    struct node_group group = {.seq = 2, .cell_time = NODE_START_NS};
    struct checkpoint_manifest manifest, part;
    for (unsigned i = 0; i < LCORES; i++) {
        struct engine_lcore *lcore = engine_lcore(engine, i);
        engine_seal(lcore);
        struct wal_lane *own = node.lane;
        node.lane = &lanes[i];
        node.complete = false;
        while (!node.complete) {
            engine_checkpoint(lcore);
            node_chunks(&node, WAL_CHUNKS_MAX);
        }
        node.lane = own;
        CHECK_EQ(node.chunks[node.chunk_count - 1].header.lcore, i);
        node_manifest(&node, &group, 0, &part);
        if (i == 0)
            manifest = part;
        else
            manifest.accounts += part.accounts;
    }
    CHECK_EQ(manifest.accounts, ACCOUNTS);
    manifest.chunk_count = node.chunk_count;
    manifest.lcores = LCORES;
    uint128_t digest = 0;
    for (unsigned p = 0; p < PARTITIONS; p++)
        digest += engine_partition_digest(engine, p);
    memcpy(manifest.state_digest, &digest, sizeof(digest));
    node_open(&other, &config);
    CHECK_EQ(node_restore(&other, &node, &manifest, 2, 2, error, sizeof(error)), 0);
    for (unsigned p = 0; p < PARTITIONS; p++)
        CHECK(engine_partition_digest(engine, p) == engine_partition_digest(other.engine, p));
    node_close(&other);
    /* A part that is missing is missed. */
    node.chunk_count--;
    node_open(&other, &config);
    CHECK_EQ(node_restore(&other, &node, &manifest, 2, 2, error, sizeof(error)), -EBADMSG);
    node_close(&other);
    engine_close(engine);
    node_close(&node);
    free(lanes);
}

static void test_without_chunks_there_are_no_checkpoints(void) {
    struct node_config config = plain_config;
    config.checkpoint_chunks = 0;
    start(&config);
    CHECK(make_accounts(100));
    begin();
    CHECK(!node.lcore->checkpointing);
    CHECK_EQ(engine_checkpoint(node.lcore), 0);
    CHECK(make_accounts(10));
    end();
}

static void test_numbers_of_chunks(void) {
    static const struct {
        unsigned chunks;
        int answer;
    } cases[] = {{1, -EINVAL},
                 {CHECKPOINT_CHUNKS_MIN - 1, -EINVAL},
                 {CHECKPOINT_CHUNKS_MIN, 0},
                 {WAL_CHUNKS_MAX + 1, -EINVAL}};
    start(&plain_config);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct engine_config config = node.engine->config;
        struct engine *engine = NULL;
        char error[256];
        config.checkpoint_chunks = cases[i].chunks;
        CHECK_EQ(engine_open(&config, &engine, error, sizeof(error)), cases[i].answer);
        engine_close(engine);
    }
    node_close(&node);
}

int main(void) {
    TEST_RUN(test_an_empty_engine);
    TEST_RUN(test_nothing_changes_meanwhile);
    TEST_RUN(test_no_chunk_no_decision);
    TEST_RUN(test_the_longest_chain_waits_for_chunks);
    TEST_RUN(test_an_abandoned_checkpoint);
    TEST_RUN(test_memory_is_nearly_full);
    TEST_RUN(test_old_groups_are_refreshed);
    TEST_RUN(test_two_lcores);
    TEST_RUN(test_without_chunks_there_are_no_checkpoints);
    TEST_RUN(test_numbers_of_chunks);
    return TEST_DONE();
}

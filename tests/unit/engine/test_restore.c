/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "tests/unit/engine/recovery_fixture.h"

/** Random histories, replayed from the log alone: by one worker and by several, one after the other and as threads. Whoever replays, what comes
 *  back is what the live engine holds. */

static struct node_batch batches[NODE_BATCHES];
static struct node node;
static struct history history;

static void live(unsigned groups) {
    for (; groups; groups--) {
        unsigned count = (unsigned)(test_random(&history.random) % (NODE_BATCHES + 1));
        for (unsigned i = 0; i < count; i++) {
            node.now_ns += test_random(&history.random) % 24
                               ? NS_PER_MS + test_random(&history.random) % (20 * NS_PER_MS)
                               : (1 + test_random(&history.random) % 25) * NS_PER_SECOND;
            history_next(&history, node.now_ns, &batches[i]);
            if (!node_run(&node, &batches[i].request))
                abort();
        }
        node_seal(&node, false);
    }
}

static struct node_config config_of(unsigned partitions, bool id_time) {
    return (struct node_config){.partitions = partitions,
                                .memory_bytes = (size_t)(partitions > 100 ? 512 : 48) << 20,
                                .id_time = id_time,
                                .horizon_back_ms = 20000};
}

static void live_anew(unsigned partitions, bool id_time, uint64_t seed, unsigned groups) {
    const struct node_config config = config_of(partitions, id_time);
    history = (struct history){.random = seed, .accounts_max = 40 + 60 * (seed % 4)};
    node_open(&node, &config);
    node_begin(&node, 0, NODE_START_NS, id_time ? NODE_START_NS / NS_PER_MS - 20000 : 0);
    live(groups);
}

/** What a snapshot does not show. @return NULL, or what differs */
static const char *rest_differs(const struct node *to) {
    const struct engine_lcore *a = node.lcore, *b = to->lcore;
    if (a->ledgers.slab.count != b->ledgers.slab.count)
        return "the number of ledgers";
    for (uint32_t slot = 0; slot < a->ledgers.slab.count; slot++) {
        const struct ledger_total *total = ledger_at(&a->ledgers, slot);
        const struct ledger_total *other =
            ledger_find((struct ledger_table *)&to->lcore->ledgers, total->ledger);
        if (!other || memcmp(&total->sums, &other->sums, sizeof(total->sums)) != 0)
            return "totals";
    }
    if (a->account_timestamps.count != b->account_timestamps.count)
        return "timestamps of accounts";
    if (a->import_cursor_accounts != b->import_cursor_accounts)
        return "cursors";
    return NULL;
}

/** A burnt id keeps the time of the transfer before it in its partition, which is another one under other partitions. */
static void burnt_blur(struct snapshot *snapshot) {
    for (unsigned i = 0; i < snapshot->id_count; i++) {
        if (snapshot->ids[i].place & WAL_PLACE_BURNT)
            snapshot->ids[i].timestamp = 0;
    }
}

static const char *recovered_differs(struct cell *cell, unsigned workers, bool threads,
                                     unsigned partitions) {
    struct node_config config = node.config;
    struct snapshot want, got;
    struct node to;
    const char *what = NULL;
    config.partitions = partitions;
    int rc = cell_recover(cell, &to, &config,
                          (struct recovery_config){.workers = workers, .threads = threads});
    if (rc) {
        printf("%s\n", cell->error);
        node_close(&to);
        return "whether it can be recovered";
    }
    snapshot_take(&node, &want);
    snapshot_take(&to, &got);
    if (partitions != node.config.partitions) {
        burnt_blur(&want);
        burnt_blur(&got);
        snapshot_sort(&want);
        snapshot_sort(&got);
    }
    what = snapshot_differs(&want, &got, true);
    if (!what)
        what = rest_differs(&to);
    if (!what && (cell->report.log_groups != node.group_count || cell->report.checkpoint_seq))
        what = "what the report says";
    snapshot_release(&want);
    snapshot_release(&got);
    node_close(&to);
    return what;
}

static void by_workers(unsigned partitions, bool id_time, uint64_t seed_default) {
    static const unsigned workers[] = {1, 2, 3, 7};
    uint64_t seed = test_seed(seed_default);
    for (unsigned round = 0; round < 6; round++) {
        struct cell cell;
        live_anew(partitions, id_time, seed + round, 60);
        cell_open(&cell, &node);
        for (unsigned i = 0; i < 8; i++) {
            const char *what = recovered_differs(&cell, workers[i / 2], i % 2, partitions);
            if (what)
                printf("round %u, %u workers%s: %s differ\n", round, workers[i / 2],
                       i % 2 ? " as threads" : "", what);
            CHECK(!what);
        }
        cell_close(&cell);
        node_close(&node);
    }
}

static void test_one_partition(void) {
    by_workers(1, true, 51);
}

static void test_a_few_partitions(void) {
    by_workers(7, true, 52);
}

static void test_many_partitions(void) {
    by_workers(256, true, 53);
}

static void test_without_id_time(void) {
    by_workers(5, false, 54);
}

static void test_under_other_partitions(void) {
    static const unsigned numbers[] = {1, 2, 3, 16, 100};
    struct cell cell;
    live_anew(6, true, test_seed(55), 80);
    cell_open(&cell, &node);
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        for (unsigned workers = 1; workers <= 3; workers++) {
            const char *what = recovered_differs(&cell, workers, workers > 1, numbers[i]);
            if (what)
                printf("%u partitions, %u workers: %s differ\n", numbers[i], workers, what);
            CHECK(!what);
        }
    }
    cell_close(&cell);
    node_close(&node);
}

/* --- logs that contradict themselves, with every digest of the log right ---------------------------------------------------- */

/** The first record of a type (and with these flags, or of a transfer that ends no other) from this group on, or else before. */
static void *find_from(unsigned first, uint8_t type, uint16_t flags, struct node_group **in) {
    const uint16_t ending = TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING;
    for (unsigned n = 0; n < node.group_count; n++) {
        struct node_group *group = &node.groups[(first + n) % node.group_count];
        for (uint32_t at = 0; at < group->length;) {
            struct wal_record_transfer *record = (void *)(group->bytes + at);
            *in = group;
            bool ends = type == WAL_RECORD_TRANSFER && (record->flags & ending);
            if (record->head.type == type && (flags ? (record->flags & flags) != 0 : !ends))
                return record;
            at += record->head.length * (uint32_t)WAL_RECORD_ALIGN;
        }
    }
    return NULL;
}

static void *find_record(uint8_t type, uint16_t flags, struct node_group **in) {
    return find_from(node.group_count / 2, type, flags, in);
}

/** A group that has lost its last records. */
static bool group_cut(void) {
    struct node_group *group = NULL;
    struct wal_record_transfer *record = find_record(WAL_RECORD_TRANSFER, 0, &group);
    group->length = (uint32_t)((uint8_t *)record - group->bytes);
    return record;
}

static bool amount_changed(void) {
    struct node_group *group = NULL;
    struct wal_record_transfer *record = find_record(WAL_RECORD_TRANSFER, 0, &group);
    record->amount++;
    return record;
}

static bool account_changed(void) {
    struct node_group *group = NULL;
    struct wal_record_account *record = find_record(WAL_RECORD_ACCOUNT, 0, &group);
    if (record)
        record->code ^= 0x100;
    return record;
}

/** The next record of the same type as `of`, in its group or a later one. */
static void *next_record(const void *of, struct node_group *group) {
    uint8_t type = *(const uint8_t *)of;
    const uint8_t *at = of;
    at += ((const struct wal_record_head *)at)->length * WAL_RECORD_ALIGN;
    for (;;) {
        for (; at < group->bytes + group->length;
             at += ((const struct wal_record_head *)at)->length * WAL_RECORD_ALIGN) {
            if (*at == type)
                return group->bytes + (at - group->bytes);
        }
        if (++group == node.groups + node.group_count)
            return NULL;
        at = group->bytes;
    }
}

static bool account_twice(void) {
    struct node_group *group = NULL;
    struct wal_record_account *record = find_from(0, WAL_RECORD_ACCOUNT, 0, &group);
    struct wal_record_account *next = next_record(record, group);
    if (next)
        next->id = record->id;
    return next;
}

static bool ledger_zero(void) {
    struct node_group *group = NULL;
    struct wal_record_transfer *record = find_record(WAL_RECORD_TRANSFER, 0, &group);
    record->ledger = 0;
    return record;
}

static bool unknown_account(void) {
    struct node_group *group = NULL;
    struct wal_record_transfer *record = find_record(WAL_RECORD_TRANSFER, 0, &group);
    record->credit_account_id = 0xabcdef;
    return record;
}

static bool post_of_another(void) {
    struct node_group *group = NULL;
    struct wal_record_transfer *record =
        find_record(WAL_RECORD_TRANSFER, TRANSFER_POST_PENDING, &group);
    if (record) /* pending_id follows the fixed part, as no earlier field is there */
        memset(record + 1, 0x77, 16);
    return record;
}

static bool void_of_nothing(void) {
    struct node_group *group = NULL;
    struct wal_record_transfer *record =
        find_record(WAL_RECORD_TRANSFER, TRANSFER_VOID_PENDING, &group);
    if (record)
        record->debit_account_id ^= 1;
    return record;
}

static bool expiry_twice(void) {
    struct node_group *group = NULL;
    struct wal_record_transfer *record = find_record(WAL_RECORD_EXPIRY, 0, &group);
    struct wal_record_transfer *next = record ? next_record(record, group) : NULL;
    if (next)
        next->id = record->id;
    return next;
}

static bool id_twice(void) {
    struct node_group *group = NULL;
    struct wal_record_transfer *record = find_record(WAL_RECORD_TRANSFER, 0, &group);
    struct wal_record_transfer *next = record ? next_record(record, group) : NULL;
    if (next)
        next->id = record->id;
    return next;
}

static bool digest_changed(void) {
    struct node_group *group = NULL;
    struct wal_record_partition_digest *record =
        find_record(WAL_RECORD_PARTITION_DIGEST, 0, &group);
    record->digest ^= 1;
    return record;
}

static bool count_changed(void) {
    struct node_group *group = NULL;
    struct wal_record_partition_digest *record =
        find_record(WAL_RECORD_PARTITION_DIGEST, 0, &group);
    record->pending_count++;
    return record;
}

static bool digest_of_no_partition(void) {
    struct node_group *group = NULL;
    struct wal_record_partition_digest *record =
        find_record(WAL_RECORD_PARTITION_DIGEST, 0, &group);
    record->head.extra = 500;
    return record;
}

static bool total_changed(void) {
    struct node_group *group = NULL;
    struct wal_record_ledger_total *record = find_record(WAL_RECORD_LEDGER_TOTAL, 0, &group);
    record->sums.credits_pending++;
    return record;
}

static bool total_of_no_ledger(void) {
    struct node_group *group = NULL;
    struct wal_record_ledger_total *record = find_record(WAL_RECORD_LEDGER_TOTAL, 0, &group);
    record->head.extra = 0;
    return record;
}

static bool no_such_record(void) {
    struct node_group *group = NULL;
    uint8_t *record = find_record(WAL_RECORD_TRANSFER, 0, &group);
    *record = 99;
    return record;
}

/** Each is refused with the same words by one worker and by several, and the words name the file. */
static void test_contradictions_are_refused(void) {
    static const struct {
        const char *name;
        bool (*make)(void);
    } cases[] = {
#define CASE(name) {#name, name}
        CASE(group_cut),
        CASE(amount_changed),
        CASE(account_changed),
        CASE(account_twice),
        CASE(ledger_zero),
        CASE(unknown_account),
        CASE(post_of_another),
        CASE(void_of_nothing),
        CASE(expiry_twice),
        CASE(id_twice),
        CASE(digest_changed),
        CASE(count_changed),
        CASE(digest_of_no_partition),
        CASE(total_changed),
        CASE(total_of_no_ledger),
        CASE(no_such_record),
#undef CASE
    };
    uint64_t seed = test_seed(56);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char first[512] = "";
        struct cell cell;
        struct node to;
        live_anew(4, true, seed, 80);
        if (!cases[i].make())
            printf("%s: cannot be made\n", cases[i].name);
        cell_open(&cell, &node);
        for (unsigned workers = 1; workers <= 4; workers++) {
            int rc = cell_recover(
                &cell, &to, &node.config,
                (struct recovery_config){.workers = workers, .threads = workers % 2 == 0});
            node_close(&to);
            if (workers == 1)
                snprintf(first, sizeof(first), "%s", cell.error);
            if (rc != -EBADMSG || strcmp(first, cell.error) != 0)
                printf("%s, %u workers: %d: %s\n", cases[i].name, workers, rc, cell.error);
            CHECK_EQ(rc, -EBADMSG);
            CHECK(strcmp(first, cell.error) == 0 && strstr(first, "group "));
            CHECK(strstr(first, cell.disk->name(cell.disk, 1)) || strstr(first, ".log"));
        }
        cell_close(&cell);
        node_close(&node);
    }
}

/** Ledgers by the hundred, whose totals are all compared. */
static void test_many_ledgers(void) {
    const struct node_config config = config_of(3, true);
    static struct account accounts[2][1000] __attribute__((aligned(16)));
    static struct transfer transfers[1000] __attribute__((aligned(16)));
    static struct result results[1000];
    struct cell cell;
    history = (struct history){.random = 1};
    node_open(&node, &config);
    node_begin(&node, 0, NODE_START_NS, NODE_START_NS / NS_PER_MS - 20000);
    for (unsigned side = 0; side < 2; side++) {
        for (unsigned i = 0; i < 1000; i++)
            accounts[side][i] =
                (struct account){.id = 1 + i + 1000 * side, .ledger = 1 + i, .code = 1};
        struct engine_request request = {.operation = OPERATION_CREATE_ACCOUNTS,
                                         .events = accounts[side],
                                         .event_count = 1000,
                                         .results = results};
        CHECK(node_run(&node, &request));
        node_seal(&node, false);
    }
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < 1000; i++)
            transfers[i] = (struct transfer){.id = (uint128_t)(node.now_ns / NS_PER_MS) << 80 |
                                                   (1000 * round + i + 1) << 4,
                                             .debit_account_id = 1 + i,
                                             .credit_account_id = 1001 + i,
                                             .amount = i,
                                             .ledger = 1 + i,
                                             .code = 1};
        struct engine_request request = {.operation = OPERATION_CREATE_TRANSFERS,
                                         .events = transfers,
                                         .event_count = 1000,
                                         .results = results};
        CHECK(node_run(&node, &request));
        node.now_ns += NS_PER_SECOND;
        node_seal(&node, false);
    }
    struct node_group *group = NULL;
    CHECK(find_record(WAL_RECORD_LEDGER_TOTAL, 0, &group));
    cell_open(&cell, &node);
    for (unsigned workers = 1; workers <= 3; workers++)
        CHECK(!recovered_differs(&cell, workers, workers > 1, 3));
    cell_close(&cell);
    node_close(&node);
}

int main(void) {
    TEST_RUN(test_one_partition);
    TEST_RUN(test_a_few_partitions);
    TEST_RUN(test_many_partitions);
    TEST_RUN(test_without_id_time);
    TEST_RUN(test_under_other_partitions);
    TEST_RUN(test_contradictions_are_refused);
    TEST_RUN(test_many_ledgers);
    return TEST_DONE();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "tests/unit/engine/checkpoint_fixture.h"

/** What a checkpoint holds is not believed: each kind of contradiction is refused, whatever digests say. And a good one can be restored
 *  under other numbers of partitions. */

static struct node node;
static struct snapshot at;
static struct checkpoint_manifest manifest;
static const struct node_config config = {.partitions = 6,
                                          .checkpoint_chunks = 32,
                                          .memory_bytes = (size_t)64 << 20,
                                          .id_time = true,
                                          .horizon_back_ms = 60000};

/** A node with a checkpoint of a random history; nothing changes while it is walked. */
static void checkpoint_make(uint64_t seed) {
    static struct node_batch batch;
    struct history history = {.random = seed, .accounts_max = 200};
    node_open(&node, &config);
    node_begin(&node, 0, NODE_START_NS, NODE_START_NS / NS_PER_MS - config.horizon_back_ms);
    for (unsigned i = 0; i < 150; i++) {
        node.now_ns += 200 * NS_PER_MS;
        history_next(&history, node.now_ns, &batch);
        if (!node_run(&node, &batch.request))
            abort();
        node_seal(&node, i == 149);
        snapshot_release(&at);
        snapshot_take(&node, &at);
    }
    while (!node.complete) {
        engine_checkpoint(node.lcore);
        node_chunks(&node, WAL_CHUNKS_MAX);
    }
    node_manifest(&node, &node.groups[node.group_count - 1], at.digest, &manifest);
}

static void checkpoint_drop(void) {
    snapshot_release(&at);
    at = (struct snapshot){0};
    node_close(&node);
}

/** Restore into an engine of so many partitions. @return what restoring answered */
static int restore_into(struct node *to, unsigned partitions, unsigned workers) {
    struct node_config other = config;
    char error[256];
    other.partitions = partitions;
    node_open(to, &other);
    int rc = node_restore(to, &node, &manifest, workers, UINT64_MAX, error, sizeof(error));
    if ((rc != 0) != (error[0] != '\0'))
        printf("%d, but \"%s\"\n", rc, error);
    return (rc != 0) == (error[0] != '\0') ? rc : -EPROTO;
}

static int restored(void) {
    struct node to;
    int rc = restore_into(&to, config.partitions, 2);
    node_close(&to);
    return rc;
}

static struct checkpoint_chunk *chunk_of(enum checkpoint_kind kind) {
    for (unsigned i = 0; i < node.chunk_count; i++) {
        if (node.chunks[i].header.kind == kind)
            return &node.chunks[i];
    }
    abort();
}

static struct account *accounts(void) {
    return (void *)chunk_of(CHECKPOINT_ACCOUNTS)->payload;
}
static struct checkpoint_pending *pendings(void) {
    return (void *)chunk_of(CHECKPOINT_PENDINGS)->payload;
}
static struct checkpoint_id *ids(void) {
    return (void *)chunk_of(CHECKPOINT_IDS)->payload;
}
static struct checkpoint_lcore *lcore(void) {
    return (void *)chunk_of(CHECKPOINT_LCORE)->payload;
}
static struct checkpoint_partition *partitions(void) {
    return (void *)(lcore() + 1);
}
static struct checkpoint_pending *pending_in_state(bool live) {
    for (unsigned i = 0;; i++) {
        if ((pendings()[i].state == PENDING_LIVE) == live)
            return &pendings()[i];
    }
}

/* Each makes one thing wrong. */
static void account_twice(void) {
    accounts()[1] = accounts()[0];
}
static void account_missing(void) {
    chunk_of(CHECKPOINT_ACCOUNTS)->header.records--;
}
static void account_counted_out(void) {
    chunk_of(CHECKPOINT_ACCOUNTS)->header.records--;
    manifest.accounts--;
    lcore()->accounts--;
}
static void account_of_nobody(void) {
    accounts()[0].ledger = 0;
}
static void account_without_time(void) {
    accounts()[0].timestamp = 0;
}
static void account_marked(void) {
    accounts()[3].flags |= ACCOUNT_MARKED;
}
static void account_with_group(void) {
    accounts()[3].reserved = 1;
}
static void account_richer(void) {
    accounts()[3].credits_posted++;
}
static void account_of_another_partition(void) {
    chunk_of(CHECKPOINT_ACCOUNTS)->header.partition_first++;
}
static void account_id_changed(void) {
    accounts()[0].id += 1000000;
}
static void pending_twice(void) {
    pendings()[1] = pendings()[0];
}
static void pending_of_no_account(void) {
    pendings()[0].transfer.debit_account_id = 999999;
}
static void pending_in_no_state(void) {
    pendings()[0].state = PENDING_EXPIRED + 1;
}
static void pending_that_never_ended(void) {
    struct checkpoint_pending *pending = pending_in_state(false);
    pending->state = PENDING_LIVE;
}
static void pending_that_never_began(void) {
    struct checkpoint_pending *pending = pending_in_state(true);
    pending->state = PENDING_VOIDED;
    pending->release_ms = id_time_ms(pending->transfer.id);
}
static void pending_due_at_another_time(void) {
    pendings()[0].expires_at++;
}
static void pending_released_too_early(void) {
    pending_in_state(false)->release_ms = 1;
}
static void pending_with_more(void) {
    pendings()[0].reserved[7] = 1;
}
static void pending_missing(void) {
    chunk_of(CHECKPOINT_PENDINGS)->header.records--;
}
static void id_twice(void) {
    ids()[1] = ids()[0];
}
static void id_zero(void) {
    ids()[2].id[0] = ids()[2].id[1] = 0;
}
static void id_of_another_age(void) {
    ids()[4].id[1] += ((uint64_t)ID_SLICES * ID_SLICE_MS) << 16;
}
static void id_missing(void) {
    chunk_of(CHECKPOINT_IDS)->header.records--;
}
static void records_that_do_not_fit(void) {
    chunk_of(CHECKPOINT_IDS)->header.records = UINT32_MAX;
}
static void records_of_another_size(void) {
    chunk_of(CHECKPOINT_PENDINGS)->header.record_bytes = 128;
}
static void partitions_that_there_are_not(void) {
    chunk_of(CHECKPOINT_IDS)->header.partition_last = 6;
}
static void partitions_the_other_way_round(void) {
    chunk_of(CHECKPOINT_IDS)->header.partition_first = 5;
    chunk_of(CHECKPOINT_IDS)->header.partition_last = 4;
}
static void chunk_of_no_kind(void) {
    chunk_of(CHECKPOINT_IDS)->header.kind = 77;
}
static void chunk_of_another_checkpoint(void) {
    chunk_of(CHECKPOINT_IDS)->header.seq++;
}
static void chunk_twice(void) {
    node.chunks[node.chunk_count - 1] = node.chunks[0];
}
static void lcore_missing(void) {
    node.chunk_count--;
}
static void lcore_twice(void) {
    *chunk_of(CHECKPOINT_IDS) = *chunk_of(CHECKPOINT_LCORE);
}
static void lcore_with_too_many_partitions(void) {
    lcore()->partition_count = PARTITIONS_MAX + 1;
}
static void partition_twice(void) {
    partitions()[1].partition = partitions()[0].partition;
}
static void partition_unknown(void) {
    partitions()[1].partition = 6;
}
static void digest_changed(void) {
    partitions()[2].digest++;
}
static void digests_traded(void) {
    uint128_t digest = partitions()[2].digest;
    partitions()[2].digest = partitions()[3].digest;
    partitions()[3].digest = digest;
}
static void state_digest_changed(void) {
    manifest.state_digest[0] ^= 1;
}
static void manifest_of_another_seq(void) {
    manifest.seq++;
}
static void manifest_of_two_lcores(void) {
    manifest.lcores = 2;
}
static void manifest_counts_more(void) {
    manifest.ids++;
}
static void nothing_at_all(void) {
    node.chunk_count = 0;
}

static void test_contradictions_are_refused(void) {
    static const struct {
        const char *name;
        void (*make)(void);
    } cases[] = {
#define CASE(name) {#name, name}
        CASE(account_twice),
        CASE(account_missing),
        CASE(account_counted_out),
        CASE(account_of_nobody),
        CASE(account_without_time),
        CASE(account_marked),
        CASE(account_with_group),
        CASE(account_richer),
        CASE(account_of_another_partition),
        CASE(account_id_changed),
        CASE(pending_twice),
        CASE(pending_of_no_account),
        CASE(pending_in_no_state),
        CASE(pending_that_never_ended),
        CASE(pending_that_never_began),
        CASE(pending_due_at_another_time),
        CASE(pending_released_too_early),
        CASE(pending_with_more),
        CASE(pending_missing),
        CASE(id_twice),
        CASE(id_zero),
        CASE(id_of_another_age),
        CASE(id_missing),
        CASE(records_that_do_not_fit),
        CASE(records_of_another_size),
        CASE(partitions_that_there_are_not),
        CASE(partitions_the_other_way_round),
        CASE(chunk_of_no_kind),
        CASE(chunk_of_another_checkpoint),
        CASE(chunk_twice),
        CASE(lcore_missing),
        CASE(lcore_twice),
        CASE(lcore_with_too_many_partitions),
        CASE(partition_twice),
        CASE(partition_unknown),
        CASE(digest_changed),
        CASE(digests_traded),
        CASE(state_digest_changed),
        CASE(manifest_of_another_seq),
        CASE(manifest_of_two_lcores),
        CASE(manifest_counts_more),
        CASE(nothing_at_all),
#undef CASE
    };
    checkpoint_make(test_seed(31));
    unsigned count = node.chunk_count;
    struct checkpoint_manifest good = manifest;
    struct checkpoint_chunk *chunks = malloc(count * sizeof(*chunks));
    CHECK(chunks);
    memcpy(chunks, node.chunks, count * sizeof(*chunks));
    CHECK_EQ(restored(), 0);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cases[i].make();
        int rc = restored();
        if (rc != -EBADMSG)
            printf("%s: %d\n", cases[i].name, rc);
        CHECK_EQ(rc, -EBADMSG);
        memcpy(node.chunks, chunks, count * sizeof(*chunks));
        node.chunk_count = count;
        manifest = good;
    }
    CHECK_EQ(restored(), 0);
    free(chunks);
    checkpoint_drop();
}

/** Any bytes at all are refused or restored, and never bring anything down. */
static void test_random_bytes(void) {
    uint64_t random = test_seed(32);
    checkpoint_make(33);
    unsigned count = node.chunk_count, refused = 0;
    struct checkpoint_chunk *chunks = malloc(count * sizeof(*chunks));
    CHECK(chunks);
    memcpy(chunks, node.chunks, count * sizeof(*chunks));
    for (unsigned round = 0; round < 400; round++) {
        struct checkpoint_chunk *chunk = &node.chunks[test_random(&random) % count];
        size_t used =
            sizeof(chunk->header) + (size_t)chunk->header.records * chunk->header.record_bytes;
        size_t from = test_random(&random) % 4 ? sizeof(chunk->header) : 0;
        for (unsigned changes = 1 + (unsigned)(test_random(&random) % 3); changes; changes--) {
            uint8_t *byte = (uint8_t *)chunk + from + test_random(&random) % (used - from);
            *byte ^= (uint8_t)(1 + test_random(&random) % 255);
        }
        int rc = restored();
        CHECK(rc == 0 || rc == -EBADMSG || rc == -ENOMEM);
        refused += rc != 0;
        memcpy(node.chunks, chunks, count * sizeof(*chunks));
    }
    printf("%u of 400 refused\n", refused);
    CHECK(refused > 200);
    free(chunks);
    checkpoint_drop();
}

/** Ids of each slice stand in the order of their timestamps, which is how imported accounts look for them. */
static bool ids_are_ordered(const struct node *restored_node) {
    for (unsigned p = 0; p < restored_node->config.partitions; p++) {
        const struct id_table *table = &restored_node->engine->partitions[p].ids;
        for (unsigned i = 0; i < ID_SLICES; i++) {
            const struct id_slice *slice = table->slices[i];
            for (uint32_t slot = 1; slice && slot < slice->slab.count; slot++) {
                const struct id_record *record = id_at(slice, slot);
                if (record->timestamp < id_at(slice, slot - 1)->timestamp ||
                    id_find(table, uint128_make(record->id[1], record->id[0]),
                            hash_transfer_id(uint128_make(record->id[1], record->id[0]),
                                             restored_node->engine->config.digest_seed)) != record)
                    return false;
            }
        }
    }
    return true;
}

static void test_under_other_partitions(void) {
    static const unsigned numbers[] = {1, 2, 5, 6, 7, 64};
    checkpoint_make(test_seed(34));
    snapshot_sort(&at);
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        for (unsigned workers = 1; workers <= 3; workers++) {
            struct node to;
            struct snapshot got;
            CHECK_EQ(restore_into(&to, numbers[i], workers), 0);
            CHECK(ids_are_ordered(&to));
            snapshot_take(&to, &got);
            snapshot_sort(&got);
            const char *what = snapshot_differs(&got, &at, true);
            if (what)
                printf("%u partitions, %u workers: %s differ\n", numbers[i], workers, what);
            CHECK(!what);
            snapshot_release(&got);
            node_close(&to);
        }
    }
    checkpoint_drop();
}

static void test_memory_too_small(void) {
    struct node to;
    struct node_config small = config;
    char error[256];
    checkpoint_make(35);
    small.memory_bytes = 1 << 16;
    node_open(&to, &small);
    /* A region is rounded up to a huge page; take most of it away. */
    while (to.lcore->memory.units_free > 64 && memory_take(&to.lcore->memory, 4))
        continue;
    CHECK_EQ(node_restore(&to, &node, &manifest, 2, UINT64_MAX, error, sizeof(error)), -ENOMEM);
    CHECK(error[0]);
    node_close(&to);
    checkpoint_drop();
}

int main(void) {
    TEST_RUN(test_contradictions_are_refused);
    TEST_RUN(test_random_bytes);
    TEST_RUN(test_under_other_partitions);
    TEST_RUN(test_memory_too_small);
    return TEST_DONE();
}

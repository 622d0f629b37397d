/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"

#include "engine/base/heap.h"
#include "engine/base/index.h"
#include "engine/base/memory.h"
#include "engine/base/units.h"
#include "engine/id_table.h"
#include "engine/pending_table.h"

/** The containers under the engine, each beside something naive. */

#define REGION_BYTES ((size_t)64 << 20)

static struct memory memory;

static void test_memory_gives_back_what_it_took(void) {
    CHECK_EQ(memory_open(&memory, REGION_BYTES, false), 0);
    uint32_t all = memory.units_free;
    enum { BLOCKS = 4000 };
    static struct {
        uint8_t *block;
        unsigned order;
    } taken[BLOCKS];
    uint64_t random = test_seed(1);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned i = (unsigned)(test_random(&random) % BLOCKS);
        if (taken[i].block) {
            /* The pattern written when it was taken is still there: no two blocks overlap. */
            CHECK(taken[i].block[0] == (uint8_t)i);
            CHECK(taken[i].block[((size_t)MEMORY_UNIT_BYTES << taken[i].order) - 1] == (uint8_t)i);
            memory_give(&memory, taken[i].block, taken[i].order);
            taken[i].block = NULL;
            continue;
        }
        unsigned order = (unsigned)(test_random(&random) % 6);
        uint8_t *block = memory_take(&memory, order);
        if (!block)
            continue;
        CHECK(((size_t)(block - memory.base) & (((size_t)MEMORY_UNIT_BYTES << order) - 1)) == 0);
        block[0] = (uint8_t)i;
        block[((size_t)MEMORY_UNIT_BYTES << order) - 1] = (uint8_t)i;
        taken[i].block = block;
        taken[i].order = order;
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (taken[i].block)
            memory_give(&memory, taken[i].block, taken[i].order);
    }
    CHECK_EQ(memory.units_free, all);
    /* Everything has grown together again: the whole region can be had in its largest pieces. */
    void *large = memory_take(&memory, 15);
    CHECK(large != NULL);
    memory_give(&memory, large, 15);
    memory_close(&memory);
}

static void test_memory_runs_out_and_says_so(void) {
    CHECK_EQ(memory_open(&memory, (size_t)2 << 20, false), 0);
    CHECK(memory_take(&memory, 12) == NULL);
    unsigned count = 0;
    while (memory_take(&memory, 0))
        count++;
    CHECK_EQ(count, 2048);
    CHECK_EQ(memory.units_free, 0);
    memory_close(&memory);
}

static void test_units_are_distinct_and_never_move(void) {
    CHECK_EQ(memory_open(&memory, REGION_BYTES, false), 0);
    struct units units = {0};
    enum { COUNT = 20000 };
    static uint32_t *where[COUNT];
    for (uint32_t unit = 0; unit < COUNT; unit++) {
        CHECK_EQ(units_grow(&units, &memory, unit + 1), 0);
        where[unit] = units_at(&units, unit);
        *where[unit] = unit;
    }
    for (uint32_t unit = 0; unit < COUNT; unit++)
        CHECK(units_at(&units, unit) == where[unit] && *where[unit] == unit);
    CHECK(units.count <= COUNT + COUNT / 4);
    CHECK_EQ(units_grow(&units, &memory, 1u << 30), -ENOMEM);
    units_release(&units, &memory);
    CHECK_EQ(memory.units_free, memory.unit_count);
    memory_close(&memory);
}

/** Insertions, removals and searches beside an array; tags collide on purpose. */
static void index_against_array(uint32_t tag_mask, unsigned rounds) {
    CHECK_EQ(memory_open(&memory, REGION_BYTES, false), 0);
    enum { SLOTS = 30000 };
    static uint32_t tags[SLOTS];
    static bool present[SLOTS];
    memset(present, 0, sizeof(present));
    struct index index = {0};
    uint64_t random = test_seed(2), count = 0;
    for (unsigned round = 0; round < rounds; round++) {
        uint32_t slot = (uint32_t)(test_random(&random) % SLOTS);
        if (present[slot]) {
            index_remove(&index, tags[slot], slot);
            count--;
        } else {
            CHECK_EQ(index_reserve(&index, &memory, 1), 0);
            CHECK(index_has_room(&index, 1));
            tags[slot] = (uint32_t)test_random(&random) & tag_mask;
            index_insert(&index, tags[slot], slot);
            count++;
        }
        present[slot] = !present[slot];
    }
    CHECK_EQ(index.count, count);
    uint64_t found = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        struct index_cursor cursor;
        unsigned times = 0;
        for (uint32_t got = index_first(&index, &cursor, tags[slot]); got != INDEX_NONE;
             got = index_next(&index, &cursor, tags[slot])) {
            CHECK(present[got] && tags[got] == tags[slot]);
            times += got == slot;
        }
        CHECK_EQ(times, present[slot]);
        found += times;
    }
    CHECK_EQ(found, count);
    index_release(&index, &memory);
    CHECK_EQ(memory.units_free, memory.unit_count);
    memory_close(&memory);
}

static void test_index_finds_all_and_nothing_else(void) {
    index_against_array(UINT32_MAX, 120000);
}

static void test_index_survives_many_equal_tags(void) {
    index_against_array(0xfff, 120000);
}

static void test_index_survives_one_tag_for_all(void) {
    index_against_array(0, 3000);
}

/** Room that was reserved once is enough for as many insertions, and each of them adds one batch of buckets at most. */
static void test_index_grows_in_bounded_steps_within_its_room(void) {
    CHECK_EQ(memory_open(&memory, REGION_BYTES, false), 0);
    struct index index = {0};
    uint64_t random = test_seed(6);
    uint32_t count = 0;
    for (unsigned round = 0; round < 200; round++) {
        uint32_t more = 1 + (uint32_t)(test_random(&random) % 1500);
        CHECK_EQ(index_reserve(&index, &memory, more), 0);
        CHECK(index_has_room(&index, more));
        for (uint32_t i = 0; i < more; i++) {
            uint32_t before = index.buckets;
            bool next = index_split_next(&index);
            uint32_t tag = (uint32_t)test_random(&random);
            index_insert_at(&index, index_line_at(&index, tag), tag, count++);
            CHECK_EQ(index.buckets, before + (next ? INDEX_BATCH : 0));
        }
        /* What was reserved is used before more is asked for: no split was ever put off. */
        CHECK(index.count <= index.split_above);
    }
    CHECK_EQ(index.count, count);
    CHECK(index.buckets <= count / INDEX_BATCH_ENTRIES * INDEX_BATCH + 2 * INDEX_BATCH);
    index_release(&index, &memory);
    CHECK_EQ(memory.units_free, memory.unit_count);
    memory_close(&memory);
}

/** Without memory nothing is lost: what was reserved can be inserted, and growth goes on when there is memory again. */
static void test_index_without_memory_keeps_what_it_has(void) {
    CHECK_EQ(memory_open(&memory, (size_t)2 << 20, false), 0);
    struct index index = {0};
    uint64_t random = test_seed(7);
    uint32_t count = 0;
    static uint32_t tags[1 << 20];
    while (index_reserve(&index, &memory, 1) == 0) {
        tags[count] = (uint32_t)test_random(&random);
        index_insert(&index, tags[count], count);
        count++;
        CHECK(count < sizeof(tags) / sizeof(*tags));
    }
    CHECK(count > 10000);
    CHECK_EQ(index.count, count);
    for (uint32_t slot = 0; slot < count; slot++) {
        struct index_cursor cursor;
        uint32_t got = index_first(&index, &cursor, tags[slot]);
        while (got != slot && got != INDEX_NONE)
            got = index_next(&index, &cursor, tags[slot]);
        CHECK_EQ(got, slot);
    }
    index_release(&index, &memory);
    CHECK_EQ(memory.units_free, memory.unit_count);
    memory_close(&memory);
}

static void test_partition_without_a_division_is_the_same(void) {
    uint64_t random = test_seed(8);
    for (unsigned partitions = 1; partitions <= PARTITIONS_MAX; partitions++) {
        uint64_t magic = hash_partition_magic(partitions);
        const uint64_t edges[] = {
            0,         partitions - 1, partitions, UINT32_MAX, UINT32_MAX / partitions * partitions,
            UINT64_MAX};
        for (unsigned i = 0; i < sizeof(edges) / sizeof(*edges); i++)
            CHECK_EQ(hash_partition_by(edges[i], partitions, magic),
                     hash_partition(edges[i], partitions));
        for (unsigned i = 0; i < 500; i++) {
            uint64_t hash = test_random(&random);
            CHECK_EQ(hash_partition_by(hash, partitions, magic), hash_partition(hash, partitions));
        }
    }
}

static void heap_note(void *context, uint32_t slot, uint32_t position) {
    ((uint32_t *)context)[slot] = position;
}

static void test_heap_gives_the_least_and_removes_any(void) {
    CHECK_EQ(memory_open(&memory, REGION_BYTES, false), 0);
    enum { SLOTS = 3000 };
    static uint64_t keys[SLOTS];
    static uint32_t positions[SLOTS];
    struct heap heap = {0};
    memset(positions, 0xff, sizeof(positions));
    uint64_t random = test_seed(3);
    for (unsigned round = 0; round < 60000; round++) {
        uint32_t slot = (uint32_t)(test_random(&random) % SLOTS);
        if (positions[slot] == HEAP_NOWHERE) {
            keys[slot] = test_random(&random) % 1000;
            CHECK_EQ(heap_reserve(&heap, &memory, 1), 0);
            heap_insert(&heap, keys[slot], slot, heap_note, positions);
        } else {
            heap_remove(&heap, positions[slot], heap_note, positions);
            CHECK_EQ(positions[slot], HEAP_NOWHERE);
        }
        if (round % 500 == 0) {
            uint64_t least = UINT64_MAX;
            for (uint32_t i = 0; i < SLOTS; i++) {
                if (positions[i] != HEAP_NOWHERE && keys[i] < least)
                    least = keys[i];
            }
            const struct heap_entry *first = heap_first(&heap);
            CHECK_EQ(first ? first->key : UINT64_MAX, least);
        }
    }
    uint64_t before = 0;
    const struct heap_entry *first;
    while ((first = heap_first(&heap))) {
        CHECK(first->key >= before);
        before = first->key;
        heap_remove(&heap, 0, heap_note, positions);
    }
    slab_release(&heap.entries, &memory);
    memory_close(&memory);
}

static void test_ids_are_remembered_and_forgotten_by_slice(void) {
    CHECK_EQ(memory_open(&memory, REGION_BYTES, false), 0);
    struct id_table ids = {.id_time = true};
    const uint64_t start_ms = 1700000000000;
    enum { COUNT = 40000 };
    for (uint32_t i = 0; i < COUNT; i++) {
        uint128_t id = (uint128_t)(start_ms + i * 10) << 80 | (i + 1);
        CHECK_EQ(id_reserve(&ids, &memory, id, 1), 0);
        id_insert(&ids, id, hash_transfer_id(id, 7), 1000 + i, 5, i % 10 ? i : WAL_PLACE_BURNT);
    }
    CHECK_EQ(id_count(&ids), COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint128_t id = (uint128_t)(start_ms + i * 10) << 80 | (i + 1);
        const struct id_record *record = id_find(&ids, id, hash_transfer_id(id, 7));
        CHECK(record && record->place == (i % 10 ? i : WAL_PLACE_BURNT));
        CHECK_EQ(id_timestamp_taken(&ids, 1000 + i, 0), i % 10 != 0);
    }
    CHECK_EQ(id_oldest_ms(&ids), start_ms / ID_SLICE_MS * ID_SLICE_MS);
    uint64_t horizon = start_ms + 200000;
    while (id_forget(&ids, &memory, horizon, 1) > 0)
        continue;
    for (uint32_t i = 0; i < COUNT; i++) {
        uint128_t id = (uint128_t)(start_ms + i * 10) << 80 | (i + 1);
        bool kept = (start_ms + i * 10) / ID_SLICE_MS >= horizon / ID_SLICE_MS;
        CHECK_EQ(id_find(&ids, id, hash_transfer_id(id, 7)) != NULL, kept);
    }
    /* A jump of the horizon beyond all slices empties the table. */
    while (id_forget(&ids, &memory, start_ms * 2, 1) > 0)
        continue;
    CHECK_EQ(id_count(&ids), 0);
    CHECK_EQ(memory.units_free, memory.unit_count);
    memory_close(&memory);
}

/** Records that travellers bring are older than some that stand there already: a timestamp is found wherever it stands. */
static void test_timestamps_out_of_order(void) {
    enum { COUNT = 20000, SPREAD = 300 };
    CHECK_EQ(memory_open(&memory, REGION_BYTES, false), 0);
    struct id_table ids = {.id_time = true};
    const uint128_t time = (uint128_t)1700000000000 << 80;
    static bool taken[2 * COUNT + SPREAD];
    uint64_t random = test_seed(41);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint128_t id = time | (i + 1);
        uint64_t timestamp = 2 * i + test_random(&random) % SPREAD;
        CHECK_EQ(id_reserve(&ids, &memory, id, 1), 0);
        id_insert(&ids, id, hash_transfer_id(id, 7), timestamp, 5, i % 10 ? i : WAL_PLACE_BURNT);
        if (i % 10)
            taken[timestamp] = true;
        if (i % 1000 == 0)
            CHECK_EQ(id_timestamp_taken(&ids, timestamp, 0), taken[timestamp]);
    }
    for (uint64_t timestamp = 1; timestamp < 2 * COUNT + SPREAD; timestamp++)
        CHECK_EQ(id_timestamp_taken(&ids, timestamp, 0), taken[timestamp]);
    id_release(&ids, &memory);
    memory_close(&memory);
}

/** Ids at every rate, some in windows with lines of their own and some not: what was remembered is found, and nothing else. */
static void ids_at_every_rate(size_t memory_bytes, uint64_t *random) {
    CHECK_EQ(memory_open(&memory, memory_bytes, false), 0);
    enum { COUNT = 30000 };
    static uint128_t remembered[COUNT];
    struct id_table ids = {.id_time = true};
    uint64_t now_ms = 1700000000000, serial = 0;
    uint32_t count = 0, refused = 0;
    while (count < COUNT && refused < 1000) {
        /* Ids a window, windows in a row, and how far ids are off the clock. */
        uint32_t rate = 1u << test_random(random) % 10, windows = 1 + test_random(random) % 40;
        uint64_t off_ms = 1 + test_random(random) % 3 * test_random(random) % 5000;
        for (uint32_t i = 0; i < rate * windows && count < COUNT && refused < 1000; i++) {
            uint64_t ms = now_ms + i / rate * ID_WINDOW_MS - test_random(random) % off_ms;
            uint128_t id = (uint128_t)ms << 80 | ++serial << 16;
            uint64_t hash = hash_transfer_id(id, 7);
            CHECK(!id_find(&ids, id, hash));
            if (id_reserve(&ids, &memory, id, 1)) {
                refused++;
                continue;
            }
            id_insert(&ids, id, hash, serial, ms, serial);
            remembered[count++] = id;
            uint128_t old = remembered[test_random(random) % count];
            const struct id_record *record = id_find(&ids, old, hash_transfer_id(old, 7));
            CHECK(record && record->place == (uint64_t)old >> 16);
            CHECK(!id_find(&ids, old + 1, hash_transfer_id(old + 1, 7)));
        }
        now_ms += windows * ID_WINDOW_MS + test_random(random) % 4 * 500;
    }
    CHECK_EQ(id_count(&ids), count);
    unsigned blocks = 0, strays = 0;
    for (unsigned i = 0; i < ID_SLICES; i++) {
        blocks += ids.slices[i] ? ids.slices[i]->blocks : 0;
        strays += ids.slices[i] ? ids.slices[i]->index.count : 0;
    }
    CHECK(blocks > 0 && strays > 0);
    for (uint32_t i = 0; i < count; i++)
        CHECK(id_find(&ids, remembered[i], hash_transfer_id(remembered[i], 7)) != NULL);
    id_release(&ids, &memory);
    CHECK_EQ(memory.units_free, memory.unit_count);
    memory_close(&memory);
}

static void test_ids_of_windows_are_exact(void) {
    uint64_t random = test_seed(5);
    for (unsigned round = 0; round < 10; round++) {
        ids_at_every_rate(REGION_BYTES, &random);
        ids_at_every_rate((size_t)2 << 20, &random);
    }
}

static void test_pendings_are_due_in_order_and_forgotten_below_the_horizon(void) {
    CHECK_EQ(memory_open(&memory, REGION_BYTES, false), 0);
    struct pending_table pendings = {.id_time = true};
    const uint64_t ms = 1700000000000;
    enum { COUNT = 1000 };
    uint32_t slots[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        struct transfer transfer = {.id = (uint128_t)(ms + i) << 80 | 1,
                                    .timestamp = ms * NS_PER_MS,
                                    .timeout = 1 + (i * 7919) % COUNT};
        CHECK_EQ(pending_reserve(&pendings, &memory, 1), 0);
        slots[i] = pending_insert(&pendings, &transfer, hash_transfer_id(transfer.id, 9));
    }
    CHECK_EQ(pendings.live_count, COUNT);
    CHECK_EQ(pending_due_ns(&pendings), ms * NS_PER_MS + NS_PER_SECOND);
    for (uint32_t i = 0; i < COUNT; i += 2)
        pending_resolve(&pendings, slots[i], PENDING_POSTED, (uint128_t)(ms + COUNT + i) << 80);
    uint64_t before = 0;
    while (pending_due_ns(&pendings) != UINT64_MAX) {
        const struct heap_entry *first = heap_first(&pendings.expiry);
        CHECK(first->key >= before);
        before = first->key;
        pending_resolve(&pendings, first->slot, PENDING_EXPIRED, 0);
    }
    CHECK_EQ(pendings.live_count, 0);
    /* Expired ones go by their own id, resolved ones by the later of both. */
    CHECK_EQ(pending_forget(&pendings, ms + COUNT, 9, UINT32_MAX), COUNT / 2);
    uint128_t id = (uint128_t)ms << 80 | 1;
    CHECK(pending_find(&pendings, id, hash_transfer_id(id, 9), ms + COUNT) == slots[0]);
    CHECK(pending_find(&pendings, id, hash_transfer_id(id, 9), ms + COUNT + 1) == INDEX_NONE);
    CHECK_EQ(pending_forget(&pendings, ms + 3 * COUNT, 9, UINT32_MAX), COUNT / 2);
    CHECK_EQ(pendings.index.count, 0);
    pending_release(&pendings, &memory);
    CHECK_EQ(memory.units_free, memory.unit_count);
    memory_close(&memory);
}

int main(void) {
    TEST_RUN(test_memory_gives_back_what_it_took);
    TEST_RUN(test_memory_runs_out_and_says_so);
    TEST_RUN(test_units_are_distinct_and_never_move);
    TEST_RUN(test_index_finds_all_and_nothing_else);
    TEST_RUN(test_index_survives_many_equal_tags);
    TEST_RUN(test_index_survives_one_tag_for_all);
    TEST_RUN(test_index_grows_in_bounded_steps_within_its_room);
    TEST_RUN(test_index_without_memory_keeps_what_it_has);
    TEST_RUN(test_partition_without_a_division_is_the_same);
    TEST_RUN(test_heap_gives_the_least_and_removes_any);
    TEST_RUN(test_ids_are_remembered_and_forgotten_by_slice);
    TEST_RUN(test_timestamps_out_of_order);
    TEST_RUN(test_ids_of_windows_are_exact);
    TEST_RUN(test_pendings_are_due_in_order_and_forgotten_below_the_horizon);
    return TEST_DONE();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "tests/unit/wal/wal_fixture.h"

/* Writing the log: groups, order, horizon, closing, files, faults. Every test ends with a recovery that is compared with
 * what was handed over. */

#define FILE_BYTES (256u << 10)

static struct fixture *fixture;

/** The end of most tests: drain, recover from scratch, and find everything. */
static int recovered_all(void) {
    int rc = fixture_drain(fixture);
    seq_t committed = fixture_committed(fixture);
    fixture_stop(fixture);
    if (rc == 0)
        rc = fixture_start(fixture);
    if (rc != 0)
        printf("recovery: %s\n", fixture->error);
    else if (fixture->replayed_seq != committed)
        rc = -ERANGE;
    return rc;
}

static void one_lane_commits_and_recovers(void) {
    fixture = fixture_new(1, FILE_BYTES, 1);
    CHECK_EQ(fixture_start(fixture), 0);
    CHECK_EQ(atomic_load(&fixture->board->open_group), 1);
    for (unsigned i = 0; i < 200; i++) {
        fixture_append(fixture, 0, 1 + i % 50);
        CHECK_EQ(fixture_commit(fixture), 0);
    }
    CHECK_EQ(recovered_all(), 0);
    CHECK(fixture->position.file_number > 1);
    CHECK_EQ(fixture->position.torn_bytes, 0);
    /* and goes on behind it, in the next term */
    fixture_append(fixture, 0, 3);
    CHECK_EQ(recovered_all(), 0);
    CHECK_EQ(fixture->position.term, 2);
    fixture_free(fixture);
}

static void three_lanes_random_turns(void) {
    fixture = fixture_new(3, FILE_BYTES, test_seed(2));
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t random = test_random(&fixture->random);
        struct disk_memory_faults *faults = disk_memory_faults(fixture->disk);
        faults->hold = random % 4 != 0;
        faults->reverse = random % 3 == 0;
        fixture_append(fixture, (unsigned)(random >> 8) % 3, (unsigned)(random >> 16) % 40);
        fixture_turn(fixture, (random >> 32) % 40000);
    }
    *disk_memory_faults(fixture->disk) = (struct disk_memory_faults){0};
    CHECK_EQ(fixture_commit(fixture), 0);
    CHECK_EQ(recovered_all(), 0);
    CHECK(fixture->replayed_records > 1000);
    fixture_free(fixture);
}

int main(void) {
    TEST_RUN(one_lane_commits_and_recovers);
    TEST_RUN(three_lanes_random_turns);
    return TEST_DONE();
}

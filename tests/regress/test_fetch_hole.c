/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "tests/unit/wal/wal_fixture.h"

/** A committed group whose write the disk reported and never made: reading one of its records back was answered `no such record`, and
 *  so a retry with other fields, or a lookup, with id_expired: the ledger denied a transfer that it had acknowledged. */

#define FILE_BYTES (256u << 10)

static int fetch(struct fixture *fixture, wal_place_t place) {
    static struct wal_fetch answer;
    if (wal_lane_fetch(&fixture->lanes[0], place, 1) != 0)
        return -EAGAIN;
    for (unsigned i = 0; i < 100; i++) {
        fixture_turn(fixture, 0);
        if (wal_lane_fetched(&fixture->lanes[0], &answer))
            return answer.status;
    }
    return -ETIMEDOUT;
}

static void a_group_that_is_not_there_is_damage(void) {
    struct fixture *fixture = fixture_new(1, FILE_BYTES, 7);
    uint64_t size;
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < 3; i++) {
        fixture_append(fixture, 0, 2);
        CHECK_EQ(fixture_commit(fixture), 0);
    }
    uint8_t *bytes = disk_memory_bytes(fixture->disk, 1, &size);
    memset(bytes + 2 * WAL_PAGE_BYTES, 0, size - 2 * WAL_PAGE_BYTES); /* all but the first group */
    CHECK_EQ(fetch(fixture, wal_place_make(3, 0, 0)), -EBADMSG);
    CHECK_EQ(fetch(fixture, wal_place_make(1, 0, 0)), 0);
    fixture_free(fixture);
}

int main(void) {
    TEST_RUN(a_group_that_is_not_there_is_damage);
    return TEST_DONE();
}

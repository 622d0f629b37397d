/* SPDX-License-Identifier: Apache-2.0 */
/* A page of zeros where a committed group should be (a write that the disk made elsewhere) was answered -ENOENT, as if the group had been
 * recycled, and a retry whose fields were wanted got `id_expired` though its id was in the window. */
#include <errno.h>

#include "tests/lib/test.h"
#include "tests/unit/wal/wal_fixture.h"

static void a_lost_group_is_damage(void) {
    struct fixture *fixture = fixture_new(1, 256u << 10, 1);
    struct wal_fetch answer;
    uint64_t size;
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < 3; i++) {
        fixture_append(fixture, 0, 5);
        CHECK_EQ(fixture_commit(fixture), 0);
    }
    uint8_t *bytes = disk_memory_bytes(fixture->disk, 1, &size);
    memset(bytes + 4 * WAL_PAGE_BYTES, 0, 2 * WAL_PAGE_BYTES); /* group 3 */
    CHECK_EQ(wal_lane_fetch(fixture->lanes, wal_place_make(3, 0, 0), 7), 0);
    bool answered = false;
    for (unsigned i = 0; i < 100 && !answered; i++) {
        fixture_turn(fixture, 0);
        answered = wal_lane_fetched(fixture->lanes, &answer);
    }
    CHECK(answered);
    CHECK_EQ(answer.status, -EBADMSG);
    fixture_free(fixture);
}

int main(void) {
    TEST_RUN(a_lost_group_is_damage);
    return TEST_DONE();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

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

static void hold(bool held) {
    *disk_memory_faults(fixture->disk) = (struct disk_memory_faults){.hold = held};
}

static seq_t open_group(void) {
    return atomic_load(&fixture->board->open_group);
}

static void k_groups_in_flight_commit_in_order(void) {
    fixture = fixture_new(1, FILE_BYTES, 3);
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < 4; i++)
        fixture_turn(fixture, 0); /* the second file ahead is made */
    hold(true);
    for (unsigned i = 0; i < 40; i++) {
        fixture_append(fixture, 0, 2);
        fixture_turn(fixture, 100000);
    }
    CHECK_EQ(disk_memory_pending(fixture->disk), 4); /* K, and no more */
    CHECK_EQ(open_group(), 5);
    CHECK_EQ(fixture_committed(fixture), 0);
    CHECK_EQ(wal_counters(fixture->wal)->writes_in_flight, 4);
    /* groups 2 and 4 are done first, then 1, then 3 */
    static const struct {
        unsigned release;
        seq_t committed;
    } steps[] = {{1, 0}, {2, 0}, {0, 2}, {0, 4}};
    for (unsigned i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        CHECK_EQ(disk_memory_release(fixture->disk, steps[i].release), 0);
        fixture_turn(fixture, 0);
        CHECK_EQ(fixture_committed(fixture), steps[i].committed);
    }
    hold(false);
    CHECK_EQ(recovered_all(), 0);
    fixture_free(fixture);
}

static void sealing_waits_for_size_or_time(void) {
    fixture = fixture_new(1, FILE_BYTES, 4);
    CHECK_EQ(fixture_start(fixture), 0);
    hold(true);
    fixture_append(fixture, 0, 1);
    fixture_turn(fixture, 0);
    CHECK_EQ(open_group(), 2); /* nothing in flight: at once */
    fixture_turn(fixture, 0);
    fixture_append(fixture, 0, 1);
    fixture_turn(fixture, 1000);
    fixture_turn(fixture, 30000);
    CHECK_EQ(open_group(), 2); /* one in flight, small and young */
    fixture_turn(fixture, 30000);
    CHECK_EQ(open_group(), 3); /* open for group_delay_ns */
    fixture_turn(fixture, 0);
    fixture_append(fixture, 0, 500);
    fixture_turn(fixture, 0);
    CHECK_EQ(open_group(), 4); /* at least group_bytes_wanted */
    hold(false);
    CHECK_EQ(recovered_all(), 0);
    fixture_free(fixture);
}

static void a_lane_that_has_not_handed_over_holds_the_next_group(void) {
    fixture = fixture_new(2, FILE_BYTES, 5);
    CHECK_EQ(fixture_start(fixture), 0);
    fixture_append(fixture, 0, 1);
    for (unsigned i = 0; i < 10; i++)
        wal_step(fixture->wal, fixture->now_ns += 100000);
    CHECK_EQ(open_group(), 2);
    CHECK_EQ(disk_memory_pending(fixture->disk), 0);
    CHECK_EQ(fixture_commit(fixture), 0);
    CHECK_EQ(recovered_all(), 0);
    fixture_free(fixture);
}

/** One closing group 1 ms after the last that was not empty, and then silence. */
static void idle_log_is_closed_once(void) {
    fixture = fixture_new(2, FILE_BYTES, 6);
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < 100; i++)
        fixture_turn(fixture, 1000000);
    CHECK_EQ(fixture_committed(fixture), 0); /* an empty log has nothing to prove */
    fixture_append(fixture, 0, 1);
    CHECK_EQ(fixture_commit(fixture), 0);
    for (unsigned i = 0; i < 90; i++)
        fixture_turn(fixture, 10000);
    CHECK_EQ(fixture_committed(fixture), 1);
    for (unsigned i = 0; i < 1000; i++)
        fixture_turn(fixture, 100000);
    CHECK_EQ(fixture_committed(fixture), 2);
    CHECK(wal_drained(fixture->wal, fixture->now_ns));
    CHECK_EQ(wal_counters(fixture->wal)->groups, 2);
    CHECK_EQ(wal_counters(fixture->wal)->records, 1);
    CHECK_EQ(recovered_all(), 0);
    CHECK_EQ(fixture->position.durable_seq, 1);
    fixture_free(fixture);
}

/** What comes while the closing group is in flight does not wait for company. */
static void closing_group_holds_nobody_up(void) {
    fixture = fixture_new(1, FILE_BYTES, 41);
    CHECK_EQ(fixture_start(fixture), 0);
    fixture_append(fixture, 0, 1);
    CHECK_EQ(fixture_commit(fixture), 0);
    hold(true);
    for (unsigned i = 0; i < 4; i++)
        fixture_turn(fixture, 1000000);
    CHECK_EQ(open_group(), 3);
    CHECK_EQ(disk_memory_pending(fixture->disk), 1);
    fixture_append(fixture, 0, 1);
    fixture_turn(fixture, 0);
    CHECK_EQ(open_group(), 4);
    hold(false);
    CHECK_EQ(recovered_all(), 0);
    fixture_free(fixture);
}

/** A reply that waits for a group has it sealed, empty as it is. */
static void wanted_group_is_sealed_empty(void) {
    fixture = fixture_new(2, FILE_BYTES, 7);
    CHECK_EQ(fixture_start(fixture), 0);
    atomic_store(&fixture->lanes[1].wanted_group, 1);
    for (unsigned i = 0; i < 4; i++)
        fixture_turn(fixture, 1000);
    CHECK_EQ(fixture_committed(fixture), 1);
    CHECK(
        !wal_drained(fixture->wal,
                     fixture->now_ns)); /* somebody waited for it, so it is proven like any other */
    CHECK_EQ(recovered_all(), 0);
    CHECK_EQ(fixture->position.seq, 2);
    fixture_free(fixture);
}

/** Lanes that have stopped turning do not keep the log from closing. */
static void drains_with_silent_lanes(void) {
    fixture = fixture_new(3, FILE_BYTES, 8);
    CHECK_EQ(fixture_start(fixture), 0);
    fixture_append(fixture, 1, 5);
    CHECK_EQ(fixture_commit(fixture), 0);
    unsigned turns = 0;
    for (; !wal_drained(fixture->wal, fixture->now_ns) && turns < 1000; turns++)
        wal_step(fixture->wal, fixture->now_ns += 100000);
    CHECK(turns > 99 && turns < 200);
    CHECK_EQ(fixture_committed(fixture), 2);
    fixture_turn(fixture, 1000); /* a late, empty hand-over changes nothing */
    CHECK_EQ(recovered_all(), 0);
    fixture_free(fixture);
}

static void horizon_follows_cell_time(void) {
    static const struct {
        uint64_t cell_ms, wanted_ms, horizon_ms;
    } steps[] = {
        {1000, 0, 0},              /* before an hour has passed */
        {3600000 + 5000, 0, 5000}, /* an hour back */
        {3600000 + 4000, 0, 5000}, /* never falls */
        {3600000 + 5000, 1000000, 1000000},
        {3600000 + 5000, 3600000, 3600000 + 5000 - 60000}, /* never nearer than a minute */
        {3600000 + 6000, 0, 3600000 + 5000 - 60000},
    };
    fixture = fixture_new(1, FILE_BYTES, 9);
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        fixture_append(fixture, 0, 1);
        atomic_store(&fixture->lanes[0].cell_time, steps[i].cell_ms * 1000000);
        atomic_store(&fixture->lanes[0].horizon_wanted_ms, steps[i].wanted_ms);
        CHECK_EQ(fixture_commit(fixture), 0);
        CHECK_EQ(atomic_load(&fixture->board->horizon_ms[open_group() % WAL_HORIZONS]),
                 steps[i].horizon_ms);
    }
    uint64_t last = atomic_load(&fixture->board->horizon_ms[open_group() % WAL_HORIZONS]);
    CHECK_EQ(recovered_all(), 0);
    CHECK_EQ(fixture->position.horizon_ms, last);
    CHECK(atomic_load(&fixture->board->horizon_ms[open_group() % WAL_HORIZONS]) >= last);
    fixture_free(fixture);
}

static void no_horizon_without_id_time(void) {
    fixture = fixture_new(1, FILE_BYTES, 10);
    fixture->config.identity.id_time = 0;
    CHECK_EQ(fixture_start(fixture), 0);
    fixture_append(fixture, 0, 1);
    atomic_store(&fixture->lanes[0].cell_time, UINT64_MAX / 2);
    CHECK_EQ(fixture_commit(fixture), 0);
    CHECK_EQ(atomic_load(&fixture->board->horizon_ms[open_group() % WAL_HORIZONS]), 0);
    fixture_free(fixture);
}

/** After a failure nothing more is acknowledged, the message says what and where, and what was acknowledged is there. */
static void failures_stop_the_log(void) {
    static const struct {
        struct disk_memory_faults faults;
        int rc;
        const char *words;
    } cases[] = {
        {{.fail_write_at = 1, .fail_write_errno = EIO}, -EIO, "writing group"},
        {{.fail_write_at = 7, .fail_write_errno = ENOSPC}, -ENOSPC, "No space left"},
        {{.fail_write_at = 3}, -EIO, "short write"},
        {{.capacity_bytes = 4 * FILE_BYTES}, -ENOSPC, "there is no place for group"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        fixture = fixture_new(2, FILE_BYTES, 11 + i);
        CHECK_EQ(fixture_start(fixture), 0);
        fixture_append(fixture, 0, 10);
        CHECK_EQ(fixture_commit(fixture), 0);
        *disk_memory_faults(fixture->disk) = cases[i].faults;
        for (unsigned turn = 0; turn < 3000; turn++) {
            fixture_append(fixture, turn % 2, 20);
            fixture_turn(fixture, 10000);
        }
        CHECK_EQ(atomic_load(&fixture->board->failed), cases[i].rc);
        CHECK(strstr(wal_error(fixture->wal), cases[i].words) != NULL);
        CHECK(strstr(wal_error(fixture->wal), "memory:0000") != NULL);
        CHECK_EQ(wal_step(fixture->wal, fixture->now_ns), 0);
        CHECK(!wal_drained(fixture->wal, fixture->now_ns));
        seq_t committed = fixture_committed(fixture);
        disk_memory_crash(fixture->disk, NULL, NULL);
        fixture_stop(fixture);
        disk_memory_restart(fixture->disk);
        disk_memory_faults(fixture->disk)->capacity_bytes = 0;
        CHECK_EQ(fixture_start(fixture), 0);
        CHECK(fixture->replayed_seq >= committed);
        fixture_append(fixture, 0, 10);
        CHECK_EQ(recovered_all(), 0);
        fixture_free(fixture);
    }
}

static void log_for_turns(unsigned turns) {
    for (unsigned turn = 0; turn < turns; turn++) {
        fixture_append(fixture, turn % 2, 20);
        fixture_turn(fixture, 10000);
    }
}

/** A file that cannot be made stops nobody while there is place, and is tried again. */
static void full_disk_is_survived(void) {
    fixture = fixture_new(2, FILE_BYTES, 61);
    CHECK_EQ(fixture_start(fixture), 0);
    fixture_append(fixture, 0, 10);
    CHECK_EQ(fixture_commit(fixture), 0);
    disk_memory_faults(fixture->disk)->fail_create_at = 1;
    log_for_turns(400);
    CHECK_EQ(atomic_load(&fixture->board->failed), 0);

    /* the files that stand are filled to the last group that fits, though another is not to be had */
    uint64_t files[64];
    int stand = fixture->disk->list(fixture->disk, DISK_LOG, files, 64);
    CHECK(stand > 3 && stand < 64);
    disk_memory_faults(fixture->disk)->capacity_bytes = (uint64_t)stand * FILE_BYTES;
    for (unsigned turn = 0; turn < 10000 && !atomic_load(&fixture->board->failed); turn++)
        log_for_turns(1);
    CHECK_EQ(atomic_load(&fixture->board->failed), -ENOSPC);
    CHECK_EQ(fixture->disk->list(fixture->disk, DISK_LOG, files, 64), stand);
    seq_t committed = fixture_committed(fixture);
    fixture_stop(fixture);
    CHECK_EQ(fixture_start(fixture), 0); /* the file behind the written one is there */
    CHECK(fixture->replayed_seq >= committed);
    CHECK_EQ(fixture->position.file_number, (uint64_t)stand - 1);
    disk_memory_faults(fixture->disk)->capacity_bytes = 0;
    log_for_turns(400);
    CHECK_EQ(recovered_all(), 0);
    fixture_free(fixture);
}

static void group_larger_than_a_file(void) {
    fixture = fixture_new(1, 32768, 17);
    CHECK_EQ(fixture_start(fixture), 0);
    fixture_append(fixture, 0, 600);
    CHECK_EQ(fixture_commit(fixture), -EFBIG);
    CHECK(strstr(wal_error(fixture->wal), "larger files") != NULL);
    fixture_free(fixture);
}

static void open_refuses_nonsense(void) {
    fixture = fixture_new(1, FILE_BYTES, 18);
    CHECK_EQ(fixture_start(fixture), 0);
    fixture_append(fixture, 0, 1);
    CHECK_EQ(fixture_drain(fixture), 0);
    fixture_stop(fixture);
    fixture->config.file_bytes = 2 * FILE_BYTES;
    CHECK_EQ(fixture_start(fixture), -EINVAL);
    CHECK(strstr(fixture->error, "should have") != NULL);
    fixture->config.file_bytes = 5000;
    CHECK_EQ(fixture_start(fixture), -EINVAL);
    fixture->config.file_bytes = FILE_BYTES;
    fixture->config.groups_in_flight = WAL_GROUPS_IN_FLIGHT_MAX + 1;
    CHECK_EQ(fixture_start(fixture), -EINVAL);
    fixture->config.groups_in_flight = 8;
    fixture->config.identity.cell_id[0] ^= 1;
    CHECK_EQ(fixture_start(fixture), -EPERM);
    fixture_free(fixture);
    fixture = fixture_new(1, FILE_BYTES, 18);
    disk_memory_faults(fixture->disk)->capacity_bytes = FILE_BYTES;
    CHECK_EQ(fixture_start(fixture), -ENOSPC);
    CHECK(strstr(fixture->error, "making the log file") != NULL);
    fixture_free(fixture);
}

/* --- threads ------------------------------------------------------------------------------------------------------- */

#define THREAD_TURNS 1500u

static atomic_uint threads_running, thread_fetches, thread_errors;

/** An lcore of its own: appends, seals, asks for records that it logged, and compares them. */
static void *lane_main(void *argument) {
    const unsigned lane = (unsigned)(uintptr_t)argument;
    struct wal_fetch answer;
    for (unsigned turn = 0; turn < THREAD_TURNS; turn++) {
        fixture_append(fixture, lane, (turn * 7 + lane) % 40);
        fixture_seal(fixture, lane);
        if (turn % 16 == 0 && fixture->open[lane] > 1) {
            seq_t seq = 1 + turn % (fixture->open[lane] - 1);
            if (fixture->groups[seq].length[lane] != 0 &&
                wal_lane_fetch(&fixture->lanes[lane], wal_place_make(seq, lane, 0), seq) != 0)
                atomic_fetch_add(&thread_errors, 1);
        }
        while (wal_lane_fetched(&fixture->lanes[lane], &answer)) {
            atomic_fetch_add(&thread_fetches, 1);
            if (answer.status != 0 ||
                memcmp(answer.record, fixture->groups[answer.cookie].bytes[lane], answer.length) !=
                    0)
                atomic_fetch_add(&thread_errors, 1);
        }
        sched_yield();
    }
    atomic_fetch_sub(&threads_running, 1);
    /* goes on handing over until all are done, as an lcore does */
    while (atomic_load(&threads_running) != 0) {
        fixture_seal(fixture, lane);
        sched_yield();
    }
    return NULL;
}

static void lanes_on_their_own_threads(void) {
    pthread_t threads[2];
    fixture = fixture_new(2, FILE_BYTES, 40);
    CHECK_EQ(fixture_start(fixture), 0);
    atomic_store(&threads_running, 2);
    for (unsigned lane = 0; lane < 2; lane++)
        CHECK_EQ(pthread_create(&threads[lane], NULL, lane_main, (void *)(uintptr_t)lane), 0);
    while (atomic_load(&threads_running) != 0) {
        if (wal_step(fixture->wal, fixture->now_ns += 1000) == 0)
            sched_yield();
    }
    for (unsigned lane = 0; lane < 2; lane++)
        pthread_join(threads[lane], NULL);
    CHECK_EQ(atomic_load(&thread_errors), 0);
    CHECK(atomic_load(&thread_fetches) > 0);
    CHECK_EQ(recovered_all(), 0);
    CHECK(fixture->position.seq < FIXTURE_GROUPS_MAX);
    fixture_free(fixture);
}

/* --- power cuts ---------------------------------------------------------------------------------------------------- */

static bool keep_some(void *context, uint64_t file, uint64_t sector) {
    uint64_t *random = context;
    (void)file;
    (void)sector;
    return test_random(random) % 16 >= (*random >> 60);
}

/** Of each file all or nothing: what was written into the next one may have arrived alone. */
static bool keep_some_files(void *context, uint64_t file, uint64_t sector) {
    const uint64_t *random = context;
    (void)sector;
    return *random >> file % 64 & 1;
}

/** Whatever reached the disk of the writes in flight: all that was committed is there, and the log goes on. */
static void cut_power(bool (*keep)(void *context, uint64_t file, uint64_t sector),
                      uint64_t torn_at_least) {
    uint64_t random = test_seed(33), torn = 0;
    fixture = fixture_new(2, FILE_BYTES, random);
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned cut = 0; cut < 200; cut++) {
        for (unsigned turns = (unsigned)test_random(&random) % 60; turns > 0; turns--) {
            disk_memory_faults(fixture->disk)->hold = test_random(&random) % 8 != 0;
            disk_memory_faults(fixture->disk)->reverse = test_random(&random) % 2 != 0;
            fixture_append(fixture, (unsigned)test_random(&random) % 2,
                           (unsigned)test_random(&random) % 60);
            fixture_turn(fixture, test_random(&random) % 300000);
        }
        seq_t committed = fixture_committed(fixture);
        disk_memory_crash(fixture->disk, keep, &random);
        fixture_stop(fixture);
        disk_memory_restart(fixture->disk);
        int rc = fixture_start(fixture);
        if (rc != 0)
            printf("cut %u: %s\n", cut, fixture->error);
        CHECK_EQ(rc, 0);
        CHECK(fixture->replayed_seq >= committed);
        torn += fixture->position.torn_bytes != 0;
        CHECK(fixture->position.seq < FIXTURE_GROUPS_MAX - 200);
    }
    CHECK(torn >= torn_at_least);
    CHECK_EQ(recovered_all(), 0);
    fixture_free(fixture);
}

static void power_cuts(void) {
    cut_power(keep_some, 25);
}

static void power_cuts_between_files(void) {
    cut_power(keep_some_files, 1);
}

int main(void) {
    TEST_RUN(one_lane_commits_and_recovers);
    TEST_RUN(three_lanes_random_turns);
    TEST_RUN(k_groups_in_flight_commit_in_order);
    TEST_RUN(sealing_waits_for_size_or_time);
    TEST_RUN(a_lane_that_has_not_handed_over_holds_the_next_group);
    TEST_RUN(idle_log_is_closed_once);
    TEST_RUN(closing_group_holds_nobody_up);
    TEST_RUN(wanted_group_is_sealed_empty);
    TEST_RUN(drains_with_silent_lanes);
    TEST_RUN(horizon_follows_cell_time);
    TEST_RUN(no_horizon_without_id_time);
    TEST_RUN(failures_stop_the_log);
    TEST_RUN(full_disk_is_survived);
    TEST_RUN(group_larger_than_a_file);
    TEST_RUN(open_refuses_nonsense);
    TEST_RUN(lanes_on_their_own_threads);
    TEST_RUN(power_cuts);
    TEST_RUN(power_cuts_between_files);
    return TEST_DONE();
}

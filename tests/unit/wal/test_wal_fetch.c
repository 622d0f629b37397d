/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "tests/unit/wal/wal_fixture.h"
#include "wal/wal_internal.h"

/* Records read back: what is answered, which reads are shared, and which must not be. */

#define FILE_BYTES (256u << 10)

static struct fixture *fixture;

/** Drain, close and open: nothing that was read before is in memory any more. */
static int reopened(void) {
    int rc = fixture_drain(fixture);
    fixture_stop(fixture);
    return rc == 0 ? fixture_start(fixture) : rc;
}

/** Ask for one record and turn until it is answered. @return its status, -ETIMEDOUT */
static int fetch(unsigned lane, wal_place_t place, struct wal_fetch *answer) {
    static uint64_t cookie;
    if (wal_lane_fetch(&fixture->lanes[lane], place, ++cookie) != 0)
        return -EAGAIN;
    for (unsigned i = 0; i < 100; i++) {
        fixture_turn(fixture, 0);
        if (wal_lane_fetched(&fixture->lanes[lane], answer))
            return answer->cookie == cookie && answer->place == place ? answer->status : -EILSEQ;
    }
    return -ETIMEDOUT;
}

/** Every record of the whole log. @return 0, or what the first bad answer was */
static int fetch_all(void) {
    struct wal_fetch answer;
    for (seq_t seq = 1; seq <= fixture_committed(fixture); seq++) {
        for (unsigned lane = 0; lane < fixture->lane_count; lane++) {
            const struct fixture_group *group = &fixture->groups[seq];
            for (uint32_t at = 0; at < group->length[lane]; at += answer.length) {
                int rc = fetch((unsigned)seq % fixture->lane_count, wal_place_make(seq, lane, at),
                               &answer);
                if (rc != 0)
                    return rc;
                if (answer.length == 0 ||
                    memcmp(answer.record, group->bytes[lane] + at, answer.length) != 0)
                    return -EILSEQ;
            }
        }
    }
    return 0;
}

static void fetches_find_every_record(void) {
    fixture = fixture_new(2, FILE_BYTES, 30);
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < 60; i++) {
        fixture_append(fixture, 0, 1 + (i * i) % 300);
        fixture_append(fixture, 1, i % 3 * 100);
        CHECK_EQ(fixture_commit(fixture), 0);
    }
    CHECK_EQ(fetch_all(), 0);
    CHECK_EQ(reopened(), 0);
    CHECK_EQ(fetch_all(), 0); /* with the index that recovery made */
    fixture_stop(fixture);
    CHECK_EQ(fixture_recover(fixture, fixture->disk, &fixture->position), 0);
    wal_position_release(&fixture->position);
    fixture->config.position = fixture->position;
    memset(fixture->lanes, 0, 2 * sizeof(*fixture->lanes));
    CHECK_EQ(wal_open(&fixture->config, &fixture->wal, fixture->error, sizeof(fixture->error)), 0);
    fixture->open[0] = fixture->open[1] = atomic_load(&fixture->board->open_group);
    CHECK_EQ(fetch_all(), 0); /* and with none at all */
    fixture_free(fixture);
}

static void fetches_answer_what_is_wrong(void) {
    struct wal_fetch answer;
    uint64_t size;
    fixture = fixture_new(2, FILE_BYTES, 31);
    CHECK_EQ(fixture_start(fixture), 0);
    fixture_append(fixture, 0, 100);
    CHECK_EQ(fixture_commit(fixture), 0);
    fixture_append(fixture, 0, 800); /* a segment that does not fit one read */
    CHECK_EQ(fixture_commit(fixture), 0);
    CHECK_EQ(fetch(0, wal_place_make(1, 0, fixture->groups[1].length[0]), &answer), -ENOENT);
    CHECK_EQ(fetch(0, wal_place_make(1, 1, 0), &answer), -ENOENT);
    CHECK_EQ(fetch(0, wal_place_make(1, 5, 0), &answer), -ENOENT);
    CHECK_EQ(fetch(0, wal_place_make(0, 0, 0), &answer), -ENOENT);
    CHECK_EQ(fetch(0, wal_place_make(12345, 0, 0), &answer), -ENOENT);
    CHECK_EQ(fetch(0, wal_place_make(2, 0, 16), &answer), -EBADMSG); /* not where a record begins */
    CHECK_EQ(reopened(), 0);                                         /* nothing is in memory */
    disk_memory_faults(fixture->disk)->fail_read_at = 1;
    CHECK_EQ(fetch(0, wal_place_make(1, 0, 0), &answer), -EIO);
    CHECK_EQ(fetch(0, wal_place_make(1, 0, 0), &answer), 0);
    CHECK_EQ(reopened(), 0);
    uint8_t *bytes = disk_memory_bytes(fixture->disk, 1, &size);
    bytes[4096 + 90] ^= 1;
    CHECK_EQ(fetch(0, wal_place_make(1, 0, 0), &answer), -EBADMSG);
    bytes[4096 + 90] ^= 1;
    bytes[100] ^= 1;
    CHECK_EQ(fetch(0, wal_place_make(1, 0, 0), &answer), -EBADMSG);
    bytes[100] ^= 1;
    CHECK_EQ(atomic_load(&fixture->board->failed), 0);
    fixture_free(fixture);
}

/** A fetch of a group that is not durable yet waits for it, and the ring holds all that may be on their way. */
static void fetches_wait_and_are_bounded(void) {
    struct wal_fetch answer;
    fixture = fixture_new(1, FILE_BYTES, 32);
    CHECK_EQ(fixture_start(fixture), 0);
    disk_memory_faults(fixture->disk)->hold = true;
    fixture_append(fixture, 0, 3);
    CHECK_EQ(wal_lane_fetch(&fixture->lanes[0], wal_place_make(1, 0, 0), 1), 0);
    for (unsigned i = 0; i < 10; i++)
        fixture_turn(fixture, 1000);
    CHECK_EQ(wal_lane_fetched(&fixture->lanes[0], &answer), 0);
    disk_memory_faults(fixture->disk)->hold = false;
    for (unsigned i = 0; i < 10; i++)
        fixture_turn(fixture, 1000);
    CHECK_EQ(wal_lane_fetched(&fixture->lanes[0], &answer), 1);
    CHECK_EQ(answer.status, 0);
    for (unsigned i = 0; i < WAL_FETCHES_MAX; i++)
        CHECK_EQ(wal_lane_fetch(&fixture->lanes[0], wal_place_make(1, 0, 0), i), 0);
    CHECK_EQ(wal_lane_fetch(&fixture->lanes[0], wal_place_make(1, 0, 0), 9), -EAGAIN);
    for (unsigned i = 0; i < 1000; i++)
        fixture_turn(fixture, 0);
    CHECK_EQ(wal_lane_fetch(&fixture->lanes[0], wal_place_make(1, 0, 0), 9),
             -EAGAIN); /* answered, not taken */
    for (unsigned i = 0; i < WAL_FETCHES_MAX; i++) {
        CHECK_EQ(wal_lane_fetched(&fixture->lanes[0], &answer), 1);
        CHECK_EQ(answer.status, 0);
    }
    CHECK_EQ(wal_lane_fetch(&fixture->lanes[0], wal_place_make(1, 0, 0), 9), 0);
    fixture_free(fixture);
}

/* --- shared reads -------------------------------------------------------------------------------------------------- */

#define READS_FAR 1000000u /**< a countdown that never ends counts the reads */

static void count_reads(void) {
    disk_memory_faults(fixture->disk)->fail_read_at = READS_FAR;
}

static unsigned reads_counted(void) {
    return (unsigned)(READS_FAR - disk_memory_faults(fixture->disk)->fail_read_at);
}

static void hold(bool held) {
    disk_memory_faults(fixture->disk)->hold = held;
}

static void turns(unsigned count) {
    for (unsigned i = 0; i < count; i++)
        fixture_turn(fixture, 0);
}

static int append_and_commit(unsigned lane, unsigned records) {
    fixture_append(fixture, lane, records);
    return fixture_commit(fixture);
}

/** Ask for the first record of a lane's part of a group; the group is the cookie. */
static int ask(seq_t seq, unsigned lane) {
    return wal_lane_fetch(&fixture->lanes[lane], wal_place_make(seq, lane, 0), seq);
}

/** Take all answers of a lane. @return how many have the status and, where it is 0, the right record; -1: one has not */
static int answers(unsigned lane, int status) {
    struct wal_fetch answer;
    int right = 0;
    while (wal_lane_fetched(&fixture->lanes[lane], &answer)) {
        const struct fixture_group *group = &fixture->groups[answer.cookie];
        if (answer.status != status)
            return -1;
        if (status == 0 && (answer.length == 0 || answer.length > group->length[lane] ||
                            memcmp(answer.record, group->bytes[lane], answer.length) != 0))
            return -1;
        right++;
    }
    return right;
}

/** Neighbours share one read, those that come while it is on its way and those that come later. */
static void neighbours_share_a_read(void) {
    fixture = fixture_new(2, FILE_BYTES, 50);
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(append_and_commit(0, 40), 0);
    count_reads();
    hold(true);
    for (unsigned i = 0; i < 100; i++)
        CHECK_EQ(ask(1 + i % 4, 0), 0);
    turns(5);
    CHECK_EQ(reads_counted(), 1);
    CHECK_EQ(answers(0, 0), 0);
    hold(false);
    turns(5);
    CHECK_EQ(answers(0, 0), 100);
    for (unsigned i = 0; i < 100; i++)
        CHECK_EQ(ask(1 + i % 4, 0), 0);
    turns(5);
    CHECK_EQ(answers(0, 0), 100);
    CHECK_EQ(reads_counted(), 1);
    fixture_free(fixture);
}

/** A segment that no read holds whole: one read for the header and what follows it, one for the record that its end
 *  cuts, one for the rest. */
static void long_segment_is_read_in_pieces(void) {
    struct wal_fetch answer;
    unsigned records = 0;
    fixture = fixture_new(1, FILE_BYTES, 51);
    CHECK_EQ(fixture_start(fixture), 0);
    CHECK_EQ(append_and_commit(0, 10), 0);
    CHECK_EQ(append_and_commit(0, 2000), 0);
    const struct fixture_group *group = &fixture->groups[2];
    CHECK(group->length[0] > FIXTURE_SEGMENT_BYTES - 2 * WAL_RECORD_BYTES_MAX);
    count_reads();
    for (uint32_t at = 0; at < group->length[0]; at += answer.length, records++) {
        CHECK_EQ(fetch(0, wal_place_make(2, 0, at), &answer), 0);
        CHECK(memcmp(answer.record, group->bytes[0] + at, answer.length) == 0);
    }
    CHECK(records > 500);
    CHECK_EQ(reads_counted(), 3);
    fixture_free(fixture);
}

/** A turn's work is bounded, also where everything is in memory. */
static void turns_answer_so_many(void) {
    static const int wanted[] = {WAL_FETCHES_A_TURN, WAL_FETCHES_A_TURN, 8, 0};
    fixture = fixture_new(1, FILE_BYTES, 52);
    CHECK_EQ(fixture_start(fixture), 0);
    CHECK_EQ(append_and_commit(0, 1), 0);
    CHECK_EQ(ask(1, 0), 0);
    turns(3);
    CHECK_EQ(answers(0, 0), 1);
    for (unsigned i = 0; i < 2 * WAL_FETCHES_A_TURN + 8; i++)
        CHECK_EQ(ask(1, 0), 0);
    for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        turns(1);
        CHECK_EQ(answers(0, 0), wanted[i]);
    }
    fixture_free(fixture);
}

/** The window with the end of the log is good for what was committed when it was read, and for nothing later. */
static void growing_end_is_read_anew(void) {
    fixture = fixture_new(1, FILE_BYTES, 53);
    CHECK_EQ(fixture_start(fixture), 0);
    count_reads();
    for (seq_t seq = 1; seq <= 5; seq++) {
        CHECK_EQ(append_and_commit(0, 5), 0);
        for (seq_t asked = 1; asked <= seq; asked++)
            CHECK_EQ(ask(asked, 0), 0);
        turns(5);
        CHECK_EQ(answers(0, 0), (int)seq);
        CHECK(reads_counted() >= seq && reads_counted() <= 2 * seq);
    }
    unsigned reads = reads_counted();
    for (seq_t asked = 1; asked <= 5; asked++)
        CHECK_EQ(ask(asked, 0), 0);
    turns(5);
    CHECK_EQ(answers(0, 0), 5);
    CHECK_EQ(reads_counted(), reads);
    fixture_free(fixture);
}

/** A group that commits while its window is being read gets a read of its own; here that one is done first. */
static void commit_during_a_read(void) {
    fixture = fixture_new(1, FILE_BYTES, 54);
    CHECK_EQ(fixture_start(fixture), 0);
    CHECK_EQ(append_and_commit(0, 5), 0);
    count_reads();
    hold(true);
    CHECK_EQ(ask(1, 0), 0);
    turns(3);
    CHECK_EQ(disk_memory_pending(fixture->disk), 1); /* the read */
    fixture_append(fixture, 0, 5);
    CHECK_EQ(ask(2, 0), 0);
    turns(5);
    CHECK_EQ(disk_memory_pending(fixture->disk), 2); /* and the write of group 2 */
    CHECK_EQ(disk_memory_release(fixture->disk, 1), 0);
    turns(3);
    CHECK_EQ(fixture_committed(fixture), 2);
    CHECK_EQ(ask(1, 0), 0);
    turns(3);
    CHECK_EQ(reads_counted(), 2);
    CHECK_EQ(disk_memory_pending(fixture->disk), 2); /* both reads */
    CHECK_EQ(disk_memory_release(fixture->disk, 1), 0);
    turns(3);
    struct wal_fetch answer;
    CHECK_EQ(wal_lane_fetched(&fixture->lanes[0], &answer), 1);
    CHECK_EQ(answer.cookie, 2);
    CHECK_EQ(answer.status, 0);
    hold(false);
    turns(3);
    CHECK_EQ(answers(0, 0), 2);
    CHECK_EQ(reads_counted(), 2);
    fixture_free(fixture);
}

/* --- what goes wrong in a shared window ---------------------------------------------------------------------------- */

/** Every header and every segment is checked, though others in the window were good; and damage is not remembered. */
static void damage_beside_the_good_is_found(void) {
    uint64_t size;
    fixture = fixture_new(2, FILE_BYTES, 60);
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < 3; i++) {
        fixture_append(fixture, 0, 5);
        CHECK_EQ(append_and_commit(1, 5), 0);
        CHECK_EQ(fixture_committed(fixture), 1 + i);
    }
    uint8_t *bytes = disk_memory_bytes(fixture->disk, 1, &size);
    uint8_t *segment = bytes + 2 * WAL_PAGE_BYTES + 40; /* group 1, lane 1 */
    uint8_t *header = bytes + 3 * WAL_PAGE_BYTES + 100; /* group 2 */
    *segment ^= 1;
    *header ^= 1;
    count_reads();
    hold(true);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(ask(1, 0), 0);
        CHECK_EQ(ask(1, 1), 0);
    }
    turns(3);
    hold(false);
    turns(3);
    CHECK_EQ(answers(0, 0), 3);
    CHECK_EQ(answers(1, -EBADMSG), 3);
    CHECK_EQ(reads_counted(), 1);
    CHECK_EQ(ask(1, 0), 0);
    turns(3);
    CHECK_EQ(answers(0, 0), 1);
    CHECK_EQ(reads_counted(), 2); /* the damaged window was not used again */
    CHECK_EQ(ask(2, 0), 0);
    CHECK_EQ(ask(3, 1), 0);
    turns(5);
    CHECK_EQ(answers(0, -EBADMSG), 1);
    CHECK_EQ(answers(1, -EBADMSG), 1);
    *segment ^= 1;
    *header ^= 1;
    for (seq_t seq = 1; seq <= 3; seq++)
        CHECK_EQ(ask(seq, 1), 0);
    turns(5);
    CHECK_EQ(answers(1, 0), 3);
    fixture_free(fixture);
}

static int refuse_with; /**< what a read's submission answers; 0: it is handed on */
static int (*memory_submit)(struct disk *disk, struct disk_io *io);

static int refusing_submit(struct disk *disk, struct disk_io *io) {
    return refuse_with != 0 && io->operation == DISK_READ ? refuse_with : memory_submit(disk, io);
}

/** All that wait for a read share its end, and the next fetch tries again. */
static void failed_reads_answer_all_that_wait(void) {
    fixture = fixture_new(1, FILE_BYTES, 61);
    CHECK_EQ(fixture_start(fixture), 0);
    CHECK_EQ(append_and_commit(0, 5), 0);
    disk_memory_faults(fixture->disk)->fail_read_at = 1;
    hold(true);
    for (unsigned i = 0; i < 100; i++)
        CHECK_EQ(ask(1, 0), 0);
    turns(3);
    hold(false);
    count_reads();
    turns(1);
    CHECK_EQ(answers(0, -EIO), WAL_FETCHES_A_TURN);
    turns(3);
    CHECK_EQ(answers(0, 0), 100 - WAL_FETCHES_A_TURN); /* had not joined the read */
    CHECK_EQ(reads_counted(), 1);

    CHECK_EQ(append_and_commit(0, 5), 0);
    memory_submit = fixture->disk->submit;
    fixture->disk->submit = refusing_submit;
    refuse_with = -EIO;
    CHECK_EQ(ask(2, 0), 0);
    turns(1);
    CHECK_EQ(answers(0, -EIO), 1);
    refuse_with = -EAGAIN; /* the disk's queue is full */
    for (unsigned i = 0; i < 10; i++)
        CHECK_EQ(ask(2, 0), 0);
    turns(5);
    CHECK_EQ(answers(0, 0), 0);
    refuse_with = 0;
    turns(3);
    CHECK_EQ(answers(0, 0), 10);
    CHECK_EQ(reads_counted(), 2);
    fixture->disk->submit = memory_submit;
    fixture_free(fixture);
}

/* --- many windows -------------------------------------------------------------------------------------------------- */

/** Groups of which each lies in a window of its own, or with one other. */
static int long_groups(unsigned count) {
    int rc = fixture_start(fixture);
    for (unsigned i = 0; i < count && rc == 0; i++)
        rc = append_and_commit(0, 500);
    turns(3);
    return rc;
}

/** More windows than there are buffers: so many reads at a time, whatever their order, and every fetch is answered.
 *  What was checked of a buffer's window says nothing about the next one in it. */
static void more_windows_than_buffers(void) {
    uint64_t size;
    fixture = fixture_new(1, FILE_BYTES, 62);
    CHECK_EQ(long_groups(60), 0);
    disk_memory_bytes(fixture->disk, 1, &size)[WAL_PAGE_BYTES + 40] ^= 1; /* group 1 */
    hold(true);
    for (seq_t seq = 60; seq >= 2; seq--)
        CHECK_EQ(ask(seq, 0), 0);
    turns(5);
    CHECK_EQ(disk_memory_pending(fixture->disk), WAL_FETCH_SLOTS);
    int right = 0;
    for (unsigned i = 0; i < 200 && right < 59; i++) {
        unsigned pending = disk_memory_pending(fixture->disk);
        CHECK(pending <= WAL_FETCH_SLOTS);
        if (pending != 0)
            CHECK_EQ(disk_memory_release(fixture->disk, (i * 7) % pending), 0);
        turns(1);
        int more = answers(0, 0);
        CHECK(more >= 0);
        right += more;
    }
    CHECK_EQ(right, 59);
    hold(false);
    CHECK_EQ(ask(1, 0), 0);
    turns(3);
    CHECK_EQ(answers(0, -EBADMSG), 1);
    fixture_free(fixture);
}

/** A window that was read stays until all that waited for it had it, though others wait for a buffer. */
static void windows_wait_for_their_fetches(void) {
    fixture = fixture_new(1, FILE_BYTES, 64);
    CHECK_EQ(long_groups(60), 0);
    hold(true);
    for (seq_t seq = 60; seq >= 2; seq -= 2) /* more than there are buffers */
        CHECK_EQ(ask(seq, 0), 0);
    CHECK_EQ(ask(60, 0), 0);
    turns(2);
    CHECK_EQ(disk_memory_pending(fixture->disk), WAL_FETCH_SLOTS);
    CHECK_EQ(disk_memory_release(fixture->disk, 0), 0);
    turns(1);
    CHECK_EQ(answers(0, 0), 2);
    CHECK_EQ(disk_memory_pending(fixture->disk), WAL_FETCH_SLOTS - 1);
    turns(1);
    CHECK_EQ(disk_memory_pending(fixture->disk), WAL_FETCH_SLOTS);
    hold(false);
    turns(10);
    CHECK_EQ(answers(0, 0), 29);
    fixture_free(fixture);
}

/** Random lengths, hand-overs, asks and completions: every answer is the record that was logged. */
static void random_fetches_while_the_log_grows(void) {
    unsigned asked = 0, answered = 0;
    fixture = fixture_new(2, FILE_BYTES, test_seed(63));
    CHECK_EQ(fixture_start(fixture), 0);
    count_reads();
    for (unsigned i = 0; i < 6000; i++) {
        uint64_t random = test_random(&fixture->random);
        unsigned lane = (unsigned)random % 2;
        hold(random >> 1 & 1);
        disk_memory_faults(fixture->disk)->reverse = random >> 2 & 1;
        if ((random >> 3) % 4 == 0)
            fixture_append(fixture, lane,
                           (unsigned)(random >> 8) % ((random >> 16) % 8 ? 20 : 600));
        seq_t newest = fixture->open[lane] - 1;
        for (unsigned more = (unsigned)(random >> 20) % 12; more > 0 && newest != 0; more--) {
            uint64_t back = test_random(&fixture->random) % (more % 3 ? 8 : 400);
            seq_t seq = back < newest ? newest - back : 1;
            if (fixture->groups[seq].length[lane] != 0 && ask(seq, lane) == 0)
                asked++;
        }
        unsigned pending = disk_memory_pending(fixture->disk);
        if (pending != 0)
            disk_memory_release(fixture->disk, (unsigned)(random >> 32) % pending);
        fixture_turn(fixture, (random >> 40) % 20000);
        for (lane = 0; lane < 2; lane++) {
            int right = answers(lane, 0);
            CHECK(right >= 0);
            answered += (unsigned)right;
        }
    }
    hold(false);
    CHECK_EQ(fixture_commit(fixture), 0);
    for (unsigned i = 0; i < 100; i++) {
        turns(1);
        for (unsigned lane = 0; lane < 2; lane++) {
            int right = answers(lane, 0);
            CHECK(right >= 0);
            answered += (unsigned)right;
        }
    }
    CHECK(fixture_committed(fixture) > 300 && fixture_committed(fixture) < FIXTURE_GROUPS_MAX);
    CHECK(asked > 10000);
    CHECK_EQ(answered, asked);
    CHECK(reads_counted() < asked / 2);
    fixture_free(fixture);
}

int main(void) {
    TEST_RUN(fetches_find_every_record);
    TEST_RUN(fetches_answer_what_is_wrong);
    TEST_RUN(fetches_wait_and_are_bounded);
    TEST_RUN(neighbours_share_a_read);
    TEST_RUN(long_segment_is_read_in_pieces);
    TEST_RUN(turns_answer_so_many);
    TEST_RUN(growing_end_is_read_anew);
    TEST_RUN(commit_during_a_read);
    TEST_RUN(damage_beside_the_good_is_found);
    TEST_RUN(failed_reads_answer_all_that_wait);
    TEST_RUN(more_windows_than_buffers);
    TEST_RUN(windows_wait_for_their_fetches);
    TEST_RUN(random_fetches_while_the_log_grows);
    return TEST_DONE();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "tests/unit/wal/checkpoint_fixture.h"
#include "wal/wal_internal.h"

/* Which checkpoints and log files stand, when another checkpoint is wanted, and what a budget does. */

#define FILE_BYTES (64u << 10)
#define HOUR_MS 3600000ull
#define DAY_MS (24 * HOUR_MS)

static struct walkers *walkers;
static struct fixture *fixture;
static const struct wal_checkpoints *checkpoints;

static int begin(uint64_t seed, uint32_t id_time) {
    fixture = fixture_new(2, FILE_BYTES, seed);
    fixture->config.identity.id_time = id_time;
    walkers = walkers_new(fixture, 1);
    int rc = walkers_start(walkers);
    checkpoints = rc == 0 ? wal_checkpoints(fixture->wal) : NULL;
    fixture->timestamp[0] = fixture->timestamp[1] = 1000 * DAY_MS * NS_PER_MS;
    return rc;
}

/** Log until so many files more are full. */
static int fill(unsigned files) {
    uint64_t end = fixture->wal->file + files;
    int rc = 0;
    while (rc == 0 && fixture->wal->file < end) {
        fixture_append(fixture, 0, 50);
        rc = fixture_commit(fixture);
    }
    return rc;
}

/** Cell time goes on; the horizon follows in the group that opens next. */
static int pass_ms(uint64_t ms) {
    int rc = 0;
    for (unsigned i = 0; i < 3 && rc == 0; i++) {
        fixture->timestamp[0] += (i == 0) * ms * NS_PER_MS;
        fixture_append(fixture, 0, 1);
        rc = fixture_commit(fixture);
    }
    for (unsigned i = 0; i < 200; i++)
        walkers_turn(walkers, 1000);
    return rc;
}

static unsigned removed(void) {
    return (unsigned)atomic_load(&checkpoints->files_removed);
}

static uint64_t first_file(void) {
    uint64_t first;
    log_files(fixture->disk, &first);
    return first;
}

static unsigned published(seq_t seqs[16]) {
    return checkpoints_listed(fixture->disk, seqs);
}

static unsigned data_files(void) {
    uint64_t files[16];
    int count = fixture->disk->list(fixture->disk, DISK_CHECKPOINT_DATA, files, 16);
    return count < 0 ? 99 : (unsigned)count;
}

/** All that stands. */
static uint64_t disk_bytes(void) {
    uint64_t files[256], bytes = 0;
    for (unsigned kind = 0; kind < DISK_FILE_KINDS; kind++) {
        int count = fixture->disk->list(fixture->disk, (enum disk_file_kind)kind, files, 256);
        for (int i = 0; i < count; i++)
            bytes += (uint64_t)fixture->disk->size(fixture->disk, files[i]);
    }
    return bytes;
}

static void two_are_kept(void) {
    seq_t seqs[16], last = 0;
    CHECK_EQ(begin(1, 1), 0);
    for (unsigned i = 1; i < 6; i++) {
        fixture_append(fixture, 0, 5);
        CHECK_EQ(walkers_checkpoint(walkers), 0);
        CHECK(walkers_settle(walkers));
        unsigned count = published(seqs);
        CHECK_EQ(count, i < 2 ? i : 2);
        CHECK_EQ(data_files(), count);
        CHECK(seqs[count - 1] > last);
        if (i > 1)
            CHECK_EQ(seqs[0], last);
        last = seqs[count - 1];
        for (unsigned j = 0; j < count; j++)
            CHECK(checkpoint_whole(walkers, fixture->disk, seqs[j]));
    }
    walkers_free(walkers);
}

/* --- log files ----------------------------------------------------------------------------------------------------- */

/** Ten full files and two checkpoints behind them: everything is given but what a test takes away. */
static int begin_old(uint64_t seed, uint32_t id_time, unsigned taken) {
    int rc = begin(seed, id_time);
    if (rc == 0)
        rc = fill(10);
    for (unsigned i = 0; i < taken && rc == 0; i++)
        rc = walkers_checkpoint(walkers);
    return rc;
}

static void files_go_when_nothing_needs_them(void) {
    CHECK_EQ(begin_old(2, 1, 2), 0);
    uint64_t needed = fixture->wal->checkpoint.kept[0].log_file;
    CHECK(needed >= 10);
    CHECK_EQ(removed(), 0);
    uint64_t log_bytes = atomic_load(&checkpoints->log_bytes);
    CHECK_EQ(pass_ms(DAY_MS), 0);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(first_file(), needed); /* not one more */
    CHECK_EQ(removed(), needed - 1);
    CHECK_EQ(atomic_load(&checkpoints->log_bytes), log_bytes - (needed - 1) * FILE_BYTES);

    /* what lay there is not found any more, what lies behind is */
    struct wal_fetch answer = {0};
    CHECK_EQ(wal_lane_fetch(&fixture->lanes[0], wal_place_make(1, 0, 0), 1), 0);
    for (unsigned i = 0; i < 100 && answer.cookie == 0; i++) {
        walkers_turn(walkers, 1000);
        wal_lane_fetched(&fixture->lanes[0], &answer);
    }
    CHECK_EQ(answer.status, -ENOENT);
    seq_t seq = wal_index_oldest(fixture->wal->index)->first_seq;
    while (fixture->groups[seq % FIXTURE_GROUPS_MAX].length[0] == 0)
        seq++;
    CHECK_EQ(wal_lane_fetch(&fixture->lanes[0], wal_place_make(seq, 0, 0), 2), 0);
    for (unsigned i = 0; i < 100 && answer.cookie != 2; i++) {
        walkers_turn(walkers, 1000);
        wal_lane_fetched(&fixture->lanes[0], &answer);
    }
    CHECK_EQ(answer.status, 0);
    walkers_free(walkers);
}

/** An id of the last group may be a minute ahead of it. */
static void files_stay_for_their_ids(void) {
    CHECK_EQ(begin_old(3, 1, 2), 0);
    uint64_t last_ms = wal_index_oldest(fixture->wal->index)->last_cell_time / NS_PER_MS;
    static const struct {
        int after_ms; /**< horizon, after the last group's time */
        bool goes;
    } cases[] = {{0, false}, {59999, false}, {60001, false}, {60002, true}};
    CHECK_EQ(pass_ms(10 * 60000), 0);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        atomic_store(&fixture->lanes[1].horizon_wanted_ms,
                     (uint64_t)((int64_t)last_ms + cases[i].after_ms));
        CHECK_EQ(pass_ms(0), 0);
        CHECK_EQ(fixture->wal->committed_horizon_ms, last_ms + (uint64_t)cases[i].after_ms);
        CHECK_EQ(removed() != 0, cases[i].goes);
    }
    walkers_free(walkers);
}

/** With one checkpoint its damage would leave nothing. */
static void files_stay_for_the_older_checkpoint(void) {
    CHECK_EQ(begin_old(4, 1, 1), 0);
    CHECK_EQ(pass_ms(DAY_MS), 0);
    CHECK_EQ(removed(), 0);
    uint64_t needed = fixture->wal->checkpoint.kept[0].log_file;
    CHECK_EQ(fill(4), 0);
    CHECK_EQ(pass_ms(DAY_MS), 0);
    CHECK_EQ(walkers_checkpoint(walkers), 0);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(first_file(), needed);
    CHECK_EQ(pass_ms(DAY_MS), 0);
    CHECK_EQ(first_file(),
             needed); /* files behind it are old, too, but the older checkpoint wants them */
    walkers_free(walkers);
}

static void files_stay_for_who_holds_them(void) {
    CHECK_EQ(begin_old(5, 1, 2), 0);
    wal_hold(fixture->wal, true);
    wal_hold(fixture->wal, true);
    CHECK_EQ(pass_ms(DAY_MS), 0);
    CHECK_EQ(removed(), 0);
    wal_hold(fixture->wal, false);
    CHECK_EQ(pass_ms(0), 0);
    CHECK_EQ(removed(), 0);
    wal_hold(fixture->wal, false);
    CHECK(walkers_settle(walkers));
    CHECK(removed() >= 9);
    walkers_free(walkers);
}

static void files_stay_where_ids_have_no_time(void) {
    CHECK_EQ(begin_old(6, 0, 3), 0);
    CHECK_EQ(pass_ms(1000 * DAY_MS), 0);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(removed(), 0);
    CHECK_EQ(first_file(), 1);
    walkers_free(walkers);
}

static void removal_is_tried_again(void) {
    char line[200];
    CHECK_EQ(begin_old(7, 1, 2), 0);
    disk_memory_faults(fixture->disk)->fail_remove_at = 3;
    CHECK_EQ(pass_ms(DAY_MS), 0);
    CHECK_EQ(removed(), 2);
    wal_checkpoint_warning(fixture->wal, line, sizeof(line));
    CHECK(strstr(line, "removing log file 3: Input/output error") != NULL);
    CHECK_EQ(wal_index_oldest(fixture->wal->index)->file, 3);
    for (unsigned i = 0; i < 20; i++)
        walkers_turn(walkers, 100000000);
    CHECK(removed() >= 9);
    walkers_free(walkers);
}

/* --- holds and tickets --------------------------------------------------------------------------------------------- */

/** Checkpoints that stand stay while they are held, but not for ever more of them. */
static void held_checkpoints(void) {
    seq_t seqs[16], first[16];
    CHECK_EQ(begin(8, 1), 0);
    CHECK_EQ(walkers_checkpoint(walkers), 0);
    CHECK_EQ(published(first), 1);
    wal_hold(fixture->wal, true);
    for (unsigned i = 1; i < CHECKPOINTS_MAX; i++)
        CHECK_EQ(walkers_checkpoint(walkers), 0);
    CHECK_EQ(published(seqs), CHECKPOINTS_MAX);
    CHECK_EQ(seqs[0], first[0]);
    CHECK_EQ(walkers_checkpoint(walkers), -EBUSY);
    wal_hold(fixture->wal, false);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(published(seqs), 2);
    CHECK_EQ(data_files(), 2);
    CHECK_EQ(walkers_checkpoint(walkers), 0);
    walkers_free(walkers);
}

/** One that began before the question was asked does not answer it. */
static void tickets(void) {
    CHECK_EQ(begin(9, 1), 0);
    uint64_t first = wal_checkpoint_want(fixture->wal), second = wal_checkpoint_want(fixture->wal);
    CHECK_EQ(second, first + 1);
    while (atomic_load(&checkpoints->running_seq) == 0)
        walkers_turn(walkers, 1000);
    uint64_t late = wal_checkpoint_want(fixture->wal);
    while (atomic_load(&checkpoints->served) < first)
        walkers_turn(walkers, 1000);
    CHECK_EQ(atomic_load(&checkpoints->served), second);
    CHECK_EQ(atomic_load(&checkpoints->published), 1);
    for (unsigned i = 0; i < 1000 && atomic_load(&checkpoints->served) < late; i++)
        walkers_turn(walkers, 1000);
    CHECK_EQ(atomic_load(&checkpoints->served), late);
    CHECK_EQ(atomic_load(&checkpoints->published), 2);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(atomic_load(&checkpoints->published), 2);
    walkers_free(walkers);
}

/* --- when ---------------------------------------------------------------------------------------------------------- */

static void so_much_log(void) {
    CHECK_EQ(begin(10, 1), 0);
    fixture->wal->config.checkpoint_log_bytes = 3 * FILE_BYTES;
    CHECK_EQ(fill(2), 0);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(atomic_load(&checkpoints->published), 0);
    CHECK_EQ(fill(2), 0);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(atomic_load(&checkpoints->published), 1);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(atomic_load(&checkpoints->published), 1);
    /* what recovery read counts */
    fixture_stop(fixture);
    fixture->config.checkpoint_log_bytes = 3 * FILE_BYTES;
    CHECK_EQ(walkers_start(walkers), 0);
    checkpoints = wal_checkpoints(fixture->wal);
    CHECK(fixture->config.position.bytes > 3 * FILE_BYTES);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(atomic_load(&checkpoints->published), 1);
    walkers_free(walkers);
}

static void so_much_time(void) {
    CHECK_EQ(begin(11, 1), 0);
    fixture->wal->config.checkpoint_interval_ns = 1000 * NS_PER_MS;
    for (unsigned i = 0; i < 50; i++)
        walkers_turn(walkers, 100 * NS_PER_MS);
    CHECK_EQ(atomic_load(&checkpoints->published), 0); /* nothing was logged */
    fixture_append(fixture, 0, 1);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(atomic_load(&checkpoints->published), 1);
    uint64_t since = fixture->now_ns;
    fixture_append(fixture, 0, 1);
    for (unsigned i = 0; i < 500 && atomic_load(&checkpoints->published) == 1; i++)
        walkers_turn(walkers, 10 * NS_PER_MS);
    CHECK(fixture->now_ns - since > 900 * NS_PER_MS);
    CHECK_EQ(atomic_load(&checkpoints->published), 2);
    for (unsigned i = 0; i < 50; i++)
        walkers_turn(walkers, 100 * NS_PER_MS);
    CHECK_EQ(atomic_load(&checkpoints->published), 2);
    walkers_free(walkers);
}

/** Records know the low 32 bits of their groups. */
static void so_many_groups(void) {
    CHECK_EQ(begin(12, 1), 0);
    CHECK_EQ(walkers_checkpoint(walkers), 0);
    fixture->wal->checkpoint.published_seq = fixture->wal->open_seq - CHECKPOINT_SEQS_MAX + 10;
    CHECK(walkers_settle(walkers));
    CHECK_EQ(atomic_load(&checkpoints->published), 1);
    CHECK_EQ(pass_ms(1), 0);
    CHECK_EQ(pass_ms(1), 0);
    CHECK_EQ(pass_ms(1), 0);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(atomic_load(&checkpoints->published), 2);
    walkers_free(walkers);
}

/* --- the budget ---------------------------------------------------------------------------------------------------- */

/** More log than the budget: the horizon rises as far as the oldest file needs it, never nearer than the minimum, and
 *  checkpoints come until none of them holds the file. */
static void budget(void) {
    CHECK_EQ(begin(13, 1), 0);
    fixture->wal->config.log_bytes_max = 8 * FILE_BYTES;
    CHECK_EQ(fill(10), 0);
    CHECK(walkers_settle(walkers));
    uint64_t now_ms = fixture->timestamp[0] / NS_PER_MS;
    CHECK_EQ(removed(), 0); /* all ids are of this minute */
    CHECK(fixture->wal->committed_horizon_ms <= now_ms - fixture->config.horizon_minimum_ms);
    CHECK_EQ(atomic_load(&checkpoints->published), 0); /* no use while ids hold the file */

    CHECK_EQ(pass_ms(5 * 60000), 0); /* far from an hour */
    CHECK(walkers_settle(walkers));
    CHECK_EQ(atomic_load(&checkpoints->published), 2);
    CHECK(atomic_load(&checkpoints->log_bytes) <= 8 * FILE_BYTES);
    now_ms = fixture->timestamp[0] / NS_PER_MS;
    CHECK(fixture->wal->committed_horizon_ms > now_ms - HOUR_MS);
    CHECK(fixture->wal->committed_horizon_ms <= now_ms - 60000);

    /* within the budget it leaves all alone */
    uint64_t first = first_file();
    CHECK_EQ(pass_ms(60000), 0);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(first_file(), first);
    CHECK_EQ(atomic_load(&checkpoints->published), 2);
    walkers_free(walkers);
}

/** A steady load under a budget: files come and go. */
static void budget_over_time(void) {
    CHECK_EQ(begin(14, 1), 0);
    fixture->wal->config.log_bytes_max = 10 * FILE_BYTES;
    for (unsigned minute = 0; minute < 60; minute++) {
        CHECK_EQ(fill(1), 0);
        CHECK_EQ(pass_ms(60000), 0);
        CHECK(walkers_settle(walkers));
    }
    CHECK(atomic_load(&checkpoints->log_bytes) <= 11 * FILE_BYTES);
    CHECK(removed() > 50);
    CHECK(atomic_load(&checkpoints->published) < 60);
    walkers_free(walkers);
}

/** Files that may go give a full disk room; only when none may, the log ends. */
static void full_disk_gets_room(void) {
    CHECK_EQ(begin_old(15, 1, 2), 0);
    disk_memory_faults(fixture->disk)->capacity_bytes = disk_bytes();
    wal_hold(fixture->wal, true);
    CHECK_EQ(pass_ms(DAY_MS), 0);
    CHECK_EQ(fill(1), 0);
    CHECK_EQ(removed(), 0);
    CHECK_EQ(fill(3), 0); /* the log lives, and no more goes than it takes */
    CHECK(removed() >= 2 && removed() <= 4);
    wal_hold(fixture->wal, false);
    CHECK_EQ(fill(3), 0);
    CHECK(removed() > 6);
    CHECK_EQ(fill(40), -ENOSPC);
    CHECK(strstr(wal_error(fixture->wal), "there is no place for group") != NULL);
    disk_memory_crash(fixture->disk, NULL, NULL);
    walkers_free(walkers);
}

/** A checkpoint that is under way gives its room to the log. */
static void full_disk_ends_a_checkpoint(void) {
    char line[200];
    CHECK_EQ(begin(18, 1), 0);
    CHECK_EQ(fill(1), 0);
    walkers->chunks = 30;
    uint64_t ticket = wal_checkpoint_want(fixture->wal);
    while (atomic_load(&checkpoints->chunks) < 20)
        walkers_turn(walkers, 1000);
    disk_memory_faults(fixture->disk)->capacity_bytes = disk_bytes();
    CHECK_EQ(fill(10), 0); /* nobody walks on meanwhile */
    CHECK_EQ(atomic_load(&checkpoints->served), ticket);
    CHECK_EQ(atomic_load(&checkpoints->error), -ENOSPC);
    CHECK_EQ(data_files(), 0);
    wal_checkpoint_warning(fixture->wal, line, sizeof(line));
    CHECK(strstr(line, "No space left") != NULL);
    CHECK_EQ(fixture_drain(fixture), 0);
    walkers_free(walkers);
}

/** Ids of the last hour would keep every file; but the disk is full, so those that are older than the minimum go. */
static void full_disk_raises_the_horizon(void) {
    CHECK_EQ(begin_old(17, 1, 2), 0);
    disk_memory_faults(fixture->disk)->capacity_bytes = disk_bytes() + FILE_BYTES;
    CHECK_EQ(pass_ms(10 * 60000), 0);
    CHECK_EQ(removed(), 0);
    CHECK_EQ(fill(8), 0);
    CHECK(removed() != 0);
    CHECK(fixture->wal->committed_horizon_ms <=
          fixture->timestamp[0] / NS_PER_MS - fixture->config.horizon_minimum_ms);
    walkers_free(walkers);
}

/* --- at start ------------------------------------------------------------------------------------------------------ */

static int put_file(enum disk_file_kind kind, seq_t seq) {
    return disk_memory_resize(fixture->memory, disk_file(kind, seq), WAL_PAGE_BYTES);
}

static bool stands(enum disk_file_kind kind, seq_t seq) {
    return fixture->disk->size(fixture->disk, disk_file(kind, seq)) >= 0;
}

/** What recovery did not find good goes once there is a better one; what bears numbers to come goes first. */
static void strays_go(void) {
    seq_t seqs[16];
    CHECK_EQ(begin(16, 1), 0);
    CHECK_EQ(fill(1), 0);
    CHECK_EQ(walkers_checkpoint(walkers), 0);
    CHECK_EQ(fixture_drain(fixture), 0);
    fixture_stop(fixture);
    CHECK_EQ(published(seqs), 1);
    CHECK_EQ(walkers_start(walkers), 0);
    fixture_stop(fixture);
    seq_t behind = fixture->position.seq + 1;
    CHECK(put_file(DISK_CHECKPOINT_MANIFEST, 1) == 0 && put_file(DISK_CHECKPOINT_DATA, 1) == 0);
    CHECK(put_file(DISK_CHECKPOINT_DATA, behind) == 0);
    CHECK(put_file(DISK_CHECKPOINT_MANIFEST, behind) == 0);
    fixture->config.position = fixture->position;
    fixture->config.position.index = NULL;
    fixture->config.position.checkpoints[0].seq = seqs[0];
    fixture->config.position.checkpoints[0].log_file = 1;
    fixture->config.term++;
    memset(fixture->board, 0, sizeof(*fixture->board));
    memset(fixture->lanes, 0, 2 * sizeof(*fixture->lanes));
    fixture->open[0] = fixture->open[1] = behind;
    CHECK_EQ(wal_open(&fixture->config, &fixture->wal, fixture->error, sizeof(fixture->error)), 0);
    checkpoints = wal_checkpoints(fixture->wal);
    CHECK(walkers_settle(walkers));
    CHECK(!stands(DISK_CHECKPOINT_MANIFEST, behind) && !stands(DISK_CHECKPOINT_DATA, behind));
    CHECK(stands(DISK_CHECKPOINT_MANIFEST, 1) && stands(DISK_CHECKPOINT_DATA, 1));
    CHECK_EQ(walkers_checkpoint(walkers), 0);
    CHECK(walkers_settle(walkers));
    CHECK(!stands(DISK_CHECKPOINT_MANIFEST, 1) && !stands(DISK_CHECKPOINT_DATA, 1));
    CHECK_EQ(published(seqs), 2);
    CHECK(checkpoint_whole(walkers, fixture->disk, seqs[1]));
    walkers_free(walkers);
}

int main(void) {
    TEST_RUN(two_are_kept);
    TEST_RUN(files_go_when_nothing_needs_them);
    TEST_RUN(files_stay_for_their_ids);
    TEST_RUN(files_stay_for_the_older_checkpoint);
    TEST_RUN(files_stay_for_who_holds_them);
    TEST_RUN(files_stay_where_ids_have_no_time);
    TEST_RUN(removal_is_tried_again);
    TEST_RUN(held_checkpoints);
    TEST_RUN(tickets);
    TEST_RUN(so_much_log);
    TEST_RUN(so_much_time);
    TEST_RUN(so_many_groups);
    TEST_RUN(budget);
    TEST_RUN(budget_over_time);
    TEST_RUN(full_disk_gets_room);
    TEST_RUN(full_disk_ends_a_checkpoint);
    TEST_RUN(full_disk_raises_the_horizon);
    TEST_RUN(strays_go);
    return TEST_DONE();
}

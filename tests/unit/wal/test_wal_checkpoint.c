/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "tests/lib/test.h"
#include "tests/unit/wal/checkpoint_fixture.h"
#include "wal/wal_internal.h"

/* A checkpoint on its way to disk: what comes before what, what a power cut leaves, and that its failures are its own. */

#define FILE_BYTES (256u << 10)
#define CHUNKS 7

static struct walkers *walkers;
static struct fixture *fixture;
static const struct wal_checkpoints *checkpoints;

static int start(void) {
    int rc = walkers_start(walkers);
    checkpoints = rc == 0 ? wal_checkpoints(fixture->wal) : NULL;
    return rc;
}

/** A cell that has logged something. */
static int begin(unsigned lanes, uint64_t seed) {
    fixture = fixture_new(lanes, FILE_BYTES, seed);
    walkers = walkers_new(fixture, CHUNKS);
    int rc = start();
    fixture_append(fixture, 0, 10);
    return rc != 0 ? rc : fixture_commit(fixture);
}

static unsigned published(seq_t seqs[16]) {
    return checkpoints_listed(fixture->disk, seqs);
}

static void becomes_a_checkpoint(void) {
    seq_t seqs[16];
    CHECK_EQ(begin(3, 1), 0);
    CHECK_EQ(walkers_checkpoint(walkers), 0);
    CHECK_EQ(published(seqs), 1);
    CHECK(checkpoint_whole(walkers, fixture->disk, seqs[0]));
    CHECK_EQ(atomic_load(&checkpoints->published_seq), seqs[0]);
    CHECK_EQ(atomic_load(&checkpoints->published), 1);
    CHECK_EQ(atomic_load(&checkpoints->running_seq), 0);
    CHECK_EQ(atomic_load(&checkpoints->chunks), 3 * (CHUNKS + 1) + 2);
    CHECK_EQ(atomic_load(&checkpoints->bytes), (3 * (CHUNKS + 1) + 2) * CHECKPOINT_CHUNK_BYTES);

    struct checkpoint_manifest manifest;
    CHECK_EQ(fixture->disk->read(fixture->disk, disk_file(DISK_CHECKPOINT_MANIFEST, seqs[0]), 0,
                                 &manifest, sizeof(manifest)),
             0);
    struct wal_header header, next;
    const struct wal_index_entry *entry = wal_index_find(fixture->wal->index, seqs[0]);
    uint64_t offset = entry->offset;
    for (;; offset += WAL_PAGE_BYTES + header.chained.body_bytes) {
        CHECK_EQ(fixture->disk->read(fixture->disk, 1, offset, &header, sizeof(header)), 0);
        if (header.chained.seq == seqs[0])
            break;
    }
    CHECK(memcmp(header.chained.digest, manifest.log_digest, WAL_DIGEST_BYTES) == 0);
    CHECK_EQ(manifest.cell_time, header.chained.cell_time);
    CHECK_EQ(manifest.horizon_ms, header.chained.horizon_ms);
    CHECK_EQ(manifest.term, header.chained.term);
    CHECK_EQ(fixture->disk->read(fixture->disk, manifest.log_file, manifest.log_offset, &next,
                                 sizeof(next)),
             0);
    CHECK_EQ(next.chained.seq, seqs[0] + 1);
    CHECK_EQ(manifest.log_file_bytes, FILE_BYTES);
    /* all chunks are the lcores' again, and the log goes on */
    walkers_turn(walkers, 1000);
    for (unsigned lane = 0; lane < 3; lane++)
        CHECK_EQ(walkers->lanes[lane].free_count, WALKER_CHUNKS);
    fixture_append(fixture, 1, 5);
    CHECK_EQ(fixture_drain(fixture), 0);
    walkers_free(walkers);
}

/** Let what belongs to checkpoints complete, and the log's own only if `log`. */
static void release(bool log) {
    for (unsigned i = 0; i < disk_memory_pending(fixture->disk); i++)
        if (log || disk_file_kind(disk_memory_queued(fixture->disk, i)->file) != DISK_LOG)
            disk_memory_release(fixture->disk, i);
}

static bool is_queued(enum disk_operation operation) {
    for (unsigned i = 0; i < disk_memory_pending(fixture->disk); i++)
        if (disk_memory_queued(fixture->disk, i)->operation == operation)
            return true;
    return false;
}

/** Whole and synced, it waits for the groups that were open when the lcores ended. */
static void published_when_committed(void) {
    seq_t seqs[16];
    CHECK_EQ(begin(2, 2), 0);
    walkers->complete_groups = 3;
    disk_memory_faults(fixture->disk)->hold = true;
    wal_checkpoint_want(fixture->wal);
    for (unsigned turn = 0; turn < 500; turn++) {
        fixture_append(fixture, 0, 3);
        walkers_turn(walkers, 100000);
        release(false);
        CHECK(!is_queued(DISK_PUBLISH));
    }
    seq_t seq = atomic_load(&checkpoints->running_seq);
    CHECK(seq != 0 && fixture->wal->checkpoint.state == WAL_CHECKPOINT_COMMITTING);
    seq_t after = fixture->wal->checkpoint.publish_after;
    CHECK(after >= seq + 4);
    for (unsigned turn = 0; turn < 2000 && atomic_load(&checkpoints->published) == 0; turn++) {
        walkers_turn(walkers, 100000);
        if (fixture_committed(fixture) < after)
            CHECK(!is_queued(DISK_PUBLISH));
        release(true);
    }
    CHECK_EQ(published(seqs), 1);
    CHECK_EQ(seqs[0], seq);
    CHECK(fixture_committed(fixture) >= after);
    CHECK(checkpoint_whole(walkers, fixture->disk, seq));
    disk_memory_faults(fixture->disk)->hold = false;
    walkers_free(walkers);
}

/** Nothing is logged, and yet it ends: the groups that it waits for are sealed empty. */
static void idle_cell_ends_its_checkpoint(void) {
    seq_t seqs[16];
    fixture = fixture_new(2, FILE_BYTES, 3);
    walkers = walkers_new(fixture, 0);
    walkers->complete_groups = 5;
    CHECK_EQ(start(), 0);
    CHECK_EQ(walkers_checkpoint(walkers), 0);
    CHECK_EQ(published(seqs), 1);
    CHECK_EQ(seqs[0], 1);
    CHECK(checkpoint_whole(walkers, fixture->disk, 1));
    seq_t committed = fixture_committed(fixture);
    CHECK(committed >= 7);
    for (unsigned turn = 0; turn < 1000; turn++)
        walkers_turn(walkers, 1000000);
    CHECK(fixture_committed(fixture) <= committed + 2); /* and then it is silent */
    walkers_free(walkers);
}

/** Sync comes after the last write, and the manifest after the sync; no write of the log waits for any of them. */
static void order_of_operations(void) {
    unsigned writes = 0, syncs = 0;
    CHECK_EQ(begin(2, 4), 0);
    disk_memory_faults(fixture->disk)->hold = true;
    uint64_t ticket = wal_checkpoint_want(fixture->wal);
    for (unsigned turn = 0; turn < 5000 && atomic_load(&checkpoints->served) < ticket; turn++) {
        fixture_append(fixture, turn % 2, 1);
        walkers_turn(walkers, 20000);
        unsigned pending = 0;
        for (unsigned i = 0; i < disk_memory_pending(fixture->disk); i++) {
            const struct disk_io *io = disk_memory_queued(fixture->disk, i);
            bool chunk = disk_file_kind(io->file) != DISK_LOG && io->operation == DISK_WRITE;
            pending += chunk;
            if (io->operation == DISK_SYNC || io->operation == DISK_PUBLISH)
                CHECK_EQ(writes, 2 * (CHUNKS + 1) + 2);
            if (io->operation == DISK_PUBLISH)
                CHECK_EQ(syncs, 1);
            if (turn % 3 == 0 && !(io->operation == DISK_WRITE && !chunk)) {
                writes += chunk;
                syncs += io->operation == DISK_SYNC;
                disk_memory_release(fixture->disk, i);
                break;
            }
            if (io->operation == DISK_WRITE && !chunk)
                disk_memory_release(fixture->disk, i);
        }
        CHECK(pending <= CHECKPOINT_WRITES);
    }
    CHECK_EQ(atomic_load(&checkpoints->published), 1);
    disk_memory_faults(fixture->disk)->hold = false;
    walkers_free(walkers);
}

/** The log fills files faster than they can be made, so there is always one to make; yet a checkpoint gets through, by turns. */
static void busy_log_lets_it_through(void) {
    CHECK_EQ(begin(2, 5), 0);
    disk_memory_faults(fixture->disk)->hold = true;
    uint64_t ticket = wal_checkpoint_want(fixture->wal);
    unsigned turn, made = 0, ours = 0;
    for (turn = 0; turn < 20000 && atomic_load(&checkpoints->served) < ticket; turn++) {
        fixture_append(fixture, turn % 2, 100);
        walkers_turn(walkers, 20000);
        for (unsigned i = 0; i < disk_memory_pending(fixture->disk); i++) {
            const struct disk_io *io = disk_memory_queued(fixture->disk, i);
            bool slow = io->operation >= DISK_CREATE;
            if (slow && turn % 64 != 0)
                continue;
            made += slow && disk_file_kind(io->file) == DISK_LOG;
            ours += slow && disk_file_kind(io->file) != DISK_LOG;
            disk_memory_release(fixture->disk, i);
        }
        CHECK(ours <= made + 2);
    }
    CHECK_EQ(atomic_load(&checkpoints->published), 1);
    CHECK(made >= ours - 2);
    disk_memory_faults(fixture->disk)->hold = false;
    walkers_free(walkers);
}

/* --- power cuts ---------------------------------------------------------------------------------------------------- */

struct cut {
    uint64_t random;
    unsigned keep; /**< 0: nothing, 1: everything, 2: by chance */
};

static bool keep_sector(void *context, uint64_t file, uint64_t sector) {
    struct cut *cut = context;
    (void)file;
    (void)sector;
    return cut->keep == 1 || (cut->keep == 2 && (test_random(&cut->random) & 1));
}

/** Checkpoints one after the other; after so many operations of the disk the power goes. @return whether it went */
static bool run_until_cut(unsigned operations, struct cut *cut) {
    disk_memory_faults(fixture->disk)->hold = true;
    for (unsigned round = 0; round < 3; round++) {
        uint64_t ticket = wal_checkpoint_want(fixture->wal);
        for (unsigned turn = 0; turn < 1000; turn++) {
            if (turn % 16 == 0)
                fixture_append(fixture, turn % 2, 2);
            walkers_turn(walkers, 50000);
            if (atomic_load(&checkpoints->served) >= ticket &&
                disk_memory_pending(fixture->disk) == 0)
                break;
            if (disk_memory_pending(fixture->disk) == 0)
                continue;
            if (operations-- == 0) {
                disk_memory_crash(fixture->disk, keep_sector, cut);
                return true;
            }
            disk_memory_release(fixture->disk, 0);
        }
    }
    return false;
}

/** At every operation: what is on disk is the checkpoints that were published, whole, and perhaps the one that was about to be. */
static void power_cuts(void) {
    struct cut cut = {.random = test_seed(7)};
    bool went = true;
    for (unsigned run = 0; went || run % 3 != 0; run++) {
        unsigned operations = run / 3;
        cut.keep = run % 3;
        CHECK_EQ(begin(2, 40 + operations), 0);
        walkers->chunks = 2;
        went = run_until_cut(operations, &cut);
        seq_t seqs[16], newest = atomic_load(&checkpoints->published_seq);
        seq_t running = atomic_load(&checkpoints->running_seq);
        fixture_stop(fixture);
        disk_memory_restart(fixture->disk);
        unsigned count = published(seqs);
        for (unsigned i = 0; i < count; i++)
            CHECK(checkpoint_whole(walkers, fixture->disk, seqs[i]));
        if (newest != 0)
            CHECK(count != 0 && (seqs[count - 1] == newest || seqs[count - 1] == running));
        /* life goes on, and what was left by half goes */
        CHECK_EQ(start(), 0);
        CHECK_EQ(walkers_checkpoint(walkers), 0);
        CHECK(walkers_settle(walkers));
        uint64_t data[16];
        CHECK_EQ(published(seqs), count == 0 ? 1 : 2);
        CHECK_EQ(fixture->disk->list(fixture->disk, DISK_CHECKPOINT_DATA, data, 16),
                 count == 0 ? 1 : 2);
        CHECK(checkpoint_whole(walkers, fixture->disk, atomic_load(&checkpoints->published_seq)));
        walkers_free(walkers);
    }
}

/* --- failures ------------------------------------------------------------------------------------------------------ */

/** Each gives the checkpoint up and nothing else; after a pause a later one comes. */
static void failures_abandon_it(void) {
    static const struct {
        struct disk_memory_faults faults;
        int rc;
        const char *words;
    } cases[] = {
        {{.fail_checkpoint_create_at = 1}, -EIO, "making the data of checkpoint 3: Input/output"},
        {{.fail_checkpoint_write_at = 1}, -EIO, "writing the data of checkpoint 3"},
        {{.fail_checkpoint_write_at = 5, .fail_errno = ENOSPC}, -ENOSPC, "No space left"},
        {{.fail_checkpoint_write_at = 18}, -EIO, "writing the data"},
        {{.fail_sync_at = 1}, -EIO, "syncing the data of checkpoint 3"},
        {{.fail_publish_at = 1, .fail_errno = EROFS}, -EROFS, "publishing checkpoint 3"},
        {{.fail_sync_at = 1, .fail_remove_at = 1}, -EIO, "syncing the data"},
        {{.fail_publish_at = 1, .fail_remove_at = 1}, -EIO, "publishing"},
        {{.capacity_bytes = 4 * FILE_BYTES}, -ENOSPC, "writing the data"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        seq_t seqs[16];
        char line[200];
        CHECK_EQ(begin(2, 20 + i), 0);
        CHECK(walkers_settle(walkers));
        fixture->wal->config.checkpoint_log_bytes = 4096;
        *disk_memory_faults(fixture->disk) = cases[i].faults;
        CHECK_EQ(walkers_checkpoint(walkers), cases[i].rc);
        CHECK_EQ(atomic_load(&checkpoints->abandoned), 1);
        wal_checkpoint_warning(fixture->wal, line, sizeof(line));
        CHECK(strstr(line, cases[i].words) != NULL && strstr(line, "the log goes on") != NULL);
        CHECK_EQ(atomic_load(&fixture->board->checkpoint_abandoned),
                 atomic_load(&fixture->board->checkpoint_seq));

        /* the log does not notice */
        disk_memory_faults(fixture->disk)->capacity_bytes = 0;
        for (unsigned turn = 0; turn < 50; turn++)
            walkers_turn(walkers, 1000);
        fixture_append(fixture, 1, 5);
        CHECK_EQ(fixture_commit(fixture), 0);
        CHECK_EQ(published(seqs), 0);
        CHECK_EQ(atomic_load(&checkpoints->running_seq), 0);
        for (unsigned lane = 0; lane < 2; lane++)
            CHECK_EQ(walkers->lanes[lane].free_count, WALKER_CHUNKS);

        /* a second later the next one comes by itself, and leftovers go */
        for (unsigned turn = 0; turn < 3000 && atomic_load(&checkpoints->running_seq) == 0; turn++)
            walkers_turn(walkers, 1000000);
        fixture->wal->config.checkpoint_log_bytes = 0;
        CHECK(walkers_settle(walkers));
        CHECK_EQ(atomic_load(&checkpoints->error), 0);
        CHECK_EQ(published(seqs), 1);
        CHECK(seqs[0] > atomic_load(&fixture->board->checkpoint_abandoned));
        CHECK(checkpoint_whole(walkers, fixture->disk, seqs[0]));
        for (unsigned turn = 0; turn < 300; turn++)
            walkers_turn(walkers, 10000000);
        uint64_t data[16];
        CHECK_EQ(fixture->disk->list(fixture->disk, DISK_CHECKPOINT_DATA, data, 16), 1);
        CHECK_EQ(fixture_drain(fixture), 0);
        walkers_free(walkers);
    }
}

static void pauses_grow(void) {
    CHECK_EQ(begin(1, 50), 0);
    fixture->wal->config.checkpoint_log_bytes = 4096;
    uint64_t last_ns = 0, pauses[4] = {0};
    for (unsigned failed = 0; failed < 4;) {
        disk_memory_faults(fixture->disk)->fail_sync_at = 1;
        walkers_turn(walkers, 1000000);
        if (atomic_load(&checkpoints->abandoned) == failed)
            continue;
        pauses[failed++] = (fixture->now_ns - last_ns) / 1000000;
        last_ns = fixture->now_ns;
    }
    CHECK(pauses[1] >= 1000 && pauses[1] < 1100);
    CHECK(pauses[2] >= 2000 && pauses[2] < 2100);
    CHECK(pauses[3] >= 4000 && pauses[3] < 4100);
    /* who asks does not wait for that */
    disk_memory_faults(fixture->disk)->fail_sync_at = 0;
    CHECK_EQ(walkers_checkpoint(walkers), 0);
    walkers_free(walkers);
}

/** A stop in the middle: the data file goes, whoever waits is told, and the lcores' memory is theirs again. */
static void drained_in_the_middle(void) {
    seq_t seqs[16];
    for (unsigned turns = 1; turns < 60; turns += 3) {
        CHECK_EQ(begin(2, 60 + turns), 0);
        uint64_t ticket = wal_checkpoint_want(fixture->wal);
        for (unsigned turn = 0; turn < turns; turn++)
            walkers_turn(walkers, 1000);
        CHECK_EQ(fixture_drain(fixture), 0); /* no lcore walks any more */
        CHECK_EQ(disk_memory_pending(fixture->disk), 0);
        CHECK(atomic_load(&checkpoints->served) >= ticket);
        unsigned count = atomic_load(&checkpoints->error) == 0;
        CHECK(count || atomic_load(&checkpoints->error) == -ECANCELED);
        CHECK_EQ(published(seqs), count);
        uint64_t data[16];
        CHECK_EQ(fixture->disk->list(fixture->disk, DISK_CHECKPOINT_DATA, data, 16), count);
        walkers_free(walkers);
    }
}

/* --- threads ------------------------------------------------------------------------------------------------------- */

#define THREAD_CHECKPOINTS 5u

static atomic_bool threads_stop;

/** An lcore of its own. */
static void *lane_main(void *argument) {
    const unsigned lane = (unsigned)(uintptr_t)argument;
    while (!atomic_load(&threads_stop)) {
        fixture_append(fixture, lane, 3);
        fixture_seal(fixture, lane);
        walkers_walk(walkers, lane);
        sched_yield();
    }
    return NULL;
}

/** Somebody who asks, holds and looks, as the control socket does. */
static void *asker_main(void *unused) {
    char line[200];
    (void)unused;
    for (unsigned i = 0; i < THREAD_CHECKPOINTS; i++) {
        if (i % 4 == 0)
            wal_hold(fixture->wal, true);
        uint64_t ticket = wal_checkpoint_want(fixture->wal);
        while (atomic_load(&checkpoints->served) < ticket)
            sched_yield();
        wal_checkpoint_warning(fixture->wal, line, sizeof(line));
        if (i % 4 == 0)
            wal_hold(fixture->wal, false);
    }
    atomic_store(&threads_stop, true);
    return NULL;
}

static void lanes_on_their_own_threads(void) {
    pthread_t lanes[2], asker;
    seq_t seqs[16];
    CHECK_EQ(begin(2, 80), 0);
    atomic_store(&threads_stop, false);
    disk_memory_faults(fixture->disk)->fail_checkpoint_write_at = 30;
    CHECK_EQ(pthread_create(&asker, NULL, asker_main, NULL), 0);
    for (uintptr_t lane = 0; lane < 2; lane++)
        CHECK_EQ(pthread_create(&lanes[lane], NULL, lane_main, (void *)lane), 0);
    while (!atomic_load(&threads_stop)) {
        wal_step(fixture->wal, fixture->now_ns += 1000);
        sched_yield();
    }
    CHECK_EQ(pthread_join(asker, NULL), 0);
    for (unsigned lane = 0; lane < 2; lane++)
        CHECK_EQ(pthread_join(lanes[lane], NULL), 0);
    CHECK(walkers_settle(walkers));
    CHECK_EQ(atomic_load(&checkpoints->published), THREAD_CHECKPOINTS - 1);
    CHECK_EQ(atomic_load(&checkpoints->abandoned), 1);
    CHECK_EQ(published(seqs), 2);
    CHECK(checkpoint_whole(walkers, fixture->disk, seqs[0]) &&
          checkpoint_whole(walkers, fixture->disk, seqs[1]));
    walkers_free(walkers);
}

int main(void) {
    TEST_RUN(becomes_a_checkpoint);
    TEST_RUN(published_when_committed);
    TEST_RUN(idle_cell_ends_its_checkpoint);
    TEST_RUN(order_of_operations);
    TEST_RUN(busy_log_lets_it_through);
    TEST_RUN(power_cuts);
    TEST_RUN(failures_abandon_it);
    TEST_RUN(pauses_grow);
    TEST_RUN(drained_in_the_middle);
    TEST_RUN(lanes_on_their_own_threads);
    return TEST_DONE();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/test.h"
#include "tests/unit/wal/checkpoint_fixture.h"
#include "wal/disk_uring.h"

/* The production disk, in a temporary directory. Skipped where the file system has no O_DIRECT. */

#define FILE_BYTES (256u << 10)
#define DAY_NS (86400 * NS_PER_SECOND)

static char directory[] = "test-disk-uring-XXXXXX";
static char checkpoints[64]; /**< a folder in it */
static struct disk *disk;
static char error[256];

static void remove_files(void) {
    uint64_t files[64];
    for (unsigned kind = 0; kind < DISK_FILE_KINDS; kind++) {
        int count = disk->list(disk, (enum disk_file_kind)kind, files, 64);
        for (int i = 0; i < count; i++)
            unlink(disk->name(disk, files[i]));
    }
}

/** Submit and wait. @return the operation's result, or what submit or poll answered */
static int64_t complete(struct disk_io *io) {
    struct disk_io *done = NULL;
    int rc = disk->submit(disk, io);
    while (rc == 0) {
        rc = disk->poll(disk, &done, 1);
        sched_yield();
    }
    return rc < 0 ? rc : done == io ? io->result : -EILSEQ;
}

static void writes_reads_and_creates(void) {
    static _Alignas(4096) uint8_t out[2][4096], in[8192], sync_in[8192];
    CHECK_EQ(disk_uring_create(disk, 1, FILE_BYTES), 0);
    CHECK_EQ(disk_uring_create(disk, 1, FILE_BYTES), -EEXIST);
    CHECK_EQ(disk->size(disk, 1), FILE_BYTES);
    CHECK_EQ(disk->size(disk, 2), -ENOENT);
    struct disk_io create = {.operation = DISK_CREATE, .file = 2, .bytes = FILE_BYTES};
    CHECK_EQ(complete(&create), 0);
    uint64_t files[4];
    CHECK_EQ(disk->list(disk, DISK_LOG, files, 4), 2);
    CHECK_EQ(files[1], 2);
    CHECK_EQ(disk->list(disk, DISK_LOG, files, 1), -ENOSPC);

    memset(out[0], 1, 4096);
    memset(out[1], 2, 4096);
    struct disk_io write = {
        .operation = DISK_WRITE, .file = 2, .offset = 4096, .bytes = 8192, .iov_count = 2};
    write.iov[0] = (struct iovec){out[1], 4096};
    write.iov[1] = (struct iovec){out[0], 4096};
    CHECK_EQ(complete(&write), 8192);
    struct disk_io read = {
        .operation = DISK_READ, .file = 2, .offset = 4096, .bytes = 8192, .iov_count = 1};
    read.iov[0] = (struct iovec){in, 8192};
    CHECK_EQ(complete(&read), 8192);
    CHECK(in[0] == 2 && in[4096] == 1);
    CHECK_EQ(disk->read(disk, 2, 4096, sync_in, 8192), 0);
    CHECK(memcmp(in, sync_in, 8192) == 0);
    CHECK_EQ(disk->read(disk, 2, FILE_BYTES - 4096, in, 8192), -EIO);
    read.file = 9;
    CHECK_EQ(complete(&read), -ENOENT);
    remove_files();
}

static void *write_elsewhere(void *unused) {
    static _Alignas(4096) uint8_t page[4096];
    struct disk_io write = {.operation = DISK_WRITE, .file = 1, .bytes = 4096, .iov_count = 1};
    (void)unused;
    write.iov[0] = (struct iovec){page, 4096};
    page[0] = 7;
    return (void *)(intptr_t)complete(&write);
}

/** Recovery may read on one thread what the WAL then writes on another. */
static void ring_moves_between_threads(void) {
    pthread_t thread;
    void *result;
    CHECK_EQ(disk_uring_create(disk, 1, FILE_BYTES), 0);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ((intptr_t)write_elsewhere(NULL), 4096);
        CHECK_EQ(pthread_create(&thread, NULL, write_elsewhere, NULL), 0);
        CHECK_EQ(pthread_join(thread, &result), 0);
        CHECK_EQ((intptr_t)result, 4096);
    }
    remove_files();
}

/** What a killed process had in flight may still arrive. It keeps its file open, and with it the file's lock: a file is
 * neither read nor written before that. */
static void waits_for_writes_of_a_dead_process(void) {
    struct disk *other;
    int ready[2], status;
    char byte = 0;
    CHECK_EQ(disk_uring_create(disk, 1, FILE_BYTES), 0);
    CHECK_EQ(
        disk_uring_open(directory, checkpoints, DISK_URING_WRITE, &other, error, sizeof(error)), 0);
    CHECK_EQ(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(other->name(other, 1), O_RDWR);
        bool held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
        if (write(ready[1], &byte, 1) != 1 || !held)
            _exit(1);
        usleep(50000);
        /* the last thing before the lock goes */
        _exit(pwrite(fd, "late", 4, 0) == 4 ? 0 : 1);
    }
    CHECK_EQ(read(ready[0], &byte, 1), 1);
    static _Alignas(4096) uint8_t page[4096];
    CHECK_EQ(other->sync(other, 1), 0);
    CHECK_EQ(other->read(other, 1, 0, page, sizeof(page)), 0);
    CHECK(memcmp(page, "late", 4) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(ready[0]);
    close(ready[1]);
    disk_uring_close(other);
    remove_files();
}

static void log_on_a_real_disk(void) {
    struct fixture *fixture = fixture_new(2, FILE_BYTES, 5);
    fixture->disk = disk;
    fixture->turns_max = 50000000;
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < 120; i++) {
        fixture_append(fixture, i % 2, 1 + i);
        fixture_turn(fixture, 1000);
        if (i % 8 == 0)
            CHECK_EQ(fixture_commit(fixture), 0);
    }
    CHECK_EQ(fixture_drain(fixture), 0);
    seq_t committed = fixture_committed(fixture);
    fixture_stop(fixture);
    CHECK_EQ(fixture_start(fixture), 0);
    CHECK_EQ(fixture->replayed_seq, committed);
    CHECK(fixture->position.file_number > 1);

    /* a record of an early group comes back from the disk */
    seq_t seq = 1;
    while (fixture->groups[seq].length[0] == 0)
        seq++;
    CHECK_EQ(wal_lane_fetch(&fixture->lanes[1], wal_place_make(seq, 0, 0), 42), 0);
    struct wal_fetch answer = {0};
    for (unsigned i = 0; i < 50000000 && answer.cookie == 0; i++) {
        fixture_turn(fixture, 0);
        wal_lane_fetched(&fixture->lanes[1], &answer);
    }
    CHECK_EQ(answer.status, 0);
    CHECK(memcmp(answer.record, fixture->groups[seq].bytes[0], answer.length) == 0);
    fixture_free(fixture);
    remove_files();
}

/** What lies in the file, through the file system. @return bytes, -1 where there is no such file */
static long stored(uint64_t file, uint8_t *bytes, size_t room) {
    FILE *stream = fopen(disk->name(disk, file), "rb");
    if (stream == NULL)
        return -1;
    size_t got = fread(bytes, 1, room, stream);
    fclose(stream);
    return (long)got;
}

static void checkpoint_files(void) {
    static _Alignas(4096) uint8_t page[4096], in[20000];
    const uint64_t data = disk_file(DISK_CHECKPOINT_DATA, 7),
                   manifest = disk_file(DISK_CHECKPOINT_MANIFEST, 7);
    struct disk_io io = {.operation = DISK_CREATE, .file = data};
    struct disk_io write = {.operation = DISK_WRITE, .file = data, .bytes = 4096, .iov_count = 1};
    struct disk_io sync = {.operation = DISK_SYNC, .file = data};
    struct disk_io publish = {
        .operation = DISK_PUBLISH, .file = manifest, .bytes = 4096, .iov_count = 1};
    write.iov[0] = publish.iov[0] = (struct iovec){page, 4096};
    memset(page, 3, sizeof(page));
    CHECK_EQ(complete(&write), -ENOENT);
    CHECK_EQ(complete(&io), 0);
    CHECK_EQ(disk->size(disk, data), 0);
    for (unsigned i = 0; i < 4; i++) {
        write.offset = i * 4096;
        CHECK_EQ(complete(&write), 4096);
    }
    CHECK_EQ(complete(&sync), 0);
    CHECK_EQ(stored(data, in, sizeof(in)), 16384);
    CHECK(memcmp(in + 12288, page, 4096) == 0);
    uint64_t files[4];
    CHECK_EQ(disk->list(disk, DISK_CHECKPOINT_MANIFEST, files, 4), 0);
    CHECK_EQ(complete(&publish), 0);
    CHECK_EQ(stored(manifest, in, sizeof(in)), 4096);
    page[0] = 4;
    CHECK_EQ(complete(&publish), 0); /* in place of the one before */
    CHECK_EQ(stored(manifest, in, sizeof(in)), 4096);
    CHECK_EQ(in[0], 4);
    CHECK_EQ(disk->list(disk, DISK_CHECKPOINT_MANIFEST, files, 4), 1);
    CHECK(files[0] == manifest);
    CHECK_EQ(disk->list(disk, DISK_CHECKPOINT_DATA, files, 4), 1);
    CHECK(files[0] == data);
    CHECK_EQ(disk->list(disk, DISK_LOG, files, 4), 0);

    /* an empty one in its place: what is written goes there and not into the old one */
    CHECK_EQ(complete(&io), 0);
    write.offset = 0;
    CHECK_EQ(complete(&write), 4096);
    CHECK_EQ(disk->sync(disk, data), 0);
    CHECK_EQ(stored(data, in, sizeof(in)), 4096);

    struct disk_io remove = {.operation = DISK_REMOVE, .file = manifest};
    CHECK_EQ(complete(&remove), 0);
    CHECK_EQ(complete(&remove), 0);
    remove.file = data;
    CHECK_EQ(complete(&remove), 0);
    CHECK_EQ(stored(data, in, sizeof(in)), -1);
    CHECK_EQ(complete(&write), -ENOENT);
    CHECK_EQ(complete(&sync), -ENOENT);
    CHECK_EQ(disk_uring_create(disk, 1, FILE_BYTES), 0);
    remove.file = 1;
    CHECK_EQ(complete(&remove), 0);
    CHECK_EQ(disk->size(disk, 1), -ENOENT);
    remove_files();
}

static void one_blocking_operation_at_a_time(void) {
    struct disk_io create = {.operation = DISK_CREATE, .file = 1, .bytes = FILE_BYTES}, *done;
    struct disk_io remove = {.operation = DISK_REMOVE, .file = disk_file(DISK_CHECKPOINT_DATA, 1)};
    CHECK_EQ(disk->submit(disk, &create), 0);
    CHECK_EQ(disk->submit(disk, &remove), -EAGAIN);
    while (disk->poll(disk, &done, 1) == 0)
        sched_yield();
    CHECK(done == &create);
    CHECK_EQ(complete(&remove), 0);
    remove_files();
}

/** Checkpoints beside the log, and files that go, in a directory. */
static void checkpoints_on_a_real_disk(void) {
    struct fixture *fixture = fixture_new(2, FILE_BYTES, 6);
    struct walkers *walkers = walkers_new(fixture, 3);
    seq_t seqs[16];
    uint64_t first;
    fixture->disk = disk;
    fixture->turns_max = 50000000;
    CHECK_EQ(walkers_start(walkers), 0);
    fixture->timestamp[0] = fixture->timestamp[1] = DAY_NS;
    const struct wal_checkpoints *state = wal_checkpoints(fixture->wal);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t ticket = wal_checkpoint_want(fixture->wal);
        for (unsigned turn = 0; turn < 10 || atomic_load(&state->served) < ticket; turn++) {
            if (turn < 100)
                fixture_append(fixture, turn % 2, 100);
            walkers_turn(walkers, 1000);
            sched_yield();
        }
        CHECK_EQ(atomic_load(&state->error), 0);
        fixture->timestamp[0] += DAY_NS;
    }
    while (atomic_load(&state->files_removed) == 0 ||
           checkpoints_listed(disk, seqs) > CHECKPOINT_KEPT) {
        fixture_append(fixture, 0, 1);
        walkers_turn(walkers, 1000);
        sched_yield();
    }
    CHECK_EQ(checkpoints_listed(disk, seqs), 2);
    CHECK(checkpoint_whole(walkers, disk, seqs[0]) && checkpoint_whole(walkers, disk, seqs[1]));
    log_files(disk, &first);
    CHECK(first > 1);
    CHECK_EQ(fixture_drain(fixture), 0);
    fixture_stop(fixture);
    CHECK(checkpoint_whole(walkers, disk, seqs[1]));
    walkers_free(walkers);
    remove_files();
}

static bool touch(const char *folder, const char *name) {
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *stream = fopen(path, "w");
    return stream != NULL && fclose(stream) == 0;
}

/** Checkpoints that were never published, and names that were never given, go; by who may write alone. */
static void leftovers_are_removed(void) {
    static const char *const names[] = {
        "00000000000000000005.data", "00000000000000000005.manifest", "00000000000000000006.data",
        "00000000000000000006.manifest.new", "stranger.data"};
    static const bool stay[] = {true, true, false, false, true};
    char path[128];
    struct disk *other;
    uint64_t files[4];
    for (unsigned i = 0; i < 5; i++)
        CHECK(touch(checkpoints, names[i]));
    CHECK_EQ(
        disk_uring_open(directory, checkpoints, DISK_URING_READ_ONLY, &other, error, sizeof(error)),
        0);
    CHECK_EQ(other->list(other, DISK_CHECKPOINT_DATA, files, 4), 2);
    struct disk_io remove = {.operation = DISK_REMOVE, .file = files[0]};
    CHECK_EQ(other->submit(other, &remove), -EROFS);
    CHECK_EQ(disk_uring_perform(other, &remove), -EROFS);
    disk_uring_close(other);
    CHECK_EQ(
        disk_uring_open(directory, checkpoints, DISK_URING_WRITE, &other, error, sizeof(error)), 0);
    CHECK_EQ(other->list(other, DISK_CHECKPOINT_DATA, files, 4), 1);
    CHECK(files[0] == disk_file(DISK_CHECKPOINT_DATA, 5));
    disk_uring_close(other);
    for (unsigned i = 0; i < 5; i++) {
        snprintf(path, sizeof(path), "%s/%s", checkpoints, names[i]);
        CHECK_EQ(access(path, F_OK) == 0, stay[i]);
        unlink(path);
    }
    /* a log alone has none */
    CHECK_EQ(disk_uring_open(directory, NULL, DISK_URING_READ_ONLY, &other, error, sizeof(error)),
             0);
    CHECK_EQ(other->list(other, DISK_CHECKPOINT_MANIFEST, files, 4), 0);
    CHECK_EQ(other->size(other, disk_file(DISK_CHECKPOINT_MANIFEST, 5)), -ENOENT);
    CHECK_EQ(other->read(other, disk_file(DISK_CHECKPOINT_DATA, 5), 0, path, 1), -ENOENT);
    disk_uring_close(other);
}

static void refusals(void) {
    struct disk *other;
    char path[128];
    CHECK_EQ(
        disk_uring_open("no-such-directory", NULL, DISK_URING_WRITE, &other, error, sizeof(error)),
        -ENOENT);
    CHECK_EQ(disk_uring_create(disk, 1, FILE_BYTES), 0);
    CHECK_EQ(
        disk_uring_open(directory, checkpoints, DISK_URING_READ_ONLY, &other, error, sizeof(error)),
        0);
    static _Alignas(4096) uint8_t page[4096];
    struct disk_io write = {.operation = DISK_WRITE, .file = 1, .bytes = 4096, .iov_count = 1};
    write.iov[0] = (struct iovec){page, 4096};
    CHECK_EQ(other->submit(other, &write), -EROFS);
    CHECK_EQ(other->write(other, 1, 0, page, 4096), -EROFS);
    CHECK_EQ(other->read(other, 1, 0, page, 4096), 0);
    disk_uring_close(other);
    /* what an unfinished DISK_CREATE left goes away; a stranger's file stays */
    snprintf(path, sizeof(path), "%s/%020u.log.new", directory, 3);
    fclose(fopen(path, "w"));
    CHECK_EQ(
        disk_uring_open(directory, checkpoints, DISK_URING_WRITE, &other, error, sizeof(error)), 0);
    CHECK(access(path, F_OK) != 0);
    disk_uring_close(other);
    remove_files();
}

int main(void) {
    if (mkdtemp(directory) == NULL) {
        printf("no temporary directory here\n0 passed, 1 failed\n");
        return 1;
    }
    snprintf(checkpoints, sizeof(checkpoints), "%s/checkpoint", directory);
    int rc = disk_uring_open(directory, checkpoints, DISK_URING_WRITE, &disk, error, sizeof(error));
    if (rc == -EOPNOTSUPP) {
        printf("%s\n", error);
        rmdir(directory);
        test_skipped = 9;
        return TEST_DONE();
    }
    if (rc != 0) {
        printf("%s\n0 passed, 1 failed\n", error);
        return 1;
    }
    TEST_RUN(writes_reads_and_creates);
    TEST_RUN(ring_moves_between_threads);
    TEST_RUN(waits_for_writes_of_a_dead_process);
    TEST_RUN(log_on_a_real_disk);
    TEST_RUN(checkpoint_files);
    TEST_RUN(checkpoints_on_a_real_disk);
    TEST_RUN(one_blocking_operation_at_a_time);
    TEST_RUN(leftovers_are_removed);
    TEST_RUN(refusals);
    remove_files();
    disk_uring_close(disk);
    rmdir(checkpoints);
    rmdir(directory);
    return TEST_DONE();
}

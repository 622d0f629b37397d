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
#include "tests/unit/wal/wal_fixture.h"
#include "wal/disk_uring.h"

/* The production disk, in a temporary directory. Skipped where the file system has no O_DIRECT. */

#define FILE_BYTES (256u << 10)

static char directory[] = "test-disk-uring-XXXXXX";
static struct disk *disk;
static char error[256];

static void remove_files(void) {
    char path[128];
    uint64_t files[64];
    int count = disk->list(disk, DISK_LOG, files, 64);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%s", disk->name(disk, files[i]));
        unlink(path);
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
    CHECK_EQ(disk_uring_open(directory, DISK_URING_WRITE, &other, error, sizeof(error)), 0);
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

static void refusals(void) {
    struct disk *other;
    char path[128];
    CHECK_EQ(disk_uring_open("no-such-directory", DISK_URING_WRITE, &other, error, sizeof(error)),
             -ENOENT);
    CHECK_EQ(disk_uring_create(disk, 1, FILE_BYTES), 0);
    CHECK_EQ(disk_uring_open(directory, DISK_URING_READ_ONLY, &other, error, sizeof(error)), 0);
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
    CHECK_EQ(disk_uring_open(directory, DISK_URING_WRITE, &other, error, sizeof(error)), 0);
    CHECK(access(path, F_OK) != 0);
    disk_uring_close(other);
    remove_files();
}

int main(void) {
    if (mkdtemp(directory) == NULL) {
        printf("no temporary directory here\n0 passed, 1 failed\n");
        return 1;
    }
    int rc = disk_uring_open(directory, DISK_URING_WRITE, &disk, error, sizeof(error));
    if (rc == -EOPNOTSUPP) {
        printf("%s\n", error);
        rmdir(directory);
        test_skipped = 5;
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
    TEST_RUN(refusals);
    remove_files();
    disk_uring_close(disk);
    rmdir(directory);
    return TEST_DONE();
}

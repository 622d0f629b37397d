/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/test.h"
#include "wal/data_dir.h"
#include "wal/disk_uring.h"

/* A data directory is made once, opened by one process, and refused with a line that helps where it is not right. */

static char root[] = "test-data-dir-XXXXXX";
static char path[64];
static char error[512];
static struct data_dir_settings settings = {
    .identity = {.cell_id = {1, 2, 3},
                 .partitions = 8,
                 .id_time = 1,
                 .hash_seed = 5,
                 .digest_seed = 6,
                 .file_bytes = 4u << 20},
    .groups_in_flight = 4,
    .created_ns = 77,
};

static bool says(const char *words) {
    if (strstr(error, words) != NULL && strchr(error, '\n') == NULL)
        return true;
    printf("error is: %s\n", error);
    return false;
}

static char *file(const char *name) {
    static char joined[128];
    snprintf(joined, sizeof(joined), "%s/%s", path, name);
    return joined;
}

static void clear(void) {
    static const char *const names[] = {"wal/00000000000000000001.log",
                                        "wal/00000000000000000002.log", "superblock", "lock",
                                        "stranger"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
        unlink(file(names[i]));
    rmdir(file("wal"));
    rmdir(file("checkpoint"));
    rmdir(path);
}

static int open_dir(enum data_dir_mode mode, struct data_dir **dir) {
    *dir = NULL;
    error[0] = '\0';
    return data_dir_open(path, mode, dir, error, sizeof(error));
}

/** Overwrite bytes of the superblock. */
static void patch(off_t offset, const void *bytes, size_t length) {
    int fd = open(file("superblock"), O_WRONLY);
    if (pwrite(fd, bytes, length, offset) != (ssize_t)length)
        abort();
    close(fd);
}

static void formats_and_opens(void) {
    struct data_dir *dir;
    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), 0);
    CHECK(memcmp(data_dir_settings(dir), &settings, sizeof(settings)) == 0);
    struct disk *disk = data_dir_disk(dir);
    CHECK_EQ(disk->size(disk, 1), 4 << 20);
    term_t term = 0;
    struct coordinator *coordinator = data_dir_coordinator(dir);
    CHECK_EQ(coordinator->lead(coordinator, 6, &term), 0);
    CHECK_EQ(term, 7);
    coordinator->resign(coordinator);
    CHECK_EQ(coordinator->lead(coordinator, 6, &term), -EBUSY);
    data_dir_close(dir);
    clear();
}

static void second_process_is_refused(void) {
    struct data_dir *dir, *second;
    char pid[32];
    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &second), -EBUSY);
    snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
    CHECK(says(pid));
    /* looking is allowed, and leads nobody */
    CHECK_EQ(open_dir(DATA_DIR_READ_ONLY, &second), 0);
    term_t term;
    CHECK_EQ(data_dir_coordinator(second)->lead(data_dir_coordinator(second), 1, &term), -EBUSY);
    data_dir_close(second);
    data_dir_close(dir);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), 0);
    data_dir_close(dir);
    clear();
}

static void format_refuses(void) {
    static const struct {
        const char *words;
        uint32_t partitions, id_time, groups;
        uint64_t file_bytes;
    } cases[] = {{"partitions", 0, 1, 4, 4u << 20},   {"partitions", 1025, 1, 4, 4u << 20},
                 {"id_time", 8, 2, 4, 4u << 20},      {"in flight", 8, 1, 0, 4u << 20},
                 {"in flight", 8, 1, 9, 4u << 20},    {"size", 8, 1, 4, 4096},
                 {"size", 8, 1, 4, (4u << 20) + 512}, {"size", 8, 1, 4, 1ull << 50}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct data_dir_settings wrong = settings;
        wrong.identity.partitions = cases[i].partitions;
        wrong.identity.id_time = cases[i].id_time;
        wrong.identity.file_bytes = cases[i].file_bytes;
        wrong.groups_in_flight = cases[i].groups;
        CHECK_EQ(data_dir_format(path, &wrong, error, sizeof(error)), -EINVAL);
        CHECK(says(cases[i].words));
    }
    CHECK(access(path, F_OK) != 0);
    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), 0);
    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), -ENOTEMPTY);
    CHECK(says("data directory already"));
    clear();
    CHECK_EQ(mkdir(path, 0755), 0);
    fclose(fopen(file("stranger"), "w"));
    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), -ENOTEMPTY);
    CHECK(says("not empty"));
    clear();
}

static void open_refuses(void) {
    struct data_dir *dir;
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), -ENOENT);
    CHECK(says("tallyd format"));
    fclose(fopen(path, "w"));
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), -ENOTDIR);
    unlink(path);
    CHECK_EQ(mkdir(path, 0755), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), -ENOENT);
    CHECK(says("not a data directory"));
    clear();

    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), 0);
    patch(200, "x", 1);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), -EBADMSG);
    CHECK(says("damaged"));
    patch(8, "\2", 1);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), -ENOTSUP);
    CHECK(says("newer"));
    patch(0, "x", 1);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), -EBADMSG);
    CHECK(says("not a data directory"));
    CHECK(access(file("lock"), F_OK) != 0); /* nothing was written there */
    clear();

    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), 0);
    CHECK_EQ(truncate(file("superblock"), 1000), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), -EBADMSG);
    CHECK(says("damaged"));
    clear();

    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), 0);
    CHECK_EQ(unlink(file("superblock")), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), -ENOENT);
    CHECK(says("no superblock") && !says("tallyd format"));
    clear();

    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), 0);
    CHECK_EQ(unlink(file("wal/00000000000000000001.log")), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &dir), -ENODATA);
    CHECK(says("every log file is missing"));
    clear();
}

/** Permissions bind other users only, so another user looks. */
static void wrong_permissions(void) {
    struct data_dir *dir;
    if (geteuid() != 0) {
        printf("needs root to become another user\n");
        test_skipped++;
        return;
    }
    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), 0);
    CHECK_EQ(chmod(path, 0700), 0);
    CHECK_EQ(chmod(root, 0755), 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        /* inherited working directory, so that only `path` itself is in question */
        if (chdir(root) != 0 || setuid(65534) != 0)
            _exit(3);
        int rc = data_dir_open("dir", DATA_DIR_LOCK, &dir, error, sizeof(error));
        _exit(rc == -EACCES && strstr(error, "no permission") != NULL ? 0 : 1);
    }
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    clear();
}

static void begun_and_finished(void) {
    struct data_dir *dir, *other;
    struct stat status;
    CHECK_EQ(data_dir_begin(path, &settings, &dir, error, sizeof(error)), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &other), -ENOENT);
    CHECK(says("is not a data directory"));
    CHECK_EQ(data_dir_begin(path, &settings, &other, error, sizeof(error)), -ENOTEMPTY);
    CHECK_EQ(disk_uring_create(data_dir_disk(dir), 7, 4 << 20), 0);
    CHECK_EQ(data_dir_finish(dir, error, sizeof(error)), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &other), -EBUSY);
    data_dir_close(dir);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &other), 0);
    CHECK(memcmp(data_dir_settings(other), &settings, sizeof(settings)) == 0);
    data_dir_close(other);
    unlink(file("wal/00000000000000000007.log"));
    clear();
    CHECK(stat(path, &status) != 0);
}

/** What is given up leaves nothing, but a directory that was there before. */
static void begun_and_abandoned(void) {
    struct data_dir *dir;
    struct stat status;
    CHECK_EQ(data_dir_begin(path, &settings, &dir, error, sizeof(error)), 0);
    CHECK_EQ(disk_uring_create(data_dir_disk(dir), 7, 4 << 20), 0);
    CHECK_EQ(disk_uring_create(data_dir_disk(dir), 8, 4 << 20), 0);
    data_dir_abandon(dir);
    CHECK(stat(path, &status) != 0 && errno == ENOENT);
    CHECK_EQ(mkdir(path, 0700), 0);
    CHECK_EQ(data_dir_begin(path, &settings, &dir, error, sizeof(error)), 0);
    data_dir_abandon(dir);
    CHECK(rmdir(path) == 0);
}

static void locked_read_only(void) {
    struct data_dir *dir, *other;
    CHECK_EQ(data_dir_format(path, &settings, error, sizeof(error)), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK_READ_ONLY, &dir), 0);
    CHECK_EQ(open_dir(DATA_DIR_LOCK, &other), -EBUSY);
    _Alignas(4096) static uint8_t page[4096];
    CHECK_EQ(data_dir_disk(dir)->write(data_dir_disk(dir), 1, 0, page, sizeof(page)), -EROFS);
    data_dir_close(dir);
    clear();
}

int main(void) {
    struct disk *disk;
    if (mkdtemp(root) == NULL) {
        printf("no temporary directory here\n0 passed, 1 failed\n");
        return 1;
    }
    snprintf(path, sizeof(path), "%s/dir", root);
    if (disk_uring_open(root, NULL, DISK_URING_WRITE, &disk, error, sizeof(error)) == -EOPNOTSUPP) {
        printf("%s\n", error);
        rmdir(root);
        test_skipped = 5;
        return TEST_DONE();
    }
    disk_uring_close(disk);
    TEST_RUN(formats_and_opens);
    TEST_RUN(begun_and_finished);
    TEST_RUN(begun_and_abandoned);
    TEST_RUN(locked_read_only);
    TEST_RUN(second_process_is_refused);
    TEST_RUN(format_refuses);
    TEST_RUN(open_refuses);
    TEST_RUN(wrong_permissions);
    clear();
    rmdir(root);
    return TEST_DONE();
}

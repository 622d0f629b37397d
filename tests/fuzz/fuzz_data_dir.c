/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wal/data_dir.h"
#include "wal/wal_format.h"

/** Arbitrary superblocks and lock files in a data directory that is good otherwise. What must hold: it opens with settings that
 *  make sense, or is refused with one line that names the directory; a superblock that was changed and not signed again is
 *  always refused; and nothing is changed by being refused.
 *
 *  byte 0: bit 0 sign again, bit 1 the rest are the superblock's bytes themselves, bit 2 read only, bit 3 they are the lock's
 *  edits:  4 bytes each: operation, value, offset (2) */

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static char directory[] = "/tmp/tally-fuzz-data-dir-XXXXXX";
static uint8_t good[WAL_PAGE_BYTES];

static void check(bool condition, const char *what) {
    if (condition)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

static int open_in(const char *name, int flags) {
    int folder = open(directory, O_PATH | O_CLOEXEC);
    int fd = openat(folder, name, flags | O_CLOEXEC, 0600);
    close(folder);
    return fd;
}

static void put(const char *name, const void *bytes, size_t length) {
    int fd = open_in(name, O_CREAT | O_TRUNC | O_WRONLY);
    check(fd >= 0 && write(fd, bytes, length) == (ssize_t)length, "a file is written");
    close(fd);
}

static void directory_remove(void) {
    static const char *const names[] = {"superblock", "lock", "wal/00000000000000000001.log"};
    int folder = open(directory, O_PATH | O_CLOEXEC);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlinkat(folder, names[i], 0);
    unlinkat(folder, "wal", AT_REMOVEDIR);
    unlinkat(folder, "checkpoint", AT_REMOVEDIR);
    close(folder);
    rmdir(directory);
}

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count;
    (void)arguments;
    char error[512];
    struct data_dir_settings settings = {.identity = {.cell_id = {1},
                                                      .partitions = 4,
                                                      .id_time = 1,
                                                      .hash_seed = 2,
                                                      .digest_seed = 3,
                                                      .file_bytes = 4u << 20},
                                         .groups_in_flight = 4,
                                         .created_ns = 5};
    check(mkdtemp(directory) != NULL, "there is a directory");
    atexit(directory_remove);
    check(data_dir_format(directory, &settings, error, sizeof(error)) == 0, "it is formatted");
    int fd = open_in("superblock", O_RDONLY);
    check(fd >= 0 && read(fd, good, sizeof(good)) == sizeof(good), "there is a superblock");
    close(fd);
    return 0;
}

static void edit(uint8_t *block, const uint8_t *input, size_t length) {
    for (; length >= 4; input += 4, length -= 4) {
        size_t offset =
            (size_t)(input[2] | input[3] << 8) % (input[0] & 0x80 ? WAL_PAGE_BYTES : 96);
        switch (input[0] % 4) {
        case 0:
            block[offset] = input[1];
            break;
        case 1:
            block[offset] ^= (uint8_t)(1u << (input[1] & 7));
            break;
        case 2:
            memset(block + offset / 8 * 8, input[1] & 1 ? 0xff : 0, 8);
            break;
        case 3:
            memset(block + offset / 4 * 4, input[1], 4);
            break;
        }
    }
}

static void open_once(enum data_dir_mode mode, bool refused) {
    struct data_dir *dir;
    char error[512] = "";
    int rc = data_dir_open(directory, mode, &dir, error, sizeof(error));
    check(!refused || rc != 0, "a change is noticed");
    if (rc != 0) {
        check(strstr(error, directory) != NULL && strchr(error, '\n') == NULL,
              "a refusal is one line that names the directory");
        return;
    }
    const struct data_dir_settings *settings = data_dir_settings(dir);
    const struct wal_identity *identity = &settings->identity;
    check(identity->partitions >= 1 && identity->partitions <= PARTITIONS_MAX, "partitions");
    check(identity->id_time <= 1, "id_time");
    check(identity->file_bytes > 0 && identity->file_bytes % WAL_PAGE_BYTES == 0, "file size");
    check(settings->groups_in_flight >= 1 && settings->groups_in_flight <= WAL_GROUPS_IN_FLIGHT_MAX,
          "groups in flight");
    data_dir_close(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    static uint8_t block[WAL_PAGE_BYTES], after[WAL_PAGE_BYTES + 1];
    if (length == 0)
        return 0;
    memcpy(block, good, sizeof(block));
    size_t bytes = sizeof(block);
    uint8_t how = input[0];
    input++, length--;
    if (how & 8) {
        put("lock", input, length);
    } else if (how & 2) {
        bytes = length < sizeof(block) ? length : sizeof(block);
        memcpy(block, input, bytes);
    } else {
        edit(block, input, length);
    }
    bool changed = bytes != sizeof(block) || memcmp(block, good, sizeof(block)) != 0;
    if (how & 1 && bytes == sizeof(block))
        wal_digest(block, sizeof(block) - WAL_DIGEST_BYTES,
                   block + sizeof(block) - WAL_DIGEST_BYTES);
    put("superblock", block, bytes);
    open_once(how & 4 ? DATA_DIR_READ_ONLY : DATA_DIR_LOCK, changed && !(how & 1));
    int fd = open_in("superblock", O_RDONLY);
    check(fd >= 0 && read(fd, after, sizeof(after)) == (ssize_t)bytes &&
              memcmp(after, block, bytes) == 0,
          "nothing is changed");
    close(fd);
    return 0;
}

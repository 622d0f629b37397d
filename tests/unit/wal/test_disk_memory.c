/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "wal/disk_memory.h"

/* The disk of the other tests: what it forgets in a power cut, and that it fails where it is told to. */

static struct disk *disk;
static _Alignas(4096) uint8_t page[4096];
static const uint64_t data = (uint64_t)DISK_CHECKPOINT_DATA << DISK_KIND_SHIFT | 7;
static const uint64_t manifest = (uint64_t)DISK_CHECKPOINT_MANIFEST << DISK_KIND_SHIFT | 7;

static struct disk_io operation(enum disk_operation what, uint64_t file, uint64_t offset) {
    bool moves = what == DISK_WRITE || what == DISK_READ || what == DISK_PUBLISH;
    return (struct disk_io){.operation = (uint8_t)what,
                            .file = file,
                            .offset = offset,
                            .bytes = what == DISK_CREATE || moves ? 4096 : 0,
                            .iov = {{page, 4096}},
                            .iov_count = moves};
}

static int64_t run(enum disk_operation what, uint64_t file, uint64_t offset) {
    struct disk_io io = operation(what, file, offset), *done;
    int rc = disk->submit(disk, &io);
    return rc != 0 ? rc : disk->poll(disk, &done, 1) == 1 ? io.result : -ETIMEDOUT;
}

static void open_disk(void) {
    if (disk_memory_open(&disk) != 0)
        abort();
    memset(page, 1, sizeof(page));
}

static void data_grows_and_manifests_are_whole(void) {
    uint64_t files[4], bytes;
    open_disk();
    CHECK_EQ(run(DISK_WRITE, data, 0), -ENOENT);
    CHECK_EQ(run(DISK_CREATE, data, 0), 0);
    CHECK_EQ(run(DISK_WRITE, data, 8192), 4096);
    CHECK_EQ(disk->size(disk, data), 12288);
    CHECK_EQ(disk_memory_bytes(disk, data, &bytes)[4096], 0);
    CHECK_EQ(run(DISK_SYNC, data, 0), 0);
    CHECK_EQ(run(DISK_PUBLISH, manifest, 0), 0);
    CHECK_EQ(disk->size(disk, manifest), 4096);
    CHECK_EQ(run(DISK_WRITE, manifest, 4096), -EFBIG);
    CHECK_EQ(run(DISK_CREATE, 1, 0), 0);
    CHECK_EQ(run(DISK_CREATE, 1, 0), -EEXIST);
    CHECK_EQ(run(DISK_WRITE, 1, 4096), -EFBIG);
    CHECK_EQ(disk->list(disk, DISK_LOG, files, 4), 1);
    CHECK_EQ(disk->list(disk, DISK_CHECKPOINT_DATA, files, 4), 1);
    CHECK(files[0] == data);
    CHECK_EQ(disk->list(disk, DISK_CHECKPOINT_MANIFEST, files, 0), -ENOSPC);
    CHECK(strcmp(disk->name(disk, manifest), "memory:00000000000000000007.manifest") == 0);
    CHECK_EQ(run(DISK_CREATE, data, 0), 0); /* empty, in its place */
    CHECK_EQ(disk->size(disk, data), 0);
    CHECK_EQ(run(DISK_REMOVE, data, 0), 0);
    CHECK_EQ(run(DISK_REMOVE, data, 0), 0);
    CHECK_EQ(run(DISK_SYNC, data, 0), -ENOENT);
    disk_memory_close(disk);
}

static void one_blocking_operation_at_a_time(void) {
    open_disk();
    struct disk_io create = operation(DISK_CREATE, 1, 0), sync = operation(DISK_SYNC, 1, 0), *done;
    CHECK_EQ(disk->submit(disk, &create), 0);
    CHECK_EQ(disk->submit(disk, &sync), -EAGAIN);
    CHECK_EQ(disk->poll(disk, &done, 4), 1);
    CHECK_EQ(disk->submit(disk, &sync), 0);
    CHECK_EQ(disk->poll(disk, &done, 4), 1);
    disk_memory_close(disk);
}

static void fails_at_the_nth(void) {
    open_disk();
    struct disk_memory_faults *faults = disk_memory_faults(disk);
    CHECK_EQ(run(DISK_CREATE, 1, 0), 0);
    *faults = (struct disk_memory_faults){.fail_create_at = 1,
                                          .fail_checkpoint_create_at = 1,
                                          .fail_checkpoint_write_at = 2,
                                          .fail_sync_at = 1,
                                          .fail_publish_at = 1,
                                          .fail_remove_at = 2};
    CHECK_EQ(run(DISK_CREATE, data, 0), -EIO);
    CHECK_EQ(run(DISK_CREATE, data, 0), 0);
    CHECK_EQ(run(DISK_WRITE, 1, 0), 4096);
    CHECK_EQ(run(DISK_WRITE, data, 0), 4096);
    faults->fail_errno = ENOSPC;
    CHECK_EQ(run(DISK_WRITE, data, 4096), -ENOSPC);
    CHECK_EQ(run(DISK_WRITE, data, 4096), 4096);
    CHECK_EQ(run(DISK_SYNC, data, 0), -ENOSPC);
    CHECK_EQ(run(DISK_PUBLISH, manifest, 0), -ENOSPC);
    CHECK_EQ(disk->size(disk, manifest), -ENOENT);
    CHECK_EQ(run(DISK_REMOVE, manifest, 0), 0);
    CHECK_EQ(run(DISK_REMOVE, data, 0), -ENOSPC);
    CHECK_EQ(disk->size(disk, data), 8192);
    CHECK_EQ(run(DISK_CREATE, 2, 0), -ENOSPC);
    *faults = (struct disk_memory_faults){.capacity_bytes = 4 * 4096};
    CHECK_EQ(run(DISK_WRITE, data, 8192), 4096);
    CHECK_EQ(run(DISK_WRITE, data, 12288), -ENOSPC);
    CHECK_EQ(run(DISK_PUBLISH, manifest, 0), -ENOSPC);
    disk_memory_close(disk);
}

static bool keep(void *context, uint64_t file, uint64_t sector) {
    (void)file;
    return *(const uint64_t *)context >> sector & 1;
}

/** Every sector since the last sync is a toss, and so is what was on its way; what was synced stays. */
static void power_cuts(void) {
    uint64_t bytes, mask = 1ull << 8 | 1ull << 11;
    open_disk();
    CHECK_EQ(run(DISK_CREATE, data, 0), 0);
    CHECK_EQ(run(DISK_WRITE, data, 0), 4096);
    CHECK_EQ(run(DISK_SYNC, data, 0), 0);
    memset(page, 2, sizeof(page));
    CHECK_EQ(run(DISK_WRITE, data, 0), 4096);
    struct disk_io write = operation(DISK_WRITE, data, 4096);
    CHECK_EQ(disk->submit(disk, &write), 0);
    disk_memory_crash(disk, keep, &mask);
    disk_memory_restart(disk);
    CHECK_EQ(disk->size(disk, data), 12 * 512); /* up to the last that was kept */
    const uint8_t *at = disk_memory_bytes(disk, data, &bytes);
    CHECK(at[0] == 1 && at[4095] == 1 && at[4096] == 2 && at[4608] == 0 && at[11 * 512] == 2);

    /* never synced: nothing of it need be there */
    const uint64_t other = data + 1;
    CHECK_EQ(run(DISK_CREATE, other, 0), 0);
    CHECK_EQ(run(DISK_WRITE, other, 0), 4096);
    disk_memory_crash(disk, NULL, NULL);
    disk_memory_restart(disk);
    CHECK_EQ(disk->size(disk, other), -ENOENT);

    /* on their way: all or nothing */
    for (mask = 0; mask < 2; mask++) {
        struct disk_io publish = operation(DISK_PUBLISH, manifest, 0);
        CHECK_EQ(disk->submit(disk, &publish), 0);
        disk_memory_crash(disk, keep, &mask);
        disk_memory_restart(disk);
        CHECK_EQ(disk->size(disk, manifest), mask == 0 ? -ENOENT : 4096);
    }
    for (mask = 0; mask < 2; mask++) {
        struct disk_io remove_it = operation(DISK_REMOVE, manifest, 0);
        CHECK_EQ(disk->submit(disk, &remove_it), 0);
        disk_memory_crash(disk, keep, &mask);
        disk_memory_restart(disk);
        CHECK_EQ(disk->size(disk, manifest), mask == 0 ? 4096 : -ENOENT);
    }
    disk_memory_close(disk);
}

int main(void) {
    TEST_RUN(data_grows_and_manifests_are_whole);
    TEST_RUN(one_blocking_operation_at_a_time);
    TEST_RUN(fails_at_the_nth);
    TEST_RUN(power_cuts);
    return TEST_DONE();
}

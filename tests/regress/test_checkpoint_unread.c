/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"

#include "engine/recovery.h"
#include "wal/checkpoint_check.h"
#include "wal/checkpoint_format.h"
#include "wal/disk_memory.h"

/** A start whose only checkpoint could not be read for a moment was answered as if the checkpoint were damaged: the operator was sent to
 *  restore a backup, where trying again would have done. */

#define SEQ 3
#define FILE_BYTES (64u << 10)

static const struct wal_identity identity = {
    .cell_id = {1, 2, 3}, .partitions = 1, .id_time = 1, .file_bytes = FILE_BYTES};

/** A manifest as it should be; its data is never got to see. */
static bool checkpoint_made(struct disk *disk) {
    uint64_t bytes;
    const uint64_t page = disk_file(DISK_CHECKPOINT_MANIFEST, SEQ);
    if (disk_memory_resize(disk, page, WAL_PAGE_BYTES) != 0 ||
        disk_memory_resize(disk, disk_file(DISK_CHECKPOINT_DATA, SEQ), CHECKPOINT_CHUNK_BYTES) != 0)
        return false;
    struct checkpoint_manifest *manifest = (void *)disk_memory_bytes(disk, page, &bytes);
    *manifest = (struct checkpoint_manifest){.magic = CHECKPOINT_MANIFEST_MAGIC,
                                             .version = CHECKPOINT_FORMAT_VERSION,
                                             .bytes = WAL_PAGE_BYTES,
                                             .term = 1,
                                             .seq = SEQ,
                                             .log_file = 1,
                                             .log_file_bytes = FILE_BYTES,
                                             .chunk_count = 1,
                                             .partitions = 1,
                                             .lcores = 1};
    memcpy(manifest->cell_id, identity.cell_id, sizeof(identity.cell_id));
    checkpoint_manifest_seal(manifest);
    return true;
}

static void what_cannot_be_read_is_not_called_damaged(void) {
    static struct wal_board board;
    static struct wal_lane lane;
    struct disk *disk;
    struct engine *engine;
    struct wal_position position;
    struct recovery_report report;
    char error[512];
    const struct engine_config engine_config = {.partitions = 1,
                                                .lcores = 1,
                                                .id_time = true,
                                                .memory_bytes = (size_t)16 << 20,
                                                .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
                                                .horizon_back_ms = 60000,
                                                .board = &board,
                                                .lanes = &lane};
    CHECK_EQ(disk_memory_open(&disk), 0);
    CHECK(checkpoint_made(disk));
    const struct recovery_config config = {.disk = disk, .identity = &identity, .workers = 1};
    for (int unread = 1; unread >= 0; unread--) {
        CHECK_EQ(engine_open(&engine_config, &engine, error, sizeof(error)), 0);
        disk_memory_faults(disk)->fail_read_at = (uint64_t)unread;
        CHECK_EQ(recovery_run(&config, engine, &position, &report, error, sizeof(error)),
                 unread ? -EIO : -EBADMSG); /* read, its one chunk is all zero */
        wal_position_release(&position);
        engine_close(engine);
    }
    disk_memory_close(disk);
}

int main(void) {
    TEST_RUN(what_cannot_be_read_is_not_called_damaged);
    return TEST_DONE();
}

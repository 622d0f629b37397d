/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_DISK_URING_H
#define TALLY_WAL_DISK_URING_H

#include "engine/base/seams.h"

/** The production disk: log segment files and checkpoints of two folders, by io_uring with O_DIRECT; the log's with O_DSYNC.
 *  Names: wal/disk_files.h. Thread: submit and poll belong to one thread at a time; the ring moves to a new thread when nothing
 *  is in flight. Bounds: 64 reads and writes in flight; of the other operations one at a time, by a helper thread of normal
 *  priority on any core. A file that is being removed or made anew answers -ENOENT meanwhile. */

enum disk_uring_mode {
    DISK_URING_READ_ONLY, /**< every write answers -EROFS */
    DISK_URING_WRITE, /**< removes what unfinished operations left, checkpoint data without a manifest too */
};

/** @param log a folder that exists
 *  @param checkpoints another; NULL: this disk has none. Where it does not exist it is made (DISK_URING_WRITE) or taken for empty
 *  @return 0 or -errno with `error` filled; -EOPNOTSUPP: the file system has no O_DIRECT */
int disk_uring_open(const char *log, const char *checkpoints, enum disk_uring_mode mode,
                    struct disk **disk, char *error, size_t error_bytes);
/** Operations still in flight are waited for. */
void disk_uring_close(struct disk *disk);

/** Do an operation from DISK_CREATE on now, in the caller's thread, while none is on its way. @return 0 or -errno */
int disk_uring_perform(struct disk *disk, const struct disk_io *io);
/** Make a log segment file now: zero-filled, synced, renamed, directory synced. @return 0 or -errno */
int disk_uring_create(struct disk *disk, uint64_t file, uint64_t bytes);

#endif

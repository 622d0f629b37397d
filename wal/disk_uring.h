/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_DISK_URING_H
#define TALLY_WAL_DISK_URING_H

#include "engine/base/seams.h"

/** The production disk: log segment files of one directory, by io_uring with O_DIRECT|O_DSYNC.
 *  Files are called DIRECTORY/00000000000000000001.log and so on.
 *  Thread: submit and poll belong to one thread at a time; the ring moves to a new thread when
 * nothing is in flight. Bounds: 64 operations in flight, one DISK_CREATE at a time (made by a
 * helper thread of normal priority, on any core). */

enum disk_uring_mode {
    DISK_URING_READ_ONLY, /**< every write answers -EROFS */
    DISK_URING_WRITE,     /**< removes what an unfinished DISK_CREATE left */
};

/** @param directory exists
 *  @return 0 or -errno with `error` filled; -EOPNOTSUPP: the file system has no O_DIRECT */
int disk_uring_open(const char *directory, enum disk_uring_mode mode, struct disk **disk,
                    char *error, size_t error_bytes);
/** Operations still in flight are waited for. */
void disk_uring_close(struct disk *disk);

/** Make a log segment file now: zero-filled, synced, renamed, directory synced. @return 0 or -errno
 */
int disk_uring_create(struct disk *disk, uint64_t file, uint64_t bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_DISK_FILES_H
#define TALLY_WAL_DISK_FILES_H

#include "engine/base/seams.h"

/** The files of the production disk by their names: two folders, three kinds. Whatever blocks for long is done here.
 *
 *      LOG/00000000000000000001.log              DISK_LOG
 *      CHECKPOINTS/00000000000000000001.data     DISK_CHECKPOINT_DATA
 *      CHECKPOINTS/00000000000000000001.manifest DISK_CHECKPOINT_MANIFEST
 *
 *  Flow:  disk_uring, disk_helper -> [disk_files] -> file system
 *  Owner: disk_uring. disk_files_perform may run on the helper's thread beside the others; it touches no shared field.
 *  Bounds: blocks as long as the file system does. Keeps: INV-3. */

struct disk_files {
    int folders[2]; /**< descriptors: log, checkpoints; -1: there is none */
    char *paths[2];
    char *name; /**< for messages */
    size_t name_bytes;
};

/** @param checkpoints NULL: this disk has no checkpoints
 *  @param write make the folder of the checkpoints where it is missing, remove what an unfinished operation left: files with
 *         names ending in `.new`, checkpoint data without a manifest. Sees whether O_DIRECT works.
 *  @return 0 or -errno; -EOPNOTSUPP: no O_DIRECT; disk_files_close is wanted in any case */
int disk_files_open(struct disk_files *files, const char *log, const char *checkpoints, bool write);
void disk_files_close(struct disk_files *files);

/** Open a file that is there. @param flags of open(2); O_DIRECT is added. @return a descriptor or -errno */
int disk_files_descriptor(const struct disk_files *files, uint64_t file, int flags);
/** As of struct disk. */
int disk_files_list(const struct disk_files *files, enum disk_file_kind kind, uint64_t *list,
                    unsigned count);
int64_t disk_files_size(const struct disk_files *files, uint64_t file);
const char *disk_files_name(struct disk_files *files, uint64_t file);

/** DISK_CREATE, DISK_SYNC, DISK_PUBLISH or DISK_REMOVE, now. @return 0 or -errno */
int disk_files_perform(const struct disk_files *files, const struct disk_io *io);

#endif

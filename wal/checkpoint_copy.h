/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_CHECKPOINT_COPY_H
#define TALLY_WAL_CHECKPOINT_COPY_H

#include "engine/base/seams.h"
#include "wal/checkpoint_format.h"
#include "wal/wal.h"

/** A published checkpoint, written once more for another cell, whose log was copied before (wal_copy).
 *  Flow:  disk -> [checkpoint_copy] -> another disk;  tally backup, tally replay
 *  Control path: blocks, allocates. Records unchanged; heads, digests and places in the log are the new ones. Keeps: INV-6. */

struct checkpoint_copy_config {
    struct disk *from, *to;
    const struct wal_identity *to_identity;
    const struct checkpoint_manifest *manifest; /**< of the one to copy, good */
    const struct wal_index *index;              /**< of the new log */
    const uint8_t *
        log_digest; /**< of group seq in the new log; NULL: that group is not in it, and its digest is the old one */
    uint64_t log_file, log_offset; /**< where group seq + 1 stands in the new log, or will */
    int (*progress)(
        void *context,
        uint64_t
            bytes); /**< so many more were written; what it returns but 0 ends the copy with it; NULL:
                                                       nobody listens */
    void *context;
};

/** Look through its chunks for what it knows of the log: files that stood then, and where groups lie.
 *  @param index wal_index_new()
 *  @return 0, -EBADMSG, -EPERM, -ENOTSUP, -ENOSPC, -errno; `error` says which bytes of which file */
int checkpoint_index_read(struct disk *disk, const struct checkpoint_manifest *manifest,
                          struct wal_index *index, char *error, size_t error_bytes);

/** Copy. @return 0, -EBADMSG, -EPERM, -ENOTSUP (the source is not what it should be), -ENOMEM, -errno of a disk */
int checkpoint_copy(const struct checkpoint_copy_config *config, char *error, size_t error_bytes);

#endif

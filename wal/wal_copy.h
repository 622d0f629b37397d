/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_COPY_H
#define TALLY_WAL_WAL_COPY_H

#include "engine/base/seams.h"
#include "wal/wal.h"
#include "wal/wal_format.h"

/** A range of a log's groups, written once more as the log of another cell: segments and their digests unchanged, headers sealed anew.
 *  Flow:  disk -> [wal_copy] -> another disk;  tally backup, tally replay
 *  Control path: blocks, allocates. The source may be a log that a running tallyd writes to, up to what is committed.
 *  Keeps: INV-3, INV-6 (the chain is checked on the way, and built anew). */

/** A group that was copied: where it lies now, and its header as it is now. Good during the call only. */
typedef int wal_copied_fn(void *context, const struct wal_header *header, uint64_t file,
                          uint64_t file_offset);

struct wal_copy_config {
    struct disk *from, *to;
    const struct wal_identity *from_identity; /**< cell id and size of files are checked */
    const struct wal_identity *to_identity;   /**< cell id and size of files */
    uint64_t file;    /**< where the range begins: at the start of this file */
    uint64_t to_file; /**< and there; 0: the same number */
    seq_t first_seq;
    seq_t last_seq; /**< inclusive; before first_seq: nothing is copied */
    uint64_t
        until_ns; /**< stop before the first group whose cell time is above this; 0: no limit */
    wal_copied_fn *copied; /**< NULL: nobody listens; what it returns but 0 ends the copy with it */
    void *context;
};

/** Copy. The new log ends as a log must: zeros behind the last group, and one more file.
 *  @param position where the new log goes on: seq, term, digest, file and offset, times; groups and bytes are what was copied. Its
 *         index is the caller's to release (wal_position_release)
 *  @return 0, -EBADMSG (damaged), -ENODATA (a group is missing), -EPERM (another cell's), -ENOTSUP (newer), -EFBIG (a group does not fit
 *          into a file of the new log), -ENOMEM, -errno of a disk; `error` says which bytes of which file */
int wal_copy(const struct wal_copy_config *config, struct wal_position *position, char *error,
             size_t error_bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLY_COPY_H
#define TALLY_TOOLS_TALLY_COPY_H

#include "tools/tally_progress.h"
#include "wal/data_dir.h"

/** A data directory, or what it was at an earlier group, as the beginning of another cell.
 *  Flow:  tally backup, tally replay -> [copy] -> wal_copy, checkpoint_copy -> a directory of its own
 *  The source is not changed. Until the copy is finished its directory is nobody's. */

struct copy {
    /* in */
    struct data_dir *from;
    const char *into;
    uint32_t partitions; /**< of the new cell; 0: as the source */
    seq_t
        checkpoint_seq; /**< the checkpoint to copy; 0: none, then the log must begin with group 1 */
    seq_t last_seq;     /**< inclusive */
    bool
        log_only; /**< copy no checkpoint, only the log that checkpoint_seq says is needed, never as file 1 */
    int (*alive)(
        void *
            context); /**< asked now and then; what it returns but 0 ends the copy. NULL: nobody is asked */
    void *context;
    /* out */
    struct data_dir *dir; /**< begun, not finished; NULL after a failure */
    struct wal_position
        position; /**< where the new log goes on; its index is the caller's to release */
    uint64_t bytes;
    /* its own */
    struct progress progress;
    uint64_t total_bytes, asked_ns;
    uint8_t log_digest[16]; /**< of group checkpoint_seq, as it is now */
    bool log_digest_known;
    uint64_t next_file, next_offset; /**< where group checkpoint_seq + 1 stands; file 0: not seen */
};

/** Copy into a new directory, and leave it begun: data_dir_finish, or data_dir_abandon, and data_dir_close are the caller's.
 *  @return 0, or -errno with `error` filled ("" when `alive` ended it); the directory is gone again then */
int copy_directory(struct copy *copy, char *error, size_t error_bytes);

/** Whether a path lies in a directory, or is it. Neither need exist. */
bool copy_lies_in(const char *path, const char *directory);

/** The newest checkpoint whose manifest is good, of those at or before `limit`; 0: there is none.
 *  Those that are not good are complained about. */
seq_t copy_newest_checkpoint(struct data_dir *dir, seq_t limit);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_RECOVERY_H
#define TALLY_ENGINE_RECOVERY_H

#include "engine/engine.h"

/** Start from what the disk holds: the newest good checkpoint, then the log behind it, then verification.
 *  Flow:  tallyd, tally shell, tally wal verify, tally replay, simulator -> [recovery] -> wal_open, engine_replay_finish
 *  Control path: blocks, allocates; may use threads of its own, all gone when it returns. Keeps: INV-3, INV-6. */

struct recovery_progress {
    const char *phase; /**< "checkpoint", "log" */
    uint64_t done_bytes, total_bytes;
    uint64_t records;
    seq_t seq;
};
typedef void recovery_progress_fn(void *context, const struct recovery_progress *progress);
typedef void recovery_warning_fn(void *context, const char *line);

struct recovery_config {
    struct disk *disk;
    const struct wal_identity *identity;
    unsigned workers; /**< who share the partitions */
    bool
        threads; /**< each worker is a thread; false: all run in the caller's, one after the other (simulation) */
    bool read_only;  /**< change nothing: a torn tail is reported and left */
    seq_t until_seq; /**< stop behind this group; 0: at the log's end */
    uint64_t
        until_ns; /**< ... or before the first group whose cell time is above this; 0: no limit */
    recovery_progress_fn *progress; /**< NULL: nobody listens; else about ten times a second */
    recovery_warning_fn *warning;   /**< a damaged checkpoint was passed over, and the like */
    void *context;
};

struct recovery_report {
    seq_t checkpoint_seq; /**< where it began; 0: at the log's start */
    uint64_t checkpoint_bytes, checkpoint_records, checkpoint_ns;
    uint64_t log_file, log_offset; /**< where the log was read from */
    uint64_t log_bytes, log_records, log_groups, log_ns;
    uint64_t torn_bytes;
};

/** Restore the state into a fresh engine and say where the log goes on.
 *  @param error one line: what is wrong, which bytes of which file, and what to do
 *  @return 0; -EBADMSG (corrupt: log, or both checkpoints), -ENODATA (a hole; `until` lies before what is held; the log begins
 *          behind what the checkpoint needs: the range is named), -EPERM (foreign), -ENOTSUP (newer), -ENOMEM, -errno */
int recovery_run(const struct recovery_config *config, struct engine *engine,
                 struct wal_position *position, struct recovery_report *report, char *error,
                 size_t error_bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_CHECKPOINT_INSPECT_H
#define TALLY_WAL_CHECKPOINT_INSPECT_H

#include "engine/base/seams.h"
#include "wal/checkpoint_format.h"
#include "wal/wal.h"

/** `tally checkpoint list` and `tally checkpoint verify`: a look at published checkpoints that changes nothing.
 *  Flow:  disk -> [checkpoint_inspect] -> visitor (tools/)
 *  Control path: blocks, allocates. Every chunk is looked at, however many are bad. Keeps: INV-6. */

#define CHECKPOINT_LIST_MAX 64 /**< more than are ever kept */

/** Bytes that are bad, and how. Good during the call only. */
struct checkpoint_damage {
    const char *file_name;
    uint64_t offset, bytes;
    const char *message; /**< why */
};

/** Both may be NULL. A return of not 0 ends the walk with that value. */
struct checkpoint_visitor {
    /** A chunk that is good by itself; good during the call only. */
    int (*chunk)(void *context, const struct checkpoint_chunk *chunk);
    int (*damage)(void *context, const struct checkpoint_damage *damage);
};

/** What was found in one. */
struct checkpoint_summary {
    struct checkpoint_manifest manifest; /**< only where it is good */
    bool manifest_good;
    uint64_t bytes;                   /**< of its data file */
    uint64_t chunks, damages;         /**< good chunks; bad places */
    uint64_t accounts, pendings, ids; /**< records in good chunks */
    uint64_t log_files, log_entries;
    uint128_t state; /**< sum of the partitions' digests, as the lcores wrote them */
};

/** Numbers of the checkpoints that are published, ascending. @return how many, or -errno */
int checkpoint_list(struct disk *disk, seq_t *seqs, unsigned count);

/** Read the manifest of one. @return 0, -ENOENT, -EBADMSG, -EPERM (another cell's), -ENOTSUP (newer), -errno; `error` filled */
int checkpoint_manifest_read(struct disk *disk, const uint8_t *cell_id, seq_t seq,
                             struct checkpoint_manifest *manifest, char *error, size_t error_bytes);

/** Read one whole, and see that it agrees with itself: every digest, every count, the order of its log index.
 *  @return 0, -EBADMSG (there are damages), -EPERM, -ENOTSUP, -errno, or what the visitor returned; `error` filled, unless the visitor ended
 *          the walk: the first that was wrong */
int checkpoint_inspect(struct disk *disk, const struct wal_identity *identity, seq_t seq,
                       const struct checkpoint_visitor *visitor, void *context,
                       struct checkpoint_summary *summary, char *error, size_t error_bytes);

#endif

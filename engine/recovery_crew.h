/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_RECOVERY_CREW_H
#define TALLY_ENGINE_RECOVERY_CREW_H

#include "engine/restore.h"

/** The workers of a recovery, and the batches that all of them go through while the next batch is being read.
 *  Flow:  checkpoint_reader, wal_reader -> [recovery_crew] -> restore_chunk, restore_group
 *  Owner: the control path; each worker is a thread, or all run in the caller's as a batch is handed over.
 *  Bounds: RECOVERY_BATCHES batches of RECOVERY_BATCH_ITEMS. */

#define RECOVERY_BATCHES                                                                           \
    64 /**< a checkpoint's chunks come partition by partition: far apart for different workers */
#define RECOVERY_BATCH_ITEMS 512
#define RECOVERY_BATCH_BYTES (2u << 20) /**< no more is added to a batch of this size */

enum recovery_work { RECOVERY_CHUNKS, RECOVERY_GROUPS, RECOVERY_VERIFY };

/** What lies there stays there until the batch is done. */
struct recovery_batch {
    enum recovery_work work;
    unsigned count;
    uint64_t bytes;
    const struct checkpoint_chunk *chunks[RECOVERY_BATCH_ITEMS];
    struct wal_group_view groups[RECOVERY_BATCH_ITEMS];
};

struct recovery_crew;

/** @return 0, -ENOMEM, -EAGAIN (no thread to be had) */
int recovery_crew_open(struct restore *restore, unsigned workers, bool threads,
                       struct recovery_crew **crew);
/** Waits for what was handed over. */
void recovery_crew_close(struct recovery_crew *crew);

/** The batch to be filled next, empty. Waits until it is free. */
struct recovery_batch *recovery_crew_batch(struct recovery_crew *crew, enum recovery_work work);
/** Let all workers go through the batch that is being filled. An empty one stays to be filled: so a batch that somebody works at tells what
 *  must stay where it is. */
void recovery_crew_hand_over(struct recovery_crew *crew);
/** The oldest batch that somebody still works at, or the one that is being filled. */
const struct recovery_batch *recovery_crew_oldest(struct recovery_crew *crew);
/** Wait until the oldest batch that was handed over is done. @return false: there is none */
bool recovery_crew_wait_oldest(struct recovery_crew *crew);
/** Wait until everything that was handed over is done. @return 0 or what the first worker that failed answered */
int recovery_crew_wait(struct recovery_crew *crew);
/** Whether somebody failed, as far as it is known without waiting. */
bool recovery_crew_failed(struct recovery_crew *crew);

#endif

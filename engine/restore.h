/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_RESTORE_H
#define TALLY_ENGINE_RESTORE_H

#include "engine/engine.h"
#include "wal/checkpoint_format.h"
#include "wal/wal_reader.h"

/** From a checkpoint and the log back to the state, by several workers side by side.
 *  Every worker sees every chunk and every group, in the same order, and applies what concerns the partitions that are its own
 *  (partition % workers); effects are deltas, so no worker waits for another. Decides nothing, reads no clock.
 *  Flow:  checkpoint chunks, log groups -> [restore] -> engine tables
 *  Owner: the control path, before the lcores run. Keeps: INV-1, INV-4, INV-6. */

struct restore;

/** @param workers 1..LCORES_MAX
 *  @return 0 or -ENOMEM */
int restore_open(struct engine *engine, unsigned workers, struct restore **restore);
/** Tell under how many partitions log and checkpoint were written, before anything is restored; the engine's own number otherwise.
 *  If that differs, what they say of single partitions is compared as a sum, where all of them are told of. */
void restore_partitions_written(struct restore *restore, unsigned partitions);
/** What was wrong, in one line; "" while nothing was. Of the first worker that failed. */
const char *restore_error(const struct restore *restore);
void restore_close(struct restore *restore);

/** A checkpoint comes now: make room for as much as its manifest says, which is believed no further. Before its chunks; one thread. */
void restore_checkpoint_begin(struct restore *restore, const struct checkpoint_manifest *manifest);
/** A chunk, whose digest has been checked. Thread: the worker's own.
 *  @return 0, -EBADMSG (contradicts itself or others), -ENOMEM */
int restore_chunk(struct restore *restore, unsigned worker, const struct checkpoint_chunk *chunk);

/** All chunks have been seen by all workers: do counts and digests agree with what the checkpoint says? One thread.
 *  Sets clocks, horizon and cursors. @return 0 or -EBADMSG */
int restore_checkpoint_end(struct restore *restore, const struct checkpoint_manifest *manifest);

/** A group, verified and in order; its header says horizon and cell time. Thread: the worker's own.
 *  @return 0, -EBADMSG (contradicts the state: digest or total differ, unknown record), -ENOMEM */
int restore_group(struct restore *restore, unsigned worker, const struct wal_group_view *group);

/** Recompute from the tables what the digests of this worker's partitions and what its ledgers must be. Visits every account.
 *  Thread: the worker's own. @return 0, -EBADMSG, -ENOMEM */
int restore_verify(struct restore *restore, unsigned worker);

/** All groups have been seen by all workers: totals agree, books balance, nothing is named that was never created. One thread.
 *  Always called, with or without a checkpoint before it: only now the lcores know what is theirs. @return 0, -EBADMSG, -ENOMEM */
int restore_end(struct restore *restore);

#endif

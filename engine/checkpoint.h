/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_CHECKPOINT_H
#define TALLY_ENGINE_CHECKPOINT_H

#include "wal/checkpoint_format.h"

/** The walk of one lcore over its own tables for a checkpoint, in slices between bursts, while everything goes on.
 *  The state is that at the end of group `seq`: a record that changes before the walk reaches it is saved first.
 *  Flow:  board->checkpoint_seq -> [checkpoint] -> chunks -> wal_step -> checkpoint files
 *  Owner: the engine lcore. Bounds: a slice of CHECKPOINT_SLICE_RECORDS records; engine_config.checkpoint_chunks chunks.
 *  Keeps: INV-1, INV-6, INV-8, INV-9. Rules: design section 6.
 *
 *  Which records have changed since `seq`? Those whose group (`reserved` of an account, `group` of a pending transfer, the place of an
 *  id) is one of seq+1 .. open_group. Only the low 32 bits of the first two are kept, so the walk refreshes what has not changed for
 *  2^30 groups. */

struct engine_lcore;

/** One slice of the walk, if a checkpoint is under way. Never blocks; waits for chunks by doing nothing.
 *  @return records looked at; 0: nothing to do, or no chunk free */
unsigned engine_checkpoint(struct engine_lcore *lcore);

#endif

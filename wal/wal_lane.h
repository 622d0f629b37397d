/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_LANE_H
#define TALLY_WAL_WAL_LANE_H

#include "wal/wal.h"

/** The WAL's side of the rings between an engine lcore and the WAL (the lcore's side is in wal/wal.h).
 *  Thread: the WAL lcore. Nothing blocks; no push can fail, for the other side bounds what is on its way. */

/** The oldest hand-over that was not taken yet, or NULL. It stays the WAL's until wal_lane_handover_taken. */
const struct wal_handover *wal_lane_handover_peek(const struct wal_lane *lane);
void wal_lane_handover_taken(struct wal_lane *lane);

/** The oldest fetch that was not taken yet. @return 1, or 0 when there is none */
int wal_lane_fetch_peek(const struct wal_lane *lane, wal_place_t *place, uint64_t *cookie);
void wal_lane_fetch_taken(struct wal_lane *lane);

/** The slot for the next answer; wal_lane_answer_put publishes it. */
struct wal_fetch *wal_lane_answer_slot(struct wal_lane *lane);
void wal_lane_answer_put(struct wal_lane *lane);

/** The oldest chunk that was not taken yet, or NULL. */
struct checkpoint_chunk *wal_lane_chunk_peek(const struct wal_lane *lane);
void wal_lane_chunk_taken(struct wal_lane *lane);
/** Give a chunk back that was taken. Never fails: the ring has a slot for each. */
void wal_lane_chunk_return(struct wal_lane *lane, struct checkpoint_chunk *chunk);

#endif

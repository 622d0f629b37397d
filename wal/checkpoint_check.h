/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_CHECKPOINT_CHECK_H
#define TALLY_WAL_CHECKPOINT_CHECK_H

#include "wal/checkpoint_format.h"

/** Judge a checkpoint's bytes by themselves: whatever is read from a disk goes through here before it is believed.
 *  Flow:  disk -> [checkpoint_check] -> recovery, checkpoint_inspect, tally backup
 *  Pure: no disk, no allocation. Keeps: INV-6. */

/** Bytes of one record of a kind; 0: an lcore's chunk, whose one record has no fixed size, or no kind at all. */
uint32_t checkpoint_record_bytes(uint16_t kind);

/** A page that should be the manifest of checkpoint `seq`.
 *  @param cell_id 16 bytes, or NULL: any cell
 *  @param why set to what is wrong, unless it is good
 *  @return good, zero, damaged, newer or foreign */
enum wal_page_state checkpoint_manifest_check(const struct checkpoint_manifest *manifest,
                                              const uint8_t *cell_id, seq_t seq, const char **why);

/** Bytes that should be chunk `number` of a checkpoint whose manifest is good: digest, head, and that its records fit. Of an lcore's
 *  chunk also that its partitions agree with its sums. Records themselves may still contradict each other. */
enum wal_page_state checkpoint_chunk_check(const struct checkpoint_chunk *chunk,
                                           const struct checkpoint_manifest *manifest,
                                           uint64_t number, const char **why);

/** Set fill and digest; everything else is set already. */
void checkpoint_manifest_seal(struct checkpoint_manifest *manifest);
void checkpoint_chunk_seal(struct checkpoint_chunk *chunk);

/** The entries of an lcore's chunk that is good. @return partition_count of them */
const struct checkpoint_partition *checkpoint_partitions(const struct checkpoint_chunk *chunk);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_RECOVER_H
#define TALLY_WAL_WAL_RECOVER_H

#include "wal/wal_reader.h"

/** What recovery does with the log beside handing its groups on: it takes note of where they stand, and cuts a torn tail, so that the first
 *  new write meets zeros only.
 *  Flow:  wal_reader -> [wal_recover] -> wal_position -> wal_open
 *  Control path: blocks, allocates. Keeps: INV-3. */

/** The group is good: the log goes on behind it. position->index must be there. @return 0 or -ENOSPC (wal_index_note) */
int wal_position_take(struct wal_position *position, const struct wal_group_view *view);

/** Zero what stands behind the log's end, and sync it. Only where wal_reader_end says that the tail is torn.
 *  @param cut_bytes what was cut is added to it. @return 0 or -errno with `error` filled */
int wal_cut_tail(struct disk *disk, const struct wal_reader *reader, uint64_t *cut_bytes,
                 char *error, size_t error_bytes);
/** The same without changing anything: how many bytes would be cut. */
int wal_count_tail(struct disk *disk, const struct wal_reader *reader, uint64_t *torn_bytes,
                   char *error, size_t error_bytes);

#endif

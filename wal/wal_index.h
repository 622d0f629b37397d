/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_INDEX_H
#define TALLY_WAL_WAL_INDEX_H

#include "engine/base/types.h"

/** Where groups lie in the log, sparsely: the first group of every file, and one at least every WAL_INDEX_BYTES behind
 *  the one before. So the header pages of all groups that belong to an entry start within WAL_INDEX_BYTES of it.
 *  Flow:  wal_recover, wal_step -> [wal_index] -> wal_fetch
 *  Owner: the WAL. Bounds: 24 bytes for every 64 KiB of log. */

#define WAL_INDEX_BYTES 65536u

struct wal_index_entry {
    seq_t seq;
    uint64_t file;
    uint64_t offset;
};

struct wal_index;

/** @return NULL when there is no memory */
struct wal_index *wal_index_new(void);
void wal_index_free(struct wal_index *index);
/** Take note of a group; groups come in order. @return 0 or -ENOMEM */
int wal_index_note(struct wal_index *index, seq_t seq, uint64_t file, uint64_t offset);
/** The last entry at or before a group. @return NULL when there is none */
const struct wal_index_entry *wal_index_find(const struct wal_index *index, seq_t seq);

#endif

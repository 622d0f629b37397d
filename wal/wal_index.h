/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_INDEX_H
#define TALLY_WAL_WAL_INDEX_H

#include "engine/base/types.h"

/** What is known of the log without reading it.
 *  Where groups lie, sparsely: the first group of every file, and one at least every WAL_INDEX_BYTES behind the one before. So
 *  the header pages of all groups that belong to an entry start within WAL_INDEX_BYTES of it (a full index only makes walks longer).
 *  And of every file: its first group, and the cell time of its last one.
 *  Flow:  recovery, wal_step -> [wal_index] -> wal_fetch, log file removal, checkpoint -> recovery
 *  Owner: the WAL. Nothing is allocated after wal_index_new: both lists are rings in reserved address space, touched as they grow.
 *  Bounds: WAL_INDEX_ENTRIES_MAX entries (1 TiB of log at the least), WAL_INDEX_FILES_MAX files; 24 bytes each. */

#define WAL_INDEX_BYTES 65536u
#define WAL_INDEX_ENTRIES_MAX (1u << 24)
#define WAL_INDEX_FILES_MAX (1u << 20)

struct wal_index_entry {
    seq_t seq;
    uint64_t file;
    uint64_t offset;
};

struct wal_index_file {
    uint64_t file;
    seq_t first_seq;
    uint64_t last_cell_time; /**< ns, of its last group so far */
};

struct wal_index;
struct checkpoint_chunk; /* wal/checkpoint_format.h */

/** @return NULL when there is no memory */
struct wal_index *wal_index_new(void);
void wal_index_free(struct wal_index *index);
/** Take note of a group; groups come in order. @return 0, or -ENOSPC when the group begins one file too many */
int wal_index_note(struct wal_index *index, seq_t seq, uint64_t file, uint64_t offset,
                   uint64_t cell_time);
/** The last entry at or before a group. @return NULL when there is none */
const struct wal_index_entry *wal_index_find(const struct wal_index *index, seq_t seq);
/** The oldest file that holds a group. @return NULL when there is none */
const struct wal_index_file *wal_index_oldest(const struct wal_index *index);
/** Forget what lies in files below `file`. */
void wal_index_trim(struct wal_index *index, uint64_t file);

/** Where an export stands: zero at its beginning. No trimming meanwhile. */
struct wal_index_export {
    uint32_t files, entries; /**< done */
};
/** Fill kind, record count and size, and payload of a chunk with what concerns groups up to `seq`: first CHECKPOINT_LOG_FILES
 *  chunks, then CHECKPOINT_LOG_INDEX. Bounded by the chunk's size.
 *  @return 1 with a chunk, 0 when there is no more */
int wal_index_export(const struct wal_index *index, seq_t seq, struct wal_index_export *export,
                     struct checkpoint_chunk *chunk);
/** Take such a chunk in, into an index that has seen nothing but earlier ones. The chunk's digest is right; its contents are checked.
 *  @return 0, -EBADMSG (no order in it), -ENOSPC */
int wal_index_import(struct wal_index *index, const struct checkpoint_chunk *chunk);

#endif

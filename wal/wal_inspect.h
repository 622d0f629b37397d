/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_INSPECT_H
#define TALLY_WAL_WAL_INSPECT_H

#include "engine/base/seams.h"
#include "wal/wal.h"
#include "wal/wal_format.h"

/** `tally wal dump` and `tally wal verify`: a look at a log that changes nothing.
 *  Flow:  disk -> wal_reader -> [wal_inspect] -> visitor (tools/)
 *  Control path: blocks, allocates. A log that a running tallyd writes to may be looked at; its
 * last groups may then look unfinished. */

/** One good group, in log order. Pointers are good during the call only. */
struct wal_inspect_group {
    uint64_t file;
    const char *file_name;
    uint64_t file_offset; /**< of the header page */
    uint64_t bytes;       /**< header and body */
    uint64_t records;     /**< of all segments */
    const struct wal_header *header;
};

/** What is wrong, or where the log ends in a write that never completed. */
struct wal_damage {
    bool torn; /**< a torn tail: the next start cuts it. Otherwise the log is refused */
    uint64_t file;
    const char *file_name;
    uint64_t file_offset;
    uint64_t bytes;      /**< the range that is bad, as far as it is known */
    seq_t seq;           /**< the group that should stand there */
    const char *message; /**< one line: what, where, and what to do */
};

/** All may be NULL. A return of not 0 ends the walk with that value. */
struct wal_inspect_visitor {
    int (*group)(void *context, const struct wal_inspect_group *group);
    /** After the group it belongs to. `record` is 16-byte aligned and whole (see wal_record.h). */
    int (*record)(void *context, seq_t seq, unsigned lcore, uint32_t offset, const void *record,
                  size_t length);
    int (*damage)(void *context, const struct wal_damage *damage);
};

struct wal_inspect_summary {
    seq_t first_seq, last_seq; /**< 0: the log holds no group */
    term_t last_term;
    uint64_t files, groups, records, bytes;
    uint64_t torn_bytes; /**< behind the last good group; the next start cuts them */
    seq_t durable_seq;   /**< highest that a good group carries */
    uint64_t cell_time, horizon_ms;
    uint64_t end_file, end_offset; /**< behind the last good group */
};

/** Walk the whole log, verify everything, tell the visitor.
 *  @param identity NULL: any cell
 *  @return 0 (a torn tail is 0 too, see torn_bytes), -EBADMSG (corrupt), -ENODATA (a hole), -EPERM
 * (foreign cell), -ENOTSUP (newer format), another -errno, or what the visitor returned; `error` is
 * filled when it is not 0, unless the visitor ended the walk */
int wal_inspect(struct disk *disk, const struct wal_identity *identity,
                const struct wal_inspect_visitor *visitor, void *context,
                struct wal_inspect_summary *summary, char *error, size_t error_bytes);

/** Name of a record type ("transfer", "account", ...), or NULL. */
const char *wal_record_type_name(uint8_t type);

#endif

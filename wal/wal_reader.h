/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_READER_H
#define TALLY_WAL_WAL_READER_H

#include "engine/base/seams.h"
#include "wal/wal.h"
#include "wal/wal_format.h"

/** Reads the log's groups in order, verifies them, and decides what its end is: the end, a torn tail, or damage.
 *  Flow:  disk -> [wal_reader] -> recovery, wal_inspect
 *  Control path: blocks, allocates, changes nothing. Keeps: INV-3, INV-6. */

/** What stands where the next group should. */
enum wal_finding {
    WAL_FOUND_NOTHING, /**< the page is all zero, or there is no page */
    WAL_FOUND_UNFINISHED, /**< damaged, and one of its sectors is all zero: its write never completed */
    WAL_FOUND_DAMAGED,      /**< damaged, every sector written */
    WAL_FOUND_OUT_OF_CHAIN, /**< a good group, but not the next one */
    WAL_FOUND_FOREIGN,      /**< another cell's */
    WAL_FOUND_NEWER,        /**< a format version that this program does not know */
};

/** What stands behind that place, up to the end of the last file; the worst that is there. */
enum wal_behind {
    WAL_BEHIND_ZERO,
    WAL_BEHIND_REMAINS, /**< bytes, perhaps groups, but none that proves anything */
    WAL_BEHIND_PROOF, /**< a later group, same term or later, whose durable_seq covers the place: it was durable */
    WAL_BEHIND_ITSELF,  /**< the very group that should stand at the place */
    WAL_BEHIND_FOREIGN, /**< another cell's group */
    WAL_BEHIND_NEWER,
};

enum wal_verdict {
    WAL_VERDICT_END,
    WAL_VERDICT_TORN,    /**< to be cut */
    WAL_VERDICT_CORRUPT, /**< -EBADMSG */
    WAL_VERDICT_HOLE,    /**< -ENODATA */
    WAL_VERDICT_FOREIGN, /**< -EPERM */
    WAL_VERDICT_NEWER,   /**< -ENOTSUP */
};

/** The decision, a table in wal_reader.c. */
enum wal_verdict wal_verdict_of(enum wal_finding finding, enum wal_behind behind);

/** A good group in the reader's buffer; good until the next call, or as long as it is held. */
struct wal_group_view {
    const struct wal_header *header;
    const uint8_t *body;
    uint64_t file;
    uint64_t file_offset; /**< of the header */
    uint64_t bytes;       /**< header and body */
};

/** Where and why reading ended. */
struct wal_reader_end {
    enum wal_verdict verdict;
    uint64_t file, file_offset; /**< where the next group goes, or where the bad bytes begin */
    uint64_t bytes;             /**< how many are bad, as far as it is known; 0 at a clean end */
    seq_t seq;                  /**< the group that should stand there */
};

/** Where reading begins: behind a group that is known. */
struct wal_reader_start {
    bool
        anywhere; /**< with the first group of the first file there is, whatever it is; nothing else here counts */
    seq_t seq; /**< the group before; 0: none */
    term_t term;
    uint8_t digest[WAL_DIGEST_BYTES]; /**< of its header */
    uint64_t cell_time, horizon_ms;
    uint64_t file, file_offset; /**< where the next one stands */
};

struct wal_reader;

/** List the files and look at their sizes.
 *  @param identity NULL: any cell, any file size
 *  @param sync sync every file before reading it, so that what is read stays read
 *  @return 0, -ENODATA (a file or bytes of it are missing), -errno; `error` filled */
int wal_reader_open(struct disk *disk, const struct wal_identity *identity, bool sync,
                    struct wal_reader **reader, char *error, size_t error_bytes);
/** The same from another start than the log's own. Files before it are not looked at. */
int wal_reader_open_at(struct disk *disk, const struct wal_identity *identity, bool sync,
                       const struct wal_reader_start *start, struct wal_reader **reader,
                       char *error, size_t error_bytes);
void wal_reader_close(struct wal_reader *reader);

/** This group and all behind it stay until another one, or NULL for none, is held. */
void wal_reader_hold(struct wal_reader *reader, const struct wal_group_view *view);

/** Where the log begins. @param file 0: there is none. @param seq 0: its first page is not a good group's
 *  @return 0 or -errno */
int wal_log_begin(struct disk *disk, const struct wal_identity *identity, uint64_t *file,
                  seq_t *seq);

/** @return 1 with a group; 0 at the end (clean or torn: wal_reader_end); -EBADMSG, -ENODATA, -EPERM, -ENOTSUP, -errno,
 *          with `error` filled; -EAGAIN when what is held leaves no room (hold less, and call again) */
int wal_reader_next(struct wal_reader *reader, struct wal_group_view *view, char *error,
                    size_t error_bytes);
const struct wal_reader_end *wal_reader_end(const struct wal_reader *reader);
/** Number of the last file; 0 when there is none. */
uint64_t wal_reader_last_file(const struct wal_reader *reader);

/** Hand every record of a group over, where it lies.
 *  @return 0, -EBADMSG (a record is malformed, or their number is wrong; `error` filled), or what `replay` returned,
 *          then with an empty `error` */
int wal_group_records(struct disk *disk, const struct wal_group_view *view, wal_replay_fn *replay,
                      void *context, char *error, size_t error_bytes);

#endif

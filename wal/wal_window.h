/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_WINDOW_H
#define TALLY_WAL_WAL_WINDOW_H

#include "engine/base/seams.h"

/** A window that moves over the log's files from front to back, several reads ahead of its user.
 *  Flow:  disk -> [wal_window] -> wal_reader
 *  Control path: blocks. Bounds: WAL_WINDOW_BYTES, or the largest group if that is more; WAL_WINDOW_READS in flight.
 *
 *  All files have one size, so the log is one line of bytes. The window is a ring that is mapped twice, one behind the
 *  other: whatever lies in it is contiguous, and nothing is ever copied. */

#define WAL_WINDOW_BYTES (16u << 20)
#define WAL_WINDOW_PIECE_BYTES (1u << 20)
#define WAL_WINDOW_READS 4

struct wal_window_read {
    bool done;
    struct disk_io io;
};

struct wal_window {
    struct disk *disk;
    uint64_t first_file;  /**< number of the file in which the line begins */
    uint64_t file_bytes;  /**< size of every file */
    uint64_t total_bytes; /**< of all files */
    uint8_t *bytes;       /**< `room` bytes, and the same once more */
    size_t room;
    uint64_t start, end,
        ahead;     /**< on the line: [start, end) can be looked at, [end, ahead) is on its way */
    uint64_t held; /**< on the line: what stands from here on stays; UINT64_MAX: nothing is held */
    struct wal_window_read reads[WAL_WINDOW_READS]; /**< oldest at first_read */
    unsigned first_read, read_count;
};

/** Over the files first_file .. last_file, of one size. @return 0 or -errno */
int wal_window_open(struct wal_window *window, struct disk *disk, uint64_t file_bytes,
                    uint64_t first_file, uint64_t last_file);
void wal_window_close(struct wal_window *window);

/** Bytes [offset, offset + length) of a file; 4 KiB multiples within the file. Earlier answers end with the call, but for those at or behind
 *  what is held.
 *  @return 0; -EAGAIN where there is no room beside what is held; -errno */
int wal_window_get(struct wal_window *window, uint64_t file, uint64_t offset, uint64_t length,
                   const uint8_t **bytes);
/** From here on everything that was answered stays, until another place or file 0 (nothing) is held. */
void wal_window_hold(struct wal_window *window, uint64_t file, uint64_t offset);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_WINDOW_H
#define TALLY_WAL_WAL_WINDOW_H

#include "engine/base/seams.h"

/** A window on a log file that is read from front to back in big pieces.
 *  Flow:  disk -> [wal_window] -> wal_reader
 *  Control path. Bounds: WAL_WINDOW_BYTES, or the largest group if that is more. */

#define WAL_WINDOW_BYTES (4u << 20)

struct wal_window {
    struct disk *disk;
    uint8_t *bytes; /**< 4 KiB aligned */
    size_t room;
    uint64_t file, start, end; /**< bytes [start, end) of the file are in `bytes`; file 0: none */
    uint64_t file_bytes;       /**< size of every file */
};

/** @return 0 or -ENOMEM */
int wal_window_open(struct wal_window *window, struct disk *disk, uint64_t file_bytes);
void wal_window_close(struct wal_window *window);

/** Bytes [offset, offset + length) of a file; 4 KiB multiples within the file. Earlier answers end with the call.
 *  @return 0 or -errno */
int wal_window_get(struct wal_window *window, uint64_t file, uint64_t offset, uint64_t length,
                   const uint8_t **bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_CHECKPOINT_READER_H
#define TALLY_WAL_CHECKPOINT_READER_H

#include "engine/base/seams.h"
#include "wal/checkpoint_format.h"

/** Reads a checkpoint's chunks in order, several reads ahead of its user; each is checked before it is handed on, and in the end all of
 *  them together. (Manifests: checkpoint_inspect.h.)
 *  Flow:  disk -> [checkpoint_reader] -> recovery
 *  Control path: blocks, allocates, changes nothing. Bounds: the memory that it is given. Keeps: INV-3, INV-6. */

#define CHECKPOINT_READER_BYTES ((size_t)16 << 20) /**< enough for one who takes chunks in order */

struct checkpoint_reader;

/** @param bytes for chunks that have been read and not been released, rounded up
 *  @return 0; -EBADMSG (the file is shorter or longer than the manifest says), -ENOENT, -ENOMEM, -errno; `error` filled */
int checkpoint_reader_open(struct disk *disk, const struct checkpoint_manifest *manifest,
                           size_t bytes, struct checkpoint_reader **reader, char *error,
                           size_t error_bytes);
void checkpoint_reader_close(struct checkpoint_reader *reader);

/** The next chunk, good until it is released.
 *  @return 1 with a chunk; 0 behind the last, when all of them together are what the manifest says; -EAGAIN when those that are not
 *          released leave no room; -EBADMSG (damaged), -errno with `error` filled */
int checkpoint_reader_next(struct checkpoint_reader *reader, const struct checkpoint_chunk **chunk,
                           char *error, size_t error_bytes);
/** Chunks below this number are not looked at any more. */
void checkpoint_reader_release(struct checkpoint_reader *reader, uint64_t number);

#endif

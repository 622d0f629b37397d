/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_DATA_DIR_H
#define TALLY_WAL_DATA_DIR_H

#include "engine/base/seams.h"
#include "wal/wal.h"

/** A node's data directory: who it belongs to, who holds it, its log and its checkpoints.
 *
 *      DIRECTORY/superblock   4 KiB, written once by format
 *      DIRECTORY/lock         flock()ed by the tallyd that runs on it; holds its process id
 *      DIRECTORY/wal/         log segment files
 *      DIRECTORY/checkpoint/  data and manifests of checkpoints
 *      DIRECTORY/control      a socket, while tallyd runs (tools/control.h)
 *
 *  Flow:  tallyd format -> [data_dir_format];  tallyd run -> [data_dir_open] -> recovery_run -> wal_open
 *  Control path: blocks, allocates. Every refusal is one line that says what is wrong and what would be right. */

#define DATA_DIR_FILE_BYTES_DEFAULT (64u << 20)
#define DATA_DIR_GROUPS_IN_FLIGHT_DEFAULT 4

struct data_dir_settings {
    struct wal_identity identity; /**< with file_bytes */
    uint32_t groups_in_flight;    /**< K, 1..WAL_GROUPS_IN_FLIGHT_MAX */
    uint64_t created_ns;          /**< Unix time */
    uint8_t parent_cell_id[16];   /**< the cell that this one began as a backup of; zero: none */
};

enum data_dir_mode {
    DATA_DIR_READ_ONLY,      /**< takes no lock, changes nothing (`tally wal`) */
    DATA_DIR_LOCK,           /**< takes the lock (`tallyd run`, `tally shell --wal`) */
    DATA_DIR_LOCK_READ_ONLY, /**< takes the lock, changes nothing (`tally backup` of a stopped node) */
};

struct data_dir;

/** Make a new data directory with its superblock and its first log file. The directory is made, or
 * is empty.
 *  @param settings created_ns and everything of the identity, cell_id (random) and seeds included
 *  @return 0, -ENOTEMPTY (it holds something), -EINVAL (a setting), -EOPNOTSUPP (no O_DIRECT
 * there), -errno; `error` filled */
int data_dir_format(const char *path, const struct data_dir_settings *settings, char *error,
                    size_t error_bytes);

/** Begin a directory that somebody else fills (`tally backup`, `tally replay`): made, or empty, as for format, and locked; without
 *  log files, and without a superblock: until data_dir_finish it is nobody's.
 *  @return as data_dir_format */
int data_dir_begin(const char *path, const struct data_dir_settings *settings,
                   struct data_dir **dir, char *error, size_t error_bytes);
/** Everything in it is durable: it becomes a data directory. The lock stays until data_dir_close. @return 0 or -errno */
int data_dir_finish(struct data_dir *dir, char *error, size_t error_bytes);
/** It came to nothing: remove what stands in it, the directory too where data_dir_begin made it, and close it. */
void data_dir_abandon(struct data_dir *dir);

/** Open a data directory.
 *  @return 0, -ENOENT, -ENOTDIR, -EACCES, -EBUSY (another process has it, `error` says which),
 * -EBADMSG (damaged or not tally's), -ENOTSUP (newer format), -errno; `error` filled */
int data_dir_open(const char *path, enum data_dir_mode mode, struct data_dir **dir, char *error,
                  size_t error_bytes);
void data_dir_close(struct data_dir *dir);

const struct data_dir_settings *data_dir_settings(const struct data_dir *dir);
/** The disk of log and checkpoints; the directory's own. */
struct disk *data_dir_disk(struct data_dir *dir);
/** The solo coordinator: leads while the directory's lock is held, in the term after the log's
 * last. */
struct coordinator *data_dir_coordinator(struct data_dir *dir);

#endif

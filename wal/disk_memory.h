/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_DISK_MEMORY_H
#define TALLY_WAL_DISK_MEMORY_H

#include "engine/base/seams.h"

/** A disk in memory, for the engine shell, tests and simulation. Deterministic: operations complete
 * at poll, in the order of submission unless told otherwise. Faults are counted down by the
 * caller's numbers, never by chance. Thread: one at a time. */

struct disk_memory_faults {
    uint64_t
        fail_write_at; /**< the n-th write to the log from now on (1 is the next) fails; 0: none */
    int fail_write_errno;    /**< with this (positive); 0: it is short by one page instead */
    uint64_t fail_read_at;   /**< the n-th asynchronous read fails with EIO */
    uint64_t fail_create_at; /**< the n-th DISK_CREATE of a log file, and likewise: */
    uint64_t fail_checkpoint_create_at;
    uint64_t fail_checkpoint_write_at;
    uint64_t fail_sync_at, fail_publish_at, fail_remove_at;
    int fail_errno; /**< these five and fail_create_at fail with this; 0: EIO */
    bool hold;      /**< nothing completes until released */
    bool reverse;   /**< what is ready completes newest first */
    uint64_t
        capacity_bytes; /**< all files together; what would take more fails with ENOSPC; 0: no limit */
};

/** @return 0 or -ENOMEM */
int disk_memory_open(struct disk **disk);
void disk_memory_close(struct disk *disk);

/** The faults in force; change them at any time. */
struct disk_memory_faults *disk_memory_faults(struct disk *disk);

/** Held or queued operations, oldest first. @return how many */
unsigned disk_memory_pending(const struct disk *disk);
/** The index-th of them. @return NULL when there are not so many */
const struct disk_io *disk_memory_queued(const struct disk *disk, unsigned index);
/** Let the index-th queued operation (oldest is 0) complete at the next poll although `hold` is
 * set.
 *  @return 0 or -ENOENT */
int disk_memory_release(struct disk *disk, unsigned index);

/** Power cut: every write that has not completed, or that no DISK_SYNC followed where it needs one, reaches the disk sector
 *  by sector as `keep_sector` says (NULL: not at all); a DISK_PUBLISH or DISK_REMOVE that has not completed happened if it
 *  says so of sector 0. From then on nothing is taken any more; poll gives what was queued back with -EIO and then answers
 *  -EIO itself, until disk_memory_restart. */
void disk_memory_crash(struct disk *disk,
                       bool (*keep_sector)(void *context, uint64_t file, uint64_t sector),
                       void *context);
void disk_memory_restart(struct disk *disk);

/** The bytes of a file, to look at and to damage. @return NULL when there is none */
uint8_t *disk_memory_bytes(struct disk *disk, uint64_t file, uint64_t *bytes);
/** Cut or lengthen a file (with zeros); makes it when it is not there. @return 0 or -ENOMEM */
int disk_memory_resize(struct disk *disk, uint64_t file, uint64_t bytes);
/** @return 0 or -ENOENT */
int disk_memory_remove(struct disk *disk, uint64_t file);
/** A new disk with the same files, no faults and nothing queued. @return 0 or -ENOMEM */
int disk_memory_copy(struct disk *disk, struct disk **copy);

#endif

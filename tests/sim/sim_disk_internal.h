/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_DISK_INTERNAL_H
#define TALLY_TESTS_SIM_SIM_DISK_INTERNAL_H

#include "tests/sim/sim_disk.h"

/** Inside of the simulated disk: sim_disk.c takes and answers operations, sim_disk_files.c holds the bytes. */

#define SIM_SECTOR_BYTES 512u
#define SIM_PAGE_BYTES 4096u

struct sim_file {
    uint64_t file; /**< disk_file() */
    uint8_t *bytes;
    uint64_t size, room;
    uint64_t durable_size; /**< what a power cut leaves of it at least */
    bool harmed;           /**< something malign was done to it */
    bool name_durable;     /**< false: a power cut may take the file as a whole */
};

/** What a sector held before a write that is not durable. */
struct sim_undo {
    uint64_t file, sector;
    bool lied; /**< reported as durable: no sync changes that */
    uint8_t before[SIM_SECTOR_BYTES];
};

enum sim_store {
    SIM_STORE_DURABLE,  /**< of a log file; of others unsynced */
    SIM_STORE_UNSYNCED, /**< a power cut may take it */
    SIM_STORE_LIED,     /**< the same, and no sync helps */
    SIM_STORE_SOME,     /**< some of its sectors */
};

const char *sim_disk_operation_name(uint8_t operation);

/** Each answers what the operation would: bytes, 0, or -errno. */
int64_t sim_disk_fetch(struct sim_disk *disk, const struct disk_io *io);
int64_t sim_disk_fetch_flipped(struct sim_disk *disk, const struct disk_io *io);
int64_t sim_disk_store(struct sim_disk *disk, const struct disk_io *io, enum sim_store how);
/** Something malign is done to a file. */
void sim_disk_harm(struct sim_disk *disk, uint64_t file);
/** Whole, and somewhere else. */
void sim_disk_store_elsewhere(struct sim_disk *disk, const struct disk_io *io);
/** DISK_CREATE, DISK_SYNC, DISK_PUBLISH, DISK_REMOVE. */
int64_t sim_disk_change(struct sim_disk *disk, const struct disk_io *io);
/** The file's bytes, size and name are durable. @return 0 or -ENOENT */
int sim_disk_settle(struct sim_disk *disk, uint64_t file);

#endif

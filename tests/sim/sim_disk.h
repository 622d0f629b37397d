/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_DISK_H
#define TALLY_TESTS_SIM_SIM_DISK_H

#include "engine/base/seams.h"
#include "tests/sim/sim.h"

/** A disk that lives in simulated time and does everything that disks do to those who trust them.
 *  Flow:  wal_step, recovery -> [sim_disk] -> files in memory;  sim_world -> faults, power cuts
 *  Owner: one node. Bounds: SIM_DISK_QUEUE operations on their way.
 *
 *  What a completed operation promises is what engine/base/seams.h says. What is not promised yet (a write in flight, bytes
 *  written and not synced, a file not synced) a power cut takes or leaves, sector by sector, as it is drawn. */

#define SIM_DISK_QUEUE 96

/** How often what happens, in a million operations. Drawn by sim_plan.c. */
struct sim_disk_plan {
    uint64_t latency_ns; /**< of a usual operation; drawn between a half and the double */
    uint32_t slow_ppm;
    uint32_t slow_times; /**< slower by this factor */
    uint32_t queue_full_ppm;
    uint32_t write_failed_ppm, write_short_ppm, read_failed_ppm, create_failed_ppm, disk_full_ppm;
    uint64_t capacity_bytes; /**< all files together; 0: no limit */
    /* malign */
    uint32_t read_flipped_ppm, write_lost_ppm, write_misdirected_ppm, write_holed_ppm,
        sync_lied_ppm;
};

/** Who wants to know what the disk has taken and what it has promised. */
struct sim_disk_watch {
    void (*submitted)(void *context, const struct disk_io *io);
    /** It is done, and the answer is about to be given. */
    void (*completed)(void *context, const struct disk_io *io);
    /** A read failed or was wrong, or what is stored was harmed. */
    void (*unsound)(void *context);
    void *context;
};

struct sim_file;
struct sim_undo;

struct sim_operation {
    struct disk_io *io;
    uint64_t due_ns;
    int64_t answer; /**< what it will say; 0: what it did */
    enum sim_fault fault;
    bool faulty;
};

struct sim_disk {
    struct disk disk; /**< first */
    struct sim *sim;
    struct sim_random random;
    struct sim_disk_plan plan; /**< in force; the world turns faults off by zeroing it */
    struct sim_disk_watch watch;
    struct sim_file *files; /**< ascending */
    unsigned file_count;
    uint64_t total_bytes;
    struct sim_undo
        *undo; /**< what sectors held before writes that are not durable, oldest first */
    size_t undo_count, undo_room;
    struct sim_operation queue[SIM_DISK_QUEUE]; /**< in the order of submission */
    unsigned queued;
    bool blocking;   /**< the node starts: whatever is queued is done when it is asked for */
    bool dead;       /**< nothing is taken any more, until sim_disk_restart */
    uint64_t cut_in; /**< power fails at the n-th boundary from now; 0: at none */
    uint64_t errors; /**< failures answered so far that a start may stumble over */
    uint64_t flips;  /**< reads answered with a flipped bit */
    uint64_t files_lost;
    uint64_t harm; /**< malign things that were done to what is stored */
    char name[64];
};

void sim_disk_open(struct sim_disk *disk, struct sim *sim, const struct sim_disk_plan *plan);
void sim_disk_close(struct sim_disk *disk);

/** When the next queued operation is due; UINT64_MAX: none is queued. */
uint64_t sim_disk_next_ns(const struct sim_disk *disk);

/** Power is gone, now. */
void sim_disk_cut_power(struct sim_disk *disk);
/** The process is gone: what the kernel has in flight is made, and is not durable yet. */
void sim_disk_kill(struct sim_disk *disk);
/** A new process looks at the same files. */
void sim_disk_restart(struct sim_disk *disk);
/** Nothing more goes wrong; what happened stays. */
void sim_disk_heal(struct sim_disk *disk);

/** Damage what stands at `offset` of a file: a bit, a sector or a page, as it is drawn. @return false: nothing stands there */
bool sim_disk_rot(struct sim_disk *disk, uint64_t file, uint64_t offset);
/** A file goes. @return false: there is none */
bool sim_disk_lose_file(struct sim_disk *disk, uint64_t file);

/** The bytes of a file as they are now. @return NULL when there is none */
const uint8_t *sim_disk_bytes(const struct sim_disk *disk, uint64_t file, uint64_t *bytes);
/** Whether something malign was done to a file that is there. */
bool sim_disk_harmed(const struct sim_disk *disk, uint64_t file);
/** The n-th of all files, n < file_count. */
uint64_t sim_disk_any_file(const struct sim_disk *disk, unsigned n);
/** The n-th file of a kind. @return 0 when there are fewer */
uint64_t sim_disk_file(const struct sim_disk *disk, enum disk_file_kind kind, unsigned n);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_CHECKPOINT_H
#define TALLY_WAL_WAL_CHECKPOINT_H

#include "engine/base/seams.h"
#include "wal/checkpoint_format.h"
#include "wal/wal.h"
#include "wal/wal_index.h"

/** The log's side of checkpoints: when one begins, its chunks on their way to disk, its publication; and which checkpoints and
 *  log files stand (wal_retention.c).
 *  Flow:  lanes -> [wal_checkpoint_step] -> disk -> manifest -> [wal_retention_step] -> files that go
 *  Owner: the WAL lcore. Bounds: CHECKPOINT_WRITES chunks in flight, one taken a turn, one blocking operation at a time; the log's own
 *  writes and files come first. What fails here gives the checkpoint up, never the log. Keeps: INV-3, INV-6, INV-9. */

/** Chunk writes in flight. Two keep the disk busy while the lcore turns (850 MiB/s here against 700 with one, 250 us each against 150);
 *  more would only stand in the log's way. Slower would be no kindness: changes wait for what is saved before them. */
#define CHECKPOINT_WRITES 2
/** The data file is synced in between: 0.5 to 1 ms each, and the disk's cache stays small. */
#define CHECKPOINT_SYNC_BYTES (64ull << 20)
#define CHECKPOINTS_MAX 8 /**< that may stand while somebody holds them */
#define CHECKPOINT_STRAYS_MAX 32
#define CHECKPOINT_RETRY_NS                                                                        \
    NS_PER_SECOND /**< after a failure; doubles with each, up to 256 times */
#define CHECKPOINT_SEQS_MAX                                                                        \
    ((seq_t)1 << 29)           /**< groups between two: records know the low 32 bits of theirs */
#define WAL_ID_AHEAD_MS 60000u /**< an id may be ahead of the cell time of its group by so much */

enum wal_checkpoint_state {
    WAL_CHECKPOINT_IDLE,
    WAL_CHECKPOINT_CREATING, /**< its data file is being made; lcores walk already */
    WAL_CHECKPOINT_WRITING,  /**< chunks of lcores, then the log's own */
    WAL_CHECKPOINT_SYNCING,
    WAL_CHECKPOINT_COMMITTING, /**< whole and durable; waits for the groups that went on meanwhile */
    WAL_CHECKPOINT_PUBLISHING,
    WAL_CHECKPOINT_ABANDONING, /**< its writes come back, then its data file goes */
};

/** What the helper does for us. */
enum wal_checkpoint_use {
    WAL_USE_NONE,
    WAL_USE_CREATE,
    WAL_USE_WRITE, /**< not by the helper; for what is said of failures */
    WAL_USE_SYNC_BETWEEN,
    WAL_USE_SYNC,
    WAL_USE_PUBLISH,
    WAL_USE_DISCARD, /**< the data file of one that was abandoned */
    WAL_USE_STRAY,
    WAL_USE_MANIFEST, /**< of the checkpoint that two newer ones have replaced */
    WAL_USE_LOG_FILE,
};

/** A chunk on its way to disk. */
struct wal_checkpoint_write {
    struct checkpoint_chunk *chunk; /**< NULL: free */
    struct checkpoint_chunk *own;   /**< memory for what the log itself writes */
    unsigned lane;                  /**< to give it back to; lane_count: `own` */
    bool submitted;
    struct disk_io io;
};

/** A published checkpoint. */
struct wal_checkpoint_kept {
    seq_t seq;
    uint64_t log_file; /**< replay from it begins in this one */
};

struct wal_checkpoint {
    enum wal_checkpoint_state state;
    seq_t seq;
    bool due;                          /**< one begins when the next group opens */
    uint64_t ticket;                   /**< of those that this one serves */
    uint64_t bytes_mark, records_mark; /**< what had been logged when it began */
    uint64_t begun_ns;
    seq_t publish_after; /**< this group must be committed first */
    uint64_t lanes_done; /**< bit set: the lane's last chunk was taken */
    unsigned next_lane;
    uint64_t synced_bytes;
    struct wal_index_export listing;
    bool listing_begun; /**< no log file may leave the index until it is listed */
    bool listed;
    struct wal_digest_stream *digests;
    uint128_t state_digest;
    struct checkpoint_manifest *manifest;
    struct wal_checkpoint_write writes[CHECKPOINT_WRITES];

    enum wal_checkpoint_use use;
    bool helper_waits,
        helper_waited; /**< in this turn and the one before: it was wanted, but the log's next file came first */
    bool helper_last; /**< what it did last was ours */
    struct disk_io helper;

    /* since the last that was published */
    uint64_t logged_bytes, logged_records; /**< in all, by this run and what recovery read */
    uint64_t published_bytes, published_records;
    uint64_t published_ns;
    seq_t published_seq;
    unsigned failures; /**< one after the other */
    uint64_t retry_ns;

    /* retention */
    struct wal_checkpoint_kept kept[CHECKPOINTS_MAX]; /**< oldest first */
    unsigned kept_count;
    uint64_t strays[CHECKPOINT_STRAYS_MAX]; /**< files to be removed */
    unsigned stray_count;
    unsigned
        strays_urgent; /**< the first so many may bear numbers that come again: before anything begins */
    uint64_t first_file; /**< oldest log file that stands */
    unsigned removal_failures;
    uint64_t removal_retry_ns;

    struct wal_checkpoints counters;
    _Atomic uint64_t tickets, holds;
    /* the last failure: enum wal_checkpoint_use, of which checkpoint or log file, errno */
    _Atomic uint32_t failed_use;
    _Atomic uint64_t failed_number;
    _Atomic int failed_errno;
};

struct wal;
struct wal_slot;

/** Control path, at start: what stands, what has to go. @return 0 or -errno with `error` filled */
int wal_checkpoint_open(struct wal *wal, char *error, size_t error_bytes);
void wal_checkpoint_free(struct wal *wal);

/** One turn. @return how many things were done */
unsigned wal_checkpoint_step(struct wal *wal, uint64_t now_ns);
/** An operation of ours is done. */
void wal_checkpoint_done(struct wal *wal, struct disk_io *io, uint64_t now_ns);
/** Whether a group has to be opened although nothing was logged. */
bool wal_checkpoint_wants_group(const struct wal *wal);
/** Group `seq` ends with the opening of the next: a checkpoint that is due begins with it. Before open_group is stored. */
void wal_checkpoint_group_ends(struct wal *wal, seq_t seq, uint64_t now_ns);
/** A group was submitted, to the place where the log is. */
void wal_checkpoint_group_submitted(struct wal *wal, const struct wal_slot *slot);
/** Whether nothing is on its way any more. */
bool wal_checkpoint_quiet(const struct wal *wal);

/** Have the helper do something to a file, if it is free. @return whether it does */
bool wal_checkpoint_help(struct wal *wal, enum wal_checkpoint_use use,
                         enum disk_operation operation, uint64_t file, uint64_t now_ns);
/** Take note of a failure for wal_checkpoint_warning. @param number checkpoint or log file */
void wal_checkpoint_warn(struct wal *wal, enum wal_checkpoint_use use, uint64_t number, int rc);

/** Give the one under way up. @param rc -errno; -ECANCELED: nothing was wrong */
void wal_checkpoint_abandon(struct wal *wal, enum wal_checkpoint_use use, int rc, uint64_t now_ns);
static inline uint64_t wal_checkpoint_data(const struct wal_checkpoint *checkpoint) {
    return disk_file(DISK_CHECKPOINT_DATA, checkpoint->seq);
}

/* wal_checkpoint_chunks.c */
/** One chunk a turn goes to disk, when no group waits for it; those of an abandoned checkpoint go back at once.
 *  @return how many were taken */
unsigned wal_checkpoint_take_chunks(struct wal *wal, uint64_t now_ns);
/** All lanes are done: what is known of the log follows. @return how many things were done */
unsigned wal_checkpoint_write_own(struct wal *wal, uint64_t now_ns);
/** What the disk's queue had no room for. When the checkpoint is abandoned, it goes back instead. */
void wal_checkpoint_submit_again(struct wal *wal, uint64_t now_ns);
void wal_checkpoint_chunk_done(struct wal *wal, struct wal_checkpoint_write *write,
                               uint64_t now_ns);
/** Chunks that are not written yet, nor given back. */
unsigned wal_checkpoint_writes_busy(const struct wal_checkpoint *checkpoint);

/* wal_retention.c */
/** List what stands. @return 0 or -errno with `error` filled */
int wal_retention_open(struct wal *wal, char *error, size_t error_bytes);
/** Have the helper remove what may go. @return how many things were begun */
unsigned wal_retention_step(struct wal *wal, uint64_t now_ns);
/** A removal is done, and how. */
void wal_retention_done(struct wal *wal, enum wal_checkpoint_use use, uint64_t file, int rc,
                        uint64_t now_ns);
/** A file of checkpoints to be removed when nobody holds it. */
void wal_retention_stray(struct wal *wal, uint64_t file);
/** The horizon that would let the oldest log file go, when there is more log than the budget or no room on the disk; else 0. */
uint64_t wal_retention_horizon_ms(const struct wal *wal);
/** Whether it is a checkpoint that keeps the oldest log file, when there is more log than the budget. */
bool wal_retention_wants_checkpoint(const struct wal *wal);
/** Whether something is going or could go, so that a full disk will have room. */
bool wal_retention_makes_room(const struct wal *wal, uint64_t now_ns);
/** Whether a log file has been removed, or is about to be. */
bool wal_retention_removed(const struct wal *wal, uint64_t file);
/** Publish how much log stands. */
void wal_retention_count(struct wal *wal);

#endif

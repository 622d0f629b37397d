/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_INTERNAL_H
#define TALLY_WAL_WAL_INTERNAL_H

#include "engine/base/seams.h"
#include "wal/wal.h"
#include "wal/wal_checkpoint.h"
#include "wal/wal_format.h"
#include "wal/wal_index.h"

/** The WAL's own state, shared by the files that make up its turn and by nobody else.
 *  Flow:  wal.c (turn, commit, opening) -> wal_seal.c (hand-overs, header, submission) -> disk; wal_fetch.c beside it,
 *  wal_checkpoint.c and wal_retention.c too
 *  Owner: the WAL lcore. Bounds: K groups in flight, WAL_FETCH_SLOTS windows read back,
 *  WAL_FETCHES_A_TURN fetches on their way, one file being made. */

#define WAL_FETCH_SLOTS 16 /**< windows of the log that are in memory or being read */
#define WAL_FETCHES_A_TURN 64
#define WAL_FETCH_BUFFER_BYTES (WAL_INDEX_BYTES + WAL_PAGE_BYTES)
#define WAL_FETCH_HEADERS (WAL_INDEX_BYTES / WAL_PAGE_BYTES) /**< groups that start in a window */
#define WAL_CLOSING_DELAY_NS (1 * NS_PER_MS) /**< an idle log gets its closing group after this */
#define WAL_CREATE_RETRY_NS                                                                        \
    NS_PER_SECOND /**< a log file that could not be made is tried again after this */
#define WAL_DRAIN_PATIENCE_NS                                                                      \
    (10 * NS_PER_MS) /**< while draining, a silent lane with nothing open counts as stopped */

enum wal_slot_state {
    WAL_SLOT_FREE,
    WAL_SLOT_SEALED, /**< complete; waits for its file or for room in the disk's queue */
    WAL_SLOT_WRITING,
    WAL_SLOT_DURABLE, /**< waits for earlier groups */
};

/** A group from its last hand-over until its commit. Group g has slot g % WAL_GROUPS_IN_FLIGHT_MAX. */
struct wal_slot {
    enum wal_slot_state state;
    seq_t seq;
    seq_t durable_seq; /**< in its local block */
    bool closing;      /**< empty, and nobody waits for it: needs no proof of its own */
    uint64_t records;
    uint64_t submitted_ns;
    struct wal_header *header;
    struct disk_io io;
};

enum wal_fetch_window_state {
    WAL_WINDOW_EMPTY,   /**< nothing to be had: never read, or the read failed */
    WAL_WINDOW_READING, /**< the disk has it, or its queue was full */
    WAL_WINDOW_READY,
};

/** A piece of the log that was read for one fetch and answers others too. Which piece: io.file, io.offset, io.bytes. */
struct wal_fetch_window {
    enum wal_fetch_window_state state;
    bool submitted; /**< false while reading: the disk's queue was full */
    seq_t
        covers_seq; /**< commit_seq when it was read: later groups may be in it by half; 0: good for nobody */
    seq_t first_seq;  /**< the group whose header it starts with; 0: it is one for records alone */
    unsigned waiters; /**< fetches that hold on to it */
    uint64_t used;    /**< the higher, the later it was asked for */
    unsigned headers; /**< so many of its groups have a header that was checked */
    uint64_t segments
        [WAL_FETCH_HEADERS]; /**< of each group: bit set when the lcore's segment was checked */
    uint8_t *buffer;
    struct disk_io io;
};

enum wal_fetch_state { WAL_FETCH_WALKING, WAL_FETCH_RECORD };

/** A fetch that waits for a window. */
struct wal_fetch_slot {
    enum wal_fetch_state state;
    struct wal_fetch_window *window; /**< NULL: none was free */
    unsigned lane;
    wal_place_t place;
    uint64_t cookie;
    seq_t seq;      /**< the group wanted */
    seq_t walk_seq; /**< the group whose header stands at file_offset */
    uint64_t file;
    uint64_t file_offset;   /**< of what is looked at next */
    uint64_t record_offset; /**< in the file */
    uint64_t record_room;   /**< bytes of the segment's records from there on */
};

struct wal {
    struct wal_config config;
    struct wal_index *index;

    seq_t open_seq;   /**< as published in board->open_group */
    seq_t sealed_seq; /**< every lane has handed over up to here */
    seq_t submitted_seq;
    seq_t commit_seq;
    bool open_noted;     /**< the open group was seen to be not empty, at open_noted_ns */
    bool closing_raised; /**< open_seq was raised only to close the log behind it */
    uint64_t open_noted_ns;
    uint64_t raised_ns;      /**< when open_seq was published */
    seq_t proof_wanted_seq;  /**< the newest group that a later durable_seq has to cover */
    seq_t proven_seq;        /**< the newest durable_seq that is itself durable */
    uint64_t quiet_since_ns; /**< when proof_wanted_seq became durable */
    bool quiet_known;
    bool draining;

    /* several lcores: see wal_settle.c */
    uint64_t settle_ticket; /**< as on the board; 0: nobody is asked to settle */
    uint64_t settle_tickets;
    uint64_t digests_at_ns;   /**< when state digests were wanted last */
    uint64_t records_sealed;  /**< so far */
    uint64_t digests_records; /**< ... and up to the group that told digests last */
    seq_t digests_seq;        /**< that group */
    unsigned alone; /**< 1 + the lane that has, or will have, everything to itself; 0: none */
    unsigned alone_last;
    bool alone_granted;

    uint8_t last_digest[WAL_DIGEST_BYTES]; /**< of group submitted_seq */
    uint64_t cell_time;                    /**< of group sealed_seq; never falls */
    uint64_t horizon_ms[WAL_HORIZONS];
    uint64_t committed_horizon_ms; /**< of group commit_seq */
    seq_t skipped[LCORES_MAX];     /**< groups that ended without the lane, which had stopped */

    uint64_t file; /**< where the next group goes */
    uint64_t file_offset;
    uint64_t files_ready; /**< highest file that exists */
    bool creating;
    int create_error; /**< of the last try to make the next one; 0: it was made */
    uint64_t create_retry_ns;
    bool stuck;       /**< the next group has no place until it is made */
    bool stuck_tried; /**< and could not be since that is so, or since something made room */
    struct disk_io create_io;

    struct wal_slot slots[WAL_GROUPS_IN_FLIGHT_MAX];
    struct wal_fetch_window windows[WAL_FETCH_SLOTS];
    uint64_t windows_used;                             /**< the highest `used` of them */
    struct wal_fetch_slot fetches[WAL_FETCHES_A_TURN]; /**< fetches_busy of them, oldest first */
    unsigned fetches_busy;
    unsigned fetch_lane; /**< whose turn it is */
    unsigned in_flight;  /**< operations that the disk has */

    struct wal_checkpoint checkpoint;

    int failed;
    char error[512];
    struct wal_counters counters;
};

static inline void wal_count(_Atomic uint64_t *counter, uint64_t by) {
    /* one writer; readers want a whole number, not an order */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

static inline struct wal_slot *wal_slot_of(struct wal *wal, seq_t seq) {
    return &wal->slots[seq % WAL_GROUPS_IN_FLIGHT_MAX];
}

/** Stop for good: nothing is acknowledged any more. @param rc -errno */
void wal_fail(struct wal *wal, int rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* wal_seal.c: each returns how many things were done */
unsigned wal_seal(struct wal *wal, uint64_t now_ns);
unsigned wal_submit(struct wal *wal, uint64_t now_ns);
/** Keep two files ahead of the one that is written. What cannot be made is tried again, as long as there is place for groups. */
unsigned wal_create_ahead(struct wal *wal, uint64_t now_ns);
void wal_create_done(struct wal *wal, uint64_t now_ns);
/** Whether the next file should be made before anything else is. */
bool wal_file_wanted(const struct wal *wal);
/** Newest cell time that anybody knows of. */
uint64_t wal_newest_cell_time(const struct wal *wal);

/* wal_settle.c */
/** Whether every lcore's tables show what the log says, and no more is on its way. With one lcore they always do. */
bool wal_settled(const struct wal *wal);
void wal_settle_end(struct wal *wal);
/** Whether the open group shall end now, for all have settled as somebody wanted; asks them to. */
bool wal_settle_wants_group(struct wal *wal, uint64_t now_ns);
void wal_settle_group_ends(struct wal *wal, uint64_t now_ns);
unsigned wal_settle_step(struct wal *wal);
/** wal_checkpoint.c: whether a checkpoint shall begin with the end of a group; whether lcores still walk for one */
bool wal_checkpoint_due(const struct wal *wal);
bool wal_checkpoint_walking(const struct wal *wal);

/* wal_fetch.c */
/** Answer what can be answered, and take new fetches: WAL_FETCHES_A_TURN at most, together.
 *  @return how many were answered or taken */
unsigned wal_fetch(struct wal *wal);
/** A window's read is done; its fetches are answered by wal_fetch. */
void wal_fetch_done(struct wal_fetch_window *window);

#endif

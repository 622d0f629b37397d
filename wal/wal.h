/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_H
#define TALLY_WAL_WAL_H

#include <stdatomic.h>

#include "engine/base/types.h"
#include "wal/wal_record.h"

/** What the engine lcores and the WAL share: published positions, hand-overs, and nothing else.
 *  Flow:  engine lcore -> [wal_lane ring] -> wal_step -> disk -> [wal_board.commit_seq] -> engine lcore -> replies
 *  Keeps: INV-5, INV-6, INV-8, INV-9. Rules: design section 5. */

#define WAL_GROUPS_IN_FLIGHT_MAX 8 /**< K: groups submitted to the disk and not yet durable */
#define WAL_BUFFERS                                                                                \
    (WAL_GROUPS_IN_FLIGHT_MAX +                                                                    \
     4)                      /**< log buffers of an lcore; buffer of group g is g % WAL_BUFFERS */
#define WAL_HORIZONS 16      /**< horizon of group g is horizon_ms[g % WAL_HORIZONS] */
#define WAL_FETCHES_MAX 1024 /**< fetches of one lcore on their way at a time */
#define WAL_CHUNKS_MAX 1024  /**< checkpoint chunks of one lcore on their way, a power of two */

/** Positions that the WAL publishes and every lcore reads. Written by the WAL lcore only.
 *  open_group is stored with release after horizon_ms[open_group % WAL_HORIZONS] is set; lcores load it with acquire.
 *  commit_seq is stored with release after the group is durable; lcores load it with acquire before releasing replies. */
struct wal_board {
    _Alignas(CACHE_LINE_BYTES) _Atomic seq_t open_group;
    _Alignas(CACHE_LINE_BYTES) _Atomic seq_t commit_seq;
    _Atomic uint64_t
        commit_time; /**< ns: cell time of that group, at or above every timestamp in it; stored before it */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t horizon_ms[WAL_HORIZONS];
    /** A checkpoint is wanted of the state at the end of this group; 0: none yet. Stored before open_group becomes
     *  checkpoint_seq + 1 (whose release covers it), so each lcore sees it when it hands that group over, and begins. */
    _Alignas(CACHE_LINE_BYTES) _Atomic seq_t checkpoint_seq;
    /** Nodes with several engine lcores: not 0, nothing new may travel; an lcore whose travellers are all back stores it in its lane's
     *  `settled`. When it is 0 again an lcore first hands over what has ended, and then goes on. */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t settle;
    _Atomic uint32_t
        alone; /**< 1 + the lcore that wants all tables to itself: others execute nothing at all. Stored before settle */
    _Atomic uint64_t alone_granted; /**< ... and has them while this is `settle` */
    /** State digests are told by all lcores as of the end of this group; stored like checkpoint_seq. With one lcore they are its own business. */
    _Atomic seq_t digest_seq;
    /** The newest checkpoint that was given up (its file could not be written): lcores that still walk for it stop. */
    _Atomic seq_t checkpoint_abandoned;
    /** Set once and for ever when the disk failed: nobody may acknowledge anything any more. */
    _Alignas(CACHE_LINE_BYTES) _Atomic int failed;
};

/** A closed segment on its way from an lcore to the WAL: the lcore's part of one group. */
struct wal_handover {
    seq_t seq;       /**< the group */
    uint8_t *bytes;  /**< 4 KiB aligned; the WAL may write padding up to the next 4 KiB boundary */
    uint32_t length; /**< bytes of records; may be 0 */
    uint32_t record_count;
    uint64_t last_timestamp; /**< ns, of the lcore when it closed the segment; never falls */
    uint64_t
        cell_time; /**< ns, of the lcore when it closed the segment; at or above last_timestamp */
};

struct checkpoint_chunk; /* wal/checkpoint_format.h */

/** A record wanted back from the log, and the answer. */
struct wal_fetch {
    wal_place_t place;
    uint64_t cookie; /**< the asker's, returned unchanged */
    int status; /**< answer: 0, -ENOENT (no such record any more), -EBADMSG (damaged) or -EIO */
    uint32_t length;                                   /**< answer: bytes of the record */
    _Alignas(16) uint8_t record[WAL_RECORD_BYTES_MAX]; /**< answer */
};

/** What one engine lcore publishes for the WAL, and the two rings between them (single producer, single consumer).
 *  Ring indices run freely; producer stores with release, consumer loads with acquire, and the other way round. */
struct wal_lane {
    /* written by the engine lcore */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t
        segment_bytes; /**< bytes in its open segment, after each turn */
    _Atomic seq_t
        wanted_group; /**< seal this group even if it is empty (a reply waits for it); 0: none */
    _Atomic uint64_t
        horizon_wanted_ms; /**< memory pressure: please raise the horizon to this; 0: no wish */
    _Atomic uint64_t cell_time; /**< ns, the lcore's newest */
    _Atomic uint64_t settled;   /**< board->settle, once nothing of this lcore's travels */
    _Atomic uint64_t
        settled_timestamp; /**< ns: its last timestamp, stored before `settled` and before alone_wanted falls */
    _Atomic uint32_t alone_wanted; /**< 1: it wants all tables to itself */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t handover_head;
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t fetch_head;
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t answer_tail;
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t chunk_head;
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t spent_tail;
    /* written by the WAL */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t handover_tail;
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t fetch_tail;
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t answer_head;
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t chunk_tail;
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t spent_head;

    struct wal_handover handovers[16]; /**< power of two, at least WAL_BUFFERS */
    struct {
        wal_place_t place;
        uint64_t cookie;
    } fetches[WAL_FETCHES_MAX];
    struct wal_fetch answers[WAL_FETCHES_MAX];
    struct checkpoint_chunk *chunks[WAL_CHUNKS_MAX]; /**< full ones, for the WAL to write */
    struct checkpoint_chunk *spent[WAL_CHUNKS_MAX];  /**< written ones, the engine's again */
};

/** For the engine lcore: hand over the segment of a group. Never fails, for there are fewer buffers than ring slots. */
void wal_lane_handover(struct wal_lane *lane, const struct wal_handover *handover);
/** For the engine lcore: ask for a record. @return 0, or -EAGAIN when WAL_FETCHES_MAX are on their way. */
int wal_lane_fetch(struct wal_lane *lane, wal_place_t place, uint64_t cookie);
/** For the engine lcore: take one answer. @return 1, or 0 when there is none. */
int wal_lane_fetched(struct wal_lane *lane, struct wal_fetch *answer);
/** For the engine lcore: hand over a chunk; its head is filled but for `number` and `cell_id`, which the WAL sets with the digest;
 *  then it gives the chunk back as spent. Never fails, for an lcore has fewer chunks than the ring has slots. Its last one is of CHECKPOINT_LCORE. */
void wal_lane_chunk(struct wal_lane *lane, struct checkpoint_chunk *chunk);
/** For the engine lcore: take a chunk back. @return NULL when there is none */
struct checkpoint_chunk *wal_lane_chunk_spent(struct wal_lane *lane);

/** Identity of the log's owner; from the directory's superblock. */
struct wal_identity {
    uint8_t cell_id[16];
    uint32_t partitions;
    uint32_t
        id_time; /**< 1: ids carry time and are forgotten below the horizon; 0: remembered for ever */
    uint64_t hash_seed;
    uint64_t digest_seed;
    uint64_t
        file_bytes; /**< size of every log segment file; 0: not known, taken from the log itself */
};

struct wal_index;

/** Where recovery ended, and where the log goes on. */
struct wal_position {
    seq_t seq;            /**< last good group; 0 when the log is empty */
    term_t term;          /**< its term */
    uint8_t digest[16];   /**< XXH3-128 of its header (canonical) */
    uint64_t file_number; /**< where the next group starts */
    uint64_t file_offset;
    uint64_t cell_time;                          /**< ns, of the last good group */
    uint64_t horizon_ms;                         /**< of the last good group */
    uint64_t groups, records, bytes, torn_bytes; /**< what recovery read and what it cut */
    seq_t durable_seq; /**< highest durable_seq that the log itself carries */
    /** Published checkpoints that are kept, oldest first, and the log file that replay from each begins in; seq 0: none. */
    struct {
        seq_t seq;
        uint64_t log_file;
    } checkpoints[2];
    struct wal_index *
        index; /**< where groups lie, for fetches; wal_open takes it over (NULL: find them by walking) */
};

/** Give back what a position holds, where no wal_open took it over. */
void wal_position_release(struct wal_position *position);

/** Called for every record of every good group, in log order (segment after segment).
 *  @return 0, or -errno to stop with (a record that the engine cannot take is corruption: -EBADMSG) */
typedef int wal_replay_fn(void *context, seq_t seq, unsigned lcore, uint32_t offset,
                          const void *record, size_t length);
struct disk; /* engine/base/seams.h */
struct wal;

struct wal_config {
    struct disk *disk;
    struct wal_identity identity;
    term_t term; /**< of this run: the last one plus one */
    struct wal_position position;
    struct wal_board *board;
    struct wal_lane *lanes; /**< lane_count of them, one an engine lcore */
    unsigned lane_count;
    unsigned groups_in_flight;   /**< K, 1..WAL_GROUPS_IN_FLIGHT_MAX */
    uint64_t file_bytes;         /**< size of a log segment file */
    uint32_t group_bytes_wanted; /**< a group of this size is sealed while others are in flight */
    uint64_t group_delay_ns;     /**< ... and so is one that has been open for this long */
    uint64_t horizon_back_ms;    /**< ids are remembered for so long (3,600,000) */
    uint64_t horizon_minimum_ms; /**< and never for less than this (60,000) */
    uint64_t
        digest_interval_ns; /**< how often state digests are wanted from several lcores; 0: never */
    uint64_t
        checkpoint_log_bytes; /**< a checkpoint begins when so much log was written since the last; 0: never by size */
    uint64_t
        checkpoint_interval_ns; /**< ... or so much time went by in which anything was logged; 0: never by time */
    uint64_t
        log_bytes_max; /**< budget: more log than this raises the horizon, so that files can go; 0: none */
};

/** Start the WAL behind a recovered position. Makes the files that it needs first; blocks. Takes position.index over,
 *  whatever it answers. @return 0 or -errno (with `error` filled). */
int wal_open(const struct wal_config *config, struct wal **wal, char *error, size_t error_bytes);

/** One turn: completions, commit_seq, hand-overs, sealing, submissions, fetches. Never blocks.
 *  Thread: the WAL lcore. @return how many things were done; 0 means an empty turn.
 *          After a disk failure: board->failed is set to -errno and every later turn does nothing. */
unsigned wal_step(struct wal *wal, uint64_t now_ns);

/** Whether everything handed over is durable and the closing empty group with durable_seq is written too.
 *  Call wal_step until it is, after the engine has stopped. Lanes may go on handing over (empty) segments; one that is
 *  silent for 10 ms with nothing open counts as stopped. After a disk failure it stays false: look at board->failed. */
bool wal_drained(struct wal *wal, uint64_t now_ns);
/** What went wrong, in one line ("" while nothing has). */
const char *wal_error(const struct wal *wal);
void wal_close(struct wal *wal);

/* --- checkpoints and what they allow: log files go once they are older than the older kept checkpoint, every id in them is below
 * the horizon, and nobody holds them ----------------------------------------------------------------------------------- */

/** Ask for a checkpoint now. Any thread. One that is under way counts only if it began after this call.
 *  @return a ticket: it is served when wal_checkpoints()->served reaches it */
uint64_t wal_checkpoint_want(struct wal *wal);

/** Hold every log file and published checkpoint that stands now, until wal_hold(wal, false): for a backup. Any thread; counted.
 *  A removal that has just begun may still end; none is on its way any more when a ticket that was taken after this is served. When
 *  the disk is full and the next group has no place, the oldest log file goes all the same: the cell before its backup. */
void wal_hold(struct wal *wal, bool hold);

/** Readable from any thread. */
struct wal_checkpoints {
    _Atomic uint64_t served;        /**< tickets up to this one have been served, or failed */
    _Atomic seq_t published_seq;    /**< newest published; 0: none */
    _Atomic seq_t running_seq;      /**< the one under way; 0: none */
    _Atomic uint64_t chunks, bytes; /**< written for it so far */
    _Atomic uint64_t published, abandoned; /**< how many in this run */
    _Atomic int error; /**< -errno of the one abandoned last; 0: the last was published */
    _Atomic uint64_t files_removed; /**< log files */
    _Atomic uint64_t log_bytes;     /**< of all log files that stand */
};
const struct wal_checkpoints *wal_checkpoints(const struct wal *wal);

/** What went wrong last with a checkpoint or with removing a file, in one line; "" while nothing has. Any thread. */
void wal_checkpoint_warning(const struct wal *wal, char *line, size_t line_bytes);

/** Counters, readable from any thread. */
struct wal_counters {
    _Atomic uint64_t groups, records, bytes, writes_in_flight, fetches, write_ns_total;
};
const struct wal_counters *wal_counters(const struct wal *wal);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_UNIT_WAL_WAL_FIXTURE_H
#define TALLY_TESTS_UNIT_WAL_WAL_FIXTURE_H

#include "engine/base/seams.h"
#include "wal/disk_memory.h"
#include "wal/wal.h"
#include "wal/wal_format.h"

/** Lcores without a ledger: they fill segments with records, hand them over, and remember what they logged, so that a
 *  test can compare recovery with it. One thread plays all parts, or each lane has one of its own. */

#define FIXTURE_LANES_MAX 4
#define FIXTURE_SEGMENT_BYTES 65536u
#define FIXTURE_GROUPS_MAX 4096

struct fixture_group {
    uint8_t *bytes[FIXTURE_LANES_MAX]; /**< records of each lane */
    uint32_t length[FIXTURE_LANES_MAX];
    uint64_t records;
};

struct fixture {
    struct disk *disk;   /**< in use: `memory`, or one that the test brought */
    struct disk *memory; /**< the fixture's own */
    uint32_t turns_max;  /**< patience of fixture_commit and fixture_drain */
    struct wal *wal;
    struct wal_board *board;
    struct wal_lane *lanes;
    struct wal_config config;
    struct wal_position position; /**< of the last recovery */
    struct {
        seq_t seq;
        uint64_t log_file;
    } checkpoints[2]; /**< what stands, oldest first: wal_recover does not look */
    uint64_t now_ns;
    uint64_t random;
    uint64_t lane_random[FIXTURE_LANES_MAX];
    unsigned lane_count;
    uint8_t *buffers[FIXTURE_LANES_MAX][WAL_BUFFERS];
    seq_t open[FIXTURE_LANES_MAX];
    uint32_t length[FIXTURE_LANES_MAX], records[FIXTURE_LANES_MAX];
    uint64_t timestamp[FIXTURE_LANES_MAX];
    struct fixture_group groups[FIXTURE_GROUPS_MAX]; /**< by seq: what was handed over */
    uint64_t replayed_records;
    seq_t replayed_seq; /**< last group that recovery gave, all of it as it was logged */
    uint32_t replay_offset[FIXTURE_LANES_MAX];
    char error[512];
};

/** A cell with small files on an empty memory disk. */
struct fixture *fixture_new(unsigned lanes, uint64_t file_bytes, uint64_t seed);
void fixture_free(struct fixture *fixture);

/** Recover and open. @return what the one that failed answered, `error` filled; recovery's answers are checked against
 *  what was logged: a difference is -EILSEQ */
int fixture_start(struct fixture *fixture);
/** Recover only, from any disk, as fixture_start does. */
int fixture_recover(struct fixture *fixture, struct disk *disk, struct wal_position *position);
typedef int fixture_group_fn(void *context, const struct wal_chained_header *chained);
/** Read any log as recovery does, without a ledger: verify, hand over, note, cut a torn tail.
 *  @param group may be NULL. @return 0, -errno with `error` filled, or what `record` or `group` answered */
int fixture_read(struct disk *disk, const struct wal_identity *identity, wal_replay_fn *record,
                 fixture_group_fn *group, void *context, struct wal_position *position, char *error,
                 size_t error_bytes);
/** Close the WAL, drained or not. */
void fixture_stop(struct fixture *fixture);

/** Append `count` random records to a lane's open segment. */
void fixture_append(struct fixture *fixture, unsigned lane, unsigned count);
/** Hand over what the WAL asks for. */
void fixture_seal(struct fixture *fixture, unsigned lane);
/** One turn: lanes hand over what the WAL asks for, the WAL steps, time goes on by `ns`. */
void fixture_turn(struct fixture *fixture, uint64_t ns);
/** Turns until everything appended is committed. @return 0, or board->failed, or -ETIMEDOUT */
int fixture_commit(struct fixture *fixture);
/** Turns until the WAL is drained. @return as fixture_commit */
int fixture_drain(struct fixture *fixture);
seq_t fixture_committed(const struct fixture *fixture);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_UNIT_WAL_CHECKPOINT_FIXTURE_H
#define TALLY_TESTS_UNIT_WAL_CHECKPOINT_FIXTURE_H

#include "tests/unit/wal/wal_fixture.h"
#include "wal/checkpoint_format.h"

/** Lcores that walk without tables: each hands over so many chunks of made-up accounts, then what it says last. A checkpoint on
 *  disk can be checked against that: which bytes belong where follows from its number alone. */

#define WALKER_CHUNKS 5

struct walker {
    struct checkpoint_chunk *chunks[WALKER_CHUNKS]; /**< memory, all of it */
    struct checkpoint_chunk *free[WALKER_CHUNKS];
    unsigned free_count;
    seq_t seq; /**< the checkpoint that it last began */
    bool walks;
    unsigned done; /**< chunks handed over for it */
};

struct walkers {
    struct fixture *fixture;
    struct walker lanes[FIXTURE_LANES_MAX];
    unsigned chunks;          /**< of accounts, a lane and checkpoint */
    unsigned complete_groups; /**< an lcore ends so many groups after the one that was open */
    uint64_t ticket;
};

/** On a fixture that is new. */
struct walkers *walkers_new(struct fixture *fixture, unsigned chunks);
void walkers_free(struct walkers *walkers);

/** Recover and open, with what stands of checkpoints; walkers forget what they were at. @return as fixture_start */
int walkers_start(struct walkers *walkers);
/** A lane's part of a turn: it takes chunks back and hands one over. */
void walkers_walk(struct walkers *walkers, unsigned lane);
/** One turn of everything. */
void walkers_turn(struct walkers *walkers, uint64_t ns);
/** Ask for a checkpoint and turn until it was published or given up. @return 0, its error, or -ETIMEDOUT */
int walkers_checkpoint(struct walkers *walkers);
/** Turn until nothing is on its way. @return whether it came to that */
bool walkers_settle(struct walkers *walkers);

/** Whether the disk holds the checkpoint whole, as the walkers wrote it: manifest, every chunk, every digest. Says what is wrong. */
bool checkpoint_whole(const struct walkers *walkers, struct disk *disk, seq_t seq);
/** Published ones on the disk, ascending. @return how many */
unsigned checkpoints_listed(struct disk *disk, seq_t seqs[16]);
/** Log files on the disk. @return how many, the first in `first` */
unsigned log_files(struct disk *disk, uint64_t *first);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_RECOVERY_FIXTURE_H
#define TALLY_TESTS_RECOVERY_FIXTURE_H

#include "engine/recovery.h"
#include "tests/unit/engine/checkpoint_fixture.h"
#include "wal/disk_memory.h"

/** What a node lived, as a data directory in memory: its groups as a log, its checkpoints as files; and recovery from it. */

#define CELL_FILE_BYTES ((uint64_t)160 << 10)

struct cell_place {
    uint64_t file, offset; /**< behind the group */
    uint8_t digest[WAL_DIGEST_BYTES];
};

struct cell {
    struct disk *disk;
    struct wal_identity identity;
    struct cell_place *places; /**< by seq */
    seq_t last_seq;
    uint64_t last_file; /**< the empty one behind the log */
    char warnings[1024];
    unsigned warning_count;
    char error[512];
    struct recovery_report report;
    struct wal_position position;
};

/** Write down all groups that the node kept. */
void cell_open(struct cell *cell, const struct node *node);
void cell_close(struct cell *cell);
/** Publish the node's checkpoint of the end of `group`, complete when `complete` was open. */
void cell_publish(struct cell *cell, const struct node *node, const struct node_group *group,
                  uint128_t state_digest);
uint64_t cell_data_file(seq_t seq);
uint64_t cell_manifest_file(seq_t seq);
/** Write manifest and chunks of a checkpoint anew: digests are right again, whatever was changed in them. */
void cell_reseal(struct cell *cell, seq_t seq);

/** Recover into a fresh node; close it in any case. Defaults of `config` are filled in. @return what recovery answered */
int cell_recover(struct cell *cell, struct node *to, const struct node_config *node_config,
                 struct recovery_config config);

#endif

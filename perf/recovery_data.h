/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_RECOVERY_DATA_H
#define TALLY_PERF_RECOVERY_DATA_H

#include "engine/base/seams.h"
#include "wal/wal.h"

/** A data directory in memory: a checkpoint of so many accounts, and a log of so many plain transfers between random pairs of them behind it.
 *  Made here, byte by byte as the format says, without an engine, so that what comes back can be compared. */

#define RECOVERY_CHECKPOINT_SEQ 100

struct recovery_data {
    uint64_t accounts, transfers;
    unsigned partitions;
    struct wal_identity identity;
    struct disk *disk;
    uint64_t checkpoint_bytes; /**< chunks */
    uint64_t log_bytes;        /**< groups, headers included */
    uint64_t log_groups;
    uint128_t posted; /**< what all debits, and all credits, must add up to in the end */
    seq_t last_seq;
};

/** @return 0 or -ENOMEM */
int recovery_data_make(struct recovery_data *data);
void recovery_data_free(struct recovery_data *data);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_RECOVERY_ROOFLINE_H
#define TALLY_PERF_RECOVERY_ROOFLINE_H

#include "perf/recovery_data.h"

/** What the memory of this machine allows a recovery, with no logic at all: it reads the same bytes by reads of the same size, digests them,
 *  and touches as many lines as a record makes recovery touch.
 *  Checkpoint: each account is copied to a random place, and a random line of an index is changed. Log: for each transfer 2 random index lines are read, 3 random account lines read or
 *  changed (a debit and an id stand in an account's first line, a credit in its second), and 40 bytes and one line of the id's partition written. */
struct recovery_roofline {
    uint64_t random, checksum;
    size_t accounts, index_lines;
    unsigned partitions;
    uint8_t *tables, *index, *ids, *id_lines, *buffer;
    uint32_t *id_ends; /**< of each partition's ids */
    size_t ids_room;   /**< bytes of one partition's */
};

/** @return 0 or -ENOMEM */
int recovery_roofline_open(struct recovery_roofline *roofline, const struct recovery_data *data);
/** @return ns that the checkpoint took */
uint64_t recovery_roofline_checkpoint(struct recovery_roofline *roofline,
                                      const struct recovery_data *data);
/** @return ns that the log took */
uint64_t recovery_roofline_log(struct recovery_roofline *roofline,
                               const struct recovery_data *data);

#endif

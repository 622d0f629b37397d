/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_CHECK_H
#define TALLY_TESTS_SIM_SIM_CHECK_H

#include "tests/sim/sim_node.h"

/** What only somebody who can look inside the node and onto its disk can see; the rest is the oracle's.
 *  Flow:  sim_node -> [sim_check] -> sim_violation */

/** After each turn: commit_seq never falls and never passes what the disk promised (INV-5); every queue within its bounds (INV-9). */
void sim_check_turn(struct sim_node *node);

/** Before an operation of the disk: no log file goes that a checkpoint on the disk needs, and no manifest comes whose group is not durable. */
void sim_check_operation(struct sim_node *node, const struct disk_io *io);

/** After an orderly stop: nothing is left on its way. */
void sim_check_stopped(struct sim_node *node);

/** The log files as they were found, before recovery changed any. */
struct sim_image {
    unsigned count;
    uint64_t *files, *sizes;
    uint8_t **bytes;
};
void sim_image_take(struct sim_image *image, const struct sim_disk *disk);
void sim_image_release(struct sim_image *image);

/** The node started with `node->position`: is everything there that the disk promised? What is not may be missing only where the
 *  disk was harmed and nothing on it proves that more was there; that is looked for page by page, after wal/FORMAT.md.
 *  @param image taken before, of a harmed disk
 *  @return whether groups are lost that nobody can miss */
bool sim_check_recovered(struct sim_node *node, const struct sim_image *image);

/** Show the oracle the log as it stands on the disk. */
void sim_check_show_log(struct sim_node *node, bool may_lose);

/** Each account of the engine against the oracle's, and each running digest against the tables. */
void sim_check_state(struct sim_node *node);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLY_OFFLINE_H
#define TALLY_TOOLS_TALLY_OFFLINE_H

#include "engine/engine.h"
#include "engine/recovery.h"
#include "tools/control_client.h"
#include "tools/tally_cli.h"
#include "tools/tally_progress.h"

/** An engine without lcores, to restore a state into and look at it: what verify, replay and backup share.
 *  Flow:  disk -> recovery_run -> [offline] -> digests, or a WAL in another directory */

struct offline {
    struct engine *engine;
    struct wal_board *board;
    struct wal_lane *lane;
};

/** @param memory_mb 0: as much as the machine has, taken only as it is needed
 *  @param checkpoint_chunks 0 unless the engine shall write a checkpoint
 *  @return CLI_DONE, or said why not: CLI_USAGE */
int offline_open(const struct wal_identity *identity, unsigned partitions, uint64_t memory_mb,
                 unsigned checkpoint_chunks, struct offline *offline);
void offline_close(struct offline *offline);

/** Sum of all partitions' state digests, recomputed from the tables. @param agrees set to whether the running ones are the same */
uint128_t offline_digest(const struct offline *offline, unsigned partitions, bool *agrees);

/** How the state of a directory is recovered by every offline command: workers of its own, progress, warnings on standard error.
 *  @param progress begun by the caller */
struct recovery_config offline_recovery(struct disk *disk, const struct wal_identity *identity,
                                        uint64_t workers, struct progress *progress);

/** Beside a running tallyd only what is committed counts, and none of it shall go meanwhile: ask it to hold its log.
 *  @param client   set to the connection that holds it, the caller's to close; NULL: nobody runs on the directory
 *  @param last_seq set to what is committed; 0 where nobody runs
 *  @return CLI_DONE, or said why not */
int offline_hold(const char *data, uint64_t timeout_ms, struct control_client **client,
                 seq_t *last_seq);

/** The exit status of what recovery, a copy or a check answered. */
int offline_exit(int rc);
/** 32 hexadecimal digits. @param out 33 bytes. @return out */
const char *offline_hex(const void *bytes, char *out);
/** The data directory that was named, else $TALLY_DATA_DIR, else /var/lib/tally. */
const char *offline_directory(const char *named);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLY_OFFLINE_H
#define TALLY_TOOLS_TALLY_OFFLINE_H

#include "engine/engine.h"
#include "engine/recovery.h"
#include "tools/control_client.h"
#include "tools/tally_cli.h"
#include "tools/tally_progress.h"
#include "wal/data_dir.h"

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

/** What goes on beside a recovery: progress on standard error, and now and then a word to the tallyd that holds its log for us. */
struct offline_watch {
    struct progress progress;
    struct control_client *client; /**< NULL: nobody holds anything */
    uint64_t asked_ns;
    bool lost; /**< it does not answer any more: what it held may be gone */
};

/** Begin, show how far it is, and talk to who holds the log when it is time to. @param client NULL: nobody holds anything */
void offline_watch_begin(struct offline_watch *watch, const char *what,
                         struct control_client *client);
void offline_watch_show(struct offline_watch *watch, uint64_t done_bytes, uint64_t total_bytes);

/** Recover into an engine, changing nothing on the disk.
 *  @param client who holds the directory's log, or NULL
 *  @param limits until_seq, until_ns and workers (0: one a core) are taken from it
 *  @return as recovery_run, `error` filled; -ECONNRESET when the hold was lost (said so) */
int offline_recover(const struct offline *offline, struct data_dir *dir,
                    struct control_client *client, const struct recovery_config *limits,
                    struct wal_position *position, struct recovery_report *report, char *error,
                    size_t error_bytes);

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

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/checkpoint.h"
#include "tools/tally_copy.h"
#include "tools/tally_offline.h"
#include "tools/tally_until.h"
#include "wal/checkpoint_inspect.h"
#include "wal/wal_reader.h"

/** replay: the state of a directory as of a group or a time, verified, in a directory of its own, or under another number of
 *  partitions. */

#define HORIZON_BACK_MS 3600000u
#define HORIZON_MINIMUM_MS 60000u
#define CHECKPOINT_CHUNKS 128 /**< 16 MiB on their way to the disk */
#define GROUP_BYTES (256u << 10)

struct replay {
    struct cli *cli;
    /* as asked for */
    const char *data, *into;
    struct until until;
    uint64_t partitions, memory_mb, workers;
    /* the source */
    struct control_client *client; /**< NULL: nobody runs on it */
    struct data_dir *from;
    seq_t last_seq; /**< of a running tallyd: what is committed; else 0 */
    /* its state, as of then */
    struct wal_position position;
    struct recovery_report report;
    uint128_t digest, repartitioned_digest;
    struct engine_totals totals;
    /* the new one */
    struct copy copy;
};

static uint64_t clock_ns(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static const char *time_text(uint64_t ns, char *text, size_t bytes) {
    struct tm parts;
    time_t seconds = (time_t)(ns / NS_PER_SECOND);
    size_t length = 0;
    if (gmtime_r(&seconds, &parts) != NULL)
        length = strftime(text, bytes, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + length, bytes - length, ".%03uZ", (unsigned)(ns % NS_PER_SECOND / NS_PER_MS));
    return text;
}

/* --- the source ------------------------------------------------------------------------------------ */

static int open_source(struct replay *replay) {
    char error[512];
    int exit_status =
        offline_hold(replay->data, replay->cli->timeout_ms, &replay->client, &replay->last_seq);
    if (exit_status != CLI_DONE)
        return exit_status;
    int rc =
        data_dir_open(replay->data, replay->client ? DATA_DIR_READ_ONLY : DATA_DIR_LOCK_READ_ONLY,
                      &replay->from, error, sizeof(error));
    if (rc != 0)
        args_complain("%s", error);
    return offline_exit(rc);
}

static int still_there(void *context) {
    struct replay *replay = context;
    struct json_object *answer = control_client_ask(replay->client, CONTROL_STATUS);
    if (answer == NULL)
        return -ECONNRESET;
    json_object_put(answer);
    return 0;
}

/* --- the state ------------------------------------------------------------------------------------- */

/** The log goes on, or ends, where it was asked to. @return CLI_DONE or said why not */
static int check_reached(const struct replay *replay, const struct wal_position *position) {
    char text[64], made[64];
    if (position->seq == 0 && replay->until.ns != 0) {
        args_complain("nothing had been logged by %s: %s was made at %s",
                      time_text(replay->until.ns, text, sizeof(text)), replay->data,
                      time_text(data_dir_settings(replay->from)->created_ns, made, sizeof(made)));
        return CLI_USAGE;
    }
    if (replay->until.ns == 0 && position->seq < replay->last_seq &&
        (replay->until.seq == 0 || position->seq < replay->until.seq)) {
        args_complain("%s: the log on the disk ends at group %" PRIu64
                      ", but its tallyd has committed group %" PRIu64
                      ": let it take a checkpoint (tally checkpoint) before it ends",
                      replay->data, position->seq, replay->last_seq);
        return CLI_DAMAGED;
    }
    if (replay->until.seq == 0 || position->seq >= replay->until.seq)
        return CLI_DONE;
    args_complain("there is no group %" PRIu64 " yet: the log ends with group %" PRIu64
                  ", of %s; a time is written as @%" PRIu64 " or 2026-11-20T16:43:00Z",
                  replay->until.seq, position->seq,
                  time_text(position->cell_time, text, sizeof(text)), replay->until.seq);
    return CLI_USAGE;
}

/** Whether what is asked for lies before all that the directory still holds, so that nothing is damaged. */
static bool is_before_held(const struct replay *replay) {
    const struct wal_identity *identity = &data_dir_settings(replay->from)->identity;
    struct disk *disk = data_dir_disk(replay->from);
    seq_t seqs[CHECKPOINT_LIST_MAX], first;
    uint64_t file;
    if (replay->until.seq == 0 && replay->until.ns == 0)
        return false;
    int count = checkpoint_list(disk, seqs, CHECKPOINT_LIST_MAX);
    for (int i = 0; i < count; i++) {
        struct checkpoint_manifest manifest;
        char ignored[512];
        if (checkpoint_manifest_read(disk, identity->cell_id, seqs[i], &manifest, ignored,
                                     sizeof(ignored)) != 0 ||
            (replay->until.seq ? manifest.seq <= replay->until.seq
                               : manifest.cell_time <= replay->until.ns))
            return false;
    }
    return wal_log_begin(disk, identity, &file, &first) == 0 && file > 1;
}

/** Restore the state as of then into an engine. @param disk the source's, or the copy's
 *  @return CLI_DONE, or said why not */
static int restore_state(struct replay *replay, struct data_dir *dir, struct offline *offline,
                         struct wal_position *position, struct recovery_report *report) {
    struct recovery_config limits = {.workers = (unsigned)replay->workers};
    char error[1024];
    if (dir == replay->from) {
        limits.until_seq = replay->last_seq;
        if (replay->until.seq && (!replay->last_seq || replay->until.seq < replay->last_seq))
            limits.until_seq = replay->until.seq;
        limits.until_ns = replay->until.ns;
    }
    int rc = offline_recover(offline, dir, dir == replay->from ? replay->client : NULL, &limits,
                             position, report, error, sizeof(error));
    if (rc == -ECONNRESET)
        return CLI_UNKNOWN;
    if (rc == -ENOMEM)
        args_complain("the state does not fit into the memory; give more with --memory-mb");
    else if (rc != 0)
        args_complain("%s", error);
    return rc == -ENODATA && dir == replay->from && is_before_held(replay) ? CLI_USAGE
                                                                           : offline_exit(rc);
}

/** The sum of the digests, which no number of partitions changes. @return CLI_DONE or said why not */
static int sum_digests(const struct offline *offline, unsigned partitions, uint128_t *digest) {
    bool agrees;
    *digest = offline_digest(offline, partitions, &agrees);
    if (agrees)
        return CLI_DONE;
    args_complain("the tables do not have the digest that was kept while they were filled: "
                  "memory or program is broken");
    return CLI_DAMAGED;
}

/** What the source says under its own number of partitions. */
static int look_at_source(struct replay *replay) {
    const struct wal_identity *identity = &data_dir_settings(replay->from)->identity;
    struct offline offline;
    int exit_status = offline_open(identity, identity->partitions, replay->memory_mb, 0, &offline);
    if (exit_status != CLI_DONE)
        return exit_status;
    exit_status = restore_state(replay, replay->from, &offline, &replay->position, &replay->report);
    if (exit_status == CLI_DONE) {
        wal_position_release(&replay->position);
        exit_status = check_reached(replay, &replay->position);
    }
    if (exit_status == CLI_DONE)
        exit_status = sum_digests(&offline, identity->partitions, &replay->digest);
    if (exit_status == CLI_DONE)
        engine_totals(offline.engine, &replay->totals);
    offline_close(&offline);
    return exit_status;
}

static int compare_digests(uint128_t there, uint128_t here, const char *where) {
    char there_hex[33], here_hex[33];
    if (there == here)
        return CLI_DONE;
    args_complain("the state in %s has the digest %s, and should have %s", where,
                  offline_hex(&here, here_hex), offline_hex(&there, there_hex));
    return CLI_DAMAGED;
}

/* --- into a directory of its own ------------------------------------------------------------------- */

static int begin_copy(struct replay *replay, bool log_only) {
    char error[512];
    replay->copy = (struct copy){.from = replay->from,
                                 .into = replay->into,
                                 .partitions = log_only ? (uint32_t)replay->partitions : 0,
                                 .checkpoint_seq = replay->report.checkpoint_seq,
                                 .last_seq = replay->position.seq,
                                 .log_only = log_only,
                                 .alive = replay->client ? still_there : NULL,
                                 .context = replay};
    int rc = copy_directory(&replay->copy, error, sizeof(error));
    if (rc != 0 && *error)
        args_complain("%s%s", error, rc == -ENOSPC ? "; what was copied is removed again" : "");
    return rc == 0 ? CLI_DONE : *error ? offline_exit(rc) : CLI_UNKNOWN;
}

/** The new directory, read from its disk, must hold the very state. Then it becomes one. */
static int finish_copy(struct replay *replay) {
    const struct wal_identity *identity = &data_dir_settings(replay->copy.dir)->identity;
    struct wal_position position;
    struct recovery_report report;
    struct offline offline;
    uint128_t digest = 0;
    char error[512];
    int exit_status = offline_open(identity, identity->partitions, replay->memory_mb, 0, &offline);
    if (exit_status == CLI_DONE) {
        exit_status = restore_state(replay, replay->copy.dir, &offline, &position, &report);
        if (exit_status == CLI_DONE)
            wal_position_release(&position);
        if (exit_status == CLI_DONE)
            exit_status = sum_digests(&offline, identity->partitions, &digest);
        if (exit_status == CLI_DONE)
            exit_status = compare_digests(replay->digest, digest, replay->into);
        offline_close(&offline);
    }
    if (exit_status == CLI_DONE && data_dir_finish(replay->copy.dir, error, sizeof(error)) != 0) {
        args_complain("%s", error);
        exit_status = CLI_USAGE;
    }
    return exit_status;
}

/** Turns of the lcore and its log without a network, until a checkpoint is published and all is durable. */
static int run_to_checkpoint(struct offline *offline, struct wal *wal) {
    struct engine_lcore *lcore = engine_lcore(offline->engine, 0);
    struct engine_request *none;
    const uint64_t ticket = wal_checkpoint_want(wal);
    for (bool served = false; !served || !wal_drained(wal, clock_ns(CLOCK_MONOTONIC));) {
        /* the clock stands still: nothing expires, nothing is forgotten */
        unsigned done = engine_execute(lcore, REQUEST_EVENTS_MAX);
        done += engine_seal(lcore);
        done += wal_step(wal, clock_ns(CLOCK_MONOTONIC));
        done += engine_completed(lcore, &none, 1);
        done += engine_checkpoint(lcore);
        if (atomic_load_explicit(&offline->board->failed, memory_order_acquire)) {
            args_complain("%s", wal_error(wal));
            return CLI_USAGE;
        }
        served = atomic_load(&wal_checkpoints(wal)->served) >= ticket;
        if (done == 0)
            sched_yield();
    }
    if (atomic_load(&wal_checkpoints(wal)->error) == 0)
        return CLI_DONE;
    char line[256];
    wal_checkpoint_warning(wal, line, sizeof(line));
    args_complain("%s", line);
    return CLI_USAGE;
}

/** The state under other partitions goes into the new directory as a checkpoint: the log before it speaks of the old ones, and is
 *  there for the fields of the transfers that are remembered. */
static int write_checkpoint(struct replay *replay, struct offline *offline) {
    const struct data_dir_settings *settings = data_dir_settings(replay->copy.dir);
    const term_t term = replay->position.term + 1;
    const struct wal_config config = {
        .disk = data_dir_disk(replay->copy.dir),
        .identity = settings->identity,
        .term = term,
        .position = replay->copy.position,
        .board = offline->board,
        .lanes = offline->lane,
        .lane_count = 1,
        .groups_in_flight = settings->groups_in_flight,
        .file_bytes = settings->identity.file_bytes,
        .group_bytes_wanted = GROUP_BYTES,
        .horizon_back_ms = HORIZON_BACK_MS,
        .horizon_minimum_ms = HORIZON_MINIMUM_MS,
    };
    struct wal *wal;
    char error[512];
    engine_drain(engine_lcore(offline->engine, 0));
    if (wal_open(&config, &wal, error, sizeof(error)) != 0) {
        args_complain("%s", error);
        return CLI_USAGE;
    }
    int exit_status = CLI_DONE;
    if (engine_replay_finish(offline->engine, replay->position.seq, term,
                             replay->position.cell_time, replay->position.horizon_ms) != 0) {
        args_complain("the log ends in the middle of something");
        exit_status = CLI_DAMAGED;
    }
    if (exit_status == CLI_DONE)
        exit_status = run_to_checkpoint(offline, wal);
    wal_close(wal);
    return exit_status;
}

static int copy_as_is(struct replay *replay) {
    int exit_status = begin_copy(replay, false);
    if (exit_status != CLI_DONE)
        return exit_status;
    wal_position_release(&replay->copy.position);
    return finish_copy(replay);
}

static int repartition(struct replay *replay) {
    const struct wal_identity *identity = &data_dir_settings(replay->from)->identity;
    struct wal_position position;
    struct recovery_report report;
    struct offline offline;
    int exit_status = offline_open(identity, (unsigned)replay->partitions, replay->memory_mb,
                                   replay->into ? CHECKPOINT_CHUNKS : 0, &offline);
    if (exit_status != CLI_DONE)
        return exit_status;
    exit_status = restore_state(replay, replay->from, &offline, &position, &report);
    if (exit_status == CLI_DONE) {
        wal_position_release(&position);
        exit_status =
            sum_digests(&offline, (unsigned)replay->partitions, &replay->repartitioned_digest);
    }
    if (exit_status == CLI_DONE)
        exit_status = compare_digests(replay->digest, replay->repartitioned_digest,
                                      "the other number of partitions");
    if (exit_status == CLI_DONE && replay->into != NULL) {
        exit_status = begin_copy(replay, true);
        if (exit_status == CLI_DONE)
            exit_status = write_checkpoint(replay, &offline);
    }
    offline_close(&offline);
    return exit_status == CLI_DONE && replay->into != NULL ? finish_copy(replay) : exit_status;
}

/* --- what is told ---------------------------------------------------------------------------------- */

static void show_json(const struct replay *replay, const char *digest, const char *repartitioned) {
    char hex[33];
    struct json_object *object = output_object();
    output_text(object, "type", "replay");
    output_uint64(object, "last_seq", replay->position.seq);
    output_uint64(object, "cell_time", replay->position.cell_time);
    output_uint64(object, "checkpoint", replay->report.checkpoint_seq);
    output_uint64(object, "groups", replay->report.log_groups);
    output_uint64(object, "records", replay->report.log_records);
    output_uint64(object, "accounts", replay->totals.accounts);
    output_uint64(object, "pendings", replay->totals.pendings);
    output_uint64(object, "ids", replay->totals.transfer_ids);
    output_number(object, "partitions", data_dir_settings(replay->from)->identity.partitions);
    output_text(object, "state_digest", digest);
    if (replay->partitions) {
        output_number(object, "new_partitions", replay->partitions);
        output_text(object, "new_state_digest", repartitioned);
    }
    if (replay->into) {
        output_text(object, "directory", replay->into);
        output_text(object, "cell",
                    offline_hex(data_dir_settings(replay->copy.dir)->identity.cell_id, hex));
    }
    output_print(object);
}

static void show_replay(const struct replay *replay) {
    char digest[33], repartitioned[33], text[80];
    offline_hex(&replay->digest, digest);
    offline_hex(&replay->repartitioned_digest, repartitioned);
    if (replay->cli->json) {
        show_json(replay, digest, repartitioned);
        return;
    }
    output_line_uint128("last group", replay->position.seq);
    output_line_time("cell time", replay->position.cell_time);
    if (replay->report.checkpoint_seq)
        output_line_uint128("checkpoint", replay->report.checkpoint_seq);
    output_line_uint128("groups replayed", replay->report.log_groups);
    output_line_uint128("records replayed", replay->report.log_records);
    output_line_uint128("accounts", replay->totals.accounts);
    output_line_uint128("live pendings", replay->totals.pendings);
    output_line_uint128("ids", replay->totals.transfer_ids);
    output_line("state digest", digest);
    snprintf(text, sizeof(text), "over %u partitions",
             data_dir_settings(replay->from)->identity.partitions);
    output_line("", text);
    if (replay->partitions) {
        output_line("state digest", repartitioned);
        snprintf(text, sizeof(text), "over %" PRIu64 " partitions: the same", replay->partitions);
        output_line("", text);
    }
    if (replay->into) {
        output_line("directory", replay->into);
        output_line("cell",
                    offline_hex(data_dir_settings(replay->copy.dir)->identity.cell_id, digest));
    }
}

/* --- all of it ------------------------------------------------------------------------------------- */

static int run(struct replay *replay) {
    if (replay->into && copy_lies_in(replay->into, replay->data)) {
        args_complain("%s lies in %s; name a directory elsewhere", replay->into, replay->data);
        return CLI_USAGE;
    }
    int exit_status = open_source(replay);
    if (exit_status == CLI_DONE)
        exit_status = look_at_source(replay);
    if (exit_status == CLI_DONE && replay->partitions)
        exit_status = repartition(replay);
    else if (exit_status == CLI_DONE && replay->into)
        exit_status = copy_as_is(replay);
    if (exit_status == CLI_DONE)
        show_replay(replay);
    if (replay->copy.dir != NULL && exit_status == CLI_DONE)
        data_dir_close(replay->copy.dir);
    else if (replay->copy.dir != NULL)
        data_dir_abandon(replay->copy.dir);
    data_dir_close(replay->from);
    control_client_close(replay->client);
    return exit_status;
}

/** @return CLI_DONE or said why not */
static int check_until(struct replay *replay, const char *text) {
    char error[200], then[64], now_text[64];
    uint64_t now = clock_ns(CLOCK_REALTIME);
    if (text == NULL)
        return CLI_DONE;
    if (until_parse(text, &replay->until, error, sizeof(error)) != 0) {
        args_complain("--until %s", error);
        return CLI_USAGE;
    }
    if (replay->until.ns <= now)
        return CLI_DONE;
    args_complain("--until %s lies in the future: it is %s now",
                  time_text(replay->until.ns, then, sizeof(then)),
                  time_text(now, now_text, sizeof(now_text)));
    return CLI_USAGE;
}

int tally_replay(struct cli *cli, int argc, char **argv) {
    struct replay replay = {.cli = cli};
    const char *until = NULL;
    const struct args_option options[] = {
        {"data", 'd', ARGS_TEXT, &replay.data, "SOURCE", "data directory to read", false, 0, 0,
         NULL},
        {"into", 'i', ARGS_TEXT, &replay.into, "DIR", "write the state there: new, or empty", false,
         0, 0, NULL},
        {"until", 'u', ARGS_TEXT, &until, "TIME|SEQ", "as of then (default: the log's end)", false,
         0, 0, NULL},
        {"partitions", 'p', ARGS_NUMBER, &replay.partitions, "N", "under another number of them",
         false, 1, PARTITIONS_MAX, NULL},
        {"memory-mb", 'm', ARGS_NUMBER, &replay.memory_mb, "N", "at most, for the state", false, 32,
         4u << 20, NULL},
        {"workers", 'w', ARGS_NUMBER, &replay.workers, "N", "threads (default: one a core)", false,
         1, LCORES_MAX, NULL},
        {NULL}};
    const struct args_command command = {
        "replay",
        "Rebuild the state of a data directory as of a group or a time, verify it, and\n"
        "write it into a directory that starts as a cell of its own. SOURCE stays as is.",
        "",
        0,
        0,
        options,
        "--until takes a group's number, a time such as 2026-11-20T16:43:00Z (UTC unless\n"
        "it has a zone), or Unix seconds as in @1795192980.5. Without --into it only\n"
        "verifies and reports. --partitions restores the state under another number of\n"
        "partitions and proves that the sum of all digests stays the same.\n"
        "Without --data: $TALLY_DATA_DIR, else /var/lib/tally.\n"};
    unsigned operands;
    enum args_answer answer = args_parse(&command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    replay.data = offline_directory(replay.data);
    int exit_status = check_until(&replay, until);
    return exit_status == CLI_DONE ? run(&replay) : exit_status;
}

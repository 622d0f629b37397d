/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/tally_offline.h"
#include "wal/data_dir.h"
#include "wal/wal_inspect.h"
#include "wal/wal_reader.h"

/** wal verify: every byte of a log, and that the state which checkpoint and log amount to is the one whose digests they carry. */

struct verify {
    struct cli *cli;
    const char *data;
    struct data_dir *dir;
    struct control_client *client; /**< NULL: nobody runs on it */
    seq_t last_seq;                /**< of a running tallyd: what is committed; else 0 */
    struct wal_inspect_summary summary;
    uint64_t damages;
    bool state_good;
    uint128_t digest;
    struct engine_totals totals;
    struct recovery_report report;
    struct offline_watch watch;
    uint64_t seen_bytes, total_bytes;
};

static int show_group(void *context, const struct wal_inspect_group *group) {
    struct verify *verify = context;
    verify->seen_bytes += group->bytes;
    offline_watch_show(&verify->watch, verify->seen_bytes, verify->total_bytes);
    return verify->watch.lost ? -ECONNRESET : 0;
}

static int show_damage(void *context, const struct wal_damage *damage) {
    struct verify *verify = context;
    progress_end(&verify->watch.progress);
    verify->damages += !damage->torn;
    if (verify->cli->json) {
        output_damage(damage);
    } else {
        if (damage->torn && verify->client)
            printf("tail: tallyd is writing behind the last group\n");
        else
            printf("%s: %s\n", damage->torn ? "torn tail" : "damage", damage->message);
    }
    return 0;
}

static void show_verified(const struct verify *verify, int exit_status) {
    const struct wal_inspect_summary *summary = &verify->summary;
    const char *verdict = exit_status            ? "damaged"
                          : !summary->torn_bytes ? "good"
                          : verify->client       ? "good, and being written"
                                                 : "good, with a torn tail";
    char digest[33];
    offline_hex(&verify->digest, digest);
    if (verify->cli->json) {
        struct json_object *object = output_object();
        output_text(object, "type", "summary");
        output_text(object, "verdict", verdict);
        output_uint64(object, "first_seq", summary->first_seq);
        output_uint64(object, "last_seq", summary->last_seq);
        output_uint64(object, "last_term", summary->last_term);
        output_uint64(object, "files", summary->files);
        output_uint64(object, "groups", summary->groups);
        output_uint64(object, "records", summary->records);
        output_uint64(object, "bytes", summary->bytes);
        output_uint64(object, "torn_bytes", summary->torn_bytes);
        output_uint64(object, "durable_seq", summary->durable_seq);
        output_uint64(object, "cell_time", summary->cell_time);
        if (verify->state_good) {
            output_uint64(object, "checkpoint", verify->report.checkpoint_seq);
            output_uint64(object, "accounts", verify->totals.accounts);
            output_uint64(object, "pendings", verify->totals.pendings);
            output_uint64(object, "ids", verify->totals.transfer_ids);
            output_text(object, "state_digest", digest);
        }
        output_print(object);
        return;
    }
    output_line("log", verdict);
    output_line_uint128("first group", summary->first_seq);
    output_line_uint128("last group", summary->last_seq);
    output_line_uint128("last term", summary->last_term);
    output_line_uint128("files", summary->files);
    output_line_uint128("records", summary->records);
    output_line_uint128("bytes", summary->bytes);
    if (summary->torn_bytes && !verify->client)
        output_line_uint128("torn bytes", summary->torn_bytes);
    output_line_time("cell time", summary->cell_time);
    if (!verify->state_good)
        return;
    output_line("state", "good");
    if (verify->report.checkpoint_seq)
        output_line_uint128("from checkpoint", verify->report.checkpoint_seq);
    output_line_uint128("accounts", verify->totals.accounts);
    output_line_uint128("live pendings", verify->totals.pendings);
    output_line_uint128("ids", verify->totals.transfer_ids);
    output_line("state digest", digest);
}

/* --- the state ----------------------------------------------------------------------------------- */

static int show_bad_state(struct verify *verify, const char *error) {
    if (verify->cli->json) {
        struct json_object *object = output_object();
        output_text(object, "type", "damage");
        output_text(object, "message", error);
        output_print(object);
    } else {
        printf("damage: %s\n", error);
    }
    verify->damages++;
    return CLI_DAMAGED;
}

/** Everything that a start of tallyd would see, and a look at the tables afterwards. */
static int verify_state(struct verify *verify, uint64_t memory_mb, uint64_t workers) {
    const struct wal_identity *identity = &data_dir_settings(verify->dir)->identity;
    struct wal_position position;
    const struct recovery_config limits = {.workers = (unsigned)workers,
                                           .until_seq = verify->last_seq};
    struct offline offline;
    char error[1024];
    bool agrees = true;
    if (offline_open(identity, identity->partitions, memory_mb, 0, &offline) != CLI_DONE)
        return CLI_USAGE;
    int rc = offline_recover(&offline, verify->dir, verify->client, &limits, &position,
                             &verify->report, error, sizeof(error));
    if (rc == 0) {
        wal_position_release(&position);
        verify->digest = offline_digest(&offline, identity->partitions, &agrees);
        engine_totals(offline.engine, &verify->totals);
    }
    offline_close(&offline);
    if (rc == -ECONNRESET)
        return CLI_UNKNOWN;
    if (rc == -ENOMEM) {
        args_complain("the state does not fit into the memory; give more with --memory-mb, or "
                      "verify with --log-only");
        return CLI_USAGE;
    }
    if (rc == -EBADMSG || rc == -ENODATA || rc == -EPERM)
        return show_bad_state(verify, error);
    if (rc != 0)
        args_complain("%s", error);
    verify->state_good = rc == 0 && agrees;
    if (rc == 0 && !agrees)
        return show_bad_state(verify, "the tables do not have the digest that was kept while they "
                                      "were filled: memory or program is broken");
    return rc == 0 ? CLI_DONE : CLI_USAGE;
}

/* --- the log ------------------------------------------------------------------------------------- */

static int verify_log(struct verify *verify) {
    static const struct wal_inspect_visitor visitor = {.group = show_group, .damage = show_damage};
    struct disk *disk = data_dir_disk(verify->dir);
    char error[512] = "";
    uint64_t file;
    seq_t seq;
    if (wal_log_begin(disk, &data_dir_settings(verify->dir)->identity, &file, &seq) == 0)
        for (int64_t size; (size = disk->size(disk, file)) > 0; file++)
            verify->total_bytes += (uint64_t)size;
    offline_watch_begin(&verify->watch, "log", verify->client);
    int rc = wal_inspect(data_dir_disk(verify->dir), &data_dir_settings(verify->dir)->identity,
                         &visitor, verify, &verify->summary, error, sizeof(error));
    progress_end(&verify->watch.progress);
    if (rc == -ECONNRESET)
        return CLI_UNKNOWN;
    if (rc != 0 && !verify->damages && *error)
        args_complain("%s", error);
    if (rc == 0 && !verify->damages && verify->summary.last_seq < verify->last_seq) {
        snprintf(error, sizeof(error),
                 "the log on the disk ends at group %" PRIu64 ", but tallyd has committed group "
                 "%" PRIu64 ": let it take a checkpoint (tally checkpoint) before it ends",
                 verify->summary.last_seq, verify->last_seq);
        return show_bad_state(verify, error);
    }
    return rc == 0 && verify->damages ? CLI_DAMAGED : offline_exit(rc);
}

static int open_directory(struct verify *verify) {
    char error[512], socket[4200];
    struct stat status;
    if (stat(verify->data, &status) < 0) {
        args_complain("%s: %s", verify->data,
                      errno == ENOENT ? "there is no such directory" : strerror(errno));
        return CLI_USAGE;
    }
    if (!S_ISDIR(status.st_mode)) {
        args_complain("%s is a file; wal verify takes a data directory", verify->data);
        return CLI_USAGE;
    }
    /* who may read the files but not ask tallyd looks at them without a hold */
    snprintf(socket, sizeof(socket), "%s/control", verify->data);
    int exit_status = access(socket, W_OK) == 0
                          ? offline_hold(verify->data, verify->cli->timeout_ms, &verify->client,
                                         &verify->last_seq)
                          : CLI_DONE;
    if (exit_status != CLI_DONE)
        return exit_status;
    int rc = data_dir_open(verify->data, DATA_DIR_READ_ONLY, &verify->dir, error, sizeof(error));
    if (rc != 0)
        args_complain("%s", error);
    return offline_exit(rc);
}

int tally_wal_verify(struct cli *cli, int argc, char **argv) {
    struct verify verify = {.cli = cli};
    bool log_only = false;
    uint64_t memory_mb = 0, workers = 0;
    const char *data = NULL;
    const struct args_option options[] = {
        {"data", 'd', ARGS_TEXT, &data, "DIR", "data directory, the same as the operand", false, 0,
         0, NULL},
        {"log-only", 'l', ARGS_SWITCH, &log_only, NULL, "the bytes alone, not the state", false, 0,
         0, NULL},
        {"memory-mb", 'm', ARGS_NUMBER, &memory_mb, "N", "at most, for the state", false, 32,
         4u << 20, NULL},
        {"workers", 'w', ARGS_NUMBER, &workers, "N", "threads (default: one a core)", false, 1,
         LCORES_MAX, NULL},
        {NULL}};
    const struct args_command command = {
        "wal verify",
        "Verify the log of a data directory, every byte, and the state that it amounts to\n"
        "with the newest checkpoint. Changes nothing.",
        "[DIR]",
        0,
        1,
        options,
        "Without DIR or --data: $TALLY_DATA_DIR, else /var/lib/tally.\n"
        "A torn tail is what a killed or powerless tallyd leaves; the next start cuts it,\n"
        "and the exit status is 0. Damage anywhere else is exit status 4.\n"};
    unsigned operands;
    enum args_answer answer = args_parse(&command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    if (operands != 0 && data != NULL) {
        args_complain("wal verify takes DIR or --data, not both");
        return CLI_USAGE;
    }
    verify.data = offline_directory(operands != 0 ? argv[0] : data);
    int exit_status = open_directory(&verify);
    if (exit_status == CLI_DONE) {
        exit_status = verify_log(&verify);
        if (exit_status == CLI_DONE && !log_only)
            exit_status = verify_state(&verify, memory_mb, workers);
        if (exit_status == CLI_DONE || exit_status == CLI_DAMAGED)
            show_verified(&verify, exit_status);
        data_dir_close(verify.dir);
    }
    control_client_close(verify.client);
    return exit_status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/restore.h"
#include "tools/tally_checkpoint.h"
#include "tools/tally_offline.h"
#include "wal/checkpoint_inspect.h"
#include "wal/data_dir.h"

/** checkpoint, checkpoint list, checkpoint verify: taking one, and looking at those that are kept. */

#define POLL_NS (20 * NS_PER_MS)

static void rest(void) {
    const struct timespec pause = {.tv_nsec = POLL_NS};
    nanosleep(&pause, NULL);
}

/* --- taking one ---------------------------------------------------------------------------------- */

static void show_taken(const struct cli *cli, struct json_object *status, uint64_t bytes,
                       double seconds) {
    uint64_t seq = control_number(status, "published_seq");
    if (cli->json) {
        struct json_object *object = output_object();
        output_text(object, "type", "checkpoint");
        output_uint64(object, "seq", seq);
        output_uint64(object, "bytes", bytes);
        output_double(object, "seconds", seconds);
        output_print(object);
        return;
    }
    output_line_uint128("checkpoint", seq);
    output_line_uint128("bytes", bytes);
    printf("%-20s %.3f\n", "seconds", seconds);
}

/** Wait until it is published or given up. @return the last status, or NULL (said why) */
static struct json_object *wait_served(struct control_client *client, uint64_t ticket,
                                       uint64_t *bytes) {
    struct progress progress;
    struct json_object *status;
    progress_begin(&progress, "checkpoint");
    while ((status = control_client_ask(client, CONTROL_STATUS)) != NULL) {
        uint64_t now = control_number(status, "bytes");
        *bytes = now > *bytes ? now : *bytes;
        if (control_number(status, "served") >= ticket)
            break;
        progress_show(&progress, now, control_number(status, "bytes_expected"));
        json_object_put(status);
        rest();
    }
    progress_end(&progress);
    return status;
}

int checkpoint_take(const char *directory, struct control_client *client, seq_t *seq,
                    uint64_t *bytes, struct json_object **status) {
    struct json_object *answer = control_client_ask(client, CONTROL_CHECKPOINT);
    if (answer == NULL)
        return CLI_REFUSED;
    uint64_t ticket = control_number(answer, "ticket");
    json_object_put(answer);
    *bytes = 0;
    *status = wait_served(client, ticket, bytes);
    if (*status == NULL)
        return CLI_UNKNOWN;
    int error = control_error(*status, "error");
    *seq = control_number(*status, "published_seq");
    if (error == 0 && *seq != 0)
        return CLI_DONE;
    args_complain("%s: the checkpoint was given up: %s; the log goes on, and it is tried again",
                  directory, error ? strerror(-error) : "nothing was published");
    json_object_put(*status);
    return CLI_REFUSED;
}

/** Who wrote his process id into the directory's lock, if that process is there; 0: nobody. Never takes the lock: that could be in the
 *  way of a tallyd that starts. */
static long lock_holder(const char *data) {
    char path[4200];
    long holder = 0;
    snprintf(path, sizeof(path), "%s/lock", data);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%ld", &holder) != 1 || holder <= 0 ||
        (kill((pid_t)holder, 0) != 0 && errno != EPERM))
        holder = 0;
    fclose(file);
    return holder;
}

static void complain_nobody(const char *data) {
    struct data_dir *dir;
    char error[512];
    if (data_dir_open(data, DATA_DIR_READ_ONLY, &dir, error, sizeof(error)) != 0) {
        args_complain("%s", error);
        return;
    }
    data_dir_close(dir);
    long holder = lock_holder(data);
    if (holder != 0)
        args_complain("%s: process %ld may hold it, but does not listen (yet: a tallyd that still "
                      "recovers does not)",
                      data, holder);
    else
        args_complain("no tallyd runs on %s; start one: tallyd run --data %s ...", data, data);
}

int tally_checkpoint(struct cli *cli, int argc, char **argv) {
    const char *data = NULL;
    const struct args_option options[] = {{"data", 'd', ARGS_TEXT, &data, "DIR",
                                           "data directory of a running tallyd", false, 0, 0, NULL},
                                          {NULL}};
    const struct args_command command = {
        "checkpoint",
        "Take a checkpoint now, and wait until it is published.",
        "[list | verify]",
        0,
        0,
        options,
        "Without --data: $TALLY_DATA_DIR, else /var/lib/tally. tallyd takes checkpoints\n"
        "by itself, too: see --checkpoint-mb and --checkpoint-s in 'tallyd help'.\n"};
    struct control_client *client;
    struct json_object *status;
    struct timespec begun, ended;
    unsigned operands;
    uint64_t bytes;
    seq_t seq;
    enum args_answer answer = args_parse(&command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    data = offline_directory(data);
    enum control_found found = control_client_open(data, cli->timeout_ms, &client);
    if (found == CONTROL_NOBODY)
        complain_nobody(data);
    if (found != CONTROL_SERVED)
        return CLI_USAGE;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    int exit_status = checkpoint_take(data, client, &seq, &bytes, &status);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    if (exit_status == CLI_DONE) {
        show_taken(cli, status, bytes,
                   (double)(ended.tv_sec - begun.tv_sec) +
                       (double)(ended.tv_nsec - begun.tv_nsec) / 1e9);
        json_object_put(status);
    }
    control_client_close(client);
    return exit_status;
}

/* --- looking at those that are kept -------------------------------------------------------------- */

/** @return how many, or -1 (said why, *exit_status set) */
static int open_kept(const char *data, struct data_dir **dir, seq_t *seqs, int *exit_status) {
    char error[512];
    int rc = data_dir_open(data, DATA_DIR_READ_ONLY, dir, error, sizeof(error));
    if (rc != 0) {
        args_complain("%s", error);
        *exit_status = offline_exit(rc);
        return -1;
    }
    int count = checkpoint_list(data_dir_disk(*dir), seqs, CHECKPOINT_LIST_MAX);
    if (count < 0) {
        args_complain("%s: its checkpoints cannot be listed: %s", data, strerror(-count));
        data_dir_close(*dir);
        *exit_status = CLI_USAGE;
    }
    return count < 0 ? -1 : count;
}

static void show_manifest(const struct cli *cli, const struct checkpoint_manifest *manifest,
                          const char *verdict) {
    char hex[33];
    if (cli->json) {
        struct json_object *object = output_object();
        output_text(object, "type", "checkpoint");
        if (verdict)
            output_text(object, "verdict", verdict);
        output_uint64(object, "seq", manifest->seq);
        output_uint64(object, "term", manifest->term);
        output_uint64(object, "cell_time", manifest->cell_time);
        output_uint64(object, "accounts", manifest->accounts);
        output_uint64(object, "pendings", manifest->pendings);
        output_uint64(object, "ids", manifest->ids);
        output_uint64(object, "bytes", manifest->chunk_count * CHECKPOINT_CHUNK_BYTES);
        output_uint64(object, "log_file", manifest->log_file);
        output_uint64(object, "log_offset", manifest->log_offset);
        output_number(object, "partitions", manifest->partitions);
        output_text(object, "state_digest", offline_hex(manifest->state_digest, hex));
        output_print(object);
        return;
    }
    output_line_uint128("checkpoint", manifest->seq);
    if (verdict)
        output_line("verdict", verdict);
    output_line_time("cell time", manifest->cell_time);
    output_line_uint128("accounts", manifest->accounts);
    output_line_uint128("pendings", manifest->pendings);
    output_line_uint128("ids", manifest->ids);
    output_line_uint128("bytes", manifest->chunk_count * CHECKPOINT_CHUNK_BYTES);
    output_line_uint128("log file", manifest->log_file);
    output_line_uint128("log offset", manifest->log_offset);
    output_line("state digest", offline_hex(manifest->state_digest, hex));
}

int tally_checkpoint_list(struct cli *cli, int argc, char **argv) {
    const char *data = NULL;
    const struct args_option options[] = {
        {"data", 'd', ARGS_TEXT, &data, "DIR", "data directory", false, 0, 0, NULL}, {NULL}};
    const struct args_command command = {
        "checkpoint list",
        "Show the checkpoints that a data directory keeps, oldest first. Changes nothing.",
        "",
        0,
        0,
        options,
        "Without --data: $TALLY_DATA_DIR, else /var/lib/tally.\n"};
    struct data_dir *dir;
    seq_t seqs[CHECKPOINT_LIST_MAX];
    unsigned operands;
    int exit_status = CLI_DONE;
    enum args_answer answer = args_parse(&command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    data = offline_directory(data);
    int count = open_kept(data, &dir, seqs, &exit_status);
    for (int i = 0; i < count; i++) {
        struct checkpoint_manifest manifest;
        char error[512];
        int rc =
            checkpoint_manifest_read(data_dir_disk(dir), data_dir_settings(dir)->identity.cell_id,
                                     seqs[i], &manifest, error, sizeof(error));
        if (rc == 0)
            show_manifest(cli, &manifest, NULL);
        else if (rc != -ENOENT) { /* a newer one took its place meanwhile */
            args_complain("%s", error);
            exit_status = offline_exit(rc);
        }
        if (!cli->json && i + 1 < count)
            printf("\n");
    }
    if (count == 0 && !cli->json)
        printf("%s keeps no checkpoint\n", data);
    if (count >= 0)
        data_dir_close(dir);
    return exit_status;
}

/* --- verifying ----------------------------------------------------------------------------------- */

struct verify {
    struct cli *cli;
    struct restore *restore; /**< NULL: do not look at the state */
    int rc;                  /**< of the restore */
    uint64_t chunks;
    struct progress progress;
    uint64_t total_bytes;
};

static int verify_chunk(void *context, const struct checkpoint_chunk *chunk) {
    struct verify *verify = context;
    if (verify->restore != NULL && verify->rc == 0)
        verify->rc = restore_chunk(verify->restore, 0, chunk);
    progress_show(&verify->progress, ++verify->chunks * CHECKPOINT_CHUNK_BYTES,
                  verify->total_bytes);
    return 0;
}

static int show_damage(void *context, const struct checkpoint_damage *damage) {
    struct verify *verify = context;
    progress_end(&verify->progress);
    if (verify->cli->json) {
        struct json_object *object = output_object();
        output_text(object, "type", "damage");
        output_text(object, "file", damage->file_name);
        output_uint64(object, "offset", damage->offset);
        output_uint64(object, "bytes", damage->bytes);
        output_text(object, "message", damage->message);
        output_print(object);
    } else {
        printf("damaged: %s\n  bytes %" PRIu64 "..%" PRIu64 ": %s\n", damage->file_name,
               damage->offset, damage->offset + damage->bytes, damage->message);
    }
    return 0;
}

/** One of them. @return the exit status */
static int verify_one(struct verify *verify, struct data_dir *dir, seq_t seq, uint64_t memory_mb) {
    static const struct checkpoint_visitor visitor = {verify_chunk, show_damage};
    const struct wal_identity *identity = &data_dir_settings(dir)->identity;
    struct checkpoint_manifest manifest;
    struct checkpoint_summary summary;
    struct offline offline = {0};
    char error[512];
    int rc = checkpoint_manifest_read(data_dir_disk(dir), identity->cell_id, seq, &manifest, error,
                                      sizeof(error));
    if (rc == -ENOENT)
        return CLI_DONE; /* a newer one took its place meanwhile */
    if (rc == 0) {
        if (offline_open(identity, manifest.partitions, memory_mb, 0, &offline) != CLI_DONE)
            return CLI_USAGE;
        if (restore_open(offline.engine, 1, &verify->restore) != 0) {
            args_complain("no memory");
            offline_close(&offline);
            return CLI_USAGE;
        }
        verify->total_bytes = manifest.chunk_count * CHECKPOINT_CHUNK_BYTES;
    }
    verify->rc = 0;
    verify->chunks = 0;
    progress_begin(&verify->progress, "checkpoint");
    rc = checkpoint_inspect(data_dir_disk(dir), identity, seq, &visitor, verify, &summary, error,
                            sizeof(error));
    if (rc == 0)
        rc = verify->rc != 0 ? verify->rc : restore_checkpoint_end(verify->restore, &manifest);
    progress_end(&verify->progress);
    if (rc != 0 && summary.damages == 0)
        args_complain("checkpoint %" PRIu64 ": %s", seq,
                      *error ? error : restore_error(verify->restore));
    if (summary.manifest_good)
        show_manifest(verify->cli, &summary.manifest, rc == 0 ? "good" : "damaged");
    if (verify->restore != NULL)
        restore_close(verify->restore);
    verify->restore = NULL;
    offline_close(&offline);
    return offline_exit(rc);
}

int tally_checkpoint_verify(struct cli *cli, int argc, char **argv) {
    const char *data = NULL;
    uint64_t memory_mb = 0;
    const struct args_option options[] = {
        {"data", 'd', ARGS_TEXT, &data, "DIR", "data directory", false, 0, 0, NULL},
        {"memory-mb", 'm', ARGS_NUMBER, &memory_mb, "N", "at most, for the state", false, 32,
         4u << 20, NULL},
        {NULL}};
    const struct args_command command = {
        "checkpoint verify",
        "Verify every checkpoint that a data directory keeps, every byte: digests,\n"
        "counts, and that the state is the one whose digest was taken. Changes nothing.",
        "",
        0,
        0,
        options,
        "Damage is exit status 4, and each place of it is named.\n"
        "Without --data: $TALLY_DATA_DIR, else /var/lib/tally.\n"};
    struct verify verify = {.cli = cli};
    struct data_dir *dir;
    seq_t seqs[CHECKPOINT_LIST_MAX];
    unsigned operands;
    int exit_status = CLI_DONE;
    enum args_answer answer = args_parse(&command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    data = offline_directory(data);
    int count = open_kept(data, &dir, seqs, &exit_status);
    for (int i = 0; i < count; i++) {
        int one = verify_one(&verify, dir, seqs[i], memory_mb);
        exit_status = one > exit_status ? one : exit_status;
        if (!cli->json && i + 1 < count)
            printf("\n");
    }
    if (count == 0 && !cli->json)
        printf("%s keeps no checkpoint\n", data);
    if (count >= 0)
        data_dir_close(dir);
    return exit_status;
}

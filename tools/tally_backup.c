/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tally_checkpoint.h"
#include "tools/tally_copy.h"
#include "tools/tally_offline.h"
#include "wal/wal_inspect.h"

/** backup: checkpoint and log of a running or stopped node, as a directory that starts elsewhere as a cell of its own. */

struct backup {
    struct cli *cli;
    const char *data;
    struct control_client *client; /**< NULL: nobody runs on it */
    struct copy copy;
};

/** While tallyd is asked now and then, it knows that its log is still held for somebody. */
static int still_there(void *context) {
    struct backup *backup = context;
    struct json_object *answer = control_client_ask(backup->client, CONTROL_STATUS);
    if (answer == NULL)
        return -ECONNRESET;
    json_object_put(answer);
    return 0;
}

/** Hold the log, and let a checkpoint be taken if there are any. @return CLI_DONE with checkpoint_seq and last_seq of the copy, or
 *  said why not */
static int hold_running(struct backup *backup) {
    struct json_object *answer = control_client_ask(backup->client, CONTROL_HOLD);
    uint64_t bytes;
    seq_t seq;
    if (answer == NULL)
        return CLI_UNKNOWN;
    json_object_put(answer);
    answer = control_client_ask(backup->client, CONTROL_STATUS);
    if (answer != NULL && control_number(answer, "checkpoints") != 0) {
        json_object_put(answer);
        int exit_status = checkpoint_take(backup->data, backup->client, &seq, &bytes, &answer);
        if (exit_status != CLI_DONE)
            return exit_status;
    }
    if (answer == NULL)
        return CLI_UNKNOWN;
    backup->copy.last_seq = control_number(answer, "commit_seq");
    json_object_put(answer);
    backup->copy.alive = still_there;
    backup->copy.context = backup;
    return CLI_DONE;
}

/** Where the log of a stopped node ends. @return CLI_DONE or said why not */
static int find_end(struct backup *backup) {
    struct wal_inspect_summary summary;
    char error[512] = "";
    int rc = wal_inspect(data_dir_disk(backup->copy.from),
                         &data_dir_settings(backup->copy.from)->identity, NULL, NULL, &summary,
                         error, sizeof(error));
    backup->copy.last_seq = summary.last_seq;
    if (rc != 0)
        args_complain("%s", error);
    return offline_exit(rc);
}

static int open_source(struct backup *backup) {
    char error[512];
    int rc =
        data_dir_open(backup->data, backup->client ? DATA_DIR_READ_ONLY : DATA_DIR_LOCK_READ_ONLY,
                      &backup->copy.from, error, sizeof(error));
    if (rc != 0) {
        args_complain("%s", error);
        return offline_exit(rc);
    }
    int exit_status = backup->client ? CLI_DONE : find_end(backup);
    if (exit_status == CLI_DONE)
        backup->copy.checkpoint_seq =
            copy_newest_checkpoint(backup->copy.from, backup->copy.last_seq);
    return exit_status;
}

static void show_backup(const struct backup *backup) {
    const struct copy *copy = &backup->copy;
    const struct data_dir_settings *settings = data_dir_settings(copy->dir);
    char cell[33], parent[33];
    offline_hex(settings->identity.cell_id, cell);
    offline_hex(settings->parent_cell_id, parent);
    if (backup->cli->json) {
        struct json_object *object = output_object();
        output_text(object, "type", "backup");
        output_text(object, "directory", copy->into);
        output_text(object, "cell", cell);
        output_text(object, "parent", parent);
        output_uint64(object, "checkpoint", copy->checkpoint_seq);
        output_uint64(object, "last_seq", copy->position.seq);
        output_uint64(object, "cell_time", copy->position.cell_time);
        output_uint64(object, "bytes", copy->bytes);
        output_print(object);
        return;
    }
    output_line("backup", copy->into);
    output_line("cell", cell);
    output_line("parent cell", parent);
    if (copy->checkpoint_seq)
        output_line_uint128("checkpoint", copy->checkpoint_seq);
    output_line_uint128("last group", copy->position.seq);
    output_line_time("cell time", copy->position.cell_time);
    output_line_uint128("bytes", copy->bytes);
}

/** The hold must have lasted until everything was copied. */
static int let_go(struct backup *backup) {
    struct json_object *answer =
        backup->client ? control_client_ask(backup->client, CONTROL_RELEASE) : NULL;
    if (backup->client && answer == NULL)
        return CLI_UNKNOWN;
    json_object_put(answer);
    return CLI_DONE;
}

/** Where the newest checkpoint is damaged, the one before it with more of the log does as well. */
static int copy_some(struct backup *backup, char *error, size_t error_bytes) {
    struct copy *copy = &backup->copy;
    for (;;) {
        int rc = copy_directory(copy, error, error_bytes);
        seq_t older = rc == -EBADMSG && copy->checkpoint_seq > 1
                          ? copy_newest_checkpoint(copy->from, copy->checkpoint_seq - 1)
                          : 0;
        if (older == 0)
            return rc;
        args_complain("warning: %s; trying the checkpoint before", error);
        copy->checkpoint_seq = older;
        copy->bytes = 0;
        copy->log_digest_known = false;
        copy->next_file = 0;
    }
}

static int copy_all(struct backup *backup) {
    char error[512];
    int rc = copy_some(backup, error, sizeof(error));
    if (rc != 0) {
        if (*error)
            args_complain("%s%s", error, rc == -ENOSPC ? "; what was copied is removed again" : "");
        return *error ? offline_exit(rc) : CLI_UNKNOWN;
    }
    int exit_status = let_go(backup);
    if (exit_status == CLI_DONE && data_dir_finish(backup->copy.dir, error, sizeof(error)) != 0) {
        args_complain("%s", error);
        exit_status = CLI_USAGE;
    }
    if (exit_status == CLI_DONE) {
        show_backup(backup);
        data_dir_close(backup->copy.dir);
    } else {
        data_dir_abandon(backup->copy.dir);
    }
    wal_position_release(&backup->copy.position);
    return exit_status;
}

static int run(struct backup *backup) {
    if (copy_lies_in(backup->copy.into, backup->data)) {
        args_complain("%s lies in %s; name a directory elsewhere", backup->copy.into, backup->data);
        return CLI_USAGE;
    }
    int exit_status = CLI_DONE;
    if (control_client_open(backup->data, backup->cli->timeout_ms, &backup->client) ==
        CONTROL_REFUSED)
        return CLI_USAGE;
    if (backup->client)
        exit_status = hold_running(backup);
    if (exit_status == CLI_DONE)
        exit_status = open_source(backup);
    if (exit_status == CLI_DONE)
        exit_status = copy_all(backup);
    data_dir_close(backup->copy.from);
    control_client_close(backup->client);
    return exit_status;
}

int tally_backup(struct cli *cli, int argc, char **argv) {
    const char *data = NULL;
    const struct args_option options[] = {
        {"data", 'd', ARGS_TEXT, &data, "SOURCE", "data directory to back up", false, 0, 0, NULL},
        {NULL}};
    const struct args_command command = {
        "backup",
        "Copy checkpoint and log of a data directory into a new one, while tallyd runs\n"
        "on it or not. The copy starts as a cell of its own, which names its parent.",
        "DIR",
        1,
        1,
        options,
        "DIR is made, or is empty. It holds everything that was acknowledged before the\n"
        "backup began. 'tally wal verify DIR' verifies it, 'tallyd run --data DIR' starts\n"
        "it. What a killed backup leaves, nothing starts from: remove it.\n"
        "Without --data: $TALLY_DATA_DIR, else /var/lib/tally.\n"};
    unsigned operands;
    enum args_answer answer = args_parse(&command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    struct backup backup = {.cli = cli, .data = offline_directory(data), .copy = {.into = argv[0]}};
    return run(&backup);
}

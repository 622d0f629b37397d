/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/tally_cli.h"
#include "wal/data_dir.h"
#include "wal/disk_uring.h"
#include "wal/wal_inspect.h"

/** wal dump: the log of a data directory, read only. */

struct log {
    struct cli *cli;
    struct data_dir *dir; /**< or none: a folder of log files */
    struct disk *disk;
    const struct wal_identity *identity;
    char only[64]; /**< name of the one file to dump, or "" */
    bool shown;    /**< the group that records now belong to is shown */
    bool records;  /**< dump those too */
    uint64_t damages;
};

/* --- opening ---------------------------------------------------------------------------------- */

/** A data directory, its wal folder, or one file in that. @return CLI_DONE, CLI_USAGE or
 *  CLI_DAMAGED */
static int log_open(struct log *log, const char *path) {
    char folder[4096], error[400] = "";
    struct stat status;
    snprintf(folder, sizeof(folder), "%s", path);
    if (stat(path, &status) < 0) {
        args_complain("%s: %s", path, strerror(errno));
        return CLI_USAGE;
    }
    if (!S_ISDIR(status.st_mode)) {
        snprintf(log->only, sizeof(log->only), "%s", base_of(path));
        snprintf(folder, sizeof(folder), "%s", path);
        memmove(folder, dirname(folder), strlen(dirname(folder)) + 1);
    }
    char superblock[4200];
    snprintf(superblock, sizeof(superblock), "%s/superblock", folder);
    if (stat(superblock, &status) < 0) {
        if (errno != ENOENT) {
            args_complain("%s: %s", superblock, strerror(errno));
            return CLI_USAGE;
        }
        int rc =
            disk_uring_open(folder, NULL, DISK_URING_READ_ONLY, &log->disk, error, sizeof(error));
        if (rc < 0)
            args_complain("%s", error);
        return rc < 0 ? CLI_USAGE : CLI_DONE;
    }
    int rc = data_dir_open(folder, DATA_DIR_READ_ONLY, &log->dir, error, sizeof(error));
    if (rc < 0) {
        args_complain("%s", error);
        return rc == -EBADMSG ? CLI_DAMAGED : CLI_USAGE;
    }
    log->disk = data_dir_disk(log->dir);
    log->identity = &data_dir_settings(log->dir)->identity;
    return CLI_DONE;
}

static void log_close(struct log *log) {
    if (log->dir)
        data_dir_close(log->dir);
    else if (log->disk)
        disk_uring_close(log->disk);
}

/* --- showing ---------------------------------------------------------------------------------- */

static int show_group(void *context, const struct wal_inspect_group *group) {
    struct log *log = context;
    const struct wal_chained_header *header = &group->header->chained;
    log->shown = !log->only[0] || strcmp(log->only, base_of(group->file_name)) == 0;
    if (!log->shown)
        return 0;
    if (log->cli->json) {
        struct json_object *object = output_object();
        output_text(object, "type", "group");
        output_uint64(object, "seq", header->seq);
        output_uint64(object, "term", header->term);
        output_text(object, "file", base_of(group->file_name));
        output_uint64(object, "offset", group->file_offset);
        output_uint64(object, "bytes", group->bytes);
        output_uint64(object, "records", group->records);
        output_uint64(object, "cell_time", header->cell_time);
        output_uint64(object, "horizon_ms", header->horizon_ms);
        output_uint64(object, "durable_seq", group->header->local.durable_seq);
        output_print(object);
    } else {
        printf("group %" PRIu64 " term %" PRIu64 " records %" PRIu64 " bytes %" PRIu64
               " at %s+%" PRIu64 "\n",
               header->seq, header->term, group->records, group->bytes, base_of(group->file_name),
               group->file_offset);
    }
    return 0;
}

static void show_transfer(const struct log *log, uint8_t type,
                          const struct wal_transfer_fields *fields, struct json_object *object) {
    char id[40], debit[40], credit[40], amount[40], flags[160];
    const struct tally_transfer *transfer = (const struct tally_transfer *)&fields->transfer;
    if (log->cli->json) {
        output_transfer_fields(object, transfer);
        output_uint64(object, "decided", fields->decided);
        if (fields->pending_amount)
            output_uint128(object, "pending_amount", fields->pending_amount);
        return;
    }
    printf("  %-8s id %s\n", wal_record_type_name(type), args_decimal(transfer->id, id));
    printf("           debit %s credit %s\n", args_decimal(transfer->debit_account_id, debit),
           args_decimal(transfer->credit_account_id, credit));
    printf("           amount %s ledger %u code %u flags %s\n",
           args_decimal(transfer->amount, amount), transfer->ledger, transfer->code,
           output_flag_names(transfer->flags, cli_transfer_flags, ",", flags, sizeof(flags)));
}

static void show_account(const struct log *log, const struct wal_record_account *record,
                         struct json_object *object) {
    char id[40], flags[160];
    struct tally_account account = {
        .id = record->id,
        .user_data_128 = record->user_data_128,
        .user_data_64 = record->user_data_64,
        .user_data_32 = record->user_data_32,
        .ledger = record->ledger,
        .code = record->code,
        .flags = record->flags,
        .timestamp = record->imported_timestamp ? record->imported_timestamp : record->timestamp};
    if (log->cli->json) {
        output_account_fields(object, &account);
        return;
    }
    printf("  account  id %s\n", args_decimal(account.id, id));
    printf("           ledger %u code %u flags %s\n", account.ledger, account.code,
           output_flag_names(account.flags, cli_account_flags, ",", flags, sizeof(flags)));
}

static void show_small(const struct log *log, const struct wal_record_head *head,
                       struct json_object *object) {
    char number[40];
    if (head->type == WAL_RECORD_BURNT_ID) {
        const struct wal_record_burnt_id *burnt = (const void *)head;
        if (object) {
            output_uint128(object, "id", burnt->id);
            output_text(object, "status", tally_transfer_status_name(head->extra));
        } else {
            printf("  burnt    id %s\n           %s\n", args_decimal(burnt->id, number),
                   tally_transfer_status_name(head->extra));
        }
    } else if (head->type == WAL_RECORD_PARTITION_DIGEST) {
        const struct wal_record_partition_digest *digest = (const void *)head;
        if (object) {
            output_number(object, "partition", head->extra);
            output_uint128(object, "digest", digest->digest);
            output_uint64(object, "accounts", digest->account_count);
            output_uint64(object, "pendings", digest->pending_count);
        } else {
            printf("  digest   partition %u accounts %" PRIu64 " pendings %" PRIu64
                   "\n           %s\n",
                   head->extra, digest->account_count, digest->pending_count,
                   args_decimal(digest->digest, number));
        }
    } else if (head->type == WAL_RECORD_LEDGER_TOTAL) {
        const struct wal_record_ledger_total *total = (const void *)head;
        if (object) {
            output_number(object, "ledger", head->extra);
            output_balance_fields(object, (const struct tally_balances *)&total->sums);
        } else {
            printf("  total    ledger %u posted %s\n", head->extra,
                   args_decimal(total->sums.debits_posted, number));
        }
    } else if (head->type == WAL_RECORD_START) {
        const struct wal_record_start *start = (const void *)head;
        if (object)
            output_uint64(object, "term", start->term);
        else
            printf("  start    term %" PRIu64 "\n", start->term);
    }
    (void)log;
}

static int show_record(void *context, seq_t seq, unsigned lcore, uint32_t offset,
                       const void *record, size_t length) {
    struct log *log = context;
    const struct wal_record_head *head = record;
    struct wal_transfer_fields fields;
    if (!log->shown || !log->records || head->type == WAL_RECORD_PADDING)
        return 0;
    struct json_object *object = log->cli->json ? output_object() : NULL;
    if (object) {
        const char *name = wal_record_type_name(head->type);
        output_text(object, "type", name ? name : "?");
        output_uint64(object, "seq", seq);
        output_number(object, "lcore", lcore);
        output_number(object, "record_offset", offset);
    }
    if (head->type == WAL_RECORD_TRANSFER || head->type == WAL_RECORD_EXPIRY) {
        if (wal_record_transfer_decode(record, length, &fields) == 0)
            show_transfer(log, head->type, &fields, object);
    } else if (head->type == WAL_RECORD_ACCOUNT) {
        show_account(log, record, object);
    } else {
        show_small(log, head, object);
    }
    if (object)
        output_print(object);
    return 0;
}

static int show_damage(void *context, const struct wal_damage *damage) {
    struct log *log = context;
    log->damages += !damage->torn;
    if (log->cli->json) {
        output_damage(damage);
    } else {
        printf("%s: %s\n", damage->torn ? "torn tail" : "damage", damage->message);
    }
    return 0;
}

/* --- commands --------------------------------------------------------------------------------- */

static int inspect_exit(const struct log *log, int rc, const char *error) {
    if (rc == 0)
        return log->damages ? CLI_DAMAGED : CLI_DONE;
    if (*error)
        args_complain("%s", error);
    return rc == -EBADMSG || rc == -ENODATA || rc == -EPERM ? CLI_DAMAGED : CLI_USAGE;
}

int tally_wal_dump(struct cli *cli, int argc, char **argv) {
    struct log log = {.cli = cli, .records = true};
    bool groups_only = false;
    const struct args_option options[] = {{"groups", 'g', ARGS_SWITCH, &groups_only, NULL,
                                           "groups only, not their records", false, 0, 0, NULL},
                                          {NULL}};
    const struct args_command command = {
        "wal dump", "Print the groups and records of a log. Changes nothing.",
        "DIR|FILE", 1,
        1,          options,
        NULL};
    const struct wal_inspect_visitor visitor = {
        .group = show_group, .record = show_record, .damage = show_damage};
    struct wal_inspect_summary summary = {0};
    char error[400] = "";
    unsigned operands;
    enum args_answer answer = args_parse(&command, argc, argv, &operands);
    if (answer != ARGS_RUN)
        return answer == ARGS_HELP ? CLI_DONE : CLI_USAGE;
    log.records = !groups_only;
    int exit_status = log_open(&log, argv[0]);
    if (exit_status == CLI_DONE)
        exit_status = inspect_exit(
            &log,
            wal_inspect(log.disk, log.identity, &visitor, &log, &summary, error, sizeof(error)),
            error);
    if (exit_status == CLI_DONE && summary.files == 0) {
        args_complain("%s holds no log files", argv[0]);
        exit_status = CLI_USAGE;
    }
    log_close(&log);
    return exit_status;
}

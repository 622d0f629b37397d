/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "wal/wal_inspect.h"
#include "wal/wal_recover.h"

static void add_group(struct wal_inspect_summary *summary, const struct wal_inspect_group *group) {
    const struct wal_chained_header *chained = &group->header->chained;
    if (summary->groups++ == 0)
        summary->first_seq = chained->seq;
    summary->last_seq = chained->seq;
    summary->last_term = chained->term;
    summary->records += group->records;
    summary->bytes += group->bytes;
    if (group->header->local.durable_seq > summary->durable_seq)
        summary->durable_seq = group->header->local.durable_seq;
    summary->cell_time = chained->cell_time;
    summary->horizon_ms = chained->horizon_ms;
    summary->end_file = group->file;
    summary->end_offset = group->file_offset + group->bytes;
}

static int report_damage(struct disk *disk, const struct wal_reader_end *end, const char *message,
                         const struct wal_inspect_visitor *visitor, void *context) {
    if (visitor == NULL || visitor->damage == NULL)
        return 0;
    const struct wal_damage damage = {.torn = end->verdict == WAL_VERDICT_TORN,
                                      .file = end->file,
                                      .file_name =
                                          end->file != 0 ? disk->name(disk, end->file) : "",
                                      .file_offset = end->file_offset,
                                      .bytes = end->bytes,
                                      .seq = end->seq,
                                      .message = message};
    return visitor->damage(context, &damage);
}

static int visit_group(struct disk *disk, const struct wal_group_view *view,
                       const struct wal_inspect_visitor *visitor, void *context,
                       struct wal_inspect_summary *summary, char *error, size_t error_bytes) {
    struct wal_inspect_group group = {.file = view->file,
                                      .file_name = disk->name(disk, view->file),
                                      .file_offset = view->file_offset,
                                      .bytes = view->bytes,
                                      .header = view->header};
    for (uint32_t i = 0; i < view->header->chained.segment_count; i++)
        group.records += view->header->chained.segments[i].records;
    int rc = visitor != NULL && visitor->group != NULL ? visitor->group(context, &group) : 0;
    if (rc != 0)
        return rc;
    rc = wal_group_records(disk, view, visitor == NULL ? NULL : visitor->record, context, error,
                           error_bytes);
    if (rc == 0) {
        add_group(summary, &group);
    } else if (error[0] != '\0') {
        const struct wal_reader_end end = {WAL_VERDICT_CORRUPT, view->file, view->file_offset,
                                           view->bytes, view->header->chained.seq};
        int visited = report_damage(disk, &end, error, visitor, context);
        rc = visited != 0 ? visited : rc;
    }
    return rc;
}

int wal_inspect(struct disk *disk, const struct wal_identity *identity,
                const struct wal_inspect_visitor *visitor, void *context,
                struct wal_inspect_summary *summary, char *error, size_t error_bytes) {
    struct wal_reader *reader;
    struct wal_group_view view;
    memset(summary, 0, sizeof(*summary));
    error[0] = '\0';
    /* where older files have gone, it begins with whatever stands first */
    const struct wal_reader_start start = {.anywhere = true};
    uint64_t first_file = 0;
    seq_t first_seq;
    int rc = wal_log_begin(disk, identity, &first_file, &first_seq);
    if (rc != 0)
        snprintf(error, error_bytes, "log: cannot read its beginning: %s", strerrordesc_np(-rc));
    if (rc == 0)
        rc = wal_reader_open_at(disk, identity, false, &start, &reader, error, error_bytes);
    if (rc != 0) {
        const struct wal_reader_end nowhere = {.verdict = WAL_VERDICT_HOLE};
        int visited = report_damage(disk, &nowhere, error, visitor, context);
        return visited != 0 ? visited : rc;
    }
    summary->files = wal_reader_last_file(reader) - (first_file > 1 ? first_file - 1 : 0);
    summary->end_file = first_file > 1 ? first_file : 1;
    while ((rc = wal_reader_next(reader, &view, error, error_bytes)) == 1) {
        rc = visit_group(disk, &view, visitor, context, summary, error, error_bytes);
        if (rc != 0) {
            wal_reader_close(reader);
            return rc;
        }
    }
    const struct wal_reader_end *end = wal_reader_end(reader);
    int visited = 0;
    if (rc == 0 && end->verdict == WAL_VERDICT_TORN) {
        visited = wal_count_tail(disk, reader, &summary->torn_bytes, error, error_bytes);
        if (visited == 0)
            visited = report_damage(
                disk, end, "a write that never completed; the next start of tallyd cuts it",
                visitor, context);
    } else if (rc != 0) {
        visited = report_damage(disk, end, error, visitor, context);
    }
    wal_reader_close(reader);
    return visited != 0 ? visited : rc;
}

const char *wal_record_type_name(uint8_t type) {
    switch (type) {
    case WAL_RECORD_TRANSFER:
        return "transfer";
    case WAL_RECORD_ACCOUNT:
        return "account";
    case WAL_RECORD_EXPIRY:
        return "expiry";
    case WAL_RECORD_BURNT_ID:
        return "burnt_id";
    case WAL_RECORD_PARTITION_DIGEST:
        return "partition_digest";
    case WAL_RECORD_LEDGER_TOTAL:
        return "ledger_total";
    case WAL_RECORD_START:
        return "start";
    case WAL_RECORD_PADDING:
        return "padding";
    default:
        return NULL;
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"
#include "engine/base/planted.h"
#include "wal/wal_index.h"
#include "wal/wal_reader.h"

/* Recovery by replay: read, verify, hand over; then cut a torn tail, so that the first new write meets zeros only. */

#define CUT_BYTES (1u << 20)

/** Zero what is not zero in one file from `offset` on, and sync it. */
static int cut_file(struct disk *disk, uint64_t file, uint64_t offset, uint8_t *bytes,
                    uint64_t *cut_bytes) {
    int64_t size = disk->size(disk, file);
    bool dirty = false;
    for (; size >= 0 && offset < (uint64_t)size; offset += CUT_BYTES) {
        size_t length =
            (uint64_t)size - offset < CUT_BYTES ? (size_t)((uint64_t)size - offset) : CUT_BYTES;
        size_t bad = 0;
        int rc = disk->read(disk, file, offset, bytes, length);
        if (rc != 0)
            return rc;
        for (size_t page = 0; page < length; page += WAL_PAGE_BYTES)
            if (!wal_bytes_zero(bytes + page, WAL_PAGE_BYTES))
                bad += WAL_PAGE_BYTES;
        if (bad == 0)
            continue;
        memset(bytes, 0, length);
        rc = disk->write(disk, file, offset, bytes, length);
        if (rc != 0)
            return rc;
        *cut_bytes += bad;
        dirty = true;
    }
    if (size < 0)
        return (int)size;
    return dirty ? disk->sync(disk, file) : 0;
}

static int cut_tail(struct disk *disk, const struct wal_reader *reader, uint64_t *cut_bytes,
                    char *error, size_t error_bytes) {
    const struct wal_reader_end *end = wal_reader_end(reader);
    uint8_t *bytes = aligned_alloc(WAL_PAGE_BYTES, CUT_BYTES);
    int rc = bytes == NULL ? -ENOMEM : 0;
    uint64_t offset = end->file_offset;
    for (uint64_t file = end->file; rc == 0 && file <= wal_reader_last_file(reader);
         file++, offset = 0) {
        rc = cut_file(disk, file, offset, bytes, cut_bytes);
        if (rc != 0)
            snprintf(error, error_bytes, "%s: cutting the torn tail from byte %llu on: %s",
                     disk->name(disk, file), (unsigned long long)offset, strerrordesc_np(-rc));
    }
    if (bytes == NULL)
        snprintf(error, error_bytes, "log: no memory to cut its torn tail");
    free(bytes);
    return rc;
}

/** Take note of a good group and hand it over. */
static int take_group(struct disk *disk, const struct wal_group_view *view,
                      struct wal_position *position, wal_replay_fn *replay,
                      wal_group_end_fn *group_end, void *context, char *error, size_t error_bytes) {
    const struct wal_chained_header *chained = &view->header->chained;
    int rc = wal_index_note(position->index, chained->seq, view->file, view->file_offset,
                            chained->cell_time);
    if (rc != 0) {
        snprintf(error, error_bytes, "log: no memory for its index");
        return rc;
    }
    rc = wal_group_records(disk, view, replay, context, error, error_bytes);
    if (rc != 0 && error[0] != '\0')
        return rc;
    if (rc == 0 && group_end != NULL)
        rc = group_end(context, chained->seq, chained->term, chained->cell_time,
                       chained->horizon_ms);
    if (rc != 0) {
        snprintf(error, error_bytes,
                 "%s: bytes %llu..%llu: the ledger cannot take group %llu: %s; restore the file "
                 "from a replica or a "
                 "backup; nothing was changed",
                 disk->name(disk, view->file), (unsigned long long)view->file_offset,
                 (unsigned long long)(view->file_offset + view->bytes),
                 (unsigned long long)chained->seq, strerrordesc_np(-rc));
        return rc;
    }
    position->seq = chained->seq;
    position->term = chained->term;
    memcpy(position->digest, chained->digest, sizeof(position->digest));
    position->cell_time = chained->cell_time;
    position->horizon_ms = chained->horizon_ms;
    if (view->header->local.durable_seq > position->durable_seq)
        position->durable_seq = view->header->local.durable_seq;
    position->file_number = view->file;
    position->file_offset = view->file_offset + view->bytes;
    position->groups++;
    position->bytes += view->bytes;
    for (uint32_t i = 0; i < chained->segment_count; i++)
        position->records += chained->segments[i].records;
    return 0;
}

int wal_recover(struct disk *disk, const struct wal_identity *identity, wal_replay_fn *replay,
                wal_group_end_fn *group_end, void *context, struct wal_position *position,
                char *error, size_t error_bytes) {
    struct wal_reader *reader;
    struct wal_group_view view;
    *position = (struct wal_position){.file_number = 1};
    assert(error_bytes != 0);
    error[0] = '\0';
    int rc = wal_reader_open(disk, identity, true, &reader, error, error_bytes);
    if (rc != 0)
        return rc;
    position->index = wal_index_new();
    if (position->index == NULL) {
        snprintf(error, error_bytes, "log: no memory for its index");
        rc = -ENOMEM;
    }
    while (rc == 0 && (rc = wal_reader_next(reader, &view, error, error_bytes)) == 1)
        rc = take_group(disk, &view, position, replay, group_end, context, error, error_bytes);
    if (rc == 0 && wal_reader_end(reader)->verdict == WAL_VERDICT_TORN && !PLANTED(torn_tail_left))
        rc = cut_tail(disk, reader, &position->torn_bytes, error, error_bytes);
    wal_reader_close(reader);
    if (rc != 0)
        wal_position_release(position);
    return rc;
}

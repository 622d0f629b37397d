/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"
#include "engine/base/planted.h"
#include "wal/wal_index.h"
#include "wal/wal_recover.h"

#define CUT_BYTES (1u << 20)

/** Count what is not zero in one file from `offset` on; zero it and sync the file if it is to be cut. */
static int tail_of_file(struct disk *disk, uint64_t file, uint64_t offset, uint8_t *bytes, bool cut,
                        uint64_t *torn_bytes) {
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
        *torn_bytes += bad;
        if (bad == 0 || !cut)
            continue;
        memset(bytes, 0, length);
        rc = disk->write(disk, file, offset, bytes, length);
        if (rc != 0)
            return rc;
        dirty = true;
    }
    if (size < 0)
        return (int)size;
    return dirty ? disk->sync(disk, file) : 0;
}

static int tail(struct disk *disk, const struct wal_reader *reader, bool cut, uint64_t *torn_bytes,
                char *error, size_t error_bytes) {
    const struct wal_reader_end *end = wal_reader_end(reader);
    uint8_t *bytes = aligned_alloc(WAL_PAGE_BYTES, CUT_BYTES);
    int rc = bytes == NULL ? -ENOMEM : 0;
    uint64_t offset = end->file_offset;
    for (uint64_t file = end->file; rc == 0 && file <= wal_reader_last_file(reader);
         file++, offset = 0) {
        rc = tail_of_file(disk, file, offset, bytes, cut, torn_bytes);
        if (rc != 0)
            snprintf(error, error_bytes, "%s: %s the torn tail from byte %llu on: %s",
                     disk->name(disk, file), cut ? "cutting" : "reading",
                     (unsigned long long)offset, strerrordesc_np(-rc));
    }
    if (bytes == NULL)
        snprintf(error, error_bytes, "log: no memory to read its torn tail");
    free(bytes);
    return rc;
}

int wal_cut_tail(struct disk *disk, const struct wal_reader *reader, uint64_t *cut_bytes,
                 char *error, size_t error_bytes) {
    if (PLANTED(torn_tail_left))
        return 0;
    return tail(disk, reader, true, cut_bytes, error, error_bytes);
}

int wal_count_tail(struct disk *disk, const struct wal_reader *reader, uint64_t *torn_bytes,
                   char *error, size_t error_bytes) {
    return tail(disk, reader, false, torn_bytes, error, error_bytes);
}

int wal_position_take(struct wal_position *position, const struct wal_group_view *view) {
    const struct wal_chained_header *chained = &view->header->chained;
    int rc = wal_index_note(position->index, chained->seq, view->file, view->file_offset,
                            chained->cell_time);
    if (rc != 0)
        return rc;
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

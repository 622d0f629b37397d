/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"
#include "wal/wal_reader.h"
#include "engine/base/planted.h"
#include "wal/wal_window.h"

struct wal_reader {
    struct disk *disk;
    struct wal_window window;
    uint64_t file_bytes;
    uint64_t last_file;
    bool unchained; /**< the group before the next one is not known */
    bool cell_known;
    uint8_t cell_id[16];
    /* the last good group, and where the next should stand */
    seq_t seq;
    term_t term;
    uint64_t cell_time, horizon_ms;
    uint8_t digest[WAL_DIGEST_BYTES];
    uint64_t group_file; /**< of the last good group; 0: none yet */
    uint64_t file, file_offset;
    struct wal_reader_end end;
};

/* --- the decision (design section 5, rule 7) ----------------------------------------------------------------------- */

#define ANY UINT32_MAX

/** The first row that fits decides. A write that never completed leaves a sector of zeros, for files are zero-filled and
 *  no sector of a whole group is zero. It was not acknowledged by this node unless a later group says so. */
static const struct {
    uint32_t finding, behind;
    enum wal_verdict verdict;
} verdicts[] = {
    {WAL_FOUND_FOREIGN, ANY, WAL_VERDICT_FOREIGN},
    {WAL_FOUND_NEWER, ANY, WAL_VERDICT_NEWER},
    {ANY, WAL_BEHIND_FOREIGN, WAL_VERDICT_FOREIGN},
    {ANY, WAL_BEHIND_NEWER, WAL_VERDICT_NEWER},
    {WAL_FOUND_NOTHING, WAL_BEHIND_ZERO, WAL_VERDICT_END},
    {WAL_FOUND_NOTHING, WAL_BEHIND_REMAINS, WAL_VERDICT_TORN},
    {WAL_FOUND_NOTHING, WAL_BEHIND_PROOF, WAL_VERDICT_HOLE},
    {WAL_FOUND_NOTHING, WAL_BEHIND_ITSELF, WAL_VERDICT_CORRUPT},
    {WAL_FOUND_UNFINISHED, WAL_BEHIND_ZERO, WAL_VERDICT_TORN},
    {WAL_FOUND_UNFINISHED, WAL_BEHIND_REMAINS, WAL_VERDICT_TORN},
    {ANY, ANY, WAL_VERDICT_CORRUPT},
};

enum wal_verdict wal_verdict_of(enum wal_finding finding, enum wal_behind behind) {
    unsigned row = 0;
    while ((verdicts[row].finding != ANY && verdicts[row].finding != finding) ||
           (verdicts[row].behind != ANY && verdicts[row].behind != behind))
        row++;
    return verdicts[row].verdict;
}

static const struct {
    int rc;
    const char *remedy;
} refusals[] = {
    [WAL_VERDICT_CORRUPT] =
        {-EBADMSG,
         "put back a copy of this very file, or start from a backup; nothing was changed"},
    [WAL_VERDICT_HOLE] =
        {-ENODATA,
         "put back a copy of this very file, or start from a backup; nothing was changed"},
    [WAL_VERDICT_FOREIGN] =
        {-EPERM, "take the files of another cell out of the directory; nothing was changed"},
    [WAL_VERDICT_NEWER] = {-ENOTSUP, "run the newer tallyd that wrote it; nothing was changed"},
};

/* --- opening ------------------------------------------------------------------------------------------------------- */

/** List the log's files. @return how many, or -errno */
static int list_files(struct disk *disk, uint64_t **files) {
    int count = -ENOSPC;
    *files = NULL;
    for (unsigned room = 256; count == -ENOSPC; room *= 2) {
        free(*files);
        *files = malloc(room * sizeof(**files));
        count = *files == NULL ? -ENOMEM : disk->list(disk, DISK_LOG, *files, room);
    }
    return count;
}

static int check_file(struct wal_reader *reader, uint64_t file, bool sync, char *error,
                      size_t error_bytes) {
    struct disk *disk = reader->disk;
    int64_t size = disk->size(disk, file);
    if (size < 0) {
        snprintf(error, error_bytes, "%s: %s", disk->name(disk, file), strerrordesc_np((int)-size));
        return (int)size;
    }
    if (reader->file_bytes == 0)
        reader->file_bytes = (uint64_t)size;
    if ((uint64_t)size != reader->file_bytes || size == 0 || size % WAL_PAGE_BYTES != 0) {
        snprintf(error, error_bytes,
                 "%s has %lld bytes and should have %llu; put back a copy of this very file, or "
                 "start from a backup",
                 disk->name(disk, file), (long long)size, (unsigned long long)reader->file_bytes);
        return -ENODATA;
    }
    int rc = sync && !PLANTED(not_synced_before_reading) ? disk->sync(disk, file) : 0;
    if (rc != 0)
        snprintf(error, error_bytes, "%s: cannot sync it: %s", disk->name(disk, file),
                 strerrordesc_np(-rc));
    return rc;
}

/** From the first one that is read on, no file may be missing. */
static int check_files(struct wal_reader *reader, const uint64_t *files, unsigned count, bool sync,
                       char *error, size_t error_bytes) {
    struct disk *disk = reader->disk;
    uint64_t next = reader->file;
    reader->last_file = next - 1;
    for (unsigned i = 0; i < count; i++) {
        if (files[i] < next)
            continue;
        if (files[i] != next)
            break;
        int rc = check_file(reader, files[i], sync, error, error_bytes);
        if (rc != 0)
            return rc;
        reader->last_file = next++;
    }
    if ((count != 0 && files[count - 1] >= next) ||
        (reader->group_file != 0 && reader->last_file < reader->group_file)) {
        snprintf(error, error_bytes,
                 "%s is missing; put back a copy of this very file, or start from a backup",
                 disk->name(disk, next));
        return -ENODATA;
    }
    return 0;
}

/** Take the start over, for the first of the files there are. */
static void start_at(struct wal_reader *reader, const struct wal_reader_start *start,
                     const uint64_t *files, unsigned count) {
    reader->file = 1;
    if (start == NULL)
        return;
    if (start->anywhere) {
        reader->file = count != 0 ? files[0] : 1;
        reader->unchained = reader->file != 1;
        return;
    }
    reader->file = start->file;
    reader->file_offset = start->file_offset;
    reader->group_file = start->file_offset != 0 ? start->file : 0;
    reader->seq = start->seq;
    reader->term = start->term;
    reader->cell_time = start->cell_time;
    reader->horizon_ms = start->horizon_ms;
    memcpy(reader->digest, start->digest, sizeof(reader->digest));
}

int wal_reader_open(struct disk *disk, const struct wal_identity *identity, bool sync,
                    struct wal_reader **out, char *error, size_t error_bytes) {
    return wal_reader_open_at(disk, identity, sync, NULL, out, error, error_bytes);
}

int wal_reader_open_at(struct disk *disk, const struct wal_identity *identity, bool sync,
                       const struct wal_reader_start *start, struct wal_reader **out, char *error,
                       size_t error_bytes) {
    struct wal_reader *reader = calloc(1, sizeof(*reader));
    uint64_t *files = NULL;
    int count = reader == NULL ? -ENOMEM : list_files(disk, &files);
    int rc = count < 0 ? count : 0;
    if (rc != 0) {
        snprintf(error, error_bytes, "log: cannot list its files: %s", strerrordesc_np(-rc));
    } else {
        reader->disk = disk;
        if (identity != NULL) {
            reader->cell_known = true;
            memcpy(reader->cell_id, identity->cell_id, sizeof(reader->cell_id));
            reader->file_bytes = identity->file_bytes;
        }
        start_at(reader, start, files, (unsigned)count);
        rc = check_files(reader, files, (unsigned)count, sync, error, error_bytes);
    }
    if (rc == 0 && (rc = wal_window_open(&reader->window, disk, reader->file_bytes, reader->file,
                                         reader->last_file)) != 0)
        snprintf(error, error_bytes, "log: no memory to read it");
    free(files);
    if (rc != 0) {
        free(reader);
        return rc;
    }
    *out = reader;
    return 0;
}

void wal_reader_hold(struct wal_reader *reader, const struct wal_group_view *view) {
    wal_window_hold(&reader->window, view == NULL ? 0 : view->file,
                    view == NULL ? 0 : view->file_offset);
}

int wal_log_begin(struct disk *disk, const struct wal_identity *identity, uint64_t *file,
                  seq_t *seq) {
    _Alignas(WAL_PAGE_BYTES) struct wal_header header;
    uint64_t *files;
    int count = list_files(disk, &files), rc = count < 0 ? count : 0;
    *file = rc == 0 && count != 0 ? files[0] : 0;
    *seq = 0;
    free(files);
    if (*file == 0)
        return rc;
    rc = disk->read(disk, *file, 0, &header, sizeof(header));
    if (rc == 0 &&
        wal_header_check(&header, identity == NULL ? NULL : identity->cell_id) == WAL_PAGE_GOOD)
        *seq = header.chained.seq;
    return rc;
}

void wal_reader_close(struct wal_reader *reader) {
    if (reader != NULL)
        wal_window_close(&reader->window);
    free(reader);
}

const struct wal_reader_end *wal_reader_end(const struct wal_reader *reader) {
    return &reader->end;
}

uint64_t wal_reader_last_file(const struct wal_reader *reader) {
    return reader->last_file;
}

/* --- the end of the log -------------------------------------------------------------------------------------------- */

static int read_failed(struct wal_reader *reader, uint64_t file, uint64_t offset, int rc,
                       char *error, size_t error_bytes) {
    if (rc == -EAGAIN)
        return rc;
    snprintf(error, error_bytes, "%s: reading at byte %llu: %s",
             reader->disk->name(reader->disk, file), (unsigned long long)offset,
             strerrordesc_np(-rc));
    return rc;
}

/** What one page behind the place of group `seq` says. `term`: of that group, or of the last good one. */
static enum wal_behind judge_page(const struct wal_reader *reader, const struct wal_header *header,
                                  seq_t seq, term_t term) {
    switch (wal_header_check(header, reader->cell_known ? reader->cell_id : NULL)) {
    case WAL_PAGE_ZERO:
        return WAL_BEHIND_ZERO;
    case WAL_PAGE_FOREIGN:
        return WAL_BEHIND_FOREIGN;
    case WAL_PAGE_NEWER:
        return WAL_BEHIND_NEWER;
    case WAL_PAGE_GOOD:
        if (header->chained.seq == seq &&
            memcmp(header->chained.previous_digest, reader->digest, WAL_DIGEST_BYTES) == 0)
            return WAL_BEHIND_ITSELF;
        if (header->chained.seq > seq && header->chained.term >= term &&
            header->local.durable_seq >= seq && !PLANTED(hole_taken_for_torn_tail))
            return WAL_BEHIND_PROOF;
        return WAL_BEHIND_REMAINS;
    case WAL_PAGE_DAMAGED:
        break;
    }
    return WAL_BEHIND_REMAINS;
}

/** Look on in 4 KiB steps to the end of the last file; that is more than the K groups that can have been in flight. */
static int look_behind(struct wal_reader *reader, uint64_t file, uint64_t offset, term_t term,
                       enum wal_behind *behind, uint64_t *at_file, uint64_t *at_offset) {
    *behind = WAL_BEHIND_ZERO;
    for (; file <= reader->last_file; file++, offset = 0) {
        for (; offset < reader->file_bytes; offset += WAL_PAGE_BYTES) {
            const uint8_t *page;
            int rc = wal_window_get(&reader->window, file, offset, WAL_PAGE_BYTES, &page);
            *at_file = file;
            *at_offset = offset;
            if (rc != 0)
                return rc;
            enum wal_behind found = judge_page(reader, (const void *)page, reader->seq + 1, term);
            if (found > *behind)
                *behind = found;
            if (*behind > WAL_BEHIND_REMAINS)
                return 0;
        }
    }
    return 0;
}

/** The next group is not there, or is not good: decide what that means. @return 0 at an end, or the refusal */
static int conclude(struct wal_reader *reader, enum wal_finding finding, uint64_t bytes,
                    const char *why, char *error, size_t error_bytes) {
    struct disk *disk = reader->disk;
    struct wal_reader_end *end = &reader->end;
    enum wal_behind behind = WAL_BEHIND_ZERO;
    uint64_t file = reader->file, offset = reader->file_offset;
    int rc =
        look_behind(reader, file, offset + WAL_PAGE_BYTES, reader->term, &behind, &file, &offset);
    if (rc != 0)
        return read_failed(reader, file, offset, rc, error, error_bytes);
    *end = (struct wal_reader_end){wal_verdict_of(finding, behind), reader->file,
                                   reader->file_offset, bytes, reader->seq + 1};
    if (end->verdict <= WAL_VERDICT_TORN) {
        if (end->verdict == WAL_VERDICT_END)
            end->bytes = 0;
        /* A file is written only when the one behind it exists, so a missing newest file shows. (One that came after
         * we listed them belongs to a log that somebody is writing to.) */
        if (reader->group_file != 0 && reader->group_file == reader->last_file &&
            disk->size(disk, reader->last_file + 1) < 0) {
            end->verdict = WAL_VERDICT_HOLE;
            end->file = reader->last_file + 1;
            end->file_offset = end->bytes = 0;
            snprintf(error, error_bytes,
                     "%s is missing; put back a copy of this very file, or start from a backup; "
                     "nothing was changed",
                     disk->name(disk, end->file));
            return -ENODATA;
        }
        return 0;
    }
    if (behind > WAL_BEHIND_PROOF && finding < WAL_FOUND_FOREIGN) {
        static const char *const names[] = {
            [WAL_BEHIND_ITSELF] = "the group stands further on",
            [WAL_BEHIND_FOREIGN] = "a group of another cell stands further on",
            [WAL_BEHIND_NEWER] = "a group of a newer format stands further on"};
        why = names[behind];
    }
    char proof[64] = "";
    if (behind >= WAL_BEHIND_PROOF && finding < WAL_FOUND_FOREIGN)
        snprintf(proof, sizeof(proof), " (file %llu, byte %llu)", (unsigned long long)file,
                 (unsigned long long)offset);
    snprintf(error, error_bytes, "%s: bytes %llu..%llu: group %llu is %s: %s%s; %s",
             disk->name(disk, end->file), (unsigned long long)end->file_offset,
             (unsigned long long)(end->file_offset + bytes), (unsigned long long)end->seq,
             end->verdict == WAL_VERDICT_HOLE ? "missing" : "bad", why, proof,
             refusals[end->verdict].remedy);
    return refusals[end->verdict].rc;
}

/* --- the next group ------------------------------------------------------------------------------------------------ */

/** The place is empty. If its file ends in zeros and the next file does not begin with them, the group is there: unless
 * what is there is whole and a later one, which was in flight together with ours and arrived alone.
 *  @return 1 when it moved, 0, -errno */
static int next_file(struct wal_reader *reader, char *error, size_t error_bytes) {
    const uint8_t *page;
    uint64_t offset = reader->file_offset;
    if (reader->file >= reader->last_file)
        return 0;
    for (; offset < reader->file_bytes; offset += WAL_PAGE_BYTES) {
        int rc = wal_window_get(&reader->window, reader->file, offset, WAL_PAGE_BYTES, &page);
        if (rc != 0)
            return read_failed(reader, reader->file, offset, rc, error, error_bytes);
        if (!wal_bytes_zero(page, WAL_PAGE_BYTES))
            return 0;
    }
    int rc = wal_window_get(&reader->window, reader->file + 1, 0, WAL_PAGE_BYTES, &page);
    if (rc != 0)
        return read_failed(reader, reader->file + 1, 0, rc, error, error_bytes);
    const struct wal_header *header = (const void *)page;
    enum wal_page_state state =
        wal_header_check(header, reader->cell_known ? reader->cell_id : NULL);
    if (state == WAL_PAGE_ZERO || (state == WAL_PAGE_GOOD && header->chained.seq > reader->seq + 1))
        return 0;
    reader->file++;
    reader->file_offset = 0;
    return 1;
}

/** @return NULL when the header is the next in the chain, else what is wrong */
static const char *chain_error(const struct wal_reader *reader, const struct wal_header *header) {
    const struct wal_chained_header *chained = &header->chained;
    if (reader->unchained)
        return header->local.file_bytes != reader->file_bytes ||
                       WAL_PAGE_BYTES + chained->body_bytes > reader->file_bytes
                   ? "it does not fit its file"
                   : NULL;
    if (chained->seq != reader->seq + 1)
        return "another group stands there";
    if (memcmp(chained->previous_digest, reader->digest, WAL_DIGEST_BYTES) != 0)
        return "it does not follow the group before it";
    if (chained->term < reader->term || chained->cell_time < reader->cell_time ||
        chained->horizon_ms < reader->horizon_ms)
        return "its term, time or horizon falls";
    if (header->local.file_bytes != reader->file_bytes)
        return "the file does not have the size that it was written with";
    if (WAL_PAGE_BYTES + chained->body_bytes > reader->file_bytes - reader->file_offset)
        return "it does not fit into its file";
    return NULL;
}

static bool segments_good(const struct wal_chained_header *chained, const uint8_t *body) {
    for (uint32_t i = 0; i < chained->segment_count; i++) {
        const struct wal_segment_entry *entry = &chained->segments[i];
        uint8_t digest[WAL_DIGEST_BYTES];
        wal_digest(body + entry->offset, wal_page_align(entry->length), digest);
        if (memcmp(digest, entry->digest, WAL_DIGEST_BYTES) != 0)
            return false;
    }
    return true;
}

static void accept(struct wal_reader *reader, const struct wal_group_view *view) {
    const struct wal_chained_header *chained = &view->header->chained;
    if (!reader->cell_known) {
        reader->cell_known = true;
        memcpy(reader->cell_id, chained->cell_id, sizeof(reader->cell_id));
    }
    reader->unchained = false;
    reader->seq = chained->seq;
    reader->term = chained->term;
    reader->cell_time = chained->cell_time;
    reader->horizon_ms = chained->horizon_ms;
    memcpy(reader->digest, chained->digest, WAL_DIGEST_BYTES);
    reader->group_file = view->file;
    reader->file_offset += view->bytes;
}

int wal_reader_next(struct wal_reader *reader, struct wal_group_view *view, char *error,
                    size_t error_bytes) {
    const uint8_t *page = NULL;
    int moved = 1;
    do {
        if (reader->file_offset < reader->file_bytes && reader->file <= reader->last_file) {
            int rc = wal_window_get(&reader->window, reader->file, reader->file_offset,
                                    WAL_PAGE_BYTES, &page);
            if (rc != 0)
                return read_failed(reader, reader->file, reader->file_offset, rc, error,
                                   error_bytes);
        }
        if (page == NULL || wal_bytes_zero(page, WAL_PAGE_BYTES)) {
            page = NULL;
            moved = next_file(reader, error, error_bytes);
            if (moved < 0)
                return moved;
        }
    } while (page == NULL && moved);
    if (page == NULL)
        return conclude(reader, WAL_FOUND_NOTHING, WAL_PAGE_BYTES,
                        "nothing stands there, but a later group was durable", error, error_bytes);

    const struct wal_header *header = (const void *)page;
    switch (wal_header_check(header, reader->cell_known ? reader->cell_id : NULL)) {
    case WAL_PAGE_FOREIGN:
        return conclude(reader, WAL_FOUND_FOREIGN, WAL_PAGE_BYTES, "it is another cell's", error,
                        error_bytes);
    case WAL_PAGE_NEWER:
        return conclude(reader, WAL_FOUND_NEWER, WAL_PAGE_BYTES,
                        "its format is newer than this program", error, error_bytes);
    case WAL_PAGE_ZERO:
    case WAL_PAGE_DAMAGED:
        return conclude(reader,
                        wal_sectors_torn(page, WAL_PAGE_BYTES) || PLANTED(corruption_cut)
                            ? WAL_FOUND_UNFINISHED
                            : WAL_FOUND_DAMAGED,
                        WAL_PAGE_BYTES, "its header does not match its digest", error, error_bytes);
    case WAL_PAGE_GOOD:
        break;
    }
    const uint64_t bytes = WAL_PAGE_BYTES + header->chained.body_bytes;
    const char *why = chain_error(reader, header);
    if (why != NULL)
        return conclude(reader, WAL_FOUND_OUT_OF_CHAIN, WAL_PAGE_BYTES, why, error, error_bytes);
    int rc = wal_window_get(&reader->window, reader->file, reader->file_offset, bytes, &page);
    if (rc != 0)
        return read_failed(reader, reader->file, reader->file_offset, rc, error, error_bytes);
    header = (const void *)page;
    const uint8_t *body = page + WAL_PAGE_BYTES;
    if (!segments_good(&header->chained, body))
        return conclude(reader,
                        wal_sectors_torn(page, bytes) || PLANTED(corruption_cut)
                            ? WAL_FOUND_UNFINISHED
                            : WAL_FOUND_DAMAGED,
                        bytes, "a segment does not match its digest", error, error_bytes);
    *view = (struct wal_group_view){header, body, reader->file, reader->file_offset, bytes};
    accept(reader, view);
    return 1;
}

int wal_group_records(struct disk *disk, const struct wal_group_view *view, wal_replay_fn *replay,
                      void *context, char *error, size_t error_bytes) {
    const struct wal_chained_header *chained = &view->header->chained;
    for (uint32_t lcore = 0; lcore < chained->segment_count; lcore++) {
        const struct wal_segment_entry *entry = &chained->segments[lcore];
        const uint8_t *segment = view->body + entry->offset;
        uint32_t records = 0;
        for (uint32_t at = 0; at < entry->length; records++) {
            size_t length = wal_record_length(segment + at, entry->length - at);
            if (length == 0 || segment[at] == WAL_RECORD_PADDING) {
                snprintf(
                    error, error_bytes,
                    "%s: byte %llu: group %llu holds a record that is none; restore the file from "
                    "a replica or a "
                    "backup; nothing was changed",
                    disk->name(disk, view->file),
                    (unsigned long long)(view->file_offset + WAL_PAGE_BYTES + entry->offset + at),
                    (unsigned long long)chained->seq);
                return -EBADMSG;
            }
            int rc =
                replay == NULL ? 0 : replay(context, chained->seq, lcore, at, segment + at, length);
            if (rc != 0) {
                error[0] = '\0';
                return rc;
            }
            at += (uint32_t)length;
        }
        if (records != entry->records) {
            snprintf(error, error_bytes,
                     "%s: bytes %llu..%llu: group %llu does not hold as many records as its header "
                     "says; put back "
                     "a copy of this very file, or start from a backup; nothing was changed",
                     disk->name(disk, view->file), (unsigned long long)view->file_offset,
                     (unsigned long long)(view->file_offset + view->bytes),
                     (unsigned long long)chained->seq);
            return -EBADMSG;
        }
    }
    return 0;
}

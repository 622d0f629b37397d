/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"
#include "wal/disk_wait.h"
#include "wal/wal_copy.h"
#include "wal/wal_index.h"
#include "wal/wal_window.h"

#define OUT_BYTES ((size_t)1 << 20)

struct copier {
    const struct wal_copy_config *config;
    struct wal_position *position;
    struct wal_window window;
    uint64_t last_file;               /**< of the source */
    uint64_t file, file_offset;       /**< in the source: where the next group should stand */
    uint8_t digest[WAL_DIGEST_BYTES]; /**< of the group before it, as the source has it */
    uint64_t to_file, to_offset;      /**< where what is in `out` begins */
    uint8_t *out;
    size_t out_bytes;
    char *error;
    size_t error_bytes;
};

/* --- the source -------------------------------------------------------------------------------------------------------- */

static int bad_group(struct copier *copier, int rc, seq_t seq, uint64_t bytes, const char *why) {
    struct disk *disk = copier->config->from;
    snprintf(copier->error, copier->error_bytes, "%s: bytes %llu..%llu: group %llu is %s: %s",
             disk->name(disk, copier->file), (unsigned long long)copier->file_offset,
             (unsigned long long)(copier->file_offset + bytes), (unsigned long long)seq,
             rc == -ENODATA ? "missing" : "bad", why);
    return rc;
}

static int read_source(struct copier *copier, uint64_t file, uint64_t offset, uint64_t bytes,
                       const uint8_t **page) {
    int rc = wal_window_get(&copier->window, file, offset, bytes, page);
    if (rc != 0)
        snprintf(copier->error, copier->error_bytes, "%s: reading at byte %llu: %s",
                 copier->config->from->name(copier->config->from, file), (unsigned long long)offset,
                 strerrordesc_np(-rc));
    return rc;
}

/** Find the page where a group stands: here, or, when nothing is here, at the start of the next file. @return 0 or -errno */
static int find_page(struct copier *copier, const uint8_t **page) {
    const uint64_t file_bytes = copier->config->from_identity->file_bytes;
    if (copier->file <= copier->last_file && copier->file_offset < file_bytes) {
        int rc = read_source(copier, copier->file, copier->file_offset, WAL_PAGE_BYTES, page);
        if (rc != 0 || !wal_bytes_zero(*page, WAL_PAGE_BYTES))
            return rc;
    }
    if (copier->file < copier->last_file) {
        int rc = read_source(copier, copier->file + 1, 0, WAL_PAGE_BYTES, page);
        if (rc != 0)
            return rc;
        if (!wal_bytes_zero(*page, WAL_PAGE_BYTES)) {
            copier->file++;
            copier->file_offset = 0;
            return 0;
        }
    }
    return bad_group(copier, -ENODATA, copier->position->seq + 1, WAL_PAGE_BYTES,
                     "nothing stands there");
}

/** Whether the header is that of the next group. @return 0 or the refusal */
static int check_header(struct copier *copier, const struct wal_header *header) {
    const struct wal_copy_config *config = copier->config;
    const struct wal_chained_header *chained = &header->chained;
    const seq_t seq = copier->position->seq + 1;
    switch (wal_header_check(header, config->from_identity->cell_id)) {
    case WAL_PAGE_GOOD:
        break;
    case WAL_PAGE_FOREIGN:
        return bad_group(copier, -EPERM, seq, WAL_PAGE_BYTES, "another cell's stands there");
    case WAL_PAGE_NEWER:
        return bad_group(copier, -ENOTSUP, seq, WAL_PAGE_BYTES,
                         "its format is newer than this program");
    case WAL_PAGE_ZERO:
    case WAL_PAGE_DAMAGED:
        return bad_group(copier, -EBADMSG, seq, WAL_PAGE_BYTES,
                         "its header does not match its digest");
    }
    if (chained->seq != seq)
        return bad_group(copier, -EBADMSG, seq, WAL_PAGE_BYTES, "another group stands there");
    if (copier->position->groups != 0 &&
        memcmp(chained->previous_digest, copier->digest, WAL_DIGEST_BYTES) != 0)
        return bad_group(copier, -EBADMSG, seq, WAL_PAGE_BYTES,
                         "it does not follow the group before it");
    if (header->local.file_bytes != config->from_identity->file_bytes ||
        WAL_PAGE_BYTES + chained->body_bytes >
            config->from_identity->file_bytes - copier->file_offset)
        return bad_group(copier, -EBADMSG, seq, WAL_PAGE_BYTES, "it does not fit into its file");
    return 0;
}

static int check_body(struct copier *copier, const struct wal_header *header, const uint8_t *body,
                      uint64_t bytes) {
    const struct wal_chained_header *chained = &header->chained;
    for (uint32_t i = 0; i < chained->segment_count; i++) {
        const struct wal_segment_entry *entry = &chained->segments[i];
        uint8_t digest[WAL_DIGEST_BYTES];
        wal_digest(body + entry->offset, wal_page_align(entry->length), digest);
        if (memcmp(digest, entry->digest, WAL_DIGEST_BYTES) != 0)
            return bad_group(copier, -EBADMSG, chained->seq, bytes,
                             "a segment does not match its digest");
    }
    return 0;
}

/* --- the new log ------------------------------------------------------------------------------------------------------- */

static int write_failed(struct copier *copier, uint64_t file, const char *what, int rc) {
    struct disk *disk = copier->config->to;
    snprintf(copier->error, copier->error_bytes, "%s: %s: %s", disk->name(disk, file), what,
             strerrordesc_np(-rc));
    return rc;
}

static int create_file(struct copier *copier, uint64_t file) {
    struct disk_io io = {.operation = DISK_CREATE,
                         .file = disk_file(DISK_LOG, file),
                         .bytes = copier->config->to_identity->file_bytes};
    int rc = disk_wait(copier->config->to, &io);
    return rc == 0 ? 0 : write_failed(copier, file, "making it", rc);
}

static int flush(struct copier *copier) {
    struct disk *disk = copier->config->to;
    if (copier->out_bytes == 0)
        return 0;
    int rc = disk->write(disk, copier->to_file, copier->to_offset, copier->out, copier->out_bytes);
    if (rc != 0)
        return write_failed(copier, copier->to_file, "writing to it", rc);
    copier->to_offset += copier->out_bytes;
    copier->out_bytes = 0;
    return 0;
}

static int put(struct copier *copier, const uint8_t *bytes, uint64_t length) {
    while (length > 0) {
        size_t room = OUT_BYTES - copier->out_bytes;
        size_t piece = length < room ? (size_t)length : room;
        memcpy(copier->out + copier->out_bytes, bytes, piece);
        copier->out_bytes += piece;
        bytes += piece;
        length -= piece;
        int rc = copier->out_bytes == OUT_BYTES ? flush(copier) : 0;
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int finish_file(struct copier *copier) {
    struct disk *disk = copier->config->to;
    int rc = flush(copier);
    if (rc == 0 && (rc = disk->sync(disk, copier->to_file)) != 0)
        rc = write_failed(copier, copier->to_file, "syncing it", rc);
    return rc;
}

/** Groups never span files. @return 0 or -errno */
static int make_room(struct copier *copier, uint64_t bytes) {
    const uint64_t file_bytes = copier->config->to_identity->file_bytes;
    if (bytes > file_bytes)
        return bad_group(copier, -EFBIG, copier->position->seq + 1, bytes,
                         "it does not fit into a file of the new log");
    if (copier->to_offset + copier->out_bytes + bytes <= file_bytes)
        return 0;
    int rc = finish_file(copier);
    copier->to_file++;
    copier->to_offset = 0;
    return rc != 0 ? rc : create_file(copier, copier->to_file);
}

/** The same group for another cell: its place in the chain is new, what it carries is not. */
static void seal_again(struct copier *copier, struct wal_header *header) {
    const struct wal_position *position = copier->position;
    memcpy(header->chained.cell_id, copier->config->to_identity->cell_id,
           sizeof(header->chained.cell_id));
    if (position->groups != 0)
        memcpy(header->chained.previous_digest, position->digest, WAL_DIGEST_BYTES);
    header->local.durable_seq = header->chained.seq - 1; /* whatever is copied was durable */
    header->local.file_bytes = copier->config->to_identity->file_bytes;
    wal_header_seal(header);
}

static int put_group(struct copier *copier, const struct wal_header *old, const uint8_t *body,
                     uint64_t bytes) {
    struct wal_position *position = copier->position;
    struct wal_header header = *old;
    int rc = make_room(copier, bytes);
    if (rc != 0)
        return rc;
    const uint64_t offset = copier->to_offset + copier->out_bytes;
    seal_again(copier, &header);
    if (wal_index_note(position->index, header.chained.seq, copier->to_file, offset,
                       header.chained.cell_time) != 0) {
        snprintf(copier->error, copier->error_bytes, "log: no room in its index");
        return -ENOMEM;
    }
    rc = put(copier, (const uint8_t *)&header, WAL_PAGE_BYTES);
    if (rc == 0)
        rc = put(copier, body, bytes - WAL_PAGE_BYTES);
    if (rc != 0)
        return rc;
    position->seq = header.chained.seq;
    position->term = header.chained.term;
    memcpy(position->digest, header.chained.digest, WAL_DIGEST_BYTES);
    position->cell_time = header.chained.cell_time;
    position->horizon_ms = header.chained.horizon_ms;
    position->durable_seq = header.local.durable_seq;
    position->groups++;
    position->bytes += bytes;
    for (uint32_t i = 0; i < header.chained.segment_count; i++)
        position->records += header.chained.segments[i].records;
    position->file_number = copier->to_file;
    position->file_offset = offset + bytes;
    return copier->config->copied == NULL
               ? 0
               : copier->config->copied(copier->config->context, &header, copier->to_file, offset);
}

/* --- all of it --------------------------------------------------------------------------------------------------------- */

/** @return 1 when a group was copied, 0 at the end of the range, or -errno */
static int copy_group(struct copier *copier) {
    const uint8_t *page;
    int rc = find_page(copier, &page);
    if (rc == 0)
        rc = check_header(copier, (const struct wal_header *)page);
    if (rc != 0)
        return rc;
    const struct wal_chained_header *chained = &((const struct wal_header *)page)->chained;
    const uint64_t bytes = WAL_PAGE_BYTES + chained->body_bytes;
    if (copier->config->until_ns != 0 && chained->cell_time > copier->config->until_ns)
        return 0;
    rc = read_source(copier, copier->file, copier->file_offset, bytes, &page);
    const struct wal_header *header = (const struct wal_header *)page;
    if (rc == 0)
        rc = check_body(copier, header, page + WAL_PAGE_BYTES, bytes);
    if (rc == 0)
        rc = put_group(copier, header, page + WAL_PAGE_BYTES, bytes);
    if (rc != 0)
        return rc;
    memcpy(copier->digest, header->chained.digest, WAL_DIGEST_BYTES);
    copier->file_offset += bytes;
    return 1;
}

static int open_source(struct copier *copier) {
    struct disk *disk = copier->config->from;
    copier->last_file = copier->config->file;
    if (disk->size(disk, copier->last_file) < 0)
        return bad_group(copier, -ENODATA, copier->config->first_seq, WAL_PAGE_BYTES,
                         "there is no such file");
    while (disk->size(disk, copier->last_file + 1) >= 0)
        copier->last_file++;
    int rc = wal_window_open(&copier->window, disk, copier->config->from_identity->file_bytes,
                             copier->config->file, copier->last_file);
    if (rc != 0)
        snprintf(copier->error, copier->error_bytes, "log: no memory to read it");
    return rc;
}

int wal_copy(const struct wal_copy_config *config, struct wal_position *position, char *error,
             size_t error_bytes) {
    assert(config->first_seq != 0 && config->file != 0);
    *position =
        (struct wal_position){.seq = config->first_seq - 1,
                              .file_number = config->to_file ? config->to_file : config->file,
                              .index = wal_index_new()};
    struct copier copier = {.config = config,
                            .position = position,
                            .file = config->file,
                            .to_file = position->file_number,
                            .out = aligned_alloc(WAL_PAGE_BYTES, OUT_BYTES),
                            .error = error,
                            .error_bytes = error_bytes};
    error[0] = '\0';
    int rc = copier.out == NULL || position->index == NULL ? -ENOMEM : 0;
    if (rc != 0)
        snprintf(error, error_bytes, "log: no memory to copy it");
    if (rc == 0)
        rc = open_source(&copier);
    if (rc == 0)
        rc = create_file(&copier, copier.to_file);
    int more = 1;
    while (rc == 0 && more == 1 && position->seq < config->last_seq) {
        more = copy_group(&copier);
        rc = more < 0 ? more : 0;
    }
    if (rc == 0)
        rc = finish_file(&copier);
    /* a file is written to only when the one behind it exists */
    if (rc == 0)
        rc = create_file(&copier, copier.to_file + 1);
    wal_window_close(&copier.window);
    free(copier.out);
    if (rc != 0)
        wal_position_release(position);
    return rc;
}

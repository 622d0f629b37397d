/* SPDX-License-Identifier: Apache-2.0 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"
#include "wal/checkpoint_check.h"
#include "wal/checkpoint_reader.h"

#define PIECE_CHUNKS 8 /**< read at once: 1 MiB */
#define PIECE_BYTES ((size_t)PIECE_CHUNKS * CHECKPOINT_CHUNK_BYTES)
#define READS 8 /**< in flight */

struct piece {
    struct disk_io io;
    bool done;
};

struct checkpoint_reader {
    struct disk *disk;
    struct checkpoint_manifest manifest;
    uint64_t file;
    struct checkpoint_chunk *chunks; /**< ring of pieces_room * PIECE_CHUNKS */
    struct piece *pieces;            /**< piece n at n % pieces_room */
    uint64_t pieces_room;
    uint64_t asked, arrived; /**< pieces: read up to here, and taken up to here */
    unsigned in_flight;
    uint64_t next;     /**< chunk that is handed over next */
    uint64_t released; /**< chunks below may be overwritten */
    XXH3_state_t *digests;
};

/** What a page that is not good amounts to. */
static int refusal(enum wal_page_state state) {
    switch (state) {
    case WAL_PAGE_GOOD:
        return 0;
    case WAL_PAGE_FOREIGN:
        return -EPERM;
    case WAL_PAGE_NEWER:
        return -ENOTSUP;
    case WAL_PAGE_ZERO:
    case WAL_PAGE_DAMAGED:
        break;
    }
    return -EBADMSG;
}

int checkpoint_reader_open(struct disk *disk, const struct checkpoint_manifest *manifest,
                           size_t memory_bytes, struct checkpoint_reader **out, char *error,
                           size_t error_bytes) {
    const uint64_t file = disk_file(DISK_CHECKPOINT_DATA, manifest->seq);
    const uint64_t bytes = manifest->chunk_count * CHECKPOINT_CHUNK_BYTES;
    int64_t size = disk->size(disk, file);
    if (size < 0) {
        snprintf(error, error_bytes, "%s: %s", disk->name(disk, file), strerrordesc_np((int)-size));
        return (int)size;
    }
    if ((uint64_t)size != bytes) {
        snprintf(error, error_bytes, "%s has %lld bytes and should have %llu",
                 disk->name(disk, file), (long long)size, (unsigned long long)bytes);
        return -EBADMSG;
    }
    struct checkpoint_reader *reader = calloc(1, sizeof(*reader));
    if (reader != NULL) {
        reader->pieces_room = memory_bytes / PIECE_BYTES + 1;
        reader->chunks = aligned_alloc(PIECE_BYTES, reader->pieces_room * PIECE_BYTES);
        reader->pieces = calloc(reader->pieces_room, sizeof(*reader->pieces));
        reader->digests = XXH3_createState();
    }
    if (reader == NULL || reader->chunks == NULL || reader->pieces == NULL ||
        reader->digests == NULL) {
        snprintf(error, error_bytes, "%s: no memory to read it", disk->name(disk, file));
        checkpoint_reader_close(reader);
        return -ENOMEM;
    }
    reader->disk = disk;
    reader->manifest = *manifest;
    reader->file = file;
    XXH3_128bits_reset(reader->digests);
    *out = reader;
    return 0;
}

static uint64_t piece_count(const struct checkpoint_reader *reader) {
    return (reader->manifest.chunk_count + PIECE_CHUNKS - 1) / PIECE_CHUNKS;
}

static struct piece *piece_at(struct checkpoint_reader *reader, uint64_t number) {
    return &reader->pieces[number % reader->pieces_room];
}

static int read_failed(struct checkpoint_reader *reader, int rc, char *error, size_t error_bytes) {
    snprintf(error, error_bytes, "%s: reading at byte %llu: %s",
             reader->disk->name(reader->disk, reader->file),
             (unsigned long long)(reader->next * CHECKPOINT_CHUNK_BYTES), strerrordesc_np(-rc));
    return rc;
}

/** Ask for as many pieces as there is room for. @return 0 or -errno */
static int ask(struct checkpoint_reader *reader) {
    while (reader->in_flight < READS && reader->asked < piece_count(reader) &&
           reader->asked < reader->released / PIECE_CHUNKS + reader->pieces_room) {
        struct piece *piece = piece_at(reader, reader->asked);
        uint64_t first = reader->asked * PIECE_CHUNKS, count = reader->manifest.chunk_count - first;
        if (count > PIECE_CHUNKS)
            count = PIECE_CHUNKS;
        piece->done = false;
        piece->io = (struct disk_io){.operation = DISK_READ,
                                     .file = reader->file,
                                     .offset = first * CHECKPOINT_CHUNK_BYTES,
                                     .bytes = count * CHECKPOINT_CHUNK_BYTES,
                                     .iov_count = 1,
                                     .owner = piece};
        piece->io.iov[0] = (struct iovec){
            reader->chunks + reader->asked % reader->pieces_room * PIECE_CHUNKS, piece->io.bytes};
        int rc = reader->disk->submit(reader->disk, &piece->io);
        if (rc == -EAGAIN && reader->in_flight != 0)
            return 0;
        if (rc != 0)
            return rc;
        reader->asked++;
        reader->in_flight++;
    }
    return 0;
}

/** Take the oldest piece that is on its way. @return 0 or -errno */
static int collect(struct checkpoint_reader *reader) {
    struct piece *oldest = piece_at(reader, reader->arrived);
    while (!oldest->done) {
        struct disk_io *done[READS];
        int count = reader->disk->poll(reader->disk, done, READS);
        if (count < 0)
            return count;
        for (int i = 0; i < count; i++)
            ((struct piece *)done[i]->owner)->done = true;
        if (count == 0)
            sched_yield();
    }
    reader->in_flight--;
    reader->arrived++;
    if (oldest->io.result != (int64_t)oldest->io.bytes)
        return oldest->io.result < 0 ? (int)oldest->io.result : -EIO;
    return 0;
}

void checkpoint_reader_close(struct checkpoint_reader *reader) {
    if (reader == NULL)
        return;
    bool lost = false;
    while (reader->in_flight != 0 && !lost) {
        unsigned before = reader->in_flight;
        lost = collect(reader) != 0 && reader->in_flight == before;
    }
    XXH3_freeState(reader->digests);
    if (lost) /* the disk may still write there */
        return;
    free(reader->chunks);
    free(reader->pieces);
    free(reader);
}

/** All chunks were good; are they all? */
static int finish(struct checkpoint_reader *reader, char *error, size_t error_bytes) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(reader->digests));
    if (memcmp(canonical.digest, reader->manifest.data_digest, WAL_DIGEST_BYTES) == 0)
        return 0;
    snprintf(error, error_bytes,
             "%s: bytes 0..%llu: its chunks are not the ones that its manifest names",
             reader->disk->name(reader->disk, reader->file),
             (unsigned long long)(reader->manifest.chunk_count * CHECKPOINT_CHUNK_BYTES));
    return -EBADMSG;
}

int checkpoint_reader_next(struct checkpoint_reader *reader, const struct checkpoint_chunk **chunk,
                           char *error, size_t error_bytes) {
    if (reader->next == reader->manifest.chunk_count)
        return finish(reader, error, error_bytes);
    const uint64_t piece = reader->next / PIECE_CHUNKS;
    int rc = ask(reader);
    if (rc == 0 && reader->asked <= piece)
        return -EAGAIN;
    while (rc == 0 && reader->arrived <= piece)
        rc = collect(reader);
    if (rc == 0)
        rc = ask(reader);
    if (rc != 0)
        return read_failed(reader, rc, error, error_bytes);
    const struct checkpoint_chunk *found =
        &reader->chunks[reader->next % (reader->pieces_room * PIECE_CHUNKS)];
    const char *why = "";
    rc = refusal(checkpoint_chunk_check(found, &reader->manifest, reader->next, &why));
    if (rc != 0) {
        uint64_t at = reader->next * CHECKPOINT_CHUNK_BYTES;
        snprintf(error, error_bytes, "%s: bytes %llu..%llu: chunk %llu is bad: %s",
                 reader->disk->name(reader->disk, reader->file), (unsigned long long)at,
                 (unsigned long long)(at + CHECKPOINT_CHUNK_BYTES),
                 (unsigned long long)reader->next, why);
        return rc;
    }
    XXH3_128bits_update(reader->digests, found->digest, sizeof(found->digest));
    reader->next++;
    *chunk = found;
    return 1;
}

void checkpoint_reader_release(struct checkpoint_reader *reader, uint64_t number) {
    assert(number >= reader->released && number <= reader->next);
    reader->released = number;
}

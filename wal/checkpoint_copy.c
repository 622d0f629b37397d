/* SPDX-License-Identifier: Apache-2.0 */
#include "wal/checkpoint_copy.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wal/checkpoint_check.h"
#include "wal/disk_wait.h"
#include "wal/wal_index.h"

#define OUT_CHUNKS 8u /**< written at a time */

struct checkpoint_copier {
    const struct checkpoint_copy_config *config;
    struct checkpoint_chunk *in, *out; /**< one, and OUT_CHUNKS */
    unsigned out_count;
    uint64_t number; /**< of the next chunk of the copy */
    XXH3_state_t *digests;
    char *error;
    size_t error_bytes;
};

static bool of_log(const struct checkpoint_chunk *chunk) {
    return chunk->header.kind == CHECKPOINT_LOG_FILES || chunk->header.kind == CHECKPOINT_LOG_INDEX;
}

/** @return 0 with a chunk that is good, or -errno */
static int read_chunk(struct disk *disk, const struct checkpoint_manifest *manifest,
                      uint64_t number, struct checkpoint_chunk *chunk, char *error,
                      size_t error_bytes) {
    const uint64_t file = disk_file(DISK_CHECKPOINT_DATA, manifest->seq);
    const uint64_t offset = number * CHECKPOINT_CHUNK_BYTES;
    const char *why = "";
    int rc = disk->read(disk, file, offset, chunk, sizeof(*chunk));
    if (rc != 0) {
        why = strerrordesc_np(-rc);
    } else {
        enum wal_page_state state = checkpoint_chunk_check(chunk, manifest, number, &why);
        rc = state == WAL_PAGE_GOOD      ? 0
             : state == WAL_PAGE_FOREIGN ? -EPERM
             : state == WAL_PAGE_NEWER   ? -ENOTSUP
                                         : -EBADMSG;
    }
    if (rc != 0)
        snprintf(error, error_bytes, "%s: bytes %llu..%llu: chunk %llu: %s", disk->name(disk, file),
                 (unsigned long long)offset, (unsigned long long)offset + CHECKPOINT_CHUNK_BYTES,
                 (unsigned long long)number, why);
    return rc;
}

int checkpoint_index_read(struct disk *disk, const struct checkpoint_manifest *manifest,
                          struct wal_index *index, char *error, size_t error_bytes) {
    struct checkpoint_chunk *chunk = aligned_alloc(WAL_PAGE_BYTES, sizeof(*chunk));
    uint64_t first = manifest->chunk_count;
    int rc = chunk == NULL ? -ENOMEM : 0;
    if (chunk == NULL)
        snprintf(error, error_bytes, "no memory to read a checkpoint");
    /* what the log wrote of itself stands last */
    while (rc == 0 && first > 0) {
        rc = read_chunk(disk, manifest, first - 1, chunk, error, error_bytes);
        if (rc == 0 && !of_log(chunk))
            break;
        first--;
    }
    for (uint64_t number = first; rc == 0 && number < manifest->chunk_count; number++) {
        rc = read_chunk(disk, manifest, number, chunk, error, error_bytes);
        if (rc == 0 && (rc = wal_index_import(index, chunk)) != 0)
            snprintf(error, error_bytes, "%s: chunk %llu: its places in the log have no order",
                     disk->name(disk, disk_file(DISK_CHECKPOINT_DATA, manifest->seq)),
                     (unsigned long long)number);
    }
    free(chunk);
    return rc;
}

/* --- writing ----------------------------------------------------------------------------------------------------------- */

static int perform(struct checkpoint_copier *copier, struct disk_io *io, const char *what) {
    struct disk *disk = copier->config->to;
    int rc = disk_wait(disk, io);
    if (rc != 0)
        snprintf(copier->error, copier->error_bytes, "%s: %s: %s", disk->name(disk, io->file), what,
                 strerrordesc_np(-rc));
    return rc;
}

static int flush(struct checkpoint_copier *copier) {
    const struct checkpoint_copy_config *config = copier->config;
    uint64_t bytes = (uint64_t)copier->out_count * CHECKPOINT_CHUNK_BYTES;
    struct disk_io io = {.operation = DISK_WRITE,
                         .file = disk_file(DISK_CHECKPOINT_DATA, config->manifest->seq),
                         .offset = copier->number * CHECKPOINT_CHUNK_BYTES - bytes,
                         .bytes = bytes,
                         .iov_count = 1};
    io.iov[0] = (struct iovec){copier->out, bytes};
    if (bytes == 0)
        return 0;
    int rc = perform(copier, &io, "writing to it");
    copier->out_count = 0;
    if (rc == 0 && config->progress != NULL)
        rc = config->progress(config->context, bytes);
    return rc;
}

/** Number and seal what stands at the end of `out`. */
static int put_chunk(struct checkpoint_copier *copier) {
    struct checkpoint_chunk *chunk = &copier->out[copier->out_count++];
    chunk->header.number = copier->number++;
    memcpy(chunk->header.cell_id, copier->config->to_identity->cell_id,
           sizeof(chunk->header.cell_id));
    checkpoint_chunk_seal(chunk);
    XXH3_128bits_update(copier->digests, chunk->digest, WAL_DIGEST_BYTES);
    return copier->out_count == OUT_CHUNKS ? flush(copier) : 0;
}

/** Everything but what it says of its own log. */
static int copy_chunks(struct checkpoint_copier *copier) {
    const struct checkpoint_copy_config *config = copier->config;
    int rc = 0;
    for (uint64_t number = 0; rc == 0 && number < config->manifest->chunk_count; number++) {
        rc = read_chunk(config->from, config->manifest, number, copier->in, copier->error,
                        copier->error_bytes);
        if (rc != 0 || of_log(copier->in))
            continue;
        memcpy(&copier->out[copier->out_count], copier->in, sizeof(*copier->in));
        rc = put_chunk(copier);
    }
    return rc;
}

/** And what there is to say of the new one. */
static int put_log(struct checkpoint_copier *copier) {
    const struct checkpoint_copy_config *config = copier->config;
    struct wal_index_export export = {0};
    for (;;) {
        struct checkpoint_chunk *chunk = &copier->out[copier->out_count];
        chunk->header = (struct checkpoint_chunk_header){.magic = CHECKPOINT_CHUNK_MAGIC,
                                                         .version = CHECKPOINT_FORMAT_VERSION,
                                                         .seq = config->manifest->seq,
                                                         .partition_last = UINT16_MAX};
        if (wal_index_export(config->index, config->manifest->seq, &export, chunk) == 0)
            return flush(copier);
        int rc = put_chunk(copier);
        if (rc != 0)
            return rc;
    }
}

static int publish(struct checkpoint_copier *copier) {
    const struct checkpoint_copy_config *config = copier->config;
    XXH128_canonical_t digest;
    struct checkpoint_manifest *manifest = (void *)copier->in;
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(copier->digests));
    *manifest = *config->manifest;
    memcpy(manifest->cell_id, config->to_identity->cell_id, sizeof(manifest->cell_id));
    if (config->log_digest != NULL)
        memcpy(manifest->log_digest, config->log_digest, WAL_DIGEST_BYTES);
    manifest->log_file = config->log_file;
    manifest->log_offset = config->log_offset;
    manifest->log_file_bytes = config->to_identity->file_bytes;
    manifest->chunk_count = copier->number;
    memcpy(manifest->data_digest, digest.digest, WAL_DIGEST_BYTES);
    checkpoint_manifest_seal(manifest);
    struct disk_io sync = {.operation = DISK_SYNC,
                           .file = disk_file(DISK_CHECKPOINT_DATA, manifest->seq)};
    struct disk_io io = {.operation = DISK_PUBLISH,
                         .file = disk_file(DISK_CHECKPOINT_MANIFEST, manifest->seq),
                         .bytes = WAL_PAGE_BYTES,
                         .iov_count = 1};
    io.iov[0] = (struct iovec){manifest, WAL_PAGE_BYTES};
    int rc = perform(copier, &sync, "syncing it");
    return rc != 0 ? rc : perform(copier, &io, "writing it");
}

int checkpoint_copy(const struct checkpoint_copy_config *config, char *error, size_t error_bytes) {
    struct checkpoint_copier copier = {
        .config = config,
        .in = aligned_alloc(WAL_PAGE_BYTES, CHECKPOINT_CHUNK_BYTES),
        .out = aligned_alloc(WAL_PAGE_BYTES, OUT_CHUNKS * CHECKPOINT_CHUNK_BYTES),
        .digests = XXH3_createState(),
        .error = error,
        .error_bytes = error_bytes};
    int rc = copier.in == NULL || copier.out == NULL || copier.digests == NULL ? -ENOMEM : 0;
    if (rc != 0) {
        snprintf(error, error_bytes, "no memory to copy a checkpoint");
    } else {
        struct disk_io create = {.operation = DISK_CREATE,
                                 .file = disk_file(DISK_CHECKPOINT_DATA, config->manifest->seq)};
        XXH3_128bits_reset(copier.digests);
        rc = perform(&copier, &create, "making it");
        if (rc == 0)
            rc = copy_chunks(&copier);
        if (rc == 0)
            rc = put_log(&copier);
        if (rc == 0)
            rc = publish(&copier);
    }
    free(copier.in);
    free(copier.out);
    XXH3_freeState(copier.digests);
    return rc;
}

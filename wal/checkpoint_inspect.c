/* SPDX-License-Identifier: Apache-2.0 */
#include "wal/checkpoint_inspect.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wal/checkpoint_check.h"
#include "wal/wal_index.h"

struct inspection {
    struct disk *disk;
    const struct checkpoint_visitor *visitor;
    void *context;
    struct checkpoint_summary *summary;
    char *error;
    size_t error_bytes;
    int rc;                  /**< of the first damage */
    struct wal_index *index; /**< not looked at once a chunk was bad: what follows may miss it */
    XXH3_state_t *digests;   /**< of all chunks' digests, in order */
    uint64_t lcores_ended;   /**< bit set: its CHECKPOINT_LCORE chunk was seen */
    struct {
        uint64_t accounts, pendings, ids;
    } counted[LCORES_MAX], said[LCORES_MAX];
    uint64_t ids_from_ms;
};

int checkpoint_list(struct disk *disk, seq_t *seqs, unsigned count) {
    int found = disk->list(disk, DISK_CHECKPOINT_MANIFEST, seqs, count);
    for (int i = 0; i < found; i++)
        seqs[i] = disk_file_number(seqs[i]);
    return found;
}

/* --- saying what is wrong ---------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 6, 7))) static int damaged(struct inspection *inspection, int rc,
                                                         uint64_t file, uint64_t offset,
                                                         uint64_t bytes, const char *format, ...) {
    const char *name = inspection->disk->name(inspection->disk, file);
    char message[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    if (inspection->summary->damages++ == 0) {
        inspection->rc = rc;
        snprintf(inspection->error, inspection->error_bytes, "%s: bytes %llu..%llu: %s", name,
                 (unsigned long long)offset, (unsigned long long)(offset + bytes), message);
    }
    const struct checkpoint_damage damage = {name, offset, bytes, message};
    return inspection->visitor != NULL && inspection->visitor->damage != NULL
               ? inspection->visitor->damage(inspection->context, &damage)
               : 0;
}

static int refusal_of(enum wal_page_state state) {
    return state == WAL_PAGE_GOOD      ? 0
           : state == WAL_PAGE_FOREIGN ? -EPERM
           : state == WAL_PAGE_NEWER   ? -ENOTSUP
                                       : -EBADMSG;
}

/* --- the manifest ------------------------------------------------------------------------------------------------------ */

/** @return 0 with the page; else what is wrong, in `why` */
static int read_page(struct disk *disk, uint64_t file, struct checkpoint_manifest *manifest,
                     const char **why) {
    int64_t size = disk->size(disk, file);
    struct checkpoint_manifest *page = aligned_alloc(WAL_PAGE_BYTES, sizeof(*page));
    int rc = page == NULL ? -ENOMEM : size < 0 ? (int)size : 0;
    if (rc == 0 && size != WAL_PAGE_BYTES) {
        *why = "it does not have the size of a manifest";
        rc = -EBADMSG;
    } else if (rc == 0) {
        rc = disk->read(disk, file, 0, page, sizeof(*page));
        memcpy(manifest, page, sizeof(*manifest));
    }
    if (rc != 0 && rc != -EBADMSG)
        *why = strerrordesc_np(-rc);
    free(page);
    return rc;
}

int checkpoint_manifest_read(struct disk *disk, const uint8_t *cell_id, seq_t seq,
                             struct checkpoint_manifest *manifest, char *error,
                             size_t error_bytes) {
    const uint64_t file = disk_file(DISK_CHECKPOINT_MANIFEST, seq);
    const char *why = "";
    int rc = read_page(disk, file, manifest, &why);
    if (rc == 0)
        rc = refusal_of(checkpoint_manifest_check(manifest, cell_id, seq, &why));
    if (rc != 0)
        snprintf(error, error_bytes, "%s: bytes 0..%u: %s", disk->name(disk, file), WAL_PAGE_BYTES,
                 why);
    return rc;
}

/* --- the chunks -------------------------------------------------------------------------------------------------------- */

static void add_lcore(struct inspection *inspection, const struct checkpoint_chunk *chunk) {
    const struct checkpoint_lcore *lcore = (const void *)chunk->payload;
    const struct checkpoint_partition *partitions = checkpoint_partitions(chunk);
    const unsigned index = chunk->header.lcore;
    inspection->lcores_ended |= (uint64_t)1 << index;
    inspection->said[index].accounts = lcore->accounts;
    inspection->said[index].pendings = lcore->pendings;
    inspection->said[index].ids = lcore->ids;
    if (lcore->ids_from_ms > inspection->ids_from_ms)
        inspection->ids_from_ms = lcore->ids_from_ms;
    for (uint32_t i = 0; i < lcore->partition_count; i++)
        inspection->summary->state += partitions[i].digest;
}

static int add_places(struct inspection *inspection, const struct checkpoint_chunk *chunk) {
    return inspection->summary->damages != 0 ? 0 : wal_index_import(inspection->index, chunk);
}

/** Take a good chunk into the sums. @return 0, or -EBADMSG: places in the log without order */
static int add_chunk(struct inspection *inspection, const struct checkpoint_chunk *chunk) {
    struct checkpoint_summary *summary = inspection->summary;
    const uint32_t records = chunk->header.records;
    summary->chunks++;
    switch (chunk->header.kind) {
    case CHECKPOINT_ACCOUNTS:
        inspection->counted[chunk->header.lcore].accounts += records;
        summary->accounts += records;
        return 0;
    case CHECKPOINT_PENDINGS:
        inspection->counted[chunk->header.lcore].pendings += records;
        summary->pendings += records;
        return 0;
    case CHECKPOINT_IDS:
        inspection->counted[chunk->header.lcore].ids += records;
        summary->ids += records;
        return 0;
    case CHECKPOINT_LCORE:
        add_lcore(inspection, chunk);
        return 0;
    case CHECKPOINT_LOG_FILES:
        summary->log_files += records;
        return add_places(inspection, chunk);
    default:
        summary->log_entries += records;
        return add_places(inspection, chunk);
    }
}

static int visit_chunk(struct inspection *inspection, const struct checkpoint_chunk *chunk,
                       uint64_t number) {
    const struct checkpoint_manifest *manifest = &inspection->summary->manifest;
    const uint64_t file = disk_file(DISK_CHECKPOINT_DATA, manifest->seq);
    const uint64_t offset = number * CHECKPOINT_CHUNK_BYTES;
    const char *why = "";
    XXH3_128bits_update(inspection->digests, chunk->digest, WAL_DIGEST_BYTES);
    enum wal_page_state state = checkpoint_chunk_check(chunk, manifest, number, &why);
    if (state != WAL_PAGE_GOOD)
        return damaged(inspection, refusal_of(state), file, offset, CHECKPOINT_CHUNK_BYTES,
                       "chunk %llu: %s", (unsigned long long)number, why);
    if (chunk->header.kind == CHECKPOINT_LCORE &&
        (inspection->lcores_ended >> chunk->header.lcore & 1) != 0)
        return damaged(inspection, -EBADMSG, file, offset, CHECKPOINT_CHUNK_BYTES,
                       "chunk %llu: its lcore ended before", (unsigned long long)number);
    if (add_chunk(inspection, chunk) != 0)
        return damaged(inspection, -EBADMSG, file, offset, CHECKPOINT_CHUNK_BYTES,
                       "chunk %llu: its places in the log have no order",
                       (unsigned long long)number);
    return inspection->visitor != NULL && inspection->visitor->chunk != NULL
               ? inspection->visitor->chunk(inspection->context, chunk)
               : 0;
}

static int read_chunks(struct inspection *inspection, struct checkpoint_chunk *chunk) {
    const struct checkpoint_manifest *manifest = &inspection->summary->manifest;
    struct disk *disk = inspection->disk;
    const uint64_t file = disk_file(DISK_CHECKPOINT_DATA, manifest->seq);
    const uint64_t wanted = manifest->chunk_count * CHECKPOINT_CHUNK_BYTES;
    int64_t size = disk->size(disk, file);
    if (size < 0) {
        const bool missing = size == -ENOENT;
        return damaged(inspection, missing ? -EBADMSG : (int)size, file, 0, wanted, "%s",
                       missing ? "the file is missing" : strerrordesc_np((int)-size));
    }
    inspection->summary->bytes = (uint64_t)size;
    int rc = 0;
    if ((uint64_t)size != wanted)
        rc = damaged(inspection, -EBADMSG, file, (uint64_t)size < wanted ? (uint64_t)size : wanted,
                     (uint64_t)size < wanted ? wanted - (uint64_t)size : (uint64_t)size - wanted,
                     (uint64_t)size < wanted ? "they are missing" : "they do not belong to it");
    for (uint64_t number = 0; rc == 0 && number < manifest->chunk_count &&
                              (number + 1) * CHECKPOINT_CHUNK_BYTES <= (uint64_t)size;
         number++) {
        rc = disk->read(disk, file, number * CHECKPOINT_CHUNK_BYTES, chunk, sizeof(*chunk));
        if (rc != 0) {
            snprintf(inspection->error, inspection->error_bytes, "%s: reading at byte %llu: %s",
                     disk->name(disk, file), (unsigned long long)number * CHECKPOINT_CHUNK_BYTES,
                     strerrordesc_np(-rc));
            return rc;
        }
        rc = visit_chunk(inspection, chunk, number);
    }
    return rc;
}

/* --- what all of it amounts to ------------------------------------------------------------------------------------------- */

/** What does not agree although every chunk is good by itself. */
static const char *disagreement(struct inspection *inspection) {
    const struct checkpoint_summary *summary = inspection->summary;
    const struct checkpoint_manifest *manifest = &summary->manifest;
    XXH128_canonical_t digest;
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(inspection->digests));
    if (memcmp(digest.digest, manifest->data_digest, WAL_DIGEST_BYTES) != 0)
        return "its digest of all chunks is not theirs";
    for (unsigned lcore = 0; lcore < manifest->lcores; lcore++) {
        if ((inspection->lcores_ended >> lcore & 1) == 0)
            return "an lcore's last chunk is not there";
        if (memcmp(&inspection->said[lcore], &inspection->counted[lcore],
                   sizeof(inspection->said[lcore])) != 0)
            return "an lcore did not write as many records as it says";
    }
    if (summary->accounts != manifest->accounts || summary->pendings != manifest->pendings ||
        summary->ids != manifest->ids)
        return "it does not count as many records as there are";
    if (memcmp(&summary->state, manifest->state_digest, WAL_DIGEST_BYTES) != 0)
        return "its digest of the state is not the sum of the partitions'";
    if (inspection->ids_from_ms > manifest->ids_from_ms)
        return "it claims older ids than its lcores do";
    return NULL;
}

static int inspect(struct inspection *inspection, const uint8_t *cell_id, seq_t seq) {
    struct checkpoint_manifest *manifest = &inspection->summary->manifest;
    const uint64_t file = disk_file(DISK_CHECKPOINT_MANIFEST, seq);
    const char *why = "";
    int rc = read_page(inspection->disk, file, manifest, &why);
    if (rc == 0)
        rc = refusal_of(checkpoint_manifest_check(manifest, cell_id, seq, &why));
    if (rc != 0)
        return damaged(inspection, rc, file, 0, WAL_PAGE_BYTES, "%s", why);
    inspection->summary->manifest_good = true;
    struct checkpoint_chunk *chunk = aligned_alloc(WAL_PAGE_BYTES, sizeof(*chunk));
    if (chunk == NULL) {
        snprintf(inspection->error, inspection->error_bytes, "no memory to read a checkpoint");
        return -ENOMEM;
    }
    rc = read_chunks(inspection, chunk);
    free(chunk);
    const char *problem = rc == 0 && inspection->rc == 0 ? disagreement(inspection) : NULL;
    return problem != NULL ? damaged(inspection, -EBADMSG, file, 0, WAL_PAGE_BYTES, "%s", problem)
                           : rc;
}

int checkpoint_inspect(struct disk *disk, const struct wal_identity *identity, seq_t seq,
                       const struct checkpoint_visitor *visitor, void *context,
                       struct checkpoint_summary *summary, char *error, size_t error_bytes) {
    struct inspection *inspection = calloc(1, sizeof(*inspection));
    memset(summary, 0, sizeof(*summary));
    error[0] = '\0';
    if (inspection != NULL) {
        *inspection = (struct inspection){.disk = disk,
                                          .visitor = visitor,
                                          .context = context,
                                          .summary = summary,
                                          .error = error,
                                          .error_bytes = error_bytes,
                                          .index = wal_index_new(),
                                          .digests = XXH3_createState()};
    }
    int rc = -ENOMEM;
    if (inspection == NULL || inspection->index == NULL || inspection->digests == NULL) {
        snprintf(error, error_bytes, "no memory to read a checkpoint");
    } else {
        XXH3_128bits_reset(inspection->digests);
        rc = inspect(inspection, identity == NULL ? NULL : identity->cell_id, seq);
        rc = rc != 0 ? rc : inspection->rc;
    }
    if (inspection != NULL) {
        wal_index_free(inspection->index);
        XXH3_freeState(inspection->digests);
    }
    free(inspection);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "wal/checkpoint_check.h"

#include <string.h>

#include "engine/base/check.h"

uint32_t checkpoint_record_bytes(uint16_t kind) {
    switch (kind) {
    case CHECKPOINT_ACCOUNTS:
        return sizeof(struct account);
    case CHECKPOINT_PENDINGS:
        return sizeof(struct checkpoint_pending);
    case CHECKPOINT_IDS:
        return sizeof(struct checkpoint_id);
    case CHECKPOINT_LOG_FILES:
        return sizeof(struct checkpoint_log_file);
    case CHECKPOINT_LOG_INDEX:
        return sizeof(struct checkpoint_log_entry);
    default:
        return 0;
    }
}

static bool digest_matches(const void *bytes, size_t length, const uint8_t *digest) {
    uint8_t computed[WAL_DIGEST_BYTES];
    wal_digest(bytes, length, computed);
    return memcmp(computed, digest, WAL_DIGEST_BYTES) == 0;
}

static enum wal_page_state say(enum wal_page_state state, const char *what, const char **why) {
    *why = what;
    return state;
}

/* --- the manifest ------------------------------------------------------------------------------------------------------ */

static const char *manifest_problem(const struct checkpoint_manifest *manifest, seq_t seq) {
    if (manifest->version != CHECKPOINT_FORMAT_VERSION || manifest->bytes != WAL_PAGE_BYTES)
        return "it is of a version that never was";
    if (manifest->seq == 0 || manifest->seq != seq)
        return "it is that of another checkpoint";
    if (manifest->log_file == 0 || manifest->log_offset % WAL_PAGE_BYTES != 0 ||
        manifest->log_file_bytes % WAL_PAGE_BYTES != 0 ||
        manifest->log_offset > manifest->log_file_bytes)
        return "its place in the log makes no sense";
    if (manifest->partitions == 0 || manifest->partitions > PARTITIONS_MAX ||
        manifest->lcores == 0 || manifest->lcores > LCORES_MAX ||
        manifest->chunk_count < manifest->lcores)
        return "its partitions, lcores or chunks make no sense";
    return NULL;
}

enum wal_page_state checkpoint_manifest_check(const struct checkpoint_manifest *manifest,
                                              const uint8_t *cell_id, seq_t seq, const char **why) {
    if (manifest->magic != CHECKPOINT_MANIFEST_MAGIC && wal_bytes_zero(manifest, sizeof(*manifest)))
        return say(WAL_PAGE_ZERO, "it is all zero", why);
    if (manifest->magic != CHECKPOINT_MANIFEST_MAGIC)
        return say(WAL_PAGE_DAMAGED, "it does not begin as a manifest does", why);
    if (!digest_matches(manifest, offsetof(struct checkpoint_manifest, digest), manifest->digest))
        return say(WAL_PAGE_DAMAGED, "it does not match its digest", why);
    if (manifest->version > CHECKPOINT_FORMAT_VERSION)
        return say(WAL_PAGE_NEWER, "its format is newer than this program", why);
    if (cell_id != NULL && memcmp(manifest->cell_id, cell_id, sizeof(manifest->cell_id)) != 0)
        return say(WAL_PAGE_FOREIGN, "it is another cell's", why);
    const char *problem = manifest_problem(manifest, seq);
    return problem != NULL ? say(WAL_PAGE_DAMAGED, problem, why) : WAL_PAGE_GOOD;
}

/* --- a chunk ----------------------------------------------------------------------------------------------------------- */

const struct checkpoint_partition *checkpoint_partitions(const struct checkpoint_chunk *chunk) {
    return (const void *)(chunk->payload + sizeof(struct checkpoint_lcore));
}

static const char *lcore_problem(const struct checkpoint_chunk *chunk,
                                 const struct checkpoint_manifest *manifest) {
    const struct checkpoint_lcore *lcore = (const void *)chunk->payload;
    const struct checkpoint_partition *entries = checkpoint_partitions(chunk);
    uint64_t accounts = 0, ids = 0;
    if (lcore->partition_count > manifest->partitions ||
        chunk->header.record_bytes !=
            sizeof(*lcore) + lcore->partition_count * sizeof(struct checkpoint_partition))
        return "it does not have the size that its partitions need";
    for (uint32_t i = 0; i < lcore->partition_count; i++) {
        if (entries[i].partition >= manifest->partitions ||
            (i > 0 && entries[i].partition <= entries[i - 1].partition))
            return "its partitions are not in order";
        accounts += entries[i].accounts;
        ids += entries[i].ids;
    }
    if (accounts != lcore->accounts || ids != lcore->ids)
        return "its partitions do not add up";
    return NULL;
}

static const char *chunk_problem(const struct checkpoint_chunk *chunk,
                                 const struct checkpoint_manifest *manifest, uint64_t number) {
    const struct checkpoint_chunk_header *header = &chunk->header;
    if (header->version != CHECKPOINT_FORMAT_VERSION)
        return "it is of a version that never was";
    if (header->seq != manifest->seq)
        return "it belongs to another checkpoint";
    if (header->number != number)
        return "another chunk stands there";
    if (header->lcore >= manifest->lcores)
        return "no lcore of this checkpoint wrote it";
    if (header->kind == CHECKPOINT_LCORE) {
        if (header->record_bytes < sizeof(struct checkpoint_lcore) ||
            header->record_bytes > CHECKPOINT_PAYLOAD_BYTES)
            return "it does not have the size that its partitions need";
        return lcore_problem(chunk, manifest);
    }
    uint32_t record_bytes = checkpoint_record_bytes(header->kind);
    if (record_bytes == 0)
        return "its kind is not known";
    if (header->record_bytes != record_bytes ||
        header->records > CHECKPOINT_PAYLOAD_BYTES / record_bytes)
        return "its records do not fit into it";
    return NULL;
}

enum wal_page_state checkpoint_chunk_check(const struct checkpoint_chunk *chunk,
                                           const struct checkpoint_manifest *manifest,
                                           uint64_t number, const char **why) {
    if (chunk->header.magic != CHECKPOINT_CHUNK_MAGIC && wal_bytes_zero(chunk, sizeof(*chunk)))
        return say(WAL_PAGE_ZERO, "it is all zero", why);
    if (chunk->header.magic != CHECKPOINT_CHUNK_MAGIC)
        return say(WAL_PAGE_DAMAGED, "it does not begin as a chunk does", why);
    if (!digest_matches(chunk, offsetof(struct checkpoint_chunk, digest), chunk->digest))
        return say(WAL_PAGE_DAMAGED, "it does not match its digest", why);
    if (chunk->header.version > CHECKPOINT_FORMAT_VERSION)
        return say(WAL_PAGE_NEWER, "its format is newer than this program", why);
    if (memcmp(chunk->header.cell_id, manifest->cell_id, sizeof(manifest->cell_id)) != 0)
        return say(WAL_PAGE_FOREIGN, "it is another cell's", why);
    const char *problem = chunk_problem(chunk, manifest, number);
    return problem != NULL ? say(WAL_PAGE_DAMAGED, problem, why) : WAL_PAGE_GOOD;
}

/* --- sealing ----------------------------------------------------------------------------------------------------------- */

void checkpoint_manifest_seal(struct checkpoint_manifest *manifest) {
    memset(manifest->fill, WAL_FILL_BYTE, sizeof(manifest->fill));
    wal_digest(manifest, offsetof(struct checkpoint_manifest, digest), manifest->digest);
}

void checkpoint_chunk_seal(struct checkpoint_chunk *chunk) {
    const struct checkpoint_chunk_header *header = &chunk->header;
    size_t used = header->kind == CHECKPOINT_LCORE ? header->record_bytes
                                                   : (size_t)header->records * header->record_bytes;
    assert(used <= CHECKPOINT_PAYLOAD_BYTES);
    memset(chunk->payload + used, WAL_FILL_BYTE, CHECKPOINT_PAYLOAD_BYTES - used);
    wal_digest(chunk, offsetof(struct checkpoint_chunk, digest), chunk->digest);
}

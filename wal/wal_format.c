/* SPDX-License-Identifier: Apache-2.0 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"
#include "wal/wal_format.h"
#include "wal/wal_record.h"

void wal_digest(const void *bytes, size_t length, uint8_t digest[WAL_DIGEST_BYTES]) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, length));
    memcpy(digest, canonical.digest, WAL_DIGEST_BYTES);
}

struct wal_digest_stream {
    XXH3_state_t state;
};

struct wal_digest_stream *wal_digest_stream_new(void) {
    struct wal_digest_stream *stream =
        aligned_alloc(_Alignof(struct wal_digest_stream), sizeof(*stream));
    if (stream != NULL)
        wal_digest_stream_reset(stream);
    return stream;
}

void wal_digest_stream_free(struct wal_digest_stream *stream) {
    free(stream);
}

void wal_digest_stream_reset(struct wal_digest_stream *stream) {
    XXH3_128bits_reset(&stream->state);
}

void wal_digest_stream_add(struct wal_digest_stream *stream, const void *bytes, size_t length) {
    XXH3_128bits_update(&stream->state, bytes, length);
}

void wal_digest_stream_end(const struct wal_digest_stream *stream,
                           uint8_t digest[WAL_DIGEST_BYTES]) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&stream->state));
    memcpy(digest, canonical.digest, WAL_DIGEST_BYTES);
}

static bool digest_matches(const void *bytes, size_t length, const uint8_t *digest) {
    uint8_t computed[WAL_DIGEST_BYTES];
    wal_digest(bytes, length, computed);
    return memcmp(computed, digest, WAL_DIGEST_BYTES) == 0;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the format is little-endian, and so are the structs");

bool wal_bytes_zero(const void *bytes, size_t length) {
    const uint8_t *at = bytes;
    size_t done = 0;
    for (; done + 64 <= length; done += 64) {
        uint64_t words[8];
        memcpy(words, at + done, sizeof(words));
        if ((words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] |
             words[7]) != 0)
            return false;
    }
    for (; done < length; done++)
        if (at[done] != 0)
            return false;
    return true;
}

bool wal_sectors_torn(const void *bytes, size_t length) {
    const uint8_t *at = bytes;
    for (size_t done = 0; done < length; done += WAL_SECTOR_BYTES)
        if (wal_bytes_zero(at + done, WAL_SECTOR_BYTES))
            return true;
    return false;
}

uint32_t wal_segment_pad(uint8_t *bytes, uint32_t length) {
    uint32_t padded = (uint32_t)wal_page_align(length);
    assert(length % WAL_RECORD_ALIGN == 0);
    if (padded != length) {
        struct wal_record_head head = {.type = WAL_RECORD_PADDING};
        memcpy(bytes + length, &head, sizeof(head));
        memset(bytes + length + sizeof(head), WAL_FILL_BYTE, padded - length - sizeof(head));
    }
    return padded;
}

void wal_header_seal(struct wal_header *header) {
    struct wal_chained_header *chained = &header->chained;
    struct wal_local_block *local = &header->local;
    memset(&chained->segments[chained->segment_count], WAL_FILL_BYTE,
           sizeof(chained->segments[0]) * (LCORES_MAX - chained->segment_count));
    memset(chained->fill, WAL_FILL_BYTE, sizeof(chained->fill));
    memset(local->fill, WAL_FILL_BYTE, sizeof(local->fill));
    wal_digest(chained, offsetof(struct wal_chained_header, digest), chained->digest);
    wal_digest(local, offsetof(struct wal_local_block, digest), local->digest);
}

/** Whether the directory describes a body without gaps; a good digest says who wrote it, not that it makes sense. */
static bool directory_consistent(const struct wal_chained_header *chained) {
    uint64_t offset = 0;
    if (chained->segment_count == 0 || chained->segment_count > LCORES_MAX)
        return false;
    for (uint32_t i = 0; i < chained->segment_count; i++) {
        const struct wal_segment_entry *entry = &chained->segments[i];
        if (entry->offset != offset || entry->length > WAL_SEGMENT_BYTES_MAX ||
            entry->length % WAL_RECORD_ALIGN != 0 ||
            entry->records > entry->length / WAL_RECORD_ALIGN)
            return false;
        offset += wal_page_align(entry->length);
    }
    return offset == chained->body_bytes;
}

enum wal_page_state wal_header_check(const struct wal_header *header, const uint8_t *cell_id) {
    const struct wal_chained_header *chained = &header->chained;
    const struct wal_local_block *local = &header->local;
    if (chained->magic != WAL_HEADER_MAGIC)
        return wal_bytes_zero(header, sizeof(*header)) ? WAL_PAGE_ZERO : WAL_PAGE_DAMAGED;
    /* magic, version and digest stand where they stand in every version; without the digest, bytes that a client chose
     * (an id at the start of a page) could pass for a newer format */
    if (!digest_matches(chained, offsetof(struct wal_chained_header, digest), chained->digest))
        return WAL_PAGE_DAMAGED;
    if (chained->version > WAL_FORMAT_VERSION)
        return WAL_PAGE_NEWER;
    if (cell_id != NULL && memcmp(chained->cell_id, cell_id, sizeof(chained->cell_id)) != 0)
        return WAL_PAGE_FOREIGN;
    if (chained->version != WAL_FORMAT_VERSION || chained->header_bytes != WAL_PAGE_BYTES ||
        !directory_consistent(chained))
        return WAL_PAGE_DAMAGED;
    if (local->magic != WAL_LOCAL_MAGIC || local->term != chained->term ||
        local->seq != chained->seq || local->durable_seq >= local->seq ||
        chained->commit_seq >= chained->seq ||
        !digest_matches(local, offsetof(struct wal_local_block, digest), local->digest))
        return WAL_PAGE_DAMAGED;
    return WAL_PAGE_GOOD;
}

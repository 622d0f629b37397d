/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_FORMAT_H
#define TALLY_WAL_WAL_FORMAT_H

#include "engine/base/types.h"

/** The bytes of a group on disk: one 4 KiB header page, then one padded segment an lcore. Format:
 * wal/FORMAT.md. Flow:  wal_step -> [wal_header] -> disk -> wal_reader -> replay Keeps: INV-6. All
 * integers little-endian. Everything read from a disk may be damaged and is checked here. */

#define WAL_PAGE_BYTES 4096u
#define WAL_SECTOR_BYTES 512u
#define WAL_FORMAT_VERSION 1u
#define WAL_HEADER_MAGIC 0x505247594c4c4154ULL /**< "TALLYGRP" */
#define WAL_LOCAL_MAGIC 0x434f4c594c4c4154ULL  /**< "TALLYLOC" */
#define WAL_FILL_BYTE 0xa5                     /**< whatever carries nothing carries this */
#define WAL_DIGEST_BYTES 16

/** An lcore's segment in the directory. Unused entries are filled with WAL_FILL_BYTE. */
struct wal_segment_entry {
    uint32_t offset;  /**< bytes, from the start of the body; 4 KiB multiple */
    uint32_t length;  /**< bytes of records, without the padding behind them */
    uint32_t records; /**< how many */
    uint32_t reserved;
    uint8_t digest[WAL_DIGEST_BYTES]; /**< XXH3-128 of the segment, padding included */
};

/** Part of the header page that every node of the cell has alike; `digest` covers all that stands
 * before it. */
struct wal_chained_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes; /**< WAL_PAGE_BYTES */
    uint8_t cell_id[16];
    uint64_t term;
    uint64_t seq;
    uint8_t previous_digest[WAL_DIGEST_BYTES]; /**< `digest` of group seq - 1; zero for the first
                                                  group */
    uint64_t body_bytes;
    uint64_t commit_seq;
    uint64_t horizon_ms;
    uint64_t cell_time;        /**< ns, at or above every timestamp of the group */
    uint32_t groups_in_flight; /**< K */
    uint32_t segment_count;    /**< 1..LCORES_MAX, one an lcore */
    uint8_t reserved[24];      /**< zero */
    struct wal_segment_entry segments[LCORES_MAX];
    uint8_t fill[1392];
    uint8_t digest[WAL_DIGEST_BYTES]; /**< XXH3-128 of the 3,568 bytes above */
};

/** Part that is this node's own, outside the chain. */
struct wal_local_block {
    uint64_t magic;
    uint64_t term; /**< the group's again, so that no block passes for another group's */
    uint64_t seq;
    uint64_t durable_seq; /**< this node's contiguous synced prefix when the group was submitted;
                             below seq */
    uint64_t file_bytes;  /**< size of this node's log files */
    uint8_t fill[456];
    uint8_t digest[WAL_DIGEST_BYTES]; /**< XXH3-128 of the 496 bytes above */
};

struct wal_header {
    struct wal_chained_header chained;
    struct wal_local_block local;
};

_Static_assert(sizeof(struct wal_segment_entry) == 32, "a directory entry is 32 bytes");
_Static_assert(offsetof(struct wal_chained_header, segments) == 128, "no padding inside");
_Static_assert(sizeof(struct wal_chained_header) == 7 * WAL_SECTOR_BYTES, "seven sectors");
_Static_assert(sizeof(struct wal_local_block) == WAL_SECTOR_BYTES, "one sector");
_Static_assert(sizeof(struct wal_header) == WAL_PAGE_BYTES, "a header is one page");

static inline uint64_t wal_page_align(uint64_t bytes) {
    return (bytes + WAL_PAGE_BYTES - 1) & ~(uint64_t)(WAL_PAGE_BYTES - 1);
}

/** What a page looks like where a header should stand. */
enum wal_page_state {
    WAL_PAGE_GOOD,    /**< both digests right, lengths consistent, ours */
    WAL_PAGE_ZERO,    /**< nothing but zeros */
    WAL_PAGE_DAMAGED, /**< anything else */
    WAL_PAGE_NEWER,   /**< our magic, a right digest, and a format version not known here */
    WAL_PAGE_FOREIGN, /**< a good header of another cell */
};

/** Judge a page by itself, without its place in the chain.
 *  @param cell_id 16 bytes, or NULL to take any cell for ours */
enum wal_page_state wal_header_check(const struct wal_header *header, const uint8_t *cell_id);

/** Fill the unused bytes and compute both digests. Everything else is set already. */
void wal_header_seal(struct wal_header *header);

/** XXH3-128 in canonical (big-endian) form. */
void wal_digest(const void *bytes, size_t length, uint8_t digest[WAL_DIGEST_BYTES]);

/** The same over bytes that come piece by piece. */
struct wal_digest_stream;
/** @return NULL when there is no memory */
struct wal_digest_stream *wal_digest_stream_new(void);
void wal_digest_stream_free(struct wal_digest_stream *stream);
void wal_digest_stream_reset(struct wal_digest_stream *stream);
void wal_digest_stream_add(struct wal_digest_stream *stream, const void *bytes, size_t length);
void wal_digest_stream_end(const struct wal_digest_stream *stream,
                           uint8_t digest[WAL_DIGEST_BYTES]);

/** Fill from `length` up to the next 4 KiB boundary with a padding record. @return the padded
 * length */
uint32_t wal_segment_pad(uint8_t *bytes, uint32_t length);

/** @return whether all bytes are zero */
bool wal_bytes_zero(const void *bytes, size_t length);
/** @return whether one of the 512-byte sectors is all zero; `length` is a multiple of 512 */
bool wal_sectors_torn(const void *bytes, size_t length);

#endif

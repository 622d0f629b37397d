/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_CHECKPOINT_FORMAT_H
#define TALLY_WAL_CHECKPOINT_FORMAT_H

#include "engine/base/types.h"
#include "wal/wal_format.h"
#include "wal/wal_record.h"

/** The bytes of a checkpoint on disk: a data file of chunks of one size, and a manifest of one page that makes it count.
 *  Flow:  engine tables -> [chunk] -> wal_step -> disk -> recovery -> engine tables
 *  Format: wal/FORMAT.md. All integers little-endian. Everything read from a disk may be damaged and is checked.
 *  Keeps: INV-1, INV-3, INV-6. */

#define CHECKPOINT_FORMAT_VERSION 1u
#define CHECKPOINT_CHUNK_MAGIC 0x4b4843594c4c4154ULL    /**< "TALLYCHK" */
#define CHECKPOINT_MANIFEST_MAGIC 0x4e414d594c4c4154ULL /**< "TALLYMAN" */
#define CHECKPOINT_CHUNK_BYTES (128u << 10)
#define CHECKPOINT_KEPT 2 /**< published checkpoints that are kept */

enum checkpoint_kind {
    CHECKPOINT_ACCOUNTS = 1, /**< struct account, as exported: no mark, `reserved` zero */
    CHECKPOINT_PENDINGS = 2, /**< struct checkpoint_pending */
    CHECKPOINT_IDS = 3,      /**< struct checkpoint_id, burnt ones too */
    CHECKPOINT_LCORE =
        4, /**< one struct checkpoint_lcore, then its partitions; an lcore's last chunk */
    CHECKPOINT_LOG_FILES =
        5, /**< struct checkpoint_log_file: files that stood when it was published */
    CHECKPOINT_LOG_INDEX = 6, /**< struct checkpoint_log_entry: where groups lie in those */
};

/** Head of a chunk; records of one kind follow, then fill, then the digest. Chunk n stands at n * CHECKPOINT_CHUNK_BYTES. */
struct checkpoint_chunk_header {
    uint64_t magic;
    uint32_t version;
    uint16_t kind;  /**< enum checkpoint_kind */
    uint16_t lcore; /**< who wrote it; 0 for what the WAL wrote */
    uint64_t seq;   /**< the checkpoint */
    uint64_t number;
    uint32_t records;
    uint32_t record_bytes;    /**< size of one; of a lcore's chunk: of all that it holds */
    uint16_t partition_first; /**< no record belongs to a partition outside [first, last]; */
    uint16_t partition_last;  /**< for kinds without partitions 0 and 65535 */
    uint32_t reserved;        /**< zero */
    uint8_t cell_id[16];
};
_Static_assert(sizeof(struct checkpoint_chunk_header) == 64, "a chunk's head is a cache line");

#define CHECKPOINT_PAYLOAD_BYTES                                                                   \
    (CHECKPOINT_CHUNK_BYTES - sizeof(struct checkpoint_chunk_header) - WAL_DIGEST_BYTES)

struct checkpoint_chunk {
    struct checkpoint_chunk_header header;
    _Alignas(16) uint8_t payload[CHECKPOINT_PAYLOAD_BYTES];
    uint8_t digest[WAL_DIGEST_BYTES]; /**< XXH3-128 of all that stands before it */
};
_Static_assert(sizeof(struct checkpoint_chunk) == CHECKPOINT_CHUNK_BYTES, "no padding");

struct checkpoint_pending {
    struct transfer transfer; /**< as it was created */
    uint64_t expires_at;      /**< ns; 0: never */
    uint64_t release_ms;      /**< resolved: forgotten when the horizon is above this */
    uint8_t state;            /**< enum pending_state */
    uint8_t reserved[15];     /**< zero */
};
_Static_assert(sizeof(struct checkpoint_pending) == 160, "160 bytes");

/** A remembered id. Ids of one slice of time stand in the order in which they were decided. */
struct checkpoint_id {
    uint64_t id[2]; /**< low half first */
    uint64_t timestamp;
    uint64_t digest; /**< of the requested fields */
    wal_place_t place;
};
_Static_assert(sizeof(struct checkpoint_id) == 40, "40 bytes");

struct checkpoint_partition {
    uint128_t digest; /**< state digest at the end of group seq */
    uint64_t accounts;
    uint64_t pendings_live;
    uint64_t ids; /**< remembered ones in the chunks */
    uint32_t partition;
    uint32_t reserved;
};
_Static_assert(sizeof(struct checkpoint_partition) == 48, "48 bytes");

struct checkpoint_lcore {
    uint64_t last_timestamp; /**< ns, at the end of group seq */
    uint64_t cell_time;      /**< ns, likewise */
    uint64_t import_cursor_accounts, import_cursor_transfers;
    uint64_t
        ids_from_ms; /**< ids below may be missing: their slice was forgotten while the walk went on */
    uint64_t
        complete_group; /**< the lcore's open group when its walk ended: no publication before it is committed */
    uint64_t accounts, pendings, ids; /**< records in this lcore's chunks */
    uint32_t partition_count;         /**< entries of struct checkpoint_partition that follow */
    uint32_t reserved;
};
_Static_assert(sizeof(struct checkpoint_lcore) == 80, "80 bytes, and 16-byte aligned what follows");

struct checkpoint_log_file {
    uint64_t file;
    uint64_t first_seq;
    uint64_t last_cell_time; /**< ns, of its last group so far */
};

struct checkpoint_log_entry {
    uint64_t seq, file, offset;
};

/** NUMBER.manifest, one page, written and renamed as a whole once group `seq` and every `complete_group` are committed. */
struct checkpoint_manifest {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes; /**< WAL_PAGE_BYTES */
    uint8_t cell_id[16];
    uint64_t term;
    uint64_t seq;
    uint8_t log_digest[WAL_DIGEST_BYTES]; /**< of group seq's chained header */
    uint64_t log_file, log_offset;        /**< where group seq + 1 stands */
    uint64_t log_file_bytes;
    uint64_t cell_time;   /**< ns, of group seq */
    uint64_t horizon_ms;  /**< of group seq */
    uint64_t ids_from_ms; /**< the highest of the lcores' */
    uint64_t published;   /**< ns, cell time */
    uint64_t chunk_count;
    uint8_t data_digest[WAL_DIGEST_BYTES]; /**< XXH3-128 of the digests of all chunks, in order */
    uint8_t state_digest
        [WAL_DIGEST_BYTES]; /**< sum of the partitions' digests, mod 2^128, little-endian */
    uint64_t accounts, pendings, ids; /**< records in the chunks */
    uint32_t partitions;
    uint32_t lcores; /**< that wrote it */
    uint8_t fill[3888];
    uint8_t digest[WAL_DIGEST_BYTES]; /**< XXH3-128 of all that stands before it */
};
_Static_assert(sizeof(struct checkpoint_manifest) == WAL_PAGE_BYTES, "a manifest is one page");

#endif

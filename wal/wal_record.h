/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_WAL_RECORD_H
#define TALLY_WAL_WAL_RECORD_H

#include "engine/base/types.h"

/** One outcome in the log. Format: wal/FORMAT.md.
 *  Flow:  engine install -> [wal_record] -> wal_group -> disk -> recovery -> engine replay
 *
 *  A record starts with an 8-byte head, is a multiple of 16 bytes long and at most WAL_RECORD_BYTES_MAX,
 *  and its first byte is never zero. Optional fields follow the fixed part in the order of their presence bits,
 *  each 8 or 16 bytes; zero bytes fill up to the multiple of 16. */

#define WAL_RECORD_ALIGN 16
#define WAL_RECORD_BYTES_MAX 256

enum wal_record_type {
    WAL_RECORD_TRANSFER = 1,         /**< a created transfer of any kind */
    WAL_RECORD_ACCOUNT = 2,          /**< a created account */
    WAL_RECORD_EXPIRY = 3,           /**< a pending transfer that timed out */
    WAL_RECORD_BURNT_ID = 4,         /**< a failure whose status burns the id */
    WAL_RECORD_PARTITION_DIGEST = 5, /**< state digest of one partition as of this group */
    WAL_RECORD_LEDGER_TOTAL = 6,     /**< totals of one ledger as of this group */
    WAL_RECORD_START = 7,            /**< first record of a term */
    WAL_RECORD_PADDING =
        0xff, /**< fills a segment up to its 4 KiB end; length byte 0: to the end */
};

struct wal_record_head {
    uint8_t type;
    uint8_t length; /**< of the whole record, in units of WAL_RECORD_ALIGN */
    uint16_t presence;
    uint32_t extra; /**< by type: see below; zero otherwise */
};

/** Presence bits of WAL_RECORD_TRANSFER and WAL_RECORD_EXPIRY, in field order. */
enum wal_presence {
    WAL_HAS_AMOUNT_HIGH = 1 << 0,   /**< u64: high half of the amount */
    WAL_HAS_USER_DATA_128 = 1 << 1, /**< u128 */
    WAL_HAS_USER_DATA_64 = 1 << 2,  /**< u64 */
    WAL_HAS_USER_DATA_32 = 1 << 3,  /**< u64, zero-extended */
    WAL_HAS_TIMEOUT = 1 << 4,       /**< u64 seconds, zero-extended */
    WAL_HAS_PENDING_ID = 1 << 5,    /**< u128 */
    WAL_HAS_PENDING_AMOUNT =
        1 << 6, /**< u128: amount of the pending transfer that this one resolves */
    WAL_HAS_REQUEST_DIGEST =
        1 << 7, /**< u64: digest of the requested fields, where the record's own differ */
    WAL_HAS_IMPORTED_TIME =
        1
        << 8, /**< u64 ns: the timestamp that the record carries; `timestamp` orders the decision */
    WAL_HAS_PENDING_FLAGS =
        1 << 9, /**< u64: flags of the pending transfer that this one resolves */
};

/** Plain: 80 bytes. `amount` moves from debit to credit; with TRANSFER_PENDING it is reserved;
 *  post: pending_amount is released and amount posted; void: pending_amount is released. */
struct wal_record_transfer {
    struct wal_record_head head;
    uint64_t timestamp; /**< ns, of the decision */
    uint128_t id;
    uint128_t debit_account_id;
    uint128_t credit_account_id;
    uint64_t amount;
    uint32_t ledger;
    uint16_t code;
    uint16_t flags;
};
_Static_assert(sizeof(struct wal_record_transfer) == 80, "a plain transfer takes 80 bytes of log");

/** 80 bytes, no optional fields. imported_timestamp: zero unless imported. */
struct wal_record_account {
    struct wal_record_head head;
    uint64_t timestamp;
    uint128_t id;
    uint128_t user_data_128;
    uint64_t user_data_64;
    uint32_t user_data_32;
    uint32_t ledger;
    uint16_t code;
    uint16_t flags;
    uint32_t reserved;
    uint64_t imported_timestamp;
};
_Static_assert(sizeof(struct wal_record_account) == 80, "an account takes 80 bytes of log");

/** Same layout as a transfer: id is the pending transfer's, amount what is released, flags the pending's. */

/** head.extra: the status that burnt it. */
struct wal_record_burnt_id {
    struct wal_record_head head;
    uint64_t timestamp;
    uint128_t id;
};
_Static_assert(sizeof(struct wal_record_burnt_id) == 32, "a burnt id takes 32 bytes of log");

/** head.extra: the partition. */
struct wal_record_partition_digest {
    struct wal_record_head head;
    uint64_t timestamp;
    uint128_t digest;
    uint64_t account_count;
    uint64_t pending_count;
};
_Static_assert(sizeof(struct wal_record_partition_digest) == 48, "48 bytes");

/** head.extra: the ledger. Sums mod 2^128 over all its accounts. */
struct wal_record_ledger_total {
    struct wal_record_head head;
    uint64_t timestamp;
    struct balances sums;
};
_Static_assert(sizeof(struct wal_record_ledger_total) == 80, "80 bytes");

struct wal_record_start {
    struct wal_record_head head;
    uint64_t timestamp;
    uint64_t term;
    uint64_t reserved;
};
_Static_assert(sizeof(struct wal_record_start) == 32, "32 bytes");

/** A place in the log: group (40 bits), segment within the group = lcore (6 bits), offset in the segment in units of
 *  WAL_RECORD_ALIGN (17 bits: 2 MiB). The group's number wraps after years; a reader takes the newest that fits.
 *  The top bit is the rememberer's: WAL_PLACE_BURNT says that what stands there is a burnt id. */
typedef uint64_t wal_place_t;

#define WAL_PLACE_OFFSET_BITS 17
#define WAL_PLACE_LCORE_BITS 6
#define WAL_PLACE_SEQ_BITS 40
#define WAL_PLACE_BURNT ((wal_place_t)1 << 63)
#define WAL_SEGMENT_BYTES_MAX ((size_t)WAL_RECORD_ALIGN << WAL_PLACE_OFFSET_BITS)

static inline wal_place_t wal_place_make(seq_t seq, unsigned lcore, size_t offset_bytes) {
    uint64_t low = seq & ((1ULL << WAL_PLACE_SEQ_BITS) - 1);
    return (low << (WAL_PLACE_OFFSET_BITS + WAL_PLACE_LCORE_BITS)) |
           ((uint64_t)lcore << WAL_PLACE_OFFSET_BITS) | (offset_bytes / WAL_RECORD_ALIGN);
}

static inline size_t wal_place_offset_bytes(wal_place_t place) {
    return (size_t)(place & ((1u << WAL_PLACE_OFFSET_BITS) - 1)) * WAL_RECORD_ALIGN;
}

static inline unsigned wal_place_lcore(wal_place_t place) {
    return (unsigned)(place >> WAL_PLACE_OFFSET_BITS) & ((1u << WAL_PLACE_LCORE_BITS) - 1);
}

/** The group of a place, given a group at or after it that is less than 2^40 groups later. */
static inline seq_t wal_place_seq(wal_place_t place, seq_t newest) {
    uint64_t mask = (1ULL << WAL_PLACE_SEQ_BITS) - 1;
    uint64_t low = place >> (WAL_PLACE_OFFSET_BITS + WAL_PLACE_LCORE_BITS);
    return newest - ((newest - low) & mask);
}

/** A transfer record with its optional fields taken apart. */
struct wal_transfer_fields {
    struct transfer
        transfer;     /**< as a lookup shows it; timestamp is the imported one where there is one */
    uint64_t decided; /**< ns, the record's own timestamp */
    amount_t pending_amount;
    uint64_t request_digest; /**< zero: absent */
    uint16_t pending_flags;
};

/** Encode a transfer or expiry record.
 *  @param type WAL_RECORD_TRANSFER or WAL_RECORD_EXPIRY
 *  @param out 16-byte aligned, WAL_RECORD_BYTES_MAX bytes of room
 *  @return bytes written, a multiple of WAL_RECORD_ALIGN */
size_t wal_record_transfer_encode(uint8_t type, const struct wal_transfer_fields *fields,
                                  void *out);

/** Decode one. Bounds and presence bits are checked, for the bytes may come from a damaged disk.
 *  @param length bytes that may be read
 *  @return 0, or -EBADMSG when it is not a whole, well-formed transfer or expiry record */
int wal_record_transfer_decode(const void *record, size_t length,
                               struct wal_transfer_fields *fields);

/** Length in bytes of the record at `record`, checked against `length` readable bytes and the type's own size.
 *  Padding answers `length`.
 *  @return the length, or 0 when it is malformed */
size_t wal_record_length(const void *record, size_t length);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_TYPES_H
#define TALLY_ENGINE_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The data model: records as they stand in memory, on the wire and in answers. All little-endian.
 *  Field names, sizes, flag bits and order follow design section 2. */

__extension__ typedef unsigned __int128 uint128_t;

typedef uint128_t amount_t; /**< money, in the ledger's smallest unit */
typedef uint64_t seq_t;     /**< number of a group: 1, 2, 3 ... without a gap; 0 is "none" */
typedef uint64_t term_t;    /**< leadership period */

#define UINT128_MAX (~(uint128_t)0)
#define AMOUNT_MAX UINT128_MAX
#define TIMESTAMP_MAX ((uint64_t)INT64_MAX) /**< ns; the top bit is never used */
#define NS_PER_SECOND ((uint64_t)1000000000)
#define NS_PER_MS ((uint64_t)1000000)

#define PARTITIONS_DEFAULT 256
#define PARTITIONS_MAX 1024
#define LCORES_MAX 64 /**< engine lcores of a node: six low bits of a timestamp at most */
#define CACHE_LINE_BYTES 64

/** Events in one request, whatever carries it. A linked chain never leaves its request. */
#define REQUEST_EVENTS_MAX 8190

enum account_flag {
    ACCOUNT_LINKED = 1 << 0,
    ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS = 1 << 1,
    ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS = 1 << 2,
    ACCOUNT_HISTORY = 1 << 3,
    ACCOUNT_IMPORTED = 1 << 4,
    ACCOUNT_CLOSED = 1 << 5,
    ACCOUNT_STRIPED = 1 << 6, /**< reserved until striped accounts exist */
    ACCOUNT_FLAGS_KNOWN = 0x3f,
};

enum transfer_flag {
    TRANSFER_LINKED = 1 << 0,
    TRANSFER_PENDING = 1 << 1,
    TRANSFER_POST_PENDING = 1 << 2,
    TRANSFER_VOID_PENDING = 1 << 3,
    TRANSFER_BALANCING_DEBIT = 1 << 4,
    TRANSFER_BALANCING_CREDIT = 1 << 5,
    TRANSFER_CLOSING_DEBIT = 1 << 6,
    TRANSFER_CLOSING_CREDIT = 1 << 7,
    TRANSFER_IMPORTED = 1 << 8,
    TRANSFER_FLAGS_KNOWN = 0x1ff,
};

/** 128 bytes, 16-byte aligned. */
struct account {
    uint128_t id;
    amount_t debits_pending;
    amount_t debits_posted;
    amount_t credits_pending;
    amount_t credits_posted;
    uint128_t user_data_128;
    uint64_t user_data_64;
    uint32_t user_data_32;
    uint32_t
        reserved; /**< zero outside the engine (in its tables: the low half of the last group that changed it) */
    uint32_t ledger;
    uint16_t code;
    uint16_t flags;
    uint64_t timestamp;
};

/** 128 bytes, 16-byte aligned. `timeout` in seconds. */
struct transfer {
    uint128_t id;
    uint128_t debit_account_id;
    uint128_t credit_account_id;
    amount_t amount;
    uint128_t pending_id;
    uint128_t user_data_128;
    uint64_t user_data_64;
    uint32_t user_data_32;
    uint32_t timeout;
    uint32_t ledger;
    uint16_t code;
    uint16_t flags;
    uint64_t timestamp;
};

/** A plain transfer on the wire: what it leaves out is zero. 64 bytes, no alignment beyond 8. */
struct compact_transfer {
    uint64_t id[2]; /**< low half first, like every 128-bit integer here */
    uint64_t debit_account_id[2];
    uint64_t credit_account_id[2];
    uint64_t amount;
    uint32_t ledger;
    uint16_t code;
    uint16_t flags;
};

/** Outcome of one event or one id asked for. 16 bytes. */
struct result {
    uint64_t
        timestamp;   /**< ns; `exists` carries the first one, a failure the time of its decision */
    uint32_t status; /**< enum transfer_status, account_status or lookup_status */
    uint32_t reserved; /**< zero */
};

/** An account's four balances, as the answer to "balances wanted". 64 bytes. */
struct balances {
    amount_t debits_pending;
    amount_t debits_posted;
    amount_t credits_pending;
    amount_t credits_posted;
};

_Static_assert(sizeof(struct account) == 128, "account is 128 bytes");
_Static_assert(sizeof(struct transfer) == 128, "transfer is 128 bytes");
_Static_assert(sizeof(struct compact_transfer) == 64, "compact transfer is 64 bytes");
_Static_assert(sizeof(struct result) == 16, "result is 16 bytes");
_Static_assert(sizeof(struct balances) == 64, "balances are 64 bytes");
_Static_assert(offsetof(struct account, timestamp) == 120, "no padding inside");
_Static_assert(offsetof(struct transfer, timestamp) == 120, "no padding inside");

enum operation {
    OPERATION_CREATE_ACCOUNTS = 1,
    OPERATION_CREATE_TRANSFERS = 2,
    OPERATION_LOOKUP_ACCOUNTS = 3,
    OPERATION_LOOKUP_TRANSFERS = 4,
};

enum event_format {
    EVENT_FORMAT_FULL = 0,    /**< 128-byte records; 16-byte ids for lookups */
    EVENT_FORMAT_COMPACT = 1, /**< 64-byte compact transfers, create_transfers only */
};

/** Id time: the high 48 bits of a transfer id are Unix milliseconds. */
static inline uint64_t id_time_ms(uint128_t id) {
    return (uint64_t)(id >> 80);
}

static inline uint128_t uint128_make(uint64_t high, uint64_t low) {
    return ((uint128_t)high << 64) | low;
}

#endif

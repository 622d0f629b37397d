/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_PARTITION_H
#define TALLY_ENGINE_PARTITION_H

#include "engine/account_table.h"
#include "engine/id_table.h"
#include "engine/pending_table.h"
#include "engine/transfer_decide.h"

/** One shard of the ledger: everything whose account id or transfer id hashes here. One lcore owns it, nobody else touches it.
 *  The state digest is linear, so that it can be kept by adding what changes: for each account a hash of its fixed fields plus
 *  key(id) x balances, for each live pending transfer a hash of its record; all mod 2^128 (design section 5.9). Keeps: INV-6. */

struct partition {
    _Alignas(CACHE_LINE_BYTES) uint128_t
        digest; /**< in one line with the head of the accounts' index: what every event needs */
    bool digest_dirty; /**< changed since it was last logged */
    uint8_t owner;     /**< lcore */
    struct account_table accounts;
    struct id_table ids;
    struct pending_table pendings;
    uint32_t out;      /**< records that are checked out by travellers */
    uint32_t ids_kept; /**< room that is kept for what travellers may make here */
    uint32_t pendings_kept, accounts_kept;
};

/* Odd multipliers, one a field, so that no two fields can trade places. */
#define DIGEST_DEBITS_PENDING uint128_make(0x8f2c5a1bd3e94f67u, 0x4d1f6b82c97a3e05u)
#define DIGEST_DEBITS_POSTED uint128_make(0xc3a7e90f51b846d3u, 0x97e5310c6fb2d849u)
#define DIGEST_CREDITS_PENDING uint128_make(0x5be14c79a8d0326fu, 0xe20b97f4318c5da7u)
#define DIGEST_CREDITS_POSTED uint128_make(0xa96d30f28c57eb1du, 0x3b84c6e05f19a7d1u)
#define DIGEST_CLOSED uint128_make(0x71f8d24be609c35bu, 0xc85a1e97d4036fb3u)

/** @param hash hash_id() of the account */
static inline void partition_digest_delta(struct partition *partition, uint64_t hash,
                                          const struct account_delta *delta) {
    uint128_t sum = DIGEST_DEBITS_PENDING * delta->debits_pending +
                    DIGEST_DEBITS_POSTED * delta->debits_posted +
                    DIGEST_CREDITS_PENDING * delta->credits_pending +
                    DIGEST_CREDITS_POSTED * delta->credits_posted;
    if (unlikely(delta->closed))
        sum += delta->closed > 0 ? DIGEST_CLOSED : -DIGEST_CLOSED;
    partition->digest += sum * (hash | 1);
    partition->digest_dirty = true;
}

/** The same for one plain transfer's side. */
static inline void partition_digest_posted(struct partition *partition, uint64_t hash,
                                           uint128_t field, amount_t amount) {
    partition->digest += field * ((uint128_t)(hash | 1) * amount);
    partition->digest_dirty = true;
}

/** Hash of an account's fixed fields. */
uint128_t partition_account_hash(const struct account *account, uint64_t seed);
/** Hash of a pending transfer's record. */
uint128_t partition_pending_hash(const struct transfer *pending, uint64_t seed);
/** The digest, computed from the tables. Visits everything. */
uint128_t partition_digest_recompute(const struct partition *partition, uint64_t hash_seed,
                                     uint64_t digest_seed);
void partition_release(struct partition *partition, struct memory *memory);

#endif

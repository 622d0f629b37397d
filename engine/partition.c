/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/partition.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/** Of the record with its balances and what is the engine's own zero. Word by word, for a read of what was just written in parts would
 *  have to wait for it. */
uint128_t partition_account_hash(const struct account *account, uint64_t seed) {
    _Static_assert(sizeof(struct account) == 16 * sizeof(uint64_t) &&
                       offsetof(struct account, user_data_128) == 80 &&
                       offsetof(struct account, ledger) == 112,
                   "as the words below have it");
    const uint16_t flags = account->flags & ACCOUNT_FLAGS_KNOWN & ~ACCOUNT_CLOSED;
    const uint64_t words[16] = {
        (uint64_t)account->id,
        (uint64_t)(account->id >> 64),
        [10] = (uint64_t)account->user_data_128,
        (uint64_t)(account->user_data_128 >> 64),
        account->user_data_64,
        account->user_data_32,
        (uint64_t)flags << 48 | (uint64_t)account->code << 32 | account->ledger,
        account->timestamp,
    };
    XXH128_hash_t hash = XXH3_128bits_withSeed(words, sizeof(words), seed);
    return uint128_make(hash.high64, hash.low64);
}

uint128_t partition_pending_hash(const struct transfer *pending, uint64_t seed) {
    XXH128_hash_t hash = XXH3_128bits_withSeed(pending, sizeof(*pending), seed);
    return uint128_make(hash.high64, hash.low64);
}

uint128_t partition_digest_recompute(const struct partition *partition, uint64_t hash_seed,
                                     uint64_t digest_seed) {
    struct partition sum = {0};
    for (uint32_t slot = 0; slot < partition->accounts.slab.count; slot++) {
        const struct account *account = account_at(&partition->accounts, slot);
        struct account_delta delta = {account->debits_pending, account->debits_posted,
                                      account->credits_pending, account->credits_posted,
                                      !!(account->flags & ACCOUNT_CLOSED)};
        sum.digest += partition_account_hash(account, digest_seed);
        partition_digest_delta(&sum, hash_id(account->id, hash_seed), &delta);
    }
    for (uint32_t slot = 0; slot < partition->pendings.slab.count; slot++) {
        const struct pending *pending = pending_at(&partition->pendings, slot);
        if (pending->state == PENDING_LIVE)
            sum.digest += partition_pending_hash(&pending->transfer, digest_seed);
    }
    return sum.digest;
}

void partition_release(struct partition *partition, struct memory *memory) {
    index_release(&partition->accounts.index, memory);
    slab_release(&partition->accounts.slab, memory);
    id_release(&partition->ids, memory);
    pending_release(&partition->pendings, memory);
}

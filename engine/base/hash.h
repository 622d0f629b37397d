/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_HASH_H
#define TALLY_ENGINE_BASE_HASH_H

#include "engine/base/types.h"

/** Hashes that are part of a format (written out in net/PROTOCOL.md) or of a table. */

/** 64-bit finalizer: a bijection in which every input bit reaches every output bit. */
static inline uint64_t hash_mix64(uint64_t x) {
    x ^= x >> 32;
    x *= 0xe9846af9b1a615d1u;
    x ^= x >> 32;
    x *= 0xe9846af9b1a615d1u;
    x ^= x >> 28;
    return x;
}

/** Hash of a 128-bit id; clients compute it too, to find an account's partition. */
static inline uint64_t hash_id(uint128_t id, uint64_t seed) {
    return hash_mix64((uint64_t)id ^ hash_mix64((uint64_t)(id >> 64) ^ seed));
}

/** Both halves of a 64 by 64 bit product, folded: with a secret in each factor, a hash of both. */
static inline uint64_t hash_fold(uint64_t a, uint64_t b) {
    uint128_t product = (uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/** Hash of a transfer id, for the tables of one node only.
 *  @param secret that clients never learn, or they could choose ids that collide */
static inline uint64_t hash_transfer_id(uint128_t id, uint64_t secret) {
    return hash_fold((uint64_t)id ^ secret ^ 0x9e3779b97f4a7c15u,
                     (uint64_t)(id >> 64) ^ secret << 32 ^ secret >> 32 ^ 0xd1b54a32d192ed03u);
}

/** Partition of an account: the hash's low 32 bits modulo the number of partitions. (Tables use the high bits.) */
static inline unsigned hash_partition(uint64_t hash, unsigned partitions) {
    return (unsigned)((uint32_t)hash % partitions);
}

/** For hash_partition without a division (Lemire, Kaser and Kurz 2019). */
static inline uint64_t hash_partition_magic(unsigned partitions) {
    return UINT64_MAX / partitions + 1;
}
/** hash_partition(hash, partitions); only multiplications that a vector has too.
 *  @param partitions below 2^31 */
static inline unsigned hash_partition_by(uint64_t hash, unsigned partitions, uint64_t magic) {
    uint64_t fraction = magic * (uint32_t)hash;
    uint64_t high = (fraction >> 32) * partitions;
    uint64_t low = (uint64_t)(uint32_t)fraction * partitions >> 32;
    return (unsigned)((high + low) >> 32);
}

#endif

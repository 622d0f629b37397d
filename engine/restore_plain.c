/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/restore_internal.h"

/** Plain transfers, a burst at a time, so that their cache misses overlap (as engine/prepare.c does it for requests): the first pass computes
 *  hashes and finds out what concerns this worker, the second fetches index lines, the third finds the accounts and fetches those, the
 *  last applies. A transfer is two sides and an id, and each of the three may be another worker's. */

#define BURST 64

/** An account that a transfer of the burst changes. */
struct side {
    struct partition *partition;
    const struct index_line *line;
    struct account *account; /**< as the tag says; NULL: none */
    uint64_t hash;
    uint8_t number; /**< of the transfer, times two; plus one: its credit side */
};

/** An id of the burst to be remembered. */
struct id {
    struct id_table *ids;
    struct id_hint hint;
    uint8_t number;
};

struct restore_burst {
    unsigned count, sides_count, ids_count;
    uint64_t hash_seed, digest_seed, magic;
    unsigned partitions;
    bool alone; /**< all partitions are this worker's */
    struct transfer_digest_keys keys;
    const struct wal_record_transfer *records[BURST];
    wal_place_t places[BURST];
    /* of account ids, in arrays: hashing them is a loop of nothing but arithmetic, which a compiler makes vectors of */
    uint64_t low[2 * BURST], high[2 * BURST];
    uint64_t hash[2 * BURST], partition[2 * BURST];
    struct side sides[2 * BURST];
    struct id ids[BURST];
};

int restore_plain_open(struct restore_worker *worker) {
    const struct engine *engine = worker->restore->engine;
    struct restore_burst *burst = calloc(1, sizeof(*burst));
    if (!burst)
        return -ENOMEM;
    burst->hash_seed = engine->config.hash_seed;
    burst->digest_seed = engine->config.digest_seed;
    burst->partitions = engine->config.partitions;
    burst->magic = hash_partition_magic(burst->partitions);
    burst->alone = worker->restore->workers == 1;
    burst->keys = engine->lcores[0].digest_keys;
    worker->burst = burst;
    return 0;
}

int restore_plain_add(struct restore_worker *worker, const struct wal_record_transfer *record,
                      wal_place_t place) {
    struct restore_burst *burst = worker->burst;
    unsigned number = burst->count++;
    burst->records[number] = record;
    burst->places[number] = place;
    return likely(burst->count < BURST) ? 0 : restore_plain_flush(worker);
}

/* --- first pass ------------------------------------------------------------------------------------------------------------ */

static void hash_accounts(struct restore_burst *burst) {
    unsigned count = burst->count;
    for (unsigned i = 0; i < count; i++) {
        const struct wal_record_transfer *record = burst->records[i];
        burst->low[2 * i] = (uint64_t)record->debit_account_id;
        burst->high[2 * i] = (uint64_t)(record->debit_account_id >> 64);
        burst->low[2 * i + 1] = (uint64_t)record->credit_account_id;
        burst->high[2 * i + 1] = (uint64_t)(record->credit_account_id >> 64);
    }
    uint64_t seed = burst->hash_seed, magic = burst->magic;
    unsigned partitions = burst->partitions;
    for (unsigned i = 0; i < 2 * count; i++) {
        burst->hash[i] = hash_mix64(burst->low[i] ^ hash_mix64(burst->high[i] ^ seed));
        burst->partition[i] = hash_partition_by(burst->hash[i], partitions, magic);
    }
}

static inline void take_side(struct restore_burst *burst, struct partition *partitions,
                             unsigned i) {
    struct partition *partition = &partitions[burst->partition[i]];
    struct side *side = &burst->sides[burst->sides_count++];
    side->partition = partition;
    side->hash = burst->hash[i];
    side->number = (uint8_t)i;
    side->account = NULL;
    side->line = likely(partition->accounts.index.buckets)
                     ? index_line_at(&partition->accounts.index, account_tag(side->hash))
                     : NULL;
}

static inline void take_id(struct restore_burst *burst, struct partition *partition, uint128_t id,
                           unsigned i) {
    struct id *taken = &burst->ids[burst->ids_count++];
    taken->ids = &partition->ids;
    taken->number = (uint8_t)i;
    id_look(taken->ids, id, burst->digest_seed, &taken->hint);
}

/** What of the burst is this worker's. */
ALWAYS_INLINE void take(struct restore_worker *worker, struct restore_burst *burst, bool alone) {
    struct partition *partitions = worker->restore->engine->partitions;
    const uint8_t *owner = worker->restore->owner;
    unsigned count = burst->count, index = worker->index;
    burst->sides_count = burst->ids_count = 0;
    for (unsigned i = 0; i < 2 * count; i++) {
        if (alone || owner[burst->partition[i]] == index)
            take_side(burst, partitions, i);
    }
    for (unsigned i = 0; i < count; i++) {
        uint128_t id = burst->records[i]->id;
        unsigned home = hash_partition_by((uint64_t)id & 0xffff, burst->partitions, burst->magic);
        if (alone || owner[home] == index)
            take_id(burst, &partitions[home], id, i);
    }
}

/* --- second and third pass --------------------------------------------------------------------------------------------------- */

/** Nothing but fetches. (Inlined by force: a function that only fetches counts as one without effect.) */
ALWAYS_INLINE void fetch_lines(const struct restore_burst *burst) {
    for (unsigned i = 0; i < burst->sides_count; i++)
        __builtin_prefetch(burst->sides[i].line);
    for (unsigned i = 0; i < burst->ids_count; i++)
        id_fetch(&burst->ids[i].hint);
}

static inline void find_accounts(struct restore_burst *burst) {
    for (unsigned i = 0; i < burst->sides_count; i++) {
        struct side *side = &burst->sides[i];
        if (unlikely(!side->line))
            continue;
        const struct account_table *accounts = &side->partition->accounts;
        uint32_t tag = account_tag(side->hash);
        struct index_cursor cursor = {side->line, index_line_matches(side->line, tag)};
        uint32_t slot = index_next(&accounts->index, &cursor, tag);
        if (likely(slot != INDEX_NONE))
            side->account = account_at(accounts, slot);
    }
}

ALWAYS_INLINE void fetch_accounts(const struct restore_burst *burst) {
    for (unsigned i = 0; i < burst->sides_count; i++) {
        const struct side *side = &burst->sides[i];
        /* A number, for there may be none: then nothing is fetched, and nothing is wrong. Credits stand in the second line. */
        uintptr_t account = (uintptr_t)side->account;
        __builtin_prefetch((const void *)account, 1);
        __builtin_prefetch((const void *)(account + (side->number & 1) * CACHE_LINE_BYTES), 1);
    }
}
_Static_assert(offsetof(struct account, debits_posted) < CACHE_LINE_BYTES &&
                   offsetof(struct account, credits_posted) >= CACHE_LINE_BYTES,
               "a debit changes the first line of an account, a credit the second");

/* --- last pass --------------------------------------------------------------------------------------------------------------- */

static int full(struct restore_worker *worker) {
    return restore_fail(worker, -ENOMEM, "%s", restore_full);
}

static inline int apply_side(struct restore_worker *worker, struct restore_burst *burst,
                             const struct side *side) {
    const struct wal_record_transfer *record = burst->records[side->number >> 1];
    unsigned number = (unsigned)burst->partition[side->number];
    uint128_t id = uint128_make(burst->high[side->number], burst->low[side->number]);
    struct account *account = side->account;
    if (unlikely(!account || account->id != id)) {
        account = restore_account_known(worker, number, id, side->hash);
        if (!account)
            return worker->rc;
    }
    struct balances *sums = restore_ledger(worker, number, record->ledger);
    if (unlikely(!sums))
        return full(worker);
    if (side->number & 1) {
        account->credits_posted += record->amount;
        sums->credits_posted += record->amount;
        partition_digest_posted(side->partition, side->hash, DIGEST_CREDITS_POSTED, record->amount);
    } else {
        account->debits_posted += record->amount;
        sums->debits_posted += record->amount;
        partition_digest_posted(side->partition, side->hash, DIGEST_DEBITS_POSTED, record->amount);
    }
    return 0;
}

/** The hint did not do: the id may have been used before, or there may be no room. */
static __attribute__((noinline)) int apply_id_slow(struct restore_worker *worker,
                                                   const struct restore_burst *burst,
                                                   const struct id *id, uint64_t digest) {
    const struct wal_record_transfer *record = burst->records[id->number];
    unsigned home =
        hash_partition_by((uint64_t)record->id & 0xffff, burst->partitions, burst->magic);
    worker->group.record = burst->places[id->number];
    if (id_find(id->ids, record->id, id->hint.hash))
        return restore_fail(worker, -EBADMSG,
                            "group %llu creates a transfer whose id was used before",
                            (unsigned long long)worker->group.seq);
    if (id_reserve(id->ids, restore_memory(worker, home), record->id, 1))
        return full(worker);
    id_insert(id->ids, record->id, id->hint.hash, record->timestamp, digest,
              burst->places[id->number]);
    return 0;
}

static inline int apply_id(struct restore_worker *worker, struct restore_burst *burst,
                           const struct id *id) {
    const struct wal_record_transfer *record = burst->records[id->number];
    uint64_t words = (uint64_t)record->ledger << 32 | (uint64_t)record->code << 16 | record->flags;
    uint64_t digest =
        transfer_digest_plain(burst->hash[2 * id->number], burst->hash[2 * id->number + 1],
                              record->amount, words, &burst->keys);
    const uint64_t halves[2] = {(uint64_t)record->id, (uint64_t)(record->id >> 64)};
    /* An earlier id of the burst may have let go of the slice, where time jumped. */
    if (likely(id_slice_of(id->ids, record->id) == id->hint.slice) &&
        likely(id_add(&id->hint, halves, record->timestamp, digest, burst->places[id->number])))
        return 0;
    return apply_id_slow(worker, burst, id, digest);
}

int restore_plain_flush(struct restore_worker *worker) {
    struct restore_burst *burst = worker->burst;
    if (!burst->count)
        return 0;
    hash_accounts(burst);
    if (burst->alone)
        take(worker, burst, true);
    else
        take(worker, burst, false);
    fetch_lines(burst);
    find_accounts(burst);
    fetch_accounts(burst);
    int rc = 0;
    for (unsigned i = 0; i < burst->ids_count && !rc; i++)
        rc = apply_id(worker, burst, &burst->ids[i]);
    for (unsigned i = 0; i < burst->sides_count && !rc; i++)
        rc = apply_side(worker, burst, &burst->sides[i]);
    for (unsigned i = 0; i < burst->count; i++)
        restore_transfer_note(worker, burst->records[i]->timestamp);
    burst->count = 0;
    return rc;
}

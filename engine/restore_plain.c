/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/restore_internal.h"

/** Plain transfers, a burst at a time, so that their cache misses overlap with each other and with the work on the burst before: while one
 *  burst's index lines are on their way, the one before is applied; while its accounts are, the next one is looked at.
 *  A transfer is two sides and an id, and each of the three may be another worker's.
 *
 *  Digests are linear: what all plain transfers did to the two fields that they change is summed up per partition, and multiplied by the
 *  fields' own factors only when somebody wants to see the digest. */

#define BURST 64

struct burst {
    unsigned count;
    unsigned sides_count, ids_count; /**< of this worker */
    bool mixed;                      /**< they are not all of one ledger */
    uint8_t sides[2 * BURST]; /**< numbers of transfers, times two; plus one: the credit side */
    uint8_t ids[BURST];
    const struct wal_record_transfer *records[BURST];
    wal_place_t places[BURST];
    /* of accounts, in arrays: hashing their ids is a loop of nothing but arithmetic, which a compiler makes vectors of */
    uint64_t low[2 * BURST], high[2 * BURST];
    uint64_t hash[2 * BURST], partition[2 * BURST];
    const struct index_line *line[2 * BURST]; /**< NULL: no account there yet */
    struct account *account[2 * BURST];       /**< as the tag says; NULL: none */
    struct id_hint hints[BURST];
    struct id_table *tables[BURST];
};

/** What moved in one partition: the sum of (hash | 1) x amount. */
struct moved {
    uint128_t debits, credits;
};

struct restore_burst {
    struct burst bursts[2];
    struct burst *filling, *waiting; /**< waiting: its accounts are on their way; may be empty */
    uint64_t hash_seed, digest_seed, magic;
    unsigned partitions;
    bool alone;      /**< all partitions are this worker's */
    bool one_lcore;  /**< all ledgers are one lcore's */
    bool moved_some; /**< since the last restore_plain_settle */
    bool
        stale; /**< a slice of ids was let go of since they were looked up, where time jumped: no hint is good */
    struct transfer_digest_keys keys;
    struct moved moved[]; /**< by partition */
};

int restore_plain_open(struct restore_worker *worker) {
    const struct engine *engine = worker->restore->engine;
    size_t bytes = sizeof(struct restore_burst) + engine->config.partitions * sizeof(struct moved);
    struct restore_burst *burst =
        aligned_alloc(CACHE_LINE_BYTES, (bytes + CACHE_LINE_BYTES - 1) & -CACHE_LINE_BYTES);
    if (!burst)
        return -ENOMEM;
    memset(burst, 0, bytes);
    burst->filling = &burst->bursts[0];
    burst->waiting = &burst->bursts[1];
    burst->hash_seed = engine->config.hash_seed;
    burst->digest_seed = engine->config.digest_seed;
    burst->partitions = engine->config.partitions;
    burst->magic = hash_partition_magic(burst->partitions);
    burst->alone = worker->restore->workers == 1;
    burst->one_lcore = engine->config.lcores == 1;
    burst->keys = engine->lcores[0].digest_keys;
    worker->burst = burst;
    return 0;
}

void restore_plain_settle(struct restore_worker *worker) {
    struct restore_burst *all = worker->burst;
    if (!all->moved_some)
        return;
    all->moved_some = false;
    for (unsigned p = 0; p < all->partitions; p++) {
        struct moved *moved = &all->moved[p];
        if (!(moved->debits | moved->credits))
            continue;
        struct partition *partition = &worker->restore->engine->partitions[p];
        partition->digest +=
            DIGEST_DEBITS_POSTED * moved->debits + DIGEST_CREDITS_POSTED * moved->credits;
        partition->digest_dirty = true;
        *moved = (struct moved){0};
    }
}

/* --- first: whose, and where ------------------------------------------------------------------------------------------------- */

static void hash_accounts(const struct restore_burst *all, struct burst *burst) {
    unsigned count = burst->count;
    uint32_t ledger = burst->records[0]->ledger, other = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct wal_record_transfer *record = burst->records[i];
        burst->low[2 * i] = (uint64_t)record->debit_account_id;
        burst->high[2 * i] = (uint64_t)(record->debit_account_id >> 64);
        burst->low[2 * i + 1] = (uint64_t)record->credit_account_id;
        burst->high[2 * i + 1] = (uint64_t)(record->credit_account_id >> 64);
        other |= record->ledger ^ ledger;
    }
    burst->mixed = other != 0;
    uint64_t seed = all->hash_seed, magic = all->magic;
    unsigned partitions = all->partitions;
    for (unsigned i = 0; i < 2 * count; i++) {
        burst->hash[i] = hash_mix64(burst->low[i] ^ hash_mix64(burst->high[i] ^ seed));
        burst->partition[i] = hash_partition_by(burst->hash[i], partitions, magic);
    }
}

/** What of the burst is this worker's. */
ALWAYS_INLINE void take(const struct restore_worker *worker, struct burst *burst, bool alone) {
    const struct restore_burst *all = worker->burst;
    const uint8_t *owner = worker->restore->owner;
    unsigned count = burst->count, index = worker->index, sides = 0, ids = 0;
    if (alone) { /* `sides` and `ids` always count from 0 */
        burst->sides_count = 2 * count;
        burst->ids_count = count;
        return;
    }
    for (unsigned i = 0; i < 2 * count; i++) {
        burst->sides[sides] = (uint8_t)i;
        sides += owner[burst->partition[i]] == index;
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned home = hash_partition_by((uint64_t)burst->records[i]->id & 0xffff, all->partitions,
                                          all->magic);
        burst->ids[ids] = (uint8_t)i;
        ids += owner[home] == index;
    }
    burst->sides_count = sides;
    burst->ids_count = ids;
}

ALWAYS_INLINE void look_side(struct burst *burst, const struct partition *partitions, unsigned i) {
    const struct index *index = &partitions[burst->partition[i]].accounts.index;
    const struct index_line *line =
        likely(index->buckets) ? index_line_at(index, account_tag(burst->hash[i])) : NULL;
    burst->line[i] = line;
    __builtin_prefetch(line);
}

ALWAYS_INLINE void look_id(const struct restore_burst *all, struct burst *burst,
                           struct partition *partitions, unsigned i) {
    uint128_t id = burst->records[i]->id;
    unsigned home = hash_partition_by((uint64_t)id & 0xffff, all->partitions, all->magic);
    burst->tables[i] = &partitions[home].ids;
    id_look(burst->tables[i], id, all->digest_seed, &burst->hints[i]);
    id_fetch(&burst->hints[i]);
}

/** Where accounts and ids are indexed; fetches that. */
ALWAYS_INLINE void look(struct restore_worker *worker, struct burst *burst, bool alone) {
    const struct restore_burst *all = worker->burst;
    struct partition *partitions = worker->restore->engine->partitions;
    for (unsigned i = 0; i < burst->sides_count; i++)
        look_side(burst, partitions, alone ? i : burst->sides[i]);
    for (unsigned i = 0; i < burst->ids_count; i++)
        look_id(all, burst, partitions, alone ? i : burst->ids[i]);
}

/* --- second: the accounts ---------------------------------------------------------------------------------------------------- */

ALWAYS_INLINE void find_side(struct burst *burst, const struct partition *partitions, unsigned i) {
    const struct index_line *line = burst->line[i];
    struct account *account = NULL;
    if (likely(line)) {
        const struct account_table *accounts = &partitions[burst->partition[i]].accounts;
        uint32_t tag = account_tag(burst->hash[i]);
        struct index_cursor cursor = {line, index_line_matches(line, tag)};
        uint32_t slot = index_next(&accounts->index, &cursor, tag);
        if (likely(slot != INDEX_NONE))
            account = account_at(accounts, slot);
    }
    burst->account[i] = account;
    /* A number, for there may be none: then nothing is fetched, and nothing is wrong. Credits stand in the second line. */
    uintptr_t at = (uintptr_t)account;
    __builtin_prefetch((const void *)at, 1);
    if (i & 1)
        __builtin_prefetch((const void *)(at + CACHE_LINE_BYTES), 1);
}
_Static_assert(offsetof(struct account, debits_posted) < CACHE_LINE_BYTES &&
                   offsetof(struct account, credits_posted) >= CACHE_LINE_BYTES,
               "a debit changes the first line of an account, a credit the second");

ALWAYS_INLINE void find(struct restore_worker *worker, struct burst *burst, bool alone) {
    const struct partition *partitions = worker->restore->engine->partitions;
    for (unsigned i = 0; i < burst->sides_count; i++)
        find_side(burst, partitions, alone ? i : burst->sides[i]);
}

/* --- third: what happened to them -------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) int full(struct restore_worker *worker) {
    return restore_fail(worker, -ENOMEM, "%s", restore_full);
}

/** The hint did not do: the id may have been used before, or there may be no room. */
static __attribute__((noinline)) int apply_id_slow(struct restore_worker *worker,
                                                   const struct burst *burst, unsigned i,
                                                   uint64_t digest) {
    const struct wal_record_transfer *record = burst->records[i];
    const struct restore_burst *all = worker->burst;
    struct id_table *ids = burst->tables[i];
    unsigned home = hash_partition_by((uint64_t)record->id & 0xffff, all->partitions, all->magic);
    worker->group.record = burst->places[i];
    if (id_find(ids, record->id, burst->hints[i].hash))
        return restore_fail(worker, -EBADMSG,
                            "group %llu creates a transfer whose id was used before",
                            (unsigned long long)worker->group.seq);
    uint64_t forgotten_end = ids->forgotten_end;
    if (id_reserve(ids, restore_memory(worker, home), record->id, 1))
        return full(worker);
    worker->burst->stale |= ids->forgotten_end != forgotten_end;
    id_insert(ids, record->id, burst->hints[i].hash, record->timestamp, digest, burst->places[i]);
    return 0;
}

ALWAYS_INLINE int apply_id(struct restore_worker *worker, const struct burst *burst, unsigned i) {
    const struct wal_record_transfer *record = burst->records[i];
    uint64_t words = (uint64_t)record->ledger << 32 | (uint64_t)record->code << 16 | record->flags;
    uint64_t digest = transfer_digest_plain(burst->hash[2 * i], burst->hash[2 * i + 1],
                                            record->amount, words, &worker->burst->keys);
    const uint64_t halves[2] = {(uint64_t)record->id, (uint64_t)(record->id >> 64)};
    if (likely(!worker->burst->stale &&
               id_add(&burst->hints[i], halves, record->timestamp, digest, burst->places[i])))
        return 0;
    return apply_id_slow(worker, burst, i, digest);
}

ALWAYS_INLINE int apply_side(struct restore_worker *worker, const struct burst *burst, unsigned i) {
    uint128_t id = uint128_make(burst->high[i], burst->low[i]);
    unsigned partition = (unsigned)burst->partition[i];
    uint64_t amount = burst->records[i >> 1]->amount;
    struct account *account = burst->account[i];
    if (unlikely(!account || account->id != id)) {
        account = restore_account_known(worker, partition, id, burst->hash[i]);
        if (!account)
            return worker->rc;
    }
    struct moved *moved = &worker->burst->moved[partition];
    uint128_t weight = (uint128_t)(burst->hash[i] | 1) * amount;
    if (i & 1) {
        account->credits_posted += amount;
        moved->credits += weight;
    } else {
        account->debits_posted += amount;
        moved->debits += weight;
    }
    return 0;
}

/** All of one ledger, and of one lcore. */
static int totals_of_one(struct restore_worker *worker, const struct burst *burst) {
    struct balances *sums = restore_ledger(worker, 0, burst->records[0]->ledger);
    uint128_t moved[2] = {0, 0};
    if (!sums)
        return full(worker);
    if (worker->burst->alone) {
        for (unsigned i = 0; i < burst->count; i++)
            moved[0] += burst->records[i]->amount;
        moved[1] = moved[0];
    } else {
        for (unsigned i = 0; i < burst->sides_count; i++)
            moved[burst->sides[i] & 1] += burst->records[burst->sides[i] >> 1]->amount;
    }
    sums->debits_posted += moved[0];
    sums->credits_posted += moved[1];
    return 0;
}

static int totals_of_many(struct restore_worker *worker, const struct burst *burst) {
    for (unsigned k = 0; k < burst->sides_count; k++) {
        unsigned i = worker->burst->alone ? k : burst->sides[k];
        const struct wal_record_transfer *record = burst->records[i >> 1];
        struct balances *sums =
            restore_ledger(worker, (unsigned)burst->partition[i], record->ledger);
        if (!sums)
            return full(worker);
        *(i & 1 ? &sums->credits_posted : &sums->debits_posted) += record->amount;
    }
    return 0;
}

ALWAYS_INLINE int apply(struct restore_worker *worker, const struct burst *burst, bool alone) {
    int rc = 0;
    for (unsigned i = 0; i < burst->ids_count && likely(!rc); i++)
        rc = apply_id(worker, burst, alone ? i : burst->ids[i]);
    for (unsigned i = 0; i < burst->sides_count && likely(!rc); i++)
        rc = apply_side(worker, burst, alone ? i : burst->sides[i]);
    for (unsigned i = 0; i < burst->count; i++)
        restore_transfer_note(worker, burst->records[i]->timestamp);
    return rc;
}

/* --- bursts ------------------------------------------------------------------------------------------------------------------ */

/** Look at the burst that was filled, and apply the one before meanwhile. */
ALWAYS_INLINE int advance(struct restore_worker *worker, bool alone) {
    struct restore_burst *all = worker->burst;
    struct burst *filled = all->filling, *waiting = all->waiting;
    int rc = 0;
    if (filled->count) {
        hash_accounts(all, filled);
        take(worker, filled, alone);
        look(worker, filled, alone);
    }
    if (waiting->count) {
        rc = apply(worker, waiting, alone);
        if (!rc)
            rc = waiting->mixed || !all->one_lcore ? totals_of_many(worker, waiting)
                                                   : totals_of_one(worker, waiting);
        all->moved_some = true;
        waiting->count = 0;
    }
    if (filled->count)
        find(worker, filled, alone);
    else
        all->stale = false;
    all->filling = waiting;
    all->waiting = filled;
    return rc;
}

static int advance_any(struct restore_worker *worker) {
    return worker->burst->alone ? advance(worker, true) : advance(worker, false);
}

int restore_plain_add(struct restore_worker *worker, const struct wal_record_transfer *record,
                      wal_place_t place) {
    struct burst *burst = worker->burst->filling;
    if (unlikely(!record->ledger))
        return restore_fail(worker, -EBADMSG, "group %llu holds a transfer that is none",
                            (unsigned long long)worker->group.seq);
    unsigned number = burst->count++;
    burst->records[number] = record;
    burst->places[number] = place;
    return likely(burst->count < BURST) ? 0 : advance_any(worker);
}

int restore_plain_flush(struct restore_worker *worker) {
    int rc = 0;
    while (!rc && (worker->burst->filling->count || worker->burst->waiting->count))
        rc = advance_any(worker);
    return rc;
}

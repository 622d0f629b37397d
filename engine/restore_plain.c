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
    bool mixed; /**< they are not all of one ledger */
    /* what of them is this worker's: transfers whose debit side, credit side, id. Lists of their own, for which side a side is would be
     * as good as random in one. Not used where everything is one worker's. */
    unsigned own_count[3];
    uint8_t own[3][BURST];
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
static void take(const struct restore_worker *worker, struct burst *burst) {
    const struct restore_burst *all = worker->burst;
    const uint8_t *owner = worker->restore->owner;
    unsigned count = burst->count, index = worker->index, debits = 0, credits = 0, ids = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned home = hash_partition_by((uint64_t)burst->records[i]->id & 0xffff, all->partitions,
                                          all->magic);
        burst->own[0][debits] = burst->own[1][credits] = burst->own[2][ids] = (uint8_t)i;
        debits += owner[burst->partition[2 * i]] == index;
        credits += owner[burst->partition[2 * i + 1]] == index;
        ids += owner[home] == index;
    }
    burst->own_count[0] = debits;
    burst->own_count[1] = credits;
    burst->own_count[2] = ids;
}

/** The n-th of the transfers whose debit side (0), credit side (1) or id (2) is this worker's. */
ALWAYS_INLINE unsigned own_at(const struct burst *burst, unsigned which, unsigned n, bool alone) {
    return alone ? n : burst->own[which][n];
}

ALWAYS_INLINE unsigned own_count(const struct burst *burst, unsigned which, bool alone) {
    return alone ? burst->count : burst->own_count[which];
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
    for (unsigned side = 0; side < 2; side++) {
        for (unsigned n = 0; n < own_count(burst, side, alone); n++)
            look_side(burst, partitions, 2 * own_at(burst, side, n, alone) + side);
    }
    for (unsigned n = 0; n < own_count(burst, 2, alone); n++)
        look_id(all, burst, partitions, own_at(burst, 2, n, alone));
}

/* --- second: the accounts ---------------------------------------------------------------------------------------------------- */

ALWAYS_INLINE void find_side(struct burst *burst, const struct partition *partitions, unsigned i,
                             unsigned side) {
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
    if (side)
        __builtin_prefetch((const void *)(at + CACHE_LINE_BYTES), 1);
}
_Static_assert(offsetof(struct account, debits_posted) < CACHE_LINE_BYTES &&
                   offsetof(struct account, credits_posted) >= CACHE_LINE_BYTES,
               "a debit changes the first line of an account, a credit the second");

ALWAYS_INLINE void find(struct restore_worker *worker, struct burst *burst, bool alone) {
    const struct partition *partitions = worker->restore->engine->partitions;
    for (unsigned n = 0; n < own_count(burst, 0, alone); n++)
        find_side(burst, partitions, 2 * own_at(burst, 0, n, alone), 0);
    for (unsigned n = 0; n < own_count(burst, 1, alone); n++)
        find_side(burst, partitions, 2 * own_at(burst, 1, n, alone) + 1, 1);
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

ALWAYS_INLINE int apply_side(struct restore_worker *worker, const struct burst *burst, unsigned i,
                             unsigned side) {
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
    if (side) {
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
    bool alone = worker->burst->alone;
    if (!sums)
        return full(worker);
    for (unsigned n = 0; n < own_count(burst, 0, alone); n++)
        sums->debits_posted += burst->records[own_at(burst, 0, n, alone)]->amount;
    for (unsigned n = 0; n < own_count(burst, 1, alone); n++)
        sums->credits_posted += burst->records[own_at(burst, 1, n, alone)]->amount;
    return 0;
}

static int totals_of_many(struct restore_worker *worker, const struct burst *burst) {
    bool alone = worker->burst->alone;
    for (unsigned side = 0; side < 2; side++) {
        for (unsigned n = 0; n < own_count(burst, side, alone); n++) {
            unsigned i = own_at(burst, side, n, alone);
            const struct wal_record_transfer *record = burst->records[i];
            struct balances *sums =
                restore_ledger(worker, (unsigned)burst->partition[2 * i + side], record->ledger);
            if (!sums)
                return full(worker);
            *(side ? &sums->credits_posted : &sums->debits_posted) += record->amount;
        }
    }
    return 0;
}

ALWAYS_INLINE int apply(struct restore_worker *worker, const struct burst *burst, bool alone) {
    int rc = 0;
    for (unsigned n = 0; n < own_count(burst, 2, alone) && likely(!rc); n++)
        rc = apply_id(worker, burst, own_at(burst, 2, n, alone));
    for (unsigned n = 0; n < own_count(burst, 0, alone) && likely(!rc); n++)
        rc = apply_side(worker, burst, 2 * own_at(burst, 0, n, alone), 0);
    for (unsigned n = 0; n < own_count(burst, 1, alone) && likely(!rc); n++)
        rc = apply_side(worker, burst, 2 * own_at(burst, 1, n, alone) + 1, 1);
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
        if (!alone)
            take(worker, filled);
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

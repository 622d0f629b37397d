/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/engine_internal.h"

/** Two passes over a burst before anything is executed, so that its cache misses overlap: the first computes hashes and fetches index
 *  lines, the second finds the accounts in them and fetches those. Nothing is decided here, and what is found is only a hint: execution
 *  looks again where it does not fit. */

/** Account ids of a burst, in arrays: hashing them is a loop of nothing but arithmetic, which a compiler makes vectors of. */
struct account_ids {
    uint64_t low[2 * PREPARE_EVENTS_MAX], high[2 * PREPARE_EVENTS_MAX];
    uint64_t hash[2 * PREPARE_EVENTS_MAX];
    uint64_t partition[2 * PREPARE_EVENTS_MAX];
};

static void account_ids_hash(const struct engine_lcore *lcore, struct account_ids *ids,
                             unsigned count) {
    uint64_t seed = lcore->hash_seed, magic = lcore->partition_magic;
    unsigned partitions = lcore->partition_count;
    for (unsigned i = 0; i < count; i++) {
        ids->hash[i] = hash_mix64(ids->low[i] ^ hash_mix64(ids->high[i] ^ seed));
        ids->partition[i] = hash_partition_by(ids->hash[i], partitions, magic);
    }
}

/** Another lcore may be changing its tables: nothing is looked up in them. */
static inline bool is_own(const struct engine_lcore *lcore, const struct partition *partition) {
    return likely(!lcore->travel) || partition->owner == lcore->index;
}

static inline void prepare_account(struct engine_lcore *lcore, struct prepared *prepared,
                                   unsigned which, uint64_t hash, uint64_t number) {
    struct partition *partition = &lcore->partitions[number];
    prepared->hash[which] = hash;
    prepared->partition[which] = partition;
    prepared->account[which] = NULL;
    prepared->line[which] = NULL;
    if (likely(partition->accounts.index.buckets && is_own(lcore, partition)))
        prepared->line[which] = index_line_at(&partition->accounts.index, account_tag(hash));
}

static inline void prepare_id(struct engine_lcore *lcore, struct prepared *prepared, uint64_t low,
                              uint64_t high) {
    uint128_t id = uint128_make(high, low);
    prepared->home = partition_of_transfer(lcore, id);
    if (likely(is_own(lcore, prepared->home)))
        id_look(&prepared->home->ids, id, lcore->digest_seed, &prepared->id);
    else
        prepared->id = (struct id_hint){.hash = hash_transfer_id(id, lcore->digest_seed)};
}

/** Nothing but fetches, so that as many as possible are on their way at a time: one whose page has to be looked up first holds up
 *  whatever is computed behind it. (Inlined by force: a function that only fetches counts as one without effect.) */
ALWAYS_INLINE void fetch_lines(const struct prepared *prepared, unsigned count) {
    for (unsigned i = 0; i < count; i++, prepared++) {
        __builtin_prefetch(prepared->line[0]);
        __builtin_prefetch(prepared->line[1]);
        id_fetch(&prepared->id);
    }
}

ALWAYS_INLINE void fetch_accounts(const struct prepared *prepared, unsigned count) {
    for (unsigned i = 0; i < count; i++, prepared++) {
        for (unsigned which = 0; which < 2; which++) {
            /* A number, for there may be none: then nothing is fetched, and nothing is wrong. */
            uintptr_t account = (uintptr_t)prepared->account[which];
            __builtin_prefetch((const void *)account, 1);
            __builtin_prefetch((const void *)(account + CACHE_LINE_BYTES), 1);
        }
    }
}

static void prepare_compact(struct engine_lcore *lcore, struct prepared *prepared,
                            const struct compact_transfer *event, unsigned count) {
    struct account_ids ids;
    for (unsigned i = 0; i < count; i++) {
        ids.low[2 * i] = event[i].debit_account_id[0];
        ids.high[2 * i] = event[i].debit_account_id[1];
        ids.low[2 * i + 1] = event[i].credit_account_id[0];
        ids.high[2 * i + 1] = event[i].credit_account_id[1];
    }
    account_ids_hash(lcore, &ids, 2 * count);
    for (unsigned i = 0; i < count; i++, prepared++) {
        prepare_account(lcore, prepared, 0, ids.hash[2 * i], ids.partition[2 * i]);
        prepare_account(lcore, prepared, 1, ids.hash[2 * i + 1], ids.partition[2 * i + 1]);
        prepare_id(lcore, prepared, event[i].id[0], event[i].id[1]);
    }
}

static void prepare_full(struct engine_lcore *lcore, struct prepared *prepared,
                         const struct transfer *event, unsigned count) {
    struct account_ids ids;
    for (unsigned i = 0; i < count; i++) {
        ids.low[2 * i] = (uint64_t)event[i].debit_account_id;
        ids.high[2 * i] = (uint64_t)(event[i].debit_account_id >> 64);
        ids.low[2 * i + 1] = (uint64_t)event[i].credit_account_id;
        ids.high[2 * i + 1] = (uint64_t)(event[i].credit_account_id >> 64);
    }
    account_ids_hash(lcore, &ids, 2 * count);
    for (unsigned i = 0; i < count; i++, prepared++) {
        prepare_account(lcore, prepared, 0, ids.hash[2 * i], ids.partition[2 * i]);
        prepare_account(lcore, prepared, 1, ids.hash[2 * i + 1], ids.partition[2 * i + 1]);
        prepare_id(lcore, prepared, (uint64_t)event[i].id, (uint64_t)(event[i].id >> 64));
    }
}

static void prepare_request(struct engine_lcore *lcore, const struct engine_request *request,
                            struct prepared *prepared, unsigned count) {
    uint32_t first = request->next_event;
    if (request->operation == OPERATION_CREATE_TRANSFERS) {
        if (request->event_format == EVENT_FORMAT_COMPACT)
            prepare_compact(lcore, prepared,
                            (const struct compact_transfer *)request->events + first, count);
        else
            prepare_full(lcore, prepared, (const struct transfer *)request->events + first, count);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        uint128_t id = request->operation == OPERATION_CREATE_ACCOUNTS
                           ? ((const struct account *)request->events)[first + i].id
                           : ((const uint128_t *)request->events)[first + i];
        if (request->operation == OPERATION_LOOKUP_TRANSFERS) {
            prepare_id(lcore, &prepared[i], (uint64_t)id, (uint64_t)(id >> 64));
            continue;
        }
        uint64_t hash = hash_id(id, lcore->hash_seed);
        prepare_account(lcore, &prepared[i], 0, hash,
                        hash_partition_by(hash, lcore->partition_count, lcore->partition_magic));
    }
}

static inline void find_account(struct prepared *prepared, unsigned which) {
    const struct index_line *line = prepared->line[which];
    if (unlikely(!line))
        return;
    const struct account_table *accounts = &prepared->partition[which]->accounts;
    uint32_t tag = account_tag(prepared->hash[which]);
    struct index_cursor cursor = {line, index_line_matches(line, tag)};
    uint32_t slot = index_next(&accounts->index, &cursor, tag);
    if (unlikely(slot == INDEX_NONE))
        return;
    struct account *account = account_at(accounts, slot);
    prepared->account[which] = account;
}

unsigned prepare_burst(struct engine_lcore *lcore) {
    unsigned count = 0;
    for (const struct engine_request *request = lcore->queue.head;
         request && count < PREPARE_EVENTS_MAX; request = request->next) {
        unsigned left = request->event_count - request->next_event;
        left = left < PREPARE_EVENTS_MAX - count ? left : PREPARE_EVENTS_MAX - count;
        prepare_request(lcore, request, &lcore->prepared[count], left);
        count += left;
    }
    fetch_lines(lcore->prepared, count);
    unsigned done = 0;
    for (const struct engine_request *request = lcore->queue.head; done < count;
         request = request->next) {
        unsigned left = request->event_count - request->next_event;
        left = left < count - done ? left : count - done;
        unsigned end = done + left;
        if (request->operation == OPERATION_CREATE_TRANSFERS) {
            for (; done < end; done++) {
                find_account(&lcore->prepared[done], 0);
                find_account(&lcore->prepared[done], 1);
            }
        } else if (request->operation != OPERATION_LOOKUP_TRANSFERS) {
            for (; done < end; done++)
                find_account(&lcore->prepared[done], 0);
        }
        done = end;
    }
    fetch_accounts(lcore->prepared, count);
    return count;
}

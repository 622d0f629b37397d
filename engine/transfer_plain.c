/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/engine_internal.h"

/** The straight way of a plain transfer: no flags, nothing optional, everything at hand, and nothing against it.
 *  transfer_is_plainly_created() says yes only where transfer_decide() would say `created`; in any doubt it says no, and the event goes
 *  the general way. What is installed is the same, in the same order. */

/** The id is in the window, absent, and there is room for it. */
static inline bool id_is_new(struct engine_lcore *lcore, uint128_t id, struct prepared *prepared) {
    struct id_slice *slice = prepared->slice;
    uint64_t ms = id_time_ms(id);
    uint32_t tag = id_tag(prepared->id_hash);
    if (unlikely(id == 0 || id == UINT128_MAX || !slice))
        return false;
    if (unlikely(lcore->id_time &&
                 (ms < lcore->horizon_ms || ms > lcore->cell_time / NS_PER_MS + ID_AHEAD_MAX_MS)))
        return false;
    if (unlikely(!index_has_room(&slice->index, 1) || slice->slab.count == slice->slab.capacity) &&
        id_reserve(&prepared->home->ids, &lcore->memory, id, 1))
        return false;
    /* An earlier event of the burst may have split the bucket. */
    if (unlikely(slice->index.buckets != prepared->id_buckets))
        prepared->id_line = index_line_at(&slice->index, tag);
    if (unlikely(prepared->id_line->overflow))
        return !id_find(&prepared->home->ids, id, prepared->id_hash);
    /* A tag that matches may be this id or another one; the general way finds out. */
    return !index_line_matches(prepared->id_line, tag);
}

bool transfer_is_plainly_created(const struct compact_transfer *asked, const struct account *debit,
                                 const struct account *credit) {
    /* Accounts that exist have ids that may be used and a ledger that is not zero. */
    if (unlikely(debit == credit || asked->code == 0 || asked->flags != 0 ||
                 debit->ledger != asked->ledger || credit->ledger != asked->ledger ||
                 ((debit->flags | credit->flags) & (ACCOUNT_CLOSED | ACCOUNT_MARKED))))
        return false;
    /* With all balances below 2^126 no sum of three can overflow. */
    amount_t high = debit->debits_pending | debit->debits_posted | credit->credits_pending |
                    credit->credits_posted;
    if (unlikely((uint64_t)(high >> 64) >> 62))
        return false;
    if ((debit->flags & ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS) &&
        debit->debits_pending + debit->debits_posted + asked->amount > debit->credits_posted)
        return false;
    return !((credit->flags & ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS) &&
             credit->credits_pending + credit->credits_posted + asked->amount >
                 credit->debits_posted);
}

bool transfer_execute_plain(struct engine_lcore *lcore, const struct compact_transfer *asked,
                            struct prepared *prepared, uint64_t decided) {
    struct account *debit = prepared->account[0], *credit = prepared->account[1];
    uint128_t id = uint128_make(asked->id[1], asked->id[0]);
    if (unlikely(
            !debit || !credit ||
            debit->id != uint128_make(asked->debit_account_id[1], asked->debit_account_id[0]) ||
            credit->id != uint128_make(asked->credit_account_id[1], asked->credit_account_id[0]) ||
            !transfer_is_plainly_created(asked, debit, credit) || !id_is_new(lcore, id, prepared)))
        return false;

    /* log */
    wal_place_t place;
    struct wal_record_transfer *log = segment_append(lcore, sizeof(*log), &place);
    log->head =
        (struct wal_record_head){WAL_RECORD_TRANSFER, sizeof(*log) / WAL_RECORD_ALIGN, 0, 0};
    log->timestamp = decided;
    _Static_assert(sizeof(*asked) == sizeof(*log) - offsetof(struct wal_record_transfer, id),
                   "a record ends with the event as it came");
    __builtin_memcpy(&log->id, asked, sizeof(*asked));

    /* remember the id */
    struct id_slice *slice = prepared->slice;
    uint32_t slot = slice->slab.count;
    struct id_record *record = slab_take(&slice->slab, sizeof(*record));
    record->id[0] = asked->id[0];
    record->id[1] = asked->id[1];
    record->timestamp = decided;
    record->digest = transfer_digest_plain(
        prepared->hash[0], prepared->hash[1], asked->amount,
        (uint64_t)asked->ledger << 32 | (uint64_t)asked->code << 16, &lcore->digest_keys);
    record->place = place;
    index_insert_at(&slice->index, prepared->id_line, id_tag(prepared->id_hash), slot);
    prepared->home->ids.count++;
    lcore->import_cursor_transfers = decided;

    /* move the money */
    const struct posting posting = {.debit = debit,
                                    .credit = credit,
                                    .debit_partition = prepared->partition[0],
                                    .credit_partition = prepared->partition[1],
                                    .debit_hash = prepared->hash[0],
                                    .credit_hash = prepared->hash[1]};
    posting_apply(lcore, &posting, asked->ledger, asked->amount, (uint32_t)lcore->open_group);
    return true;
}

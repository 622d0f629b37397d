/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/planted.h"
#include "engine/engine_internal.h"

/** The straight way of plain transfers: no flags, nothing optional, everything at hand, and nothing against it.
 *  plainly_created() says yes only where transfer_decide() would say `created`; in any doubt it says no, and the event goes the general
 *  way. What is installed is the same, in the same order. What all events of a run share is kept in registers meanwhile: the log's
 *  end, the clock, the ledger's total. */

static inline bool plainly_created(const struct compact_transfer *asked,
                                   const struct account *debit, const struct account *credit) {
    /* Accounts that exist have ids that may be used and a ledger that is not zero. */
    if (unlikely(debit == credit || asked->code == 0 || asked->flags != 0 ||
                 debit->ledger != asked->ledger || credit->ledger != asked->ledger ||
                 ((debit->flags | credit->flags) & (ACCOUNT_CLOSED | ACCOUNT_MARKED))))
        return false;
    /* With all balances below 2^126 no sum of three can overflow. */
    uint64_t high =
        (uint64_t)(debit->debits_pending >> 64) | (uint64_t)(debit->debits_posted >> 64) |
        (uint64_t)(credit->credits_pending >> 64) | (uint64_t)(credit->credits_posted >> 64);
    if (unlikely(high >> 62))
        return false;
    if ((debit->flags & ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS) &&
        debit->debits_pending + debit->debits_posted + asked->amount > debit->credits_posted)
        return false;
    return !((credit->flags & ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS) &&
             credit->credits_pending + credit->credits_posted + asked->amount >
                 credit->debits_posted);
}

bool transfer_is_plainly_created(const struct compact_transfer *asked, const struct account *debit,
                                 const struct account *credit) {
    return plainly_created(asked, debit, credit);
}

/** What the events of a run share. */
struct run {
    uint8_t *log, *log_end; /**< where the next record goes; no record begins behind log_end */
    uint64_t decided, decided_step;
    wal_place_t place, place_step;    /**< of the next record; from one to the next */
    uint64_t id_ms_first, id_ms_span; /**< times of ids that are surely in the window */
    struct transfer_digest_keys keys;
    uint32_t group;
    uint32_t ledger; /**< what moved in it is in `moved`, and not yet in its total */
    uint64_t
        moved; /**< 64 bits: for a wider sum in memory gcc 12 makes a load that waits for its own stores */
};

static inline bool account_is(const struct account *account, const uint64_t id[2]) {
    return account && account->id == uint128_make(id[1], id[0]);
}

/** The hint did not do. @return whether the id is new; then it is remembered */
static __attribute__((noinline)) bool id_add_slow(struct engine_lcore *lcore, uint128_t id,
                                                  const struct prepared *prepared,
                                                  const struct run *run, uint64_t digest) {
    struct id_table *ids = &prepared->home->ids;
    if (id_find(ids, id, prepared->id.hash) || id_reserve(ids, &lcore->memory, id, 1))
        return false;
    id_insert(ids, id, prepared->id.hash, run->decided, digest, run->place);
    return true;
}

/** @return false: nothing happened */
static inline bool execute_one(struct engine_lcore *lcore, struct run *run,
                               const struct compact_transfer *asked,
                               const struct prepared *prepared) {
    struct account *debit = prepared->account[0], *credit = prepared->account[1];
    uint128_t id = uint128_make(asked->id[1], asked->id[0]);
    if (unlikely(!account_is(debit, asked->debit_account_id) ||
                 !account_is(credit, asked->credit_account_id) ||
                 !plainly_created(asked, debit, credit)))
        return false;
    if (unlikely(id_time_ms(id) - run->id_ms_first > run->id_ms_span || id == 0 ||
                 id == UINT128_MAX || run->log > run->log_end))
        return false;
    uint64_t digest = transfer_digest_plain(
        prepared->hash[0], prepared->hash[1], asked->amount,
        (uint64_t)asked->ledger << 32 | (uint64_t)asked->code << 16, &run->keys);
    if (unlikely(!id_add(&prepared->id, asked->id, run->decided, digest, run->place)) &&
        !id_add_slow(lcore, id, prepared, run, digest))
        return false;

    struct wal_record_transfer *log = (struct wal_record_transfer *)run->log;
    __builtin_prefetch(run->log + 5 * sizeof(*log), 1);
    log->head =
        (struct wal_record_head){WAL_RECORD_TRANSFER, sizeof(*log) / WAL_RECORD_ALIGN, 0, 0};
    log->timestamp = run->decided;
    _Static_assert(sizeof(*asked) == sizeof(*log) - offsetof(struct wal_record_transfer, id),
                   "a record ends with the event as it came");
    __builtin_memcpy(&log->id, asked, sizeof(*asked));
    run->log += sizeof(*log);
    run->place += run->place_step;
    run->decided += run->decided_step;

    const struct posting posting = {.debit = debit,
                                    .credit = credit,
                                    .debit_partition = prepared->partition[0],
                                    .credit_partition = prepared->partition[1],
                                    .debit_hash = prepared->hash[0],
                                    .credit_hash = prepared->hash[1]};
    posting_move(lcore, &posting, asked->amount, run->group);
    uint64_t moved = run->moved + asked->amount;
    if (unlikely(asked->ledger != run->ledger || moved < asked->amount)) {
        if (run->moved)
            ledger_move(lcore, run->ledger, run->moved);
        run->ledger = asked->ledger;
        moved = asked->amount;
    }
    run->moved = moved;
    return true;
}

/** @return false: there is no room in the log */
static inline bool run_begin(const struct engine_lcore *lcore, struct run *run) {
    uint32_t kept_free = TRANSFER_RECORD_BYTES_MAX + SEGMENT_RESERVE_BYTES;
    if (!lcore->segment || lcore->segment_bytes + kept_free > lcore->buffer_bytes)
        return false;
    wal_place_t place = wal_place_make(lcore->open_group, lcore->index, lcore->segment_bytes);
    *run = (struct run){
        .log = lcore->segment + lcore->segment_bytes,
        .log_end = lcore->segment + lcore->buffer_bytes - kept_free,
        .decided = timestamp_next(lcore),
        .decided_step = (uint64_t)1 << lcore->timestamp_bits,
        .place = place,
        .place_step = wal_place_make(lcore->open_group, lcore->index,
                                     lcore->segment_bytes + sizeof(struct wal_record_transfer)) -
                      place,
        .id_ms_first = lcore->id_time ? lcore->horizon_ms : 0,
        .id_ms_span = UINT64_MAX,
        .keys = lcore->digest_keys,
        .group = (uint32_t)lcore->open_group,
    };
    if (lcore->id_time && !PLANTED(future_id_taken))
        run->id_ms_span = lcore->cell_time / NS_PER_MS + ID_AHEAD_MAX_MS - lcore->horizon_ms;
    return true;
}

unsigned transfers_execute_plain(struct engine_lcore *lcore, struct engine_request *request,
                                 const struct compact_transfer *asked, struct prepared *prepared,
                                 unsigned count) {
    struct run run;
    if (unlikely(!count || !run_begin(lcore, &run) || !checkpoint_has_room(lcore, count)))
        return 0;
    uint64_t decided = run.decided;
    struct result *result = &request->results[request->next_event];
    unsigned done = 0;
    while (done < count && execute_one(lcore, &run, &asked[done], &prepared[done])) {
        result[done] = (struct result){.timestamp = decided, .status = TRANSFER_STATUS_created};
        decided = run.decided;
        if (unlikely(request->options & REQUEST_BALANCES))
            account_balances(prepared[done].account[0],
                             &request->balances[request->next_event + done]);
        done++;
    }
    if (unlikely(!done))
        return 0;
    if (run.moved)
        ledger_move(lcore, run.ledger, run.moved);
    timestamp_given(lcore, run.decided - run.decided_step);
    if (!PLANTED(import_cursor_stays))
        lcore->import_cursor_transfers = run.decided - run.decided_step;
    lcore->segment_bytes = (uint32_t)(run.log - lcore->segment);
    lcore->segment_records += done;
    request_wait_for(request, lcore->open_group);
    return done;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/transfer_decide.h"

#include "engine/base/check.h"
#include "engine/base/hash.h"
#include "engine/base/planted.h"

#define ID_AHEAD_MAX_MS 60000u /**< how far ahead of cell time an id may be */
#define RESOLVES (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING)
#define FAIL_IF(condition, name)                                                                   \
    do {                                                                                           \
        if (unlikely(condition))                                                                   \
            return TRANSFER_STATUS_##name;                                                         \
    } while (0)

static bool sum_overflows(amount_t a, amount_t b) {
    return a + b < a;
}

/** Whether a + b + c overflows. */
static bool sum3_overflows(amount_t a, amount_t b, amount_t c) {
    return sum_overflows(b, c) || sum_overflows(a, b + c);
}

static uint32_t decide_id(const struct transfer_view *view) {
    const struct transfer *event = view->event;
    FAIL_IF(event->flags & ~TRANSFER_FLAGS_KNOWN, reserved_flag);
    FAIL_IF(event->id == 0, id_must_not_be_zero);
    FAIL_IF(event->id == UINT128_MAX, id_must_not_be_int_max);
    if (view->id_time) {
        FAIL_IF(id_time_ms(event->id) < view->horizon_ms, id_expired);
        FAIL_IF(id_time_ms(event->id) > view->cell_time_ms + ID_AHEAD_MAX_MS, id_in_future);
    }
    FAIL_IF(view->id == ID_SAME, exists);
    FAIL_IF(view->id == ID_DIFFERENT, exists_unresolved);
    FAIL_IF(view->id == ID_BURNT, id_already_failed);
    FAIL_IF(view->memory_full, memory_full);
    return TRANSFER_STATUS_created;
}

static uint32_t decide_imported(const struct transfer_view *view) {
    const struct transfer *event = view->event;
    FAIL_IF(event->timestamp <= view->import_cursor || view->import_collides,
            imported_event_timestamp_must_not_regress);
    if (event->flags & RESOLVES)
        return TRANSFER_STATUS_created;
    FAIL_IF(event->timestamp <= view->debit->timestamp,
            imported_event_timestamp_must_postdate_debit_account);
    FAIL_IF(event->timestamp <= view->credit->timestamp,
            imported_event_timestamp_must_postdate_credit_account);
    FAIL_IF(event->timeout != 0, imported_event_timeout_must_be_zero);
    return TRANSFER_STATUS_created;
}

static uint32_t decide_amount(const struct transfer_view *view, amount_t amount) {
    const struct transfer *event = view->event;
    const struct account *debit = view->debit, *credit = view->credit;
    if (event->flags & TRANSFER_PENDING) {
        FAIL_IF(sum_overflows(amount, debit->debits_pending), overflows_debits_pending);
        FAIL_IF(sum_overflows(amount, credit->credits_pending), overflows_credits_pending);
    }
    FAIL_IF(sum_overflows(amount, debit->debits_posted), overflows_debits_posted);
    FAIL_IF(sum_overflows(amount, credit->credits_posted), overflows_credits_posted);
    FAIL_IF(sum3_overflows(amount, debit->debits_pending, debit->debits_posted), overflows_debits);
    FAIL_IF(sum3_overflows(amount, credit->credits_pending, credit->credits_posted),
            overflows_credits);
    uint64_t from = event->flags & TRANSFER_IMPORTED ? event->timestamp : view->decided;
    FAIL_IF(event->timeout * NS_PER_SECOND > TIMESTAMP_MAX - from, overflows_timeout);
    FAIL_IF((debit->flags & ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS) &&
                (PLANTED(floor_ignores_pending) ? 0 : debit->debits_pending) +
                        debit->debits_posted + amount >
                    debit->credits_posted,
            exceeds_credits);
    FAIL_IF((credit->flags & ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS) &&
                credit->credits_pending + credit->credits_posted + amount > credit->debits_posted,
            exceeds_debits);
    return TRANSFER_STATUS_created;
}

/** What a balancing transfer moves: at most what was asked for and what the balances allow. */
static amount_t balancing_amount(const struct transfer_view *view) {
    const struct transfer *event = view->event;
    amount_t amount = event->amount;
    if (event->flags & TRANSFER_BALANCING_DEBIT) {
        amount_t used = view->debit->debits_posted + view->debit->debits_pending;
        amount_t left = view->debit->credits_posted > used ? view->debit->credits_posted - used : 0;
        amount = left < amount ? left + PLANTED(balancing_too_much) : amount;
    }
    if (event->flags & TRANSFER_BALANCING_CREDIT) {
        amount_t used = view->credit->credits_posted + view->credit->credits_pending;
        amount_t left = view->credit->debits_posted > used ? view->credit->debits_posted - used : 0;
        amount = left < amount ? left : amount;
    }
    return amount;
}

static uint32_t decide_transfer(const struct transfer_view *view,
                                struct transfer_outcome *outcome) {
    const struct transfer *event = view->event;
    FAIL_IF(event->debit_account_id == 0, debit_account_id_must_not_be_zero);
    FAIL_IF(event->debit_account_id == UINT128_MAX, debit_account_id_must_not_be_int_max);
    FAIL_IF(event->credit_account_id == 0, credit_account_id_must_not_be_zero);
    FAIL_IF(event->credit_account_id == UINT128_MAX, credit_account_id_must_not_be_int_max);
    FAIL_IF(event->credit_account_id == event->debit_account_id, accounts_must_be_different);
    FAIL_IF(event->pending_id != 0, pending_id_must_be_zero);
    if (!(event->flags & TRANSFER_PENDING)) {
        FAIL_IF(event->timeout != 0, timeout_reserved_for_pending_transfer);
        FAIL_IF(event->flags & (TRANSFER_CLOSING_DEBIT | TRANSFER_CLOSING_CREDIT),
                closing_transfer_must_be_pending);
    }
    FAIL_IF(event->ledger == 0, ledger_must_not_be_zero);
    FAIL_IF(event->code == 0, code_must_not_be_zero);
    FAIL_IF(!view->debit, debit_account_not_found);
    FAIL_IF(!view->credit, credit_account_not_found);
    FAIL_IF(view->debit->ledger != view->credit->ledger, accounts_must_have_the_same_ledger);
    FAIL_IF(event->ledger != view->debit->ledger, transfer_must_have_the_same_ledger_as_accounts);
    if (event->flags & TRANSFER_IMPORTED) {
        uint32_t status = decide_imported(view);
        if (status != TRANSFER_STATUS_created)
            return status;
    }
    FAIL_IF((view->debit->flags & ACCOUNT_CLOSED) && !PLANTED(closed_account_pays),
            debit_account_already_closed);
    FAIL_IF(view->credit->flags & ACCOUNT_CLOSED, credit_account_already_closed);
    amount_t amount = event->amount;
    if (event->flags & (TRANSFER_BALANCING_DEBIT | TRANSFER_BALANCING_CREDIT))
        amount = balancing_amount(view);
    uint32_t status = decide_amount(view, amount);
    if (status != TRANSFER_STATUS_created)
        return status;
    if (likely(!event->flags)) {
        outcome->record = event;
        return TRANSFER_STATUS_created;
    }
    outcome->changed = *event;
    outcome->changed.amount = amount;
    outcome->record = &outcome->changed;
    return TRANSFER_STATUS_created;
}

static uint32_t decide_pending_state(const struct transfer_view *view) {
    const struct pending *pending = view->pending;
    FAIL_IF(pending->state == PENDING_POSTED, pending_transfer_already_posted);
    FAIL_IF(pending->state == PENDING_VOIDED, pending_transfer_already_voided);
    FAIL_IF(pending->state == PENDING_EXPIRED, pending_transfer_expired);
    FAIL_IF(pending->expires_at && pending->expires_at <= view->decided, pending_transfer_expired);
    return TRANSFER_STATUS_created;
}

/** Whether what a post or void says about its pending transfer is true. */
static uint32_t decide_pending_fields(const struct transfer_view *view) {
    const struct transfer *event = view->event;
    if (!view->pending) {
        FAIL_IF(view->id_time && id_time_ms(event->pending_id) < view->horizon_ms,
                pending_id_expired);
        FAIL_IF(view->pending_id == ID_ABSENT || view->pending_id == ID_BURNT,
                pending_transfer_not_found);
        return TRANSFER_STATUS_pending_transfer_not_pending;
    }
    const struct transfer *pending = &view->pending->transfer;
    FAIL_IF(event->debit_account_id && event->debit_account_id != pending->debit_account_id,
            pending_transfer_has_different_debit_account_id);
    FAIL_IF(event->credit_account_id && event->credit_account_id != pending->credit_account_id,
            pending_transfer_has_different_credit_account_id);
    FAIL_IF(event->ledger && event->ledger != pending->ledger,
            pending_transfer_has_different_ledger);
    FAIL_IF(event->code && event->code != pending->code, pending_transfer_has_different_code);
    return TRANSFER_STATUS_created;
}

static uint32_t decide_resolution(const struct transfer_view *view,
                                  struct transfer_outcome *outcome) {
    const struct transfer *event = view->event;
    const uint16_t exclusive = TRANSFER_PENDING | TRANSFER_BALANCING_DEBIT |
                               TRANSFER_BALANCING_CREDIT | TRANSFER_CLOSING_DEBIT |
                               TRANSFER_CLOSING_CREDIT;
    bool is_void = event->flags & TRANSFER_VOID_PENDING;
    FAIL_IF((event->flags & RESOLVES) == RESOLVES || (event->flags & exclusive),
            flags_are_mutually_exclusive);
    FAIL_IF(event->pending_id == 0, pending_id_must_not_be_zero);
    FAIL_IF(event->pending_id == UINT128_MAX, pending_id_must_not_be_int_max);
    FAIL_IF(event->pending_id == event->id, pending_id_must_be_different);
    FAIL_IF(event->timeout != 0, timeout_reserved_for_pending_transfer);
    uint32_t status = decide_pending_fields(view);
    if (status != TRANSFER_STATUS_created)
        return status;
    const struct transfer *pending = &view->pending->transfer;
    amount_t amount = event->amount;
    if (is_void ? amount == 0 : amount == AMOUNT_MAX)
        amount = pending->amount;
    FAIL_IF(amount > pending->amount, exceeds_pending_transfer_amount);
    FAIL_IF(is_void && amount < pending->amount, pending_transfer_has_different_amount);
    status = decide_pending_state(view);
    if (status == TRANSFER_STATUS_created && (event->flags & TRANSFER_IMPORTED))
        status = decide_imported(view);
    if (status != TRANSFER_STATUS_created)
        return status;
    assert(view->debit && view->credit);
    /* In a closed account nothing moves, but a void may still give back. */
    FAIL_IF(!is_void && (view->debit->flags & ACCOUNT_CLOSED), debit_account_already_closed);
    FAIL_IF(!is_void && (view->credit->flags & ACCOUNT_CLOSED), credit_account_already_closed);

    outcome->changed = *event;
    outcome->changed.debit_account_id = pending->debit_account_id;
    outcome->changed.credit_account_id = pending->credit_account_id;
    outcome->changed.amount = amount;
    outcome->changed.ledger = pending->ledger;
    outcome->changed.code = pending->code;
    if (!event->user_data_128)
        outcome->changed.user_data_128 = pending->user_data_128;
    if (!event->user_data_64)
        outcome->changed.user_data_64 = pending->user_data_64;
    if (!event->user_data_32)
        outcome->changed.user_data_32 = pending->user_data_32;
    outcome->record = &outcome->changed;
    outcome->pending_amount = PLANTED(partial_post_keeps_rest) ? amount : pending->amount;
    outcome->pending_flags = pending->flags;
    return TRANSFER_STATUS_created;
}

void transfer_decide(const struct transfer_view *view, struct transfer_outcome *outcome) {
    outcome->timestamp = view->decided;
    outcome->pending_amount = 0;
    outcome->pending_flags = 0;
    outcome->status = decide_id(view);
    if (unlikely(outcome->status != TRANSFER_STATUS_created)) {
        if (outcome->status == TRANSFER_STATUS_exists)
            outcome->timestamp = view->id_timestamp;
        return;
    }
    outcome->status = view->event->flags & RESOLVES ? decide_resolution(view, outcome)
                                                    : decide_transfer(view, outcome);
    if (likely(outcome->status == TRANSFER_STATUS_created)) {
        if (view->event->flags & TRANSFER_IMPORTED)
            outcome->timestamp = view->event->timestamp;
        if (unlikely(outcome->record == &outcome->changed))
            outcome->changed.timestamp = outcome->timestamp;
    }
}

uint32_t transfer_exists(const struct transfer *event, const struct transfer *recorded,
                         const struct transfer *pending) {
    FAIL_IF(event->flags != recorded->flags, exists_with_different_flags);
    FAIL_IF(event->pending_id != recorded->pending_id, exists_with_different_pending_id);
    FAIL_IF(event->timeout != recorded->timeout, exists_with_different_timeout);
    bool resolves = recorded->flags & RESOLVES;
    assert(!resolves || pending);
    /* A post or void may leave out what it inherits; then it asked for what the pending transfer says. */
    FAIL_IF(event->debit_account_id != recorded->debit_account_id &&
                !(resolves && event->debit_account_id == 0),
            exists_with_different_debit_account_id);
    FAIL_IF(event->credit_account_id != recorded->credit_account_id &&
                !(resolves && event->credit_account_id == 0),
            exists_with_different_credit_account_id);
    if (resolves) {
        amount_t all = recorded->flags & TRANSFER_VOID_PENDING ? 0 : AMOUNT_MAX;
        FAIL_IF((event->amount == all ? pending->amount : event->amount) != recorded->amount,
                exists_with_different_amount);
    } else if (recorded->flags & (TRANSFER_BALANCING_DEBIT | TRANSFER_BALANCING_CREDIT)) {
        FAIL_IF(event->amount < recorded->amount, exists_with_different_amount);
    } else {
        FAIL_IF(event->amount != recorded->amount, exists_with_different_amount);
    }
    bool inherits = resolves && event->user_data_128 == 0;
    FAIL_IF((inherits ? pending->user_data_128 : event->user_data_128) != recorded->user_data_128,
            exists_with_different_user_data_128);
    inherits = resolves && event->user_data_64 == 0;
    FAIL_IF((inherits ? pending->user_data_64 : event->user_data_64) != recorded->user_data_64,
            exists_with_different_user_data_64);
    inherits = resolves && event->user_data_32 == 0;
    FAIL_IF((inherits ? pending->user_data_32 : event->user_data_32) != recorded->user_data_32,
            exists_with_different_user_data_32);
    FAIL_IF(event->ledger != recorded->ledger && !(resolves && event->ledger == 0),
            exists_with_different_ledger);
    FAIL_IF(event->code != recorded->code && !(resolves && event->code == 0),
            exists_with_different_code);
    return TRANSFER_STATUS_exists;
}

void transfer_digest_keys(uint64_t seed, struct transfer_digest_keys *keys) {
    keys->a = hash_mix64(seed);
    keys->b = hash_mix64(seed + 1);
    keys->c = hash_mix64(seed + 2);
    keys->d = hash_mix64(seed + 3);
}

uint64_t transfer_digest(const struct transfer *event, uint64_t debit_hash, uint64_t credit_hash,
                         const struct transfer_digest_keys *keys) {
    uint64_t words = (uint64_t)event->ledger << 32 | (uint64_t)event->code << 16 | event->flags;
    uint64_t digest =
        transfer_digest_plain(debit_hash, credit_hash, (uint64_t)event->amount, words, keys);
    uint64_t rest = (uint64_t)(event->amount >> 64) | (uint64_t)event->pending_id |
                    (uint64_t)(event->pending_id >> 64) | (uint64_t)event->user_data_128 |
                    (uint64_t)(event->user_data_128 >> 64) | event->user_data_64 |
                    event->user_data_32 | event->timeout;
    /* Whether anything stands here is decided by the values alone, so both wire formats of an event agree. */
    if (likely(!rest))
        return digest;
    uint64_t times = (uint64_t)event->user_data_32 << 32 | event->timeout;
    digest = hash_fold(digest ^ keys->a, (uint64_t)(event->amount >> 64) ^ keys->d);
    digest ^= hash_fold((uint64_t)event->pending_id ^ keys->a,
                        (uint64_t)(event->pending_id >> 64) ^ keys->c);
    digest ^= hash_fold((uint64_t)event->user_data_128 ^ keys->b,
                        (uint64_t)(event->user_data_128 >> 64) ^ keys->d);
    digest ^= hash_fold(event->user_data_64 ^ keys->d, times ^ keys->b);
    digest = hash_fold(digest ^ keys->b, keys->a | 1);
    return digest ? digest : 1;
}

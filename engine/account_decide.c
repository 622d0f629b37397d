/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/account_decide.h"

#define FAIL_IF(condition, name)                                                                   \
    do {                                                                                           \
        if (condition)                                                                             \
            return ACCOUNT_STATUS_##name;                                                          \
    } while (0)

static uint32_t decide_exists(const struct account *event, const struct account *existing) {
    FAIL_IF(event->flags != (existing->flags & ACCOUNT_FLAGS_KNOWN), exists_with_different_flags);
    FAIL_IF(event->user_data_128 != existing->user_data_128, exists_with_different_user_data_128);
    FAIL_IF(event->user_data_64 != existing->user_data_64, exists_with_different_user_data_64);
    FAIL_IF(event->user_data_32 != existing->user_data_32, exists_with_different_user_data_32);
    FAIL_IF(event->ledger != existing->ledger, exists_with_different_ledger);
    FAIL_IF(event->code != existing->code, exists_with_different_code);
    return ACCOUNT_STATUS_exists;
}

static uint32_t decide(const struct account_view *view) {
    const struct account *event = view->event;
    const uint16_t floors =
        ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS | ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS;
    FAIL_IF(event->reserved != 0, reserved_field);
    FAIL_IF(event->flags & ~ACCOUNT_FLAGS_KNOWN, reserved_flag);
    FAIL_IF(event->id == 0, id_must_not_be_zero);
    FAIL_IF(event->id == UINT128_MAX, id_must_not_be_int_max);
    if (view->existing)
        return decide_exists(event, view->existing);
    FAIL_IF(view->memory_full, memory_full);
    FAIL_IF((event->flags & floors) == floors, flags_are_mutually_exclusive);
    FAIL_IF(event->debits_pending != 0, debits_pending_must_be_zero);
    FAIL_IF(event->debits_posted != 0, debits_posted_must_be_zero);
    FAIL_IF(event->credits_pending != 0, credits_pending_must_be_zero);
    FAIL_IF(event->credits_posted != 0, credits_posted_must_be_zero);
    FAIL_IF(event->ledger == 0, ledger_must_not_be_zero);
    FAIL_IF(event->code == 0, code_must_not_be_zero);
    FAIL_IF((event->flags & ACCOUNT_IMPORTED) &&
                (event->timestamp <= view->import_cursor || view->import_collides),
            imported_event_timestamp_must_not_regress);
    return ACCOUNT_STATUS_created;
}

void account_decide(const struct account_view *view, struct account_outcome *outcome) {
    outcome->timestamp = view->decided;
    outcome->status = decide(view);
    if (outcome->status == ACCOUNT_STATUS_exists)
        outcome->timestamp = view->existing->timestamp;
    if (outcome->status != ACCOUNT_STATUS_created)
        return;
    if (view->event->flags & ACCOUNT_IMPORTED)
        outcome->timestamp = view->event->timestamp;
    outcome->record = *view->event;
    outcome->record.timestamp = outcome->timestamp;
}

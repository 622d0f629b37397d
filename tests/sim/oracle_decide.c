/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/oracle_internal.h"

/* What an event comes to, told from the state before it: design section 2, one check after the other. */

#define ID_AHEAD_MS 60000u
#define POST TRANSFER_POST_PENDING
#define VOID TRANSFER_VOID_PENDING
#define BALANCING (TRANSFER_BALANCING_DEBIT | TRANSFER_BALANCING_CREDIT)
#define CLOSING (TRANSFER_CLOSING_DEBIT | TRANSFER_CLOSING_CREDIT)
#define REFUSE_IF(condition, name)                                                                 \
    do {                                                                                           \
        if (condition)                                                                             \
            return TRANSFER_STATUS_##name;                                                         \
    } while (0)
#define REFUSE_ACCOUNT_IF(condition, name)                                                         \
    do {                                                                                           \
        if (condition)                                                                             \
            return ACCOUNT_STATUS_##name;                                                          \
    } while (0)

/** From where an event is decided. */
struct scene {
    const struct oracle *oracle;
    const struct overlay *overlay; /**< NULL: no chain */
    position_t at;
    uint64_t decided; /**< its timestamp */
    uint64_t horizon_ms;
};

bool status_burns(uint32_t status) {
    static const uint32_t burning[] = {21, 22, 25, 54, 55, 65, 66};
    for (size_t i = 0; i < sizeof(burning) / sizeof(burning[0]); i++) {
        if (burning[i] == status)
            return true;
    }
    return false;
}

/* --- what is there --------------------------------------------------------------------------------------------------------------- */

static bool find_account(const struct scene *scene, uint128_t id, struct account *account) {
    for (size_t i = 0; scene->overlay && i < scene->overlay->account_count; i++) {
        if (scene->overlay->accounts[i].id == id) {
            *account = scene->overlay->accounts[i];
            return true;
        }
    }
    const struct ledger_account *known = ledger_account_get(scene->oracle, id);
    return known && ledger_account_as_of(known, scene->at, account);
}

/** A transfer with its end as of now. */
static bool find_transfer(const struct scene *scene, uint128_t id,
                          struct ledger_transfer *transfer) {
    for (size_t i = 0; scene->overlay && i < scene->overlay->transfer_count; i++) {
        if (scene->overlay->transfers[i].record.id == id) {
            *transfer = scene->overlay->transfers[i];
            return true;
        }
    }
    const struct ledger_transfer *known = ledger_transfer_get(scene->oracle, id);
    if (!known || known->at >= scene->at)
        return false;
    *transfer = *known;
    transfer->end = ledger_pending_as_of(known, scene->at);
    return true;
}

static uint64_t cursor(const struct scene *scene, bool account) {
    const struct ledger *ledger = &scene->oracle->ledger;
    uint64_t own = 0;
    if (scene->overlay)
        own = account ? scene->overlay->account_cursor : scene->overlay->transfer_cursor;
    uint64_t stored = account ? ledger_cursor_as_of(ledger->account_cursors,
                                                    ledger->account_cursor_count, scene->at)
                              : ledger_cursor_as_of(ledger->transfer_cursors,
                                                    ledger->transfer_cursor_count, scene->at);
    return own > stored ? own : stored;
}

static bool forgotten(const struct scene *scene, uint128_t id) {
    return scene->oracle->config.id_time && id_time_ms(id) < scene->horizon_ms;
}

/** Whether an account carries this timestamp. */
static bool account_has_time(const struct scene *scene, uint64_t timestamp) {
    for (size_t i = 0; i < scene->oracle->ledger.account_count; i++) {
        const struct ledger_account *account = scene->oracle->ledger.accounts[i];
        if (account->record.timestamp == timestamp && account->at < scene->at)
            return true;
    }
    return false;
}

/** Whether a transfer that is remembered carries this timestamp. */
static bool transfer_has_time(const struct scene *scene, uint64_t timestamp) {
    for (size_t i = 0; i < scene->oracle->ledger.transfer_count; i++) {
        const struct ledger_transfer *transfer = scene->oracle->ledger.transfers[i];
        if (transfer->record.timestamp == timestamp && transfer->at < scene->at &&
            !forgotten(scene, transfer->record.id))
            return true;
    }
    return false;
}

/* --- accounts ---------------------------------------------------------------------------------------------------------------------- */

static uint32_t compare_accounts(const struct account *asked, const struct account *known) {
    REFUSE_ACCOUNT_IF(asked->flags != known->flags, exists_with_different_flags);
    REFUSE_ACCOUNT_IF(asked->user_data_128 != known->user_data_128,
                      exists_with_different_user_data_128);
    REFUSE_ACCOUNT_IF(asked->user_data_64 != known->user_data_64,
                      exists_with_different_user_data_64);
    REFUSE_ACCOUNT_IF(asked->user_data_32 != known->user_data_32,
                      exists_with_different_user_data_32);
    REFUSE_ACCOUNT_IF(asked->ledger != known->ledger, exists_with_different_ledger);
    REFUSE_ACCOUNT_IF(asked->code != known->code, exists_with_different_code);
    return ACCOUNT_STATUS_exists;
}

static uint32_t decide_account(const struct scene *scene, const struct account *asked,
                               struct decision *decision) {
    struct account known;
    REFUSE_ACCOUNT_IF(asked->reserved != 0, reserved_field);
    REFUSE_ACCOUNT_IF(asked->flags & ~0x3f, reserved_flag);
    REFUSE_ACCOUNT_IF(asked->id == 0, id_must_not_be_zero);
    REFUSE_ACCOUNT_IF(asked->id == UINT128_MAX, id_must_not_be_int_max);
    if (find_account(scene, asked->id, &known)) {
        uint32_t status = compare_accounts(asked, &known);
        if (status == ACCOUNT_STATUS_exists)
            decision->timestamp = known.timestamp;
        return status;
    }
    decision->past_id = true;
    REFUSE_ACCOUNT_IF((asked->flags & ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS) &&
                          (asked->flags & ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS),
                      flags_are_mutually_exclusive);
    REFUSE_ACCOUNT_IF(asked->debits_pending, debits_pending_must_be_zero);
    REFUSE_ACCOUNT_IF(asked->debits_posted, debits_posted_must_be_zero);
    REFUSE_ACCOUNT_IF(asked->credits_pending, credits_pending_must_be_zero);
    REFUSE_ACCOUNT_IF(asked->credits_posted, credits_posted_must_be_zero);
    REFUSE_ACCOUNT_IF(asked->ledger == 0, ledger_must_not_be_zero);
    REFUSE_ACCOUNT_IF(asked->code == 0, code_must_not_be_zero);
    decision->account = *asked;
    if (asked->flags & ACCOUNT_IMPORTED) {
        REFUSE_ACCOUNT_IF(asked->timestamp <= cursor(scene, true) ||
                              transfer_has_time(scene, asked->timestamp),
                          imported_event_timestamp_must_not_regress);
        decision->timestamp = asked->timestamp;
    }
    decision->account.timestamp = decision->timestamp;
    return ACCOUNT_STATUS_created;
}

/* --- retries ------------------------------------------------------------------------------------------------------------------------ */

static uint32_t compare_transfers(const struct scene *scene, const struct transfer *asked,
                                  const struct transfer *known) {
    REFUSE_IF(asked->flags != known->flags, exists_with_different_flags);
    REFUSE_IF(asked->pending_id != known->pending_id, exists_with_different_pending_id);
    REFUSE_IF(asked->timeout != known->timeout, exists_with_different_timeout);
    /* What a post or void leaves out it took from its pending transfer. */
    struct ledger_transfer pending = {0};
    bool resolves = known->flags & (POST | VOID);
    if (resolves)
        find_transfer(scene, known->pending_id, &pending);
    const struct transfer *from = &pending.record;
#define WANTED(field) (resolves && asked->field == 0 ? from->field : asked->field)
    REFUSE_IF(WANTED(debit_account_id) != known->debit_account_id,
              exists_with_different_debit_account_id);
    REFUSE_IF(WANTED(credit_account_id) != known->credit_account_id,
              exists_with_different_credit_account_id);
    if (resolves) {
        amount_t all = known->flags & VOID ? 0 : AMOUNT_MAX;
        REFUSE_IF((asked->amount == all ? from->amount : asked->amount) != known->amount,
                  exists_with_different_amount);
    } else if (known->flags & BALANCING) {
        REFUSE_IF(asked->amount < known->amount, exists_with_different_amount);
    } else {
        REFUSE_IF(asked->amount != known->amount, exists_with_different_amount);
    }
    REFUSE_IF(WANTED(user_data_128) != known->user_data_128, exists_with_different_user_data_128);
    REFUSE_IF(WANTED(user_data_64) != known->user_data_64, exists_with_different_user_data_64);
    REFUSE_IF(WANTED(user_data_32) != known->user_data_32, exists_with_different_user_data_32);
    REFUSE_IF(WANTED(ledger) != known->ledger, exists_with_different_ledger);
    REFUSE_IF(WANTED(code) != known->code, exists_with_different_code);
#undef WANTED
    return TRANSFER_STATUS_exists;
}

static uint32_t decide_transfer_id(const struct scene *scene, const struct transfer *asked,
                                   struct decision *decision) {
    REFUSE_IF(asked->flags & ~0x1ff, reserved_flag);
    REFUSE_IF(asked->id == 0, id_must_not_be_zero);
    REFUSE_IF(asked->id == UINT128_MAX, id_must_not_be_int_max);
    REFUSE_IF(forgotten(scene, asked->id), id_expired);
    REFUSE_IF(scene->oracle->config.id_time &&
                  id_time_ms(asked->id) > scene->decided / NS_PER_MS + ID_AHEAD_MS,
              id_in_future);
    struct ledger_transfer known;
    if (find_transfer(scene, asked->id, &known)) {
        uint32_t status = compare_transfers(scene, asked, &known.record);
        if (status == TRANSFER_STATUS_exists)
            decision->timestamp = known.record.timestamp;
        return status;
    }
    const struct ledger_burnt *burnt = oracle_map_get(&scene->oracle->ledger.burnt_map, asked->id);
    REFUSE_IF(burnt && burnt->at < scene->at, id_already_failed);
    return TRANSFER_STATUS_created;
}

/* --- transfers that move money by themselves ---------------------------------------------------------------------------------------- */

static bool overflows(amount_t a, amount_t b) {
    return a > AMOUNT_MAX - b;
}

static bool overflows3(amount_t a, amount_t b, amount_t c) {
    return overflows(a, b) || overflows(a + b, c);
}

static uint32_t check_amount(const struct scene *scene, const struct transfer *asked,
                             amount_t amount, const struct account *debit,
                             const struct account *credit) {
    if (asked->flags & TRANSFER_PENDING) {
        REFUSE_IF(overflows(amount, debit->debits_pending), overflows_debits_pending);
        REFUSE_IF(overflows(amount, credit->credits_pending), overflows_credits_pending);
    }
    REFUSE_IF(overflows(amount, debit->debits_posted), overflows_debits_posted);
    REFUSE_IF(overflows(amount, credit->credits_posted), overflows_credits_posted);
    REFUSE_IF(overflows3(amount, debit->debits_pending, debit->debits_posted), overflows_debits);
    REFUSE_IF(overflows3(amount, credit->credits_pending, credit->credits_posted),
              overflows_credits);
    uint64_t from = asked->flags & TRANSFER_IMPORTED ? asked->timestamp : scene->decided;
    REFUSE_IF(from + (uint128_t)asked->timeout * NS_PER_SECOND > TIMESTAMP_MAX, overflows_timeout);
    REFUSE_IF((debit->flags & ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS) &&
                  debit->debits_pending + debit->debits_posted + amount > debit->credits_posted,
              exceeds_credits);
    REFUSE_IF((credit->flags & ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS) &&
                  credit->credits_pending + credit->credits_posted + amount > credit->debits_posted,
              exceeds_debits);
    return TRANSFER_STATUS_created;
}

/** What is left of `have` when `used` is gone; at most `amount`. */
static amount_t at_most(amount_t amount, amount_t have, amount_t used) {
    amount_t left = have > used ? have - used : 0;
    return amount < left ? amount : left;
}

static uint32_t check_import(const struct scene *scene, const struct transfer *asked,
                             const struct account *debit, const struct account *credit) {
    REFUSE_IF(asked->timestamp <= cursor(scene, false) || account_has_time(scene, asked->timestamp),
              imported_event_timestamp_must_not_regress);
    if (asked->flags & (POST | VOID))
        return TRANSFER_STATUS_created;
    REFUSE_IF(asked->timestamp <= debit->timestamp,
              imported_event_timestamp_must_postdate_debit_account);
    REFUSE_IF(asked->timestamp <= credit->timestamp,
              imported_event_timestamp_must_postdate_credit_account);
    REFUSE_IF(asked->timeout != 0, imported_event_timeout_must_be_zero);
    return TRANSFER_STATUS_created;
}

static uint32_t decide_plain(const struct scene *scene, const struct transfer *asked,
                             struct decision *decision) {
    struct account debit, credit;
    REFUSE_IF(asked->debit_account_id == 0, debit_account_id_must_not_be_zero);
    REFUSE_IF(asked->debit_account_id == UINT128_MAX, debit_account_id_must_not_be_int_max);
    REFUSE_IF(asked->credit_account_id == 0, credit_account_id_must_not_be_zero);
    REFUSE_IF(asked->credit_account_id == UINT128_MAX, credit_account_id_must_not_be_int_max);
    REFUSE_IF(asked->debit_account_id == asked->credit_account_id, accounts_must_be_different);
    REFUSE_IF(asked->pending_id != 0, pending_id_must_be_zero);
    if (!(asked->flags & TRANSFER_PENDING)) {
        REFUSE_IF(asked->timeout != 0, timeout_reserved_for_pending_transfer);
        REFUSE_IF(asked->flags & CLOSING, closing_transfer_must_be_pending);
    }
    REFUSE_IF(asked->ledger == 0, ledger_must_not_be_zero);
    REFUSE_IF(asked->code == 0, code_must_not_be_zero);
    REFUSE_IF(!find_account(scene, asked->debit_account_id, &debit), debit_account_not_found);
    REFUSE_IF(!find_account(scene, asked->credit_account_id, &credit), credit_account_not_found);
    REFUSE_IF(debit.ledger != credit.ledger, accounts_must_have_the_same_ledger);
    REFUSE_IF(asked->ledger != debit.ledger, transfer_must_have_the_same_ledger_as_accounts);
    if (asked->flags & TRANSFER_IMPORTED) {
        uint32_t status = check_import(scene, asked, &debit, &credit);
        if (status != TRANSFER_STATUS_created)
            return status;
    }
    REFUSE_IF(debit.flags & ACCOUNT_CLOSED, debit_account_already_closed);
    REFUSE_IF(credit.flags & ACCOUNT_CLOSED, credit_account_already_closed);
    amount_t amount = asked->amount;
    if (asked->flags & TRANSFER_BALANCING_DEBIT)
        amount = at_most(amount, debit.credits_posted, debit.debits_posted + debit.debits_pending);
    if (asked->flags & TRANSFER_BALANCING_CREDIT)
        amount =
            at_most(amount, credit.debits_posted, credit.credits_posted + credit.credits_pending);
    uint32_t status = check_amount(scene, asked, amount, &debit, &credit);
    decision->transfer = *asked;
    decision->transfer.amount = amount;
    return status;
}

/* --- post and void ---------------------------------------------------------------------------------------------------------------- */

/** A pending transfer is kept while it lives, and then until its own id and that of what resolved it are forgotten. */
static bool pending_forgotten(const struct scene *scene, uint128_t id,
                              const struct ledger_transfer *pending) {
    if (!forgotten(scene, id))
        return false;
    if (!pending || !(pending->record.flags & TRANSFER_PENDING) ||
        pending->end == PENDING_IS_EXPIRED)
        return true;
    return pending->end != PENDING_IS_LIVE && forgotten(scene, pending->resolver);
}

static uint32_t check_pending(const struct scene *scene, const struct transfer *asked,
                              const struct ledger_transfer *pending, amount_t *amount) {
    const struct transfer *known = &pending->record;
    REFUSE_IF(!(known->flags & TRANSFER_PENDING), pending_transfer_not_pending);
    REFUSE_IF(asked->debit_account_id && asked->debit_account_id != known->debit_account_id,
              pending_transfer_has_different_debit_account_id);
    REFUSE_IF(asked->credit_account_id && asked->credit_account_id != known->credit_account_id,
              pending_transfer_has_different_credit_account_id);
    REFUSE_IF(asked->ledger && asked->ledger != known->ledger,
              pending_transfer_has_different_ledger);
    REFUSE_IF(asked->code && asked->code != known->code, pending_transfer_has_different_code);
    bool is_void = asked->flags & VOID;
    if (asked->amount == (is_void ? 0 : AMOUNT_MAX))
        *amount = known->amount;
    REFUSE_IF(*amount > known->amount, exceeds_pending_transfer_amount);
    REFUSE_IF(is_void && *amount < known->amount, pending_transfer_has_different_amount);
    REFUSE_IF(pending->end == PENDING_IS_POSTED, pending_transfer_already_posted);
    REFUSE_IF(pending->end == PENDING_IS_VOIDED, pending_transfer_already_voided);
    REFUSE_IF(pending->end == PENDING_IS_EXPIRED, pending_transfer_expired);
    REFUSE_IF(pending->expires_at && pending->expires_at <= scene->decided,
              pending_transfer_expired);
    return TRANSFER_STATUS_created;
}

static uint32_t decide_resolving(const struct scene *scene, const struct transfer *asked,
                                 struct decision *decision) {
    REFUSE_IF((asked->flags & POST) && (asked->flags & VOID), flags_are_mutually_exclusive);
    REFUSE_IF(asked->flags & (TRANSFER_PENDING | BALANCING | CLOSING),
              flags_are_mutually_exclusive);
    REFUSE_IF(asked->pending_id == 0, pending_id_must_not_be_zero);
    REFUSE_IF(asked->pending_id == UINT128_MAX, pending_id_must_not_be_int_max);
    REFUSE_IF(asked->pending_id == asked->id, pending_id_must_be_different);
    REFUSE_IF(asked->timeout != 0, timeout_reserved_for_pending_transfer);
    struct ledger_transfer pending;
    bool known = find_transfer(scene, asked->pending_id, &pending);
    REFUSE_IF(pending_forgotten(scene, asked->pending_id, known ? &pending : NULL),
              pending_id_expired);
    REFUSE_IF(!known, pending_transfer_not_found);
    amount_t amount = asked->amount;
    uint32_t status = check_pending(scene, asked, &pending, &amount);
    if (status == TRANSFER_STATUS_created && (asked->flags & TRANSFER_IMPORTED))
        status = check_import(scene, asked, NULL, NULL);
    if (status != TRANSFER_STATUS_created)
        return status;
    struct account debit = {0}, credit = {0};
    find_account(scene, pending.record.debit_account_id, &debit);
    find_account(scene, pending.record.credit_account_id, &credit);
    REFUSE_IF((asked->flags & POST) && (debit.flags & ACCOUNT_CLOSED),
              debit_account_already_closed);
    REFUSE_IF((asked->flags & POST) && (credit.flags & ACCOUNT_CLOSED),
              credit_account_already_closed);
    struct transfer *made = &decision->transfer;
    *made = *asked;
    made->debit_account_id = pending.record.debit_account_id;
    made->credit_account_id = pending.record.credit_account_id;
    made->ledger = pending.record.ledger;
    made->code = pending.record.code;
    made->amount = amount;
    made->user_data_128 = asked->user_data_128 ?: pending.record.user_data_128;
    made->user_data_64 = asked->user_data_64 ?: pending.record.user_data_64;
    made->user_data_32 = asked->user_data_32 ?: pending.record.user_data_32;
    return TRANSFER_STATUS_created;
}

static uint32_t decide_transfer(const struct scene *scene, const struct transfer *asked,
                                struct decision *decision) {
    uint32_t status = decide_transfer_id(scene, asked, decision);
    if (status != TRANSFER_STATUS_created)
        return status;
    decision->past_id = true;
    status = asked->flags & (POST | VOID) ? decide_resolving(scene, asked, decision)
                                          : decide_plain(scene, asked, decision);
    if (status == TRANSFER_STATUS_created) {
        if (asked->flags & TRANSFER_IMPORTED)
            decision->timestamp = asked->timestamp;
        decision->transfer.timestamp = decision->timestamp;
    }
    return status;
}

/* --- events in their request ------------------------------------------------------------------------------------------------------ */

static bool is_account(const struct asked *asked) {
    return asked->request->operation == OPERATION_CREATE_ACCOUNTS;
}

static uint16_t flags_of(const struct asked *asked) {
    return is_account(asked) ? asked->account.flags : asked->transfer.flags;
}

bool asked_is_linked(const struct asked *asked) {
    return flags_of(asked) & TRANSFER_LINKED;
}

size_t chain_length(const struct asked *asked) {
    size_t count = 1, left = asked->request->event_count - asked->index;
    while (count < left && asked_is_linked(&asked[count - 1]))
        count++;
    return count;
}

static uint32_t check_place(const struct asked *asked, uint64_t decided) {
    bool account = is_account(asked);
    uint16_t bit = account ? ACCOUNT_IMPORTED : TRANSFER_IMPORTED;
    uint64_t timestamp = account ? asked->account.timestamp : asked->transfer.timestamp;
    bool imported = flags_of(asked) & bit;
    bool expected = flags_of(&asked->request->events[0]) & bit;
    if (imported && !expected)
        return account ? 23 : 57;
    if (!imported && expected)
        return account ? 22 : 56;
    if (!imported)
        return timestamp ? 3 : TRANSFER_STATUS_created;
    if (timestamp == 0 || timestamp > TIMESTAMP_MAX)
        return account ? 24 : 58;
    if (timestamp >= decided)
        return account ? 25 : 59;
    return TRANSFER_STATUS_created;
}

static void decide_in(const struct scene *scene, const struct asked *asked,
                      struct decision *decision) {
    *decision = (struct decision){.timestamp = scene->decided};
    bool open = asked_is_linked(asked) && asked->index + 1 == asked->request->event_count;
    decision->status =
        open ? TRANSFER_STATUS_linked_event_chain_open : check_place(asked, scene->decided);
    if (decision->status != TRANSFER_STATUS_created)
        return;
    decision->status = is_account(asked) ? decide_account(scene, &asked->account, decision)
                                         : decide_transfer(scene, &asked->transfer, decision);
}

void decide_single(const struct oracle *oracle, const struct asked *asked, position_t at,
                   uint64_t horizon_ms, struct decision *decision) {
    const struct scene scene = {oracle, NULL, at, position_decided(at), horizon_ms};
    decide_in(&scene, asked, decision);
}

/* --- chains ---------------------------------------------------------------------------------------------------------------------------- */

static struct account *overlay_account(const struct scene *scene, struct overlay *overlay,
                                       uint128_t id) {
    for (size_t i = 0; i < overlay->account_count; i++) {
        if (overlay->accounts[i].id == id)
            return &overlay->accounts[i];
    }
    struct account *account = &overlay->accounts[overlay->account_count];
    find_account(scene, id, account);
    overlay->account_count++;
    return account;
}

static void overlay_transfer(const struct scene *scene, struct overlay *overlay,
                             const struct transfer *made) {
    struct account *debit = overlay_account(scene, overlay, made->debit_account_id);
    struct account *credit = overlay_account(scene, overlay, made->credit_account_id);
    if (made->flags & TRANSFER_PENDING) {
        debit->debits_pending += made->amount;
        credit->credits_pending += made->amount;
        debit->flags |= made->flags & TRANSFER_CLOSING_DEBIT ? ACCOUNT_CLOSED : 0;
        credit->flags |= made->flags & TRANSFER_CLOSING_CREDIT ? ACCOUNT_CLOSED : 0;
    } else if (made->flags & (POST | VOID)) {
        struct ledger_transfer pending;
        find_transfer(scene, made->pending_id, &pending);
        debit->debits_pending -= pending.record.amount;
        credit->credits_pending -= pending.record.amount;
        bool is_void = made->flags & VOID;
        if (is_void && (pending.record.flags & TRANSFER_CLOSING_DEBIT))
            debit->flags &= (uint16_t)~ACCOUNT_CLOSED;
        if (is_void && (pending.record.flags & TRANSFER_CLOSING_CREDIT))
            credit->flags &= (uint16_t)~ACCOUNT_CLOSED;
        debit->debits_posted += is_void ? 0 : made->amount;
        credit->credits_posted += is_void ? 0 : made->amount;
        pending.end = is_void ? PENDING_IS_VOIDED : PENDING_IS_POSTED;
        pending.ended = scene->at;
        pending.resolver = made->id;
        size_t i = 0;
        while (i < overlay->transfer_count && overlay->transfers[i].record.id != pending.record.id)
            i++;
        overlay->transfers[i] = pending;
        overlay->transfer_count += i == overlay->transfer_count;
    } else {
        debit->debits_posted += made->amount;
        credit->credits_posted += made->amount;
    }
    overlay->transfers[overlay->transfer_count++] = (struct ledger_transfer){
        .record = *made,
        .at = scene->at,
        .expires_at = made->timeout ? made->timestamp + made->timeout * NS_PER_SECOND : 0,
    };
    if (made->timestamp > overlay->transfer_cursor)
        overlay->transfer_cursor = made->timestamp;
}

void decide_chain(struct oracle *oracle, const struct asked *first, size_t count, seq_t seq,
                  const uint64_t *decided, uint64_t horizon_ms, struct decision *decisions) {
    struct overlay overlay = {
        .accounts = oracle_take(oracle, 2 * count * sizeof(*overlay.accounts)),
        .transfers = oracle_take(oracle, 2 * count * sizeof(*overlay.transfers)),
    };
    size_t failed = count;
    for (size_t i = 0; i < count; i++) {
        /* Nobody else is between the members, so all see the state before the first. */
        struct scene scene = {oracle, &overlay, position_make(seq, decided[i]), decided[i],
                              horizon_ms};
        decide_in(&scene, &first[i], &decisions[i]);
        if (failed < count && decisions[i].status != TRANSFER_STATUS_linked_event_chain_open)
            decisions[i] = (struct decision){.status = TRANSFER_STATUS_linked_event_failed,
                                             .timestamp = decided[i]};
        if (decisions[i].status != TRANSFER_STATUS_created) {
            failed = failed < count ? failed : i;
            continue;
        }
        if (!is_account(first)) {
            overlay_transfer(&scene, &overlay, &decisions[i].transfer);
            continue;
        }
        overlay.accounts[overlay.account_count++] = decisions[i].account;
        if (decisions[i].account.timestamp > overlay.account_cursor)
            overlay.account_cursor = decisions[i].account.timestamp;
    }
    for (size_t i = 0; i < failed && failed < count; i++)
        decisions[i] = (struct decision){.status = TRANSFER_STATUS_linked_event_failed,
                                         .timestamp = decided[i]};
}

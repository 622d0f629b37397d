/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/oracle_internal.h"

/* One event that was asked for: what the log holds of it, and what its balances must be. */

bool request_is_account(const struct net_request *request) {
    return request->operation == OPERATION_CREATE_ACCOUNTS;
}

uint128_t asked_id(const struct asked *asked) {
    return request_is_account(asked->request) ? asked->account.id : asked->transfer.id;
}

const char *asked_name(const struct asked *asked) {
    static _Thread_local char text[160];
    snprintf(text, sizeof(text), "session %" PRIx64 ", request %" PRIu64 ", event %" PRIu32 " (%s)",
             asked->request->session->id, asked->request->number, asked->index,
             oracle_id(asked_id(asked)));
    return text;
}

/* --- what is in the log ----------------------------------------------------------------------------------------------------------- */

/** Where the log holds what an event created. @return false: it holds no such record */
bool asked_logged(const struct oracle *oracle, const struct asked *asked, position_t *at,
                  uint64_t *timestamp) {
    if (request_is_account(asked->request)) {
        const struct ledger_account *account = ledger_account_get(oracle, asked->account.id);
        if (!account)
            return false;
        *at = account->at;
        *timestamp = account->record.timestamp;
        return true;
    }
    const struct ledger_transfer *transfer = ledger_transfer_get(oracle, asked->transfer.id);
    if (!transfer)
        return false;
    *at = transfer->at;
    *timestamp = transfer->record.timestamp;
    return true;
}

bool asked_check_created(struct walk *walk, struct asked *asked, position_t *at) {
    struct oracle *oracle = walk->oracle;
    uint64_t timestamp;
    if (!asked_logged(oracle, asked, at, &timestamp))
        return oracle_fail(oracle, "INV-5",
                           "%s is answered `created`, and no durable group holds it (%zu groups)",
                           asked_name(asked), oracle->group_count);
    if (position_seq(*at) > walk->request->token_seq)
        return oracle_fail(oracle, "INV-5",
                           "%s is in group %" PRIu64 ", its answer shows group %" PRIu64,
                           asked_name(asked), position_seq(*at), walk->request->token_seq);
    if (timestamp != asked->timestamp)
        return oracle_fail(oracle, "outcome",
                           "%s is answered `created` at %" PRIu64 ", the log says %" PRIu64,
                           asked_name(asked), asked->timestamp, timestamp);
    if (!asked->explains)
        return oracle_fail(oracle, "INV-4",
                           "%s is answered `created`, what the log holds did not come of it",
                           asked_name(asked));
    for (struct asked *other = oracle_map_get(
             request_is_account(walk->request) ? &oracle->asked_accounts : &oracle->asked_transfers,
             asked_id(asked));
         other; other = other->next) {
        if (other != asked && other->answered && other->status == asked->status &&
            other->timestamp == timestamp)
            return oracle_fail(oracle, "INV-4", "%s is answered `created` for a second time",
                               asked_name(asked));
        if (other != asked)
            other->explains = false;
    }
    return true;
}

bool asked_check_burnt(struct walk *walk, const struct asked *asked) {
    const struct ledger_burnt *burnt =
        oracle_map_get(&walk->oracle->ledger.burnt_map, asked->transfer.id);
    if (!burnt || !asked->burns || position_decided(burnt->at) != asked->timestamp ||
        burnt->status != asked->status)
        return oracle_fail(walk->oracle, "INV-5",
                           "%s is answered status %" PRIu32 " at %" PRIu64
                           ", which burns its id, and no durable group says so",
                           asked_name(asked), asked->status, asked->timestamp);
    return true;
}

/* --- balances ------------------------------------------------------------------------------------------------------------------------ */

static bool balances_are(const struct account *account, const uint8_t *shown) {
    return account->debits_pending == u128_at(shown, 0) &&
           account->debits_posted == u128_at(shown, 16) &&
           account->credits_pending == u128_at(shown, 32) &&
           account->credits_posted == u128_at(shown, 48);
}

/** Whether an account (0: none is known) shows these balances as of `before`. */
static bool account_shows(const struct oracle *oracle, uint128_t id, position_t before,
                          const uint8_t *shown) {
    static const uint8_t nothing[64];
    const struct ledger_account *known = ledger_account_get(oracle, id);
    struct account account;
    if (known && ledger_account_as_of(known, before, &account))
        return balances_are(&account, shown);
    return memcmp(shown, nothing, sizeof(nothing)) == 0;
}

/** Refused before anybody looks for the account. */
static bool refused_early(const struct net_request *request, uint32_t status) {
    static const uint32_t accounts[] = {1, 2, 3, 22, 23, 24, 25};
    static const uint32_t transfers[] = {1, 2, 3, 56, 57, 58, 59};
    const uint32_t *early = request_is_account(request) ? accounts : transfers;
    for (size_t i = 0; i < 7; i++) {
        if (early[i] == status)
            return true;
    }
    return false;
}

static bool balances_as_of(const struct oracle *oracle, const struct asked *asked,
                           position_t before) {
    const uint8_t *shown = asked->request->entries[asked->index] + 16;
    static const uint8_t nothing[64];
    if (request_is_account(asked->request))
        return account_shows(oracle, asked->account.id, before, shown);
    const struct transfer *transfer = &asked->transfer;
    bool resolves = transfer->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING);
    bool refused = asked->status != TRANSFER_STATUS_created;
    if (refused && (refused_early(asked->request, asked->status) || resolves) &&
        memcmp(shown, nothing, sizeof(nothing)) == 0)
        return true;
    const struct ledger_transfer *pending = ledger_transfer_get(oracle, transfer->pending_id);
    if (pending && pending->at < before &&
        (resolves || (transfer->debit_account_id == 0 && refused)) &&
        account_shows(oracle, pending->record.debit_account_id, before, shown))
        return true;
    /* A pending transfer that only the failed chain around it would have made. */
    for (uint32_t i = asked->index;
         refused && resolves && i-- > 0 && asked_is_linked(&asked->request->events[i]);) {
        const struct transfer *earlier = &asked->request->events[i].transfer;
        if (earlier->id == transfer->pending_id &&
            account_shows(oracle, earlier->debit_account_id, before, shown))
            return true;
    }
    return !(resolves && !refused) &&
           account_shows(oracle, transfer->debit_account_id, before, shown);
}

bool asked_balances_right(const struct walk *walk, const struct asked *asked, position_t before) {
    return !walk->request->balances || balances_as_of(walk->oracle, asked, before);
}

bool asked_check_balances(struct walk *walk, const struct asked *asked, position_t before) {
    return asked_balances_right(walk, asked, before) ||
           oracle_fail(walk->oracle, "balances",
                       "%s, status %" PRIu32 ": the balances shown are not those after %" PRIu64
                       " (debits posted %s, credits posted %s)",
                       asked_name(asked), asked->status, position_decided(before) - 1,
                       oracle_id(u128_at(walk->request->entries[asked->index] + 16, 16)),
                       oracle_id(u128_at(walk->request->entries[asked->index] + 16, 48)));
}

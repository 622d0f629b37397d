/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>

#include "engine/base/status.h"
#include "engine/base/types.h"
#include "net/client/tally.h"
#include "net/protocol.h"

/** Names, and the proof that the public header says what the ledger's own headers say. */

#define NAME_CASE(name, number)                                                                    \
    case number:                                                                                   \
        return #name;

const char *tally_transfer_status_name(uint32_t status) {
    switch (status) {
        TALLY_TRANSFER_STATUS_TABLE(NAME_CASE)
        TALLY_CLIENT_STATUS_TABLE(NAME_CASE)
    }
    return "?";
}

const char *tally_account_status_name(uint32_t status) {
    switch (status) {
        TALLY_ACCOUNT_STATUS_TABLE(NAME_CASE)
        TALLY_CLIENT_STATUS_TABLE(NAME_CASE)
    }
    return "?";
}

const char *tally_lookup_status_name(uint32_t status) {
    switch (status) {
        TALLY_LOOKUP_STATUS_TABLE(NAME_CASE)
        TALLY_CLIENT_STATUS_TABLE(NAME_CASE)
    }
    return "?";
}

const char *tally_code_name(int code) {
    switch (code) {
    case TALLY_OK:
        return "ok";
    case TALLY_OVERLOADED:
        return "overloaded";
    case TALLY_MALFORMED:
        return "malformed";
    case TALLY_UNSUPPORTED_OPERATION:
        return "unsupported_operation";
    case TALLY_UNKNOWN:
        return "unknown";
    case TALLY_REPLICA_BEHIND:
        return "replica_behind";
    case TALLY_NOT_SENT:
        return "not_sent";
    }
    return "?";
}

const char *tally_version(void) {
    return TALLY_VERSION;
}

#define X(name, number, burns)                                                                     \
    _Static_assert((uint32_t)TALLY_TRANSFER_STATUS_##name == (uint32_t)TRANSFER_STATUS_##name,     \
                   #name);
TRANSFER_STATUS_TABLE(X)
#undef X
#define X(name, number, burns)                                                                     \
    _Static_assert((uint32_t)TALLY_ACCOUNT_STATUS_##name == (uint32_t)ACCOUNT_STATUS_##name, #name);
ACCOUNT_STATUS_TABLE(X)
#undef X
#define X(name, number, burns)                                                                     \
    _Static_assert((int)TALLY_LOOKUP_STATUS_##name == (int)LOOKUP_STATUS_##name, #name);
LOOKUP_STATUS_TABLE(X)
#undef X

#define SAME(public, own) _Static_assert((int)(public) == (int)(own), #public)
SAME(TALLY_OK, REQUEST_CODE_ok);
SAME(TALLY_OVERLOADED, REQUEST_CODE_overloaded);
SAME(TALLY_MALFORMED, REQUEST_CODE_malformed);
SAME(TALLY_UNSUPPORTED_OPERATION, REQUEST_CODE_unsupported_operation);
SAME(TALLY_UNKNOWN, REQUEST_CODE_unknown_outcome);
SAME(TALLY_REPLICA_BEHIND, REQUEST_CODE_replica_behind);
SAME(TALLY_CREATE_ACCOUNTS, OPERATION_CREATE_ACCOUNTS);
SAME(TALLY_CREATE_TRANSFERS, OPERATION_CREATE_TRANSFERS);
SAME(TALLY_LOOKUP_ACCOUNTS, OPERATION_LOOKUP_ACCOUNTS);
SAME(TALLY_LOOKUP_TRANSFERS, OPERATION_LOOKUP_TRANSFERS);
SAME(TALLY_ACCOUNT_LINKED, ACCOUNT_LINKED);
SAME(TALLY_ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS, ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS);
SAME(TALLY_ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS, ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS);
SAME(TALLY_ACCOUNT_HISTORY, ACCOUNT_HISTORY);
SAME(TALLY_ACCOUNT_IMPORTED, ACCOUNT_IMPORTED);
SAME(TALLY_ACCOUNT_CLOSED, ACCOUNT_CLOSED);
SAME(TALLY_TRANSFER_LINKED, TRANSFER_LINKED);
SAME(TALLY_TRANSFER_PENDING, TRANSFER_PENDING);
SAME(TALLY_TRANSFER_POST_PENDING, TRANSFER_POST_PENDING);
SAME(TALLY_TRANSFER_VOID_PENDING, TRANSFER_VOID_PENDING);
SAME(TALLY_TRANSFER_BALANCING_DEBIT, TRANSFER_BALANCING_DEBIT);
SAME(TALLY_TRANSFER_BALANCING_CREDIT, TRANSFER_BALANCING_CREDIT);
SAME(TALLY_TRANSFER_CLOSING_DEBIT, TRANSFER_CLOSING_DEBIT);
SAME(TALLY_TRANSFER_CLOSING_CREDIT, TRANSFER_CLOSING_CREDIT);
SAME(TALLY_TRANSFER_IMPORTED, TRANSFER_IMPORTED);
SAME(TALLY_EVENTS_MAX, REQUEST_EVENTS_MAX);
SAME(TALLY_PORT_DEFAULT, NET_UDP_PORT_DEFAULT);

#define SAME_FIELD(record, field)                                                                  \
    _Static_assert(offsetof(struct tally_##record, field) == offsetof(struct record, field), #field)
SAME_FIELD(account, id);
SAME_FIELD(account, debits_pending);
SAME_FIELD(account, debits_posted);
SAME_FIELD(account, credits_pending);
SAME_FIELD(account, credits_posted);
SAME_FIELD(account, user_data_128);
SAME_FIELD(account, user_data_64);
SAME_FIELD(account, user_data_32);
SAME_FIELD(account, reserved);
SAME_FIELD(account, ledger);
SAME_FIELD(account, code);
SAME_FIELD(account, flags);
SAME_FIELD(account, timestamp);
SAME_FIELD(transfer, id);
SAME_FIELD(transfer, debit_account_id);
SAME_FIELD(transfer, credit_account_id);
SAME_FIELD(transfer, amount);
SAME_FIELD(transfer, pending_id);
SAME_FIELD(transfer, user_data_128);
SAME_FIELD(transfer, user_data_64);
SAME_FIELD(transfer, user_data_32);
SAME_FIELD(transfer, timeout);
SAME_FIELD(transfer, ledger);
SAME_FIELD(transfer, code);
SAME_FIELD(transfer, flags);
SAME_FIELD(transfer, timestamp);
SAME_FIELD(balances, debits_pending);
SAME_FIELD(balances, debits_posted);
SAME_FIELD(balances, credits_pending);
SAME_FIELD(balances, credits_posted);
_Static_assert(sizeof(struct tally_account) == sizeof(struct account), "accounts");
_Static_assert(sizeof(struct tally_transfer) == sizeof(struct transfer), "transfers");
_Static_assert(sizeof(struct tally_result) == sizeof(struct result), "results");
_Static_assert(sizeof(struct tally_balances) == sizeof(struct balances), "balances");

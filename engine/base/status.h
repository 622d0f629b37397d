/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_STATUS_H
#define TALLY_ENGINE_BASE_STATUS_H

#include <stdbool.h>
#include <stdint.h>

/** Every status that a client can see, in one table each; rows stand in the order of precedence
 *  (design section 2 and 14). X(name, number, burns the id). */

#define TRANSFER_STATUS_TABLE(X)                                                                   \
    X(linked_event_chain_open, 2, false)                                                           \
    X(linked_event_failed, 1, false)                                                               \
    X(imported_event_expected, 56, false)                                                          \
    X(imported_event_not_expected, 57, false)                                                      \
    X(timestamp_must_be_zero, 3, false)                                                            \
    X(imported_event_timestamp_out_of_range, 58, false)                                            \
    X(imported_event_timestamp_must_not_advance, 59, false)                                        \
    X(reserved_flag, 4, false)                                                                     \
    X(id_must_not_be_zero, 5, false)                                                               \
    X(id_must_not_be_int_max, 6, false)                                                            \
    X(not_authorized, 203, false)                                                                  \
    X(id_expired, 200, false)                                                                      \
    X(id_in_future, 201, false)                                                                    \
    X(exists_with_different_flags, 36, false)                                                      \
    X(exists_with_different_pending_id, 40, false)                                                 \
    X(exists_with_different_timeout, 44, false)                                                    \
    X(exists_with_different_debit_account_id, 37, false)                                           \
    X(exists_with_different_credit_account_id, 38, false)                                          \
    X(exists_with_different_amount, 39, false)                                                     \
    X(exists_with_different_user_data_128, 41, false)                                              \
    X(exists_with_different_user_data_64, 42, false)                                               \
    X(exists_with_different_user_data_32, 43, false)                                               \
    X(exists_with_different_ledger, 67, false)                                                     \
    X(exists_with_different_code, 45, false)                                                       \
    X(exists, 46, false)                                                                           \
    X(id_already_failed, 68, false)                                                                \
    X(memory_full, 202, false)                                                                     \
    X(flags_are_mutually_exclusive, 7, false)                                                      \
    X(debit_account_id_must_not_be_zero, 8, false)                                                 \
    X(debit_account_id_must_not_be_int_max, 9, false)                                              \
    X(credit_account_id_must_not_be_zero, 10, false)                                               \
    X(credit_account_id_must_not_be_int_max, 11, false)                                            \
    X(accounts_must_be_different, 12, false)                                                       \
    X(pending_id_must_be_zero, 13, false)                                                          \
    X(pending_id_must_not_be_zero, 14, false)                                                      \
    X(pending_id_must_not_be_int_max, 15, false)                                                   \
    X(pending_id_must_be_different, 16, false)                                                     \
    X(timeout_reserved_for_pending_transfer, 17, false)                                            \
    X(closing_transfer_must_be_pending, 64, false)                                                 \
    X(ledger_must_not_be_zero, 19, false)                                                          \
    X(code_must_not_be_zero, 20, false)                                                            \
    X(debit_account_not_found, 21, true)                                                           \
    X(credit_account_not_found, 22, true)                                                          \
    X(accounts_must_have_the_same_ledger, 23, false)                                               \
    X(transfer_must_have_the_same_ledger_as_accounts, 24, false)                                   \
    X(pending_id_expired, 210, false)                                                              \
    X(pending_transfer_not_found, 25, true)                                                        \
    X(pending_transfer_not_pending, 26, false)                                                     \
    X(pending_transfer_has_different_debit_account_id, 27, false)                                  \
    X(pending_transfer_has_different_credit_account_id, 28, false)                                 \
    X(pending_transfer_has_different_ledger, 29, false)                                            \
    X(pending_transfer_has_different_code, 30, false)                                              \
    X(exceeds_pending_transfer_amount, 31, false)                                                  \
    X(pending_transfer_has_different_amount, 32, false)                                            \
    X(pending_transfer_already_posted, 33, false)                                                  \
    X(pending_transfer_already_voided, 34, false)                                                  \
    X(pending_transfer_expired, 35, false)                                                         \
    X(imported_event_timestamp_must_not_regress, 60, false)                                        \
    X(imported_event_timestamp_must_postdate_debit_account, 61, false)                             \
    X(imported_event_timestamp_must_postdate_credit_account, 62, false)                            \
    X(imported_event_timeout_must_be_zero, 63, false)                                              \
    X(debit_account_already_closed, 65, true)                                                      \
    X(credit_account_already_closed, 66, true)                                                     \
    X(overflows_debits_pending, 47, false)                                                         \
    X(overflows_credits_pending, 48, false)                                                        \
    X(overflows_debits_posted, 49, false)                                                          \
    X(overflows_credits_posted, 50, false)                                                         \
    X(overflows_debits, 51, false)                                                                 \
    X(overflows_credits, 52, false)                                                                \
    X(overflows_timeout, 53, false)                                                                \
    X(exceeds_credits, 54, true)                                                                   \
    X(exceeds_debits, 55, true)                                                                    \
    X(created, 4294967295u, false)

#define ACCOUNT_STATUS_TABLE(X)                                                                    \
    X(linked_event_chain_open, 2, false)                                                           \
    X(linked_event_failed, 1, false)                                                               \
    X(imported_event_expected, 22, false)                                                          \
    X(imported_event_not_expected, 23, false)                                                      \
    X(timestamp_must_be_zero, 3, false)                                                            \
    X(imported_event_timestamp_out_of_range, 24, false)                                            \
    X(imported_event_timestamp_must_not_advance, 25, false)                                        \
    X(reserved_field, 4, false)                                                                    \
    X(reserved_flag, 5, false)                                                                     \
    X(id_must_not_be_zero, 6, false)                                                               \
    X(id_must_not_be_int_max, 7, false)                                                            \
    X(not_authorized, 203, false)                                                                  \
    X(exists_with_different_flags, 15, false)                                                      \
    X(exists_with_different_user_data_128, 16, false)                                              \
    X(exists_with_different_user_data_64, 17, false)                                               \
    X(exists_with_different_user_data_32, 18, false)                                               \
    X(exists_with_different_ledger, 19, false)                                                     \
    X(exists_with_different_code, 20, false)                                                       \
    X(exists, 21, false)                                                                           \
    X(memory_full, 202, false)                                                                     \
    X(flags_are_mutually_exclusive, 8, false)                                                      \
    X(debits_pending_must_be_zero, 9, false)                                                       \
    X(debits_posted_must_be_zero, 10, false)                                                       \
    X(credits_pending_must_be_zero, 11, false)                                                     \
    X(credits_posted_must_be_zero, 12, false)                                                      \
    X(ledger_must_not_be_zero, 13, false)                                                          \
    X(code_must_not_be_zero, 14, false)                                                            \
    X(imported_event_timestamp_must_not_regress, 26, false)                                        \
    X(created, 4294967295u, false)

/** Answer to one id of a lookup. Statuses 204 to 209 stay free for striped accounts. */
#define LOOKUP_STATUS_TABLE(X)                                                                     \
    X(found, 1, false)                                                                             \
    X(absent, 2, false)                                                                            \
    X(expired, 3, false)

/** Codes of a whole request (the reply's inner header); nothing in it took effect, but for unknown_outcome. */
#define REQUEST_CODE_TABLE(X)                                                                      \
    X(ok, 0, false)                                                                                \
    X(overloaded, 1, false)                                                                        \
    X(malformed, 2, false)                                                                         \
    X(unsupported_operation, 3, false)                                                             \
    X(unknown_outcome, 4, false)                                                                   \
    X(replica_behind, 5, false)

#define X(name, number, burns) TRANSFER_STATUS_##name = number,
enum transfer_status { TRANSFER_STATUS_TABLE(X) };
#undef X
#define X(name, number, burns) ACCOUNT_STATUS_##name = number,
enum account_status { ACCOUNT_STATUS_TABLE(X) };
#undef X
#define X(name, number, burns) LOOKUP_STATUS_##name = number,
enum lookup_status { LOOKUP_STATUS_TABLE(X) };
#undef X
#define X(name, number, burns) REQUEST_CODE_##name = number,
enum request_code { REQUEST_CODE_TABLE(X) };
#undef X

/** @return the status's name, or NULL for a number that is in no row. */
const char *transfer_status_name(uint32_t status);
const char *account_status_name(uint32_t status);
const char *lookup_status_name(uint32_t status);
const char *request_code_name(uint32_t code);

/** Whether a failure with this status burns the id: a retry answers id_already_failed. */
bool transfer_status_burns_id(uint32_t status);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_TRANSFER_DECIDE_H
#define TALLY_ENGINE_TRANSFER_DECIDE_H

#include "engine/base/hash.h"
#include "engine/base/planted.h"
#include "engine/base/status.h"
#include "engine/base/types.h"
#include "engine/pending_table.h"

/** The one place where a transfer is judged: a pure function from an event and the records that it touches to an outcome.
 *  Flow:  gather -> [transfer_decide] -> transfer_outcome -> install, log
 *  It reads no table, clock or configuration, and changes nothing. Keeps: INV-1, INV-2, INV-4. */

/** What is known about an id that an event names. */
enum id_knowledge {
    ID_ABSENT,    /**< never seen, as far as is remembered */
    ID_SAME,      /**< exists, and the requested fields have the same digest */
    ID_DIFFERENT, /**< exists, with other requested fields: the log tells which */
    ID_BURNT,     /**< failed for good */
};

/** What was gathered for one event. Accounts and pending are NULL where they do not exist. */
struct transfer_view {
    const struct transfer *event;
    uint64_t decided; /**< ns, the timestamp given to this decision */
    uint64_t cell_time_ms;
    uint64_t horizon_ms; /**< 0 with id_time off */
    bool id_time;
    enum id_knowledge id;
    uint64_t id_timestamp; /**< of the first one, for ID_SAME */
    bool memory_full;      /**< no room to remember the outcome */
    const struct account
        *debit; /**< by the event's ids, or by the pending transfer's for post and void */
    const struct account *credit;
    const struct pending *pending; /**< post and void only */
    enum id_knowledge
        pending_id; /**< of pending_id, where `pending` is NULL: ABSENT, BURNT, or anything else for "a transfer that was not pending" */
    uint64_t import_cursor; /**< newest timestamp of any transfer */
    bool import_collides;   /**< an account has the imported timestamp */
};

/** An event's id exists with other fields; which status that is, transfer_exists() tells once the log was read. Never leaves the engine. */
#define TRANSFER_STATUS_exists_unresolved 1000u

struct transfer_outcome {
    uint32_t status;        /**< enum transfer_status, or exists_unresolved */
    uint16_t pending_flags; /**< post, void: flags of the pending transfer */
    uint64_t timestamp;     /**< ns, of the result, and of the transfer if it was created */
    const struct transfer
        *record;             /**< status created: as it is stored. A plain transfer's is the event
                                        itself (whose timestamp is still zero), any other's `changed` */
    amount_t pending_amount; /**< post, void: what the pending transfer had reserved */
    struct transfer changed; /**< amount moved, fields inherited, timestamp */
};

/** Judge one event. Linked chains: the caller gives views that show the effects of earlier members.
 *  @param outcome record and pending_* are filled only when the status is created */
void transfer_decide(const struct transfer_view *view, struct transfer_outcome *outcome);

/** Which `exists` status a retry gets.
 *  @param recorded the transfer that exists
 *  @param pending the transfer that `recorded` posted or voided; NULL for others */
uint32_t transfer_exists(const struct transfer *event, const struct transfer *recorded,
                         const struct transfer *pending);

/** Secret of the request digests, spread out once. */
struct transfer_digest_keys {
    uint64_t a, b, c, d;
};
void transfer_digest_keys(uint64_t seed, struct transfer_digest_keys *keys);
/** Digest of the requested fields (all but id and timestamp).
 *  @param debit_hash, credit_hash hash_id() of the account ids that the event names, be they zero
 *  @return never 0 */
static inline uint64_t transfer_digest_plain(uint64_t debit_hash, uint64_t credit_hash,
                                             uint64_t amount, uint64_t ledger_code_flags,
                                             const struct transfer_digest_keys *keys) {
    uint64_t digest = hash_fold(debit_hash ^ keys->a, credit_hash ^ keys->b) ^
                      hash_fold(amount ^ keys->c, ledger_code_flags ^ keys->d);
    return digest ? digest : 1;
}
uint64_t transfer_digest(const struct transfer *event, uint64_t debit_hash, uint64_t credit_hash,
                         const struct transfer_digest_keys *keys);

/** What a created transfer does to its accounts. Applies to originals and copies alike; differences are mod 2^128. */
struct account_delta {
    amount_t debits_pending, debits_posted, credits_pending, credits_posted;
    int closed; /**< +1: closes, -1: reopens */
};

/** @param record created or expired transfer
 *  @param pending_amount, pending_flags of the pending transfer that `record` resolves */
static inline void transfer_deltas(const struct transfer *record, amount_t pending_amount,
                                   uint16_t pending_flags, struct account_delta *debit,
                                   struct account_delta *credit) {
    *debit = (struct account_delta){0};
    *credit = (struct account_delta){0};
    if (record->flags & TRANSFER_PENDING) {
        debit->debits_pending = record->amount;
        credit->credits_pending = record->amount;
        debit->closed = !!(record->flags & TRANSFER_CLOSING_DEBIT);
        credit->closed = !!(record->flags & TRANSFER_CLOSING_CREDIT);
    } else if (record->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING)) {
        debit->debits_pending = -pending_amount;
        credit->credits_pending = -pending_amount;
        if (record->flags & TRANSFER_POST_PENDING) {
            debit->debits_posted = record->amount;
            credit->credits_posted = record->amount;
        } else {
            debit->closed =
                PLANTED(void_keeps_closed) ? 0 : -!!(pending_flags & TRANSFER_CLOSING_DEBIT);
            credit->closed = -!!(pending_flags & TRANSFER_CLOSING_CREDIT);
        }
    } else {
        debit->debits_posted = record->amount;
        credit->credits_posted = record->amount;
    }
}

static inline void account_apply(struct account *account, const struct account_delta *delta) {
    account->debits_pending += delta->debits_pending;
    account->debits_posted += delta->debits_posted;
    account->credits_pending += delta->credits_pending;
    account->credits_posted += delta->credits_posted;
    if (delta->closed)
        account->flags = (uint16_t)(delta->closed > 0 ? account->flags | ACCOUNT_CLOSED
                                                      : account->flags & ~ACCOUNT_CLOSED);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "tests/sim/oracle_internal.h"

/* The log says that something took effect: then somebody asked for just that, and at that time it was due. */

/** Whether a record of this group, decided then, can have come of an event at all. */
static bool possible(const struct asked *asked, const struct log_group *group, uint64_t decided) {
    const struct net_request *request = asked->request;
    const struct net_session *session = request->session;
    if (session->term != group->term || (session->dead && group->seq > session->dead_seq) ||
        (session->superseded && decided > session->superseded_at))
        return false;
    const bool alone = group->lcores == 1;
    if (request->malformed || decided <= (alone ? request->floor_alone : request->floor) ||
        position_make(group->seq, decided) <= (alone ? request->floor_alone_at : request->floor_at))
        return false;
    return !request->answered || request->code == REQUEST_CODE_ok ||
           request->code == REQUEST_CODE_unknown_outcome;
}

static bool answered_otherwise(const struct asked *asked, uint32_t status, uint64_t timestamp) {
    return asked->answered && (asked->status != status || asked->timestamp != timestamp);
}

static void explains(struct oracle *oracle, struct asked *asked) {
    asked->explains = true;
    *ORACLE_PUSH(oracle, oracle->fresh, oracle->fresh_count, oracle->fresh_capacity) = asked;
}

/** Why nothing explains a record: what the events that were possible would have come to. */
static bool unexplained(struct oracle *oracle, const struct log_group *group, const char *what,
                        uint128_t id, uint64_t decided, unsigned possible_count, uint32_t status) {
    if (!possible_count)
        return oracle_fail(oracle, "INV-4",
                           "group %" PRIu64 " holds %s %s, decided at %" PRIu64
                           ", of which no request can be the cause",
                           group->seq, what, oracle_id(id), decided);
    if (status == TRANSFER_STATUS_created)
        return oracle_fail(oracle, "outcome",
                           "group %" PRIu64 " holds %s %s, decided at %" PRIu64
                           ", and its fields are not what was asked for",
                           group->seq, what, oracle_id(id), decided);
    return oracle_fail(oracle, "outcome",
                       "group %" PRIu64 " holds %s %s, decided at %" PRIu64
                       ", and what was asked for comes to status %" PRIu32,
                       group->seq, what, oracle_id(id), decided, status);
}

/** An open chain makes nothing. */
static bool chain_is_open(const struct asked *asked) {
    size_t count = chain_length(asked);
    return asked_is_linked(&asked[count - 1]);
}

bool explain_transfer(struct oracle *oracle, const struct log_group *group,
                      const struct transfer *record, uint64_t decided) {
    unsigned possible_count = 0;
    bool explained = false;
    uint32_t status = TRANSFER_STATUS_created;
    for (struct asked *asked = oracle_map_get(&oracle->asked_transfers, record->id); asked;
         asked = asked->next) {
        struct decision decision;
        if (!possible(asked, group, decided) ||
            answered_otherwise(asked, TRANSFER_STATUS_created, record->timestamp))
            continue;
        possible_count++;
        decide_single(oracle, asked, position_make(group->seq, decided), group->horizon_ms,
                      &decision);
        if (chain_is_open(asked))
            decision.status = TRANSFER_STATUS_linked_event_chain_open;
        if (decision.status != TRANSFER_STATUS_created)
            status = decision.status;
        else if (memcmp(&decision.transfer, record, sizeof(*record)) == 0) {
            explained = true;
            explains(oracle, asked);
        }
    }
    return explained ||
           unexplained(oracle, group, "transfer", record->id, decided, possible_count, status);
}

bool explain_account(struct oracle *oracle, const struct log_group *group,
                     const struct account *record, uint64_t decided) {
    unsigned possible_count = 0;
    bool explained = false;
    uint32_t status = ACCOUNT_STATUS_created;
    for (struct asked *asked = oracle_map_get(&oracle->asked_accounts, record->id); asked;
         asked = asked->next) {
        struct decision decision;
        if (!possible(asked, group, decided) ||
            answered_otherwise(asked, ACCOUNT_STATUS_created, record->timestamp))
            continue;
        possible_count++;
        decide_single(oracle, asked, position_make(group->seq, decided), group->horizon_ms,
                      &decision);
        if (chain_is_open(asked))
            decision.status = ACCOUNT_STATUS_linked_event_chain_open;
        if (decision.status != ACCOUNT_STATUS_created)
            status = decision.status;
        else if (memcmp(&decision.account, record, sizeof(*record)) == 0) {
            explained = true;
            explains(oracle, asked);
        }
    }
    return explained ||
           unexplained(oracle, group, "account", record->id, decided, possible_count, status);
}

/** The first member of the chain that an event is in. */
static const struct asked *chain_first(const struct asked *asked) {
    while (asked->index && asked_is_linked(asked - 1))
        asked--;
    return asked;
}

bool explain_burnt(struct oracle *oracle, const struct log_group *group, uint128_t id,
                   uint32_t status, uint64_t decided) {
    unsigned possible_count = 0;
    bool explained = false;
    uint32_t otherwise = TRANSFER_STATUS_created;
    for (struct asked *asked = oracle_map_get(&oracle->asked_transfers, id); asked;
         asked = asked->next) {
        if (!possible(asked, group, decided) || answered_otherwise(asked, status, decided))
            continue;
        possible_count++;
        /* The members before it were decided right before it. */
        const struct asked *first = chain_first(asked);
        size_t count = (size_t)(asked - first) + 1;
        uint64_t *times = oracle_take(oracle, count * sizeof(*times));
        struct decision *decisions = oracle_take(oracle, count * sizeof(*decisions));
        for (size_t i = 0; i < count; i++)
            times[i] = decided - (count - 1 - i) * timestamp_step(group->lcores);
        decide_chain(oracle, first, count, group->seq, times, group->horizon_ms, decisions);
        otherwise = decisions[count - 1].status;
        if (otherwise == status && status_burns(status))
            asked->burns = explained = true;
    }
    return explained ||
           unexplained(oracle, group, "burnt id", id, decided, possible_count, otherwise);
}

static uint128_t id_of(const struct asked *asked) {
    return asked->request->operation == OPERATION_CREATE_ACCOUNTS ? asked->account.id
                                                                  : asked->transfer.id;
}

/** Every event with the same id. */
static const struct asked *asked_alike(const struct oracle *oracle, const struct asked *asked) {
    bool accounts = asked->request->operation == OPERATION_CREATE_ACCOUNTS;
    return oracle_map_get(accounts ? &oracle->asked_accounts : &oracle->asked_transfers,
                          id_of(asked));
}

static bool anything_explains(const struct oracle *oracle, const struct asked *asked) {
    const struct asked *other = asked_alike(oracle, asked);
    while (other && !other->explains)
        other = other->next;
    return other;
}

static bool anything_burns(const struct oracle *oracle, const struct asked *asked) {
    const struct asked *other = asked_alike(oracle, asked);
    while (other && !other->burns)
        other = other->next;
    return other;
}

/** When the record of an event was decided. @return false: there is none in this group */
static bool decided_here(struct oracle *oracle, const struct asked *asked,
                         const struct log_group *group, uint64_t *decided) {
    if (!asked->explains)
        return false;
    if (asked->request->operation == OPERATION_CREATE_ACCOUNTS) {
        const struct ledger_account *account = ledger_account_get(oracle, asked->account.id);
        *decided = account ? position_decided(account->at) : 0;
        return account && position_seq(account->at) == group->seq;
    }
    const struct ledger_transfer *transfer = ledger_transfer_get(oracle, asked->transfer.id);
    *decided = transfer ? position_decided(transfer->at) : 0;
    return transfer && position_seq(transfer->at) == group->seq;
}

/** All members are here, one right behind the other. */
static bool chain_is_whole(struct oracle *oracle, const struct asked *first, size_t count,
                           const struct log_group *group) {
    uint64_t before = 0, decided;
    for (size_t i = 0; i < count; i++) {
        if (!decided_here(oracle, &first[i], group, &decided) ||
            (i && decided != before + timestamp_step(group->lcores)))
            return false;
        before = decided;
    }
    return true;
}

bool explain_chains(struct oracle *oracle, const struct log_group *group) {
    for (size_t i = 0; i < oracle->fresh_count; i++) {
        struct asked *asked = oracle->fresh[i];
        struct asked *first = (struct asked *)chain_first(asked);
        size_t count = chain_length(first);
        if (count == 1 || asked != first || chain_is_whole(oracle, first, count, group))
            continue;
        for (size_t j = 0; j < count; j++)
            first[j].explains = false;
    }
    for (size_t i = 0; i < oracle->fresh_count; i++) {
        struct asked *asked = oracle->fresh[i], *first = (struct asked *)chain_first(asked);
        /* A chain whose first member is missing here. */
        if (asked != first && !first->explains)
            asked->explains = false;
        if (!asked->explains && !anything_explains(oracle, asked))
            return oracle_fail(oracle, "chain",
                               "group %" PRIu64 " holds %s, but not the whole chain around it",
                               group->seq, oracle_id(id_of(asked)));
    }
    oracle->fresh_count = 0;
    return true;
}

bool explain_refused(struct oracle *oracle, struct asked *asked) {
    bool came_of_it = asked->explains || asked->burns;
    bool created = asked->explains;
    asked->explains = asked->burns = false;
    return !came_of_it ||
           (created ? anything_explains(oracle, asked) : anything_burns(oracle, asked)) ||
           oracle_fail(oracle, "outcome",
                       "request %" PRIu64 ", event %" PRIu32
                       ": what the log holds of %s came of it, and the answer says otherwise",
                       asked->request->number, asked->index, oracle_id(id_of(asked)));
}

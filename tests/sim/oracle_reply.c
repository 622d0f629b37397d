/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "tests/sim/oracle_internal.h"

/** One answer, complete: walk over its entries in order, keep the earliest time at which each can have been decided, and decide it
 *  again there. Refusals say their time; what is created has a record in the log; only `exists` and lookups have to be placed, and the
 *  earliest place that fits is never worse than a later one. */

static uint32_t entry_status(const struct net_request *request, uint32_t index) {
    return u32_at(request->entries[index], 8);
}

static uint64_t entry_timestamp(const struct net_request *request, uint32_t index) {
    return u64_at(request->entries[index], 0);
}

static bool says_exists(const struct net_request *request, uint32_t status) {
    return request_is_account(request) ? status == ACCOUNT_STATUS_exists
                                       : status == TRANSFER_STATUS_exists;
}

/** Whether only the clock or the horizon says so: then the group in which they said it must be durable. */
static bool by_the_clock(const struct net_request *request, uint32_t status) {
    return !request_is_account(request) &&
           (status == TRANSFER_STATUS_pending_transfer_expired ||
            status == TRANSFER_STATUS_id_expired || status == TRANSFER_STATUS_id_in_future ||
            status == TRANSFER_STATUS_pending_id_expired);
}

/* --- single events ------------------------------------------------------------------------------------------------------------------ */

static bool lawful(const struct oracle *oracle, const struct decision *decision, uint32_t status) {
    return decision->status == status || (status == TRANSFER_STATUS_memory_full &&
                                          oracle->config.memory_short && decision->past_id);
}

/** An id that was remembered when the event was decided may have been forgotten while its fields were fetched from the log. */
static bool forgotten_meanwhile(const struct walk *walk, const struct asked *asked,
                                const struct decision *decision) {
    const struct oracle *oracle = walk->oracle;
    seq_t seq = walk->request->token_seq;
    if (request_is_account(walk->request) || asked->status != TRANSFER_STATUS_id_expired ||
        decision->status < 36 || (decision->status > 46 && decision->status != 67) || !seq ||
        seq > oracle->group_count)
        return false;
    return id_time_ms(asked->transfer.id) < oracle->groups[seq - 1].horizon_ms;
}

/** Wherever it can stand, is it refused so, with these balances? @param at where it is, the earliest of such places */
static bool check_refused_at(struct walk *walk, const struct asked *asked, position_t *at) {
    struct oracle *oracle = walk->oracle;
    struct moment moments[MOMENTS_MAX];
    unsigned count = log_moments(oracle, asked->timestamp, moments);
    struct decision decision = {0};
    bool refused = false;
    for (unsigned i = 0; i < count; i++) {
        *at = moments[i].at;
        decide_single(oracle, asked, *at, moments[i].horizon_ms, &decision);
        if (!lawful(oracle, &decision, asked->status) &&
            !forgotten_meanwhile(walk, asked, &decision))
            continue;
        refused = true;
        if (asked_balances_right(walk, asked, *at + 1))
            return true;
    }
    if (refused)
        return asked_check_balances(walk, asked, *at + 1);
    return oracle_fail(oracle, "status",
                       "%s is answered status %" PRIu32 " at %" PRIu64 ", and comes to %" PRIu32
                       " there",
                       asked_name(asked), asked->status, asked->timestamp, decision.status);
}

/** A refusal that the log holds, or one that leaves no trace there. */
static bool check_trace(struct walk *walk, struct asked *asked) {
    bool burns = !request_is_account(walk->request) && status_burns(asked->status);
    return burns ? asked_check_burnt(walk, asked) : explain_refused(walk->oracle, asked);
}

static bool check_refused(struct walk *walk, struct asked *asked) {
    position_t at = 0;
    if (asked->timestamp <= walk->after)
        return oracle_fail(walk->oracle, "real time",
                           "%s was decided at %" PRIu64 ", not after %" PRIu64
                           ", which it must have come after",
                           asked_name(asked), asked->timestamp, walk->after);
    bool clock = by_the_clock(walk->request, asked->status);
    bool burns = !request_is_account(walk->request) && status_burns(asked->status);
    if (clock && !log_group_at(walk->oracle, asked->timestamp))
        return oracle_fail(walk->oracle, "INV-5",
                           "%s is answered status %" PRIu32 " at %" PRIu64
                           ", and the group that says so is not durable",
                           asked_name(asked), asked->status, asked->timestamp);
    if (!check_refused_at(walk, asked, &at))
        return false;
    if (burns) {
        const struct ledger_burnt *burnt =
            oracle_map_get(&walk->oracle->ledger.burnt_map, asked->transfer.id);
        at = burnt->at;
    }
    decided_at(walk, at, clock || burns);
    return true;
}

/** Where the next event that is known stands: nothing before it in the request is decided later. */
static position_t known_before(const struct walk *walk, uint32_t index) {
    const struct net_request *request = walk->request;
    for (uint32_t i = index + 1; walk->alone && i < request->event_count; i++) {
        uint32_t status = entry_status(request, i);
        struct moment moments[MOMENTS_MAX];
        position_t at;
        uint64_t timestamp;
        if (says_exists(request, status))
            continue;
        if (status != TRANSFER_STATUS_created) {
            unsigned count = log_moments(walk->oracle, entry_timestamp(request, i), moments);
            return moments[count - 1].at;
        }
        if (asked_logged(walk->oracle, &request->events[i], &at, &timestamp))
            return at;
    }
    return ~(position_t)0;
}

/** `exists` at some place: is it so there, with the balances shown? */
static bool exists_at(struct walk *walk, const struct asked *asked, position_t at) {
    struct decision decision;
    seq_t seq = position_seq(at), last = walk->oracle->group_count;
    uint64_t horizon_ms = 0;
    if (walk->oracle->config.id_time && seq)
        horizon_ms = walk->oracle->groups[(seq < last ? seq : last) - 1].horizon_ms;
    decide_single(walk->oracle, asked, at, horizon_ms, &decision);
    return decision.status == asked->status && decision.timestamp == asked->timestamp &&
           asked_balances_right(walk, asked, at + 1);
}

/** The account whose versions matter for an `exists`. */
static const struct ledger_account *home_of(const struct oracle *oracle,
                                            const struct asked *asked) {
    if (request_is_account(asked->request))
        return ledger_account_get(oracle, asked->account.id);
    const struct ledger_transfer *known = ledger_transfer_get(oracle, asked->transfer.id);
    return known ? ledger_account_get(oracle, known->record.debit_account_id) : NULL;
}

static bool check_exists(struct walk *walk, struct asked *asked) {
    position_t first, until = known_before(walk, asked->index);
    uint64_t timestamp;
    if (!asked_logged(walk->oracle, asked, &first, &timestamp))
        return oracle_fail(walk->oracle, "INV-5",
                           "%s is answered `exists`, and no durable group holds it",
                           asked_name(asked));
    position_t from = first > walk->after_at ? first : walk->after_at;
    if (from + 1 >= until)
        return oracle_fail(walk->oracle, "real time",
                           "%s is answered `exists`, before it was there or out of order",
                           asked_name(asked));
    position_t found = exists_at(walk, asked, from + 1) ? from + 1 : 0;
    const struct ledger_account *home = home_of(walk->oracle, asked);
    for (size_t i = 0; !found && home && i < home->version_count; i++) {
        position_t at = home->versions[i].at + 1;
        if (at > from && at < until && exists_at(walk, asked, at))
            found = at;
    }
    if (!found)
        return oracle_fail(
            walk->oracle, "status",
            "%s is answered `exists` of %" PRIu64
            " with its balances, which is so nowhere behind %" PRIu64 " and before %" PRIu64,
            asked_name(asked), asked->timestamp, position_decided(from), position_decided(until));
    decided_at(walk, found - 1, false);
    decided_at(walk, first, true);
    return true;
}

static bool check_single(struct walk *walk, struct asked *asked) {
    if (asked->status == TRANSFER_STATUS_created) {
        position_t at;
        if (!asked_check_created(walk, asked, &at))
            return false;
        if (position_decided(at) <= walk->after || at <= walk->after_at)
            return oracle_fail(walk->oracle, "real time",
                               "%s was decided at %" PRIu64 ", not after %" PRIu64
                               ", which it must have come after",
                               asked_name(asked), position_decided(at), walk->after);
        decided_at(walk, at, true);
        return asked_check_balances(walk, asked, at + 1);
    }
    if (!check_trace(walk, asked))
        return false;
    return says_exists(walk->request, asked->status) ? check_exists(walk, asked)
                                                     : check_refused(walk, asked);
}

/* --- chains ---------------------------------------------------------------------------------------------------------------------------- */

/** When each member was decided: one right behind the other, and only what exists or is imported hides its own time.
 *  @param seq the group that holds the chain; 0: none does */
static bool chain_times(struct walk *walk, struct asked *first, size_t count, uint64_t *times,
                        seq_t *seq) {
    unsigned lcores = log_lcores(walk->oracle, walk->request->session->term);
    uint64_t step = lcores ? timestamp_step(lcores) : 0;
    size_t known = count;
    *seq = 0;
    for (size_t i = 0; i < count; i++) {
        struct asked *asked = &first[i];
        position_t at = 0;
        if (asked->status == TRANSFER_STATUS_created) {
            if (!asked_check_created(walk, asked, &at))
                return false;
            *seq = position_seq(at);
            times[i] = position_decided(at);
        } else {
            times[i] = says_exists(walk->request, asked->status) ? 0 : asked->timestamp;
        }
        if (times[i] && known == count)
            known = i;
        else if (times[i] && !step) /* all steps must be the first one then */
            step = (times[i] - times[known]) / (i - known);
    }
    for (size_t i = 0; i < count && known < count; i++) {
        uint64_t due = times[known] + i * step - known * step;
        if (times[i] && times[i] != due)
            return oracle_fail(walk->oracle, "chain",
                               "%s was decided at %" PRIu64 ", its chain at %" PRIu64,
                               asked_name(&first[i]), times[i], times[known]);
        times[i] = due;
    }
    if (known == count || times[0] <= walk->after ||
        (*seq && position_make(*seq, times[0]) <= walk->after_at))
        return oracle_fail(walk->oracle, "real time",
                           "the chain of %s was not decided after %" PRIu64
                           ", which it must have come after",
                           asked_name(first), walk->after);
    return true;
}

/** Whether the answers to a failed chain are what it comes to in this group. @param wrong the first that is not */
static bool chain_comes_to(struct walk *walk, struct asked *first, size_t count,
                           const uint64_t *times, const struct moment *moment,
                           struct decision *decisions, size_t *wrong) {
    struct oracle *oracle = walk->oracle;
    decide_chain(oracle, first, count, position_seq(moment->at), times, moment->horizon_ms,
                 decisions);
    for (*wrong = 0; *wrong < count; ++*wrong) {
        const struct asked *asked = &first[*wrong];
        const struct decision *decision = &decisions[*wrong];
        bool expired = forgotten_meanwhile(walk, asked, decision);
        bool full = asked->status == TRANSFER_STATUS_memory_full && oracle->config.memory_short;
        if ((asked->status != decision->status && !expired && !full) ||
            (asked->timestamp != decision->timestamp && !expired))
            return false;
    }
    return true;
}

static bool chain_balances_right(const struct walk *walk, struct asked *first, size_t count,
                                 position_t before) {
    for (size_t i = 0; i < count; i++) {
        if (!asked_balances_right(walk, &first[i], before))
            return false;
    }
    return true;
}

static bool check_failed_chain(struct walk *walk, struct asked *first, size_t count,
                               const uint64_t *times, position_t *at) {
    struct oracle *oracle = walk->oracle;
    struct decision *decisions = oracle_take(oracle, count * sizeof(*decisions));
    struct moment moments[MOMENTS_MAX];
    unsigned moment_count = log_moments(oracle, times[0], moments);
    size_t wrong = 0;
    for (unsigned i = 0; i < moment_count; i++) {
        *at = position_make(position_seq(moments[i].at), times[count - 1]);
        if (chain_comes_to(walk, first, count, times, &moments[i], decisions, &wrong) &&
            (chain_balances_right(walk, first, count, *at + 1) || i + 1 == moment_count))
            return true;
    }
    for (size_t i = 0; i < count && oracle->config.memory_short; i++) {
        if (first[i].status == TRANSFER_STATUS_memory_full)
            return true; /* what the others would have come to nobody knows */
    }
    if (wrong == count)
        return true; /* its balances are what is wrong, and are looked at next */
    return oracle_fail(oracle, "status",
                       "%s, member %zu of a chain, is answered status %" PRIu32 " at %" PRIu64
                       ", and comes to %" PRIu32 " at %" PRIu64,
                       asked_name(&first[wrong]), wrong, first[wrong].status,
                       first[wrong].timestamp, decisions[wrong].status, decisions[wrong].timestamp);
}

/** What a failed chain leaves behind, or that it leaves nothing. @param durable whether the log says so */
static bool check_chain_traces(struct walk *walk, struct asked *first, size_t count,
                               const uint64_t *times, bool *durable) {
    for (size_t i = 0; i < count; i++) {
        struct asked *asked = &first[i];
        bool clock = by_the_clock(walk->request, asked->status);
        bool burns = !request_is_account(walk->request) && status_burns(asked->status);
        if (!check_trace(walk, asked))
            return false;
        if (clock && !log_group_at(walk->oracle, times[i]))
            return oracle_fail(walk->oracle, "INV-5",
                               "%s is answered status %" PRIu32 " at %" PRIu64
                               ", and the group that says so is not durable",
                               asked_name(asked), asked->status, times[i]);
        *durable |= clock || burns;
    }
    return true;
}

static bool check_chain(struct walk *walk, struct asked *first, size_t count) {
    struct oracle *oracle = walk->oracle;
    uint64_t *times = oracle_take(oracle, count * sizeof(*times));
    size_t created = 0;
    seq_t seq;
    for (size_t i = 0; i < count; i++)
        created += first[i].status == TRANSFER_STATUS_created;
    if (created != 0 && created != count)
        return oracle_fail(oracle, "chain", "the chain of %s: %zu of %zu events took effect",
                           asked_name(first), created, count);
    if (!chain_times(walk, first, count, times, &seq))
        return false;
    bool durable = created == count;
    position_t at = position_make(seq, times[count - 1]);
    if (!created && (!check_chain_traces(walk, first, count, times, &durable) ||
                     !check_failed_chain(walk, first, count, times, &at)))
        return false;
    decided_at(walk, at, durable);
    for (size_t i = 0; i < count; i++) {
        if (!asked_check_balances(walk, &first[i], at + 1))
            return false;
    }
    return true;
}

static bool check_creates(struct walk *walk) {
    struct net_request *request = walk->request;
    for (uint32_t i = 0; i < request->event_count; i++) {
        size_t wanted = request->balances ? 80 : 16;
        if (request->entry_bytes[i] != wanted || u32_at(request->entries[i], 12) != 0)
            return oracle_fail(walk->oracle, "reply",
                               "request %" PRIu64 ": entry %" PRIu32
                               " has %zu bytes or reserved bits",
                               request->number, i, request->entry_bytes[i]);
        struct asked *asked = &request->events[i];
        asked->answered = true;
        asked->status = entry_status(request, i);
        asked->timestamp = entry_timestamp(request, i);
        walk->oracle->counts.results++;
    }
    for (uint32_t i = 0; i < request->event_count;) {
        struct asked *asked = &request->events[i];
        size_t count = chain_length(asked);
        bool chain = count > 1 || asked_is_linked(asked);
        if (chain ? !check_chain(walk, asked, count) : !check_single(walk, asked))
            return false;
        i += (uint32_t)count;
    }
    return true;
}

/* --- the answer ------------------------------------------------------------------------------------------------------------------------ */

static bool check_code(struct oracle *oracle, const struct net_request *request) {
    bool malformed = request->code == REQUEST_CODE_malformed ||
                     request->code == REQUEST_CODE_unsupported_operation;
    if (request->malformed && !malformed && request->code != REQUEST_CODE_overloaded)
        return oracle_fail(oracle, "reply",
                           "request %" PRIu64 " is malformed and answered with code %u",
                           request->number, request->code);
    if (!request->malformed && malformed)
        return oracle_fail(oracle, "reply",
                           "request %" PRIu64 " is well formed and answered with code %u",
                           request->number, request->code);
    if (request->code > REQUEST_CODE_replica_behind || request->code == REQUEST_CODE_replica_behind)
        return oracle_fail(oracle, "reply", "request %" PRIu64 " is answered with code %u",
                           request->number, request->code);
    if (request->code == REQUEST_CODE_unknown_outcome && !oracle->read_failed)
        return oracle_fail(oracle, "reply",
                           "request %" PRIu64
                           " is answered `unknown_outcome`, and the log can be read",
                           request->number);
    return true;
}

bool reply_check(struct oracle *oracle, struct net_request *request) {
    if (!check_code(oracle, request))
        return false;
    oracle->counts.replies++;
    if (request->token_seq > oracle->group_count)
        return oracle_fail(oracle, "INV-5",
                           "request %" PRIu64 ": its answer shows group %" PRIu64
                           ", and only %zu are durable",
                           request->number, request->token_seq, oracle->group_count);
    if (request->code == REQUEST_CODE_unknown_outcome)
        return true;
    bool creates = request->events != NULL;
    if (request->code != REQUEST_CODE_ok) {
        for (uint32_t i = 0; creates && i < request->event_count; i++) {
            if (!explain_refused(oracle, &request->events[i]))
                return false;
        }
        return true;
    }
    bool alone = log_lcores(oracle, request->session->term) == 1;
    struct walk walk = {.oracle = oracle,
                        .request = request,
                        .after = alone ? request->floor_alone : request->floor,
                        .after_at = alone ? request->floor_alone_at : request->floor_at,
                        .alone = alone};
    if (request->stale_ok)
        walk.after = walk.after_at = 0;
    if (!(creates ? check_creates(&walk) : lookups_check(&walk)))
        return false;
    if (walk.durable > oracle->shown_durable)
        oracle->shown_durable = walk.durable;
    if (walk.newest > oracle->shown_volatile)
        oracle->shown_volatile = walk.newest;
    if (walk.durable_at > oracle->shown_durable_at)
        oracle->shown_durable_at = walk.durable_at;
    if (walk.newest_at > oracle->shown_newest_at)
        oracle->shown_newest_at = walk.newest_at;
    return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_ORACLE_INTERNAL_H
#define TALLY_TESTS_SIM_ORACLE_INTERNAL_H

#include <stdlib.h>
#include <string.h>

#include "engine/base/status.h"
#include "tests/sim/oracle.h"

/** What the oracle's files share. Reading order: oracle_packet.c (datagrams), oracle_reply.c (what an answer must be), oracle_decide.c
 *  (what an event comes to), oracle_log.c (groups and records), oracle_ledger.c (the state, every version of it). Nothing is ever
 *  forgotten, so the state as of any timestamp can be asked for: `before` a timestamp are the records decided at smaller ones. */

/* --- memory that goes all at once, and maps over it (oracle.c) ------------------------------------------------------------------- */

/** Zeroed, 16-byte aligned; never NULL. */
void *oracle_take(struct oracle *oracle, size_t bytes);
/** Room for one more of `count` elements: `array` itself, or a larger copy. `capacity` is kept. */
void *oracle_grow(struct oracle *oracle, void *array, size_t count, size_t *capacity, size_t bytes);
#define ORACLE_PUSH(oracle, array, count, capacity)                                                \
    ((array) = oracle_grow((oracle), (array), (count), &(capacity), sizeof(*(array))),             \
     &(array)[(count)++])

struct oracle_slot {
    uint128_t key;
    void *value;
};
struct oracle_map {
    struct oracle_slot *slots; /**< open addressing; value NULL: free */
    size_t slot_count, count;
};
void *oracle_map_get(const struct oracle_map *map, uint128_t key);
void oracle_map_put(struct oracle *oracle, struct oracle_map *map, uint128_t key, void *value);

/* --- the ledger ---------------------------------------------------------------------------------------------------------------------- */

/** The order in which everything happened: (seq, timestamp), high and low half. What is `before` a position is decided at a smaller one. */
typedef uint128_t position_t;

static inline position_t position_make(seq_t seq, uint64_t decided) {
    return (position_t)seq << 64 | decided;
}
static inline seq_t position_seq(position_t at) {
    return (seq_t)(at >> 64);
}
static inline uint64_t position_decided(position_t at) {
    return (uint64_t)at;
}

struct ledger_version {
    position_t at; /**< from here on */
    struct balances balances;
    bool closed;
};

struct ledger_account {
    struct account record; /**< as it was created */
    position_t at;
    uint128_t digest; /**< of what never changes */
    struct ledger_version *versions;
    size_t version_count, version_capacity;
};

enum pending_end { PENDING_IS_LIVE = 0, PENDING_IS_POSTED, PENDING_IS_VOIDED, PENDING_IS_EXPIRED };

struct ledger_transfer {
    struct transfer record; /**< as a lookup shows it */
    position_t at;
    /* pending ones */
    uint128_t digest;
    uint64_t expires_at; /**< ns; 0: never */
    enum pending_end end;
    position_t ended;
    uint128_t resolver; /**< id of what ended it */
};

struct ledger_burnt {
    uint128_t id;
    position_t at;
    uint32_t status;
};

/** Newest timestamp of any stored event of a kind, from `at` on. */
struct ledger_cursor {
    position_t at;
    uint64_t newest;
};

struct ledger {
    struct oracle_map account_map, transfer_map, burnt_map;
    struct ledger_account **accounts;
    size_t account_count, account_capacity;
    struct ledger_transfer **transfers;
    size_t transfer_count, transfer_capacity;
    struct ledger_transfer **live; /**< pending transfers that nothing has ended */
    size_t live_count, live_capacity;
    struct ledger_cursor *account_cursors, *transfer_cursors;
    size_t account_cursor_count, account_cursor_capacity;
    size_t transfer_cursor_count, transfer_cursor_capacity;
    uint64_t newest[LCORES_MAX]; /**< timestamp of each lcore's newest record */
    uint64_t burnt_count, expired_count;
};

/* --- the log --------------------------------------------------------------------------------------------------------------------------- */

struct log_group {
    seq_t seq;
    term_t term;
    uint64_t horizon_ms, cell_time;
    uint32_t lcores;
    uint8_t digest[16];
    uint8_t *bytes; /**< all of it */
    size_t length;
};

struct log_record {
    const uint8_t *bytes;
    size_t length;
    uint64_t decided;
    unsigned lcore;
    size_t order; /**< of appearance */
};

/* --- the network ----------------------------------------------------------------------------------------------------------------------- */

struct net_session {
    uint64_t id;
    term_t term;
    uint8_t instance[16];
    uint64_t nonce;
    uint16_t payload_max;
    struct oracle_map requests; /**< by number */
    uint64_t counter;           /**< last one that the node used */
    uint64_t credit;            /**< highest that the node granted */
    bool dead;                  /**< with its node */
    seq_t dead_seq;             /**< nothing of it is in a later group */
    bool superseded;            /**< by a newer session of the same client */
    uint64_t superseded_at;     /**< cell time: nothing of it is decided later */
    struct net_session *next;   /**< all of them */
};

struct net_request;

/** One event of a request that creates. */
struct asked {
    struct net_request *request;
    uint32_t index;
    union {
        struct account account;
        struct transfer transfer;
    };
    bool explains; /**< what the log created came of this event, as far as can be told */
    bool burns;    /**< the burnt id in the log came of this event, as far as can be told */
    bool answered;
    uint32_t status;
    uint64_t timestamp;
    struct asked *next; /**< another event with the same id */
};

struct net_request {
    struct net_session *session;
    uint64_t number;
    uint8_t operation, format;
    uint16_t event_count;
    bool balances, stale_ok;
    bool malformed;
    struct asked *events; /**< creates */
    uint128_t *ids;       /**< lookups */
    /* Everything here is decided at a later time than the first, and stands behind the second: on one lcore, and on several. */
    uint64_t floor_alone, floor;
    position_t floor_alone_at, floor_at;
    /* the answer */
    bool answered;
    uint8_t code;
    uint8_t datagram_count;
    uint64_t datagrams_seen; /**< bits */
    seq_t token_seq;
    uint8_t **entries; /**< of each event, and its length */
    size_t *entry_bytes;
};

/* --- everything ------------------------------------------------------------------------------------------------------------------------- */

struct oracle_block {
    struct oracle_block *next;
    size_t used, size;
    _Alignas(16) uint8_t bytes[];
};

struct hello {
    uint64_t nonce;
    uint8_t instance[16];
};

struct oracle {
    struct oracle_config config;
    char violation[600];
    char check[32];
    struct oracle_block *blocks;
    struct oracle_counts counts;

    struct ledger ledger;
    struct oracle_map asked_accounts, asked_transfers; /**< id -> struct asked */

    struct log_group *groups; /**< groups[i] has seq i + 1 */
    size_t group_count, group_capacity;
    struct asked **fresh; /**< events that explain records of the group that is being taken */
    size_t fresh_count, fresh_capacity;
    struct log_group *early; /**< durable, but not all before them are */
    size_t early_count, early_capacity;
    seq_t submitted_seq;
    /* while the log is shown again */
    bool showing, may_lose;
    seq_t shown_seq;   /**< newest group shown; 0: none yet */
    bool shown_behind; /**< bytes behind the last group were not zero */

    struct oracle_map sessions;
    struct net_session *all_sessions;
    struct hello *hellos;
    size_t hello_count, hello_capacity;
    bool read_failed;
    bool lost; /**< durable groups were forgotten, so what was told of them is true no more */

    /* Real time: whatever happens from now on is decided later than these. */
    uint64_t shown_durable;      /**< newest timestamp on which an answer so far depended */
    position_t shown_durable_at; /**< ... and its place */
    position_t shown_newest_at;
    uint64_t
        shown_volatile;   /**< also those of refusals, which only this run of the node remembers */
    uint64_t shown_clock; /**< largest cell time that this run of the node told */
    term_t term;          /**< of the newest WELCOME */
};

/** Say what is wrong, unless something was before. @return false */
bool oracle_fail(struct oracle *oracle, const char *check, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** An id as text, for messages: one of a few buffers. */
const char *oracle_id(uint128_t id);

static inline uint64_t u64_at(const void *bytes, size_t offset) {
    uint64_t value;
    memcpy(&value, (const uint8_t *)bytes + offset, sizeof(value));
    return value;
}
static inline uint32_t u32_at(const void *bytes, size_t offset) {
    uint32_t value;
    memcpy(&value, (const uint8_t *)bytes + offset, sizeof(value));
    return value;
}
static inline uint16_t u16_at(const void *bytes, size_t offset) {
    uint16_t value;
    memcpy(&value, (const uint8_t *)bytes + offset, sizeof(value));
    return value;
}
static inline uint128_t u128_at(const void *bytes, size_t offset) {
    return uint128_make(u64_at(bytes, offset + 8), u64_at(bytes, offset));
}

/* oracle_ledger.c */
struct ledger_account *ledger_account_get(const struct oracle *oracle, uint128_t id);
struct ledger_transfer *ledger_transfer_get(const struct oracle *oracle, uint128_t id);
/** An account as of `before`. @return false: it was not there */
bool ledger_account_as_of(const struct ledger_account *account, position_t before,
                          struct account *shown);
const struct ledger_version *ledger_version_as_of(const struct ledger_account *account,
                                                  position_t before);
enum pending_end ledger_pending_as_of(const struct ledger_transfer *transfer, position_t before);
uint64_t ledger_cursor_as_of(const struct ledger_cursor *cursors, size_t count, position_t before);
bool ledger_apply(struct oracle *oracle, const struct log_group *group,
                  const struct log_record *record);
/** What must hold at the end of every group. */
bool ledger_group_end(struct oracle *oracle, const struct log_group *group);
bool ledger_check_digest(struct oracle *oracle, const struct log_group *group,
                         const struct log_record *record);
bool ledger_check_total(struct oracle *oracle, const struct log_group *group, uint32_t number,
                        const struct balances *said);
unsigned ledger_partition(const struct oracle *oracle, uint128_t account_id);

/* oracle_decide.c */
/** What the earlier members of a chain would do: seen by the later ones, never by anybody else. */
struct overlay {
    struct account *accounts;
    struct ledger_transfer *transfers;
    size_t account_count, transfer_count; /**< room for two accounts and two transfers a member */
    uint64_t account_cursor, transfer_cursor;
};
struct decision {
    uint32_t status;
    uint64_t timestamp; /**< that the result shows */
    union {
        struct account account;
        struct transfer transfer;
    };
    bool past_id; /**< so far that lack of memory could be said */
};
/** Decide one event of no chain at a time. */
void decide_single(const struct oracle *oracle, const struct asked *asked, position_t at,
                   uint64_t horizon_ms, struct decision *decision);
/** Decide a chain, whole, in a group. @param decided of each member @param decisions of each member */
void decide_chain(struct oracle *oracle, const struct asked *first, size_t count, seq_t seq,
                  const uint64_t *decided, uint64_t horizon_ms, struct decision *decisions);
/** How many events from this one on make one chain (1: none, unless it is linked and the last). */
size_t chain_length(const struct asked *asked);
bool asked_is_linked(const struct asked *asked);
bool status_burns(uint32_t status);

/* oracle_log.c */
bool log_group_take(struct oracle *oracle, const uint8_t *bytes, size_t length);
/** Whether a page is a group's good header, and how long the group is. */
bool log_header_good(const uint8_t *page, size_t length, size_t *group_bytes);
/** Where something that was decided at this time can stand, and the horizon that was in force there. */
struct moment {
    position_t at;
    uint64_t horizon_ms;
};
#define MOMENTS_MAX 8
/** @return how many there are, earliest first; at least one */
unsigned log_moments(const struct oracle *oracle, uint64_t decided, struct moment *moments);
/** How many lcores decide in this term; 0: the log does not say yet. */
unsigned log_lcores(const struct oracle *oracle, term_t term);
/** From one timestamp of an lcore to its next, where so many share them. */
uint64_t timestamp_step(unsigned lcores);
/** The group that ends at or behind this time; NULL: not in the log yet. */
const struct log_group *log_group_at(const struct oracle *oracle, uint64_t decided);
void log_forget_behind(struct oracle *oracle, seq_t seq);

/* oracle_explain.c: the events of which a record of the log can have come, decided again at its time */
bool explain_transfer(struct oracle *oracle, const struct log_group *group,
                      const struct transfer *record, uint64_t decided);
bool explain_account(struct oracle *oracle, const struct log_group *group,
                     const struct account *record, uint64_t decided);
bool explain_burnt(struct oracle *oracle, const struct log_group *group, uint128_t id,
                   uint32_t status, uint64_t decided);
/** Chains that are not whole in this group explain nothing. */
bool explain_chains(struct oracle *oracle, const struct log_group *group);
/** The answer to an event says that no record came of it. @return false: then the record came of nothing */
bool explain_refused(struct oracle *oracle, struct asked *asked);

/* oracle_reply.c, oracle_lookup.c */
/** On the way through an answer. */
struct walk {
    struct oracle *oracle;
    struct net_request *request;
    uint64_t after;      /**< everything from here on is decided later */
    position_t after_at; /**< ... and stands behind this */
    bool alone;          /**< one lcore: all events of the request are decided in their order */
    uint64_t durable;    /**< newest timestamp on which the answer depends and that the log holds */
    position_t durable_at, newest_at;
    uint64_t newest; /**< newest timestamp at all */
};

/** Something of the answer was decided then, and stands there or later. */
static inline void decided_at(struct walk *walk, position_t at, bool durable) {
    uint64_t decided = position_decided(at);
    if (walk->alone && decided > walk->after)
        walk->after = decided;
    if (walk->alone && at > walk->after_at)
        walk->after_at = at;
    if (decided > walk->newest)
        walk->newest = decided;
    if (at > walk->newest_at)
        walk->newest_at = at;
    if (durable && decided > walk->durable)
        walk->durable = decided;
    if (durable && at > walk->durable_at)
        walk->durable_at = at;
}

/* oracle_asked.c */
/** Session, request and event, for messages. */
const char *asked_name(const struct asked *asked);
uint128_t asked_id(const struct asked *asked);
bool request_is_account(const struct net_request *request);
/** Where the log holds what an event created. @return false: it holds no such record */
bool asked_logged(const struct oracle *oracle, const struct asked *asked, position_t *at,
                  uint64_t *timestamp);
/** `created` and the burning statuses: the log must say so, and because of this event. */
bool asked_check_created(struct walk *walk, struct asked *asked, position_t *at);
bool asked_check_burnt(struct walk *walk, const struct asked *asked);
/** The balances that an answer shows, if they were wanted, as of everything before a place. */
bool asked_check_balances(struct walk *walk, const struct asked *asked, position_t before);
bool asked_balances_right(const struct walk *walk, const struct asked *asked, position_t before);

bool reply_check(struct oracle *oracle, struct net_request *request);
bool lookups_check(struct walk *walk);

#endif

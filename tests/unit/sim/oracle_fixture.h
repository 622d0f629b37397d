/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_UNIT_SIM_ORACLE_FIXTURE_H
#define TALLY_TESTS_UNIT_SIM_ORACLE_FIXTURE_H

#include "engine/base/status.h"
#include "tests/sim/oracle.h"

/** Histories made by hand: what a node would send and write, said by a test, so that it can be wrong in just one thing. */

#define T0 1800000000000000000ull /**< ns, when histories begin */
#define SESSION 0x1111u
#define PARTITIONS 8u
#define HASH_SEED 7u
#define DIGEST_SEED 9u
#define BACK_MS 3600000u

struct history {
    struct oracle *oracle;
    struct oracle_config config;
    uint64_t counter;
    uint64_t number; /**< of the newest request */
    uint64_t nonce;
    uint64_t term;
    /* the group that is being written */
    _Alignas(16) uint8_t body[16384];
    size_t body_bytes;
    uint32_t record_count;
    uint64_t cell_time, horizon_ms;
    uint64_t commit_seq, durable_seq; /**< that it claims */
    /* the log so far */
    uint64_t seq;
    uint8_t previous[16];
    uint8_t log[1u << 18];
    size_t log_bytes, last_bytes;
};

/** A cell with a session, term 1 and its START, durable. */
void history_open(struct history *history);
void history_close(struct history *history);
/** What fired, "" if nothing did. */
const char *history_check(const struct history *history);

/* the network */
/** A session of the client whose instance is 16 times this byte. */
void history_session(struct history *history, uint64_t session, uint8_t instance,
                     uint64_t cell_time);
/** A request under the next number. @return its number */
uint64_t history_accounts(struct history *history, const struct account *events, unsigned count);
uint64_t history_transfers(struct history *history, const struct transfer *events, unsigned count);
uint64_t history_transfers_in(struct history *history, uint64_t session,
                              const struct transfer *events, unsigned count);
uint64_t history_lookup(struct history *history, unsigned operation, uint128_t id);
/** Send the same, but want balances. */
extern bool history_balances;
/** An answer of one datagram: `count` results (or none with a code), each followed by `more` bytes of `behind`. */
struct reply {
    uint64_t session; /**< 0: SESSION */
    uint64_t number;
    unsigned operation;
    unsigned code;
    unsigned count;
    struct result results[4];
    const void *behind;
    size_t more;
    uint64_t token_seq; /**< 0: the newest */
    int32_t credit_ahead;
    bool wrong_tag;
};
void history_reply(struct history *history, struct reply reply);

/* the log */
void history_start(struct history *history, uint64_t term);
void history_account(struct history *history, uint64_t decided, const struct account *account);
/** With presence bits for whatever is not zero; `pending_amount` and its flags for post and void. */
void history_transfer(struct history *history, uint64_t decided, const struct transfer *transfer,
                      amount_t pending_amount, uint16_t pending_flags);
void history_expiry(struct history *history, uint64_t decided, const struct transfer *pending);
void history_burnt(struct history *history, uint64_t decided, uint128_t id, uint32_t status);
void history_digest(struct history *history, uint64_t decided, unsigned partition, uint128_t digest,
                    uint64_t accounts, uint64_t pendings);
void history_total(struct history *history, uint64_t decided, uint32_t ledger,
                   const struct balances *sums);
/** Seal what was written since the last group. @return its bytes; not yet durable */
const uint8_t *history_seal(struct history *history, size_t *bytes);
/** Seal it, and let it become durable. */
void history_group(struct history *history);
/** Stop, start, and find the first `bytes` of the log again, zeros behind. */
void history_restart(struct history *history, size_t bytes, bool may_lose);

/** A transfer's id: time, and a number. */
uint128_t history_id(uint64_t time_ms, unsigned number);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/sim/oracle_fixture.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define PAGE 4096u

bool history_balances;

static void put(uint8_t *bytes, size_t offset, uint64_t value, size_t size) {
    memcpy(bytes + offset, &value, size);
}

static void put128(uint8_t *bytes, size_t offset, uint128_t value) {
    memcpy(bytes + offset, &value, sizeof(value));
}

static void digest(const void *bytes, size_t length, uint8_t *into) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, length));
    memcpy(into, canonical.digest, 16);
}

uint128_t history_id(uint64_t time_ms, unsigned number) {
    return (uint128_t)time_ms << 80 | (uint128_t)number << 16;
}

void history_open(struct history *history) {
    memset(history, 0, sizeof(*history));
    history_balances = false;
    history->config = (struct oracle_config){
        .partitions = PARTITIONS,
        .hash_seed = HASH_SEED,
        .digest_seed = DIGEST_SEED,
        .id_time = true,
        .horizon_back_ms = BACK_MS,
        .horizon_min_ms = 60000,
    };
    memset(history->config.cell_id, 0xce, 16);
    history->oracle = oracle_open(&history->config);
    if (!history->oracle)
        abort();
    history->cell_time = T0;
    history->horizon_ms = T0 / NS_PER_MS - BACK_MS;
    history_session(history, SESSION, 1, T0);
    history_start(history, 1);
    history_group(history);
}

void history_close(struct history *history) {
    oracle_close(history->oracle);
}

const char *history_check(const struct history *history) {
    const char *check = oracle_check(history->oracle);
    return check ? check : "";
}

/* --- the network --------------------------------------------------------------------------------------------------------------------- */

static void header(struct history *history, uint8_t *datagram, uint8_t type, uint64_t session,
                   size_t bytes) {
    datagram[0] = 1;
    datagram[1] = type;
    put(datagram, 8, session, 8);
    put(datagram, 16, session ? ++history->counter : 0, 8);
    digest(datagram, bytes, datagram + 24);
}

void history_session(struct history *history, uint64_t session, uint8_t instance,
                     uint64_t cell_time) {
    uint8_t hello[1400] = {0}, welcome[40 + 240 + PARTITIONS] = {0};
    memset(hello + 40, instance, 16);
    put(hello, 56, ++history->nonce, 8);
    header(history, hello, 1, 0, sizeof(hello));
    oracle_packet_in(history->oracle, hello, sizeof(hello));
    put(welcome, 40, history->nonce, 8);
    memcpy(welcome + 48, history->config.cell_id, 16);
    put(welcome, 64, history->term ? history->term : 1, 8);
    put(welcome, 72, HASH_SEED, 8);
    put(welcome, 80, cell_time, 8);
    put(welcome, 88, 64, 8);
    put(welcome, 96, PARTITIONS, 4);
    put(welcome, 100, 1472, 2);
    put(welcome, 102, 64, 2);
    welcome[104] = 1;
    welcome[105] = 1;
    header(history, welcome, 3, session, sizeof(welcome));
    oracle_packet_out(history->oracle, welcome, sizeof(welcome));
}

static uint64_t request(struct history *history, uint64_t session, unsigned operation,
                        const void *events, unsigned count, size_t size) {
    uint8_t datagram[2048] = {0};
    size_t options = history_balances ? 8 : 0, at = 64 + options;
    put(datagram, 40, ++history->number, 8);
    datagram[56] = (uint8_t)operation;
    put(datagram, 58, count, 2);
    put(datagram, 60, options, 2);
    if (history_balances)
        datagram[64] = 4;
    memcpy(datagram + at, events, count * size);
    header(history, datagram, 4, session, at + count * size);
    oracle_packet_in(history->oracle, datagram, at + count * size);
    return history->number;
}

uint64_t history_accounts(struct history *history, const struct account *events, unsigned count) {
    return request(history, SESSION, OPERATION_CREATE_ACCOUNTS, events, count, sizeof(*events));
}

uint64_t history_transfers(struct history *history, const struct transfer *events, unsigned count) {
    return history_transfers_in(history, SESSION, events, count);
}

uint64_t history_transfers_in(struct history *history, uint64_t session,
                              const struct transfer *events, unsigned count) {
    return request(history, session, OPERATION_CREATE_TRANSFERS, events, count, sizeof(*events));
}

uint64_t history_lookup(struct history *history, unsigned operation, uint128_t id) {
    return request(history, SESSION, operation, &id, 1, sizeof(id));
}

void history_reply(struct history *history, struct reply reply) {
    uint8_t datagram[2048] = {0};
    size_t at = 40 + 24 + 32;
    put(datagram, 40, reply.number, 8);
    put(datagram, 48,
        (uint32_t)(reply.credit_ahead ? reply.credit_ahead : 1000 - (int32_t)reply.number), 4);
    datagram[52] = (uint8_t)reply.code;
    datagram[53] = (uint8_t)(reply.operation ? reply.operation : OPERATION_CREATE_TRANSFERS);
    datagram[55] = 1;
    put(datagram, 58, reply.count, 2);
    put(datagram, 60, 32, 2);
    datagram[64] = 16;
    datagram[65] = 24;
    put(datagram, 66, history->term, 8);
    put(datagram, 74, reply.token_seq ? reply.token_seq : history->seq, 8);
    for (unsigned i = 0; i < reply.count; i++) {
        memcpy(datagram + at, &reply.results[i], 16);
        at += 16;
        if (reply.more)
            memcpy(datagram + at, (const uint8_t *)reply.behind + i * reply.more, reply.more);
        at += reply.more;
    }
    header(history, datagram, 5, reply.session ? reply.session : SESSION, at);
    datagram[24] ^= reply.wrong_tag;
    oracle_packet_out(history->oracle, datagram, at);
}

/* --- the log ------------------------------------------------------------------------------------------------------------------------- */

static uint8_t *record(struct history *history, uint8_t type, size_t bytes, uint64_t decided,
                       uint32_t extra) {
    uint8_t *taken = history->body + history->body_bytes;
    memset(taken, 0, bytes);
    taken[0] = type;
    taken[1] = (uint8_t)(bytes / 16);
    put(taken, 4, extra, 4);
    put(taken, 8, decided, 8);
    history->body_bytes += bytes;
    history->record_count++;
    if (decided > history->cell_time)
        history->cell_time = decided;
    return taken;
}

void history_start(struct history *history, uint64_t term) {
    put(record(history, 7, 32, history->cell_time, 0), 16, term, 8);
    history->term = term;
}

void history_account(struct history *history, uint64_t decided, const struct account *account) {
    uint8_t *bytes = record(history, 2, 80, decided, 0);
    put128(bytes, 16, account->id);
    put128(bytes, 32, account->user_data_128);
    put(bytes, 48, account->user_data_64, 8);
    put(bytes, 56, account->user_data_32, 4);
    put(bytes, 60, account->ledger, 4);
    put(bytes, 64, account->code, 2);
    put(bytes, 66, account->flags, 2);
    put(bytes, 72, account->flags & ACCOUNT_IMPORTED ? account->timestamp : 0, 8);
}

static void transfer_record(struct history *history, uint8_t type, uint64_t decided,
                            const struct transfer *transfer, amount_t pending_amount,
                            uint16_t pending_flags) {
    bool resolves =
        type == 1 && (transfer->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING));
    const struct {
        uint128_t value;
        size_t size;
        bool there;
    } fields[] = {
        {transfer->amount >> 64, 8, transfer->amount >> 64},
        {transfer->user_data_128, 16, transfer->user_data_128},
        {transfer->user_data_64, 8, transfer->user_data_64},
        {transfer->user_data_32, 8, transfer->user_data_32},
        {transfer->timeout, 8, transfer->timeout && type == 1},
        {transfer->pending_id, 16, transfer->pending_id},
        {pending_amount, 16, resolves},
        {0, 8, false},
        {transfer->timestamp, 8, type == 1 && (transfer->flags & TRANSFER_IMPORTED)},
        {pending_flags, 8, resolves && pending_flags},
    };
    size_t bytes = 80;
    for (unsigned i = 0; i < 10; i++)
        bytes += fields[i].there ? fields[i].size : 0;
    uint8_t *into = record(history, type, (bytes + 15) & ~(size_t)15, decided, 0);
    uint16_t presence = 0;
    size_t at = 80;
    for (unsigned i = 0; i < 10; i++) {
        if (!fields[i].there)
            continue;
        presence |= (uint16_t)(1u << i);
        memcpy(into + at, &fields[i].value, fields[i].size);
        at += fields[i].size;
    }
    put(into, 2, presence, 2);
    put128(into, 16, transfer->id);
    put128(into, 32, transfer->debit_account_id);
    put128(into, 48, transfer->credit_account_id);
    put(into, 64, (uint64_t)transfer->amount, 8);
    put(into, 72, transfer->ledger, 4);
    put(into, 76, transfer->code, 2);
    put(into, 78, transfer->flags, 2);
}

void history_transfer(struct history *history, uint64_t decided, const struct transfer *transfer,
                      amount_t pending_amount, uint16_t pending_flags) {
    transfer_record(history, 1, decided, transfer, pending_amount, pending_flags);
}

void history_expiry(struct history *history, uint64_t decided, const struct transfer *pending) {
    transfer_record(history, 3, decided, pending, 0, 0);
}

void history_burnt(struct history *history, uint64_t decided, uint128_t id, uint32_t status) {
    put128(record(history, 4, 32, decided, status), 16, id);
}

void history_digest(struct history *history, uint64_t decided, unsigned partition, uint128_t sum,
                    uint64_t accounts, uint64_t pendings) {
    uint8_t *bytes = record(history, 5, 48, decided, partition);
    put128(bytes, 16, sum);
    put(bytes, 32, accounts, 8);
    put(bytes, 40, pendings, 8);
}

void history_total(struct history *history, uint64_t decided, uint32_t ledger,
                   const struct balances *sums) {
    memcpy(record(history, 6, 80, decided, ledger) + 16, sums, sizeof(*sums));
}

const uint8_t *history_seal(struct history *history, size_t *bytes) {
    uint8_t *page = history->log + history->log_bytes;
    size_t length = history->body_bytes, padded = (length + PAGE - 1) / PAGE * PAGE;
    memset(page, 0xa5, PAGE);
    memset(page + PAGE, 0xa5, padded);
    memcpy(page + PAGE, history->body, length);
    if (padded > length)
        put(page, PAGE + length, 0xff, 8);
    uint64_t seq = history->seq + 1;
    memcpy(page, "TALLYGRP", 8);
    put(page, 8, 1, 4);
    put(page, 12, PAGE, 4);
    memcpy(page + 16, history->config.cell_id, 16);
    put(page, 32, history->term, 8);
    put(page, 40, seq, 8);
    memcpy(page + 48, history->previous, 16);
    put(page, 64, padded, 8);
    put(page, 72, history->commit_seq, 8);
    put(page, 80, history->horizon_ms, 8);
    put(page, 88, history->cell_time, 8);
    put(page, 96, 4, 4);
    put(page, 100, 1, 4);
    memset(page + 104, 0, 24);
    put(page, 128, 0, 4);
    put(page, 132, length, 4);
    put(page, 136, history->record_count, 4);
    put(page, 140, 0, 4);
    digest(page + PAGE, padded, page + 144);
    digest(page, 3568, page + 3568);
    memcpy(page + 3584, "TALLYLOC", 8);
    put(page, 3592, history->term, 8);
    put(page, 3600, seq, 8);
    put(page, 3608, history->durable_seq, 8);
    put(page, 3616, sizeof(history->log), 8);
    digest(page + 3584, 496, page + 4080);
    memcpy(history->previous, page + 3568, 16);
    history->seq = seq;
    history->body_bytes = history->record_count = 0;
    history->last_bytes = history->log_bytes;
    history->log_bytes += *bytes = PAGE + padded;
    return page;
}

void history_group(struct history *history) {
    size_t bytes;
    const uint8_t *group = history_seal(history, &bytes);
    oracle_group_submitted(history->oracle, group, bytes);
    oracle_group_durable(history->oracle, group, bytes);
    history->commit_seq = history->durable_seq = history->seq;
}

void history_restart(struct history *history, size_t bytes, bool may_lose) {
    oracle_stopped(history->oracle);
    memset(history->log + bytes, 0, sizeof(history->log) - bytes);
    oracle_log_begin(history->oracle, 0, may_lose);
    oracle_log_file(history->oracle, history->log, sizeof(history->log));
    oracle_log_end(history->oracle);
}

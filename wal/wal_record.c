/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "engine/base/check.h"
#include "wal/wal_record.h"

#define PRESENCE_BITS 10

/** Bytes of each optional field, in the order of the presence bits. */
static const uint8_t presence_bytes[PRESENCE_BITS] = {8, 16, 8, 8, 8, 16, 16, 8, 8, 8};

_Static_assert(sizeof(struct wal_record_transfer) + 112 <= WAL_RECORD_BYTES_MAX,
               "every optional field fits");

static size_t align_record(size_t bytes) {
    return (bytes + WAL_RECORD_ALIGN - 1) & ~(size_t)(WAL_RECORD_ALIGN - 1);
}

/** @return bytes of a transfer or expiry record with these fields, 0 where a bit is unknown */
static size_t transfer_bytes(uint16_t presence) {
    size_t bytes = sizeof(struct wal_record_transfer);
    if (presence >> PRESENCE_BITS)
        return 0;
    for (unsigned bit = 0; bit < PRESENCE_BITS; bit++)
        if (presence & (1u << bit))
            bytes += presence_bytes[bit];
    return align_record(bytes);
}

static uint8_t *put(uint8_t *at, const void *field, size_t bytes) {
    memcpy(at, field, bytes);
    return at + bytes;
}

size_t wal_record_transfer_encode(uint8_t type, const struct wal_transfer_fields *fields,
                                  void *out) {
    const struct transfer *t = &fields->transfer;
    struct wal_record_transfer *record = out;
    assert(type == WAL_RECORD_TRANSFER || type == WAL_RECORD_EXPIRY);
    assert((uintptr_t)out % WAL_RECORD_ALIGN == 0);

    const uint64_t amount_high = (uint64_t)(t->amount >> 64);
    const uint64_t user_data_32 = t->user_data_32, timeout = t->timeout,
                   pending_flags = fields->pending_flags;
    const struct {
        const void *field;
        bool present;
    } optional[PRESENCE_BITS] = {
        {&amount_high, amount_high != 0},
        {&t->user_data_128, t->user_data_128 != 0},
        {&t->user_data_64, t->user_data_64 != 0},
        {&user_data_32, user_data_32 != 0},
        {&timeout, timeout != 0},
        {&t->pending_id, t->pending_id != 0},
        {&fields->pending_amount, fields->pending_amount != 0},
        {&fields->request_digest, fields->request_digest != 0},
        {&t->timestamp, t->timestamp != fields->decided},
        {&pending_flags, pending_flags != 0},
    };

    uint16_t presence = 0;
    uint8_t *at = (uint8_t *)out + sizeof(*record);
    for (unsigned bit = 0; bit < PRESENCE_BITS; bit++) {
        if (!optional[bit].present)
            continue;
        presence |= (uint16_t)(1u << bit);
        at = put(at, optional[bit].field, presence_bytes[bit]);
    }
    size_t used = (size_t)(at - (uint8_t *)out), length = align_record(used);
    memset(at, 0, length - used);
    *record = (struct wal_record_transfer){
        .head = {.type = type,
                 .length = (uint8_t)(length / WAL_RECORD_ALIGN),
                 .presence = presence},
        .timestamp = fields->decided,
        .id = t->id,
        .debit_account_id = t->debit_account_id,
        .credit_account_id = t->credit_account_id,
        .amount = (uint64_t)t->amount,
        .ledger = t->ledger,
        .code = t->code,
        .flags = t->flags,
    };
    return length;
}

int wal_record_transfer_decode(const void *record, size_t length,
                               struct wal_transfer_fields *fields) {
    struct wal_record_transfer fixed;
    if (length < sizeof(fixed))
        return -EBADMSG;
    memcpy(&fixed, record, sizeof(fixed));
    if (fixed.head.type != WAL_RECORD_TRANSFER && fixed.head.type != WAL_RECORD_EXPIRY)
        return -EBADMSG;
    size_t bytes = wal_record_length(record, length);
    if (bytes == 0)
        return -EBADMSG;

    uint64_t amount_high = 0, user_data_32 = 0, timeout = 0, pending_flags = 0;
    memset(fields, 0, sizeof(*fields));
    struct transfer *t = &fields->transfer;
    t->timestamp = fixed.timestamp;
    void *const optional[PRESENCE_BITS] = {
        &amount_high,  &t->user_data_128, &t->user_data_64,        &user_data_32,
        &timeout,      &t->pending_id,    &fields->pending_amount, &fields->request_digest,
        &t->timestamp, &pending_flags,
    };
    const uint8_t *start = record, *at = start + sizeof(fixed);
    for (unsigned bit = 0; bit < PRESENCE_BITS; bit++) {
        if (!(fixed.head.presence & (1u << bit)))
            continue;
        memcpy(optional[bit], at, presence_bytes[bit]);
        at += presence_bytes[bit];
    }
    for (; at < start + bytes; at++)
        if (*at != 0)
            return -EBADMSG;
    if (user_data_32 > UINT32_MAX || timeout > UINT32_MAX || pending_flags > UINT16_MAX)
        return -EBADMSG;

    t->id = fixed.id;
    t->debit_account_id = fixed.debit_account_id;
    t->credit_account_id = fixed.credit_account_id;
    t->amount = uint128_make(amount_high, fixed.amount);
    t->user_data_32 = (uint32_t)user_data_32;
    t->timeout = (uint32_t)timeout;
    t->ledger = fixed.ledger;
    t->code = fixed.code;
    t->flags = fixed.flags;
    fields->decided = fixed.timestamp;
    fields->pending_flags = (uint16_t)pending_flags;
    return 0;
}

/** @return bytes that a record with this head must have, 0 for a type or head that cannot be */
static size_t expected_bytes(const struct wal_record_head *head) {
    switch (head->type) {
    case WAL_RECORD_TRANSFER:
    case WAL_RECORD_EXPIRY:
        return head->extra == 0 ? transfer_bytes(head->presence) : 0;
    case WAL_RECORD_ACCOUNT:
        return head->presence == 0 && head->extra == 0 ? sizeof(struct wal_record_account) : 0;
    case WAL_RECORD_BURNT_ID:
        return head->presence == 0 ? sizeof(struct wal_record_burnt_id) : 0;
    case WAL_RECORD_PARTITION_DIGEST:
        return head->presence == 0 ? sizeof(struct wal_record_partition_digest) : 0;
    case WAL_RECORD_LEDGER_TOTAL:
        return head->presence == 0 ? sizeof(struct wal_record_ledger_total) : 0;
    case WAL_RECORD_START:
        return head->presence == 0 && head->extra == 0 ? sizeof(struct wal_record_start) : 0;
    default:
        return 0;
    }
}

size_t wal_record_length(const void *record, size_t length) {
    struct wal_record_head head;
    if (length < sizeof(head))
        return 0;
    memcpy(&head, record, sizeof(head));
    if (head.type == WAL_RECORD_PADDING)
        return head.length == 0 ? length : 0;
    size_t bytes = (size_t)head.length * WAL_RECORD_ALIGN;
    return bytes != 0 && bytes <= length && bytes == expected_bytes(&head) ? bytes : 0;
}

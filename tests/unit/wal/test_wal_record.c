/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "wal/wal_inspect.h"
#include "wal/wal_record.h"

/* Records: what goes in comes out, sizes are what the format says, and damaged bytes are never taken for a record. */

static uint128_t wide(uint64_t *random) {
    return uint128_make(test_random(random), test_random(random));
}

/** A transfer whose optional fields are there or not by the bits of `mask`. */
static struct wal_transfer_fields random_fields(uint64_t *random, uint64_t mask) {
    struct wal_transfer_fields fields;
    memset(&fields, 0, sizeof(fields));
    struct transfer *t = &fields.transfer;
    t->id = wide(random);
    t->debit_account_id = wide(random);
    t->credit_account_id = wide(random);
    t->amount = mask & WAL_HAS_AMOUNT_HIGH ? wide(random) : test_random(random);
    t->user_data_128 = mask & WAL_HAS_USER_DATA_128 ? wide(random) : 0;
    t->user_data_64 = mask & WAL_HAS_USER_DATA_64 ? test_random(random) : 0;
    t->user_data_32 = mask & WAL_HAS_USER_DATA_32 ? (uint32_t)test_random(random) : 0;
    t->timeout = mask & WAL_HAS_TIMEOUT ? (uint32_t)test_random(random) : 0;
    t->pending_id = mask & WAL_HAS_PENDING_ID ? wide(random) : 0;
    fields.pending_amount = mask & WAL_HAS_PENDING_AMOUNT ? wide(random) : 0;
    fields.request_digest = mask & WAL_HAS_REQUEST_DIGEST ? test_random(random) : 0;
    fields.decided = test_random(random) >> 1;
    t->timestamp = mask & WAL_HAS_IMPORTED_TIME ? test_random(random) >> 1 : fields.decided;
    fields.pending_flags = mask & WAL_HAS_PENDING_FLAGS ? (uint16_t)test_random(random) : 0;
    t->ledger = (uint32_t)test_random(random);
    t->code = (uint16_t)test_random(random);
    t->flags = (uint16_t)test_random(random);
    return fields;
}

static void every_presence_round_trips(void) {
    uint64_t random = test_seed(11);
    _Alignas(16) uint8_t record[WAL_RECORD_BYTES_MAX];
    for (unsigned mask = 0; mask < 1024; mask++) {
        uint8_t type = mask % 3 ? WAL_RECORD_TRANSFER : WAL_RECORD_EXPIRY;
        struct wal_transfer_fields in = random_fields(&random, mask), out;
        size_t length = wal_record_transfer_encode(type, &in, record);
        CHECK(length <= WAL_RECORD_BYTES_MAX && length % WAL_RECORD_ALIGN == 0);
        CHECK_EQ(wal_record_length(record, sizeof(record)), length);
        CHECK_EQ(wal_record_transfer_decode(record, length, &out), 0);
        CHECK(memcmp(&in, &out, sizeof(in)) == 0);
        /* a byte less is not a record */
        CHECK_EQ(wal_record_length(record, length - 1), 0);
        CHECK_EQ(wal_record_transfer_decode(record, length - 1, &out), -EBADMSG);
    }
}

static void plain_transfer_takes_80_bytes(void) {
    _Alignas(16) uint8_t record[WAL_RECORD_BYTES_MAX];
    struct wal_transfer_fields fields = {
        .transfer = {.id = 1, .amount = UINT64_MAX, .timestamp = 5}, .decided = 5};
    CHECK_EQ(wal_record_transfer_encode(WAL_RECORD_TRANSFER, &fields, record), 80);
    CHECK_EQ(record[0], WAL_RECORD_TRANSFER);
    CHECK_EQ(record[1], 5);
}

static void lengths_by_type(void) {
    static const struct {
        uint8_t type, units;
        uint16_t presence;
        uint32_t extra;
        size_t want; /* of 256 readable bytes */
    } cases[] = {
        {WAL_RECORD_TRANSFER, 5, 0, 0, 80},
        {WAL_RECORD_TRANSFER, 6, 0, 0, 0},
        {WAL_RECORD_TRANSFER, 6, WAL_HAS_AMOUNT_HIGH, 0, 96},
        {WAL_RECORD_TRANSFER, 6, WAL_HAS_AMOUNT_HIGH | WAL_HAS_TIMEOUT, 0, 96},
        {WAL_RECORD_TRANSFER, 5, 1 << 10, 0, 0},
        {WAL_RECORD_TRANSFER, 5, 0, 1, 0},
        {WAL_RECORD_EXPIRY, 5, 0, 0, 80},
        {WAL_RECORD_ACCOUNT, 5, 0, 0, 80},
        {WAL_RECORD_ACCOUNT, 5, 1, 0, 0},
        {WAL_RECORD_BURNT_ID, 2, 0, 54, 32},
        {WAL_RECORD_BURNT_ID, 3, 0, 54, 0},
        {WAL_RECORD_PARTITION_DIGEST, 3, 0, 255, 48},
        {WAL_RECORD_LEDGER_TOTAL, 5, 0, 700, 80},
        {WAL_RECORD_START, 2, 0, 0, 32},
        {WAL_RECORD_START, 0, 0, 0, 0},
        {WAL_RECORD_PADDING, 0, 0, 0, 256},
        {WAL_RECORD_PADDING, 1, 0, 0, 0},
        {0, 5, 0, 0, 0},
        {99, 5, 0, 0, 0},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        _Alignas(16) uint8_t record[WAL_RECORD_BYTES_MAX] = {0};
        struct wal_record_head head = {cases[i].type, cases[i].units, cases[i].presence,
                                       cases[i].extra};
        memcpy(record, &head, sizeof(head));
        CHECK_EQ(wal_record_length(record, sizeof(record)), cases[i].want);
        CHECK_EQ(wal_record_length(record, 7), 0);
        CHECK((wal_record_type_name(cases[i].type) != NULL) ==
              (cases[i].type != 0 && cases[i].type != 99));
    }
}

/** Whatever the bytes are, decoding stays inside them (the sanitizers watch) and either refuses or round trips. */
static void random_bytes_never_mislead(void) {
    uint64_t random = test_seed(12);
    unsigned taken = 0;
    for (unsigned i = 0; i < 200000; i++) {
        _Alignas(16) uint8_t again[WAL_RECORD_BYTES_MAX];
        struct wal_transfer_fields fields = random_fields(&random, test_random(&random) & 1023);
        _Alignas(16) uint8_t record[WAL_RECORD_BYTES_MAX];
        size_t length = wal_record_transfer_encode(WAL_RECORD_TRANSFER, &fields, record);
        for (unsigned flips = 0; flips < 1 + i % 4; flips++)
            record[test_random(&random) % (i % 2 ? 8 : length)] ^=
                (uint8_t)(1u << (test_random(&random) & 7));
        size_t room = test_random(&random) % (length + 1);
        uint8_t *exact = malloc(room + 1); /* so that a read behind it is seen */
        memcpy(exact, record, room);
        size_t said = wal_record_length(exact, room);
        CHECK(said <= room);
        if (wal_record_transfer_decode(exact, room, &fields) == 0) {
            taken++;
            CHECK(exact[0] == WAL_RECORD_TRANSFER || exact[0] == WAL_RECORD_EXPIRY);
            CHECK(wal_record_transfer_encode(exact[0], &fields, again) <= said);
        }
        free(exact);
    }
    CHECK(taken > 0);
}

static void places(void) {
    static const struct {
        seq_t seq, newest;
        unsigned lcore;
        size_t offset;
    } cases[] = {{1, 1, 0, 0},
                 {5, 9, 63, WAL_SEGMENT_BYTES_MAX - WAL_RECORD_ALIGN},
                 {(1ULL << 40) + 3, (1ULL << 40) + 3, 1, 16},
                 {(1ULL << 40) - 1, (1ULL << 40) + 100, 2, 4096},
                 {7, (1ULL << 40) + 6, 2, 4096}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        wal_place_t place = wal_place_make(cases[i].seq, cases[i].lcore, cases[i].offset);
        CHECK_EQ(wal_place_seq(place, cases[i].newest), cases[i].seq);
        CHECK_EQ(wal_place_lcore(place), cases[i].lcore);
        CHECK_EQ(wal_place_offset_bytes(place), cases[i].offset);
        CHECK(!(place & WAL_PLACE_BURNT));
        CHECK_EQ(wal_place_seq(place | WAL_PLACE_BURNT, cases[i].newest), cases[i].seq);
    }
}

int main(void) {
    TEST_RUN(every_presence_round_trips);
    TEST_RUN(plain_transfer_takes_80_bytes);
    TEST_RUN(lengths_by_type);
    TEST_RUN(random_bytes_never_mislead);
    TEST_RUN(places);
    return TEST_DONE();
}

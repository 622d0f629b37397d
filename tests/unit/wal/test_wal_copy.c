/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "tests/lib/test.h"
#include "tests/unit/wal/wal_fixture.h"
#include "wal/wal_copy.h"
#include "wal/wal_inspect.h"
#include "wal/wal_reader.h"

/** A log copied for another cell: same groups, new chain, and a refusal for whatever is not whole. */

#define FILE_BYTES (256u << 10)

struct copied {
    seq_t first, last;
    uint64_t first_file, groups, cell_time[FIXTURE_GROUPS_MAX];
};

static int note(void *context, const struct wal_header *header, uint64_t file, uint64_t offset) {
    struct copied *copied = context;
    if (copied->groups++ == 0) {
        copied->first = header->chained.seq;
        copied->first_file = file;
        if (offset != 0)
            return -EILSEQ;
    }
    copied->last = header->chained.seq;
    copied->cell_time[header->chained.seq % FIXTURE_GROUPS_MAX] = header->chained.cell_time;
    return 0;
}

/** A log of some files on a memory disk, closed properly. */
static struct fixture *log_of(unsigned commits, uint64_t seed) {
    struct fixture *fixture = fixture_new(2, FILE_BYTES, seed);
    fixture->config.identity.file_bytes = FILE_BYTES;
    if (fixture_start(fixture) != 0)
        abort();
    for (unsigned i = 0; i < commits; i++) {
        fixture_append(fixture, 0, 1 + i % 60);
        fixture_append(fixture, 1, i % 7);
        if (fixture_commit(fixture) != 0)
            abort();
    }
    if (fixture_drain(fixture) != 0)
        abort();
    return fixture;
}

static struct wal_copy_config config_of(struct fixture *fixture, struct wal_identity *to_identity,
                                        struct copied *copied) {
    *to_identity = fixture->config.identity;
    to_identity->cell_id[0] = 99;
    return (struct wal_copy_config){.from = fixture->disk,
                                    .from_identity = &fixture->config.identity,
                                    .to_identity = to_identity,
                                    .file = 1,
                                    .first_seq = 1,
                                    .last_seq = fixture_committed(fixture),
                                    .copied = note,
                                    .context = copied};
}

/** Whole logs of the same size of files, and of larger and smaller ones, recover to the very records that were logged. */
static void test_whole_log(void) {
    static const uint64_t sizes[] = {FILE_BYTES, 4 * FILE_BYTES, FILE_BYTES / 2, 13 * 4096 * 4};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct fixture *fixture = log_of(150, test_seed(7 + i));
        struct wal_identity to_identity;
        struct copied copied = {0};
        struct wal_copy_config config = config_of(fixture, &to_identity, &copied);
        struct wal_position position, recovered;
        char error[512];
        to_identity.file_bytes = sizes[i];
        CHECK_EQ(disk_memory_open(&config.to), 0);
        CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), 0);
        CHECK_EQ(position.seq, fixture_committed(fixture));
        CHECK_EQ(copied.groups, position.seq);
        fixture->config.identity = to_identity;
        CHECK_EQ(fixture_recover(fixture, config.to, &recovered), 0);
        CHECK_EQ(fixture->replayed_seq, position.seq);
        CHECK_EQ(recovered.file_number, position.file_number);
        CHECK_EQ(recovered.file_offset, position.file_offset);
        CHECK_EQ(recovered.records, position.records);
        CHECK(memcmp(recovered.digest, position.digest, sizeof(position.digest)) == 0);
        CHECK_EQ(recovered.horizon_ms, position.horizon_ms);
        CHECK_EQ(recovered.torn_bytes, 0);
        wal_position_release(&recovered);
        wal_position_release(&position);
        disk_memory_close(config.to);
        fixture_free(fixture);
    }
}

/** A copy goes on like any log. */
static void test_goes_on(void) {
    struct fixture *fixture = log_of(40, 3);
    struct wal_identity to_identity;
    struct copied copied = {0};
    struct wal_copy_config config = config_of(fixture, &to_identity, &copied);
    struct wal_position position, recovered;
    char error[512];
    CHECK_EQ(disk_memory_open(&config.to), 0);
    CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), 0);
    wal_position_release(&position);
    fixture_stop(fixture);
    fixture->disk = config.to;
    fixture->config.identity = to_identity;
    CHECK_EQ(fixture_start(fixture), 0);
    for (unsigned i = 0; i < 30; i++) {
        fixture_append(fixture, i % 2, 50);
        CHECK_EQ(fixture_commit(fixture), 0);
    }
    CHECK_EQ(fixture_drain(fixture), 0);
    CHECK_EQ(fixture_recover(fixture, config.to, &recovered), 0);
    CHECK(recovered.seq > copied.last + 30);
    wal_position_release(&recovered);
    fixture_stop(fixture);
    disk_memory_close(config.to);
    fixture_free(fixture);
}

/** From a later file on, and up to a group or a time. The first group keeps the digest of the one that is not there. */
static void test_ranges(void) {
    struct fixture *fixture = log_of(150, 11);
    struct wal_identity to_identity;
    struct copied whole = {0}, copied = {0};
    struct wal_copy_config config = config_of(fixture, &to_identity, &whole);
    struct wal_position position;
    uint64_t bytes;
    char error[512];
    CHECK_EQ(disk_memory_open(&config.to), 0);
    CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), 0);
    CHECK(position.file_number >= 4);
    wal_position_release(&position);
    disk_memory_close(config.to);

    CHECK_EQ(disk_memory_open(&config.to), 0);
    const struct wal_header *first = (const void *)disk_memory_bytes(fixture->disk, 3, &bytes);
    config.context = &copied;
    config.file = 3;
    config.first_seq = first->chained.seq;
    config.last_seq = first->chained.seq + 9;
    CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), 0);
    CHECK_EQ(copied.first, first->chained.seq);
    CHECK_EQ(copied.first_file, 3);
    CHECK_EQ(copied.groups, 10);
    CHECK_EQ(position.groups, 10);
    const struct wal_header *new_first = (const void *)disk_memory_bytes(config.to, 3, &bytes);
    CHECK(memcmp(new_first->chained.previous_digest, first->chained.previous_digest, 16) == 0);
    CHECK_EQ(wal_header_check(new_first, to_identity.cell_id), WAL_PAGE_GOOD);
    CHECK(disk_memory_bytes(config.to, position.file_number + 1, &bytes) != NULL);
    CHECK(disk_memory_bytes(config.to, 2, &bytes) == NULL);
    struct wal_inspect_summary summary;
    CHECK_EQ(wal_inspect(config.to, &to_identity, NULL, NULL, &summary, error, sizeof(error)), 0);
    CHECK_EQ(summary.first_seq, first->chained.seq);
    CHECK_EQ(summary.last_seq, position.seq);
    CHECK_EQ(summary.files, position.file_number + 1 - 2);
    CHECK_EQ(summary.end_file, position.file_number);
    CHECK_EQ(summary.end_offset, position.file_offset);
    wal_position_release(&position);
    disk_memory_close(config.to);

    memset(&copied, 0, sizeof(copied));
    CHECK_EQ(disk_memory_open(&config.to), 0);
    config.to_file = 7;
    CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), 0);
    CHECK_EQ(copied.first_file, 7);
    CHECK(disk_memory_bytes(config.to, 3, &bytes) == NULL);
    config.to_file = 0;
    wal_position_release(&position);
    disk_memory_close(config.to);

    for (seq_t until = 1; until < whole.last; until += 37) {
        memset(&copied, 0, sizeof(copied));
        CHECK_EQ(disk_memory_open(&config.to), 0);
        config.file = config.first_seq = 1;
        config.last_seq = whole.last;
        config.until_ns = whole.cell_time[until];
        CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), 0);
        CHECK(position.seq >= until && position.cell_time == config.until_ns);
        CHECK(position.seq == whole.last || whole.cell_time[position.seq + 1] > config.until_ns);
        wal_position_release(&position);
        disk_memory_close(config.to);
    }
    fixture_free(fixture);
}

/** Every kind of damage to the source is refused, by its place. */
static void test_damaged_source(void) {
    static const struct {
        uint64_t at; /**< in file 2 */
        int rc;
        const char *says;
    } cases[] = {
        {0, -EBADMSG, "bytes 0..4096"},    {20, -EBADMSG, "does not match its digest"},
        {3500, -EBADMSG, "header"},        {4096 + 100, -EBADMSG, "a segment"},
        {UINT64_MAX, -ENODATA, "missing"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture *fixture = log_of(100, 5);
        struct wal_identity to_identity;
        struct copied copied = {0};
        struct wal_copy_config config = config_of(fixture, &to_identity, &copied);
        struct wal_position position;
        uint64_t bytes;
        char error[512];
        uint8_t *file = disk_memory_bytes(fixture->disk, 2, &bytes);
        if (cases[i].at == UINT64_MAX)
            memset(file, 0, bytes);
        else
            file[cases[i].at] ^= 1;
        CHECK_EQ(disk_memory_open(&config.to), 0);
        int rc = wal_copy(&config, &position, error, sizeof(error));
        CHECK_EQ(rc, cases[i].rc);
        CHECK(strstr(error, cases[i].says) != NULL);
        disk_memory_close(config.to);
        fixture_free(fixture);
    }
}

static void test_refusals(void) {
    struct fixture *fixture = log_of(100, 5);
    struct wal_identity to_identity, other;
    struct copied copied = {0};
    struct wal_copy_config config = config_of(fixture, &to_identity, &copied);
    struct wal_position position;
    char error[512];
    CHECK_EQ(disk_memory_open(&config.to), 0);
    other = *config.from_identity;
    other.cell_id[3] ^= 1;
    config.from_identity = &other;
    CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), -EPERM);
    config.from_identity = &fixture->config.identity;
    config.first_seq = 2;
    disk_memory_close(config.to);
    CHECK_EQ(disk_memory_open(&config.to), 0);
    CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), -EBADMSG);
    CHECK(strstr(error, "another group") != NULL);
    config.first_seq = 1;
    config.last_seq += 1;
    disk_memory_close(config.to);
    CHECK_EQ(disk_memory_open(&config.to), 0);
    CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), -ENODATA);
    config.last_seq -= 1;
    to_identity.file_bytes = 4096;
    disk_memory_close(config.to);
    CHECK_EQ(disk_memory_open(&config.to), 0);
    CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), -EFBIG);
    to_identity.file_bytes = FILE_BYTES;
    disk_memory_close(config.to);
    CHECK_EQ(disk_memory_open(&config.to), 0);
    disk_memory_faults(config.to)->capacity_bytes = 2 * FILE_BYTES;
    CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), -ENOSPC);
    CHECK(strstr(error, "making it") != NULL);
    config.file = 77;
    CHECK_EQ(wal_copy(&config, &position, error, sizeof(error)), -ENODATA);
    disk_memory_close(config.to);
    fixture_free(fixture);
}

int main(void) {
    TEST_RUN(test_whole_log);
    TEST_RUN(test_goes_on);
    TEST_RUN(test_ranges);
    TEST_RUN(test_damaged_source);
    TEST_RUN(test_refusals);
    return TEST_DONE();
}

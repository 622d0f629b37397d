/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "tests/unit/wal/wal_fixture.h"
#include "wal/wal_inspect.h"
#include "wal/wal_reader.h"

/* A damaged log either recovers exactly the groups that it must, or is refused. Never less, never something else.
 *
 * The reference log has groups of many shapes over three files, and its closing group proves all the others. */

#define FILE_BYTES (96u << 10)

struct group_place {
    uint64_t file, offset, bytes;
};

static struct fixture *fixture;
static struct group_place places[64]; /* by seq */
static seq_t last_seq, proven_seq;

static int note_group(void *context, const struct wal_inspect_group *group) {
    (void)context;
    places[group->header->chained.seq] =
        (struct group_place){group->file, group->file_offset, group->bytes};
    return 0;
}

static int inspect(struct wal_inspect_summary *summary) {
    static const struct wal_inspect_visitor visitor = {.group = note_group};
    return wal_inspect(fixture->disk, &fixture->config.identity, &visitor, NULL, summary,
                       fixture->error, sizeof(fixture->error));
}

/** Write the reference log. @return 0 or -errno */
static int make_reference(void) {
    static const uint8_t appended[][2] = {{1, 0},   {0, 3},     {51, 40}, {2, 2},
                                          {100, 0}, {255, 200}, {37, 51}, {200, 9},
                                          {4, 4},   {0, 80},    {51, 1},  {3, 0}};
    struct wal_inspect_summary summary;
    fixture = fixture_new(2, FILE_BYTES, 21);
    int rc = fixture_start(fixture);
    for (unsigned i = 0; rc == 0 && i < sizeof(appended) / sizeof(*appended); i++) {
        fixture_append(fixture, 0, appended[i][0]);
        fixture_append(fixture, 1, appended[i][1]);
        rc = fixture_commit(fixture);
    }
    if (rc == 0)
        rc = fixture_drain(fixture);
    fixture_stop(fixture);
    if (rc == 0)
        rc = inspect(&summary);
    last_seq = summary.last_seq;
    proven_seq = summary.durable_seq;
    return rc;
}

/** Recover a copy of the (damaged) log. @return what recovery answered; fixture->replayed_seq says how far it came */
static int recover_copy(uint64_t *torn_bytes) {
    struct disk *copy;
    struct wal_position position;
    if (disk_memory_copy(fixture->disk, &copy) != 0)
        abort();
    int rc = fixture_recover(fixture, copy, &position);
    if (torn_bytes != NULL)
        *torn_bytes = position.torn_bytes;
    if (rc == 0) {
        /* what was cut is gone for good: a second recovery finds a clean end at the same place */
        struct wal_position again;
        if (fixture_recover(fixture, copy, &again) != 0 || again.torn_bytes != 0 ||
            again.seq != position.seq || again.file_number != position.file_number ||
            again.file_offset != position.file_offset)
            rc = -EDOM;
        wal_position_release(&position);
        wal_position_release(&again);
    } else if (fixture->error[0] == '\0' || strchr(fixture->error, '\n') != NULL) {
        rc = -EDOM;
    }
    disk_memory_close(copy);
    return rc;
}

static bool refusal(int rc) {
    return rc == -EBADMSG || rc == -ENODATA || rc == -EPERM || rc == -ENOTSUP;
}

static void reference_is_what_it_should_be(void) {
    CHECK_EQ(make_reference(), 0);
    CHECK(places[last_seq].file >= 3);
    CHECK_EQ(proven_seq, last_seq - 1);
    CHECK_EQ(recover_copy(NULL), 0);
    CHECK_EQ(fixture->replayed_seq, last_seq);
    for (seq_t seq = 1; seq <= last_seq; seq++) {
        uint64_t size;
        uint8_t *bytes =
            disk_memory_bytes(fixture->disk, places[seq].file, &size) + places[seq].offset;
        CHECK(!wal_sectors_torn(bytes, places[seq].bytes));
    }
}

/** Every byte of some headers and their surroundings, the ends of pages, and a sieve through the rest. */
static bool worth_flipping(seq_t seq, uint64_t at, uint64_t bytes) {
    bool whole = seq == 1 || seq == 6 || seq == last_seq;
    return (whole && at < WAL_PAGE_BYTES + 200) || at + 16 >= bytes || at % WAL_PAGE_BYTES < 4 ||
           at % 97 == seq;
}

static void flipped_byte_of_a_group_is_refused(void) {
    uint64_t flips = 0;
    for (seq_t seq = 1; seq <= last_seq; seq++) {
        uint64_t size;
        uint8_t *bytes =
            disk_memory_bytes(fixture->disk, places[seq].file, &size) + places[seq].offset;
        for (uint64_t at = 0; at < places[seq].bytes; at++) {
            if (!worth_flipping(seq, at, places[seq].bytes))
                continue;
            uint8_t bit = (uint8_t)(1u << ((at * 5 + seq) & 7));
            bytes[at] ^= bit;
            struct wal_position position;
            int rc = fixture_recover(fixture, fixture->disk, &position);
            bytes[at] ^= bit;
            if (!refusal(rc) || fixture->replayed_seq >= seq) {
                printf("group %u, byte %u: answer %d after group %u\n", (unsigned)seq, (unsigned)at,
                       rc, (unsigned)fixture->replayed_seq);
                CHECK(false);
            }
            flips++;
        }
    }
    CHECK(flips > 10000);
}

static void flipped_byte_of_free_space_loses_nothing(void) {
    for (uint64_t file = 1; file <= places[last_seq].file + 1; file++) {
        uint64_t size, end = 0;
        uint8_t *bytes = disk_memory_bytes(fixture->disk, file, &size);
        for (seq_t seq = 1; seq <= last_seq; seq++)
            if (places[seq].file == file)
                end = places[seq].offset + places[seq].bytes;
        for (uint64_t at = end; at < size; at += at < end + 40 ? 1 : 509) {
            bytes[at] ^= 0x10;
            int rc = recover_copy(NULL);
            bytes[at] ^= 0x10;
            /* behind the log's end it is cut; between a file's last group and the next file's first it is refused */
            if (file >= places[last_seq].file)
                CHECK_EQ(rc, 0);
            else
                CHECK(refusal(rc));
            CHECK(rc != 0 || fixture->replayed_seq == last_seq);
        }
    }
}

static void zeroed_sector(void) {
    for (seq_t seq = 1; seq <= last_seq; seq++) {
        uint64_t size;
        uint8_t saved[WAL_SECTOR_BYTES];
        uint8_t *bytes =
            disk_memory_bytes(fixture->disk, places[seq].file, &size) + places[seq].offset;
        for (uint64_t at = 0; at < places[seq].bytes; at += WAL_SECTOR_BYTES) {
            memcpy(saved, bytes + at, sizeof(saved));
            memset(bytes + at, 0, sizeof(saved));
            int rc = recover_copy(NULL);
            memcpy(bytes + at, saved, sizeof(saved));
            if (seq <= proven_seq) {
                CHECK(refusal(rc));
            } else {
                /* nothing proves the closing group: its write may never have completed */
                CHECK_EQ(rc, 0);
                CHECK_EQ(fixture->replayed_seq, seq - 1);
            }
        }
    }
}

/** Everything behind a sector is zero, as if nothing later had ever been written. */
static void cut_to_zeros_at_every_sector(void) {
    struct disk *whole;
    CHECK_EQ(disk_memory_copy(fixture->disk, &whole), 0);
    for (uint64_t file = places[last_seq].file; file >= 1; file--) {
        uint64_t size;
        uint8_t *bytes = disk_memory_bytes(fixture->disk, file, &size);
        for (uint64_t at = size; at >= WAL_SECTOR_BYTES;) {
            at -= WAL_SECTOR_BYTES;
            memset(bytes + at, 0, WAL_SECTOR_BYTES);
            seq_t want = 0;
            while (want < last_seq && (places[want + 1].file < file ||
                                       (places[want + 1].file == file &&
                                        places[want + 1].offset + places[want + 1].bytes <= at)))
                want++;
            uint64_t torn_bytes;
            CHECK_EQ(recover_copy(&torn_bytes), 0);
            CHECK_EQ(fixture->replayed_seq, want);
            bool inside =
                want < last_seq && places[want + 1].file == file && places[want + 1].offset < at;
            CHECK_EQ(torn_bytes != 0, inside);
        }
    }
    disk_memory_close(fixture->memory);
    fixture->memory = fixture->disk = whole;
}

static void shortened_file_is_refused(void) {
    for (unsigned known = 0; known < 2; known++) {
        fixture->config.identity.file_bytes = known ? FILE_BYTES : 0;
        for (uint64_t file = 1; file <= places[last_seq].file + 1; file++) {
            for (uint64_t size = 0; size < FILE_BYTES;
                 size += size < 16384 ? WAL_SECTOR_BYTES : 8192) {
                struct disk *whole = fixture->disk;
                CHECK_EQ(disk_memory_copy(whole, &fixture->disk), 0);
                CHECK_EQ(disk_memory_resize(fixture->disk, file, size), 0);
                int rc = recover_copy(NULL);
                disk_memory_close(fixture->disk);
                fixture->disk = whole;
                CHECK(refusal(rc));
            }
        }
    }
    fixture->config.identity.file_bytes = 0;
}

/** All files shortened alike: the groups themselves say how long their file was. */
static void all_files_shortened_are_refused(void) {
    for (uint64_t size = 4096; size < FILE_BYTES; size += 4096) {
        struct disk *whole = fixture->disk;
        CHECK_EQ(disk_memory_copy(whole, &fixture->disk), 0);
        for (uint64_t file = 1; disk_memory_resize(fixture->disk, file, size) == 0 && file < 5;
             file++)
            ;
        int rc = recover_copy(NULL);
        disk_memory_close(fixture->disk);
        fixture->disk = whole;
        CHECK(refusal(rc));
    }
}

static void missing_file_is_refused(void) {
    /* any file up to the one behind the last that is written; what lies further ahead may be absent */
    for (uint64_t file = 1; file <= places[last_seq].file + 1; file++) {
        struct disk *whole = fixture->disk;
        CHECK_EQ(disk_memory_copy(whole, &fixture->disk), 0);
        for (uint64_t gone = file; file > 1 && gone < 8; gone++)
            disk_memory_remove(fixture->disk, gone);
        disk_memory_remove(fixture->disk, file);
        int rc = recover_copy(NULL);
        disk_memory_close(fixture->disk);
        fixture->disk = whole;
        CHECK_EQ(rc, -ENODATA);
        CHECK(strstr(fixture->error, "missing") != NULL);
    }
}

/** Overwrite a group's header with a change that is signed again, as only another writer could. */
static int with_header(seq_t seq, void (*change)(struct wal_header *)) {
    uint64_t size;
    uint8_t *bytes = disk_memory_bytes(fixture->disk, places[seq].file, &size) + places[seq].offset;
    struct wal_header saved, changed;
    memcpy(&saved, bytes, sizeof(saved));
    changed = saved;
    change(&changed);
    wal_header_seal(&changed);
    memcpy(bytes, &changed, sizeof(changed));
    int rc = recover_copy(NULL);
    memcpy(bytes, &saved, sizeof(saved));
    return rc;
}

static void other_cell(struct wal_header *header) {
    header->chained.cell_id[5] ^= 1;
}
static void newer_format(struct wal_header *header) {
    header->chained.version = 2;
}
static void older_format(struct wal_header *header) {
    header->chained.version = 0;
}
static void other_seq(struct wal_header *header) {
    header->chained.seq++;
    header->local.seq++;
}
static void lower_term(struct wal_header *header) {
    header->chained.term = header->local.term = 0;
}
static void falling_time(struct wal_header *header) {
    header->chained.cell_time = 0;
}
static void other_previous(struct wal_header *header) {
    header->chained.previous_digest[3] ^= 1;
}
static void durable_itself(struct wal_header *header) {
    header->local.durable_seq = header->local.seq;
}
static void local_of_another(struct wal_header *header) {
    header->local.seq--;
}
static void too_many_segments(struct wal_header *header) {
    header->chained.segment_count = 64;
    header->chained.segments[63].offset = 4096;
}
static void wrong_record_count(struct wal_header *header) {
    header->chained.segments[0].records++;
}
static void longer_body(struct wal_header *header) {
    header->chained.body_bytes += 4096;
}

static void signed_nonsense_is_refused(void) {
    static const struct {
        const char *name;
        void (*change)(struct wal_header *);
        int rc;
    } cases[] = {{"cell", other_cell, -EPERM},
                 {"newer", newer_format, -ENOTSUP},
                 {"older", older_format, -EBADMSG},
                 {"seq", other_seq, -EBADMSG},
                 {"term", lower_term, -EBADMSG},
                 {"time", falling_time, -EBADMSG},
                 {"previous", other_previous, -EBADMSG},
                 {"durable", durable_itself, -EBADMSG},
                 {"local", local_of_another, -EBADMSG},
                 {"segments", too_many_segments, -EBADMSG},
                 {"records", wrong_record_count, -EBADMSG},
                 {"body", longer_body, -EBADMSG}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int rc = with_header(5, cases[i].change);
        if (rc != cases[i].rc)
            printf("%s: %d, %s\n", cases[i].name, rc, fixture->error);
        CHECK_EQ(rc, cases[i].rc);
        CHECK_EQ(fixture->replayed_seq, 4);
    }
}

/** A group of another cell, or from the wrong place, behind the end is not cut away as rubbish. */
static void strangers_behind_the_end(void) {
    uint64_t size;
    struct wal_header header;
    uint8_t *first = disk_memory_bytes(fixture->disk, 1, &size);
    uint8_t *last = disk_memory_bytes(fixture->disk, places[last_seq].file, &size);
    uint8_t *end = last + places[last_seq].offset + places[last_seq].bytes;
    memcpy(&header, first, sizeof(header));
    memcpy(end, &header, sizeof(header));
    CHECK_EQ(recover_copy(NULL), -EBADMSG);
    other_cell(&header);
    wal_header_seal(&header);
    memcpy(end, &header, sizeof(header));
    CHECK_EQ(recover_copy(NULL), -EPERM);
    memset(end, 0, sizeof(header));
    memcpy(end + 8192, &header, sizeof(header));
    CHECK_EQ(recover_copy(NULL), -EPERM);
    memset(end + 8192, 0, sizeof(header));
    CHECK_EQ(recover_copy(NULL), 0);
}

/** Ids and user data are the clients' own, and stand at the start of some page: in a torn tail they must not pass for a
 * header of a newer format. */
static void records_that_look_like_a_newer_header(void) {
    static const struct {
        uint64_t magic;
        uint32_t version;
    } words = {WAL_HEADER_MAGIC, 9};
    uint64_t size, torn;
    uint8_t *end = disk_memory_bytes(fixture->disk, places[last_seq].file, &size) +
                   places[last_seq].offset + places[last_seq].bytes;
    memset(end + 8192, WAL_FILL_BYTE, WAL_PAGE_BYTES);
    memcpy(end + 8192, &words, 12);
    CHECK_EQ(recover_copy(&torn), 0);
    CHECK_EQ(fixture->replayed_seq, last_seq);
    CHECK_EQ(torn, WAL_PAGE_BYTES);
    memset(end + 8192, 0, WAL_PAGE_BYTES);
}

static void verdict_table(void) {
    static const struct {
        enum wal_finding finding;
        enum wal_behind behind;
        enum wal_verdict verdict;
    } cases[] = {
        {WAL_FOUND_NOTHING, WAL_BEHIND_ZERO, WAL_VERDICT_END},
        {WAL_FOUND_NOTHING, WAL_BEHIND_REMAINS, WAL_VERDICT_TORN},
        {WAL_FOUND_NOTHING, WAL_BEHIND_PROOF, WAL_VERDICT_HOLE},
        {WAL_FOUND_NOTHING, WAL_BEHIND_ITSELF, WAL_VERDICT_CORRUPT},
        {WAL_FOUND_NOTHING, WAL_BEHIND_FOREIGN, WAL_VERDICT_FOREIGN},
        {WAL_FOUND_UNFINISHED, WAL_BEHIND_ZERO, WAL_VERDICT_TORN},
        {WAL_FOUND_UNFINISHED, WAL_BEHIND_REMAINS, WAL_VERDICT_TORN},
        {WAL_FOUND_UNFINISHED, WAL_BEHIND_PROOF, WAL_VERDICT_CORRUPT},
        {WAL_FOUND_UNFINISHED, WAL_BEHIND_ITSELF, WAL_VERDICT_CORRUPT},
        {WAL_FOUND_UNFINISHED, WAL_BEHIND_NEWER, WAL_VERDICT_NEWER},
        {WAL_FOUND_DAMAGED, WAL_BEHIND_ZERO, WAL_VERDICT_CORRUPT},
        {WAL_FOUND_DAMAGED, WAL_BEHIND_REMAINS, WAL_VERDICT_CORRUPT},
        {WAL_FOUND_DAMAGED, WAL_BEHIND_PROOF, WAL_VERDICT_CORRUPT},
        {WAL_FOUND_OUT_OF_CHAIN, WAL_BEHIND_ZERO, WAL_VERDICT_CORRUPT},
        {WAL_FOUND_OUT_OF_CHAIN, WAL_BEHIND_PROOF, WAL_VERDICT_CORRUPT},
        {WAL_FOUND_FOREIGN, WAL_BEHIND_ZERO, WAL_VERDICT_FOREIGN},
        {WAL_FOUND_NEWER, WAL_BEHIND_PROOF, WAL_VERDICT_NEWER},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        CHECK_EQ(wal_verdict_of(cases[i].finding, cases[i].behind), cases[i].verdict);
}

struct damage_seen {
    unsigned count;
    struct wal_damage last;
};

static int note_damage(void *context, const struct wal_damage *damage) {
    struct damage_seen *seen = context;
    seen->count++;
    seen->last = *damage;
    return 0;
}

static void inspection_reports_damage(void) {
    static const struct wal_inspect_visitor visitor = {.damage = note_damage};
    struct wal_inspect_summary summary;
    struct damage_seen seen = {0};
    uint64_t size;
    uint8_t *bytes = disk_memory_bytes(fixture->disk, places[6].file, &size) + places[6].offset;
    bytes[5000] ^= 1;
    CHECK_EQ(wal_inspect(fixture->disk, NULL, &visitor, &seen, &summary, fixture->error,
                         sizeof(fixture->error)),
             -EBADMSG);
    bytes[5000] ^= 1;
    CHECK_EQ(seen.count, 1);
    CHECK(!seen.last.torn && seen.last.seq == 6 && seen.last.file == places[6].file);
    CHECK(seen.last.file_offset == places[6].offset && seen.last.bytes == places[6].bytes);
    CHECK_EQ(summary.last_seq, 5);

    bytes =
        disk_memory_bytes(fixture->disk, places[last_seq].file, &size) + places[last_seq].offset;
    uint8_t saved[WAL_SECTOR_BYTES];
    memcpy(saved, bytes + 512, sizeof(saved));
    memset(bytes + 512, 0, sizeof(saved));
    int rc = wal_inspect(fixture->disk, NULL, &visitor, &seen, &summary, fixture->error,
                         sizeof(fixture->error));
    memcpy(bytes + 512, saved, sizeof(saved));
    CHECK_EQ(rc, 0);
    CHECK(seen.count == 2 && seen.last.torn && summary.torn_bytes == 4096 &&
          summary.last_seq == last_seq - 1);
}

static int (*list_all)(struct disk *disk, enum disk_file_kind kind, uint64_t *files,
                       unsigned count);

/** The listing of a moment ago, before the newest files were made. */
static int list_earlier(struct disk *disk, enum disk_file_kind kind, uint64_t *files,
                        unsigned count) {
    int found = list_all(disk, kind, files, count);
    return found > (int)places[last_seq].file ? (int)places[last_seq].file : found;
}

/** A running tallyd makes files while somebody inspects: that is no hole. */
static void growing_log_is_inspected(void) {
    struct wal_inspect_summary summary;
    list_all = fixture->disk->list;
    fixture->disk->list = list_earlier;
    int rc = inspect(&summary);
    fixture->disk->list = list_all;
    CHECK_EQ(rc, 0);
    CHECK_EQ(summary.last_seq, last_seq);
}

int main(void) {
    TEST_RUN(verdict_table);
    TEST_RUN(reference_is_what_it_should_be);
    if (test_failed == 0) {
        TEST_RUN(flipped_byte_of_a_group_is_refused);
        TEST_RUN(flipped_byte_of_free_space_loses_nothing);
        TEST_RUN(zeroed_sector);
        TEST_RUN(shortened_file_is_refused);
        TEST_RUN(all_files_shortened_are_refused);
        TEST_RUN(missing_file_is_refused);
        TEST_RUN(signed_nonsense_is_refused);
        TEST_RUN(strangers_behind_the_end);
        TEST_RUN(records_that_look_like_a_newer_header);
        TEST_RUN(inspection_reports_damage);
        TEST_RUN(growing_log_is_inspected);
        TEST_RUN(cut_to_zeros_at_every_sector);
    }
    fixture_free(fixture);
    return TEST_DONE();
}

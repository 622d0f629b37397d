/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"
#include "tests/unit/wal/wal_fixture.h"
#include "wal/wal_index.h"
#include "wal/wal_recover.h"

#define TURNS_MAX 100000u

struct fixture *fixture_new(unsigned lanes, uint64_t file_bytes, uint64_t seed) {
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    fixture->lane_count = lanes;
    fixture->random = seed;
    fixture->now_ns = 1000000;
    fixture->turns_max = TURNS_MAX;
    if (disk_memory_open(&fixture->memory) != 0)
        abort();
    fixture->disk = fixture->memory;
    for (unsigned lane = 0; lane < lanes; lane++)
        fixture->lane_random[lane] = seed + lane;
    for (unsigned lane = 0; lane < lanes; lane++)
        for (unsigned i = 0; i < WAL_BUFFERS; i++)
            fixture->buffers[lane][i] = aligned_alloc(WAL_PAGE_BYTES, FIXTURE_SEGMENT_BYTES);
    fixture->board = aligned_alloc(CACHE_LINE_BYTES, sizeof(*fixture->board));
    fixture->lanes = aligned_alloc(CACHE_LINE_BYTES, lanes * sizeof(*fixture->lanes));
    fixture->config =
        (struct wal_config){.identity = {.cell_id = {7, 1, 2, 3}, .partitions = 4, .id_time = 1},
                            .term = 1,
                            .lane_count = lanes,
                            .groups_in_flight = 4,
                            .file_bytes = file_bytes,
                            .group_bytes_wanted = 32768,
                            .group_delay_ns = 50000,
                            .horizon_back_ms = 3600000,
                            .horizon_minimum_ms = 60000};
    return fixture;
}

void fixture_free(struct fixture *fixture) {
    fixture_stop(fixture);
    disk_memory_close(fixture->memory);
    for (unsigned lane = 0; lane < fixture->lane_count; lane++)
        for (unsigned i = 0; i < WAL_BUFFERS; i++)
            free(fixture->buffers[lane][i]);
    for (unsigned i = 0; i < FIXTURE_GROUPS_MAX; i++)
        for (unsigned lane = 0; lane < fixture->lane_count; lane++)
            free(fixture->groups[i].bytes[lane]);
    free(fixture->board);
    free(fixture->lanes);
    free(fixture);
}

/* --- recovery, compared with what was logged ----------------------------------------------------------------------- */

static int replay(void *context, seq_t seq, unsigned lcore, uint32_t offset, const void *record,
                  size_t length) {
    struct fixture *fixture = context;
    if (seq != fixture->replayed_seq + 1 || lcore >= fixture->lane_count ||
        (uintptr_t)record % WAL_RECORD_ALIGN != 0)
        return -EILSEQ;
    const struct fixture_group *group = &fixture->groups[seq % FIXTURE_GROUPS_MAX];
    if (offset != fixture->replay_offset[lcore] || offset + length > group->length[lcore] ||
        memcmp(group->bytes[lcore] + offset, record, length) != 0)
        return -EILSEQ;
    fixture->replay_offset[lcore] += (uint32_t)length;
    fixture->replayed_records++;
    return 0;
}

static int group_end(void *context, const struct wal_chained_header *chained) {
    struct fixture *fixture = context;
    const seq_t seq = chained->seq;
    if (seq != fixture->replayed_seq + 1 || chained->term == 0)
        return -EILSEQ;
    for (unsigned lane = 0; lane < fixture->lane_count; lane++)
        if (fixture->replay_offset[lane] != fixture->groups[seq % FIXTURE_GROUPS_MAX].length[lane])
            return -EILSEQ;
    memset(fixture->replay_offset, 0, sizeof(fixture->replay_offset));
    fixture->replayed_seq = seq;
    return 0;
}

int fixture_read(struct disk *disk, const struct wal_identity *identity, wal_replay_fn *record,
                 fixture_group_fn *group, void *context, struct wal_position *position, char *error,
                 size_t error_bytes) {
    struct wal_reader *reader;
    struct wal_group_view view;
    *position = (struct wal_position){.file_number = 1};
    error[0] = '\0';
    int rc = wal_reader_open(disk, identity, true, &reader, error, error_bytes);
    if (rc != 0)
        return rc;
    position->index = wal_index_new();
    if (position->index == NULL)
        abort();
    while (rc == 0 && (rc = wal_reader_next(reader, &view, error, error_bytes)) == 1) {
        rc = wal_group_records(disk, &view, record, context, error, error_bytes);
        if (rc == 0 && group != NULL)
            rc = group(context, &view.header->chained);
        if (rc == 0)
            rc = wal_position_take(position, &view);
    }
    if (rc == 0 && wal_reader_end(reader)->verdict == WAL_VERDICT_TORN)
        rc = wal_cut_tail(disk, reader, &position->torn_bytes, error, error_bytes);
    wal_reader_close(reader);
    if (rc != 0)
        wal_position_release(position);
    return rc;
}

int fixture_recover(struct fixture *fixture, struct disk *disk, struct wal_position *position) {
    fixture->replayed_seq = 0;
    fixture->replayed_records = 0;
    memset(fixture->replay_offset, 0, sizeof(fixture->replay_offset));
    return fixture_read(disk, &fixture->config.identity, replay, group_end, fixture, position,
                        fixture->error, sizeof(fixture->error));
}

int fixture_start(struct fixture *fixture) {
    int rc = fixture_recover(fixture, fixture->disk, &fixture->position);
    if (rc != 0)
        return rc;
    memset(fixture->board, 0, sizeof(*fixture->board));
    memset(fixture->lanes, 0, fixture->lane_count * sizeof(*fixture->lanes));
    fixture->config.disk = fixture->disk;
    fixture->config.board = fixture->board;
    fixture->config.lanes = fixture->lanes;
    fixture->config.position = fixture->position;
    for (unsigned i = 0; i < 2; i++) {
        fixture->config.position.checkpoints[i].seq = fixture->checkpoints[i].seq;
        fixture->config.position.checkpoints[i].log_file = fixture->checkpoints[i].log_file;
    }
    fixture->config.term = fixture->position.term + 1;
    rc = wal_open(&fixture->config, &fixture->wal, fixture->error, sizeof(fixture->error));
    for (unsigned lane = 0; lane < fixture->lane_count; lane++) {
        fixture->open[lane] = fixture->position.seq + 1;
        fixture->length[lane] = fixture->records[lane] = 0;
        fixture->timestamp[lane] = fixture->position.cell_time;
    }
    return rc;
}

void fixture_stop(struct fixture *fixture) {
    wal_close(fixture->wal);
    fixture->wal = NULL;
}

/* --- the lcores' part ---------------------------------------------------------------------------------------------- */

void fixture_append(struct fixture *fixture, unsigned lane, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        uint64_t random = hash_mix64(fixture->lane_random[lane] += 0x9e3779b97f4a7c15u);
        struct wal_transfer_fields fields = {
            .transfer = {.id = random | 1, .debit_account_id = 1 + random % 7}};
        fields.decided = fields.transfer.timestamp = ++fixture->timestamp[lane];
        fields.transfer.credit_account_id = 100;
        fields.transfer.amount = random % 1000;
        fields.transfer.user_data_128 = random % 3 ? 0 : random;
        fields.transfer.timeout = random % 5 ? 0 : (uint32_t)random;
        if (fixture->length[lane] + WAL_RECORD_BYTES_MAX > FIXTURE_SEGMENT_BYTES)
            break;
        uint8_t *at =
            fixture->buffers[lane][fixture->open[lane] % WAL_BUFFERS] + fixture->length[lane];
        fixture->length[lane] +=
            (uint32_t)wal_record_transfer_encode(WAL_RECORD_TRANSFER, &fields, at);
        fixture->records[lane]++;
    }
    atomic_store_explicit(&fixture->lanes[lane].cell_time, fixture->timestamp[lane],
                          memory_order_relaxed);
    atomic_store_explicit(&fixture->lanes[lane].segment_bytes, fixture->length[lane],
                          memory_order_relaxed);
}

void fixture_seal(struct fixture *fixture, unsigned lane) {
    while (atomic_load_explicit(&fixture->board->open_group, memory_order_acquire) >
           fixture->open[lane]) {
        seq_t seq = fixture->open[lane];
        struct fixture_group *group = &fixture->groups[seq % FIXTURE_GROUPS_MAX];
        uint8_t *bytes = fixture->buffers[lane][seq % WAL_BUFFERS];
        free(group->bytes[lane]);
        group->bytes[lane] = malloc(fixture->length[lane] + 1);
        memcpy(group->bytes[lane], bytes, fixture->length[lane]);
        group->length[lane] = fixture->length[lane];
        const struct wal_handover handover = {seq,
                                              bytes,
                                              fixture->length[lane],
                                              fixture->records[lane],
                                              fixture->timestamp[lane],
                                              fixture->timestamp[lane]};
        fixture->length[lane] = fixture->records[lane] = 0;
        fixture->open[lane]++;
        atomic_store_explicit(&fixture->lanes[lane].segment_bytes, 0, memory_order_relaxed);
        wal_lane_handover(&fixture->lanes[lane], &handover);
    }
    /* nothing travels here, so every lcore has settled as soon as it is asked to */
    atomic_store(&fixture->lanes[lane].settled, atomic_load(&fixture->board->settle));
}

void fixture_turn(struct fixture *fixture, uint64_t ns) {
    for (unsigned lane = 0; lane < fixture->lane_count; lane++)
        fixture_seal(fixture, lane);
    fixture->now_ns += ns;
    wal_step(fixture->wal, fixture->now_ns);
}

seq_t fixture_committed(const struct fixture *fixture) {
    return atomic_load_explicit(&fixture->board->commit_seq, memory_order_acquire);
}

static int failed(const struct fixture *fixture) {
    return atomic_load_explicit(&fixture->board->failed, memory_order_acquire);
}

int fixture_commit(struct fixture *fixture) {
    seq_t want = 0;
    for (unsigned lane = 0; lane < fixture->lane_count; lane++) {
        seq_t of_lane = fixture->length[lane] != 0 ? fixture->open[lane] : fixture->open[lane] - 1;
        if (of_lane > want)
            want = of_lane;
    }
    for (uint32_t turn = 0; turn < fixture->turns_max; turn++) {
        fixture_turn(fixture, 1000);
        if (failed(fixture) != 0)
            return failed(fixture);
        if (fixture_committed(fixture) >= want)
            return 0;
    }
    return -ETIMEDOUT;
}

int fixture_drain(struct fixture *fixture) {
    for (uint32_t turn = 0; turn < fixture->turns_max; turn++) {
        if (wal_drained(fixture->wal, fixture->now_ns))
            return 0;
        fixture_turn(fixture, 1000);
        if (failed(fixture) != 0)
            return failed(fixture);
    }
    return -ETIMEDOUT;
}

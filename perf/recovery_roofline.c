/* SPDX-License-Identifier: Apache-2.0 */
#include "perf/recovery_roofline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/memory.h"
#include "perf/bench.h"
#include "wal/checkpoint_format.h"

#define LINE 64u
#define BURST 64u
#define READ_BYTES (1u << 20)
#define ID_BYTES 40u
#define ID_LINES 64u /**< of one partition that new ids come into: they arrive nearly in order */

int recovery_roofline_open(struct recovery_roofline *roofline, const struct recovery_data *data) {
    memset(roofline, 0, sizeof(*roofline));
    roofline->random = 0x9e3779b97f4a7c15u;
    roofline->accounts = data->accounts;
    roofline->partitions = data->partitions;
    roofline->index_lines = data->accounts * 2 / 7 + 1;
    roofline->ids_room =
        (data->transfers / data->partitions * 5 / 4 + 4096) * ID_BYTES / LINE * LINE;
    size_t sizes[4] = {data->accounts * 2 * LINE, roofline->index_lines * LINE,
                       roofline->ids_room * data->partitions,
                       (size_t)data->partitions * ID_LINES * LINE};
    size_t bytes = 0;
    for (unsigned i = 0; i < 4; i++)
        bytes += sizes[i];
    struct memory memory; /* only for its region: huge pages, pre-faulted, as the engine has them */
    if (memory_open(&memory, bytes, true))
        return -ENOMEM;
    roofline->tables = memory.base;
    roofline->index = roofline->tables + sizes[0];
    roofline->ids = roofline->index + sizes[1];
    roofline->id_lines = roofline->ids + sizes[2];
    roofline->buffer = aligned_alloc(4096, READ_BYTES * 2);
    roofline->id_ends = calloc(data->partitions, sizeof(*roofline->id_ends));
    return roofline->buffer && roofline->id_ends ? 0 : -ENOMEM;
}

static inline uint64_t *line_at(uint8_t *array, uint64_t line) {
    return (uint64_t *)(array + line * LINE);
}

static void scatter(struct recovery_roofline *roofline, const struct account *records,
                    uint32_t count) {
    for (uint32_t first = 0; first < count; first += BURST) {
        uint32_t some = count - first < BURST ? count - first : BURST;
        struct account *places[BURST];
        uint64_t *lines[BURST];
        for (uint32_t i = 0; i < some; i++) {
            lines[i] =
                line_at(roofline->index, bench_below(&roofline->random, roofline->index_lines));
            __builtin_prefetch(lines[i], 1);
            places[i] = (struct account *)roofline->tables +
                        bench_below(&roofline->random, roofline->accounts);
            __builtin_prefetch(places[i], 1);
            __builtin_prefetch((uint8_t *)places[i] + LINE, 1);
        }
        for (uint32_t i = 0; i < some; i++) {
            *places[i] = records[first + i];
            ++*lines[i];
        }
    }
}

uint64_t recovery_roofline_checkpoint(struct recovery_roofline *roofline,
                                      const struct recovery_data *data) {
    const uint64_t file = disk_file(DISK_CHECKPOINT_DATA, RECOVERY_CHECKPOINT_SEQ);
    uint64_t start = bench_now_ns();
    for (uint64_t at = 0; at < data->checkpoint_bytes; at += READ_BYTES) {
        uint64_t bytes = data->checkpoint_bytes - at;
        bytes = bytes < READ_BYTES ? bytes : READ_BYTES;
        if (data->disk->read(data->disk, file, at, roofline->buffer, bytes) != 0)
            abort();
        for (uint64_t done = 0; done < bytes; done += CHECKPOINT_CHUNK_BYTES) {
            const struct checkpoint_chunk *chunk = (const void *)(roofline->buffer + done);
            uint8_t digest[WAL_DIGEST_BYTES];
            wal_digest(chunk, offsetof(struct checkpoint_chunk, digest), digest);
            roofline->checksum += digest[0];
            if (chunk->header.kind == CHECKPOINT_ACCOUNTS)
                scatter(roofline, (const void *)chunk->payload, chunk->header.records);
        }
    }
    return bench_now_ns() - start;
}

static void transfers(struct recovery_roofline *roofline, uint64_t count) {
    uint64_t *lines[BURST][6];
    uint8_t *ends[BURST];
    uint64_t *random = &roofline->random, sum = 0;
    for (uint64_t done = 0; done < count; done += BURST) {
        unsigned some = count - done < BURST ? (unsigned)(count - done) : BURST;
        for (unsigned i = 0; i < some; i++) {
            uint64_t partition = bench_below(random, roofline->partitions);
            uint64_t credit = bench_below(random, roofline->accounts);
            lines[i][0] = line_at(roofline->index, bench_below(random, roofline->index_lines));
            lines[i][1] = line_at(roofline->index, bench_below(random, roofline->index_lines));
            lines[i][2] = line_at(roofline->tables, 2 * bench_below(random, roofline->accounts));
            lines[i][3] = line_at(roofline->tables, 2 * credit);
            lines[i][4] = line_at(roofline->tables, 2 * credit + 1);
            lines[i][5] =
                line_at(roofline->id_lines, partition * ID_LINES + (credit & (ID_LINES - 1)));
            uint32_t end = roofline->id_ends[partition];
            ends[i] = roofline->ids + partition * roofline->ids_room + end;
            roofline->id_ends[partition] =
                end + 2 * ID_BYTES > roofline->ids_room ? 0 : end + ID_BYTES;
            for (unsigned line = 0; line < 6; line++)
                __builtin_prefetch(lines[i][line], 1);
            __builtin_prefetch(ends[i] + ID_BYTES - 1, 1);
        }
        for (unsigned i = 0; i < some; i++) {
            sum += *lines[i][0] + *lines[i][1] + *lines[i][3];
            ++*lines[i][2];
            ++*lines[i][4];
            ++*lines[i][5];
            for (unsigned word = 0; word < ID_BYTES / 8; word++)
                ((uint64_t *)ends[i])[word] = sum + word;
        }
    }
    roofline->checksum ^= sum;
}

uint64_t recovery_roofline_log(struct recovery_roofline *roofline,
                               const struct recovery_data *data) {
    uint64_t start = bench_now_ns(), left = data->transfers;
    uint64_t files = data->log_bytes / data->identity.file_bytes + 1;
    for (uint64_t file = 1; file <= files; file++) {
        for (uint64_t at = 0; at < data->identity.file_bytes; at += READ_BYTES) {
            uint8_t digest[WAL_DIGEST_BYTES];
            if (!left || data->disk->read(data->disk, file, at, roofline->buffer, READ_BYTES) != 0)
                break;
            wal_digest(roofline->buffer, READ_BYTES, digest);
            roofline->checksum += digest[0];
            uint64_t some = READ_BYTES / sizeof(struct wal_record_transfer);
            some = some < left ? some : left;
            transfers(roofline, some);
            left -= some;
        }
    }
    transfers(roofline, left);
    return bench_now_ns() - start;
}

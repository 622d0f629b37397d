/* SPDX-License-Identifier: Apache-2.0 */
#include "perf/engine_roofline.h"

#include <string.h>

#include "engine/base/memory.h"
#include "perf/bench.h"

#define LINE 64u
#define BURST 64u
#define LOG_BYTES (2u << 20)
#define LOG_RECORD 80u
#define ID_LINES (1u << 22) /**< 256 MiB: the id index of about 15 M transfers */

int roofline_open(struct roofline *roofline, uint64_t accounts) {
    memset(roofline, 0, sizeof(*roofline));
    roofline->random = 0x9e3779b97f4a7c15u;
    roofline->index_lines = accounts * 2 / 7 + 1;
    roofline->account_lines = accounts * 2;
    roofline->id_lines = ID_LINES;
    size_t bytes =
        (roofline->index_lines + roofline->account_lines + roofline->id_lines) * LINE + LOG_BYTES;
    struct memory memory; /* only for its region: huge pages, pre-faulted, as the engine has them */
    if (memory_open(&memory, bytes, true))
        return -1;
    roofline->index = memory.base;
    roofline->accounts = roofline->index + roofline->index_lines * LINE;
    roofline->ids = roofline->accounts + roofline->account_lines * LINE;
    roofline->log = roofline->ids + roofline->id_lines * LINE;
    memset(roofline->index, 1, bytes);
    return 0;
}

static inline uint64_t *line_at(uint8_t *array, uint64_t line) {
    return (uint64_t *)(array + line * LINE);
}

uint64_t roofline_slice(struct roofline *roofline, uint64_t events) {
    uint64_t *lines[BURST][7];
    uint64_t sum = 0, log_offset = 0;
    uint64_t start = bench_now_ns();
    for (uint64_t done = 0; done < events; done += BURST) {
        for (unsigned i = 0; i < BURST; i++) {
            uint64_t *random = &roofline->random;
            for (unsigned line = 0; line < 2; line++)
                lines[i][line] =
                    line_at(roofline->index, bench_below(random, roofline->index_lines));
            for (unsigned line = 2; line < 6; line++)
                lines[i][line] =
                    line_at(roofline->accounts, bench_below(random, roofline->account_lines));
            lines[i][6] = line_at(roofline->ids, bench_below(random, roofline->id_lines));
            for (unsigned line = 0; line < 7; line++)
                __builtin_prefetch(lines[i][line], 1);
        }
        for (unsigned i = 0; i < BURST; i++) {
            /* Index lines are read, account lines and the id line are changed. */
            sum += *lines[i][0] + *lines[i][1];
            for (unsigned line = 2; line < 7; line++)
                sum += ++*lines[i][line];
            uint64_t *log = (uint64_t *)(roofline->log + log_offset);
            for (unsigned word = 0; word < LOG_RECORD / 8; word++)
                log[word] = sum + word;
            log_offset =
                log_offset + LOG_RECORD > LOG_BYTES - LOG_RECORD ? 0 : log_offset + LOG_RECORD;
        }
    }
    uint64_t took = bench_now_ns() - start;
    roofline->checksum ^= sum;
    return took;
}

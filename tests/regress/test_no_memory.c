/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/resource.h>

#include "engine/engine.h"
#include "tests/lib/test.h"

/** Where the machine had no memory for the ledger, tallyd freed something twice and was killed, instead of saying so. */

static void ledger_larger_than_the_limit(void) {
    static struct wal_board board;
    static struct wal_lane lane;
    struct engine_config config = {
        .partitions = 4,
        .lcores = 1,
        .memory_bytes = (size_t)8 << 30,
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .digest_interval_ns = NS_PER_SECOND,
        .board = &board,
        .lanes = &lane,
    };
    struct engine *engine;
    char error[256] = "";
    const struct rlimit limit = {(rlim_t)1 << 30, (rlim_t)1 << 30};
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    CHECK_EQ(engine_open(&config, &engine, error, sizeof(error)), -ENOMEM);
    CHECK(strstr(error, "8192 MiB") != NULL);
}

int main(void) {
    TEST_RUN(ledger_larger_than_the_limit);
    return TEST_DONE();
}

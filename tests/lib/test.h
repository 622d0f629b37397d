/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_LIB_TEST_H
#define TALLY_TESTS_LIB_TEST_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** The smallest test frame that serves: a program is a list of TEST_RUN(function), and ends with TEST_DONE().
 *  A failed CHECK says where and what, and ends its test; the program goes on with the next. */

static unsigned test_passed, test_failed, test_skipped;
static int test_this_failed;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition);                   \
            test_this_failed = 1;                                                                  \
            return;                                                                                \
        }                                                                                          \
    } while (0)

/** Integers that fit 64 bits; both are printed when they differ. */
#define CHECK_EQ(got, want)                                                                        \
    do {                                                                                           \
        int64_t test_got = (int64_t)(got), test_want = (int64_t)(want);                            \
        if (test_got != test_want) {                                                               \
            printf("%s:%d: %s is %" PRId64 ", should be %" PRId64 "\n", __FILE__, __LINE__, #got,  \
                   test_got, test_want);                                                           \
            test_this_failed = 1;                                                                  \
            return;                                                                                \
        }                                                                                          \
    } while (0)

#define TEST_RUN(function)                                                                         \
    do {                                                                                           \
        test_this_failed = 0;                                                                      \
        function();                                                                                \
        printf("%s %s\n", test_this_failed ? "FAIL" : "ok  ", #function);                          \
        if (test_this_failed)                                                                      \
            test_failed++;                                                                         \
        else                                                                                       \
            test_passed++;                                                                         \
        fflush(stdout);                                                                            \
    } while (0)

#define TEST_DONE()                                                                                \
    (printf("%u passed, %u failed", test_passed, test_failed),                                     \
     test_skipped ? printf(", %u skipped\n", test_skipped) : printf("\n"), test_failed ? 1 : 0)

/** Seed of a random test: from the environment (TEST_SEED) or `fallback`; printed, so that a failure can be repeated. */
static inline uint64_t test_seed(uint64_t fallback) {
    const char *text = getenv("TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : fallback;
    printf("TEST_SEED=%" PRIu64 "\n", seed);
    return seed;
}

/** splitmix64: small, seeded, good enough for tests. */
static inline uint64_t test_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif

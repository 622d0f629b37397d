/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <time.h>

#include "tests/lib/test.h"
#include "tools/tally_until.h"

/** Points in the past, as people write them. */

static void test_what_is_understood(void) {
    static const struct {
        const char *text;
        seq_t seq;
        uint64_t ns;
    } cases[] = {
        {"1", 1, 0},
        {"4711", 4711, 0},
        {"1732112345", 1732112345, 0},
        {"999999999999999999", 999999999999999999, 0},
        {"@1732112345", 0, 1732112345000000000},
        {"@1732112345.5", 0, 1732112345500000000},
        {"1732112345.25", 0, 1732112345250000000},
        {"@1732112345.000000001", 0, 1732112345000000001},
        {"@1732112345.0000000019", 0, 1732112345000000001},
        {"@99999999999999", 0, UINT64_MAX},
        {"1970-01-02", 0, 86400000000000},
        {"2026-11-20T16:43:00Z", 0, 1795192980000000000},
        {"2026-11-20 16:43", 0, 1795192980000000000},
        {"2026-11-20T17:43:00.125+01:00", 0, 1795192980125000000},
        {"2026-11-20T15:13:00-0130", 0, 1795192980000000000},
        {"2026-11-20t17:43:00+01", 0, 1795192980000000000},
        {"2024-02-29", 0, 1709164800000000000},
        {"2000-02-29T23:59:59,999999999Z", 0, 951868799999999999},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct until until;
        char error[200];
        int rc = until_parse(cases[i].text, &until, error, sizeof(error));
        if (rc != 0 || until.ns != cases[i].ns)
            printf("%s: %d, %" PRIu64 "\n", cases[i].text, rc, until.ns);
        CHECK_EQ(rc, 0);
        CHECK_EQ(until.seq, cases[i].seq);
        CHECK(until.ns == cases[i].ns);
    }
}

static void test_what_is_not(void) {
    static const char *const cases[] = {
        "",
        "0",
        "-1",
        "1e9",
        "@",
        "@x",
        "@1.",
        "1732112345.",
        "1.2.3",
        "0x10",
        "yesterday",
        "2026-13-01",
        "2026-02-29",
        "2026-11-31",
        "2026-11-20T",
        "2026-11-20T24:00:00Z",
        "2026-11-20T16:60Z",
        "2026-11-20T16:43:60Z",
        "2026-11-20T16:43:00Zx",
        "2026-11-20T16:43:00+1",
        "2026-11-20T16:43:00+15:00",
        "1969-12-31",
        "20261120",
        "2026-11-20T16:43:00.Z",
        "4711 ",
        " 4711",
        "@0",
        "1000000000000000000000",
        "@9999999999999999999",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct until until;
        char error[200] = "";
        int rc = until_parse(cases[i], &until, error, sizeof(error));
        if (strcmp(cases[i], "20261120") == 0) { /* a group's number, if a strange one */
            CHECK_EQ(rc, 0);
            continue;
        }
        if (rc != -EINVAL)
            printf("'%s' was understood\n", cases[i]);
        CHECK_EQ(rc, -EINVAL);
        CHECK(*error != '\0');
    }
}

/** Every day of a few centuries is what the C library makes of it. */
static void test_days(void) {
    for (time_t day = 1; day < 365 * 500; day++) {
        time_t seconds = day * 86400;
        struct tm parts;
        struct until until;
        char text[64], error[200];
        gmtime_r(&seconds, &parts);
        strftime(text, sizeof(text), "%Y-%m-%d", &parts);
        CHECK_EQ(until_parse(text, &until, error, sizeof(error)), 0);
        CHECK(until.ns == (uint64_t)seconds * NS_PER_SECOND);
    }
}

int main(void) {
    TEST_RUN(test_what_is_understood);
    TEST_RUN(test_what_is_not);
    TEST_RUN(test_days);
    return TEST_DONE();
}

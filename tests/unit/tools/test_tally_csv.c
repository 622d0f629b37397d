/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "tools/tally_cli.h"
#include "tools/tally_csv.h"

/** CSV files of transfers: what is understood, and how what is not is named. */

static struct csv csv;
static FILE *file;

static int begin(const char *text) {
    static char bytes[1 << 16];
    if (file)
        fclose(file);
    snprintf(bytes, sizeof(bytes), "%s", text);
    file = fmemopen(bytes, strlen(bytes) ? strlen(bytes) : 1, "r");
    return csv_begin(&csv, file);
}

#define HEADER "debit_account_id,credit_account_id,amount,ledger,code"

static void test_all_fields(void) {
    struct tally_transfer transfer;
    CHECK_EQ(
        begin(
            "flags,timestamp,code,ledger,timeout,user_data_32,user_data_64,user_data_128,pending_"
            "id,amount,"
            "credit_account_id,debit_account_id,id\r\n"
            "linked|pending,13,12,11,10,9,8,0x7,6,340282366920938463463374607431768211455,4,3,2\r\n"
            "\r\n"
            "0x21, ,1,1,,,,,,5,\"4\", 3 ,2\n"),
        0);
    CHECK(csv.has_id);
    CHECK_EQ(csv_read(&csv, &transfer), 1);
    CHECK_EQ(csv.line, 2);
    CHECK(transfer.id == 2 && transfer.debit_account_id == 3 && transfer.credit_account_id == 4);
    CHECK(transfer.amount == TALLY_AMOUNT_MAX && transfer.pending_id == 6 &&
          transfer.user_data_128 == 7);
    CHECK(transfer.user_data_64 == 8 && transfer.user_data_32 == 9 && transfer.timeout == 10);
    CHECK(transfer.ledger == 11 && transfer.code == 12 && transfer.timestamp == 13);
    CHECK_EQ(transfer.flags, TALLY_TRANSFER_LINKED | TALLY_TRANSFER_PENDING);
    CHECK_EQ(csv_read(&csv, &transfer), 1);
    CHECK_EQ(csv.line, 4);
    CHECK_EQ(transfer.flags, TALLY_TRANSFER_LINKED | TALLY_TRANSFER_BALANCING_CREDIT);
    CHECK(transfer.credit_account_id == 4 && transfer.timeout == 0);
    CHECK_EQ(csv_read(&csv, &transfer), 0);
}

static void test_last_line_without_end(void) {
    struct tally_transfer transfer;
    CHECK_EQ(begin("\xef\xbb\xbf" HEADER "\n1,2,3,4,5"), 0);
    CHECK(!csv.has_id);
    CHECK_EQ(csv_read(&csv, &transfer), 1);
    CHECK_EQ(transfer.code, 5);
    CHECK_EQ(csv_read(&csv, &transfer), 0);
}

static void test_bad_headers(void) {
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"\n", "line 1"},
        {"debit_acount_id,credit_account_id,amount,ledger,code\n",
         "did you mean debit_account_id?"},
        {"credit_account_id,amount,ledger,code\n", "'debit_account_id' is missing"},
        {HEADER ",amount\n", "'amount' is there twice"},
        {HEADER ",colour\n", "'colour'"},
        {HEADER ",\n", "line 1"},
        {"\"debit_account_id\n", "quotes"},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CHECK_EQ(begin(rows[i].text), -EINVAL);
        if (!strstr(csv.error, rows[i].says))
            printf("row %u says: %s\n", i, csv.error);
        CHECK(strstr(csv.error, rows[i].says) && !strchr(csv.error, '\n'));
    }
}

static void test_bad_lines(void) {
    static const struct {
        const char *line, *says;
    } rows[] = {
        {"1,2,3,4", "has 4 columns; the header row has 5"},
        {"1,2,3,4,5,6", "has 6 columns"},
        {"1,2,x,4,5", "amount: 'x'"},
        {"1,2,,4,5", "amount: ''"},
        {"1,2,-3,4,5", "amount: '-3'"},
        {"1,2,3.5,4,5", "amount: '3.5'"},
        {"1,2,340282366920938463463374607431768211456,4,5", "128 bits"},
        {"1,2,3,4294967296,5", "ledger: '4294967296' should be a whole number of at most 32 bits"},
        {"1,2,3,4,65536", "code: '65536' should be a whole number of at most 16 bits"},
        {"\"1,2,3,4,5", "quotes"},
        {"\"1\"x,2,3,4,5", "quotes"},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct tally_transfer transfer;
        char text[300];
        snprintf(text, sizeof(text), HEADER "\n1,2,3,4,5\n%s\n", rows[i].line);
        CHECK_EQ(begin(text), 0);
        CHECK_EQ(csv_read(&csv, &transfer), 1);
        CHECK_EQ(csv_read(&csv, &transfer), -EINVAL);
        if (!strstr(csv.error, rows[i].says))
            printf("row %u says: %s\n", i, csv.error);
        CHECK(strstr(csv.error, rows[i].says) && strstr(csv.error, "line 3"));
    }
}

static void test_bad_flags(void) {
    struct tally_transfer transfer;
    CHECK_EQ(begin(HEADER ",flags\n1,2,3,4,5,linked pendig\n"), 0);
    CHECK_EQ(csv_read(&csv, &transfer), -EINVAL);
    CHECK(strstr(csv.error, "flags: 'linked pendig' should be flag names"));
}

static void test_long_lines(void) {
    static char text[8192];
    struct tally_transfer transfer;
    strcpy(text, HEADER "\n");
    memset(text + strlen(text), '1', 5000);
    CHECK_EQ(begin(text), 0);
    CHECK_EQ(csv_read(&csv, &transfer), -EINVAL);
    CHECK(strstr(csv.error, "line 2 is longer"));
    text[0] = 0;
    for (unsigned i = 0; i < 70; i++)
        strcat(text, "id,");
    CHECK_EQ(begin(text), -EINVAL);
    CHECK(strstr(csv.error, "more than 64 columns"));
}

/** Garbage is refused or read, and nothing else happens. */
static void test_garbage(void) {
    uint64_t state = test_seed(77);
    static const char alphabet[] = "0123456789x,,,\"\" |\n\r\t-a\xff";
    for (unsigned round = 0; round < 20000; round++) {
        char text[256] = HEADER ",flags\n";
        size_t length = strlen(text);
        while (length + 1 < sizeof(text) && test_random(&state) % 100)
            text[length++] = alphabet[test_random(&state) % (sizeof(alphabet) - 1)];
        text[length] = 0;
        CHECK_EQ(begin(text), 0);
        struct tally_transfer transfer;
        int rc;
        while ((rc = csv_read(&csv, &transfer)) == 1) {
        }
        CHECK(rc == 0 || (rc == -EINVAL && csv.error[0] && csv.line >= 2));
    }
}

int main(void) {
    TEST_RUN(test_all_fields);
    TEST_RUN(test_last_line_without_end);
    TEST_RUN(test_bad_headers);
    TEST_RUN(test_bad_lines);
    TEST_RUN(test_bad_flags);
    TEST_RUN(test_long_lines);
    TEST_RUN(test_garbage);
    return TEST_DONE();
}

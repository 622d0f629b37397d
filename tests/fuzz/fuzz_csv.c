/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "tools/tally_csv.h"

/** Arbitrary CSV files for `tally load`. What must hold: each line is a transfer or an error of one line that names the place;
 *  after an error or the end nothing more comes; the reader never runs on for ever. */

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static void check(bool condition, const char *what) {
    if (condition)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

static void check_error(const struct csv *csv) {
    check(csv->error[0] != '\0' && strchr(csv->error, '\n') == NULL, "an error is one line");
    check(strlen(csv->error) < CSV_ERROR_BYTES, "an error fits");
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    static struct csv csv;
    struct tally_transfer transfer;
    if (length == 0)
        return 0;
    FILE *file = fmemopen((void *)(uintptr_t)input, length, "r");
    check(file != NULL, "there is a stream");
    if (csv_begin(&csv, file) != 0) {
        check_error(&csv);
    } else {
        uint64_t lines = 0;
        int rc;
        check(csv.column_count >= 1 && csv.column_count <= CSV_COLUMNS_MAX, "columns are bounded");
        while ((rc = csv_read(&csv, &transfer)) == 1)
            check(++lines <= length, "it ends");
        if (rc != 0)
            check_error(&csv);
    }
    fclose(file);
    return 0;
}

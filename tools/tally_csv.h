/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLY_CSV_H
#define TALLY_TOOLS_TALLY_CSV_H

#include <stdbool.h>
#include <stdio.h>

#include "net/client/tally.h"

/** Transfers from a CSV file: a header row names the fields, in any order; RFC 4180 quotes are
 *  understood.
 *  Flow: file -> [csv_read] -> tally_load
 *  Bounds: CSV_LINE_BYTES_MAX a line, CSV_COLUMNS_MAX columns. */

#define CSV_LINE_BYTES_MAX 4096
#define CSV_COLUMNS_MAX 64
#define CSV_ERROR_BYTES 256

struct csv {
    FILE *file;
    uint64_t line;  /**< number of the line read last, from 1 */
    uint64_t bytes; /**< read so far */
    unsigned column_count;
    uint8_t fields[CSV_COLUMNS_MAX]; /**< which field a column is */
    bool has_id;
    char text[CSV_LINE_BYTES_MAX];
    char *cells[CSV_COLUMNS_MAX];
    char error[CSV_ERROR_BYTES]; /**< one line, with line and column, when something was bad */
};

/** Read the header row. @return 0 or -EINVAL with `error` filled */
int csv_begin(struct csv *csv, FILE *file);
/** Read one transfer. Empty lines are skipped.
 *  @return 1, 0 at the end, or -EINVAL with `error` filled */
int csv_read(struct csv *csv, struct tally_transfer *transfer);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tally_csv.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/tally_cli.h"

/** Where a column goes: an unsigned integer of some bytes in the transfer, or flags. */
static const struct csv_field {
    const char *name;
    uint8_t offset, bytes;
    bool required;
} csv_fields[] = {
#define FIELD(name, required)                                                                      \
    {                                                                                              \
#name, offsetof(struct tally_transfer, name), sizeof(((struct tally_transfer *)0)->name),  \
            required                                                                               \
    }
    FIELD(id, false),
    FIELD(debit_account_id, true),
    FIELD(credit_account_id, true),
    FIELD(amount, true),
    FIELD(pending_id, false),
    FIELD(user_data_128, false),
    FIELD(user_data_64, false),
    FIELD(user_data_32, false),
    FIELD(timeout, false),
    FIELD(ledger, true),
    FIELD(code, true),
    FIELD(flags, false),
    FIELD(timestamp, false),
#undef FIELD
};

enum { FIELD_COUNT = sizeof(csv_fields) / sizeof(csv_fields[0]), FIELD_ID = 0 };

/** @return 1, 0 at the end of the file, -EINVAL */
static int line_read(struct csv *csv) {
    if (!fgets(csv->text, sizeof(csv->text), csv->file)) {
        if (!ferror(csv->file))
            return 0;
        snprintf(csv->error, sizeof(csv->error), "line %" PRIu64 ": cannot be read: %s",
                 csv->line + 1, strerror(errno));
        return -EINVAL;
    }
    csv->line++;
    size_t length = strlen(csv->text);
    csv->bytes += length;
    if (length + 1 == sizeof(csv->text) && csv->text[length - 1] != '\n') {
        snprintf(csv->error, sizeof(csv->error), "line %" PRIu64 " is longer than %d bytes",
                 csv->line, CSV_LINE_BYTES_MAX - 2);
        return -EINVAL;
    }
    while (length && (csv->text[length - 1] == '\n' || csv->text[length - 1] == '\r'))
        csv->text[--length] = 0;
    return 1;
}

/** Cut one quoted cell free of its quotes. @return what follows it, or NULL when the quote never
 *  ends */
static char *cell_unquote(char *cell) {
    char *out = cell, *in = cell + 1;
    for (; *in; in++) {
        if (*in == '"' && in[1] != '"') {
            *out = 0;
            return in + 1;
        }
        in += *in == '"';
        *out++ = *in;
    }
    return NULL;
}

/** Cut the line into cells. @return how many, or -EINVAL */
static int line_split(struct csv *csv) {
    char *at = csv->text;
    for (unsigned count = 0; count < CSV_COLUMNS_MAX; count++) {
        at += strspn(at, " \t");
        char *cell = at, *end;
        if (*at == '"') {
            end = cell_unquote(at);
            if (!end || (*(end += strspn(end, " \t")) && *end != ',')) {
                snprintf(csv->error, sizeof(csv->error),
                         "line %" PRIu64 ", column %u: the quotes do not match", csv->line,
                         count + 1);
                return -EINVAL;
            }
        } else {
            end = at + strcspn(at, ",");
        }
        bool last = *end == 0;
        *end = 0;
        for (size_t length = strlen(cell); length && strchr(" \t", cell[length - 1]); length--)
            cell[length - 1] = 0;
        csv->cells[count] = cell;
        if (last)
            return (int)count + 1;
        at = end + 1;
    }
    snprintf(csv->error, sizeof(csv->error), "line %" PRIu64 " has more than %d columns", csv->line,
             CSV_COLUMNS_MAX);
    return -EINVAL;
}

static int header_column(struct csv *csv, unsigned column) {
    const char *names[FIELD_COUNT];
    for (unsigned field = 0; field < FIELD_COUNT; field++) {
        names[field] = csv_fields[field].name;
        if (strcmp(csv->cells[column], csv_fields[field].name) != 0)
            continue;
        for (unsigned before = 0; before < column; before++)
            if (csv->fields[before] == field) {
                snprintf(csv->error, sizeof(csv->error), "line 1: column '%s' is there twice",
                         csv_fields[field].name);
                return -EINVAL;
            }
        csv->fields[column] = (uint8_t)field;
        csv->has_id |= field == FIELD_ID;
        return 0;
    }
    const char *near = args_nearest(csv->cells[column], names, FIELD_COUNT);
    if (near)
        snprintf(csv->error, sizeof(csv->error),
                 "line 1: there is no field '%.64s'; did you mean %s?", csv->cells[column], near);
    else
        snprintf(csv->error, sizeof(csv->error),
                 "line 1: there is no field '%.64s'; the header row names fields such as %s",
                 csv->cells[column],
                 "id, debit_account_id, credit_account_id, amount, ledger, code");
    return -EINVAL;
}

int csv_begin(struct csv *csv, FILE *file) {
    memset(csv, 0, sizeof(*csv));
    csv->file = file;
    int rc = line_read(csv);
    if (rc == 0)
        snprintf(csv->error, sizeof(csv->error),
                 "the file is empty; its first line should name the columns");
    if (rc <= 0)
        return -EINVAL;
    static const char mark[] = "\xef\xbb\xbf"; /* some programs begin UTF-8 with it */
    if (strncmp(csv->text, mark, sizeof(mark) - 1) == 0)
        memmove(csv->text, csv->text + sizeof(mark) - 1, strlen(csv->text) - sizeof(mark) + 2);
    int columns = line_split(csv);
    if (columns < 0)
        return -EINVAL;
    csv->column_count = (unsigned)columns;
    for (unsigned column = 0; column < csv->column_count; column++)
        if (header_column(csv, column) < 0)
            return -EINVAL;
    for (unsigned field = 0; field < FIELD_COUNT; field++) {
        bool there = !csv_fields[field].required;
        for (unsigned column = 0; column < csv->column_count; column++)
            there |= csv->fields[column] == field;
        if (!there) {
            snprintf(csv->error, sizeof(csv->error), "line 1: column '%s' is missing",
                     csv_fields[field].name);
            return -EINVAL;
        }
    }
    return 0;
}

/** Flags as a number, or as names separated by spaces, '|' or ';'. @return 0 or -EINVAL */
static int flags_parse(char *cell, tally_uint128_t *value) {
    char *rest = cell;
    if (args_uint128(cell, value) == 0)
        return 0;
    *value = 0;
    for (char *name = strtok_r(cell, " |;", &rest); name; name = strtok_r(NULL, " |;", &rest)) {
        const struct args_flag *flag = cli_transfer_flags;
        while (flag->name && strcmp(flag->name, name) != 0)
            flag++;
        if (!flag->name)
            return -EINVAL;
        *value |= flag->bit;
    }
    return 0;
}

static int cell_parse(struct csv *csv, unsigned column, struct tally_transfer *transfer) {
    const struct csv_field *field = &csv_fields[csv->fields[column]];
    bool flags = strcmp(field->name, "flags") == 0;
    char *cell = csv->cells[column], shown[40];
    tally_uint128_t value = 0, most = TALLY_AMOUNT_MAX >> (128 - 8 * field->bytes);
    snprintf(shown, sizeof(shown), "%s", cell);
    if (!*cell && !field->required && csv->fields[column] != FIELD_ID)
        return 0;
    int rc = flags ? flags_parse(cell, &value) : args_uint128(cell, &value);
    if (rc < 0 || value > most) {
        snprintf(csv->error, sizeof(csv->error), "line %" PRIu64 ", %s: '%s' should be %s%s",
                 csv->line, field->name, shown,
                 flags ? "flag names, or a number of " : "a whole number of at most ",
                 field->bytes == 16  ? "128 bits"
                 : field->bytes == 8 ? "64 bits"
                 : field->bytes == 4 ? "32 bits"
                                     : "16 bits");
        return -EINVAL;
    }
    memcpy((uint8_t *)transfer + field->offset, &value, field->bytes); /* little-endian */
    return 0;
}

int csv_read(struct csv *csv, struct tally_transfer *transfer) {
    int rc;
    do {
        rc = line_read(csv);
        if (rc <= 0)
            return rc;
    } while (!csv->text[strspn(csv->text, " \t")]);
    int columns = line_split(csv);
    if (columns < 0)
        return -EINVAL;
    if ((unsigned)columns != csv->column_count) {
        snprintf(csv->error, sizeof(csv->error),
                 "line %" PRIu64 " has %d columns; the header row has %u", csv->line, columns,
                 csv->column_count);
        return -EINVAL;
    }
    memset(transfer, 0, sizeof(*transfer));
    for (unsigned column = 0; column < csv->column_count; column++)
        if (cell_parse(csv, column, transfer) < 0)
            return -EINVAL;
    return 1;
}

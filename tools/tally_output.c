/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tools/tally_cli.h"
#include "wal/wal_inspect.h"

/** How answers look: aligned lines for people, one JSON object a line for programs. */

#define NAME_COLUMN 19

const struct args_flag cli_account_flags[] = {
    {"linked", TALLY_ACCOUNT_LINKED},
    {"debits_must_not_exceed_credits", TALLY_ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS},
    {"credits_must_not_exceed_debits", TALLY_ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS},
    {"history", TALLY_ACCOUNT_HISTORY},
    {"imported", TALLY_ACCOUNT_IMPORTED},
    {"closed", TALLY_ACCOUNT_CLOSED},
    {NULL, 0},
};

const struct args_flag cli_transfer_flags[] = {
    {"linked", TALLY_TRANSFER_LINKED},
    {"pending", TALLY_TRANSFER_PENDING},
    {"post_pending_transfer", TALLY_TRANSFER_POST_PENDING},
    {"void_pending_transfer", TALLY_TRANSFER_VOID_PENDING},
    {"balancing_debit", TALLY_TRANSFER_BALANCING_DEBIT},
    {"balancing_credit", TALLY_TRANSFER_BALANCING_CREDIT},
    {"closing_debit", TALLY_TRANSFER_CLOSING_DEBIT},
    {"closing_credit", TALLY_TRANSFER_CLOSING_CREDIT},
    {"imported", TALLY_TRANSFER_IMPORTED},
    {NULL, 0},
};

/* --- JSON ------------------------------------------------------------------------------------- */

struct json_object *output_object(void) {
    return json_object_new_object();
}

void output_text(struct json_object *object, const char *name, const char *value) {
    json_object_object_add(object, name, json_object_new_string(value));
}

void output_uint128(struct json_object *object, const char *name, tally_uint128_t value) {
    char digits[40];
    output_text(object, name, args_decimal(value, digits));
}

void output_uint64(struct json_object *object, const char *name, uint64_t value) {
    output_uint128(object, name, value);
}

void output_number(struct json_object *object, const char *name, uint64_t value) {
    json_object_object_add(object, name, json_object_new_int64((int64_t)value));
}

void output_double(struct json_object *object, const char *name, double value) {
    char text[32];
    snprintf(text, sizeof(text), "%.3f", value);
    json_object_object_add(object, name, json_object_new_double_s(value, text));
}

void output_flags(struct json_object *object, const char *name, uint16_t flags,
                  const struct args_flag *names) {
    struct json_object *list = json_object_new_array();
    for (const struct args_flag *flag = names; flag->name; flag++)
        if (flags & flag->bit)
            json_object_array_add(list, json_object_new_string(flag->name));
    json_object_object_add(object, name, list);
}

void output_print(struct json_object *object) {
    puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
    json_object_put(object);
}

const char *base_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

void output_damage(const struct wal_damage *damage) {
    struct json_object *object = output_object();
    output_text(object, "type", damage->torn ? "torn" : "damage");
    output_uint64(object, "seq", damage->seq);
    output_text(object, "file", base_of(damage->file_name));
    output_uint64(object, "offset", damage->file_offset);
    output_uint64(object, "bytes", damage->bytes);
    output_text(object, "message", damage->message);
    output_print(object);
}

void output_balance_fields(struct json_object *object, const struct tally_balances *balances) {
    output_uint128(object, "debits_pending", balances->debits_pending);
    output_uint128(object, "debits_posted", balances->debits_posted);
    output_uint128(object, "credits_pending", balances->credits_pending);
    output_uint128(object, "credits_posted", balances->credits_posted);
}

void output_account_fields(struct json_object *object, const struct tally_account *account) {
    output_uint128(object, "id", account->id);
    output_uint128(object, "debits_pending", account->debits_pending);
    output_uint128(object, "debits_posted", account->debits_posted);
    output_uint128(object, "credits_pending", account->credits_pending);
    output_uint128(object, "credits_posted", account->credits_posted);
    output_uint128(object, "user_data_128", account->user_data_128);
    output_uint64(object, "user_data_64", account->user_data_64);
    output_number(object, "user_data_32", account->user_data_32);
    output_number(object, "ledger", account->ledger);
    output_number(object, "code", account->code);
    output_flags(object, "flags", account->flags, cli_account_flags);
    output_uint64(object, "timestamp", account->timestamp);
}

void output_transfer_fields(struct json_object *object, const struct tally_transfer *transfer) {
    output_uint128(object, "id", transfer->id);
    output_uint128(object, "debit_account_id", transfer->debit_account_id);
    output_uint128(object, "credit_account_id", transfer->credit_account_id);
    output_uint128(object, "amount", transfer->amount);
    output_uint128(object, "pending_id", transfer->pending_id);
    output_uint128(object, "user_data_128", transfer->user_data_128);
    output_uint64(object, "user_data_64", transfer->user_data_64);
    output_number(object, "user_data_32", transfer->user_data_32);
    output_number(object, "timeout", transfer->timeout);
    output_number(object, "ledger", transfer->ledger);
    output_number(object, "code", transfer->code);
    output_flags(object, "flags", transfer->flags, cli_transfer_flags);
    output_uint64(object, "timestamp", transfer->timestamp);
}

/* --- lines for people ------------------------------------------------------------------------- */

void output_line(const char *name, const char *value) {
    printf("%-*s %s\n", NAME_COLUMN, name, value);
}

void output_line_uint128(const char *name, tally_uint128_t value) {
    char digits[40];
    output_line(name, args_decimal(value, digits));
}

void output_line_time(const char *name, uint64_t timestamp_ns) {
    char text[64] = "-";
    struct tm parts;
    time_t seconds = (time_t)(timestamp_ns / 1000000000u);
    if (timestamp_ns && gmtime_r(&seconds, &parts)) {
        size_t length = strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &parts);
        snprintf(text + length, sizeof(text) - length, ".%09" PRIu64 " UTC",
                 timestamp_ns % 1000000000u);
    }
    output_line(name, text);
}

const char *output_flag_names(uint16_t flags, const struct args_flag *names, const char *separator,
                              char *out, size_t out_bytes) {
    size_t length = 0;
    snprintf(out, out_bytes, "-");
    for (const struct args_flag *flag = names; flag->name; flag++)
        if (flags & flag->bit && length < out_bytes)
            length += (size_t)snprintf(out + length, out_bytes - length, "%s%s",
                                       length ? separator : "", flag->name);
    return out;
}

/** One flag a line, so that none is wider than the screen. */
static void output_line_flags(uint16_t flags, const struct args_flag *names) {
    const char *label = "flags";
    if (!flags)
        output_line(label, "-");
    for (const struct args_flag *flag = names; flag->name; flag++)
        if (flags & flag->bit) {
            output_line(label, flag->name);
            label = "";
        }
}

static void output_line_if(const char *name, tally_uint128_t value) {
    if (value)
        output_line_uint128(name, value);
}

void output_account(const struct tally_account *account) {
    output_line_uint128("account", account->id);
    output_line_uint128("ledger", account->ledger);
    output_line_uint128("code", account->code);
    output_line_flags(account->flags, cli_account_flags);
    output_line_uint128("debits_pending", account->debits_pending);
    output_line_uint128("debits_posted", account->debits_posted);
    output_line_uint128("credits_pending", account->credits_pending);
    output_line_uint128("credits_posted", account->credits_posted);
    output_line_if("user_data_128", account->user_data_128);
    output_line_if("user_data_64", account->user_data_64);
    output_line_if("user_data_32", account->user_data_32);
    output_line_time("created", account->timestamp);
}

void output_transfer(const struct tally_transfer *transfer) {
    output_line_uint128("transfer", transfer->id);
    output_line_uint128("debit account", transfer->debit_account_id);
    output_line_uint128("credit account", transfer->credit_account_id);
    output_line_uint128("amount", transfer->amount);
    output_line_uint128("ledger", transfer->ledger);
    output_line_uint128("code", transfer->code);
    output_line_flags(transfer->flags, cli_transfer_flags);
    output_line_if("pending_id", transfer->pending_id);
    output_line_if("timeout (s)", transfer->timeout);
    output_line_if("user_data_128", transfer->user_data_128);
    output_line_if("user_data_64", transfer->user_data_64);
    output_line_if("user_data_32", transfer->user_data_32);
    output_line_time("created", transfer->timestamp);
}

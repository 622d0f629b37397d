/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/shell_record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FLAG_NAMES_MAX 9

struct record_field {
    const char *name;
    uint8_t offset;
    uint8_t bytes; /**< 2, 4, 8 or 16 */
    bool flags;
};

struct shell_record_kind {
    const char *const *flag_names; /**< by bit */
    unsigned field_count;
    struct record_field fields[13];
};

static const char *const account_flag_names[FLAG_NAMES_MAX] = {
    "linked",
    "debits_must_not_exceed_credits",
    "credits_must_not_exceed_debits",
    "history",
    "imported",
    "closed",
    "striped",
};

static const char *const transfer_flag_names[FLAG_NAMES_MAX] = {
    "linked",          "pending",          "post_pending_transfer", "void_pending_transfer",
    "balancing_debit", "balancing_credit", "closing_debit",         "closing_credit",
    "imported",
};

#define FIELD(type, member)                                                                        \
    { #member, offsetof(struct type, member), sizeof(((struct type *)0)->member), false }
#define FLAGS(type)                                                                                \
    { "flags", offsetof(struct type, flags), sizeof(uint16_t), true }

const struct shell_record_kind shell_account = {
    .flag_names = account_flag_names,
    .field_count = 13,
    .fields = {FIELD(account, id), FIELD(account, debits_pending), FIELD(account, debits_posted),
               FIELD(account, credits_pending), FIELD(account, credits_posted),
               FIELD(account, user_data_128), FIELD(account, user_data_64),
               FIELD(account, user_data_32), FIELD(account, reserved), FIELD(account, ledger),
               FIELD(account, code), FLAGS(account), FIELD(account, timestamp)},
};

const struct shell_record_kind shell_transfer = {
    .flag_names = transfer_flag_names,
    .field_count = 13,
    .fields = {FIELD(transfer, id), FIELD(transfer, debit_account_id),
               FIELD(transfer, credit_account_id), FIELD(transfer, amount),
               FIELD(transfer, pending_id), FIELD(transfer, user_data_128),
               FIELD(transfer, user_data_64), FIELD(transfer, user_data_32),
               FIELD(transfer, timeout), FIELD(transfer, ledger), FIELD(transfer, code),
               FLAGS(transfer), FIELD(transfer, timestamp)},
};

const struct shell_record_kind shell_balances = {
    .field_count = 4,
    .fields = {FIELD(balances, debits_pending), FIELD(balances, debits_posted),
               FIELD(balances, credits_pending), FIELD(balances, credits_posted)},
};

int shell_name_length(const struct shell_json *json, const struct shell_json_token *name) {
    uint32_t length = name->length;
    if (length > SHELL_NAME_BYTES_MAX) {
        length = SHELL_NAME_BYTES_MAX;
        while (length > 0 && ((unsigned char)json->text[name->start + length] & 0xc0) == 0x80)
            length--;
    }
    return (int)length;
}

static uint128_t maximum_of(unsigned bytes) {
    return bytes == 16 ? UINT128_MAX : ((uint128_t)1 << (8 * bytes)) - 1;
}

int shell_integer_read(const struct shell_json *json, const struct shell_json_token *token,
                       const char *path, const char *name, uint128_t maximum, uint128_t *value,
                       char *error) {
    int outcome = shell_json_integer(json, token, value);
    if (outcome == 0 && *value <= maximum)
        return 0;
    if (outcome == -EINVAL) {
        snprintf(error, SHELL_ERROR_BYTES, "%s%s: must be a whole number or a string of digits",
                 path, name);
        return -EINVAL;
    }
    struct shell_output text = {0};
    shell_output_integer(&text, maximum);
    snprintf(error, SHELL_ERROR_BYTES, "%s%s: out of range, must be 0 to %.*s", path, name,
             (int)text.length, text.length ? text.text : "");
    shell_output_free(&text);
    return -EINVAL;
}

/** A list of names, or a number. */
static int flags_read(const struct shell_record_kind *kind, const struct shell_json *json,
                      const struct shell_json_token *token, const char *path, uint128_t *value,
                      char *error) {
    if (token->kind != SHELL_JSON_ARRAY) {
        uint128_t number;
        if (shell_json_integer(json, token, &number) == -EINVAL) {
            snprintf(error, SHELL_ERROR_BYTES, "%sflags: must be a list of names or a whole number",
                     path);
            return -EINVAL;
        }
        return shell_integer_read(json, token, path, "flags", UINT16_MAX, value, error);
    }
    *value = 0;
    uint32_t end = token->end;
    for (uint32_t i = (uint32_t)(token - json->tokens) + 1; i < end; i = json->tokens[i].end) {
        const struct shell_json_token *name = &json->tokens[i];
        unsigned bit = 0;
        if (name->kind == SHELL_JSON_STRING)
            while (bit < FLAG_NAMES_MAX &&
                   !(kind->flag_names[bit] && shell_json_is(json, name, kind->flag_names[bit])))
                bit++;
        else
            bit = FLAG_NAMES_MAX;
        if (bit == FLAG_NAMES_MAX) {
            snprintf(error, SHELL_ERROR_BYTES, "%sflags: unknown flag '%.*s'", path,
                     shell_name_length(json, name), json->text + name->start);
            return -EINVAL;
        }
        *value |= (uint128_t)1 << bit;
    }
    return 0;
}

static int field_read(const struct shell_record_kind *kind, const struct record_field *field,
                      const struct shell_json *json, const struct shell_json_token *token,
                      const char *path, void *record, char *error) {
    uint128_t value;
    int outcome = field->flags ? flags_read(kind, json, token, path, &value, error)
                               : shell_integer_read(json, token, path, field->name,
                                                    maximum_of(field->bytes), &value, error);
    if (outcome == 0)
        memcpy((uint8_t *)record + field->offset, &value, field->bytes);
    return outcome;
}

int shell_record_read(const struct shell_record_kind *kind, const struct shell_json *json,
                      const struct shell_json_token *object, const char *path, void *record,
                      char *error) {
    if (object->kind != SHELL_JSON_OBJECT) {
        size_t length = strlen(path);
        snprintf(error, SHELL_ERROR_BYTES, "%.*s: must be an object",
                 (int)(length ? length - 1 : 0), path);
        return -EINVAL;
    }
    unsigned given = 0;
    uint32_t i = (uint32_t)(object - json->tokens) + 1;
    while (i < object->end) {
        const struct shell_json_token *name = &json->tokens[i], *value = &json->tokens[i + 1];
        unsigned number = 0;
        while (number < kind->field_count && !shell_json_is(json, name, kind->fields[number].name))
            number++;
        if (number == kind->field_count || (given & (1u << number))) {
            snprintf(error, SHELL_ERROR_BYTES, "%s%.*s: %s", path, shell_name_length(json, name),
                     json->text + name->start,
                     number == kind->field_count ? "unknown field" : "given twice");
            return -EINVAL;
        }
        given |= 1u << number;
        int outcome = field_read(kind, &kind->fields[number], json, value, path, record, error);
        if (outcome)
            return outcome;
        i = value->end;
    }
    return 0;
}

static void flags_write(const struct shell_record_kind *kind, unsigned flags,
                        struct shell_output *output) {
    bool first = true;
    shell_output_text(output, "[");
    for (unsigned bit = 0; bit < FLAG_NAMES_MAX; bit++) {
        if (!(flags & (1u << bit)) || !kind->flag_names[bit])
            continue;
        if (!first)
            shell_output_text(output, ",");
        shell_output_string(output, kind->flag_names[bit]);
        first = false;
    }
    shell_output_text(output, "]");
}

void shell_record_write(const struct shell_record_kind *kind, const void *record,
                        struct shell_output *output) {
    for (unsigned i = 0; i < kind->field_count; i++) {
        const struct record_field *field = &kind->fields[i];
        uint128_t value = 0;
        memcpy(&value, (const uint8_t *)record + field->offset, field->bytes);
        shell_output_text(output, i == 0 ? "{" : ",");
        shell_output_string(output, field->name);
        shell_output_text(output, ":");
        if (field->flags)
            flags_write(kind, (unsigned)value, output);
        else if (field->bytes >= 8)
            shell_output_quoted(output, value);
        else
            shell_output_integer(output, value);
    }
    shell_output_text(output, "}");
}

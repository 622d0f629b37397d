/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/shell_request.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum member {
    MEMBER_OP,
    MEMBER_NOW,
    MEMBER_EVENTS,
    MEMBER_BALANCES,
    MEMBER_IDS,
    MEMBER_NS,
    MEMBER_ID,
    MEMBER_DEBITS_PENDING,
    MEMBER_DEBITS_POSTED,
    MEMBER_CREDITS_PENDING,
    MEMBER_CREDITS_POSTED,
    MEMBERS,
};

static const char *const member_names[MEMBERS] = {
    "op",
    "now",
    "events",
    "balances",
    "ids",
    "ns",
    "id",
    "debits_pending",
    "debits_posted",
    "credits_pending",
    "credits_posted",
};

#define BIT(member) (1u << (member))
#define ALWAYS (BIT(MEMBER_OP) | BIT(MEMBER_NOW))
#define FOUR_BALANCES                                                                              \
    (BIT(MEMBER_DEBITS_PENDING) | BIT(MEMBER_DEBITS_POSTED) | BIT(MEMBER_CREDITS_PENDING) |        \
     BIT(MEMBER_CREDITS_POSTED))

struct operation_form {
    const char *name;
    unsigned operation;
    unsigned needed, allowed; /**< members; bits of enum member */
};

static const struct operation_form operation_forms[] = {
    {"create_accounts", OPERATION_CREATE_ACCOUNTS, BIT(MEMBER_EVENTS),
     ALWAYS | BIT(MEMBER_EVENTS) | BIT(MEMBER_BALANCES)},
    {"create_transfers", OPERATION_CREATE_TRANSFERS, BIT(MEMBER_EVENTS),
     ALWAYS | BIT(MEMBER_EVENTS) | BIT(MEMBER_BALANCES)},
    {"lookup_accounts", OPERATION_LOOKUP_ACCOUNTS, BIT(MEMBER_IDS), ALWAYS | BIT(MEMBER_IDS)},
    {"lookup_transfers", OPERATION_LOOKUP_TRANSFERS, BIT(MEMBER_IDS), ALWAYS | BIT(MEMBER_IDS)},
    {"advance", SHELL_ADVANCE, BIT(MEMBER_NS), ALWAYS | BIT(MEMBER_NS)},
    {"put_balances", SHELL_PUT_BALANCES, BIT(MEMBER_ID), ALWAYS | BIT(MEMBER_ID) | FOUR_BALANCES},
};

#define FORMS (sizeof(operation_forms) / sizeof(operation_forms[0]))

/** What one line was taken apart into. */
struct line {
    const struct shell_json *json;
    const struct shell_json_token *members[MEMBERS]; /**< NULL where absent */
    char *error;
};

int shell_request_open(struct shell_request *request) {
    struct engine_request *inner = &request->request;
    size_t record_bytes = sizeof(struct account) * REQUEST_EVENTS_MAX;
    *request = (struct shell_request){0};
    inner->events = aligned_alloc(CACHE_LINE_BYTES, record_bytes);
    inner->records = aligned_alloc(CACHE_LINE_BYTES, record_bytes);
    inner->results = calloc(REQUEST_EVENTS_MAX, sizeof(*inner->results));
    request->balances_all = calloc(REQUEST_EVENTS_MAX, sizeof(*request->balances_all));
    if (inner->events && inner->records && inner->results && request->balances_all)
        return 0;
    shell_request_close(request);
    return -ENOMEM;
}

void shell_request_close(struct shell_request *request) {
    free((void *)request->request.events);
    free(request->request.records);
    free(request->request.results);
    free(request->balances_all);
    *request = (struct shell_request){0};
}

static int members_take(struct line *line) {
    const struct shell_json *json = line->json;
    const struct shell_json_token *root = json->tokens;
    if (root->kind != SHELL_JSON_OBJECT) {
        snprintf(line->error, SHELL_ERROR_BYTES, "column %u: expected an object", root->start + 1);
        return -EINVAL;
    }
    for (uint32_t i = 1; i < root->end; i = json->tokens[i + 1].end) {
        const struct shell_json_token *name = &json->tokens[i];
        unsigned member = 0;
        while (member < MEMBERS && !shell_json_is(json, name, member_names[member]))
            member++;
        if (member == MEMBERS || line->members[member]) {
            snprintf(line->error, SHELL_ERROR_BYTES, "%.*s: %s", shell_name_length(json, name),
                     json->text + name->start, member == MEMBERS ? "unknown field" : "given twice");
            return -EINVAL;
        }
        line->members[member] = name + 1;
    }
    return 0;
}

static int form_find(struct line *line, const struct operation_form **form) {
    const struct shell_json_token *op = line->members[MEMBER_OP];
    unsigned number = 0;
    if (!op || op->kind != SHELL_JSON_STRING) {
        snprintf(line->error, SHELL_ERROR_BYTES, op ? "op: must be a string" : "op: missing");
        return -EINVAL;
    }
    while (number < FORMS && !shell_json_is(line->json, op, operation_forms[number].name))
        number++;
    if (number == FORMS) {
        snprintf(line->error, SHELL_ERROR_BYTES,
                 "op: unknown operation '%.*s'; there are create_accounts, create_transfers, "
                 "lookup_accounts, lookup_transfers, advance",
                 shell_name_length(line->json, op), line->json->text + op->start);
        return -EINVAL;
    }
    *form = &operation_forms[number];
    for (unsigned member = 0; member < MEMBERS; member++)
        if (line->members[member] && !((*form)->allowed & BIT(member))) {
            snprintf(line->error, SHELL_ERROR_BYTES, "%s: unknown field of %s",
                     member_names[member], (*form)->name);
            return -EINVAL;
        }
    for (unsigned member = 0; member < MEMBERS; member++)
        if (!line->members[member] && ((*form)->needed & BIT(member))) {
            snprintf(line->error, SHELL_ERROR_BYTES, "%s: missing", member_names[member]);
            return -EINVAL;
        }
    return 0;
}

/** A member that is an integer; absent means 0. */
static int member_integer(struct line *line, enum member member, uint128_t maximum,
                          uint128_t *value) {
    *value = 0;
    if (!line->members[member])
        return 0;
    return shell_integer_read(line->json, line->members[member], "", member_names[member], maximum,
                              value, line->error);
}

/** Check that a member is a list that fits a request, and count what it holds. */
static int list_count(struct line *line, enum member member, uint32_t *count) {
    const struct shell_json_token *list = line->members[member], *tokens = line->json->tokens;
    *count = 0;
    if (list->kind != SHELL_JSON_ARRAY) {
        snprintf(line->error, SHELL_ERROR_BYTES, "%s: must be a list", member_names[member]);
        return -EINVAL;
    }
    for (uint32_t i = (uint32_t)(list - tokens) + 1; i < list->end; i = tokens[i].end)
        ++*count;
    if (*count > REQUEST_EVENTS_MAX) {
        snprintf(line->error, SHELL_ERROR_BYTES, "%s: %u of them, a request may hold %u",
                 member_names[member], *count, REQUEST_EVENTS_MAX);
        return -EINVAL;
    }
    return 0;
}

static int events_read(struct line *line, const struct shell_record_kind *kind,
                       struct shell_request *request) {
    struct engine_request *inner = &request->request;
    const struct shell_json_token *list = line->members[MEMBER_EVENTS];
    const struct shell_json_token *balances = line->members[MEMBER_BALANCES];
    uint8_t *record = (uint8_t *)inner->events;
    int error = list_count(line, MEMBER_EVENTS, &inner->event_count);
    if (error)
        return error;
    memset(record, 0, sizeof(struct account) * inner->event_count);
    uint32_t token = (uint32_t)(list - line->json->tokens) + 1;
    for (uint32_t i = 0; i < inner->event_count; i++) {
        const struct shell_json_token *event = &line->json->tokens[token];
        char path[32];
        snprintf(path, sizeof(path), "events[%u].", i);
        error = shell_record_read(kind, line->json, event, path, record, line->error);
        if (error)
            return error;
        record += sizeof(struct account);
        token = event->end;
    }
    if (balances && balances->kind != SHELL_JSON_TRUE && balances->kind != SHELL_JSON_FALSE) {
        snprintf(line->error, SHELL_ERROR_BYTES, "balances: must be true or false");
        return -EINVAL;
    }
    if (balances && balances->kind == SHELL_JSON_TRUE) {
        inner->options = REQUEST_BALANCES;
        inner->balances = request->balances_all;
    }
    return 0;
}

static int ids_read(struct line *line, struct engine_request *inner) {
    const struct shell_json_token *list = line->members[MEMBER_IDS];
    uint128_t *ids = (uint128_t *)inner->events;
    int error = list_count(line, MEMBER_IDS, &inner->event_count);
    uint32_t token = (uint32_t)(list - line->json->tokens) + 1;
    for (uint32_t i = 0; i < inner->event_count && !error; i++) {
        char name[32];
        snprintf(name, sizeof(name), "ids[%u]", i);
        error = shell_integer_read(line->json, &line->json->tokens[token], "", name, UINT128_MAX,
                                   &ids[i], line->error);
        token = line->json->tokens[token].end;
    }
    return error;
}

static int put_balances_read(struct line *line, struct shell_request *request) {
    const struct {
        enum member member;
        uint128_t *value;
    } wanted[] = {
        {MEMBER_ID, &request->account_id},
        {MEMBER_DEBITS_PENDING, &request->balances.debits_pending},
        {MEMBER_DEBITS_POSTED, &request->balances.debits_posted},
        {MEMBER_CREDITS_PENDING, &request->balances.credits_pending},
        {MEMBER_CREDITS_POSTED, &request->balances.credits_posted},
    };
    for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        int error = member_integer(line, wanted[i].member, UINT128_MAX, wanted[i].value);
        if (error)
            return error;
    }
    return 0;
}

int shell_request_read(struct shell_request *request, const struct shell_json *json, bool test) {
    struct line line = {.json = json, .error = request->error};
    struct engine_request *inner = &request->request;
    const struct operation_form *form;
    uint128_t value;
    int error = members_take(&line);
    if (!error)
        error = form_find(&line, &form);
    if (!error && form->operation == SHELL_PUT_BALANCES && !test) {
        snprintf(request->error, SHELL_ERROR_BYTES, "op: put_balances needs --test");
        return -EINVAL;
    }
    if (!error)
        error = member_integer(&line, MEMBER_NOW, SHELL_CLOCK_MAX_NS, &value);
    if (error)
        return error;
    request->has_now = line.members[MEMBER_NOW] != NULL;
    request->now_ns = (uint64_t)value;
    request->operation = form->operation;
    inner->operation = (uint8_t)form->operation;
    inner->event_format = EVENT_FORMAT_FULL;
    inner->options = 0;
    inner->balances = NULL;
    switch (form->operation) {
    case OPERATION_CREATE_ACCOUNTS:
        return events_read(&line, &shell_account, request);
    case OPERATION_CREATE_TRANSFERS:
        return events_read(&line, &shell_transfer, request);
    case SHELL_ADVANCE:
        error = member_integer(&line, MEMBER_NS, SHELL_CLOCK_MAX_NS, &value);
        request->advance_ns = (uint64_t)value;
        return error;
    case SHELL_PUT_BALANCES:
        return put_balances_read(&line, request);
    default:
        return ids_read(&line, inner);
    }
}

static void results_write(const struct engine_request *inner, struct shell_output *output) {
    bool accounts = inner->operation == OPERATION_CREATE_ACCOUNTS;
    shell_output_text(output, "{\"results\":[");
    for (uint32_t i = 0; i < inner->event_count; i++) {
        const struct result *result = &inner->results[i];
        const char *name =
            accounts ? account_status_name(result->status) : transfer_status_name(result->status);
        shell_output_text(output, i == 0 ? "{\"status\":" : ",{\"status\":");
        assert(name);
        shell_output_string(output, name);
        shell_output_text(output, ",\"timestamp\":");
        shell_output_quoted(output, result->timestamp);
        if (inner->options & REQUEST_BALANCES) {
            shell_output_text(output, ",\"balances\":");
            shell_record_write(&shell_balances, &inner->balances[i], output);
        }
        shell_output_text(output, "}");
    }
    shell_output_text(output, "]}");
}

static void records_write(const struct engine_request *inner, struct shell_output *output) {
    bool accounts = inner->operation == OPERATION_LOOKUP_ACCOUNTS;
    const uint128_t *ids = inner->events;
    const char *separator = "";
    uint32_t expired = 0;
    shell_output_text(output, accounts ? "{\"accounts\":[" : "{\"transfers\":[");
    for (uint32_t i = 0; i < inner->event_count; i++) {
        if (inner->results[i].status == LOOKUP_STATUS_expired)
            expired++;
        if (inner->results[i].status != LOOKUP_STATUS_found)
            continue;
        shell_output_text(output, separator);
        shell_record_write(accounts ? &shell_account : &shell_transfer,
                           (const uint8_t *)inner->records + sizeof(struct account) * i, output);
        separator = ",";
    }
    shell_output_text(output, "]");
    if (expired) {
        separator = ",\"expired\":[";
        for (uint32_t i = 0; i < inner->event_count; i++) {
            if (inner->results[i].status != LOOKUP_STATUS_expired)
                continue;
            shell_output_text(output, separator);
            shell_output_quoted(output, ids[i]);
            separator = ",";
        }
        shell_output_text(output, "]");
    }
    shell_output_text(output, "}");
}

void shell_request_answer(const struct shell_request *request, struct shell_output *output) {
    unsigned operation = request->operation;
    if (operation == OPERATION_CREATE_ACCOUNTS || operation == OPERATION_CREATE_TRANSFERS)
        results_write(&request->request, output);
    else
        records_write(&request->request, output);
}

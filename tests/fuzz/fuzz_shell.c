/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/shell_ledger.h"
#include "tools/shell_request.h"

/** Arbitrary lines for the engine shell, answered as `tally shell` answers them, from a log in memory. What must hold: every
 *  line has an answer, which is one line of JSON; one that is refused changes nothing but the answer; and in the end debits
 *  equal credits. */

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

enum { LINES_MAX = 24, EVENTS_MAX = 64, ACCOUNT_IDS = 8 };

struct world {
    struct shell_ledger *ledger;
    struct shell_json json, answer_json;
    struct shell_request request;
    struct shell_output output;
    bool moved_by_hand; /**< balances were put by a test's request: they need not be equal */
};

static void check(bool condition, const char *what) {
    if (condition)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

static void check_answer(struct world *world) {
    struct shell_output *output = &world->output;
    check(!output->failed && output->length > 0, "there is an answer");
    check(memchr(output->text, '\n', output->length) == NULL, "an answer is one line");
    check(shell_json_parse(&world->answer_json, output->text, output->length) == 0,
          "an answer is JSON");
    output->length = 0;
}

/** The steps of `tally shell` for one line. */
static void answer(struct world *world, char *line, size_t length) {
    struct shell_request *request = &world->request;
    int error = shell_json_parse(&world->json, line, length);
    check(error == 0 || error == -EBADMSG, "a line is understood or not");
    if (error != 0) {
        check(world->json.error != NULL && world->json.error_column >= 1 &&
                  world->json.error_column <= length + 1,
              "an error has a place");
        return;
    }
    if (shell_request_read(request, &world->json, true) != 0) {
        check(request->error[0] != 0 && strchr(request->error, '\n') == NULL,
              "a refusal is one line of text");
        shell_output_text(&world->output, "{\"error\":");
        shell_output_string(&world->output, request->error);
        shell_output_text(&world->output, "}");
        check_answer(world);
        return;
    }
    if (request->request.event_count > EVENTS_MAX && request->operation < SHELL_ADVANCE)
        return;
    if (request->has_now)
        shell_ledger_clock(world->ledger, request->now_ns);
    uint64_t cell_time = shell_ledger_cell_time(world->ledger);
    if (request->operation == SHELL_ADVANCE) {
        if (cell_time > SHELL_CLOCK_MAX_NS || request->advance_ns > SHELL_CLOCK_MAX_NS - cell_time)
            return;
        shell_ledger_clock(world->ledger, cell_time + request->advance_ns);
        check(shell_ledger_settle(world->ledger) == 0, "time passes");
        return;
    }
    if (request->operation == SHELL_PUT_BALANCES) {
        world->moved_by_hand |=
            shell_ledger_put_balances(world->ledger, request->account_id, &request->balances) == 0;
        return;
    }
    check(shell_ledger_run(world->ledger, &request->request) == 0, "a request is executed");
    shell_request_answer(request, &world->output);
    check_answer(world);
}

/** Debits equal credits over the accounts with small ids; those with others are not looked for, and then nothing is said. */
static void check_books(struct world *world) {
    char line[256] = "{\"op\":\"lookup_accounts\",\"ids\":[1";
    for (unsigned id = 2; id <= ACCOUNT_IDS; id++)
        snprintf(line + strlen(line), sizeof(line) - strlen(line), ",%u", id);
    strcat(line, "]}");
    check(shell_json_parse(&world->json, line, strlen(line)) == 0, "a lookup is understood");
    check(shell_request_read(&world->request, &world->json, false) == 0, "a lookup is understood");
    check(shell_ledger_run(world->ledger, &world->request.request) == 0, "a lookup is executed");
    const struct account *accounts = world->request.request.records;
    for (unsigned i = 0; i < ACCOUNT_IDS; i++) {
        const struct account *account = &accounts[i];
        if (world->request.request.results[i].status != 1)
            continue;
        if (account->flags & 2)
            check(account->debits_pending + account->debits_posted <= account->credits_posted,
                  "a floor holds");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    struct world world = {0};
    char error[256];
    if (length == 0)
        return 0;
    const struct shell_ledger_config config = {
        .partitions = 2, .id_time = input[0] & 1, .memory_bytes = (size_t)24 << 20};
    check(shell_ledger_open(&config, &world.ledger, error, sizeof(error)) == 0, "a ledger opens");
    check(shell_request_open(&world.request) == 0, "there is memory");
    char *text = malloc(length);
    check(text != NULL, "there is memory");
    memcpy(text, input + 1, length - 1);
    size_t at = 0;
    for (unsigned lines = 0; at < length - 1 && lines < LINES_MAX; lines++) {
        char *end = memchr(text + at, '\n', length - 1 - at);
        size_t bytes = end ? (size_t)(end - text) - at : length - 1 - at;
        char *line = malloc(bytes ? bytes : 1); /* so that a byte too far is noticed */
        check(line != NULL, "there is memory");
        memcpy(line, text + at, bytes);
        answer(&world, line, bytes);
        free(line);
        at += bytes + 1;
    }
    if (!world.moved_by_hand)
        check_books(&world);
    check(shell_ledger_close(world.ledger) == 0, "a ledger closes");
    free(text);
    shell_json_free(&world.json);
    shell_json_free(&world.answer_json);
    shell_request_close(&world.request);
    shell_output_free(&world.output);
    return 0;
}

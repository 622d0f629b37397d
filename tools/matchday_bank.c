/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/matchday_bank.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEDGER 203 /* hellers */
#define CODE_HOUSE 1
#define CODE_CUSTOMER 2
#define CODE_STATEMENT 99 /* a transfer of nothing: see row_build */
#define LEGS_MAX 3
#define ACCOUNT_BATCH 11
#define MISMATCHES_SHOWN 5

/** One house account for each kind of transaction, and one for what the bank rounded. */
static const char *const kinds[] = {"cash_in",      "cash_out",         "transfer_in",
                                    "transfer_out", "card_out",         "fee",
                                    "interest",     "penalty_interest", "rounding"};
enum { KIND_COUNT = sizeof(kinds) / sizeof(kinds[0]), KIND_ROUNDING = KIND_COUNT - 1 };

struct row {
    uint32_t seq;
    uint32_t account; /**< index into bank.accounts */
    uint32_t kind;
    uint32_t next; /**< the same account's next row; UINT32_MAX: none */
    int64_t amount, rounding, balance;
    uint32_t leg_count;
    struct tally_transfer legs[LEGS_MAX];
    struct tally_result results[LEGS_MAX];
    struct tally_balances balances[LEGS_MAX];
};

struct bank {
    struct tally_client *client;
    uint64_t run_id;
    struct row *rows;
    uint32_t row_count, row_max;
    struct tally_account *accounts; /**< houses, then customers in order of appearance */
    struct tally_result *results;
    uint32_t account_count, account_max, account_sent;
    uint32_t *numbers; /**< the bank's account number, as accounts */
    uint32_t *last;    /**< newest row read of each account */
    uint32_t *ready;   /**< rows whose predecessor is acknowledged: a queue of row_max entries */
    uint32_t ready_head, ready_tail;
    uint32_t mismatches;
};

/** Grow every array that has one entry an account, or a row, by doubling. */
static int grow(void **array, size_t size, uint32_t count) {
    void *bigger = realloc(*array, size * count);
    if (bigger == NULL)
        return -ENOMEM;
    *array = bigger;
    return 0;
}

static int account_add(struct bank *bank, uint32_t number, uint16_t code) {
    if (bank->account_count == bank->account_max) {
        uint32_t count = bank->account_max ? bank->account_max * 2 : 256;
        if (grow((void **)&bank->accounts, sizeof(*bank->accounts), count) ||
            grow((void **)&bank->results, sizeof(*bank->results), count) ||
            grow((void **)&bank->numbers, sizeof(*bank->numbers), count) ||
            grow((void **)&bank->last, sizeof(*bank->last), count))
            return -ENOMEM;
        bank->account_max = count;
    }
    uint32_t index = bank->account_count++;
    bank->accounts[index] = (struct tally_account){
        .id = (tally_uint128_t)bank->run_id << 64 | (index + 1),
        .user_data_64 = number,
        .ledger = LEDGER,
        .code = code,
    };
    bank->numbers[index] = number;
    bank->last[index] = UINT32_MAX;
    return 0;
}

/** Index of a customer's account; it is added when it is new. There are about a thousand. */
static int customer(struct bank *bank, uint32_t number, uint32_t *index) {
    for (uint32_t i = KIND_COUNT; i < bank->account_count; i++) {
        if (bank->numbers[i] == number) {
            *index = i;
            return 0;
        }
    }
    *index = bank->account_count;
    return account_add(bank, number, CODE_CUSTOMER);
}

static int row_add(struct bank *bank, const char *line, uint32_t line_number) {
    struct row row = {.next = UINT32_MAX};
    uint32_t number;
    char kind[32];
    if (sscanf(line,
               "%" SCNu32 ",%*10[0-9-],%" SCNu32 ",%31[a-z_],%" SCNd64 ",%" SCNd64 ",%" SCNd64,
               &row.seq, &number, kind, &row.amount, &row.rounding, &row.balance) != 6) {
        fprintf(stderr,
                "tally-matchday: line %u of the bank file is not "
                "seq,date,account,kind,amount,rounding,balance\n",
                line_number);
        return -EINVAL;
    }
    while (row.kind < KIND_ROUNDING && strcmp(kind, kinds[row.kind]) != 0)
        row.kind++;
    if (row.kind == KIND_ROUNDING) {
        fprintf(stderr, "tally-matchday: line %u of the bank file: unknown kind '%s'\n",
                line_number, kind);
        return -EINVAL;
    }
    if (bank->row_count == bank->row_max) {
        uint32_t count = bank->row_max ? bank->row_max * 2 : 4096;
        if (grow((void **)&bank->rows, sizeof(*bank->rows), count) ||
            grow((void **)&bank->ready, sizeof(*bank->ready), count))
            return -ENOMEM;
        bank->row_max = count;
    }
    if (customer(bank, number, &row.account))
        return -ENOMEM;
    uint32_t index = bank->row_count++;
    bank->rows[index] = row;
    if (bank->last[row.account] != UINT32_MAX)
        bank->rows[bank->last[row.account]].next = index;
    else
        bank->ready[bank->ready_head++] = index;
    bank->last[row.account] = index;
    return 0;
}

static int bank_read(struct bank *bank, const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fprintf(stderr, "tally-matchday: %s: %s\n", path, strerror(errno));
        return -errno;
    }
    char line[256];
    int error = 0;
    for (uint32_t i = 0; i < KIND_COUNT && error == 0; i++)
        error = account_add(bank, 0, CODE_HOUSE);
    for (uint32_t number = 1; error == 0 && fgets(line, sizeof(line), file) != NULL; number++) {
        if (number > 1)
            error = row_add(bank, line, number);
    }
    fclose(file);
    return error;
}

static void leg_add(struct bank *bank, struct row *row, uint32_t house, int64_t amount) {
    tally_uint128_t mine = bank->accounts[row->account].id, theirs = bank->accounts[house].id;
    tally_uint128_t debit = amount > 0 ? theirs : mine;
    row->legs[row->leg_count++] = (struct tally_transfer){
        .id = tally_id(bank->client, mine),
        .debit_account_id = debit,
        .credit_account_id = amount > 0 ? mine : theirs,
        .amount = (tally_uint128_t)(amount > 0 ? amount : -amount),
        .user_data_64 = row->seq,
        .ledger = LEDGER,
        .code = amount == 0 ? CODE_STATEMENT : (uint16_t)(house + 1),
    };
}

/** A row's chain: its amount, what the bank rounded, and, because results carry the balances of the
 * *debit* account, a transfer of nothing from the customer where the last leg credits the customer.
 */
static void row_build(struct bank *bank, struct row *row) {
    row->leg_count = 0;
    if (row->amount != 0)
        leg_add(bank, row, row->kind, row->amount);
    if (row->rounding != 0)
        leg_add(bank, row, KIND_ROUNDING, row->rounding);
    if (row->leg_count == 0 ||
        row->legs[row->leg_count - 1].credit_account_id == bank->accounts[row->account].id)
        leg_add(bank, row, row->kind, 0);
    for (uint32_t i = 0; i + 1 < row->leg_count; i++)
        row->legs[i].flags = TALLY_TRANSFER_LINKED;
}

static bool row_next(void *context, struct run_unit *unit) {
    struct bank *bank = context;
    if (bank->ready_head == bank->ready_tail)
        return false;
    uint32_t index = bank->ready[bank->ready_tail++];
    struct row *row = &bank->rows[index];
    row_build(bank, row);
    *unit = (struct run_unit){.events = row->legs,
                              .results = row->results,
                              .balances = row->balances,
                              .count = row->leg_count,
                              .tag = index};
    return true;
}

static bool row_done(void *context, const struct run_unit *unit, bool again) {
    struct bank *bank = context;
    struct row *row = &bank->rows[unit->tag];
    const struct tally_balances *balances = &row->balances[row->leg_count - 1];
    int64_t balance = (int64_t)(balances->credits_posted - balances->debits_posted);
    bool good = balance == row->balance;
    for (uint32_t i = 0; i < row->leg_count; i++) {
        uint32_t status = row->results[i].status;
        bool before = status == TALLY_TRANSFER_STATUS_exists ||
                      (i > 0 && status == TALLY_TRANSFER_STATUS_linked_event_failed);
        good = good && (status == TALLY_TRANSFER_STATUS_created || (again && before));
    }
    if (!good && bank->mismatches++ < MISMATCHES_SHOWN)
        fprintf(stderr,
                "tally-matchday: bank row %u: %s, balance %" PRId64 ", the bank says %" PRId64 "\n",
                row->seq, tally_transfer_status_name(row->results[0].status), balance,
                row->balance);
    if (row->next != UINT32_MAX)
        bank->ready[bank->ready_head++] = row->next;
    return good;
}

static bool account_next(void *context, struct run_unit *unit) {
    struct bank *bank = context;
    uint32_t first = bank->account_sent, left = bank->account_count - first;
    *unit = (struct run_unit){.events = &bank->accounts[first],
                              .results = &bank->results[first],
                              .count = left < ACCOUNT_BATCH ? left : ACCOUNT_BATCH};
    bank->account_sent += unit->count;
    return unit->count > 0;
}

static bool account_done(void *context, const struct run_unit *unit, bool again) {
    (void)context;
    bool good = true;
    for (uint32_t i = 0; i < unit->count; i++)
        good = good && (unit->results[i].status == TALLY_ACCOUNT_STATUS_created ||
                        (again && unit->results[i].status == TALLY_ACCOUNT_STATUS_exists));
    return good;
}

static void bank_print(const struct bank *bank) {
    printf("  %u rows of %u customers, %u running balances equal to the bank's\n", bank->row_count,
           bank->account_count - KIND_COUNT, bank->row_count - bank->mismatches);
}

int bank_replay(struct tally_client *client, struct run *run, const char *path, uint64_t run_id,
                struct bank **bank_out) {
    struct bank *bank = *bank_out = calloc(1, sizeof(*bank));
    if (bank == NULL)
        return -ENOMEM;
    bank->client = client;
    bank->run_id = run_id;
    struct run_phase accounts = {.name = "bank: open accounts",
                                 .operation = TALLY_CREATE_ACCOUNTS,
                                 .flags = TALLY_REQUEST_UNORDERED,
                                 .context = bank,
                                 .next = account_next,
                                 .done = account_done};
    struct run_phase rows = {.name = "bank: a year, row by row",
                             .operation = TALLY_CREATE_TRANSFERS,
                             .flags = TALLY_REQUEST_UNORDERED | TALLY_REQUEST_BALANCES,
                             .context = bank,
                             .next = row_next,
                             .done = row_done};
    int error = bank_read(bank, path);
    if (error == 0) {
        error = run_phase(run, &accounts);
        run_report(&accounts);
    }
    if (error == 0) {
        error = run_phase(run, &rows);
        run_report(&rows);
        bank_print(bank);
    }
    if (error == 0 && (bank->row_count == 0 || bank->mismatches > 0 || accounts.wrong > 0))
        error = 1;
    return error;
}

void bank_free(struct bank *bank) {
    if (bank == NULL)
        return;
    free(bank->rows);
    free(bank->accounts);
    free(bank->results);
    free(bank->numbers);
    free(bank->last);
    free(bank->ready);
    free(bank);
}

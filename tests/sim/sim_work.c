/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_work.h"

#define IDS_AHEAD_MS 150000u /**< beyond what the node accepts */

void sim_book_open(struct sim_book *book, struct sim *sim, const struct sim_work_plan *plan) {
    memset(book, 0, sizeof(*book));
    book->sim = sim;
    book->plan = plan;
    book->random = sim_random_make(sim->seed, 6);
    book->account_base = sim_chance(&book->random, 500000) ? 1 : sim_draw_128(&book->random) >> 1;
    book->import_ns = 1000;
}

static uint64_t below(struct sim_book *book, uint64_t count) {
    return sim_below(&book->random, count);
}

static bool percent(struct sim_book *book, uint32_t of_100) {
    return below(book, 100) < of_100;
}

/* --- accounts ------------------------------------------------------------------------------------------------------- */

static uint32_t ledger_of(const struct sim_book *book, unsigned account) {
    return 1 + account % book->plan->ledgers;
}

/** An account's fields are always the same, so that creating it twice is a retry. */
static struct tally_account account_of(const struct sim_book *book, unsigned number) {
    const struct sim_work_plan *plan = book->plan;
    const uint64_t lot = sim_mix(book->sim->seed ^ (number + 1));
    struct tally_account account = {.id = book->account_base + number,
                                    .user_data_64 = lot & 3 ? 0 : lot,
                                    .ledger = ledger_of(book, number),
                                    .code = 1};
    if (number >= 3 && lot % 100 < plan->floor_percent)
        account.flags |= lot & 1024 ? TALLY_ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS
                                    : TALLY_ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS;
    if ((lot >> 20) % 100 < plan->history_percent)
        account.flags |= TALLY_ACCOUNT_HISTORY;
    if ((lot >> 30) % 100 < plan->closed_percent)
        account.flags |= TALLY_ACCOUNT_CLOSED;
    return account;
}

static unsigned party(struct sim_book *book) {
    const struct sim_work_plan *plan = book->plan;
    unsigned hot = plan->accounts < 3 ? plan->accounts : 3;
    return (unsigned)below(book, percent(book, plan->hot_percent) ? hot : plan->accounts);
}

static void draw_accounts(struct sim_book *book, struct sim_request *request, unsigned count,
                          unsigned first) {
    struct tally_account *accounts = (struct tally_account *)request->events;
    const bool imported = percent(book, book->plan->imported);
    request->request.operation = TALLY_CREATE_ACCOUNTS;
    for (unsigned i = 0; i < count; i++) {
        unsigned number = first + i < book->plan->accounts ? first + i : party(book);
        accounts[i] = account_of(book, number);
        if (first + i >= book->plan->accounts && percent(book, 2 * book->plan->broken)) {
            accounts[i].id += percent(book, 50) ? book->plan->accounts + below(book, 20) : 0;
            accounts[i].code = (uint16_t)below(book, 3);
            accounts[i].ledger = (uint32_t)below(book, 3);
            accounts[i].flags ^= (uint16_t)(1u << below(book, 8));
            accounts[i].debits_posted = below(book, 8) == 0;
            accounts[i].timestamp = below(book, 8) == 0;
        }
        if (imported) {
            accounts[i].flags |= TALLY_ACCOUNT_IMPORTED;
            accounts[i].timestamp = book->import_ns += 1 + below(book, 1000);
        }
        if (i + 1 < count && percent(book, book->plan->linked))
            accounts[i].flags |= TALLY_ACCOUNT_LINKED;
    }
    for (unsigned chain = 0, i = 0; i < count; i++) { /* a chain fits one datagram */
        chain = accounts[i].flags & TALLY_ACCOUNT_LINKED ? chain + 1 : 0;
        if (chain == 7) {
            accounts[i].flags &= (uint16_t)~TALLY_ACCOUNT_LINKED;
            chain = 0;
        }
    }
}

/* --- transfers ------------------------------------------------------------------------------------------------------ */

static uint128_t draw_amount(struct sim_book *book) {
    if (book->plan->huge_amounts && percent(book, 20))
        return percent(book, 30) ? UINT128_MAX : sim_draw_128(&book->random);
    return percent(book, 3) ? 0 : 1 + below(book, book->plan->amount_max);
}

static struct tally_transfer draw_plain(struct sim_book *book, struct tally_client *client) {
    const struct sim_work_plan *plan = book->plan;
    unsigned debit = party(book), credit = party(book);
    for (unsigned tries = 0; tries < 8 && !percent(book, plan->broken) &&
                             (debit == credit || ledger_of(book, debit) != ledger_of(book, credit));
         tries++)
        credit = (unsigned)below(book, plan->accounts);
    struct tally_transfer transfer = {
        .debit_account_id = book->account_base + debit,
        .credit_account_id = book->account_base + credit,
        .amount = draw_amount(book),
        .ledger = ledger_of(book, debit),
        .code = 1,
    };
    transfer.id = tally_id(client, transfer.debit_account_id);
    if (!percent(book, plan->compact_percent)) {
        transfer.user_data_128 = sim_draw(&book->random) & 1 ? sim_draw(&book->random) : 0;
        transfer.user_data_64 = sim_draw(&book->random) & 1 ? sim_draw(&book->random) : 0;
        transfer.user_data_32 = (uint32_t)below(book, 4);
    }
    return transfer;
}

static struct tally_transfer draw_pending(struct sim_book *book, struct tally_client *client) {
    struct tally_transfer transfer = draw_plain(book, client);
    transfer.flags |= TALLY_TRANSFER_PENDING;
    if (percent(book, book->plan->timeout_percent))
        transfer.timeout = 1 + (uint32_t)below(book, book->plan->timeout_max_s);
    return transfer;
}

static const struct tally_transfer *recent(struct sim_book *book) {
    uint64_t known = book->count < SIM_BOOK ? book->count : SIM_BOOK;
    /* the newest ones more often than the others */
    uint64_t back = percent(book, 60) ? below(book, known < 8 ? known : 8) : below(book, known);
    return &book->transfers[(book->count - 1 - back) % SIM_BOOK];
}

static struct tally_transfer draw_resolution(struct sim_book *book, struct tally_client *client,
                                             uint16_t flag) {
    struct tally_transfer transfer = draw_plain(book, client);
    const struct tally_transfer *pending = NULL;
    if (book->pending_count != 0 && !percent(book, 5)) {
        uint64_t known = book->pending_count < SIM_BOOK ? book->pending_count : SIM_BOOK;
        uint64_t back = percent(book, 70) ? below(book, known < 6 ? known : 6) : below(book, known);
        uint64_t number = book->pendings[(book->pending_count - 1 - back) % SIM_BOOK];
        if (book->count - number <= SIM_BOOK)
            pending = &book->transfers[number % SIM_BOOK];
    }
    transfer.flags = flag;
    transfer.user_data_128 = transfer.user_data_64 = transfer.user_data_32 = 0;
    if (!pending) {
        transfer.pending_id = book->count ? recent(book)->id : 7;
        return transfer;
    }
    transfer.pending_id = pending->id;
    transfer.id = tally_id_beside(client, pending->id);
    transfer.amount = percent(book, 60)   ? (flag == TALLY_TRANSFER_POST_PENDING ? UINT128_MAX : 0)
                      : percent(book, 70) ? pending->amount
                                          : (uint128_t)below(book, (uint64_t)pending->amount + 2);
    const bool named = percent(book, 40);
    transfer.debit_account_id = named ? pending->debit_account_id : 0;
    transfer.credit_account_id = named ? pending->credit_account_id : 0;
    transfer.ledger = named ? pending->ledger : 0;
    transfer.code = named ? pending->code : 0;
    return transfer;
}

static struct tally_transfer draw_retry(struct sim_book *book, bool changed) {
    struct tally_transfer transfer = *recent(book);
    if (!changed)
        return transfer;
    switch (below(book, 6)) {
    case 0:
        transfer.amount++;
        break;
    case 1:
        transfer.user_data_64 ^= 1;
        break;
    case 2:
        transfer.code++;
        break;
    case 3:
        transfer.credit_account_id = book->account_base + party(book);
        break;
    case 4:
        transfer.flags ^= TALLY_TRANSFER_PENDING;
        break;
    default:
        transfer.ledger++;
    }
    return transfer;
}

static void break_transfer(struct sim_book *book, struct tally_transfer *transfer) {
    switch (below(book, 14)) {
    case 0:
        transfer->id = percent(book, 50) ? 0 : UINT128_MAX;
        break;
    case 1:
        transfer->debit_account_id = percent(book, 50) ? 0 : UINT128_MAX;
        break;
    case 2:
        transfer->credit_account_id = percent(book, 50) ? 0 : transfer->debit_account_id;
        break;
    case 3:
        transfer->flags |= (uint16_t)(1u << (9 + below(book, 7)));
        break;
    case 4:
        transfer->code = 0;
        break;
    case 5:
        transfer->ledger = (uint32_t)below(book, 5);
        break;
    case 6:
        transfer->timestamp = 1 + below(book, 100);
        break;
    case 7:
        transfer->timeout = UINT32_MAX;
        break;
    case 8:
        transfer->pending_id = percent(book, 50) ? transfer->id : UINT128_MAX;
        break;
    case 9:
        transfer->credit_account_id = book->account_base + book->plan->accounts + below(book, 9);
        break;
    case 10:
        transfer->debit_account_id = book->account_base + book->plan->accounts + below(book, 9);
        break;
    default:
        transfer->flags ^= (uint16_t)(1u << below(book, 9));
    }
}

/** Ids of other times and places than the library would make. */
static void draw_id(struct sim_book *book, struct tally_transfer *transfer) {
    const struct sim_work_plan *plan = book->plan;
    uint64_t ms = (uint64_t)(transfer->id >> 80);
    uint64_t lot = below(book, 100);
    if (lot < plan->id_old)
        ms -= sim_spread(&book->random, 100, 4000000);
    else if ((lot -= plan->id_old) < plan->id_future)
        ms += sim_spread(&book->random, 100, IDS_AHEAD_MS);
    else if ((lot -= plan->id_future) < plan->id_foreign)
        transfer->id ^= below(book, 65536);
    else if ((lot -= plan->id_foreign) < plan->id_reused && book->count)
        transfer->id = recent(book)->id;
    else
        return;
    if (ms != (uint64_t)(transfer->id >> 80) && lot < plan->id_old + plan->id_future)
        transfer->id =
            ((uint128_t)(ms & 0xffffffffffffu) << 80) | (transfer->id & (((uint128_t)1 << 80) - 1));
}

static struct tally_transfer draw_transfer(struct sim_book *book, struct tally_client *client) {
    const struct sim_work_plan *plan = book->plan;
    const uint32_t weights[] = {plan->plain,     plan->pending, plan->post,  plan->void_,
                                plan->balancing, plan->closing, plan->retry, plan->retry_changed};
    uint32_t total = 0;
    for (unsigned i = 0; i < 8; i++)
        total += weights[i];
    uint64_t lot = below(book, total);
    unsigned kind = 0;
    for (; lot >= weights[kind]; kind++)
        lot -= weights[kind];
    struct tally_transfer transfer;
    switch (kind) {
    case 1:
        transfer = draw_pending(book, client);
        break;
    case 2:
    case 3:
        transfer = draw_resolution(
            book, client, kind == 2 ? TALLY_TRANSFER_POST_PENDING : TALLY_TRANSFER_VOID_PENDING);
        break;
    case 4:
        transfer = percent(book, 60) ? draw_plain(book, client) : draw_pending(book, client);
        transfer.flags |=
            percent(book, 50) ? TALLY_TRANSFER_BALANCING_DEBIT : TALLY_TRANSFER_BALANCING_CREDIT;
        break;
    case 5:
        transfer = draw_pending(book, client);
        transfer.flags |=
            percent(book, 50) ? TALLY_TRANSFER_CLOSING_DEBIT : TALLY_TRANSFER_CLOSING_CREDIT;
        break;
    case 6:
    case 7:
        transfer = book->count ? draw_retry(book, kind == 7) : draw_plain(book, client);
        return transfer;
    default:
        transfer = draw_plain(book, client);
    }
    draw_id(book, &transfer);
    if (percent(book, plan->broken))
        break_transfer(book, &transfer);
    return transfer;
}

static void remember(struct sim_book *book, const struct tally_transfer *transfer) {
    book->transfers[book->count % SIM_BOOK] = *transfer;
    book->transfers[book->count % SIM_BOOK].flags &= (uint16_t)~TALLY_TRANSFER_LINKED;
    if (transfer->flags & TALLY_TRANSFER_PENDING)
        book->pendings[book->pending_count++ % SIM_BOOK] = book->count;
    book->count++;
}

static void draw_transfers(struct sim_book *book, struct tally_client *client,
                           struct sim_request *request, unsigned count) {
    const struct sim_work_plan *plan = book->plan;
    struct tally_transfer *transfers = (struct tally_transfer *)request->events;
    const bool imported = percent(book, plan->imported);
    unsigned chain = 0;
    request->request.operation = TALLY_CREATE_TRANSFERS;
    for (unsigned i = 0; i < count; i++) {
        transfers[i] = draw_transfer(book, client);
        transfers[i].flags &= (uint16_t)~TALLY_TRANSFER_LINKED;
        if (imported && !percent(book, 3)) {
            transfers[i].flags |= TALLY_TRANSFER_IMPORTED;
            transfers[i].timeout = percent(book, 90) ? 0 : transfers[i].timeout;
            transfers[i].timestamp = book->import_ns += 1 + below(book, 1000);
        }
        remember(book, &transfers[i]);
        /* inside a chain more often than not it goes on; the last event rarely leaves it open */
        uint32_t link = chain ? 60 : plan->linked;
        if (chain < 6 && percent(book, link) && (i + 1 < count || percent(book, plan->broken))) {
            transfers[i].flags |= TALLY_TRANSFER_LINKED;
            chain++;
        } else {
            chain = 0;
        }
    }
}

/* --- requests ------------------------------------------------------------------------------------------------------- */

static void draw_lookup(struct sim_book *book, struct sim_request *request, unsigned count,
                        bool accounts) {
    uint128_t *ids = (uint128_t *)request->events;
    request->request.operation = accounts ? TALLY_LOOKUP_ACCOUNTS : TALLY_LOOKUP_TRANSFERS;
    for (unsigned i = 0; i < count; i++) {
        if (accounts)
            ids[i] = book->account_base + (percent(book, 95) ? party(book) : below(book, 1000));
        else
            ids[i] = book->count && percent(book, 95) ? recent(book)->id : sim_draw(&book->random);
    }
}

static void prepare(struct sim_book *book, struct sim_request *request, unsigned count) {
    const struct sim_work_plan *plan = book->plan;
    struct tally_request *out = &request->request;
    bool lookup = out->operation >= TALLY_LOOKUP_ACCOUNTS;
    out->count = count;
    out->flags = 0;
    if (!lookup && percent(book, plan->balances_percent))
        out->flags |= TALLY_REQUEST_BALANCES;
    if (!lookup && percent(book, plan->unordered_percent))
        out->flags |= TALLY_REQUEST_UNORDERED;
    if (lookup && percent(book, plan->stale_percent))
        out->flags |= TALLY_REQUEST_STALE_OK;
    out->timeout_ms = (uint32_t)plan->timeout_ms;
    out->events = request->events;
    out->results = request->results;
    out->balances = request->balances;
    out->records = request->records;
}

void sim_work_draw(struct sim_book *book, struct tally_client *client, struct sim_request *request,
                   unsigned first) {
    const struct sim_work_plan *plan = book->plan;
    const uint32_t weights[] = {plan->create_accounts, plan->create_transfers,
                                plan->lookup_accounts, plan->lookup_transfers};
    unsigned count = 1 + (unsigned)below(book, plan->events_max);
    uint64_t lot = below(book, weights[0] + weights[1] + weights[2] + weights[3]);
    unsigned kind = 0;
    for (; lot >= weights[kind]; kind++)
        lot -= weights[kind];
    if (first < plan->accounts) {
        count = plan->accounts - first < SIM_EVENTS_MAX ? plan->accounts - first : SIM_EVENTS_MAX;
        kind = 0;
    } else {
        first = plan->accounts;
    }
    if (kind == 0)
        draw_accounts(book, request, count, first);
    else if (kind == 1)
        draw_transfers(book, client, request, count);
    else
        draw_lookup(book, request, count, kind == 2);
    prepare(book, request, count);
}

unsigned sim_work_lookup_all(struct sim_book *book, struct sim_request *request, unsigned first) {
    uint128_t *ids = (uint128_t *)request->events;
    unsigned count = book->plan->accounts - first;
    count = count < SIM_EVENTS_MAX ? count : SIM_EVENTS_MAX;
    request->request.operation = TALLY_LOOKUP_ACCOUNTS;
    for (unsigned i = 0; i < count; i++)
        ids[i] = book->account_base + first + i;
    prepare(book, request, count);
    request->request.flags = 0;
    return count;
}

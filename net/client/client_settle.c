/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "net/client/client_internal.h"

/** What becomes of events whose outcome was unknown.
 *
 *  A single event is sent again, and its own id tells: `exists` if an earlier transmission took
 *  effect. For a linked chain that is not enough: of one that took effect as a whole, the first
 *  member answers `exists` (or `id_expired`, where its id is below the horizon meanwhile) and fails
 *  the chain, and the others answer linked_event_failed. So its members are looked up, which in a
 *  new session is final. */

static uint32_t status_exists(const struct tally_request *request) {
    return request->operation == TALLY_CREATE_ACCOUNTS ? (uint32_t)TALLY_ACCOUNT_STATUS_exists
                                                       : (uint32_t)TALLY_TRANSFER_STATUS_exists;
}

static bool item_is_linked(const struct parcel_item *item) {
    const struct tally_request *request = item->request;
    if (request->operation == TALLY_CREATE_ACCOUNTS)
        return ((const struct tally_account *)request->events)[item->index].flags &
               TALLY_ACCOUNT_LINKED;
    return ((const struct tally_transfer *)request->events)[item->index].flags &
           TALLY_TRANSFER_LINKED;
}

/** Items of the chain that starts at `first`, at least 1. */
static unsigned chain_items(const struct parcel *parcel, unsigned first) {
    unsigned end = first;
    while (parcel->items[end].request && end + 1 < parcel->item_count &&
           item_is_linked(&parcel->items[end]))
        end++;
    return end + 1 - first;
}

static bool chain_is_unsettled(const struct parcel *parcel, unsigned first, unsigned count) {
    bool known = false, failed = false; /* an id that is expired may have been in effect, too */
    if (count == 1 || !parcel->items[first].request)
        return false;
    for (unsigned i = first; i < first + count; i++) {
        const struct tally_request *request = parcel->items[i].request;
        uint32_t status = request->results[parcel->items[i].index].status;
        known |=
            status == status_exists(request) || (request->operation == TALLY_CREATE_TRANSFERS &&
                                                 status == TALLY_TRANSFER_STATUS_id_expired);
        failed |= status == TALLY_TRANSFER_STATUS_linked_event_failed;
    }
    return known && failed;
}

bool client_settle_chains(struct tally_client *client, struct parcel *parcel) {
    unsigned unsettled = 0, count, kept = 0;
    if (!parcel->uncertain || parcel->settling ||
        (parcel->class.operation != OPERATION_CREATE_ACCOUNTS &&
         parcel->class.operation != OPERATION_CREATE_TRANSFERS))
        return false;
    for (unsigned i = 0; i < parcel->item_count; i += count) {
        count = chain_items(parcel, i);
        unsettled += chain_is_unsettled(parcel, i, count);
    }
    if (unsettled == 0)
        return false;
    for (unsigned i = 0; i < parcel->item_count; i += count) {
        count = chain_items(parcel, i);
        bool keep = chain_is_unsettled(parcel, i, count);
        for (unsigned k = i; k < i + count; k++) {
            struct parcel_item item = parcel->items[k];
            if (keep) {
                item.request->results[item.index].status = TALLY_STATUS_unknown;
                parcel->items[kept++] = item;
            } else if (item.request) {
                client_item_done(client, &item);
            }
        }
    }
    parcel->item_count = parcel->live = (uint16_t)kept;
    parcel->class.operation = parcel->class.operation == OPERATION_CREATE_ACCOUNTS
                                  ? OPERATION_LOOKUP_ACCOUNTS
                                  : OPERATION_LOOKUP_TRANSFERS;
    parcel->class.event_format = EVENT_FORMAT_FULL;
    parcel->class.options = 0;
    parcel->settling = true;
    parcel->refusals = 0;
    client_parcel_move(client, parcel, PARCEL_READY);
    return true;
}

void client_settle_entry(const struct parcel_item *item, uint8_t operation,
                         const struct result *result, const void *record) {
    struct tally_result *out = &item->request->results[item->index];
    if (result->status == LOOKUP_STATUS_found) {
        out->timestamp = operation == OPERATION_LOOKUP_ACCOUNTS
                             ? ((const struct account *)record)->timestamp
                             : ((const struct transfer *)record)->timestamp;
        out->status = status_exists(item->request);
    } else if (result->status == LOOKUP_STATUS_absent) {
        out->status = TALLY_TRANSFER_STATUS_linked_event_failed;
    } /* expired: nobody knows any more, so it stays unknown */
}

_Static_assert((int)TALLY_TRANSFER_STATUS_linked_event_failed ==
                   (int)TALLY_ACCOUNT_STATUS_linked_event_failed,
               "one number for both");

/** Looks the ids up in a session that began after every transmission of the events. The ids are
 *  taken from the transfers in pieces, for the library takes no memory after open. */
static int settle_by_lookup(struct tally_client *client, const struct tally_transfer *transfers,
                            uint32_t count, struct tally_result *results) {
    enum { PIECE = 64 };
    tally_uint128_t ids[PIECE];
    struct tally_transfer records[PIECE];
    int worst = 0;
    client->now_ns = client->clock->monotonic_ns(client->clock);
    if (client->session.state == SESSION_OPEN)
        client_session_renew(client, "transfers are to be settled");
    for (uint32_t first = 0; first < count; first += PIECE) {
        uint32_t piece = count - first < PIECE ? count - first : PIECE;
        for (uint32_t i = 0; i < piece; i++)
            ids[i] = transfers[first + i].id;
        int rc = tally_lookup_transfers(client, ids, piece, results + first, records);
        for (uint32_t i = 0; i < piece; i++)
            if (results[first + i].status == TALLY_LOOKUP_STATUS_found)
                results[first + i].timestamp = records[i].timestamp;
        worst = worst ? worst : rc;
    }
    return worst;
}

int tally_transfer_settle(struct tally_client *client, enum tally_settle how,
                          const struct tally_transfer *transfers, uint32_t count,
                          struct tally_result *results) {
    if (count == 0 || count > TALLY_EVENTS_MAX)
        return -EINVAL;
    if (how == TALLY_SETTLE_LOOKUP)
        return settle_by_lookup(client, transfers, count, results);
    if (how != TALLY_SETTLE_RESEND)
        return -EINVAL;
    struct tally_request request = {.operation = TALLY_CREATE_TRANSFERS,
                                    .count = count,
                                    .events = transfers,
                                    .results = results};
    int status = client_resend_wait(client, &request);
    /* What this call did not send was sent before, or there would be nothing to settle: its outcome is still unknown. */
    bool unsettled = false;
    bool answered = status == 0 || status == -ENOTCONN || status == -ETIMEDOUT || status == -EBUSY;
    for (uint32_t i = 0; answered && i < count; i++) {
        if (results[i].status == TALLY_STATUS_not_sent) {
            results[i].status = TALLY_STATUS_unknown;
            unsettled = true;
        }
    }
    return unsettled ? -ETIMEDOUT : status;
}

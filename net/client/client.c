/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/client/client_internal.h"

/** One turn of the client, and requests from submission to their callback. Opening and closing:
 *  client_open.c. */

uint32_t client_jitter(struct tally_client *client) {
    /* splitmix64: spreads timers, keeps nothing secret */
    uint64_t z = (client->jitter += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(z ^ (z >> 31));
}

static void client_note_time(struct tally_client *client) {
    client->now_ns = client->clock->monotonic_ns(client->clock);
}

uint64_t client_next_ns(const struct tally_client *client) {
    uint64_t session = client_session_next_ns(client);
    return session < client->expiry_hint_ns ? session : client->expiry_hint_ns;
}

void client_push(struct tally_client *client, bool flush) {
    if (client->session.state != SESSION_OPEN)
        return;
    for (uint32_t room = client_session_room(client); room; room = client_session_room(client)) {
        client_parcel_pack(client, room);
        if (flush)
            client_parcel_flush(client, room);
        if (client->ready_count == 0)
            return;
        client_session_send_ready(client);
    }
}

/* --- requests --------------------------------------------------------------------------------- */

static void queue_append(struct tally_client *client, struct tally_request *request) {
    request_state(request)->phase = REQUEST_QUEUED;
    request_state(request)->queue_next = NULL;
    *client->queue_tail = request;
    client->queue_tail = &request_state(request)->queue_next;
}

static void queue_prepend(struct tally_client *client, struct tally_request *request) {
    request_state(request)->phase = REQUEST_QUEUED;
    request_state(request)->queue_next = client->queue_head;
    if (!client->queue_head)
        client->queue_tail = &request_state(request)->queue_next;
    client->queue_head = request;
}

static int request_code(const struct tally_client *client, const struct tally_request *request,
                        uint32_t *unknown) {
    uint32_t overloaded = 0, not_sent = 0, refused = 0;
    (void)client;
    for (uint32_t i = 0; i < request->count; i++) {
        uint32_t status = request->results[i].status;
        *unknown += status == TALLY_STATUS_unknown;
        overloaded += status == TALLY_STATUS_overloaded;
        not_sent += status == TALLY_STATUS_not_sent;
        refused += status == TALLY_STATUS_refused;
    }
    if (*unknown)
        return TALLY_UNKNOWN;
    if (refused)
        return request_state(request)->refused;
    return overloaded ? TALLY_OVERLOADED : not_sent ? TALLY_NOT_SENT : TALLY_OK;
}

void client_request_complete(struct tally_client *client, struct tally_request *request) {
    struct request_state *state = request_state(request);
    uint32_t unknown = 0;
    if (state->all_next)
        request_state(state->all_next)->all_prev = state->all_prev;
    if (state->all_prev)
        request_state(state->all_prev)->all_next = state->all_next;
    else
        client->all_head = state->all_next;
    request->code = request_code(client, request, &unknown);
    client->stats.unknown += unknown;
    client->completed++;
    state->phase = REQUEST_DONE;
    if (request->done)
        request->done(client, request);
}

void client_item_done(struct tally_client *client, const struct parcel_item *item) {
    struct request_state *state = request_state(item->request);
    state->pending--;
    state->in_flight--;
    if (state->pending == 0)
        client_request_complete(client, item->request);
    else if (state->phase == REQUEST_WAITING && state->in_flight == 0)
        queue_prepend(client, item->request);
}

/** End what is overdue. Each event's result already says how far it came. */
static void client_expire(struct tally_client *client) {
    struct tally_request *request, *next, **link = &client->queue_head;
    bool any = false;
    client->expiry_hint_ns = CLIENT_NEVER;
    for (request = client->all_head; request; request = request_state(request)->all_next) {
        struct request_state *state = request_state(request);
        if (state->deadline_ns <= client->now_ns) {
            if (state->phase == REQUEST_QUEUED || state->phase == REQUEST_WAITING)
                client->queued_events -= request->count - state->next_event;
            state->phase = REQUEST_EXPIRED;
            any = true;
        } else if (state->deadline_ns < client->expiry_hint_ns) {
            client->expiry_hint_ns = state->deadline_ns;
        }
    }
    if (!any)
        return;
    while (*link) {
        struct request_state *state = request_state(*link);
        if (state->phase == REQUEST_EXPIRED)
            *link = state->queue_next;
        else
            link = &state->queue_next;
    }
    client->queue_tail = link;
    client_parcel_forget_expired(client);
    for (request = client->all_head; request; request = next) {
        next = request_state(request)->all_next;
        if (request_state(request)->phase == REQUEST_EXPIRED)
            client_request_complete(client, request);
    }
}

void client_expire_all(struct tally_client *client) {
    client_note_time(client);
    for (struct tally_request *request = client->all_head; request;
         request = request_state(request)->all_next)
        request_state(request)->deadline_ns = 0;
    client->polling = client->closing = true;
    client_expire(client);
}

static bool request_is_whole(const struct tally_request *request) {
    const uint32_t flags =
        TALLY_REQUEST_BALANCES | TALLY_REQUEST_STALE_OK | TALLY_REQUEST_UNORDERED;
    bool lookup =
        request->operation == TALLY_LOOKUP_ACCOUNTS || request->operation == TALLY_LOOKUP_TRANSFERS;
    bool create =
        request->operation == TALLY_CREATE_ACCOUNTS || request->operation == TALLY_CREATE_TRANSFERS;
    return (lookup || create) && (request->flags & ~flags) == 0 && request->count >= 1 &&
           request->count <= TALLY_EVENTS_MAX && request->events && request->results &&
           (!lookup || request->records) &&
           (!(request->flags & TALLY_REQUEST_BALANCES) || (create && request->balances));
}

static int client_submit(struct tally_client *client, struct tally_request *request, bool resent) {
    struct request_state *state = request_state(request);
    if (client->closing)
        return -ESHUTDOWN;
    if (!request_is_whole(request))
        return -EINVAL;
    int rc = client_parcel_check_chains(client, request);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < request->count; i++)
        request->results[i] = (struct tally_result){.status = TALLY_STATUS_not_sent};
    if (request->flags & TALLY_REQUEST_BALANCES)
        memset(request->balances, 0, request->count * sizeof(request->balances[0]));
    request->code = TALLY_OK;
    request->term = request->seq = 0;
    if (!client->polling && !client->queue_head) /* a run of submissions has one time */
        client_note_time(client);
    uint32_t timeout_ms = request->timeout_ms ? request->timeout_ms : client->options.timeout_ms;
    *state = (struct request_state){
        .all_next = client->all_head,
        .deadline_ns = client->now_ns + timeout_ms * NS_PER_MS,
        .pending = request->count,
        .resent = resent,
    };
    if (client->all_head)
        request_state(client->all_head)->all_prev = request;
    client->all_head = request;
    if (state->deadline_ns < client->expiry_hint_ns)
        client->expiry_hint_ns = state->deadline_ns;
    queue_append(client, request);
    client->queued_events += request->count;
    return 0;
}

int tally_submit(struct tally_client *client, struct tally_request *request) {
    int rc = client_submit(client, request, false);
    if (rc < 0 || client->polling)
        return rc;
    /* a full datagram need not wait for the next turn */
    if (client->queued_events >= client->items_max) {
        client->polling = true;
        client_push(client, false);
        client->polling = false;
    }
    client_timer_arm(client);
    return 0;
}

/* --- a turn ----------------------------------------------------------------------------------- */

unsigned tally_client_poll(struct tally_client *client) {
    assert(!client->polling);
    client_note_time(client);
    client->polling = true;
    client->completed = 0;
    client_timer_drain(client);
    client_session_receive(client);
    client_session_timers(client);
    if (client->now_ns >= client->expiry_hint_ns)
        client_expire(client);
    client_push(client, true);
    client_session_ack_if_due(client);
    client->polling = false;
    client_timer_arm(client);
    return client->completed;
}

/** Sleep until tally_client_poll has something to do. */
void client_sleep(struct tally_client *client) {
    if (client->epoll_fd < 0) {
        sched_yield();
        return;
    }
    struct pollfd wait = {.fd = client->epoll_fd, .events = POLLIN};
    while (poll(&wait, 1, -1) < 0 && errno == EINTR) {
    }
}

static int request_errno(const struct tally_request *request) {
    switch (request->code) {
    case TALLY_OK:
        return 0;
    case TALLY_OVERLOADED:
        return -EBUSY;
    case TALLY_UNKNOWN:
        return -ETIMEDOUT;
    case TALLY_NOT_SENT:
        return -ENOTCONN;
    default:
        return -EPROTO;
    }
}

static int request_wait(struct tally_client *client, struct tally_request *request, bool resent) {
    void (*done)(struct tally_client *, struct tally_request *) = request->done;
    assert(!client->polling);
    int rc = client_submit(client, request, resent);
    if (rc < 0)
        return rc;
    request->done = NULL;
    for (;;) {
        tally_client_poll(client);
        if (request_state(request)->phase == REQUEST_DONE)
            break;
        client_sleep(client);
    }
    request->done = done;
    return request_errno(request);
}

int tally_request_wait(struct tally_client *client, struct tally_request *request) {
    return request_wait(client, request, false);
}

int client_resend_wait(struct tally_client *client, struct tally_request *request) {
    return request_wait(client, request, true);
}

int tally_create_accounts(struct tally_client *client, const struct tally_account *accounts,
                          uint32_t count, struct tally_result *results) {
    struct tally_request request = {
        .operation = TALLY_CREATE_ACCOUNTS, .count = count, .events = accounts, .results = results};
    return request_wait(client, &request, false);
}

int tally_create_transfers(struct tally_client *client, const struct tally_transfer *transfers,
                           uint32_t count, struct tally_result *results,
                           struct tally_balances *balances) {
    struct tally_request request = {.operation = TALLY_CREATE_TRANSFERS,
                                    .flags = balances ? TALLY_REQUEST_BALANCES : 0,
                                    .count = count,
                                    .events = transfers,
                                    .results = results,
                                    .balances = balances};
    return request_wait(client, &request, false);
}

int tally_lookup_accounts(struct tally_client *client, const tally_uint128_t *ids, uint32_t count,
                          struct tally_result *results, struct tally_account *accounts) {
    struct tally_request request = {.operation = TALLY_LOOKUP_ACCOUNTS,
                                    .count = count,
                                    .events = ids,
                                    .results = results,
                                    .records = accounts};
    return request_wait(client, &request, false);
}

int tally_lookup_transfers(struct tally_client *client, const tally_uint128_t *ids, uint32_t count,
                           struct tally_result *results, struct tally_transfer *transfers) {
    struct tally_request request = {.operation = TALLY_LOOKUP_TRANSFERS,
                                    .count = count,
                                    .events = ids,
                                    .results = results,
                                    .records = transfers};
    return request_wait(client, &request, false);
}

int tally_ping(struct tally_client *client, uint32_t timeout_ms, uint64_t *rtt_ns) {
    client_note_time(client);
    uint64_t deadline_ns =
        client->now_ns + (timeout_ms ? timeout_ms : client->options.timeout_ms) * NS_PER_MS;
    client_session_ping(client);
    for (;;) {
        tally_client_poll(client);
        if (client->ping_rtt_ns) {
            *rtt_ns = client->ping_rtt_ns;
            return 0;
        }
        if (client->now_ns >= deadline_ns) {
            client->ping_sent_ns = 0;
            return -ETIMEDOUT;
        }
        client_timer_arm_at(client, deadline_ns);
        client_sleep(client);
    }
}

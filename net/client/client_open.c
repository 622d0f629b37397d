/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "net/client/client_internal.h"

/** Opening and closing a client: memory, descriptors, clock. */

static uint64_t clock_ns(clockid_t which) {
    struct timespec time;
    clock_gettime(which, &time);
    return (uint64_t)time.tv_sec * NS_PER_SECOND + (uint64_t)time.tv_nsec;
}

static uint64_t kernel_monotonic_ns(struct clock *clock) {
    (void)clock;
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t kernel_realtime_ns(struct clock *clock) {
    (void)clock;
    return clock_ns(CLOCK_REALTIME);
}

static struct clock kernel_clock = {.monotonic_ns = kernel_monotonic_ns,
                                    .realtime_ns = kernel_realtime_ns};

static void kernel_random_fill(struct random *random, void *bytes, size_t length) {
    (void)random;
    /* up to 256 bytes are never short and never interrupted */
    ssize_t got = getrandom(bytes, length, 0);
    assert(got == (ssize_t)length);
}

static struct random kernel_random = {.fill = kernel_random_fill};

/* --- descriptors ------------------------------------------------------------------------------ */

/** The timer is on CLOCK_MONOTONIC, so it serves the kernel's clock only; another one has to be
 *  polled. */
static int client_open_descriptors(struct tally_client *client) {
    int transport_fd = client->transport->fd(client->transport);
    if (transport_fd < 0 || client->clock != &kernel_clock)
        return 0;
    struct epoll_event event = {.events = EPOLLIN};
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (client->epoll_fd < 0)
        return -errno;
    client->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (client->timer_fd < 0 ||
        epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->timer_fd, &event) < 0 ||
        epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, transport_fd, &event) < 0)
        return -errno;
    return 0;
}

void client_timer_arm_at(struct tally_client *client, uint64_t when_ns) {
    if (client->timer_fd < 0 || when_ns >= client->timer_armed_ns)
        return;
    /* zero would disarm it */
    uint64_t at = when_ns ? when_ns : 1;
    struct itimerspec timer = {.it_value = {.tv_sec = (time_t)(at / NS_PER_SECOND),
                                            .tv_nsec = (long)(at % NS_PER_SECOND)}};
    timerfd_settime(client->timer_fd, TFD_TIMER_ABSTIME, &timer, NULL);
    client->timer_armed_ns = when_ns;
}

/** A timer that is armed too early only costs a turn, so it is moved forward only. */
void client_timer_arm(struct tally_client *client) {
    if (client->timer_fd >= 0)
        client_timer_arm_at(client, client_next_ns(client));
}

void client_timer_drain(struct tally_client *client) {
    uint64_t expirations;
    if (client->timer_fd < 0 || client->now_ns < client->timer_armed_ns)
        return;
    ssize_t got = read(client->timer_fd, &expirations, sizeof(expirations));
    (void)got; /* nothing to read: it is about to fire, and costs a turn */
    client->timer_armed_ns = CLIENT_NEVER;
}

/* --- memory ----------------------------------------------------------------------------------- */

static uint32_t power_of_two(uint32_t at_least) {
    uint32_t power = 1;
    while (power < at_least)
        power *= 2;
    return power;
}

/** parcels: (items_max x 16 + payload_max) each, one per number of the window and those being
 *  filled; receiving: CLIENT_BURST x payload_max. */
static int client_take_memory(struct tally_client *client) {
    struct session *session = &client->session;
    uint32_t window = client->options.window ? client->options.window : CLIENT_WINDOW_DEFAULT;
    window = window < CLIENT_WINDOW_MAX ? window : CLIENT_WINDOW_MAX;
    session->by_number_size = power_of_two(window);
    client->parcel_count = session->by_number_size + CLIENT_OPEN_PARCELS_MAX;
    client->items_max = client->payload_max / (uint32_t)sizeof(uint128_t);
    session->by_number = calloc(session->by_number_size, sizeof(session->by_number[0]));
    client->parcels = calloc(client->parcel_count, sizeof(client->parcels[0]));
    client->items =
        calloc((size_t)client->parcel_count * client->items_max, sizeof(client->items[0]));
    client->datagrams = malloc((size_t)client->parcel_count * client->payload_max);
    client->rx_bytes = malloc((size_t)CLIENT_BURST * client->payload_max);
    if (!session->by_number || !client->parcels || !client->items || !client->datagrams ||
        !client->rx_bytes)
        return -ENOMEM;
    for (uint32_t i = 0; i < client->parcel_count; i++) {
        struct parcel *parcel = &client->parcels[i];
        parcel->items = client->items + (size_t)i * client->items_max;
        parcel->datagram = client->datagrams + (size_t)i * client->payload_max;
        TAILQ_INSERT_TAIL(&client->free, parcel, link);
    }
    for (unsigned i = 0; i < CLIENT_BURST; i++)
        client->rx[i].bytes = client->rx_bytes + (size_t)i * client->payload_max;
    return 0;
}

static void client_free(struct tally_client *client) {
    if (client->timer_fd >= 0)
        close(client->timer_fd);
    if (client->epoll_fd >= 0)
        close(client->epoll_fd);
    free(client->session.by_number);
    free(client->parcels);
    free(client->items);
    free(client->datagrams);
    free(client->rx_bytes);
    free(client);
}

/* --- open and close --------------------------------------------------------------------------- */

static struct tally_client *client_new(const struct tally_options *options,
                                       struct tally_transport *transport, struct clock *clock,
                                       struct random *random) {
    struct tally_client *client = calloc(1, sizeof(*client));
    if (!client)
        return NULL;
    client->options = *options;
    client->options.server = NULL; /* the caller's string need not live on */
    if (!client->options.timeout_ms)
        client->options.timeout_ms = CLIENT_TIMEOUT_DEFAULT_MS;
    client->transport = transport;
    client->clock = clock;
    client->random = random;
    client->epoll_fd = client->timer_fd = -1;
    client->timer_armed_ns = client->expiry_hint_ns = client->delayed_hint_ns = CLIENT_NEVER;
    client->payload_max = options->payload_max ? options->payload_max : transport->payload_max;
    client->queue_tail = &client->queue_head;
    TAILQ_INIT(&client->free);
    TAILQ_INIT(&client->open);
    TAILQ_INIT(&client->ready);
    TAILQ_INIT(&client->sent);
    TAILQ_INIT(&client->delayed);
    random->fill(random, &client->jitter, sizeof(client->jitter));
    random->fill(random, client->session.instance, sizeof(client->session.instance));
    client->session.payload_max = client->payload_max;
    client->session.rto_ns = CLIENT_RTO_INITIAL_NS;
    client->session.partitions = client->session.lcores = 1; /* until WELCOME says */
    return client;
}

int client_start(const struct tally_options *options, struct tally_transport *transport,
                 struct clock *clock, struct random *random, struct tally_client **client,
                 char *error, size_t error_bytes) {
    if (options->payload_max &&
        (options->payload_max < NET_HELLO_BYTES || options->payload_max > NET_PAYLOAD_MAX)) {
        snprintf(error, error_bytes, "payload_max %u is not in %d .. %d", options->payload_max,
                 NET_HELLO_BYTES, NET_PAYLOAD_MAX);
        return -EINVAL;
    }
    struct tally_client *out = client_new(options, transport, clock ? clock : &kernel_clock,
                                          random ? random : &kernel_random);
    if (!out) {
        snprintf(error, error_bytes, "no memory for a client");
        return -ENOMEM;
    }
    int rc = client_take_memory(out);
    if (rc == 0)
        rc = client_open_descriptors(out);
    if (rc < 0) {
        snprintf(error, error_bytes, "no client: %s", strerror(-rc));
        client_free(out);
        return rc;
    }
    client_parcel_note_payload(out);
    out->now_ns = out->clock->monotonic_ns(out->clock);
    client_session_start(out);
    snprintf(out->problem, sizeof(out->problem), "no answer from the server yet");
    *client = out;
    return 0;
}

static int client_await_session(struct tally_client *client, uint64_t deadline_ns) {
    for (;;) {
        tally_client_poll(client);
        if (client->session.state == SESSION_OPEN)
            return 0;
        if (client->now_ns >= deadline_ns)
            return -ETIMEDOUT;
        client_timer_arm_at(client, deadline_ns);
        client_sleep(client);
    }
}

int tally_client_open(const struct tally_options *options, struct tally_client **client,
                      char *error, size_t error_bytes) {
    static const struct tally_options defaults;
    const char *server = options && options->server ? options->server : "127.0.0.1";
    options = options ? options : &defaults;
    uint32_t buffer_bytes =
        options->socket_buffer_bytes ? options->socket_buffer_bytes : CLIENT_SOCKET_BUFFER_DEFAULT;
    struct tally_transport *transport = options->transport;
    struct tally_client *out;
    int rc = 0;
    if (!transport)
        rc = transport_socket_open(server, buffer_bytes, &transport, error, error_bytes);
    if (rc < 0)
        return rc;
    rc = client_start(options, transport, NULL, NULL, &out, error, error_bytes);
    if (rc < 0) {
        if (!options->transport)
            transport->close(transport);
        return rc;
    }
    rc = client_await_session(out, out->now_ns + out->options.timeout_ms * NS_PER_MS);
    if (rc < 0) {
        snprintf(error, error_bytes,
                 "no answer from %s (UDP port %u) within %u ms: is tallyd running there?", server,
                 transport->server_port, out->options.timeout_ms);
        if (options->transport)
            out->transport = NULL; /* it stays the caller's */
        tally_client_close(out);
        return rc;
    }
    *client = out;
    return 0;
}

void tally_client_close(struct tally_client *client) {
    if (!client)
        return;
    assert(!client->polling);
    client_expire_all(client);
    if (client->transport) {
        client_session_goodbye(client);
        client->transport->close(client->transport);
    }
    client_free(client);
}

/* --- looking in ------------------------------------------------------------------------------- */

int tally_client_fd(const struct tally_client *client) {
    return client->epoll_fd;
}

const char *tally_client_problem(const struct tally_client *client) {
    return client->problem;
}

void tally_client_info(const struct tally_client *client, struct tally_info *info) {
    const struct session *session = &client->session;
    *info = (struct tally_info){
        .session = session->id,
        .term = session->term,
        .partitions = session->partitions,
        .lcores = session->lcores,
        .payload_max = session->payload_max,
        .window = session->window,
        .id_time = session->id_time,
        .id_window_ms = session->id_window_ms,
    };
    memcpy(info->cell_id, session->cell_id, sizeof(info->cell_id));
}

void tally_client_stats(const struct tally_client *client, struct tally_stats *stats) {
    const struct session *session = &client->session;
    *stats = client->stats;
    stats->rtt_ns = session->srtt_ns;
    stats->rttvar_ns = session->rttvar_ns;
    stats->rto_ns = session->rto_ns;
    stats->outstanding = session->outstanding;
    stats->credit = session->credit >= session->next_number
                        ? (uint32_t)(session->credit - session->next_number + 1)
                        : 0;
}

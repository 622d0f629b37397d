/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_client.h"

#include <stdlib.h>

#include "engine/base/check.h"
#include "net/tag.h"

#define CLOCK_BASE_NS (77 * NS_PER_SECOND)
#define AGAIN_NS (20 * NS_PER_MS)
#define LONG_WAIT_NS (3600 * NS_PER_SECOND)

/* --- seams ---------------------------------------------------------------------------------------------------------- */

static uint64_t clock_monotonic(struct clock *clock) {
    struct sim_client *client =
        (struct sim_client *)((char *)clock - offsetof(struct sim_client, clock));
    return CLOCK_BASE_NS + client->sim->now_ns;
}

static void random_fill(struct random *random, void *bytes, size_t length) {
    struct sim_client *client =
        (struct sim_client *)((char *)random - offsetof(struct sim_client, seam_random));
    for (uint8_t *at = bytes; length-- > 0; at++)
        *at = (uint8_t)(sim_draw(&client->seam_state) >> 32);
}

static void send_datagram(struct sim_client *client, const uint8_t *bytes, uint32_t length,
                          uint16_t port) {
    uint8_t frame[SIM_FRAME_BYTES];
    struct packet_peer server = client->server;
    size_t headers = packet_header_bytes(&server);
    server.port = port;
    memcpy(frame + headers, bytes, length);
    packet_encode_udp(&client->self, &server, frame, length);
    sim_network_send(client->network, client->endpoint, client->server_endpoint, frame,
                     (uint32_t)(headers + length));
}

/** Somebody with the same address sends what he likes: cut, lengthened, changed, or all of it made up; the tag is right where that lets
 *  nobody do more than ask for a session. */
static void forge(struct sim_client *client, const struct tally_transport_datagram *real) {
    struct sim_random *random = &client->random;
    uint8_t bytes[NET_PAYLOAD_IPV4_DEFAULT];
    uint32_t length = real->length < sizeof(bytes) ? real->length : sizeof(bytes);
    const bool hello = real->bytes[1] == NET_HELLO;
    sim_fault(client->sim, SIM_FAULT_packet_forged);
    memcpy(bytes, real->bytes, length);
    switch (sim_below(random, 4)) {
    case 0:
        length = (uint32_t)sim_below(random, length + 1);
        break;
    case 1:
        for (uint32_t i = length; i < client->transport.payload_max; i++)
            bytes[i] = (uint8_t)sim_draw(random);
        length = client->transport.payload_max;
        break;
    case 2:
        for (uint32_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)sim_draw(random);
        break;
    default:
        for (uint64_t changes = sim_between(random, 1, 8); changes != 0; changes--)
            bytes[sim_below(random, length)] = (uint8_t)sim_draw(random);
        break;
    }
    if (hello && length >= sizeof(struct net_header) && bytes[1] == NET_HELLO)
        tag_seal(bytes, length);
    send_datagram(client, bytes, length, real->port);
}

static unsigned transport_send(struct tally_transport *transport,
                               const struct tally_transport_datagram *datagrams, unsigned count) {
    struct sim_client *client = (struct sim_client *)transport;
    for (unsigned i = 0; i < count && !client->mute; i++) {
        send_datagram(client, datagrams[i].bytes, datagrams[i].length, datagrams[i].port);
        if (!client->quiet && sim_chance(&client->random, client->plan->forged_ppm))
            forge(client, &datagrams[i]);
    }
    return count;
}

/** What a kernel would give to the socket: sound, for this port, from the server's address. */
static bool take_frame(struct sim_client *client, struct sim_frame *frame,
                       struct tally_transport_datagram *out) {
    struct packet packet;
    if (packet_decode(&client->self, frame->bytes, frame->length, 0, &packet) != PACKET_UDP ||
        packet.peer.family != client->server.family ||
        memcmp(packet.peer.ip, client->server.ip, sizeof(packet.peer.ip)) != 0 ||
        packet.payload_bytes > out->length)
        return false;
    memcpy(out->bytes, packet.payload, packet.payload_bytes);
    out->length = (uint32_t)packet.payload_bytes;
    out->port = packet.peer.port;
    return true;
}

static struct sim_frame *inbox_pop(struct sim_client *client) {
    if (client->inbox_count == 0)
        return NULL;
    struct sim_frame *frame = client->inbox[client->inbox_first];
    client->inbox_first = (client->inbox_first + 1) % SIM_INBOX;
    client->inbox_count--;
    return frame;
}

static unsigned transport_receive(struct tally_transport *transport,
                                  struct tally_transport_datagram *datagrams, unsigned count) {
    struct sim_client *client = (struct sim_client *)transport;
    unsigned taken = 0;
    struct sim_frame *frame;
    while (taken < count && (frame = inbox_pop(client)) != NULL) {
        taken += take_frame(client, frame, &datagrams[taken]);
        sim_network_give(client->network, frame);
    }
    return taken;
}

static int transport_fd(struct tally_transport *transport) {
    (void)transport;
    return -1;
}

static void transport_close(struct tally_transport *transport) {
    (void)transport;
}

void sim_client_deliver(struct sim_client *client, struct sim_frame *frame) {
    if (!client->library || client->inbox_count == SIM_INBOX) {
        sim_network_give(client->network, frame);
        return;
    }
    client->inbox[(client->inbox_first + client->inbox_count++) % SIM_INBOX] = frame;
    client->next_ns = client->sim->now_ns;
}

/* --- requests ------------------------------------------------------------------------------------------------------- */

/** Show the oracle what the application is told. */
static void show_told(const struct sim_client *client, const struct tally_request *request) {
    const bool lookup =
        request->operation == TALLY_LOOKUP_ACCOUNTS || request->operation == TALLY_LOOKUP_TRANSFERS;
    const bool account =
        request->operation == TALLY_LOOKUP_ACCOUNTS || request->operation == TALLY_CREATE_ACCOUNTS;
    bool linked = false;
    for (uint32_t i = 0; i < request->count; i++) {
        const struct tally_result *result = &request->results[i];
        const uint8_t *event = (const uint8_t *)request->events + i * 128;
        uint128_t id;
        /* within a chain that fails, an id can exist that was never created */
        bool chain = !lookup && (linked || (event[118] & TRANSFER_LINKED));
        linked = !lookup && (event[118] & TRANSFER_LINKED);
        if (!lookup && !chain) {
            memcpy(&id, event, sizeof(id));
            oracle_told_created(client->oracle, account, id, result->status, result->timestamp);
        } else if (lookup && result->status == LOOKUP_STATUS_found) {
            oracle_told_found(client->oracle, account, (const uint8_t *)request->records + i * 128);
        }
    }
    const char *violation = oracle_violation(client->oracle);
    if (violation)
        sim_violation(client->sim, "%s", violation);
}

static void request_done(struct tally_client *library, struct tally_request *request) {
    struct sim_request *slot = (struct sim_request *)request;
    struct sim_client *client = request->context;
    (void)library;
    sim_note(client->sim, slot->number << 8 ^ (uint64_t)request->code);
    for (uint32_t i = 0; i < request->count; i++)
        sim_note(client->sim, request->results[i].timestamp ^ request->results[i].status);
    SIM_TRACE(client->sim, client->name, "request %" PRIu64 ": %s, first result %u", slot->number,
              tally_code_name(request->code), request->results[0].status);
    slot->busy = slot->again = false;
    if (client->mute || !client->library)
        return; /* nobody waits for it any more */
    show_told(client, request);
    if (request->code == TALLY_OK) {
        for (uint32_t i = 0; i < request->count; i++)
            client->sim->told[request->operation][(uint8_t)request->results[i].status]++;
        return;
    }
    client->sim->told[0][request->code]++;
    if (request->code != TALLY_UNKNOWN && request->code != TALLY_OVERLOADED &&
        request->code != TALLY_NOT_SENT)
        sim_violation(client->sim, "%s: a sound request is answered with %s", client->name,
                      tally_code_name(request->code));
    /* open: it is asked again until somebody says what became of it, or the client loses interest */
    if (client->quiet || sim_chance(&client->random, 700000)) {
        slot->busy = slot->again = true;
        slot->again_ns = client->sim->now_ns + sim_below(&client->random, 2 * AGAIN_NS);
    }
}

static void submit(struct sim_client *client, struct sim_request *slot) {
    slot->request.done = request_done;
    slot->request.context = client;
    slot->busy = true;
    slot->again = false;
    slot->attempts++;
    sim_note_bytes(client->sim, slot->events, 128);
    SIM_TRACE(client->sim, client->name, "request %" PRIu64 ": operation %u, %u events, flags %x%s",
              slot->number, slot->request.operation, slot->request.count, slot->request.flags,
              slot->attempts > 1 ? ", again" : "");
    int rc = tally_submit(client->library, &slot->request);
    if (rc != 0) {
        slot->busy = false;
        sim_violation(client->sim, "%s: tally_submit: %d", client->name, rc);
    }
}

static struct sim_request *free_slot(struct sim_client *client) {
    for (unsigned i = 0; i < client->plan->outstanding_max; i++)
        if (!client->requests[i].busy)
            return &client->requests[i];
    return NULL;
}

static void submit_new(struct sim_client *client) {
    const uint64_t now = client->sim->now_ns;
    struct sim_request *slot = free_slot(client);
    if (!slot || client->library->session.state != SESSION_OPEN)
        return;
    if (client->quiet) {
        if (client->checked >= client->check)
            return;
        client->checked += sim_work_lookup_all(client->book, slot, client->checked);
    } else {
        if (client->left == 0 || now < client->submit_ns)
            return;
        sim_work_draw(client->book, client->library, slot, client->first);
        if (client->first < client->plan->accounts)
            client->first += slot->request.count;
        client->left--;
        client->submit_ns = now + 1 + sim_below(&client->random, 2 * client->think_ns);
    }
    slot->number = ++client->numbers;
    slot->attempts = 0;
    submit(client, slot);
}

/* --- a turn --------------------------------------------------------------------------------------------------------- */

static void come_back(struct sim_client *client) {
    const struct tally_options options = {.window = 16, .payload_max = client->plan->payload_max};
    char error[160];
    client->mute = false;
    client->self.udp_port++; /* another socket */
    if (client_start(&options, &client->transport, &client->clock, &client->seam_random,
                     &client->library, error, sizeof(error)) != 0)
        abort();
    client->next_ns = client->sim->now_ns;
    SIM_TRACE(client->sim, client->name, "comes");
}

void sim_client_leave(struct sim_client *client, bool crash, uint64_t back_ns) {
    struct sim_frame *frame;
    if (!client->library)
        return;
    SIM_TRACE(client->sim, client->name, crash ? "dies" : "says goodbye");
    struct tally_client *library = client->library;
    client->mute = crash;
    client->library = NULL; /* its requests end without anybody who listens */
    tally_client_close(library);
    client->mute = true;
    while ((frame = inbox_pop(client)) != NULL)
        sim_network_give(client->network, frame);
    client->next_ns = client->back_ns = back_ns;
}

uint64_t sim_client_next_ns(const struct sim_client *client) {
    return client->next_ns;
}

static void earlier(uint64_t *next, uint64_t at) {
    if (at < *next)
        *next = at;
}

/** When there is something to do next. */
static void plan_next(struct sim_client *client) {
    const uint64_t now = client->sim->now_ns;
    uint64_t next = now + LONG_WAIT_NS;
    uint64_t library_ns = client_next_ns(client->library);
    bool slot = false;
    earlier(&next, library_ns > CLOCK_BASE_NS ? library_ns - CLOCK_BASE_NS : 0);
    for (unsigned i = 0; i < client->plan->outstanding_max; i++) {
        slot |= !client->requests[i].busy;
        if (client->requests[i].again)
            earlier(&next, client->requests[i].again_ns);
    }
    if (slot && client->library->session.state == SESSION_OPEN) {
        if (client->quiet ? client->checked < client->check : client->left != 0)
            earlier(&next, client->quiet ? now : client->submit_ns);
    }
    client->next_ns = next > now ? next : now + 1000 + sim_below(&client->random, 10000);
}

void sim_client_step(struct sim_client *client) {
    const uint64_t now = client->sim->now_ns;
    if (now < client->next_ns)
        return;
    if (!client->library)
        come_back(client);
    tally_client_poll(client->library);
    for (unsigned i = 0; i < client->plan->outstanding_max; i++)
        if (client->requests[i].again && now >= client->requests[i].again_ns)
            submit(client, &client->requests[i]);
    submit_new(client);
    tally_client_poll(client->library);
    plan_next(client);
}

void sim_client_quiet(struct sim_client *client) {
    client->quiet = true;
    client->next_ns = client->sim->now_ns;
    for (unsigned i = 0; i < client->plan->outstanding_max; i++)
        client->requests[i].again_ns = 0;
}

bool sim_client_settled(const struct sim_client *client) {
    if (client->checked < client->check)
        return false;
    for (unsigned i = 0; i < client->plan->outstanding_max; i++)
        if (client->requests[i].busy)
            return false;
    return true;
}

void sim_client_describe(const struct sim_client *client, char *text, size_t bytes) {
    for (unsigned i = 0; i < client->plan->outstanding_max; i++)
        if (client->requests[i].busy) {
            const struct sim_request *slot = &client->requests[i];
            snprintf(text, bytes, "%s: request %" PRIu64 " (operation %u, attempt %u)",
                     client->name, slot->number, slot->request.operation, slot->attempts);
            return;
        }
    snprintf(text, bytes, "%s: %s", client->name,
             client->library ? tally_client_problem(client->library) : "not there");
}

/* --- open and close --------------------------------------------------------------------------------------------------- */

void sim_client_open(struct sim_client *client, struct sim *sim, const struct sim_plan *plan,
                     struct sim_book *book, struct sim_network *network, unsigned number) {
    memset(client, 0, sizeof(*client));
    client->sim = sim;
    client->plan = &plan->work;
    client->book = book;
    client->network = network;
    client->random = sim_random_make(sim->seed, 100 + number);
    client->seam_state = sim_random_make(sim->seed, 200 + number);
    client->clock.monotonic_ns = clock_monotonic;
    client->seam_random.fill = random_fill;
    snprintf(client->name, sizeof(client->name), "client%u", number);
    client->left = plan->work.requests;
    /* all of them once, each some of them again */
    client->check =
        number == 0 || plan->work.accounts < SIM_EVENTS_MAX ? plan->work.accounts : SIM_EVENTS_MAX;
    client->think_ns = plan->active_ns / (plan->work.requests + 1) + 1;
    client->submit_ns = sim_below(&client->random, client->think_ns);
    client->next_ns = sim_below(&client->random, NS_PER_SECOND / 10);
    client->mute = true;
    client->requests = calloc(SIM_OUTSTANDING, sizeof(client->requests[0]));
    if (!client->requests)
        abort();
    const uint8_t last = (uint8_t)(10 + number);
    client->endpoint = number + 8; /* nodes come first */
    client->self = (struct packet_self){.mac = {2, 0, 0, 0, 1, last},
                                        .ipv4 = {10, 7, 0, last},
                                        .ipv6 = {0xfd, [15] = last},
                                        .udp_port = (uint16_t)(20000 + number * 1000)};
    client->transport = (struct tally_transport){
        .send = transport_send,
        .receive = transport_receive,
        .fd = transport_fd,
        .close = transport_close,
        .server_port = NET_UDP_PORT_DEFAULT,
        .payload_max = plan->work.ipv6 ? NET_PAYLOAD_IPV6_DEFAULT : NET_PAYLOAD_IPV4_DEFAULT,
    };
    client->server.family = plan->work.ipv6 ? 6 : 4;
}

void sim_client_serve_by(struct sim_client *client, const struct packet_self *server,
                         unsigned endpoint) {
    memcpy(client->server.mac, server->mac, sizeof(server->mac));
    if (client->server.family == 4)
        memcpy(client->server.ip, server->ipv4, 4);
    else
        memcpy(client->server.ip, server->ipv6, 16);
    client->server_endpoint = endpoint;
    client->transport.server_port = server->udp_port;
}

void sim_client_close(struct sim_client *client) {
    sim_client_leave(client, true, 0);
    free(client->requests);
}

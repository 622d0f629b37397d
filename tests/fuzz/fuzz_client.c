/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "net/client/client_internal.h"

/** What a server may send to a client, right or wrong: the input is datagrams (type, length,
 *  body), which get a good header, tag and counter, so that everything behind those is reached.
 *  The client has requests of all four operations on their way. What must hold: nothing is
 *  written outside of results, every request is called back once, the client can be closed. */

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

enum { EVENTS = 30, SERVER_PORT = 7711 };

struct fuzz {
    struct tally_transport transport;
    struct clock clock;
    struct random random;
    uint64_t now_ns, random_state, counter, nonce;
    uint8_t cookie[16];
    bool ready; /**< to take input */
    const uint8_t *input;
    size_t size;
    uint8_t answer[NET_HELLO_BYTES]; /**< of the handshake */
    uint32_t answer_bytes;
    unsigned done;
};

static struct fuzz fuzz;

static void welcome(const struct net_hello *hello) {
    struct net_welcome body = {.nonce = hello->nonce,
                               .term = 1,
                               .credit = 64,
                               .partitions = 4,
                               .payload_max = NET_PAYLOAD_IPV4_DEFAULT,
                               .window = 64,
                               .id_time = 1,
                               .lcores = 1,
                               .ports = {SERVER_PORT}};
    memcpy(fuzz.answer + sizeof(struct net_header), &body, sizeof(body));
    memset(fuzz.answer + sizeof(struct net_header) + sizeof(body), 0, body.partitions);
    fuzz.answer_bytes = sizeof(struct net_header) + sizeof(body) + body.partitions;
    client_wire_seal(fuzz.answer, fuzz.answer_bytes, NET_WELCOME, 77, ++fuzz.counter);
}

static void cookie(const struct net_hello *hello) {
    struct net_cookie body = {.nonce = hello->nonce, .cookie = {1}};
    memcpy(fuzz.answer + sizeof(struct net_header), &body, sizeof(body));
    fuzz.answer_bytes = sizeof(struct net_header) + sizeof(body);
    client_wire_seal(fuzz.answer, fuzz.answer_bytes, NET_COOKIE, 0, 0);
}

static unsigned fuzz_send(struct tally_transport *transport,
                          const struct tally_transport_datagram *datagrams, unsigned count) {
    (void)transport;
    for (unsigned i = 0; i < count; i++) {
        struct net_hello hello;
        if (datagrams[i].bytes[offsetof(struct net_header, type)] != NET_HELLO)
            continue;
        memcpy(&hello, datagrams[i].bytes + sizeof(struct net_header), sizeof(hello));
        if (hello.cookie[0])
            welcome(&hello);
        else
            cookie(&hello);
    }
    return count;
}

/** Take one datagram of the input. @return its bytes, 0 at the end */
static uint32_t input_datagram(uint8_t *out, uint32_t room) {
    if (fuzz.size < 3)
        return 0;
    uint8_t type = fuzz.input[0];
    uint32_t length =
        (uint32_t)(fuzz.input[1] | fuzz.input[2] << 8) % (room - sizeof(struct net_header));
    fuzz.input += 3;
    fuzz.size -= 3;
    length = length < fuzz.size ? length : (uint32_t)fuzz.size;
    memcpy(out + sizeof(struct net_header), fuzz.input, length);
    fuzz.input += length;
    fuzz.size -= length;
    client_wire_seal(out, length + sizeof(struct net_header), type % 8, 77, ++fuzz.counter);
    return length + sizeof(struct net_header);
}

static unsigned fuzz_receive(struct tally_transport *transport,
                             struct tally_transport_datagram *datagrams, unsigned count) {
    (void)transport;
    (void)count;
    uint32_t length = fuzz.answer_bytes;
    if (length)
        memcpy(datagrams[0].bytes, fuzz.answer, length);
    else if (fuzz.ready)
        length = input_datagram(datagrams[0].bytes, datagrams[0].length);
    fuzz.answer_bytes = 0;
    datagrams[0].length = length;
    datagrams[0].port = SERVER_PORT;
    return length > 0;
}

static int fuzz_fd(struct tally_transport *transport) {
    (void)transport;
    return -1;
}

static void fuzz_close(struct tally_transport *transport) {
    (void)transport;
}

static uint64_t fuzz_clock(struct clock *clock) {
    (void)clock;
    return fuzz.now_ns += NS_PER_MS / 10;
}

static void fuzz_random(struct random *random, void *bytes, size_t length) {
    (void)random;
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)bytes)[i] =
            (uint8_t)(fuzz.random_state =
                          fuzz.random_state * 6364136223846793005u + 1442695040888963407u);
}

static void fuzz_done(struct tally_client *client, struct tally_request *request) {
    (void)client;
    (void)request;
    fuzz.done++;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    static struct tally_transfer transfers[EVENTS], records[2][EVENTS];
    static tally_uint128_t ids[EVENTS];
    static struct tally_account accounts[EVENTS];
    struct tally_result *results = calloc(4 * EVENTS, sizeof(*results));
    struct tally_balances *balances = calloc(EVENTS, sizeof(*balances));
    struct tally_client *client;
    char error[200];
    fuzz = (struct fuzz){.transport = {fuzz_send, fuzz_receive, fuzz_fd, fuzz_close, SERVER_PORT,
                                       NET_PAYLOAD_IPV4_DEFAULT},
                         .clock = {.monotonic_ns = fuzz_clock},
                         .random = {.fill = fuzz_random},
                         .now_ns = NS_PER_SECOND,
                         .input = input,
                         .size = size};
    if (client_start(&(struct tally_options){.window = 64}, &fuzz.transport, &fuzz.clock,
                     &fuzz.random, &client, error, sizeof(error)) < 0)
        abort();
    while (client->session.state != SESSION_OPEN)
        tally_client_poll(client);
    for (unsigned i = 0; i < EVENTS; i++) {
        transfers[i] =
            (struct tally_transfer){.id = i + 1, .debit_account_id = i + 9, .flags = i % 3 ? 0 : 1};
        accounts[i].id = ids[i] = i + 1;
    }
    struct tally_request requests[] = {
        {.operation = TALLY_CREATE_ACCOUNTS,
         .count = EVENTS,
         .events = accounts,
         .results = results},
        {.operation = TALLY_CREATE_TRANSFERS,
         .flags = TALLY_REQUEST_BALANCES | TALLY_REQUEST_UNORDERED,
         .count = EVENTS,
         .events = transfers,
         .results = results + EVENTS,
         .balances = balances},
        {.operation = TALLY_LOOKUP_ACCOUNTS,
         .count = EVENTS,
         .events = ids,
         .results = results + 2 * EVENTS,
         .records = records[0]},
        {.operation = TALLY_LOOKUP_TRANSFERS,
         .count = EVENTS,
         .events = ids,
         .results = results + 3 * EVENTS,
         .records = records[1]},
    };
    for (unsigned i = 0; i < 4; i++) {
        requests[i].done = fuzz_done;
        if (tally_submit(client, &requests[i]) < 0)
            abort();
    }
    tally_client_poll(client);
    fuzz.ready = true;
    for (unsigned turns = 0; fuzz.size >= 3 && turns < 200; turns++)
        tally_client_poll(client);
    tally_client_close(client);
    if (fuzz.done != 4)
        abort();
    free(results);
    free(balances);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/client/client_fixture.h"

/** The kernel's sockets, on loopback, with the fake server on a thread of its own. */

static struct tally_transfer transfers[TALLY_EVENTS_MAX];
static struct tally_result results[TALLY_EVENTS_MAX];

struct loopback_server {
    struct fake_server server;
    int fd;
    uint16_t port;
    atomic_bool stop, restart;
    pthread_t thread;
    struct sockaddr_storage peer;
    socklen_t peer_bytes;
};

static void loopback_emit(void *context, const uint8_t *datagram, uint32_t length,
                          uint16_t from_port) {
    struct loopback_server *loopback = context;
    (void)from_port;
    sendto(loopback->fd, datagram, length, 0, (struct sockaddr *)&loopback->peer,
           loopback->peer_bytes);
}

static void *loopback_run(void *context) {
    struct loopback_server *loopback = context;
    uint8_t datagram[NET_PAYLOAD_MAX];
    while (!atomic_load_explicit(&loopback->stop, memory_order_acquire)) {
        struct pollfd wait = {.fd = loopback->fd, .events = POLLIN};
        if (atomic_exchange(&loopback->restart, false))
            fake_server_restart(&loopback->server);
        if (poll(&wait, 1, 20) <= 0)
            continue;
        loopback->peer_bytes = sizeof(loopback->peer);
        ssize_t length = recvfrom(loopback->fd, datagram, sizeof(datagram), MSG_DONTWAIT,
                                  (struct sockaddr *)&loopback->peer, &loopback->peer_bytes);
        if (length > 0)
            fake_server_take(&loopback->server, 1, datagram, (uint32_t)length, loopback->port,
                             loopback_emit, loopback);
    }
    return NULL;
}

/** @return whether there is such a socket */
static bool loopback_open(struct loopback_server *loopback, int family) {
    struct sockaddr_storage name = {.ss_family = (sa_family_t)family};
    socklen_t bytes = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (family == AF_INET)
        ((struct sockaddr_in *)&name)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        ((struct sockaddr_in6 *)&name)->sin6_addr = in6addr_loopback;
    memset(loopback, 0, sizeof(*loopback));
    loopback->fd = socket(family, SOCK_DGRAM, 0);
    if (loopback->fd < 0 || bind(loopback->fd, (struct sockaddr *)&name, bytes) < 0)
        return false;
    getsockname(loopback->fd, (struct sockaddr *)&name, &bytes);
    loopback->port = ntohs(family == AF_INET ? ((struct sockaddr_in *)&name)->sin_port
                                             : ((struct sockaddr_in6 *)&name)->sin6_port);
    fake_server_open(&loopback->server, 1);
    loopback->server.port = loopback->port;
    loopback->server.payload_max =
        family == AF_INET ? NET_PAYLOAD_IPV4_DEFAULT : NET_PAYLOAD_IPV6_DEFAULT;
    return pthread_create(&loopback->thread, NULL, loopback_run, loopback) == 0;
}

static void loopback_close(struct loopback_server *loopback) {
    atomic_store_explicit(&loopback->stop, true, memory_order_release);
    pthread_join(loopback->thread, NULL);
    fake_server_close(&loopback->server);
    close(loopback->fd);
}

static struct tally_client *loopback_client(struct loopback_server *loopback, const char *format) {
    char server[64], error[200];
    struct tally_client *client;
    snprintf(server, sizeof(server), format, loopback->port);
    if (tally_client_open(&(struct tally_options){.server = server}, &client, error,
                          sizeof(error)) < 0) {
        printf("%s\n", error);
        return NULL;
    }
    return client;
}

static uint64_t cpu_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * NS_PER_SECOND + (uint64_t)time.tv_nsec;
}

static void test_blocking_calls_sleep(void) {
    static struct loopback_server loopback;
    CHECK(loopback_open(&loopback, AF_INET));
    struct tally_client *client = loopback_client(&loopback, "127.0.0.1:%u");
    CHECK(client);
    fill_transfers(transfers, 5000, 1);
    CHECK_EQ(tally_create_transfers(client, transfers, 5000, results, NULL), 0);
    CHECK_EQ(count_status(results, 5000, TALLY_TRANSFER_STATUS_created), 5000);
    struct counted_request counted =
        transfer_request(transfers, 5000, results, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(tally_request_wait(client, &counted.request), 0);
    CHECK_EQ(counted.done_count, 0);
    CHECK_EQ(count_status(results, 5000, TALLY_TRANSFER_STATUS_exists), 5000);
    loopback.server.hold = true;
    counted.request.timeout_ms = 500;
    transfers[0].id = 1000000;
    counted.request.count = 1;
    uint64_t before_ns = cpu_ns();
    CHECK_EQ(tally_request_wait(client, &counted.request), -ETIMEDOUT);
    CHECK(cpu_ns() - before_ns < 100 * NS_PER_MS);
    tally_client_close(client);
    loopback_close(&loopback);
    CHECK_EQ(loopback.server.violations, 0);
}

static void test_epoll_drives_it(void) {
    static struct loopback_server loopback;
    static struct counted_request counted[2000];
    CHECK(loopback_open(&loopback, AF_INET));
    struct tally_client *client = loopback_client(&loopback, "127.0.0.1:%u");
    struct epoll_event event = {.events = EPOLLIN};
    int epoll_fd = epoll_create1(0);
    CHECK(client && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, tally_client_fd(client), &event) == 0);
    unsigned submitted = 0, done = 0, wakes = 0;
    fill_transfers(transfers, 2000, 1);
    while (done < 2000 && wakes < 100000) {
        for (unsigned i = 0; i < 10 && submitted < 2000; i++, submitted++) {
            counted[submitted] = transfer_request(&transfers[submitted], 1, &results[submitted], 0);
            CHECK_EQ(tally_submit(client, &counted[submitted].request), 0);
        }
        if (submitted == 1000)
            atomic_store(&loopback.restart, true);
        CHECK_EQ(epoll_wait(epoll_fd, &event, 1, 3000), 1); /* the submission itself wakes it */
        done += tally_client_poll(client);
        wakes++;
    }
    CHECK_EQ(done, 2000);
    for (unsigned i = 0; i < 2000; i++)
        CHECK_EQ(counted[i].done_count, 1);
    tally_client_close(client);
    close(epoll_fd);
    loopback_close(&loopback);
    CHECK_EQ(loopback.server.created, 2000);
}

static void test_ipv6(void) {
    static struct loopback_server loopback;
    if (!loopback_open(&loopback, AF_INET6)) {
        printf("no IPv6 loopback here\n");
        test_skipped++;
        return;
    }
    struct tally_client *client = loopback_client(&loopback, "[::1]:%u");
    CHECK(client);
    struct tally_info info;
    tally_client_info(client, &info);
    CHECK_EQ(info.payload_max, 1452);
    fill_transfers(transfers, 100, 1);
    struct counted_request counted =
        transfer_request(transfers, 100, results, TALLY_REQUEST_UNORDERED);
    CHECK_EQ(tally_request_wait(client, &counted.request), 0);
    CHECK_EQ(count_status(results, 100, TALLY_TRANSFER_STATUS_created), 100);
    tally_client_close(client);
    loopback_close(&loopback);
    CHECK_EQ(loopback.server.events_max, 21);
}

static void test_nobody_there(void) {
    struct tally_client *client;
    char error[200];
    CHECK_EQ(tally_client_open(&(struct tally_options){.server = "127.0.0.1:9", .timeout_ms = 300},
                               &client, error, sizeof(error)),
             -ETIMEDOUT);
    CHECK(strstr(error, "127.0.0.1:9") && strstr(error, "300 ms"));
}

static void test_addresses(void) {
    static const char *const bad[] = {
        "",     ":7711",     "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:77x",
        "[::1", "[::1]7711", "127.0.0.1:",  "no host name"};
    static const struct {
        const char *server;
        uint16_t port;
    } good[] = {{"127.0.0.1", 7711},
                {"127.0.0.1:99", 99},
                {"[::1]:98", 98},
                {"[::1]", 7711},
                {"::1", 7711}};
    struct tally_transport *transport;
    char error[200];
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        error[0] = 0;
        CHECK_EQ(transport_socket_open(bad[i], 1 << 16, &transport, error, sizeof(error)), -EINVAL);
        CHECK(error[0] && !strchr(error, '\n'));
    }
    for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        int rc = transport_socket_open(good[i].server, 1 << 16, &transport, error, sizeof(error));
        if (rc == -EAFNOSUPPORT)
            continue;
        CHECK_EQ(rc, 0);
        CHECK_EQ(transport->server_port, good[i].port);
        transport->close(transport);
    }
}

int main(void) {
    TEST_RUN(test_blocking_calls_sleep);
    TEST_RUN(test_epoll_drives_it);
    TEST_RUN(test_ipv6);
    TEST_RUN(test_nobody_there);
    TEST_RUN(test_addresses);
    return TEST_DONE();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/control_request.h"

#define ANSWER_BYTES 1024
#define RECEIVE_BYTES 512

struct control_client {
    int fd; /**< -1: free */
    bool holds;
    uint64_t heard_ns;
    struct control_input input;
};

struct control {
    struct control_node node;
    int directory_fd, listen_fd;
    struct control_client clients[CONTROL_CLIENTS_MAX];
};

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/* --- clients come and go ------------------------------------------------------------------------------------------------- */

static void client_drop(struct control *control, struct control_client *client) {
    close(client->fd);
    client->fd = -1;
    if (client->holds)
        control->node.hold(control->node.context, false);
    client->holds = false;
}

static void client_accept(struct control *control) {
    int fd = accept4(control->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        if (control->clients[i].fd >= 0)
            continue;
        control->clients[i] = (struct control_client){.fd = fd, .heard_ns = now_ns()};
        return;
    }
    static const char busy[] = "{\"ok\":false,\"error\":\"too many connections at a time\"}\n";
    (void)send(fd, busy, sizeof(busy) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
}

/* --- requests and answers ------------------------------------------------------------------------------------------------ */

static int answer_error(char *answer, const char *error) {
    return snprintf(answer, ANSWER_BYTES, "{\"ok\":false,\"error\":\"%s\"}\n", error);
}

/** What cannot stand in JSON as it is goes. */
static void make_plain(char *text) {
    for (; *text; text++)
        if (*text < 0x20 || *text == 0x7f || *text == '"' || *text == '\\')
            *text = '?';
}

static int answer_status(struct control *control, char *answer) {
    struct control_status status = {0};
    char cell[33];
    control->node.status(control->node.context, &status);
    make_plain(status.warning);
    for (unsigned i = 0; i < 16; i++)
        snprintf(cell + 2 * i, 3, "%02x", status.cell_id[i]);
    return snprintf(answer, ANSWER_BYTES,
                    "{\"ok\":true,\"pid\":%ld,\"cell\":\"%s\",\"partitions\":%u,\"checkpoints\":%d,"
                    "\"term\":\"%" PRIu64 "\",\"commit_seq\":\"%" PRIu64
                    "\",\"log_bytes\":\"%" PRIu64 "\",\"log_files_removed\":\"%" PRIu64
                    "\",\"served\":\"%" PRIu64 "\",\"published\":\"%" PRIu64
                    "\",\"abandoned\":\"%" PRIu64 "\",\"published_seq\":\"%" PRIu64
                    "\",\"running_seq\":\"%" PRIu64 "\",\"bytes\":\"%" PRIu64
                    "\",\"bytes_expected\":\"%" PRIu64 "\",\"error\":%d,\"warning\":\"%s\"}\n",
                    (long)getpid(), cell, status.partitions, status.checkpoints, status.term,
                    status.commit_seq, status.log_bytes, status.log_files_removed, status.served,
                    status.published, status.abandoned, status.published_seq, status.running_seq,
                    status.bytes, status.bytes_expected, status.error, status.warning);
}

static int answer_checkpoint(struct control *control, char *answer) {
    char error[200] = "";
    uint64_t ticket = control->node.checkpoint(control->node.context, error, sizeof(error));
    if (ticket == 0)
        return answer_error(answer, error);
    return snprintf(answer, ANSWER_BYTES, "{\"ok\":true,\"ticket\":\"%" PRIu64 "\"}\n", ticket);
}

static int answer_hold(struct control *control, struct control_client *client, bool hold,
                       char *answer) {
    if (client->holds == hold)
        return answer_error(answer, hold ? "this connection holds the log already"
                                         : "this connection does not hold the log");
    client->holds = hold;
    control->node.hold(control->node.context, hold);
    return snprintf(answer, ANSWER_BYTES, "{\"ok\":true}\n");
}

/** @return whether the client took its answer */
static bool client_answer(struct control *control, struct control_client *client) {
    struct control_request request;
    char answer[ANSWER_BYTES], error[200];
    int length = 0;
    if (control_request_parse(client->input.bytes, client->input.length, &request, error,
                              sizeof(error)) != 0) {
        length = answer_error(answer, error);
    } else {
        switch (request.verb) {
        case CONTROL_STATUS:
            length = answer_status(control, answer);
            break;
        case CONTROL_CHECKPOINT:
            length = answer_checkpoint(control, answer);
            break;
        case CONTROL_HOLD:
        case CONTROL_RELEASE:
            length = answer_hold(control, client, request.verb == CONTROL_HOLD, answer);
            break;
        }
    }
    client->input.length = 0;
    client->heard_ns = now_ns();
    return send(client->fd, answer, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) == length;
}

/** One piece of what it sent, so that no client keeps the thread to itself. */
static void client_receive(struct control *control, struct control_client *client) {
    char bytes[RECEIVE_BYTES];
    ssize_t got = recv(client->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        client_drop(control, client);
        return;
    }
    for (size_t at = 0, used; at < (size_t)got; at += used) {
        int line = control_input_take(&client->input, bytes + at, (size_t)got - at, &used);
        if (line < 0) {
            char answer[ANSWER_BYTES];
            int length = answer_error(answer, "the line is too long for a request");
            (void)send(client->fd, answer, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        if (line < 0 || (line == 1 && !client_answer(control, client))) {
            client_drop(control, client);
            return;
        }
    }
}

bool control_serve(struct control *control, int fd, unsigned timeout_ms) {
    struct pollfd polls[CONTROL_CLIENTS_MAX + 2];
    struct control_client *clients[CONTROL_CLIENTS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        if (control->clients[i].fd < 0)
            continue;
        clients[count] = &control->clients[i];
        polls[count++] = (struct pollfd){control->clients[i].fd, POLLIN, 0};
    }
    polls[count] = (struct pollfd){control->listen_fd, POLLIN, 0};
    polls[count + 1] = (struct pollfd){fd, POLLIN, 0};
    if (poll(polls, count + 2, (int)timeout_ms) < 0)
        return false;
    uint64_t now = now_ns();
    for (unsigned i = 0; i < count; i++) {
        uint64_t silence_max =
            clients[i]->holds ? CONTROL_HOLD_SILENCE_MAX_NS : CONTROL_SILENCE_MAX_NS;
        if (polls[i].revents != 0)
            client_receive(control, clients[i]);
        else if (now - clients[i]->heard_ns > silence_max)
            client_drop(control, clients[i]);
    }
    if (polls[count].revents != 0)
        client_accept(control);
    return polls[count + 1].revents != 0;
}

/* --- opening ------------------------------------------------------------------------------------------------------------- */

static int socket_make(struct control *control, const char *directory) {
    struct sockaddr_un address;
    control->directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (control->directory_fd < 0)
        return -errno;
    control->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (control->listen_fd < 0)
        return -errno;
    control_address(control->directory_fd, &address);
    if (unlinkat(control->directory_fd, CONTROL_SOCKET_NAME, 0) != 0 && errno != ENOENT)
        return -errno;
    /* the mode of a socket that has no name yet is the mode that its name will have */
    if (fchmod(control->listen_fd, 0600) != 0 ||
        bind(control->listen_fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(control->listen_fd, CONTROL_CLIENTS_MAX) != 0)
        return -errno;
    return 0;
}

int control_open(const char *directory, const struct control_node *node, struct control **out,
                 char *error, size_t error_bytes) {
    struct control *control = calloc(1, sizeof(*control));
    int rc = -ENOMEM;
    if (control) {
        control->node = *node;
        control->directory_fd = control->listen_fd = -1;
        for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
            control->clients[i].fd = -1;
        rc = socket_make(control, directory);
    }
    if (rc != 0) {
        snprintf(error, error_bytes, "%s/" CONTROL_SOCKET_NAME ": %s", directory,
                 strerrordesc_np(-rc));
        control_close(control);
        return rc;
    }
    *out = control;
    return 0;
}

void control_close(struct control *control) {
    if (!control)
        return;
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        if (control->clients[i].fd >= 0)
            client_drop(control, &control->clients[i]);
    if (control->listen_fd >= 0) {
        unlinkat(control->directory_fd, CONTROL_SOCKET_NAME, 0);
        close(control->listen_fd);
    }
    if (control->directory_fd >= 0)
        close(control->directory_fd);
    free(control);
}

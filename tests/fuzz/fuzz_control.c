/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <json-c/json_tokener.h>

#include "tools/control.h"
#include "tools/control_request.h"

/** Arbitrary bytes of several operators for a running tallyd's control socket, in arbitrary pieces. What must hold: every
 *  answer is one JSON object a line; the log is held exactly as long as somebody who asked for it is there; whoever says too
 *  much is let go, and the others are served.
 *  Steps: who (2 bits), what (2 bits) and so many bytes. */

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

enum { CLIENTS = 4, ANSWERS_BYTES = 256 << 10 };

static char directory[] = "/tmp/tally-fuzz-control-XXXXXX";
static int held, checkpoints;

static void check(bool condition, const char *what) {
    if (condition)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

static void node_status(void *context, struct control_status *status) {
    (void)context;
    *status = (struct control_status){.partitions = 7, .commit_seq = 9, .published_seq = 8};
    strcpy(status->warning, "a \"warning\" \\ of\n two lines");
}

static uint64_t node_checkpoint(void *context, char *error, size_t error_bytes) {
    (void)context;
    if (++checkpoints % 3 == 0)
        return snprintf(error, error_bytes, "not now"), 0;
    return (uint64_t)checkpoints;
}

static void node_hold(void *context, bool hold) {
    (void)context;
    held += hold ? 1 : -1;
    check(held >= 0 && held <= CLIENTS, "holds are counted");
}

static void directory_remove(void) {
    rmdir(directory);
}

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count;
    (void)arguments;
    check(mkdtemp(directory) != NULL, "there is a directory");
    atexit(directory_remove);
    return 0;
}

static int client_connect(void) {
    struct sockaddr_un address;
    int folder = open(directory, O_PATH | O_CLOEXEC);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    control_address(folder, &address);
    check(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0, "it listens");
    close(folder);
    return fd;
}

static void serve(struct control *control) {
    for (unsigned i = 0; i < 3; i++)
        control_serve(control, -1, 0);
}

/** Take what was answered. @return whether the connection is still there */
static bool client_read(int fd) {
    static char answers[ANSWERS_BYTES];
    ssize_t got = recv(fd, answers, sizeof(answers) - 1, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    check(answers[got - 1] == '\n', "answers are whole lines");
    answers[got - 1] = '\0';
    for (char *line = answers, *next; line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        struct json_object *object = json_tokener_parse(line);
        check(object != NULL && json_object_is_type(object, json_type_object), "an answer is JSON");
        json_object_put(object);
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    const struct control_node node = {NULL, node_status, node_checkpoint, node_hold};
    struct control *control;
    char error[256];
    int clients[CLIENTS];
    held = checkpoints = 0;
    check(control_open(directory, &node, &control, error, sizeof(error)) == 0, "it opens");
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = -1;
    for (size_t at = 0; at < length;) {
        unsigned who = input[at] & 3, what = input[at] >> 2 & 3;
        size_t bytes = input[at] >> 4;
        at++;
        bytes = what == 1 ? bytes * 40 : bytes;
        bytes = bytes < length - at ? bytes : length - at;
        if (clients[who] < 0)
            clients[who] = client_connect();
        if (what == 2 && bytes == 0) {
            close(clients[who]);
            clients[who] = -1;
        } else if (bytes > 0) {
            (void)!send(clients[who], input + at, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
            at += bytes;
        }
        serve(control);
        if (clients[who] >= 0 && !client_read(clients[who])) {
            close(clients[who]);
            clients[who] = -1;
        }
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        if (clients[i] >= 0)
            close(clients[i]);
    serve(control);
    control_close(control);
    check(held == 0, "nobody holds the log for ever");
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/control_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <json-c/json_tokener.h>

#include "tools/control.h"
#include "tools/tally_args.h"

#define ANSWER_BYTES_MAX 4096

struct control_client {
    int fd;
    const char *directory;
    size_t length; /**< bytes that arrived behind the last answer */
    char bytes[ANSWER_BYTES_MAX];
};

/** @return a connected socket or -errno */
static int connect_socket(const char *directory, uint64_t timeout_ms) {
    struct sockaddr_un address;
    const struct timeval timeout = {.tv_sec = (time_t)(timeout_ms / 1000),
                                    .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
    int folder = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -errno;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc = fd < 0 ? -errno : 0;
    control_address(folder, &address);
    if (rc == 0 && (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) != 0 ||
                    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) != 0 ||
                    connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0))
        rc = -errno;
    close(folder);
    if (rc != 0 && fd >= 0)
        close(fd);
    return rc != 0 ? rc : fd;
}

enum control_found control_client_open(const char *directory, uint64_t timeout_ms,
                                       struct control_client **out) {
    struct control_client *client = calloc(1, sizeof(*client));
    int fd = client == NULL ? -ENOMEM : connect_socket(directory, timeout_ms);
    if (fd >= 0) {
        client->fd = fd;
        client->directory = directory;
        *out = client;
        return CONTROL_SERVED;
    }
    free(client);
    if (access(directory, F_OK) == 0 && (fd == -ENOENT || fd == -ECONNREFUSED))
        return CONTROL_NOBODY;
    args_complain("%s: %s", directory,
                  fd == -EACCES || fd == -EPERM ? "no permission; run as the user that owns it"
                  : fd == -ENOENT               ? "there is no such directory"
                  : fd == -EAGAIN               ? "its tallyd does not answer"
                                                : strerrordesc_np(-fd));
    return CONTROL_REFUSED;
}

void control_client_close(struct control_client *client) {
    if (client == NULL)
        return;
    close(client->fd);
    free(client);
}

/** Read up to the end of a line. @return its length without the line feed, or -errno */
static ssize_t read_line(struct control_client *client) {
    for (;;) {
        char *end = memchr(client->bytes, '\n', client->length);
        if (end != NULL)
            return end - client->bytes;
        if (client->length == sizeof(client->bytes))
            return -EMSGSIZE;
        ssize_t got = recv(client->fd, client->bytes + client->length,
                           sizeof(client->bytes) - client->length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? -ECONNRESET : -errno;
        client->length += (size_t)got;
    }
}

/** @return the answer, or NULL with *rc set */
static struct json_object *read_answer(struct control_client *client, int *rc) {
    ssize_t length = read_line(client);
    struct json_object *answer = NULL;
    *rc = length < 0 ? (int)length : 0;
    struct json_tokener *tokener = *rc == 0 ? json_tokener_new() : NULL;
    if (tokener != NULL) {
        answer = json_tokener_parse_ex(tokener, client->bytes, (int)length);
        json_tokener_free(tokener);
        client->length -= (size_t)length + 1;
        memmove(client->bytes, client->bytes + length + 1, client->length);
    }
    if (*rc == 0 && !json_object_is_type(answer, json_type_object))
        *rc = -EPROTO;
    return answer;
}

struct json_object *control_client_ask(struct control_client *client, enum control_verb verb) {
    char line[CONTROL_LINE_BYTES_MAX];
    struct json_object *answer = NULL, *field = NULL;
    int length = snprintf(line, sizeof(line), "%s\n", control_verb_name(verb)), rc = 0;
    if (send(client->fd, line, (size_t)length, MSG_NOSIGNAL) != length)
        rc = -errno;
    if (rc == 0)
        answer = read_answer(client, &rc);
    if (rc != 0) {
        args_complain("%s: its tallyd %s", client->directory,
                      rc == -EAGAIN                       ? "did not answer in time"
                      : rc == -ECONNRESET || rc == -EPIPE ? "went away"
                      : rc == -EPROTO || rc == -EMSGSIZE  ? "does not speak as tallyd does"
                                                          : strerrordesc_np(-rc));
    } else if (json_object_object_get_ex(answer, "ok", &field) && json_object_get_boolean(field)) {
        return answer;
    } else if (json_object_object_get_ex(answer, "error", &field)) {
        args_complain("%s: %s", client->directory, json_object_get_string(field));
    } else {
        args_complain("%s: its tallyd does not speak as tallyd does", client->directory);
    }
    json_object_put(answer);
    return NULL;
}

uint64_t control_number(struct json_object *answer, const char *name) {
    struct json_object *field;
    return json_object_object_get_ex(answer, name, &field)
               ? strtoull(json_object_get_string(field), NULL, 10)
               : 0;
}

int control_error(struct json_object *answer, const char *name) {
    struct json_object *field;
    return json_object_object_get_ex(answer, name, &field) ? json_object_get_int(field) : 0;
}

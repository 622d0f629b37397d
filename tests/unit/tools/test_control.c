/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/lib/test.h"
#include "tools/control.h"
#include "tools/control_request.h"

/** The control socket: what is understood, what is refused, and that nobody who holds the log can forget it. */

static char directory[64];
static struct control *control;
static int held, wanted;

static void node_status(void *context, struct control_status *status) {
    (void)context;
    *status = (struct control_status){.partitions = 7, .commit_seq = UINT64_MAX, .error = -5};
    memset(status->cell_id, 0xab, sizeof(status->cell_id));
}

static uint64_t node_checkpoint(void *context, char *error, size_t error_bytes) {
    (void)context;
    if (wanted < 0) {
        snprintf(error, error_bytes, "none today");
        return 0;
    }
    return (uint64_t)++wanted;
}

static void node_hold(void *context, bool hold) {
    (void)context;
    held += hold ? 1 : -1;
}

static const struct control_node node = {NULL, node_status, node_checkpoint, node_hold};

/** A directory of the test's own. */
static void begin(void) {
    char error[256];
    held = wanted = 0;
    snprintf(directory, sizeof(directory), "/tmp/tally-control-XXXXXX");
    if (!mkdtemp(directory) || control_open(directory, &node, &control, error, sizeof(error)) != 0)
        abort();
}

static void end(void) {
    control_close(control);
    control = NULL;
    rmdir(directory);
}

static int connect_client(void) {
    struct sockaddr_un address;
    int folder = open(directory, O_PATH | O_CLOEXEC), fd = socket(AF_UNIX, SOCK_STREAM, 0);
    control_address(folder, &address);
    int rc = connect(fd, (const struct sockaddr *)&address, sizeof(address));
    close(folder);
    if (rc != 0)
        abort();
    return fd;
}

static void serve(unsigned turns) {
    while (turns-- > 0)
        control_serve(control, -1, 0);
}

/** What is answered to some bytes; "" when the connection is over. */
static const char *ask(int fd, const void *bytes, size_t length) {
    static char answer[4096];
    if (length && write(fd, bytes, length) != (ssize_t)length)
        return "";
    serve(4);
    ssize_t got = recv(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT);
    answer[got > 0 ? got : 0] = '\0';
    return answer;
}

static const char *ask_text(int fd, const char *text) {
    return ask(fd, text, strlen(text));
}

static bool over(int fd) {
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

/* --- the parser -------------------------------------------------------------------------------- */

static void test_words(void) {
    static const struct {
        const char *line;
        int rc;
        enum control_verb verb;
        const char *says;
    } cases[] = {
        {"status", 0, CONTROL_STATUS, ""},
        {"status\r", 0, CONTROL_STATUS, ""},
        {"checkpoint", 0, CONTROL_CHECKPOINT, ""},
        {"hold", 0, CONTROL_HOLD, ""},
        {"release", 0, CONTROL_RELEASE, ""},
        {"", -EINVAL, 0, "no request ''"},
        {"statu", -EINVAL, 0, "'statu'"},
        {"status ", -EINVAL, 0, "'status '"},
        {"Status", -EINVAL, 0, "'Status'"},
        {"status checkpoint", -EINVAL, 0, "checkpoint'"},
        {"a\"b\\c\x01\xff", -EINVAL, 0, "'a?b?c?"},
        {"a word that is longer than what is shown of it", -EINVAL, 0, "...'"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct control_request request;
        char error[200] = "";
        CHECK_EQ(control_request_parse(cases[i].line, strlen(cases[i].line), &request, error,
                                       sizeof(error)),
                 cases[i].rc);
        CHECK(cases[i].rc != 0 || request.verb == cases[i].verb);
        CHECK(strstr(error, cases[i].says) != NULL);
        CHECK(strcmp(control_verb_name(CONTROL_HOLD), "hold") == 0);
    }
}

static void test_lines_in_pieces(void) {
    struct control_input input = {0};
    size_t used;
    CHECK_EQ(control_input_take(&input, "sta", 3, &used), 0);
    CHECK_EQ(used, 3);
    CHECK_EQ(control_input_take(&input, "tus\nhold", 8, &used), 1);
    CHECK_EQ(used, 4);
    CHECK(input.length == 6 && memcmp(input.bytes, "status", 6) == 0);
    input.length = 0;
    char longest[CONTROL_LINE_BYTES_MAX];
    memset(longest, 'x', sizeof(longest));
    CHECK_EQ(control_input_take(&input, longest, sizeof(longest) - 1, &used), 0);
    CHECK_EQ(control_input_take(&input, "\n", 1, &used), 1);
    input.length = 0;
    CHECK_EQ(control_input_take(&input, longest, sizeof(longest), &used), -EMSGSIZE);
}

/** Any bytes give a verb or a reason that can stand in JSON. */
static void test_any_bytes(void) {
    uint64_t random = test_seed(1);
    for (unsigned round = 0; round < 20000; round++) {
        char line[CONTROL_LINE_BYTES_MAX], error[200] = "";
        struct control_request request;
        size_t length = test_random(&random) % sizeof(line);
        for (size_t i = 0; i < length; i++)
            line[i] = (char)test_random(&random);
        CHECK_EQ(control_request_parse(line, length, &request, error, sizeof(error)), -EINVAL);
        for (const char *c = error; *c; c++)
            CHECK(*c >= 0x20 && *c < 0x7f && *c != '"' && *c != '\\');
    }
}

/* --- the socket -------------------------------------------------------------------------------- */

static void test_requests(void) {
    begin();
    char path[128];
    struct stat status;
    snprintf(path, sizeof(path), "%s/control", directory);
    CHECK(stat(path, &status) == 0 && S_ISSOCK(status.st_mode));
    CHECK_EQ(status.st_mode & 0777, 0600);
    int fd = connect_client();
    serve(1);
    CHECK(strstr(ask_text(fd, "status\n"), "\"commit_seq\":\"18446744073709551615\"") != NULL);
    CHECK(strstr(ask_text(fd, "status\n"), "\"cell\":\"abababab") != NULL);
    CHECK(strcmp(ask_text(fd, "checkpoint\n"), "{\"ok\":true,\"ticket\":\"1\"}\n") == 0);
    CHECK(strcmp(ask_text(fd, "checkpoint\ncheckpoint\n"),
                 "{\"ok\":true,\"ticket\":\"2\"}\n"
                 "{\"ok\":true,\"ticket\":\"3\"}\n") == 0);
    wanted = -1;
    CHECK(strcmp(ask_text(fd, "checkpoint\n"), "{\"ok\":false,\"error\":\"none today\"}\n") == 0);
    CHECK(strstr(ask_text(fd, "nonsense\n"), "no request 'nonsense'") != NULL);
    CHECK(strstr(ask_text(fd, "stat"), "ok") == NULL);
    CHECK(strstr(ask_text(fd, "us\n"), "\"ok\":true") != NULL);
    close(fd);
    serve(2);
    end();
    CHECK(stat(path, &status) != 0 && errno == ENOENT);
}

static void test_holds_end_with_their_connection(void) {
    begin();
    int first = connect_client(), second = connect_client();
    serve(2);
    CHECK(strstr(ask_text(first, "release\n"), "\"ok\":false") != NULL);
    CHECK(strstr(ask_text(first, "hold\n"), "\"ok\":true") != NULL);
    CHECK(strstr(ask_text(first, "hold\n"), "\"ok\":false") != NULL);
    CHECK(strstr(ask_text(second, "hold\n"), "\"ok\":true") != NULL);
    CHECK_EQ(held, 2);
    CHECK(strstr(ask_text(first, "release\n"), "\"ok\":true") != NULL);
    CHECK_EQ(held, 1);
    close(second);
    serve(2);
    CHECK_EQ(held, 0);
    CHECK(strstr(ask_text(first, "hold\n"), "\"ok\":true") != NULL);
    CHECK_EQ(held, 1);
    end();
    CHECK_EQ(held, 0);
    close(first);
}

static void test_garbage_and_too_many(void) {
    begin();
    int fd = connect_client(), many[CONTROL_CLIENTS_MAX + 3];
    serve(1);
    char garbage[400];
    memset(garbage, 0x80, sizeof(garbage));
    CHECK(strstr(ask(fd, garbage, sizeof(garbage)), "too long") != NULL);
    CHECK(over(fd));
    close(fd);
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX + 3; i++) {
        many[i] = connect_client();
        serve(1);
    }
    CHECK(strstr(ask(many[CONTROL_CLIENTS_MAX], "", 0), "too many") != NULL);
    CHECK(over(many[CONTROL_CLIENTS_MAX]));
    CHECK(strstr(ask_text(many[CONTROL_CLIENTS_MAX - 1], "status\n"), "\"ok\":true") != NULL);
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX + 3; i++)
        close(many[i]);
    serve(CONTROL_CLIENTS_MAX);
    fd = connect_client();
    serve(1);
    CHECK(strstr(ask_text(fd, "status\n"), "\"ok\":true") != NULL);
    close(fd);
    end();
}

/** Who asks and never reads is let go, and does not hold up the others. */
static void test_client_that_does_not_read(void) {
    begin();
    int deaf = connect_client(), fd = connect_client();
    serve(2);
    CHECK(strstr(ask_text(deaf, "hold\n"), "\"ok\":true") != NULL);
    for (unsigned i = 0; i < 100000 && held; i++) {
        (void)send(deaf, "status\n", 7, MSG_DONTWAIT | MSG_NOSIGNAL);
        serve(1);
    }
    CHECK_EQ(held, 0);
    CHECK(strstr(ask_text(fd, "status\n"), "\"ok\":true") != NULL);
    close(deaf);
    close(fd);
    end();
}

static void test_descriptor_beside_it(void) {
    int pipes[2];
    begin();
    CHECK(pipe(pipes) == 0);
    CHECK(!control_serve(control, pipes[0], 1));
    CHECK(write(pipes[1], "x", 1) == 1);
    CHECK(control_serve(control, pipes[0], 1000));
    close(pipes[0]);
    close(pipes[1]);
    end();
}

/** A killed tallyd leaves its socket; the next one takes the place. */
static void test_socket_that_was_left(void) {
    begin();
    struct control *left = control;
    char error[256];
    CHECK_EQ(control_open(directory, &node, &control, error, sizeof(error)), 0);
    int fd = connect_client();
    serve(1);
    CHECK(strstr(ask_text(fd, "status\n"), "\"ok\":true") != NULL);
    close(fd);
    control_close(left);
    end();
    CHECK_EQ(control_open("/tmp/tally-control-none", &node, &control, error, sizeof(error)),
             -ENOENT);
    CHECK(strstr(error, "/tmp/tally-control-none/control") != NULL);
    control = NULL;
}

int main(void) {
    TEST_RUN(test_words);
    TEST_RUN(test_lines_in_pieces);
    TEST_RUN(test_any_bytes);
    TEST_RUN(test_requests);
    TEST_RUN(test_holds_end_with_their_connection);
    TEST_RUN(test_garbage_and_too_many);
    TEST_RUN(test_client_that_does_not_read);
    TEST_RUN(test_descriptor_beside_it);
    TEST_RUN(test_socket_that_was_left);
    return TEST_DONE();
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tools/tallyd_options.h"

/** Arbitrary command lines and configuration files for tallyd. The input's lines up to an empty one are arguments, what follows
 *  is the file that --config names. What must hold: the answer is to go on, with every value within its bounds, or an exit
 *  status of usage; what is wrong is said in one line. */

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

enum { ARGUMENTS_MAX = 12, TEXT_MAX = 4096 };

static void check(bool condition, const char *what) {
    if (condition)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

static void check_values(const struct tallyd_options *options) {
    check(options->data != NULL, "there is a directory");
    if (options->format) {
        check(options->partitions >= 1 && options->partitions <= PARTITIONS_MAX, "partitions");
        check(options->file_mb >= 16 && options->file_mb <= 65536, "file size");
        check(options->groups_in_flight >= 1 && options->groups_in_flight <= 8, "groups in flight");
        return;
    }
    check(options->udp_port >= 1 && options->udp_port <= 65535, "port");
    check(options->sessions >= 1 && options->sessions <= 4096, "sessions");
    check(options->window >= 64 && (options->window & (options->window - 1)) == 0, "window");
    check(options->memory_mb >= 32, "memory");
}

/** A file that exists only here. @return its descriptor */
static int make_file(const uint8_t *bytes, size_t length) {
    int fd = memfd_create("configuration", 0);
    check(fd >= 0 && write(fd, bytes, length) == (ssize_t)length, "there is a file");
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    static char text[TEXT_MAX + 1], said[TEXT_MAX];
    char config[64], *arguments[ARGUMENTS_MAX + 4] = {(char *)(uintptr_t) "tallyd"};
    struct tallyd_options options;
    int count = 1;
    size_t at = 0;
    if (length > TEXT_MAX)
        return 0;
    memcpy(text, input, length);
    text[length] = '\0';
    while (at < length && text[at] != '\n' && count < ARGUMENTS_MAX) {
        char *end = memchr(text + at, '\n', length - at);
        size_t bytes = end ? (size_t)(end - text) - at : length - at;
        arguments[count++] = text + at;
        text[at + bytes] = '\0';
        at += bytes + 1;
    }
    int fd = -1;
    if (at < length) {
        fd = make_file(input + at + 1, length - at - 1);
        snprintf(config, sizeof(config), "--config=/proc/self/fd/%d", fd);
        arguments[count++] = config;
    }
    arguments[count] = NULL;
    FILE *before = stderr, *out = stdout;
    memset(said, 0, sizeof(said));
    FILE *memory = fmemopen(said, sizeof(said) - 1, "w");
    FILE *nothing = fopen("/dev/null", "w");
    check(memory != NULL && nothing != NULL, "there are streams");
    stderr = memory;
    stdout = nothing;
    int answer = tallyd_options_parse(&options, count, arguments);
    fclose(memory);
    fclose(nothing);
    stderr = before;
    stdout = out;
    if (fd >= 0)
        close(fd);
    if (answer == 0) {
        check_values(&options);
    } else {
        check(answer == 1 || answer == 1 + TALLYD_EXIT_USAGE, "the exit status is known");
        check(answer == 1 || strncmp(said, "tallyd: ", 8) == 0 || fd >= 0,
              "it is said what is wrong");
    }
    return 0;
}

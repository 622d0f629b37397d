/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/shell_output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void output_bytes(struct shell_output *output, const char *bytes, size_t length) {
    if (output->capacity - output->length < length) {
        size_t capacity = (output->length + length) * 2;
        char *grown = realloc(output->text, capacity);
        if (!grown) {
            output->failed = true;
            return;
        }
        output->text = grown;
        output->capacity = capacity;
    }
    memcpy(output->text + output->length, bytes, length);
    output->length += length;
}

void shell_output_text(struct shell_output *output, const char *text) {
    output_bytes(output, text, strlen(text));
}

void shell_output_string(struct shell_output *output, const char *text) {
    output_bytes(output, "\"", 1);
    for (const char *c = text; *c; c++) {
        char escaped[8];
        if (*c == '"' || *c == '\\') {
            escaped[0] = '\\';
            escaped[1] = *c;
            output_bytes(output, escaped, 2);
        } else if ((unsigned char)*c < 0x20) {
            int length = snprintf(escaped, sizeof(escaped), "\\u%04x", (unsigned)*c);
            output_bytes(output, escaped, (size_t)length);
        } else {
            output_bytes(output, c, 1);
        }
    }
    output_bytes(output, "\"", 1);
}

void shell_output_integer(struct shell_output *output, uint128_t value) {
    char digits[40];
    size_t at = sizeof(digits);
    while (value > UINT64_MAX) {
        digits[--at] = (char)('0' + (unsigned)(value % 10));
        value /= 10;
    }
    uint64_t low = (uint64_t)value;
    do {
        digits[--at] = (char)('0' + low % 10);
        low /= 10;
    } while (low);
    output_bytes(output, digits + at, sizeof(digits) - at);
}

void shell_output_quoted(struct shell_output *output, uint128_t value) {
    output_bytes(output, "\"", 1);
    shell_output_integer(output, value);
    output_bytes(output, "\"", 1);
}

int shell_output_flush(struct shell_output *output, int descriptor) {
    output_bytes(output, "\n", 1);
    size_t length = output->length;
    output->length = 0;
    if (output->failed)
        return -ENOMEM;
    for (size_t done = 0; done < length;) {
        ssize_t written = write(descriptor, output->text + done, length - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        done += (size_t)written;
    }
    return 0;
}

void shell_output_free(struct shell_output *output) {
    free(output->text);
    *output = (struct shell_output){0};
}

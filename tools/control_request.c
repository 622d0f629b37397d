/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/control_request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SHOWN_BYTES 32 /**< of a word that is not understood */

static const char *const verbs[] = {
    [CONTROL_STATUS] = "status",
    [CONTROL_CHECKPOINT] = "checkpoint",
    [CONTROL_HOLD] = "hold",
    [CONTROL_RELEASE] = "release",
};
#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

int control_input_take(struct control_input *input, const void *bytes, size_t length,
                       size_t *used) {
    const char *next = bytes;
    for (*used = 0; *used < length; (*used)++) {
        if (next[*used] == '\n') {
            (*used)++;
            return 1;
        }
        if (input->length == sizeof(input->bytes) - 1)
            return -EMSGSIZE;
        input->bytes[input->length++] = next[*used];
    }
    return 0;
}

static bool printable(char c) {
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

int control_request_parse(const char *line, size_t length, struct control_request *request,
                          char *error, size_t error_bytes) {
    if (length > 0 && line[length - 1] == '\r')
        length--;
    for (size_t verb = 0; verb < VERBS; verb++) {
        if (strlen(verbs[verb]) == length && memcmp(verbs[verb], line, length) == 0) {
            request->verb = (enum control_verb)verb;
            return 0;
        }
    }
    char shown[SHOWN_BYTES + 1];
    size_t count = 0;
    for (; count < length && count < SHOWN_BYTES; count++)
        shown[count] = '?';
    for (size_t i = 0; i < count; i++)
        if (printable(line[i]))
            shown[i] = line[i];
    shown[count] = '\0';
    snprintf(error, error_bytes,
             "there is no request '%s%s': it is status, checkpoint, hold or "
             "release",
             shown, count < length ? "..." : "");
    return -EINVAL;
}

const char *control_verb_name(enum control_verb verb) {
    return verbs[verb];
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_SHELL_JSON_H
#define TALLY_TOOLS_SHELL_JSON_H

#include "engine/base/types.h"

/** A strict JSON reader that keeps every number as it was written, so that 128-bit integers stay
 * exact. Flow:  a line of text -> [shell_json_parse] -> tokens -> shell_request Owner: the shell.
 * The tokens point into the text, whose strings are unescaped in place. Bounds:
 * SHELL_JSON_DEPTH_MAX; a token takes at least one byte of text. */

#define SHELL_JSON_DEPTH_MAX 16

enum shell_json_kind {
    SHELL_JSON_OBJECT, /**< children: key (a string), value, key, value ... */
    SHELL_JSON_ARRAY,
    SHELL_JSON_STRING, /**< the text between the quotes, unescaped */
    SHELL_JSON_NUMBER, /**< the text as written */
    SHELL_JSON_TRUE,
    SHELL_JSON_FALSE,
    SHELL_JSON_NULL,
};

struct shell_json_token {
    uint32_t kind;
    uint32_t start;  /**< byte in the text */
    uint32_t length; /**< bytes */
    uint32_t end;    /**< index of the first token behind this one and all it holds */
};

struct shell_json {
    char *text;
    size_t length;
    struct shell_json_token *tokens; /**< the root is the first; reused from line to line */
    uint32_t count, capacity;
    size_t position;
    unsigned depth;
    const char *error;   /**< what was expected instead */
    size_t error_column; /**< bytes from the line's start, from 1 */
};

/** Take one JSON value, and nothing behind it, apart. The text is changed (unescaped).
 *  @param length below 4 GiB
 *  @return 0, -EBADMSG (error and error_column say why) or -ENOMEM */
int shell_json_parse(struct shell_json *json, char *text, size_t length);
void shell_json_free(struct shell_json *json);

/** Whether a string token holds exactly this text. */
bool shell_json_is(const struct shell_json *json, const struct shell_json_token *token,
                   const char *text);

/** A whole decimal number without a sign, from a string or a number token.
 *  @return 0, -EINVAL (not such a number) or -ERANGE (above 2^128 - 1, or negative) */
int shell_json_integer(const struct shell_json *json, const struct shell_json_token *token,
                       uint128_t *value);

#endif

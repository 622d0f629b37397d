/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/shell_json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int json_value(struct shell_json *json);

static int json_fail(struct shell_json *json, size_t position, const char *error) {
    json->error = error;
    json->error_column = position + 1;
    return -EBADMSG;
}

/** The next byte, or -1 at the end. */
static int json_peek(const struct shell_json *json) {
    return json->position < json->length ? (unsigned char)json->text[json->position] : -1;
}

static void json_skip_space(struct shell_json *json) {
    for (;;) {
        int byte = json_peek(json);
        if (byte != ' ' && byte != '\t' && byte != '\r' && byte != '\n')
            return;
        json->position++;
    }
}

/** @return the new token's index, or -ENOMEM */
static int64_t json_push(struct shell_json *json, enum shell_json_kind kind, size_t start) {
    if (json->count == json->capacity) {
        uint32_t capacity = json->capacity ? json->capacity * 2 : 256;
        void *grown = realloc(json->tokens, capacity * sizeof(*json->tokens));
        if (!grown)
            return -ENOMEM;
        json->tokens = grown;
        json->capacity = capacity;
    }
    json->tokens[json->count] = (struct shell_json_token){
        .kind = kind, .start = (uint32_t)start, .length = 0, .end = json->count + 1};
    return json->count++;
}

static int json_hex4(struct shell_json *json, size_t at, unsigned *value) {
    *value = 0;
    for (size_t i = at; i < at + 4; i++) {
        char c = i < json->length ? json->text[i] : '\0';
        unsigned digit;
        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (unsigned)(c - 'A') + 10;
        else
            return json_fail(json, i, "expected four hexadecimal digits");
        *value = *value * 16 + digit;
    }
    return 0;
}

static size_t utf8_put(char *out, unsigned code) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | (code >> 6));
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | (code >> 12));
        out[1] = (char)(0x80 | ((code >> 6) & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | (code >> 18));
    out[1] = (char)(0x80 | ((code >> 12) & 0x3f));
    out[2] = (char)(0x80 | ((code >> 6) & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/** One \u escape, a surrogate pair included, at `position` (behind the "\u"). What it stands for is
 * never longer. */
static int json_unicode(struct shell_json *json, size_t *written) {
    unsigned code, low;
    size_t start = json->position - 2;
    int error = json_hex4(json, json->position, &code);
    if (error)
        return error;
    json->position += 4;
    if (code >= 0xd800 && code < 0xdc00) {
        const char *text = json->text + json->position;
        if (json->length - json->position < 6 || text[0] != '\\' || text[1] != 'u')
            return json_fail(json, start, "half of a surrogate pair");
        error = json_hex4(json, json->position + 2, &low);
        if (error)
            return error;
        if (low < 0xdc00 || low > 0xdfff)
            return json_fail(json, start, "half of a surrogate pair");
        json->position += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code <= 0xdfff) {
        return json_fail(json, start, "half of a surrogate pair");
    }
    *written += utf8_put(json->text + *written, code);
    return 0;
}

/** Bytes of the well-formed UTF-8 sequence that starts here, or 0. */
static size_t utf8_length(const unsigned char *at, size_t room) {
    unsigned char lead = at[0];
    size_t length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length == 0 || length > room)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    bool too_long = (lead == 0xe0 && at[1] < 0xa0) || (lead == 0xf0 && at[1] < 0x90);
    bool surrogate = lead == 0xed && at[1] >= 0xa0;
    bool too_big = lead == 0xf4 && at[1] >= 0x90;
    return too_long || surrogate || too_big ? 0 : length;
}

static int json_escape(struct shell_json *json, size_t *written) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    json->position++;
    int byte = json_peek(json);
    json->position++;
    if (byte == 'u')
        return json_unicode(json, written);
    const char *found = byte > 0 ? strchr(from, byte) : NULL;
    if (!found)
        return json_fail(json, json->position - 1, "unknown escape in a string");
    json->text[(*written)++] = to[found - from];
    return 0;
}

static int json_string(struct shell_json *json) {
    size_t opening = json->position++;
    size_t written = json->position;
    int64_t index = json_push(json, SHELL_JSON_STRING, written);
    if (index < 0)
        return (int)index;
    for (;;) {
        int byte = json_peek(json);
        if (byte == '"')
            break;
        if (byte < 0)
            return json_fail(json, opening, "a string that does not end");
        if (byte < 0x20)
            return json_fail(json, json->position, "a control character in a string");
        if (byte == '\\') {
            int error = json_escape(json, &written);
            if (error)
                return error;
            continue;
        }
        size_t length = 1;
        if (byte >= 0x80)
            length = utf8_length((unsigned char *)json->text + json->position,
                                 json->length - json->position);
        if (length == 0)
            return json_fail(json, json->position, "bytes that are not UTF-8");
        if (written != json->position)
            memmove(json->text + written, json->text + json->position, length);
        written += length;
        json->position += length;
    }
    json->position++;
    json->tokens[index].length = (uint32_t)(written - json->tokens[index].start);
    return 0;
}

static bool json_digits(struct shell_json *json) {
    size_t start = json->position;
    while (json_peek(json) >= '0' && json_peek(json) <= '9')
        json->position++;
    return json->position > start;
}

static int json_number(struct shell_json *json) {
    size_t start = json->position;
    if (json_peek(json) == '-')
        json->position++;
    if (json_peek(json) == '0')
        json->position++;
    else if (!json_digits(json))
        return json_fail(json, json->position, "expected a digit");
    if (json_peek(json) == '.') {
        json->position++;
        if (!json_digits(json))
            return json_fail(json, json->position, "expected a digit");
    }
    if (json_peek(json) == 'e' || json_peek(json) == 'E') {
        json->position++;
        if (json_peek(json) == '+' || json_peek(json) == '-')
            json->position++;
        if (!json_digits(json))
            return json_fail(json, json->position, "expected a digit");
    }
    int64_t index = json_push(json, SHELL_JSON_NUMBER, start);
    if (index < 0)
        return (int)index;
    json->tokens[index].length = (uint32_t)(json->position - start);
    return 0;
}

static int json_word(struct shell_json *json, const char *word, enum shell_json_kind kind) {
    size_t length = strlen(word);
    if (json->length - json->position < length ||
        memcmp(json->text + json->position, word, length) != 0)
        return json_fail(json, json->position, "expected a value");
    int64_t index = json_push(json, kind, json->position);
    if (index < 0)
        return (int)index;
    json->tokens[index].length = (uint32_t)length;
    json->position += length;
    return 0;
}

static int json_member(struct shell_json *json) {
    if (json_peek(json) != '"')
        return json_fail(json, json->position, "expected a field name in quotes");
    int error = json_string(json);
    if (error)
        return error;
    json_skip_space(json);
    if (json_peek(json) != ':')
        return json_fail(json, json->position, "expected ':'");
    json->position++;
    json_skip_space(json);
    return json_value(json);
}

/** An object or an array: what they hold, and the commas between. */
static int json_container(struct shell_json *json, enum shell_json_kind kind) {
    int closing = kind == SHELL_JSON_OBJECT ? '}' : ']';
    size_t start = json->position++;
    if (++json->depth > SHELL_JSON_DEPTH_MAX)
        return json_fail(json, start, "nested too deeply");
    int64_t index = json_push(json, kind, start);
    if (index < 0)
        return (int)index;
    json_skip_space(json);
    if (json_peek(json) != closing) {
        for (;;) {
            int error = kind == SHELL_JSON_OBJECT ? json_member(json) : json_value(json);
            if (error)
                return error;
            json_skip_space(json);
            if (json_peek(json) == closing)
                break;
            if (json_peek(json) != ',')
                return json_fail(json, json->position,
                                 kind == SHELL_JSON_OBJECT ? "expected ',' or '}'"
                                                           : "expected ',' or ']'");
            json->position++;
            json_skip_space(json);
        }
    }
    json->position++;
    json->depth--;
    json->tokens[index].length = (uint32_t)(json->position - start);
    json->tokens[index].end = json->count;
    return 0;
}

static int json_value(struct shell_json *json) {
    int byte = json_peek(json);
    switch (byte) {
    case '{':
        return json_container(json, SHELL_JSON_OBJECT);
    case '[':
        return json_container(json, SHELL_JSON_ARRAY);
    case '"':
        return json_string(json);
    case 't':
        return json_word(json, "true", SHELL_JSON_TRUE);
    case 'f':
        return json_word(json, "false", SHELL_JSON_FALSE);
    case 'n':
        return json_word(json, "null", SHELL_JSON_NULL);
    default:
        if (byte == '-' || (byte >= '0' && byte <= '9'))
            return json_number(json);
        return json_fail(json, json->position, "expected a value");
    }
}

int shell_json_parse(struct shell_json *json, char *text, size_t length) {
    json->text = text;
    json->length = length;
    json->count = 0;
    json->position = 0;
    json->depth = 0;
    json_skip_space(json);
    int error = json_value(json);
    if (error)
        return error;
    json_skip_space(json);
    if (json->position != json->length)
        return json_fail(json, json->position, "expected the end of the line");
    return 0;
}

void shell_json_free(struct shell_json *json) {
    free(json->tokens);
    *json = (struct shell_json){0};
}

bool shell_json_is(const struct shell_json *json, const struct shell_json_token *token,
                   const char *text) {
    return token->length == strlen(text) &&
           memcmp(json->text + token->start, text, token->length) == 0;
}

int shell_json_integer(const struct shell_json *json, const struct shell_json_token *token,
                       uint128_t *value) {
    if (token->kind != SHELL_JSON_STRING && token->kind != SHELL_JSON_NUMBER)
        return -EINVAL;
    const char *text = json->text + token->start;
    uint32_t first = token->length > 1 && text[0] == '-' ? 1 : 0;
    if (token->length == 0)
        return -EINVAL;
    for (uint32_t i = first; i < token->length; i++)
        if (text[i] < '0' || text[i] > '9')
            return -EINVAL;
    uint128_t sum = 0;
    for (uint32_t i = first; i < token->length; i++) {
        unsigned digit = (unsigned)(text[i] - '0');
        if (i - first >= 38 && sum > (UINT128_MAX - digit) / 10) /* 38 digits always fit */
            return -ERANGE;
        sum = sum * 10 + digit;
    }
    if (first && sum != 0)
        return -ERANGE;
    *value = sum;
    return 0;
}

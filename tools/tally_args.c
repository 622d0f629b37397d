/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tally_args.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define OPTIONS_MAX 64
#define HELP_COLUMN 28

static const struct args_option no_options[] = {{0}};

const char *args_program = "tally";
const struct args_option *args_common = no_options;

void args_complain(const char *format, ...) {
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    /* What a file or an argument holds may be anything; a terminal and a script get one plain line. */
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    }
    fprintf(stderr, "%s: %s\n", args_program, text);
}

/* --- numbers ---------------------------------------------------------------------------------- */

static int digit_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return 99;
}

int args_uint128(const char *text, tally_uint128_t *value) {
    unsigned base = 10;
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    }
    if (!*text)
        return -EINVAL;
    *value = 0;
    for (; *text; text++) {
        unsigned digit = (unsigned)digit_value(*text);
        if (digit >= base || *value > (TALLY_AMOUNT_MAX - digit) / base)
            return -EINVAL;
        *value = *value * base + digit;
    }
    return 0;
}

int args_id(const char *what, const char *text, tally_uint128_t *id) {
    if (args_uint128(text, id) == 0 && *id != 0 && *id != TALLY_AMOUNT_MAX)
        return 0;
    args_complain("%s '%s' should be a whole number from 1 to 2^128-2, decimal or 0x hex", what,
                  text);
    return -EINVAL;
}

const char *args_decimal(tally_uint128_t value, char *out) {
    char digits[40];
    unsigned count = 0;
    do {
        digits[count++] = (char)('0' + (unsigned)(value % 10));
        value /= 10;
    } while (value);
    for (unsigned i = 0; i < count; i++)
        out[i] = digits[count - 1 - i];
    out[count] = 0;
    return out;
}

/* --- did you mean ----------------------------------------------------------------------------- */

/** Levenshtein's distance; words over 63 characters are far from everything. */
static unsigned word_distance(const char *a, const char *b) {
    unsigned row[64];
    size_t a_length = strlen(a), b_length = strlen(b);
    if (a_length > 63 || b_length > 63)
        return 64;
    for (unsigned j = 0; j <= b_length; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a_length; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b_length; j++) {
            unsigned replaced = diagonal + (a[i - 1] != b[j - 1]);
            unsigned least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            diagonal = row[j];
            row[j] = replaced < least ? replaced : least;
        }
    }
    return row[b_length];
}

const char *args_nearest(const char *word, const char *const *names, unsigned count) {
    const char *best = NULL;
    unsigned best_distance = 2 + (unsigned)strlen(word) / 4;
    for (unsigned i = 0; i < count; i++) {
        unsigned distance = word_distance(word, names[i]);
        bool prefix = strlen(word) >= 3 && strncmp(word, names[i], strlen(word)) == 0;
        if (prefix)
            distance = 1;
        if (distance < best_distance && distance < strlen(names[i])) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}

/* --- help ------------------------------------------------------------------------------------- */

static void print_option(const struct args_option *option) {
    char left[64];
    int length = snprintf(left, sizeof(left), "  --%s", option->name);
    if (option->letter)
        length += snprintf(left + length, sizeof(left) - (size_t)length, ", -%c", option->letter);
    if (option->metavar)
        snprintf(left + length, sizeof(left) - (size_t)length, " %s", option->metavar);
    printf("%-*s %s%s\n", HELP_COLUMN - 1, left, option->help,
           option->required ? " (required)" : "");
    if (option->type != ARGS_FLAGS)
        return;
    int column = printf("%*s", HELP_COLUMN, "");
    for (const struct args_flag *flag = option->flags; flag->name; flag++) {
        if (column + (int)strlen(flag->name) + 1 > 80)
            column = printf("\n%*s", HELP_COLUMN, "") - 1;
        column +=
            printf("%s%s", flag == option->flags || column == HELP_COLUMN ? "" : " ", flag->name);
    }
    printf("\n");
}

static void print_help(const struct args_command *command) {
    bool optional = false;
    int column = printf("usage: %s%s%s", args_program,
                        args_common->name ? " [common options] " : "", command->name);
    for (const struct args_option *option = command->options; option && option->name; option++) {
        int length =
            option->required ? (int)(strlen(option->name) + strlen(option->metavar) + 4) : 0;
        optional |= !option->required;
        if (length && column + length > 79)
            column = printf("\n%*s", HELP_COLUMN, "") - 1;
        if (length)
            column += printf(" --%s %s", option->name, option->metavar);
    }
    printf("%s%s%s\n\n%s\n", *command->operands ? " " : "", command->operands,
           optional ? " [options]" : "", command->summary);
    if (command->options && command->options->name)
        printf("\noptions\n");
    for (const struct args_option *option = command->options; option && option->name; option++)
        print_option(option);
    if (args_common->name)
        printf("\ncommon options\n");
    for (const struct args_option *option = args_common; option->name; option++)
        print_option(option);
    if (command->notes)
        printf("\n%s", command->notes);
}

/* --- parsing ---------------------------------------------------------------------------------- */

static const struct args_option *option_named(const struct args_option *options, const char *name,
                                              size_t length) {
    for (; options && options->name; options++)
        if (strlen(options->name) == length && memcmp(options->name, name, length) == 0)
            return options;
    return NULL;
}

static const struct args_option *option_lettered(const struct args_option *options, char letter) {
    for (; options && options->name; options++)
        if (options->letter == letter)
            return options;
    return NULL;
}

static void complain_unknown(const struct args_command *command, const char *word) {
    const char *names[OPTIONS_MAX] = {NULL};
    char bare[64];
    unsigned count = 0;
    snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(word + strspn(word, "-"), "="),
             word + strspn(word, "-"));
    for (const struct args_option *o = command ? command->options : NULL;
         o && o->name && count < OPTIONS_MAX; o++)
        names[count++] = o->name;
    for (const struct args_option *o = args_common; o->name && count < OPTIONS_MAX; o++)
        names[count++] = o->name;
    const char *near = args_nearest(bare, names, count);
    if (near)
        args_complain("unknown option '%s'; did you mean --%s?", word, near);
    else
        args_complain("unknown option '%s'; '%s %s%s%s' lists what there is", word, args_program,
                      command && !*command->name ? "--help" : "help",
                      command && *command->name ? " " : "", command ? command->name : "");
}

static int store_flag(const struct args_option *option, const char *text) {
    const char *names[32] = {NULL};
    unsigned count = 0;
    for (const struct args_flag *flag = option->flags; flag->name; flag++) {
        if (strcmp(flag->name, text) == 0) {
            *(uint16_t *)option->value |= flag->bit;
            return 0;
        }
        names[count++] = flag->name;
    }
    const char *near = args_nearest(text, names, count);
    if (near) {
        args_complain("--%s '%s' is no flag; did you mean %s?", option->name, text, near);
        return -EINVAL;
    }
    char all[256] = "";
    size_t length = 0;
    for (unsigned i = 0; i < count && length < sizeof(all); i++)
        length +=
            (size_t)snprintf(all + length, sizeof(all) - length, "%s%s", i ? ", " : "", names[i]);
    args_complain("--%s '%s' is no flag; there are %s", option->name, text, all);
    return -EINVAL;
}

static int store_value(const struct args_option *option, const char *text) {
    tally_uint128_t number;
    char what[80];
    switch (option->type) {
    case ARGS_SWITCH:
        *(bool *)option->value = true;
        return 0;
    case ARGS_TEXT:
        *(const char **)option->value = text;
        return 0;
    case ARGS_FLAGS:
        return store_flag(option, text);
    case ARGS_ID:
        snprintf(what, sizeof(what), "--%s", option->name);
        return args_id(what, text, (tally_uint128_t *)option->value);
    case ARGS_AMOUNT:
        if (args_uint128(text, (tally_uint128_t *)option->value) == 0)
            return 0;
        args_complain("--%s '%s' should be a whole number from 0 to 2^128-1, decimal or 0x hex",
                      option->name, text);
        return -EINVAL;
    case ARGS_NUMBER:
        break;
    }
    if (args_uint128(text, &number) < 0 || number < option->minimum || number > option->maximum) {
        args_complain("--%s '%s' should be a whole number from %" PRIu64 " to %" PRIu64,
                      option->name, text, option->minimum, option->maximum);
        return -EINVAL;
    }
    *(uint64_t *)option->value = (uint64_t)number;
    return 0;
}

/** Take one option at argv[*at]; *at moves behind it. @return 0 or -EINVAL; *taken says which it
 *  was */
static int take_option(const struct args_command *command, int argc, char **argv, int *at,
                       const struct args_option **taken) {
    const struct args_option *options = command ? command->options : NULL, *option;
    const char *word = argv[(*at)++], *value = NULL;
    if (word[1] == '-') {
        size_t length = strcspn(word + 2, "=");
        value = word[2 + length] ? word + 3 + length : NULL;
        option = option_named(options, word + 2, length);
        option = option ? option : option_named(args_common, word + 2, length);
    } else {
        value = word[2] ? word + 2 : NULL;
        option = option_lettered(options, word[1]);
        option = option ? option : option_lettered(args_common, word[1]);
    }
    *taken = option;
    if (!option) {
        complain_unknown(command, word);
        return -EINVAL;
    }
    if (option->type == ARGS_SWITCH) {
        if (!value)
            return store_value(option, "");
        args_complain("--%s takes no value, but '%s' was given", option->name, value);
        return -EINVAL;
    }
    if (!value && *at == argc) {
        args_complain("--%s needs a value: --%s %s", option->name, option->name, option->metavar);
        return -EINVAL;
    }
    return store_value(option, value ? value : argv[(*at)++]);
}

/** An option, not a (bad) number such as -1, nor "-" for standard input. */
static bool is_option(const char *word) {
    return word[0] == '-' && word[1] && !(word[1] >= '0' && word[1] <= '9');
}

static bool asks_for_help(const char *word) {
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int check_required(const struct args_command *command, const bool *given) {
    for (unsigned i = 0; command->options && command->options[i].name; i++)
        if (command->options[i].required && !given[i]) {
            args_complain("%s needs --%s %s", command->name, command->options[i].name,
                          command->options[i].metavar);
            return -EINVAL;
        }
    return 0;
}

static int check_operands(const struct args_command *command, unsigned count, char **argv) {
    if (count < command->operands_min) {
        args_complain("%s needs %s; '%s help %s' says more", command->name, command->operands,
                      args_program, command->name);
        return -EINVAL;
    }
    if (count > command->operands_max) {
        args_complain("%s takes no '%s'; usage: %s %s %s",
                      *command->name ? command->name : args_program, argv[command->operands_max],
                      args_program, command->name, command->operands);
        return -EINVAL;
    }
    return 0;
}

enum args_answer args_parse(const struct args_command *command, int argc, char **argv,
                            unsigned *operand_count) {
    bool given[OPTIONS_MAX] = {false}, options_over = false;
    unsigned operands = 0;
    for (int at = 0; at < argc;) {
        const struct args_option *taken;
        if (!options_over && asks_for_help(argv[at])) {
            print_help(command);
            return ARGS_HELP;
        }
        if (!options_over && strcmp(argv[at], "--") == 0) {
            options_over = true;
            at++;
        } else if (options_over || !is_option(argv[at])) {
            argv[operands++] = argv[at++];
        } else if (take_option(command, argc, argv, &at, &taken) < 0) {
            return ARGS_BAD;
        } else if (command->options && taken >= command->options &&
                   taken < command->options + OPTIONS_MAX) {
            given[taken - command->options] = true;
        }
    }
    *operand_count = operands;
    if (check_required(command, given) < 0 || check_operands(command, operands, argv) < 0)
        return ARGS_BAD;
    return ARGS_RUN;
}

int args_parse_common(int argc, char **argv, bool *help) {
    const struct args_option *taken;
    int at = 0;
    *help = false;
    while (at < argc && is_option(argv[at])) {
        if (asks_for_help(argv[at])) {
            *help = true;
            return at;
        }
        if (take_option(NULL, argc, argv, &at, &taken) < 0)
            return -1;
    }
    return at;
}

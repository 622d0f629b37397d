/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLY_ARGS_H
#define TALLY_TOOLS_TALLY_ARGS_H

#include <stdbool.h>
#include <stdint.h>

#include "net/client/tally.h"

/** Command lines, read by tables. What is wrong is said in one line on standard error, with what
 *  would be right.
 *  Flow: argv -> [args_parse] -> a command's own variables */

enum args_type {
    ARGS_SWITCH, /**< bool: no value */
    ARGS_TEXT,   /**< const char * */
    ARGS_NUMBER, /**< uint64_t within minimum .. maximum */
    ARGS_ID,     /**< tally_uint128_t, decimal or 0x, not 0 and not 2^128-1 */
    ARGS_AMOUNT, /**< tally_uint128_t, decimal or 0x */
    ARGS_FLAGS,  /**< uint16_t: the bit of a name is added; may be given many times */
};

struct args_flag {
    const char *name;
    uint16_t bit;
};

struct args_option {
    const char *name; /**< without the dashes */
    char letter;      /**< short form, or 0 */
    enum args_type type;
    void *value;
    const char *metavar; /**< NULL for a switch */
    const char *help;
    bool required;
    uint64_t minimum, maximum;     /**< ARGS_NUMBER */
    const struct args_flag *flags; /**< ARGS_FLAGS; ends with a NULL name */
};

struct args_command {
    const char *name;     /**< as typed: "account create"; "" for a program without commands */
    const char *summary;  /**< one line */
    const char *operands; /**< for the usage line: "ID...", or "" */
    unsigned operands_min, operands_max;
    const struct args_option *options; /**< end with a NULL name */
    const char *notes;                 /**< more lines for --help, or NULL */
};

enum args_answer {
    ARGS_RUN,  /**< go on */
    ARGS_HELP, /**< help was printed: exit 0 */
    ARGS_BAD,  /**< said what is wrong: exit 2 */
};

/** The program's name, "tally" if nothing else was said; one that has no commands has a command without a name. */
extern const char *args_program;

/** Options that every command takes; set once by the program. Ends with a NULL name. */
extern const struct args_option *args_common;

/** Parse argv[0 .. argc-1] (behind the command's name). Operands are moved to the front of argv.
 *  @param operand_count set to their number */
enum args_answer args_parse(const struct args_command *command, int argc, char **argv,
                            unsigned *operand_count);

/** Parse options up to the first operand, which is not looked at. @return its index in argv, or
 *  -1 when something was bad; *help is set when --help was asked for */
int args_parse_common(int argc, char **argv, bool *help);

/** Decimal or 0x hex, the whole text. @return 0 or -EINVAL */
int args_uint128(const char *text, tally_uint128_t *value);
/** One operand as an id; says what is wrong. @return 0 or -EINVAL */
int args_id(const char *what, const char *text, tally_uint128_t *id);
/** Decimal digits of a 128-bit integer. @param out 40 bytes. @return out */
const char *args_decimal(tally_uint128_t value, char *out);

/** The nearest of `names`, or NULL when none is near. */
const char *args_nearest(const char *word, const char *const *names, unsigned count);
/** One line on standard error, behind the program's name. */
__attribute__((format(printf, 1, 2))) void args_complain(const char *format, ...);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tallyd_eal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>

#include "net/port_dpdk.h"

/* EAL answers a wrong argument with some lines of log, getopt's own complaint (twice) and 100 lines of usage on standard
 * output. The log passes; of the rest only what names the argument is kept, for the one line that ends it. */

static const char eal_closing[] = "Invalid 'command line' arguments.";

struct eal_words {
    FILE *log; /**< passes EAL's lines on, and remembers the last */
    char last[256];
    FILE *said, *usual_stderr, *usual_stdout;
    char *text;
    size_t bytes;
};

static ssize_t log_write(void *context, const char *bytes, size_t length) {
    struct eal_words *words = context;
    fwrite(bytes, 1, length, words->usual_stderr);
    size_t prefix = length > 5 && memcmp(bytes, "EAL: ", 5) == 0 ? 5 : 0;
    const char *line = bytes + prefix;
    size_t line_length = length - prefix;
    if (line_length > 0 && line[line_length - 1] == '\n')
        line_length--;
    /* it closes every complaint about arguments, and says nothing */
    bool closing =
        line_length == strlen(eal_closing) && memcmp(line, eal_closing, line_length) == 0;
    if (line_length > 0 && !closing)
        snprintf(words->last, sizeof(words->last), "%.*s", (int)line_length, line);
    return (ssize_t)length;
}

static bool help_wanted(const struct tallyd_options *options) {
    for (int i = 0; i < options->eal_argc; i++)
        if (strcmp(options->eal_argv[i], "--help") == 0 || strcmp(options->eal_argv[i], "-h") == 0)
            return true;
    return false;
}

/** From here on EAL speaks to us. Without memory it speaks as it likes. */
static void words_begin(struct eal_words *words, const struct tallyd_options *options) {
    *words = (struct eal_words){.usual_stderr = stderr, .usual_stdout = stdout};
    if (help_wanted(options))
        return;
    words->log = fopencookie(words, "w", (cookie_io_functions_t){.write = log_write});
    words->said = open_memstream(&words->text, &words->bytes);
    if (words->log && words->said) {
        setvbuf(words->log, NULL, _IOLBF, 0);
        rte_openlog_stream(words->log);
        stderr = stdout = words->said;
    }
}

static void words_end(struct eal_words *words, bool started) {
    stderr = words->usual_stderr;
    stdout = words->usual_stdout;
    rte_openlog_stream(NULL);
    if (words->log)
        fclose(words->log);
    if (words->said)
        fclose(words->said);
    if (started && words->bytes)
        fwrite(words->text, 1, words->bytes, stderr);
}

/** The first thing that was said outside of the log, up to the usage; else the last line of the log. */
static const char *words_problem(struct eal_words *words) {
    static const char getopt_prefix[] = "tallyd: ";
    char *text = words->text ? words->text : words->last;
    text += strspn(text, "\n");
    text[strcspn(text, "\n")] = '\0';
    if (strncmp(text, getopt_prefix, strlen(getopt_prefix)) == 0)
        return text + strlen(getopt_prefix);
    return *words->last ? words->last : rte_strerror(rte_errno);
}

int tallyd_eal_start(const struct tallyd_options *options) {
    char **argv = calloc((size_t)options->eal_argc + 2, sizeof(char *));
    if (!argv)
        return TALLYD_EXIT_FAILURE;
    argv[0] = (char *)(uintptr_t) "tallyd";
    for (int i = 0; i < options->eal_argc; i++)
        argv[i + 1] = options->eal_argv[i];
    port_dpdk_prepare_signals();
    struct eal_words words;
    words_begin(&words, options);
    int used = rte_eal_init(options->eal_argc + 1, argv), problem = 0;
    words_end(&words, used >= 0);
    if (used < 0) {
        fprintf(stderr, "tallyd: DPDK did not start: %s; look at the EAL arguments behind \"--\"\n",
                words_problem(&words));
        problem = TALLYD_EXIT_USAGE;
    } else if (used < options->eal_argc) {
        fprintf(stderr, "tallyd: \"%s\" behind \"--\" is not an EAL argument\n", argv[used + 1]);
        problem = TALLYD_EXIT_USAGE;
    }
    free(words.text);
    free(argv);
    return problem;
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLY_CLI_H
#define TALLY_TOOLS_TALLY_CLI_H

#include <json-c/json_object.h>

#include "net/client/tally.h"
#include "tools/tally_args.h"

/** The program `tally`: one command a process.
 *  Flow: main -> command -> libtally, or wal_inspect -> output */

enum cli_exit {
    CLI_DONE = 0,
    CLI_REFUSED = 1, /**< the ledger refused: some event was not created, or an id was not found */
    CLI_USAGE = 2,   /**< bad flags, files, input */
    CLI_UNKNOWN = 3, /**< no answer, or an outcome that is not known */
    CLI_DAMAGED = 4, /**< damaged data */
};

struct cli {
    const char *server;
    uint64_t timeout_ms;
    bool json;
    struct tally_client *client; /**< opened by cli_connect */
};

/** @return CLI_DONE, or said why not */
int cli_connect(struct cli *cli);
/** Say what went wrong with a blocking call. @return the exit status: CLI_UNKNOWN */
int cli_no_answer(struct cli *cli, int rc);
/** Whether the event is there: created now, or by an earlier sending of the same event. */
bool cli_transfer_is_there(uint32_t status);
bool cli_account_is_there(uint32_t status);

extern const struct args_flag cli_account_flags[], cli_transfer_flags[];

/* --- commands: argv begins behind the command's name ------------------------------------------ */

int tally_account_create(struct cli *cli, int argc, char **argv);
int tally_account_show(struct cli *cli, int argc, char **argv);
int tally_balance(struct cli *cli, int argc, char **argv);
int tally_transfer_create(struct cli *cli, int argc, char **argv);
int tally_transfer_show(struct cli *cli, int argc, char **argv);
int tally_hold(struct cli *cli, int argc, char **argv);
int tally_post(struct cli *cli, int argc, char **argv);
int tally_void(struct cli *cli, int argc, char **argv);
int tally_load(struct cli *cli, int argc, char **argv);
int tally_ping_command(struct cli *cli, int argc, char **argv);
int tally_wal_dump(struct cli *cli, int argc, char **argv);
int tally_wal_verify(struct cli *cli, int argc, char **argv);
int tally_backup(struct cli *cli, int argc, char **argv);
int tally_replay(struct cli *cli, int argc, char **argv);
int tally_checkpoint(struct cli *cli, int argc, char **argv);
int tally_checkpoint_list(struct cli *cli, int argc, char **argv);
int tally_checkpoint_verify(struct cli *cli, int argc, char **argv);

/* --- output (tally_output.c); 64- and 128-bit integers are decimal strings in JSON ------------ */

struct json_object *output_object(void);
void output_uint128(struct json_object *object, const char *name, tally_uint128_t value);
void output_uint64(struct json_object *object, const char *name, uint64_t value);
void output_number(struct json_object *object, const char *name, uint64_t value); /**< below 2^53 */
void output_double(struct json_object *object, const char *name, double value);
void output_text(struct json_object *object, const char *name, const char *value);
void output_flags(struct json_object *object, const char *name, uint16_t flags,
                  const struct args_flag *names);
/** One object a line; frees it. */
void output_print(struct json_object *object);
/** A file's name without its folders. */
const char *base_of(const char *path);
/** A torn tail or damage of the log, as one object. */
struct wal_damage;
void output_damage(const struct wal_damage *damage);
void output_account_fields(struct json_object *object, const struct tally_account *account);
void output_transfer_fields(struct json_object *object, const struct tally_transfer *transfer);
void output_balance_fields(struct json_object *object, const struct tally_balances *balances);

/** "name            value", aligned. */
void output_line(const char *name, const char *value);
void output_line_uint128(const char *name, tally_uint128_t value);
void output_line_time(const char *name, uint64_t timestamp_ns);
void output_account(const struct tally_account *account);
void output_transfer(const struct tally_transfer *transfer);
/** The names of the set bits, separated by `separator`; "-" for none. @return out */
const char *output_flag_names(uint16_t flags, const struct args_flag *names, const char *separator,
                              char *out, size_t out_bytes);

#endif

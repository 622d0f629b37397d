/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_SHELL_H
#define TALLY_TOOLS_SHELL_H

/** `tally shell`: the engine without a network. One JSON request a line on standard input, one JSON
 * answer a line on standard output. Flow:  stdin -> shell_json -> shell_request -> shell_ledger
 * (engine and WAL) -> shell_output -> stdout
 *  @param argv argv[0] is the command's own name
 *  @return exit status: 0 at the end of the input, 1 when something broke, 2 for bad flags or a bad
 * directory */
int shell_main(int argc, char **argv);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/shell.h"

int main(int argc, char **argv) {
    return shell_main(argc, argv);
}

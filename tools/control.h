/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_CONTROL_H
#define TALLY_TOOLS_CONTROL_H

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "engine/base/types.h"

/** A running tallyd's ear for its operator: the Unix domain socket DIRECTORY/control, mode 0600.
 *  Flow:  tally checkpoint, tally backup -> socket -> [control] -> wal_checkpoint_want, wal_hold; answers the other way
 *  Owner: tallyd's control thread; no lcore waits for it. Bounds: CONTROL_CLIENTS_MAX connections, CONTROL_LINE_BYTES_MAX a request;
 *  who is silent, or does not take its answers, is let go, and its hold with it. */

#define CONTROL_CLIENTS_MAX 16
#define CONTROL_SILENCE_MAX_NS (60 * NS_PER_SECOND)
#define CONTROL_HOLD_SILENCE_MAX_NS (600 * NS_PER_SECOND)
#define CONTROL_SOCKET_NAME "control"

/** What "status" shows. */
struct control_status {
    uint8_t cell_id[16];
    uint32_t partitions;
    bool checkpoints; /**< it takes any */
    term_t term;
    seq_t commit_seq;
    uint64_t log_bytes, log_files_removed;
    /* checkpoints: as in struct wal_checkpoints */
    uint64_t served, published, abandoned;
    seq_t published_seq, running_seq;
    uint64_t bytes;          /**< written for the one under way */
    uint64_t bytes_expected; /**< that it will have, about */
    int error;
    char warning[256]; /**< what went wrong last, or "" */
};

/** What the node does for its operator. */
struct control_node {
    void *context;
    void (*status)(void *context, struct control_status *status);
    /** @param error filled where it cannot be. @return the ticket, or 0 */
    uint64_t (*checkpoint)(void *context, char *error, size_t error_bytes);
    void (*hold)(void *context, bool hold);
};

struct control;

/** Make the socket, in place of one that a killed tallyd left. The directory's lock is held.
 *  @return 0 or -errno, with `error` filled */
int control_open(const char *directory, const struct control_node *node, struct control **control,
                 char *error, size_t error_bytes);
/** Serve until `fd` can be read or the time is up. @return whether it can */
bool control_serve(struct control *control, int fd, unsigned timeout_ms);
void control_close(struct control *control);

/** The socket's address, through a descriptor of the directory: its own name may be longer than an address holds. */
static inline void control_address(int directory_fd, struct sockaddr_un *address) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/" CONTROL_SOCKET_NAME,
             directory_fd);
}

#endif

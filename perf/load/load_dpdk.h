/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_LOAD_DPDK_H
#define TALLY_PERF_LOAD_DPDK_H

#include <stddef.h>

struct tally_transport;

/** The client's packets over a DPDK port of its own instead of the kernel: memif or vhost from process to process, or a NIC.
 *  Control path. One client, one thread. */

struct load_dpdk_config {
    const char *port;    /**< as EAL knows it, "net_virtio_user0" */
    const char *address; /**< our own IPv4 address */
    const char *server;  /**< "A.B.C.D" or "A.B.C.D:PORT" */
    int eal_argc;
    char **eal_argv;
};

/** Start EAL, open the port, find the server. @return 0, or -errno with `error` filled */
int load_dpdk_open(const struct load_dpdk_config *config, struct tally_transport **transport,
                   char *error, size_t error_bytes);
/** After the client is closed. */
void load_dpdk_close(void);

#endif

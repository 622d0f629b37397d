/* SPDX-License-Identifier: Apache-2.0 */
#include "perf/load/load_dpdk.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>

#include "net/client/tally.h"
#include "net/client/transport_dpdk.h"

#define PACKETS 16384u
#define FIND_TRIES 5 /**< the other side of the port may just be starting */

static struct port_dpdk port;
static bool eal_started, port_open;

static int eal_start(const struct load_dpdk_config *config, char *error, size_t error_bytes) {
    static char name[] = "tally-bench";
    char **argv = calloc((size_t)config->eal_argc + 2, sizeof(*argv));
    if (argv == NULL)
        return -ENOMEM;
    argv[0] = name;
    for (int i = 0; i < config->eal_argc; i++)
        argv[i + 1] = config->eal_argv[i];
    port_dpdk_prepare_signals();
    int used = rte_eal_init(config->eal_argc + 1, argv);
    free(argv);
    if (used >= 0) {
        eal_started = true;
        return 0;
    }
    snprintf(error, error_bytes, "DPDK did not start: %s; look at the arguments behind \"--\"",
             rte_strerror(rte_errno));
    return -EINVAL;
}

static int parse_addresses(const struct load_dpdk_config *config,
                           struct transport_dpdk_config *transport, char *error,
                           size_t error_bytes) {
    char host[64];
    size_t length = strcspn(config->server, ":");
    unsigned long number = TALLY_PORT_DEFAULT;
    char *end = NULL;
    if (config->server[length] == ':')
        number = strtoul(config->server + length + 1, &end, 10);
    snprintf(host, sizeof(host), "%.*s", (int)length, config->server);
    if (inet_pton(AF_INET, host, transport->server_ipv4) != 1 || number == 0 || number > 65535 ||
        (end != NULL && *end != '\0')) {
        snprintf(error, error_bytes, "--server '%s' should be A.B.C.D or A.B.C.D:PORT with --dpdk",
                 config->server);
        return -EINVAL;
    }
    transport->server_port = (uint16_t)number;
    if (inet_pton(AF_INET, config->address, transport->ipv4) == 1)
        return 0;
    snprintf(error, error_bytes, "--address '%s' should be an IPv4 address", config->address);
    return -EINVAL;
}

int load_dpdk_open(const struct load_dpdk_config *config, struct tally_transport **transport,
                   char *error, size_t error_bytes) {
    struct transport_dpdk_config over = {0};
    struct port_dpdk_config of_port = {.name = config->port, .packets = PACKETS};
    int rc = parse_addresses(config, &over, error, error_bytes);
    if (rc == 0)
        rc = eal_start(config, error, error_bytes);
    if (rc == 0)
        rc = port_dpdk_open(&port, &of_port, error, error_bytes);
    if (rc != 0)
        return rc;
    port_open = true;
    transport_dpdk_describe(&port, &over);
    for (unsigned tries = 0; tries < FIND_TRIES; tries++) {
        rc = transport_dpdk_open(&over, transport, error, error_bytes);
        if (rc != -ETIMEDOUT)
            break;
    }
    return rc;
}

void load_dpdk_close(void) {
    if (port_open)
        port_dpdk_close(&port);
    if (eal_started)
        rte_eal_cleanup();
    port_open = eal_started = false;
}

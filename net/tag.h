/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_TAG_H
#define TALLY_NET_TAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The tag of a datagram while there is no encryption: XXH3-128, canonical, over the datagram with
 *  the field zero. */

/** Write the tag into the datagram's net_header. @param bytes  at least sizeof(struct
 *  net_header) */
void tag_seal(uint8_t *datagram, size_t bytes);

/** @return whether the tag is right. The field is zero afterwards. */
bool tag_verify(uint8_t *datagram, size_t bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "net/tag.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "net/protocol.h"

enum { TAG_AT = offsetof(struct net_header, tag), TAG_BYTES = 16 };

static XXH128_canonical_t tag_of(const uint8_t *datagram, size_t bytes) {
    XXH128_canonical_t tag;
    XXH128_canonicalFromHash(&tag, XXH3_128bits(datagram, bytes));
    return tag;
}

void tag_seal(uint8_t *datagram, size_t bytes) {
    memset(datagram + TAG_AT, 0, TAG_BYTES);
    XXH128_canonical_t tag = tag_of(datagram, bytes);
    memcpy(datagram + TAG_AT, &tag, TAG_BYTES);
}

bool tag_verify(uint8_t *datagram, size_t bytes) {
    uint8_t claimed[TAG_BYTES];
    memcpy(claimed, datagram + TAG_AT, TAG_BYTES);
    memset(datagram + TAG_AT, 0, TAG_BYTES);
    XXH128_canonical_t tag = tag_of(datagram, bytes);
    return memcmp(claimed, &tag, TAG_BYTES) == 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "perf/load/load_histogram.h"

#include <endian.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#define STEPS_MASK (2 * LOAD_HALF_STEPS - 1)
#define HALF_BITS 10
#define ENCODING_COOKIE (0x1c849303u | 0x10) /**< V2, counts as ZigZag LEB128 */
#define COMPRESSED_COOKIE (0x1c849304u | 0x10)
#define LEB128_BYTES_MAX 9

/* --- counting ------------------------------------------------------------------------------------------------------ */

static unsigned index_of(uint64_t ns) {
    unsigned bucket = 64 - (unsigned)__builtin_clzll(ns | STEPS_MASK) - (HALF_BITS + 1);
    return (bucket << HALF_BITS) + (unsigned)(ns >> bucket);
}

/** The highest value that is counted at `index`. */
static uint64_t highest_of(unsigned index) {
    unsigned bucket = index < 2 * LOAD_HALF_STEPS ? 0 : (index >> HALF_BITS) - 1;
    uint64_t step = index - (bucket << HALF_BITS);
    return ((step + 1) << bucket) - 1;
}

void load_histogram_add(struct load_histogram *histogram, uint64_t ns, uint64_t count) {
    if (ns > LOAD_VALUE_MAX_NS)
        ns = LOAD_VALUE_MAX_NS;
    histogram->counts[index_of(ns)] += count;
    histogram->total += count;
    histogram->sum_ns += (double)ns * (double)count;
    if (ns > histogram->max_ns)
        histogram->max_ns = ns;
}

void load_histogram_merge(struct load_histogram *into, const struct load_histogram *from) {
    for (unsigned i = 0; i < LOAD_COUNTS; i++)
        into->counts[i] += from->counts[i];
    into->total += from->total;
    into->sum_ns += from->sum_ns;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
}

uint64_t load_histogram_quantile(const struct load_histogram *histogram, double quantile) {
    uint64_t wanted = (uint64_t)ceil(quantile * (double)histogram->total), seen = 0;
    if (wanted == 0)
        wanted = 1;
    for (unsigned i = 0; i < LOAD_COUNTS; i++) {
        seen += histogram->counts[i];
        if (seen >= wanted) {
            uint64_t value = highest_of(i);
            return value < histogram->max_ns ? value : histogram->max_ns;
        }
    }
    return 0;
}

/* --- the log --------------------------------------------------------------------------------------------------------- */

static uint8_t *put_zigzag(uint8_t *out, int64_t value) {
    uint64_t bits = ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
    for (unsigned i = 0; i + 1 < LEB128_BYTES_MAX && bits > 0x7f; i++, bits >>= 7)
        *out++ = (uint8_t)(bits | 0x80);
    *out++ = (uint8_t)bits;
    return out;
}

static uint8_t *put_be32(uint8_t *out, uint32_t value) {
    value = htobe32(value);
    memcpy(out, &value, sizeof(value));
    return out + sizeof(value);
}

static uint8_t *put_be64(uint8_t *out, uint64_t value) {
    value = htobe64(value);
    memcpy(out, &value, sizeof(value));
    return out + sizeof(value);
}

/** Everything up to the highest count: a run of zeros is its length, negative. @return bytes */
static size_t encode(const struct load_histogram *histogram, uint8_t *out) {
    static const uint8_t one[8] = {0x3f, 0xf0}; /* 1.0: values are shown as they are counted */
    unsigned used = histogram->total == 0 ? 0 : index_of(histogram->max_ns) + 1;
    uint8_t *next = put_be32(out, ENCODING_COOKIE);
    uint8_t *length = next;
    next = put_be32(next, 0);
    next = put_be32(next, 0); /* normalizing index offset */
    next = put_be32(next, 3); /* significant digits */
    next = put_be64(next, 1); /* lowest discernible value */
    next = put_be64(next, LOAD_VALUE_MAX_NS);
    memcpy(next, one, sizeof(one));
    next += sizeof(one);
    uint8_t *payload = next;
    for (unsigned i = 0; i < used;) {
        unsigned zeros = 0;
        while (i + zeros < used && histogram->counts[i + zeros] == 0)
            zeros++;
        if (zeros > 1) {
            next = put_zigzag(next, -(int64_t)zeros);
            i += zeros;
        } else {
            next = put_zigzag(next, (int64_t)histogram->counts[i++]);
        }
    }
    put_be32(length, (uint32_t)(next - payload));
    return (size_t)(next - out);
}

static void put_base64(FILE *file, const uint8_t *bytes, size_t length) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        size_t rest = length - i < 3 ? length - i : 3;
        uint32_t word = (uint32_t)bytes[i] << 16 | (rest > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                        (rest > 2 ? bytes[i + 2] : 0);
        fputc(digits[word >> 18], file);
        fputc(digits[word >> 12 & 63], file);
        fputc(rest > 1 ? digits[word >> 6 & 63] : '=', file);
        fputc(rest > 2 ? digits[word & 63] : '=', file);
    }
}

void load_histogram_log_head(FILE *file, uint64_t start_ns) {
    time_t seconds = (time_t)(start_ns / 1000000000u);
    char text[64] = "";
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(text, sizeof(text), "%a %b %d %H:%M:%S UTC %Y", &utc);
    fprintf(file,
            "#[Logged with tally-bench]\n#[Histogram log format version 1.3]\n"
            "#[StartTime: %.3f (seconds since epoch), %s]\n"
            "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\","
            "\"Interval_Compressed_Histogram\"\n",
            (double)start_ns / 1e9, text);
}

int load_histogram_log(FILE *file, const struct load_histogram *histogram, const char *tag,
                       double begin_s, double length_s) {
    uint8_t *plain = malloc(40 + (size_t)LOAD_COUNTS * LEB128_BYTES_MAX);
    size_t plain_bytes = plain == NULL ? 0 : encode(histogram, plain);
    uLongf packed_bytes = compressBound(plain_bytes);
    uint8_t *packed = malloc(8 + packed_bytes);
    int rc = -ENOMEM;
    if (plain != NULL && packed != NULL &&
        compress2(packed + 8, &packed_bytes, plain, plain_bytes, Z_BEST_COMPRESSION) == Z_OK) {
        put_be32(packed, COMPRESSED_COOKIE);
        put_be32(packed + 4, (uint32_t)packed_bytes);
        if (tag != NULL)
            fprintf(file, "Tag=%s,", tag);
        fprintf(file, "%.3f,%.3f,%.3f,", begin_s, length_s, (double)histogram->max_ns / 1e6);
        put_base64(file, packed, 8 + packed_bytes);
        fputc('\n', file);
        rc = 0;
    }
    free(plain);
    free(packed);
    return rc;
}

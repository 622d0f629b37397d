/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_CHECK_H
#define TALLY_ENGINE_BASE_CHECK_H

#include <assert.h>

/** Asserts are for programmers' errors and stay on in every build. */
#ifdef NDEBUG
#error "tally is never built without asserts"
#endif

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/** For functions whose only effect is a prefetch: gcc 12 takes them for pure when it does not inline them, and drops the call. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

#endif

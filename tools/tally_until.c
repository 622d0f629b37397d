/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tally_until.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FRACTION_DIGITS 9
#define YEAR_MIN 1970
#define YEAR_MAX 2500

/** Take up to `most` digits. @return how many there were */
static unsigned take_digits(const char **at, unsigned most, uint64_t *value) {
    unsigned count = 0;
    for (*value = 0; count < most && **at >= '0' && **at <= '9'; count++, (*at)++)
        *value = *value * 10 + (uint64_t)(**at - '0');
    return count;
}

/** ".123" as nanoseconds; digits beyond the ninth are dropped. @return whether it is one, or nothing */
static bool take_fraction(const char **at, uint64_t *ns) {
    *ns = 0;
    if (**at != '.' && **at != ',')
        return true;
    (*at)++;
    unsigned count = take_digits(at, FRACTION_DIGITS, ns);
    if (count == 0)
        return false;
    for (; count < FRACTION_DIGITS; count++)
        *ns *= 10;
    *at += strspn(*at, "0123456789");
    return true;
}

/** Days from 1970-01-01 in the Gregorian calendar (a year that begins in March has its odd day at the end). */
static uint64_t days_of(uint64_t year, uint64_t month, uint64_t day) {
    uint64_t y = month <= 2 ? year - 1 : year, era = y / 400, of_era = y - era * 400;
    uint64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static uint64_t month_days(uint64_t year, uint64_t month) {
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

/** "Z", "+01:00", "-0130", "+01", or nothing. @param seconds to take from the local time */
static bool take_zone(const char **at, int64_t *seconds) {
    uint64_t hours, minutes = 0;
    *seconds = 0;
    if (**at == 'Z' || **at == 'z') {
        (*at)++;
        return true;
    }
    if (**at != '+' && **at != '-')
        return true;
    int64_t sign = *(*at)++ == '-' ? -1 : 1;
    if (take_digits(at, 2, &hours) != 2)
        return false;
    bool colon = **at == ':';
    *at += colon;
    if ((colon || **at) && take_digits(at, 2, &minutes) != 2)
        return false;
    *seconds = sign * (int64_t)(hours * 3600 + minutes * 60);
    return hours <= 14 && minutes < 60;
}

static bool take_clock(const char **at, uint64_t *seconds, uint64_t *fraction) {
    uint64_t hour, minute, second = 0;
    *fraction = 0;
    if (take_digits(at, 2, &hour) != 2 || *(*at)++ != ':' || take_digits(at, 2, &minute) != 2)
        return false;
    if (**at == ':') {
        (*at)++;
        if (take_digits(at, 2, &second) != 2 || !take_fraction(at, fraction))
            return false;
    }
    *seconds = hour * 3600 + minute * 60 + second;
    return hour < 24 && minute < 60 && second < 60;
}

static bool parse_iso(const char *text, uint64_t *ns) {
    uint64_t year, month, day, seconds = 0, fraction = 0;
    int64_t zone = 0;
    if (take_digits(&text, 4, &year) != 4 || *text++ != '-' || take_digits(&text, 2, &month) != 2 ||
        *text++ != '-' || take_digits(&text, 2, &day) != 2 || year < YEAR_MIN || year > YEAR_MAX ||
        month < 1 || month > 12 || day < 1 || day > month_days(year, month))
        return false;
    if (*text == 'T' || *text == 't' || *text == ' ') {
        text++;
        if (!take_clock(&text, &seconds, &fraction) || !take_zone(&text, &zone))
            return false;
    }
    int64_t unix_seconds = (int64_t)(days_of(year, month, day) * 86400 + seconds) - zone;
    if (*text || unix_seconds <= 0)
        return false;
    *ns = (uint64_t)unix_seconds * NS_PER_SECOND + fraction;
    return true;
}

static bool parse_unix(const char *text, uint64_t *ns) {
    uint64_t seconds, fraction;
    if (take_digits(&text, 18, &seconds) == 0 || !take_fraction(&text, &fraction) || *text)
        return false;
    if (seconds >= UINT64_MAX / NS_PER_SECOND) /* later than any clock here can say */
        *ns = UINT64_MAX;
    else
        *ns = seconds * NS_PER_SECOND + fraction;
    return *ns != 0;
}

int until_parse(const char *text, struct until *until, char *error, size_t error_bytes) {
    size_t digits = strspn(text, "0123456789");
    const char *at = text;
    *until = (struct until){0};
    if (digits > 0 && digits <= 18 && text[digits] == '\0') {
        take_digits(&at, 18, &until->seq);
        if (until->seq != 0)
            return 0;
        snprintf(error, error_bytes, "groups are numbered from 1");
        return -EINVAL;
    }
    if (text[0] == '@'        ? parse_unix(text + 1, &until->ns)
        : text[digits] == '.' ? parse_unix(text, &until->ns)
                              : parse_iso(text, &until->ns))
        return 0;
    snprintf(error, error_bytes,
             "'%.40s' is neither a group's number, nor a time: 2026-11-20T16:43:00Z, or Unix "
             "seconds as in @1795192980.5",
             text);
    return -EINVAL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/status.h"

#include <stddef.h>

#define NAME_CASE(name, number, burns)                                                             \
    case number:                                                                                   \
        return #name;

const char *transfer_status_name(uint32_t status) {
    switch (status) { TRANSFER_STATUS_TABLE(NAME_CASE) }
    return NULL;
}

const char *account_status_name(uint32_t status) {
    switch (status) { ACCOUNT_STATUS_TABLE(NAME_CASE) }
    return NULL;
}

const char *lookup_status_name(uint32_t status) {
    switch (status) { LOOKUP_STATUS_TABLE(NAME_CASE) }
    return NULL;
}

const char *request_code_name(uint32_t code) {
    switch (code) { REQUEST_CODE_TABLE(NAME_CASE) }
    return NULL;
}

bool transfer_status_burns_id(uint32_t status) {
#define BURNS_CASE(name, number, burns)                                                            \
    case number:                                                                                   \
        return burns;
    switch (status) { TRANSFER_STATUS_TABLE(BURNS_CASE) }
#undef BURNS_CASE
    return false;
}

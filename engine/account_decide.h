/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_ACCOUNT_DECIDE_H
#define TALLY_ENGINE_ACCOUNT_DECIDE_H

#include "engine/base/status.h"
#include "engine/base/types.h"

/** The one place where the creation of an account is judged: a pure function, like transfer_decide. */

struct account_view {
    const struct account *event;
    uint64_t decided;               /**< ns, the timestamp given to this decision */
    const struct account *existing; /**< the account with this id, or NULL */
    bool memory_full;
    uint64_t import_cursor; /**< newest timestamp of any account */
    bool import_collides;   /**< a transfer has the imported timestamp */
};

struct account_outcome {
    uint32_t status;       /**< enum account_status */
    uint64_t timestamp;    /**< ns, of the result */
    struct account record; /**< status created: as it is stored */
};

void account_decide(const struct account_view *view, struct account_outcome *outcome);

#endif

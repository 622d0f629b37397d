#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tallyd crashed on a request that wanted balances when the slot of an earlier one, which had wanted none, served it: the
engine had cleared a pointer that the network part sets only once."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import equal, main, test  # noqa: E402
from world import World  # noqa: E402


@test
def balances_wanted_after_none():
    with World() as world:
        for wanted in (False, False, True, False, True, True) * 15:
            event = {"id": world.client.transfer_id(1), "debit_account_id": 1, "credit_account_id": 2, "amount": 1,
                     "ledger": 700, "code": 7}
            result = world.ask(world.client.create_transfers, [event], "created", balances=wanted)[0]
            world.note(event)
            equal(result.balances, world.expected[1] if wanted else None, "balances")


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)

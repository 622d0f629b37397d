# SPDX-License-Identifier: Apache-2.0
"""A data directory that was made from another one, served on a cable of its own beside the first.

    with Elsewhere(directory) as other:
        other.client.lookup_accounts([1, 2])
"""

import netns
import server
import tally_client


class Elsewhere:
    def __init__(self, data, number=1, **tallyd):
        self.tallyd = server.Tallyd(data=data, cable=netns.Cable(number), **{"memory_mb": 64, **tallyd})

    def __enter__(self):
        self.tallyd.start()
        self.client = tally_client.Client(self.tallyd.cable.server4, server.UDP_PORT, timeout_s=20)
        self.client.connect()
        return self

    def __exit__(self, *failure):
        self.client.goodbye()
        self.client.socket.close()
        status = self.tallyd.stop()
        self.tallyd.cable.remove()
        if failure[0] is None:
            assert status == 0, f"tallyd elsewhere ended with {status}:\n{self.tallyd.said()[-3000:]}"

    def accounts(self, ids):
        """Every account as the ledger shows it, None where there is none."""
        found = []
        for at in range(0, len(ids), self.client.lookups_max()):
            found += [result.record if result.status_name == "found" else None for result in
                      self.client.lookup_accounts(ids[at:at + self.client.lookups_max()]).results]
        return found

    def transfers(self, ids):
        found = []
        for at in range(0, len(ids), self.client.lookups_max()):
            found += [result.record if result.status_name == "found" else None for result in
                      self.client.lookup_transfers(ids[at:at + self.client.lookups_max()]).results]
        return found

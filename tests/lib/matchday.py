# SPDX-License-Identifier: Apache-2.0
"""tally-matchday as a load that judges itself: it keeps a book of all that tallyd acknowledged, and ends with 0 only if the
ledger holds exactly that."""

import os
import subprocess

import server


class Matchday:
    def __init__(self, cable, *flags):
        """Starts it; tallyd may come and go meanwhile."""
        self.output = os.path.join(server.scratch(), "day.txt")
        with open(self.output, "wb") as file:
            self.process = server.spawn([server.program("tally-matchday"), "--server", cable.server4, *flags],
                                        stdout=file, stderr=subprocess.STDOUT)

    def running(self):
        return self.process.poll() is None

    def said(self):
        with open(self.output, encoding="utf-8", errors="replace") as file:
            return file.read()

    def finish(self, timeout_s=300):
        """Wait for its verdict; its output."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"tally-matchday did not end in {timeout_s} s:\n{self.said()}") from None
        assert status == 0, f"tally-matchday ended with {status}:\n{self.said()}"
        return self.said()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every benchmark in a small mode, so that none can rot: one JSON line last, with its figure, its roofline, their ratio and a
checksum, and the checksum is the same for the same work."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import server  # noqa: E402
from check import equal, main, test  # noqa: E402

DOOR = server.ROOT / "perf" / "run"
FIELDS = {"benchmark": str, "figure": (int, float), "roofline": (int, float), "ratio": (int, float), "unit": str,
          "checksum": str, "errors": int, "machine": str, "commit": str}


def measured(*arguments):
    status, output, error = server.call(DOOR, "engine", *arguments, "--json", timeout_s=280)  # it may have to build
    equal(status, 0, f"status ({error})")
    line = json.loads(output.strip().splitlines()[-1])
    for name, kind in FIELDS.items():
        assert isinstance(line.get(name), kind), f"{name} is {line.get(name)!r} in {line}"
    return line


@test
def engine_alone():
    line = measured("--accounts", 20000, "--seconds", 1)
    equal((line["benchmark"], line["errors"], line["accounts"]), ("engine", 0, 20000), "benchmark, errors and accounts")
    assert line["figure"] > 0 and line["roofline"] > 0, line
    assert abs(line["ratio"] - line["figure"] / line["roofline"]) < 0.01, line
    assert int(line["checksum"], 16) != 0, line


@test
def flags_that_are_wrong():
    for arguments in ([], ["nonsense"], ["engine", "--speed"]):
        status, _, error = server.call(DOOR, *arguments)
        equal(status, 2, f"status of perf/run {arguments} ({error})")


if __name__ == "__main__":
    main(server.cleanup)

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


def measured(benchmark, *arguments):
    status, output, error = server.call(DOOR, benchmark, *arguments, "--json", timeout_s=280)  # it may have to build
    equal(status, 0, f"status ({error})")
    line = json.loads(output.strip().splitlines()[-1])
    for name, kind in FIELDS.items():
        assert isinstance(line.get(name), kind), f"{name} is {line.get(name)!r} in {line}"
    return line


@test
def engine_alone():
    line = measured("engine", "--accounts", 20000, "--seconds", 1)
    equal((line["benchmark"], line["errors"], line["accounts"]), ("engine", 0, 20000), "benchmark, errors and accounts")
    assert line["figure"] > 0 and line["roofline"] > 0, line
    assert abs(line["ratio"] - line["figure"] / line["roofline"]) < 0.01, line
    assert int(line["checksum"], 16) != 0, line


@test
def checkpoints_while_requests_come():
    line = measured("checkpoint", "--accounts", 20000, "--seconds", 0.5, "--rate", 20000)
    equal((line["benchmark"], line["errors"], line["accounts"]), ("checkpoint", 0, 20000), "benchmark, errors and accounts")
    assert line["checkpoints"] == 2 and line["records"] > 20000, line
    assert line["checkpoint_bytes"] > 2 * 128 * 20000 and line["longest_pause_us"] > 0, line
    assert abs(line["p999_ratio"] - line["during_us_p999"] / line["before_us_p999"]) < 0.01, line


@test
def recovery_from_memory():
    # more than the windows over checkpoint and log hold, so that what is read waits for the slowest worker
    size = (200000, 500000)
    lines = [measured("recovery", "--accounts", size[0], "--transfers", size[1], "--rounds", 2, "--workers", workers)
             for workers in (1, 3)]
    for line in lines:
        equal((line["benchmark"], line["errors"], line["accounts"], line["transfers"]), ("recovery", 0, *size),
              "benchmark, errors, accounts and transfers")
        assert line["figure"] > 0 and line["checkpoint_figure"] > 0, line
        assert abs(line["ratio"] - line["figure"] / line["roofline"]) < 0.01, line
        assert abs(line["checkpoint_ratio"] - line["checkpoint_figure"] / line["checkpoint_roofline"]) < 0.01, line
    equal(len({line["checksum"] for line in lines}), 1, "checksums of the same work")


@test
def flags_that_are_wrong():
    for arguments in ([], ["nonsense"], ["engine", "--speed"], ["recovery", "--accounts"], ["recovery", "--rounds", "x"]):
        status, _, error = server.call(DOOR, *arguments)
        equal(status, 2, f"status of perf/run {arguments} ({error})")


if __name__ == "__main__":
    main(server.cleanup)

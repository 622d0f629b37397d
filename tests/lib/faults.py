# SPDX-License-Identifier: Apache-2.0
"""Runs a program in which one call of the C library or of io_uring fails (tests/lib/fault_shim.c).

    status, output, error, noted = run([program, ...], at=17, keep=1)
"""

import os
import pathlib
import subprocess

import server

SHIM = server.BUILD / "tests" / "integration" / "libfault_shim.so"
TIMEOUT_S = 60


def run(command, data=b"", **fault):
    """@param data for its standard input  @param fault as the shim's environment says, in small letters; none: no shim
    @return exit status, stdout, stderr, what the shim noted"""
    log = os.path.join(server.scratch(), "faults")
    environment = {**os.environ, "LD_PRELOAD": str(SHIM), "FAULT_LOG": log,
                   **{f"FAULT_{name.upper()}": str(value) for name, value in fault.items()}}
    if not fault:
        environment.pop("LD_PRELOAD")
    done = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT_S, env=environment)
    noted = pathlib.Path(log).read_text().splitlines() if os.path.exists(log) else []
    return done.returncode, done.stdout, done.stderr.decode(errors="replace"), noted


def judge(what, status, error):
    """What a run may look like: it went on, or it ended with a line of its own; no signal, no assertion."""
    assert status >= 0, f"{what}: killed by signal {-status}: {error[-1500:]}"
    assert "Sanitizer" not in error and "runtime error" not in error, f"{what}: {error[-3000:]}"
    if status:
        lines = error.strip().splitlines()
        assert lines and lines[-1].startswith(("tally", "damage: ", "cannot")), f"{what}: status {status}, and it said {lines[-3:]}"
        assert len(lines) <= 3, f"{what}: more than a line: {lines}"


def by_function(noted):
    """Calls of which a shim with `trace` told: {name: [numbers]}"""
    of_name = {}
    for line in noted:
        word, name, *number = line.split()
        if word == "call":
            of_name.setdefault(name, []).append(int(number[0]))
    assert of_name, "the shim counted nothing"
    return of_name


def calls(command, data=b""):
    """The calls that a command makes when none fails."""
    status, _, error, noted = run(command, data, trace=1)
    assert status == 0, f"{command} without a fault: {status}: {error}"
    return by_function(noted)

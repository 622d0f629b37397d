#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every call of the C library and of io_uring that a program makes fails once, one program run for each: memory that is not
there, a file that cannot be opened, read, written, synced or renamed, a thread that does not start. The program must end with a
clear line and an exit status, or go on; never crash or hang; and the directory that it worked on must hold, for a program whose
calls succeed, all that was acknowledged.

TALLY_FAULTS says how many calls of each function fail in a program (all: every one); tests/integration/crash sets it."""

import json
import os
import pathlib
import random
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import server  # noqa: E402
from check import equal, eventually, main, seed, test  # noqa: E402
from faults import SHIM, by_function, calls, judge, run  # noqa: E402

TALLY, TALLYD = server.program("tally"), server.program("tallyd")
SHELL = ("--partitions", "4", "--id-time", "off", "--memory", "16M")
FAULTS = os.environ.get("TALLY_FAULTS") or "1"
PAGE, SECTOR = 4096, 512
ACCOUNTS, FIRST, SECOND = range(1, 5), range(1, 31), range(31, 61)
DICE = random.Random(seed())


def requests(ids):
    """Lines for the shell: accounts, then a transfer each; every fifth waits for its answer by reading an old one back."""
    lines = [{"op": "create_accounts", "events": [{"id": number, "ledger": 1, "code": 1} for number in ACCOUNTS]}]
    for number in ids:
        lines.append({"op": "create_transfers", "events": [{
            "id": number, "debit_account_id": number % 4 + 1, "credit_account_id": (number + 1) % 4 + 1,
            "amount": number, "ledger": 1, "code": 1, "user_data_64": number}]})
        if number % 5 == 0:
            lines.append({"op": "lookup_transfers", "ids": [1, number]})
    return lines


def text(lines):
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def acknowledged(lines, output):
    """Ids of transfers that an answer says are there."""
    found = set()
    for line, answer in zip(lines, output.decode(errors="replace").splitlines(keepends=True)):
        if line["op"] == "create_transfers" and answer.endswith("\n"):
            results = json.loads(answer).get("results", [{}])
            found |= {event["id"] for event, result in zip(line["events"], results)
                      if result.get("status") in ("created", "exists")}
    return found


def shell(data):
    return [TALLY, "shell", "--wal", data, *SHELL]


class Template:
    """A directory in which some transfers are, to be copied for every run."""

    def __init__(self):
        self.data = os.path.join(server.scratch(), "data")
        status, output, error, _ = run(shell(self.data), text(requests(FIRST)))
        equal(status, 0, f"status of the shell ({error})")
        equal(acknowledged(requests(FIRST), output), set(FIRST), "transfers")

    def copy(self, torn=False):
        target = os.path.join(server.scratch(), "data")
        subprocess.run(["cp", "-a", "--sparse=always", self.data, target], check=True)
        if torn:
            self.tear(f"{target}/wal/{1:020}.log")
        return target

    @staticmethod
    def tear(log):
        """As if the last write had not come through: a sector of it is missing."""
        with open(log, "r+b") as file:
            data = file.read()
            pages = [at for at in range(0, len(data), PAGE) if any(data[at:at + PAGE])]
            file.seek(pages[-1] + 3 * SECTOR)
            file.write(bytes(SECTOR))


def check_directory(what, data, ids, lines, optional):
    """A program whose calls succeed finds everything acknowledged, and can go on."""
    status, output, error, _ = run(shell(data), text([*lines, {"op": "lookup_transfers", "ids": sorted(ids)}]))
    if optional and status == 2 and ("not empty" in error or "no superblock" in error):
        return  # it never came to be, and says so
    equal(status, 0, f"{what}: status of a shell afterwards ({error})")
    answers = [json.loads(line) for line in output.decode().splitlines()]
    found = {int(record["id"]) for record in answers[-1]["transfers"]}
    assert found == set(ids), f"{what}: acknowledged, and not there: {sorted(set(ids) - found)}"
    for answer in answers[:-1]:
        statuses = [result["status"] for result in answer.get("results", [])]
        assert all(name in ("created", "exists") for name in statuses), f"{what}: afterwards {statuses}"


def chosen(of_name):
    """Numbers of the calls that are to fail: of every function the first, the last, and others."""
    numbers = []
    for every in of_name.values():
        count = len(every) if FAULTS == "all" else min(int(FAULTS), len(every))
        edges = every[:1] + (every[-1:] if count > 1 else [])
        rest = [number for number in every if number not in edges]
        numbers += edges + DICE.sample(rest, min(len(rest), max(0, count - len(edges))))
    return sorted(set(numbers))


def aside(data, name):
    return os.path.join(os.path.dirname(data), name)


def sweep(name, prepare, command, lines=(), before=(), makes=False, product=None):
    """@param prepare makes a directory  @param command of a directory  @param before transfers that are in it
    @param makes whether the directory comes into being by it  @param product name of another one that it makes beside it"""
    kept = server.scratch_count()
    of_name = calls(command(prepare()), text(lines))
    ended = reached = 0
    for number in chosen(of_name):
        for mode in ({}, {"keep": 1}, {"short": 1}):
            if mode and FAULTS != "all" and DICE.random() < 0.6:
                continue
            data = prepare()
            what = f"{name}, call {number} {mode}"
            status, output, error, noted = run(command(data), text(lines), at=number, **mode)
            fired = [line for line in noted if line.startswith("failed ")]
            what += f" {fired}"
            try:
                judge(what, status, error or output.decode())
                ids = set(before) | acknowledged(lines, output)
                check_directory(what, data, ids, lines, makes and not ids)
                if product and (status == 0 or os.path.exists(f"{aside(data, product)}/superblock")):
                    check_directory(what, aside(data, product), ids, lines, False)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{what}: hangs") from None
            ended, reached = ended + (status != 0), reached + bool(fired)
        server.forget_scratch(kept)
    print(f"{name}: {sum(map(len, of_name.values()))} calls of {len(of_name)} functions; {reached} faults, {ended} ended it")
    assert reached > 0 and ended > 0


@test
def making_a_directory():
    sweep("tallyd format", lambda: os.path.join(server.scratch(), "data"),
          lambda data: [TALLYD, "format", "--data", data, "--partitions", "4", "--id-time", "off", "--file-mb", "16"],
          makes=True)


@test
def first_start():
    sweep("a shell in a new directory", lambda: os.path.join(server.scratch(), "data"), shell, requests(FIRST), makes=True)


@test
def no_thread_for_the_disk():
    """It was taken for a full queue, and tried again for ever."""
    try:
        status, _, error, noted = run(shell(os.path.join(server.scratch(), "data")), name="pthread_create")
    except subprocess.TimeoutExpired:
        raise AssertionError("without a thread the shell hangs") from None
    judge("without a thread", status, error)
    assert any(line.startswith("failed pthread_create") for line in noted), noted
    assert status != 0, "it started without a thread that it needs"


@test
def recovery():
    template = Template()
    sweep("a shell in a directory", template.copy, shell, requests(SECOND), FIRST)


@test
def recovery_of_a_torn_tail():
    template = Template()
    sweep("a shell after a torn write", lambda: template.copy(torn=True), shell, requests(SECOND), FIRST)


@test
def verification():
    template = Template()
    sweep("tally wal verify", template.copy, lambda data: [TALLY, "wal", "verify", data], before=FIRST)


@test
def backup_of_a_stopped_tallyd():
    template = Template()
    sweep("tally backup", template.copy, lambda data: [TALLY, "backup", "--data", data, aside(data, "copy")], before=FIRST,
          product="copy")


@test
def replay_into_a_new_directory():
    template = Template()
    sweep("tally replay", template.copy, lambda data: [TALLY, "replay", "--data", data, "--into", aside(data, "state"),
                                                       "--workers", "1", "--memory-mb", "32"],
          before=FIRST, product="state")


class Served:
    """tallyd on a directory, told to take a checkpoint and then to end; no network, for its port leads nowhere."""

    def __init__(self, data, **fault):
        self.data, base = data, server.scratch()
        self.said, self.noted = f"{base}/said", f"{base}/noted"
        command = [TALLYD, "run", "--data", data, "--address", "10.77.0.2", "--port", "net_ring0", "--memory-mb", "32",
                   "--checkpoint-s", "0", "--accept-clock", "--", "--no-huge", "-m", "256", "--no-pci", f"--file-prefix={os.path.basename(base)}",
                   "--vdev=net_ring0", "-l", "0"]
        environment = {**os.environ, "LD_PRELOAD": str(SHIM), "FAULT_LOG": self.noted, "FAULT_GATE": "superblock",
                       **{f"FAULT_{name.upper()}": str(value) for name, value in fault.items()}}
        with open(self.said, "wb") as out:
            self.process = server.spawn(command, stdout=out, stderr=out, env=environment)

    def output(self):
        return pathlib.Path(self.said).read_text(errors="replace")

    def ends(self):
        """@return exit status; what it wrote, from the line on where it said that it prepares its memory"""
        try:
            eventually(lambda: server.READY in self.output() or self.process.poll() is not None, 60, "tallyd neither serves nor ends")
            if self.process.poll() is None:
                server.call(TALLY, "checkpoint", "--data", self.data)
            if self.process.poll() is None:
                self.process.terminate()
            return self.process.wait(60), self.output()
        finally:
            self.process.kill()
            self.process.wait()

    def notes(self):
        return pathlib.Path(self.noted).read_text().splitlines() if os.path.exists(self.noted) else []


@test
def serving_and_a_checkpoint():
    """The same for tallyd, from its start behind DPDK's to its end, with a checkpoint in between."""
    kept = server.scratch_count()
    template = Template()
    counted = Served(template.copy(), trace=1)
    status, output = counted.ends()
    equal(status, 0, f"status of tallyd without a fault ({output[-1000:]})")
    of_name = by_function(counted.notes())
    numbers = chosen(of_name)
    if FAULTS == "1":
        numbers = sorted(DICE.sample(numbers, 10))
    # for good only what is not memory: without any, DPDK cannot even end
    memory = {number for name in ("malloc", "calloc", "realloc", "aligned_alloc", "mmap64") for number in of_name.get(name, ())}
    ended = 0
    for number in numbers:
        data = template.copy()
        fault = {"at": number, **({} if number in memory else DICE.choice(({}, {"keep": 1}, {"short": 1})))}
        served = Served(data, **fault)
        try:
            status, output = served.ends()
        except subprocess.TimeoutExpired:
            raise AssertionError(f"tallyd, {fault}: hangs: {served.notes()} {served.output()[-1000:]}") from None
        what = f"tallyd, {fault} {[line for line in served.notes() if line.startswith('failed ')]}"
        lines = output.strip().splitlines()
        if lines[-1].startswith("libgcc_s"):  # the C library, which ends DPDK's threads at the exit, finds no memory for it
            status, lines = 1, lines[:-1]
        assert status >= 0, f"{what}: killed by signal {-status}: {output[-1500:]}"
        last = lines[-1]
        assert last.startswith("tallyd: "), f"{what}: status {status}, and in the end it said {last}"
        check_directory(what, data, set(FIRST), requests(FIRST), False)
        ended += status != 0
        server.forget_scratch(kept + 1)
    print(f"tallyd with a checkpoint: {sum(map(len, of_name.values()))} calls of {len(of_name)} functions; {len(numbers)} faults, "
          f"{ended} ended it")


if __name__ == "__main__":
    main(server.cleanup)

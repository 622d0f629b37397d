#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What tallyd refuses before it serves: flags, configuration, ports, data directories. Each time one line on stderr that
names what is wrong, the promised exit status, and a directory that is as it was."""

import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import equal, eventually, main, test  # noqa: E402

TALLYD = server.program("tallyd")
USAGE, REFUSED, DAMAGED = 2, 3, 4


def refused(arguments, status, *words):
    """Run tallyd; it must end with `status` and a last line that holds every word. Flags are refused in one line alone."""
    got, output, error = server.call(TALLYD, *arguments)
    lines = error.strip().splitlines()
    assert got == status, f"{arguments}: exit status {got}, should be {status}: {error}"
    assert lines and lines[-1].startswith("tallyd: "), f"{arguments}: no line of tallyd's own at the end: {error!r}"
    for word in words:
        assert word in lines[-1], f"{arguments}: the message does not say {word!r}: {lines[-1]}"
    return lines


def one_line(arguments, *words):
    lines = refused(arguments, USAGE, *words)
    assert len(lines) == 1, f"{arguments}: more than one line: {lines}"


def eal(name):
    return ["--", "--no-huge", "-m", "256", "--no-pci", f"--file-prefix={name}{os.getpid()}", "-l", "0"]


def tree(path):
    """Every file below a directory with its size and time of change."""
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in pathlib.Path(path).rglob("*")}


def directory(*flags, partitions=16):
    path = os.path.join(server.scratch(), "data")
    status, _, error = server.call(TALLYD, "format", "--data", path, "--partitions", partitions, "--file-mb", 16, *flags)
    equal(status, 0, f"status of format ({error})")
    return path


@test
def commands_and_flags():
    data = os.path.join(server.scratch(), "none")
    one_line([])
    one_line(["serve"], "serve")
    one_line(["run"], "--data")
    one_line(["run", "--data"], "--data")
    one_line(["run", "--data", data, "--speed", "9"], "--speed")
    one_line(["run", "--data", data, "extra"], "extra")
    one_line(["format"], "--data")
    one_line(["format", "--data", data, "--frobnicate"], "--frobnicate")
    assert not os.path.exists(data), "a refused format made the directory"


@test
def values_of_flags():
    data = os.path.join(server.scratch(), "none")
    for flag, values in (("--udp-port", ("0", "65536", "x", "-1", "7711x", "")),
                         ("--memory-mb", ("0", "x", "-5", "99999999999999999999")),
                         ("--sessions", ("0", "x", "-1")),
                         ("--stats-s", ("x", "-1")),
                         ("--checkpoint-mb", ("x", "-1", "16777217")),
                         ("--checkpoint-s", ("x", "-1", "604801")),
                         ("--checkpoint-memory-mb", ("x", "-1", "129")),
                         ("--log-max-mb", ("x", "-1", "16777217")),
                         ("--recovery-workers", ("x", "-1", "65")),
                         ("--address", ("10.0.0", "10.0.0.256", "fd00::1", "x", "10.0.0.1/33", "0.0.0.0")),
                         ("--address6", ("10.0.0.1", "fd00:::1", "x"))):
        for value in values:
            one_line(["run", "--data", data, flag, value], flag)
    run = ["run", "--data", data, "--address", netns.SERVER4]
    one_line([*run, "--memory-mb", "4194304"] + eal("m"), "--memory-mb")
    one_line([*run, "--log-max-mb", "8192", "--checkpoint-memory-mb", "0"], "--log-max-mb", "--checkpoint-memory-mb")
    one_line([*run, "--log-max-mb", "8192", "--checkpoint-mb", "0", "--checkpoint-s", "0"], "--log-max-mb", "--checkpoint-s")
    one_line([*run, "--checkpoint-memory-mb", "1"], "--checkpoint-memory-mb")
    one_line([*run, "--log-max-mb", "3000"], "--log-max-mb", "--checkpoint-mb 1500")
    for flag, values in (("--partitions", ("0", "1025", "x", "-1", "1.5")), ("--id-time", ("maybe", "1")),
                         ("--file-mb", ("0", "x", "-1"))):
        for value in values:
            one_line(["format", "--data", data, flag, value], flag)
    assert not os.path.exists(data), "a refused format made the directory"


@test
def configuration_files():
    data, base = directory(), pathlib.Path(server.scratch())
    for name, text, word in (("unknown-key", "[tallyd]\nspeed = 9\n", "speed"),
                             ("bad-value", "[tallyd]\nudp-port = many\n", "udp-port"),
                             ("no-value", "[tallyd]\n; a remark\nmemory-mb\n", "line 3"),
                             ("long", "[tallyd]\nport = " + "x" * 400 + "\n", "line 2"),
                             ("unknown-section", "[nonsense]\nudp-port = 7711\n", "[tallyd]"),
                             ("garbage", "\x01\x02\x03 no configuration at all", "garbage")):
        file = base / f"{name}.conf"
        file.write_text(text)
        one_line(["run", "--data", data, "--config", str(file)] + eal("c"), word)
    one_line(["run", "--data", data, "--config", str(base / "none.conf")] + eal("c"), "none.conf")
    one_line(["run", "--data", data, "--config", str(base)] + eal("c"), str(base))


@test
def budgets_that_no_log_keeps():
    data = directory()
    refused(["run", "--data", data, "--address", netns.SERVER4, "--log-max-mb", "63", "--checkpoint-mb", "20"] + eal("b"), USAGE,
            "--log-max-mb", "64")


@test
def ports_that_are_not_there():
    data = directory()
    before = tree(data)
    address = ["--address", netns.SERVER4]
    refused(["run", "--data", data, *address, "--port", "net_none0"] + eal("p"), USAGE, "net_none0")
    refused(["run", "--data", data, *address, "--port", "7"] + eal("p"), USAGE, "7")
    refused(["run", "--data", data, *address] + eal("p") + ["--vdev=net_af_packet0,iface=nowhere9"], USAGE)
    for wrong, word in (("--no-such-eal-argument", "--no-such-eal-argument"), ("--lcores=(0", "--lcores"),
                        ("--vdev=nothing_at_all0", "nothing_at_all0")):
        lines = refused(["run", "--data", data, *address] + eal("p") + [wrong], USAGE, word, '"--"')
        assert not any("usage" in line.lower() for line in lines), f"{wrong}: EAL's usage was printed: {lines}"
    after = tree(data)
    assert not set(before) - set(after), "files are missing"


@test
def directories_that_are_not_ours():
    base = server.scratch()
    missing, empty, foreign = (os.path.join(base, name) for name in ("missing", "empty", "foreign"))
    os.mkdir(empty)
    os.mkdir(foreign)
    pathlib.Path(foreign, "letters.txt").write_text("not a ledger\n")
    file = os.path.join(base, "file")
    pathlib.Path(file).write_text("not a directory\n")
    run = ["run", "--address", netns.SERVER4]
    for path in (missing, empty, foreign, file):
        refused([*run, "--data", path] + eal("d"), REFUSED, path)
    for path in (foreign, file):
        refused(["format", "--data", path], REFUSED, path)
    ours = directory()
    before = tree(ours)
    refused(["format", "--data", ours], REFUSED, ours)
    equal(tree(ours), before, "a formatted directory after another format")
    equal(sorted(os.listdir(foreign)), ["letters.txt"], "a foreign directory after format and run")


@test
def directory_without_permission_or_space():
    read_only = os.path.join(server.scratch(), "read-only")
    netns.small_disk(read_only, 16)
    netns.run("mount", "-o", "remount,ro", read_only)
    refused(["format", "--data", f"{read_only}/data"], REFUSED, read_only)
    netns.run("umount", read_only)
    small = os.path.join(server.scratch(), "small")
    netns.small_disk(small, 8)
    got, _, error = server.call(TALLYD, "format", "--data", f"{small}/data", "--file-mb", 64)
    assert got in (1, REFUSED), f"format on a full disk: {got}: {error}"
    assert "space" in error, f"format on a full disk says: {error}"
    netns.run("umount", small)


@test
def superblock_and_log_that_are_damaged():
    """Whatever is flipped in the directory's first bytes, tallyd does not serve from it, and says which file."""
    tallyd = server.Tallyd().format().start()
    equal(tallyd.stop(), 0, "exit status")
    files = sorted(file for file in pathlib.Path(tallyd.data).rglob("*") if file.is_file() and file.stat().st_size > 0)
    assert files, "no files in a data directory"
    damaged = 0
    for file in files:
        original = file.read_bytes()
        for position in (0, 17):
            if original[position:position + 1] in (b"", b"\0"):
                continue  # not written yet: the flip would be a torn write
            broken = bytearray(original)
            broken[position] ^= 0x40
            file.write_bytes(broken)
            tallyd.start(ready=False)
            status = tallyd.wait(60) if not serves(tallyd) else tallyd.stop()
            said = tallyd.said()
            file.write_bytes(original)
            if status == 0:
                assert "lock" in file.name, f"tallyd served with a flipped byte {position} of {file.name}"
                continue
            assert status in (REFUSED, DAMAGED), f"byte {position} of {file.name} flipped: status {status}: {said[-500:]}"
            assert file.name in said.strip().splitlines()[-1], f"the message does not name {file.name}: {said[-500:]}"
            damaged += 1
    assert damaged > 0
    tallyd.start()
    equal(tallyd.stop(), 0, "exit status with everything mended")


def serves(tallyd):
    """Whether it becomes ready, rather than ends."""
    return eventually(lambda: (server.READY in tallyd.said() and "ready") or not tallyd.running(), 60,
                      "tallyd neither serves nor ends") == "ready"


@test
def second_tallyd_on_the_same_directory():
    tallyd = server.Tallyd().format().start()
    second = server.Tallyd(data=tallyd.data, port="net_ring0")
    done = subprocess.run([str(word) for word in second.command()], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    equal(done.returncode, REFUSED, f"status of a second tallyd ({done.stderr[-500:]})")
    last = done.stderr.strip().splitlines()[-1]
    assert tallyd.data in last and last.startswith("tallyd: "), f"the message is: {last}"
    status, _, error = server.call(TALLYD, "format", "--data", tallyd.data)
    equal(status, REFUSED, f"status of format on a running tallyd's directory ({error})")
    assert tallyd.running(), "the first tallyd did not survive the second"
    equal(tallyd.stop(), 0, "exit status of the first")


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)

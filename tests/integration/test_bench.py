#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tally-bench against a tallyd: every workload in a small mode, what it writes, and what it says when something is wrong."""

import base64
import csv
import json
import pathlib
import struct
import subprocess
import sys
import time
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import equal, main, test  # noqa: E402

BENCH = str(server.BUILD / "perf" / "tally-bench")
PATIENCE_MS = 20000  # the machine may be busy with other things


def tallyd_started():
    tallyd = server.Tallyd(memory_mb=128).format()
    tallyd.start()
    return tallyd


def bench(tallyd, *arguments):
    """The JSON line of a run in which every event got its answer, however late."""
    status, output, error = server.call(BENCH, "--server", tallyd.cable.server4, "--warm-s", 0, "--seconds", 1, "--json",
                                        "--patience-ms", PATIENCE_MS, *arguments)
    assert output, f"no result of {arguments}, status {status}: {error}"
    line = json.loads(output.strip().splitlines()[-1])
    equal(status, 0 if line["valid"] else 1, f"status with the verdict {line['problem']!r}")
    for name in ("wrong", "unanswered", "overloaded", "unsent", "errors"):
        equal(line[name], 0, f"{name} of {arguments} ({line['problem']})")
    return line


def leb128(data):
    """Signed counts of the payload: ZigZag LEB128, at most nine bytes a number."""
    at = 0
    while at < len(data):
        value = shift = 0
        for number in range(9):
            byte = data[at]
            at += 1
            value |= (byte if number == 8 else byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield (value >> 1) ^ -(value & 1)


def decode(text):
    """{highest value of a bucket: count}, from one compressed histogram; written from the format's description."""
    packed = base64.b64decode(text)
    cookie, length = struct.unpack(">II", packed[:8])
    equal((cookie, length), (0x1C849314, len(packed) - 8), "cookie and length of the compressed histogram")
    plain = zlib.decompress(packed[8:])
    cookie, length, offset, digits, lowest, _, ratio = struct.unpack(">Iiiiqqd", plain[:40])
    equal((cookie, length, offset, digits, lowest, ratio), (0x1C849313, len(plain) - 40, 0, 3, 1, 1.0), "head of the histogram")
    counts, index = {}, 0
    for number in leb128(plain[40:]):
        if number < 0:
            index -= number
            continue
        if number:
            bucket = max(0, (index >> 10) - 1)
            counts[((index - (bucket << 10) + 1) << bucket) - 1] = number
        index += 1
    return counts


@test
def workloads():
    tallyd = tallyd_started()
    for workload in ("transfers", "wallet", "hold", "reads"):
        line = bench(tallyd, "--workload", workload, "--rate", 4000, "--accounts", 500)
        assert line["workload"] == workload and 2500 < line["events"] < 5500, line
        assert 0 < line["p50_us"] <= line["p99_us"] <= line["p99_9_us"] <= line["max_us"], line


@test
def closed_loop_and_batches():
    line = bench(tallyd_started(), "--batch", 22, "--outstanding", 4, "--events", 2200, "--accounts", 100, "--zipf", "1.2")
    equal((line["events"], line["requests"], line["errors"], line["arrival"]), (2200, 100, 0, "closed"), str(line))


@test
def what_it_writes():
    folder = pathlib.Path(server.scratch())
    line = bench(tallyd_started(), "--workload", "matchday", "--rate", 300, "--accounts", 300, "--log", folder / "log",
                 "--series", folder / "series")
    total = 0
    rows = [row for row in (folder / "log").read_text().splitlines() if row.startswith("Tag=")]
    equal([row.split(",")[0] for row in rows], [f"Tag={name}" for name in line["phases"]], "tags")
    for row in rows:
        tag, _, _, highest_ms, text = row.split(",")
        counts, phase = decode(text), line["phases"][tag[4:]]
        equal(sum(counts.values()), phase["events"], f"events of {tag}")
        assert abs(max(counts) / 1e6 - float(highest_ms)) <= 0.002 * float(highest_ms) + 0.001, row[:60]
        below, ordered = 0, sorted(counts.items())
        median = next(value for value, count in ordered if (below := below + count) * 2 >= phase["events"])
        assert abs(median / 1e3 - phase["p50_us"]) <= 0.001 * phase["p50_us"] + 0.01, (tag, median, phase["p50_us"])
        total += phase["events"]
    equal(total, line["events"], "events of all phases")
    with open(folder / "series", encoding="ascii") as file:
        series = list(csv.DictReader(file))
    equal(len(series), 200, "stretches")
    equal(round(sum(float(row["answered_per_s"]) for row in series) / 200), line["events"], "events of all stretches")


@test
def sweep():
    line = bench(tallyd_started(), "--sweep", "1000:1600", "--accounts", 100, "--p99-us", 30_000_000)
    assert not line["valid"] or 1500 < line["knee"] < 1600, line


@test
def over_a_dpdk_port():
    """From process to process: tallyd behind vhost, virtio-user on the client's side."""
    path = pathlib.Path(server.scratch()) / "vhost"
    tallyd = server.Tallyd(port=f"net_vhost0,iface={path}", memory_mb=128).format()
    tallyd.start()
    line = bench(tallyd, "--dpdk", "net_virtio_user0", "--address", tallyd.cable.client4, "--batch", 22, "--events", 22000, "--",
                 "--no-huge", "-m", 128, "--no-pci", "-l", 1, f"--file-prefix=bench{tallyd.prefix}",
                 f"--vdev=net_virtio_user0,path={path}")
    equal((line["events"], line["errors"]), (22000, 0), str(line))


@test
def bad_flags():
    for arguments in (["--rate", "0"], ["--zipf", "7"], ["--workload", "none"], ["--sweep", "9"], ["--arrival", "fixed"],
                      ["--rate", "5", "--sweep", "1:2"], ["--batch", "0"], ["--dpdk", "net_tap0"], ["--workload", "matchday"], ["more"]):
        status, output, error = server.call(BENCH, *arguments)
        equal((status, output, len(error.splitlines())), (2, "", 1), f"answer to {arguments}: {error}")


@test
def nobody_there():
    status, _, error = server.call(BENCH, "--server", "127.0.0.1", "--patience-ms", 300)
    equal((status, len(error.splitlines())), (1, 1), error)


@test
def server_dies():
    tallyd = tallyd_started()
    process = subprocess.Popen([BENCH, "--server", tallyd.cable.server4, "--rate", "2000", "--seconds", "30", "--warm-s", "0",
                                "--accounts", "100", "--patience-ms", "3000", "--json"], stdout=subprocess.PIPE, text=True)
    time.sleep(2)
    tallyd.kill()
    output, _ = process.communicate(timeout=30)
    line = json.loads(output.strip().splitlines()[-1])
    equal((process.returncode, line["valid"]), (1, False), "status and verdict")
    assert "partial results" in line["problem"] and line["unanswered"] > 0 and line["events"] > 0, line


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)

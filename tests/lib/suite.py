#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds and tests the tree; called by tests/run.

Order: checks of the text, two builds (gcc release; clang with address and undefined-behaviour sanitizers and the fuzz
targets), then every program that the meson.build files declare with test(). In the sanitized build run the C programs of
tests/unit, the fuzz targets, and whatever is declared with the suite 'sanitize'. A program declared with is_parallel: false
runs alone. Each program says "N passed, M failed[, K skipped]" in the end; the sum is the last line printed here."""

import argparse
import concurrent.futures
import fnmatch
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LOGS = ROOT / "build" / "test-logs"
CLOSING = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$", re.M)
FUZZED = re.compile(r"^Done (\d+) runs in \d+ second", re.M)
TAIL_LINES = 40
TIMEOUT_S = 180
BUILD_TIMEOUT_S = 900

BUILDS = {
    "release": ({"CC": "gcc"}, ["-Dbuildtype=release"]),
    "sanitize": ({"CC": "clang"}, ["-Dbuildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Db_lundef=false",
                                   "-Dfuzzing=true"]),
}


class Step:
    """Something that is run and counted: `run` returns (exit status, output, timed out)."""

    def __init__(self, name, run, alone=False, builds=()):
        self.name, self.run, self.alone, self.builds = name, run, alone, builds


class Report:
    """Prints one line a step as it ends, keeps the sums, and tells in the end."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures, self.lock, self.start = [], threading.Lock(), time.monotonic()

    def run(self, step):
        begin = time.monotonic()
        status, output, timed_out = step.run()
        seconds = time.monotonic() - begin
        passed, failed, skipped, note = count(status, output, timed_out)
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / (re.sub(r"[^\w.-]+", "_", step.name) + ".txt")
        log.write_text(output)
        with self.lock:
            self.passed, self.failed, self.skipped = (self.passed + passed, self.failed + failed,
                                                      self.skipped + skipped)
            word = "FAIL" if failed else "ok"
            print(f"{word:<4} {seconds:7.1f} s  {passed:6} passed"
                  + (f", {failed} failed" if failed else "") + (f", {skipped} skipped" if skipped else "")
                  + f"  {step.name}" + (f"  ({note})" if note else ""), flush=True)
            if failed:
                self.failures.append(step.name)
                for line in output.splitlines()[-TAIL_LINES:]:
                    print("     | " + line[:300], flush=True)
                print(f"     | all of it: {log.relative_to(ROOT)}", flush=True)
        return failed == 0

    def close(self):
        minutes = (time.monotonic() - self.start) / 60
        print()
        for name in self.failures:
            print(f"failed: {name}")
        print(f"{minutes:.1f} minutes; output of every program in {LOGS.relative_to(ROOT)}/")
        print(f"{self.passed} passed, {self.failed} failed"
              + (f", {self.skipped} skipped" if self.skipped else ""), flush=True)
        return 1 if self.failed or not self.passed else 0


def count(status, output, timed_out):
    """What a program's output amounts to: (passed, failed, skipped, note)."""
    closing, note = None, ""
    for closing in CLOSING.finditer(output):
        pass
    fuzzed = FUZZED.search(output)
    if closing:
        passed, failed, skipped = (int(number or 0) for number in closing.groups())
    elif fuzzed:
        passed, failed, skipped, note = 1, 0, 0, f"{fuzzed.group(1)} runs"
    else:
        passed, failed, skipped, note = 0, 1, 0, "no closing line"
    if timed_out:
        failed, note = max(failed, 1), "timed out"
    elif status != 0 and not failed:
        failed, note = 1, f"exit status {status}"
    if failed and status == 0 and closing:
        note = "exit status 0 in spite of failures"
    if not passed and not failed and not skipped:
        failed, note = 1, "nothing was tested"
    return passed, failed, skipped, note


def execute(command, env=None, cwd=ROOT, timeout_s=TIMEOUT_S):
    """Run one program in its own process group, without input; whatever it left in the group ends with it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               cwd=cwd, env={**os.environ, **(env or {})}, start_new_session=True)
    timed_out = False
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        timed_out = True
        end_group(process.pid, signal.SIGTERM)
        try:
            output, _ = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            end_group(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    except BaseException:
        end_group(process.pid, signal.SIGTERM)
        raise
    return process.returncode, output.decode(errors="replace"), timed_out


def end_group(group, number):
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


# --- checks of the text ----------------------------------------------------------------------------------------------

def sources(*patterns):
    """Files of the tree that match: what git tracks, or without a repository everything but build directories."""
    listed = subprocess.run(["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", *patterns],
                            capture_output=True, text=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    every = (path.relative_to(ROOT) for path in sorted(ROOT.rglob("*")) if path.is_file())
    return [str(path) for path in every
            if not path.parts[0].startswith("build") and any(fnmatch.fnmatch(str(path), pattern) for pattern in patterns)]


def each_file(names, check):
    """Run check(name) -> (good, output) over files on all cores; together they are one test."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(check, names))
    output = "".join(text for good, text in results if not good)
    bad = sum(not good for good, _ in results)
    return (1 if bad else 0), f"{output}{bad} of {len(names)} files\n{int(not bad)} passed, {int(bad > 0)} failed\n", False


def check_format():
    def one(name):
        status, _, _ = execute(["clang-format", "--dry-run", "--Werror", name])
        return status == 0, f"clang-format -i {name}\n"
    return each_file(sources("*.c", "*.h"), one)


def check_headers():
    """Every header compiles alone, with the warnings of the build."""
    flags = subprocess.run(["pkg-config", "--cflags", "libdpdk"], capture_output=True, text=True).stdout.split()
    system = [flag.replace("-I", "-isystem", 1) for flag in flags if flag.startswith("-I")]
    machine = [flag for flag in flags if not flag.startswith("-I")] + ["-march=x86-64-v2"]

    def one(name):
        status, output, _ = execute(["gcc", "-fsyntax-only", "-x", "c", "-std=gnu11", "-Wall", "-Wextra", "-Werror",
                                     "-Wno-missing-field-initializers", "-Wno-unused-function", "-D_GNU_SOURCE", "-I.",
                                     *system, "-isystem/usr/include/json-c", *machine, "-include", name,
                                     "/dev/null"])
        return status == 0, output
    return each_file(sources("*.h"), one)


def check_licence():
    """Every source file starts with its licence."""
    def one(name):
        with open(ROOT / name, encoding="utf-8", errors="replace") as file:
            head = file.readline() + file.readline()
        good = "SPDX-License-Identifier: Apache-2.0" in head
        return good, "" if good else f"{name}: no SPDX-License-Identifier: Apache-2.0 in its first two lines\n"
    return each_file(sources("*.c", "*.h", "*.py", "*.sh", "*meson.build", "tests/run", "tests/check_packages", "tests/fuzz/run",
                             "tests/integration/crash", "tests/integration/powercut/init", ".ci/run",
                             "quickstart", "perf/run"), one)


# --- builds and declared tests ----------------------------------------------------------------------------------------

def directory(build):
    return ROOT / "build" / build


def configure(build):
    """Returns (exit status, output)."""
    env, options = BUILDS[build]
    command = ["meson", "setup", str(directory(build)), str(ROOT), "-Dwerror=true", *options]
    if (directory(build) / "build.ninja").exists():
        command.insert(2, "--reconfigure")
    status, output, _ = execute(command, env, timeout_s=BUILD_TIMEOUT_S)
    return status, output


def compile_all(build):
    status, output = configure(build)
    if status == 0:
        status, output, timed_out = execute(["ninja", "-C", str(directory(build))], timeout_s=BUILD_TIMEOUT_S)
    else:
        timed_out = False
    return status, output + ("" if status or timed_out else "1 passed, 0 failed\n"), timed_out


def declared(build):
    listed = subprocess.run(["meson", "introspect", "--tests", str(directory(build))], capture_output=True, text=True,
                            check=True)
    return json.loads(listed.stdout)


def place(test):
    """Path of the program inside the tree, whether it is a script or was built."""
    for part in test["cmd"]:
        path = os.path.realpath(os.path.join(test["workdir"] or ROOT, part))
        for base in (*(directory(build) for build in BUILDS), ROOT):
            if path.startswith(f"{base}/"):
                return os.path.relpath(path, base)
    return test["name"]


def test_step(build, test):
    sanitized = build == "sanitize"
    env = {"TALLY_BUILD": str(directory(build)), "TALLY_ROOT": str(ROOT), **test["env"]}
    if sanitized:
        env.setdefault("ASAN_OPTIONS", "abort_on_error=0:detect_stack_use_after_return=1")
        env.setdefault("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1")
        env.setdefault("LSAN_OPTIONS", f"suppressions={ROOT / 'tests' / 'lib' / 'leaks.supp'}:print_suppressions=0")
    timeout = max(TIMEOUT_S, test["timeout"]) * (3 if sanitized else 1)
    folder = os.path.dirname(place(test)).removeprefix("tests/")
    name = test["name"].split("/")[-1].removeprefix("test_")
    return Step(f"{build}/{folder}/{name}", lambda: execute(test["cmd"], env, test["workdir"] or ROOT, timeout),
                not test["is_parallel"], (build,))


def wanted(build, test):
    if build == "release":
        return True
    path, suites = place(test), {name.split(":")[-1] for name in test["suite"]}
    script = path.endswith(".py")
    return "sanitize" in suites or path.startswith("tests/fuzz/") or (path.startswith("tests/unit/") and not script)


def text_steps():
    return [
        Step("text/packages", lambda: execute([sys.executable, "tests/check_packages"])),
        Step("text/format", check_format),
        Step("text/headers", check_headers),
        Step("text/licence", check_licence),
    ]


def build_step(build):
    return Step(f"build/{build}", lambda: compile_all(build), builds=(build,))


def test_steps(build):
    return [test_step(build, test) for test in declared(build) if wanted(build, test)]


def matches(step, pattern):
    return not pattern or fnmatch.fnmatchcase(step.name, pattern) or pattern in step.name


def arguments():
    parser = argparse.ArgumentParser(prog="tests/run")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", metavar="PATTERN", default="")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def list_steps(builds, pattern):
    steps = text_steps()
    for build in builds:
        status, output = configure(build)
        if status:
            print(output)
            return 1
        steps += [build_step(build), *test_steps(build)]
    for step in steps:
        if matches(step, pattern):
            print(step.name)
    return 0


def main():
    options = arguments()
    builds = ["release"] if options.quick else list(BUILDS)
    if options.quick:
        os.environ["TALLY_QUICK"] = "1"
    if options.list:
        return list_steps(builds, options.only)
    report = Report()
    steps = [step for step in text_steps() if matches(step, options.only)]
    for step in steps:
        report.run(step)
    chosen = []
    for build in builds:
        status, output = configure(build)
        found = [step for step in test_steps(build) if matches(step, options.only)] if status == 0 else []
        compiler = build_step(build)
        if status or found or matches(compiler, options.only):
            steps.append(compiler)
            if report.run(compiler):
                chosen += found
    if not steps and not chosen:
        print(f"tests/run: nothing is called '{options.only}'; --list names everything", file=sys.stderr)
        return 2
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(report.run, [step for step in chosen if not step.alone]))
    for step in chosen:
        if step.alone:
            report.run(step)
    return report.close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())

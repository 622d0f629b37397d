#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is shipped knows nothing of the bugs that the simulator is tried on: neither its symbols nor its bytes name one."""
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lib"))
import check  # noqa: E402

PROGRAMS = sys.argv[1:]
sys.argv[1:] = []


def stripped(program):
    with tempfile.NamedTemporaryFile() as copy:
        subprocess.run(["objcopy", "--strip-debug", program, copy.name], check=True)
        return pathlib.Path(copy.name).read_bytes()


@check.test
def no_program_names_a_planted_bug():
    assert PROGRAMS, "no program was named"
    for program in PROGRAMS:
        assert b"planted" not in stripped(program).lower(), f"{program} was built with planted bugs"


@check.test
def what_is_looked_for_would_be_found():
    with tempfile.TemporaryDirectory() as folder:
        source, program = pathlib.Path(folder, "one.c"), pathlib.Path(folder, "one.o")
        source.write_text('#include "engine/base/planted.h"\nenum planted planted_bug;\n'
                          "int main(void) { return PLANTED(chain_by_half); }\n")
        root = pathlib.Path(__file__).resolve().parents[3]
        for flags, there in [(["-DTALLY_PLANTED_BUGS"], True), ([], False)]:
            text = source.read_text() if there else source.read_text().replace("enum planted planted_bug;\n", "")
            source.write_text(text)
            subprocess.run(["cc", "-c", "-O0", "-g", f"-I{root}", *flags, str(source), "-o", str(program)], check=True)
            check.equal(b"planted" in stripped(program).lower(), there, f"planted bugs with {flags}")


if __name__ == "__main__":
    check.main()

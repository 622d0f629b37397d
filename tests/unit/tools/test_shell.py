#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The engine shell's own promises: what a line may look like, what a bad one is answered, flags, and a log on disk."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "lib"))

import check  # noqa: E402
import oracle  # noqa: E402
import shell  # noqa: E402

U64_MAX, U128_MAX = 2**64 - 1, 2**128 - 1
START_S_MAX = 2.0  # measured 0.05; generous, for a loaded machine


def answers(*lines, options=("--test",)):
    """What a fresh shell answers to these lines (text as it is, anything else as JSON)."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    ended = subprocess.run([*shell.command(), *options], input=text.encode(), capture_output=True, timeout=60, check=True)
    return [json.loads(line) for line in ended.stdout.decode().splitlines()]


def account(**fields):
    return {"op": "create_accounts", "events": [{"id": 1, "ledger": 1, "code": 1, **fields}]}


def error(line, options=("--test",)):
    """The error that a line is answered; the shell must go on after it."""
    if options not in shells:
        shells[options] = shell.Shell(*options)
    answer = json.loads(shells[options].line(line if isinstance(line, str) else json.dumps(line)))
    assert set(answer) == {"error"}, answer
    check.equal(shells[options].lookup_accounts([1]), [], "accounts after an error")
    return answer["error"]


shells = {}  # by options; nothing that these are sent takes effect


def close_shells():
    for engine in shells.values():
        engine.kill()
    shells.clear()


@check.test
def a_request_is_one_line_and_so_is_its_answer():
    lines = answers(account(), {"op": "create_accounts", "events": []}, {"op": "lookup_accounts", "ids": [1, 2]},
                    {"op": "lookup_transfers", "ids": []})
    check.equal(lines[0], {"results": [{"status": "created", "timestamp": "1"}]})
    check.equal(lines[1], {"results": []})
    check.equal(lines[2], {"accounts": [{
        "id": "1", "debits_pending": "0", "debits_posted": "0", "credits_pending": "0", "credits_posted": "0",
        "user_data_128": "0", "user_data_64": "0", "user_data_32": 0, "reserved": 0, "ledger": 1, "code": 1, "flags": [],
        "timestamp": "1"}]})
    check.equal(lines[3], {"transfers": []})


@check.test
def integers_of_any_size_are_exact_as_numbers_and_as_strings():
    for value in [0, 1, 2**53 + 1, 2**63, U64_MAX, U64_MAX + 1, 2**64 + 2**53 + 1, 10**38, U128_MAX - 1, U128_MAX]:
        for text in [f"{value}", f'"{value}"']:
            line = '{"op":"create_accounts","events":[{"id":7,"ledger":1,"code":1,"user_data_128":%s}]}' % text
            _, looked_up = answers(line, {"op": "lookup_accounts", "ids": ["7"]})
            check.equal(looked_up["accounts"][0]["user_data_128"], str(value))
    _, looked_up = answers('{"op":"create_accounts","events":[{"id":340282366920938463463374607431768211454,"ledger":'
                           '4294967295,"code":65535,"user_data_64":18446744073709551615,"user_data_32":"4294967295"}]}',
                           '{"op":"lookup_accounts","ids":[340282366920938463463374607431768211454]}')
    found = looked_up["accounts"][0]
    check.equal([found[name] for name in ["id", "ledger", "code", "user_data_64", "user_data_32"]],
                [str(U128_MAX - 1), 2**32 - 1, 2**16 - 1, str(U64_MAX), 2**32 - 1])


@check.test
def every_field_comes_back():
    transfer = {"id": 9, "debit_account_id": 1, "credit_account_id": 2, "amount": U128_MAX // 3, "pending_id": 0,
                "user_data_128": U128_MAX, "user_data_64": U64_MAX, "user_data_32": 2**32 - 1, "timeout": 77, "ledger": 1,
                "code": 5, "flags": frozenset(["pending", "closing_debit", "closing_credit"]), "timestamp": 0}
    with shell.Shell("--test") as engine:
        engine.create_accounts([{"id": 1, "ledger": 1, "code": 1, "flags": ["history"]}, {"id": 2, "ledger": 1, "code": 1}])
        check.equal(engine.create_transfers([transfer]), [("created", 3)])
        check.equal(engine.lookup_transfers([9]), ([{**transfer, "timestamp": 3}], []))
        account_1, = engine.lookup_accounts([1])
        check.equal(account_1["flags"], {"history", "closed"})
        check.equal(account_1["debits_pending"], U128_MAX // 3)


@check.test
def flags_are_names_or_a_number():
    for flags in [["pending", "linked"], 3, "3"]:
        line = {"op": "create_transfers", "events": [{"id": 1, "flags": flags}]}
        check.equal(answers(line)[0]["results"][0]["status"], "linked_event_chain_open")
    check.equal(error(account(flags=["linked", "pendign"])), "events[0].flags: unknown flag 'pendign'")
    check.equal(error(account(flags=["pending"])), "events[0].flags: unknown flag 'pending'")
    check.equal(error(account(flags=[1])), "events[0].flags: unknown flag '1'")
    for wrong in ["linked", "", None, {}, 1.5]:
        check.equal(error(account(flags=wrong)), "events[0].flags: must be a list of names or a whole number")
    check.equal(error(account(flags=65536)), "events[0].flags: out of range, must be 0 to 65535")
    check.equal(answers(account(flags=["striped"]))[0]["results"][0]["status"], "reserved_flag")
    check.equal(answers(account(flags=["linked", "linked"]))[0]["results"][0]["status"], "linked_event_chain_open")


@check.test
def a_bad_field_is_named():
    check.equal(error(account(legder=1)), "events[0].legder: unknown field")
    check.equal(error(account(amount=1)), "events[0].amount: unknown field")
    check.equal(error(account(ledger=2**32)), "events[0].ledger: out of range, must be 0 to 4294967295")
    check.equal(error(account(code=2**16)), "events[0].code: out of range, must be 0 to 65535")
    check.equal(error(account(timestamp=2**64)), f"events[0].timestamp: out of range, must be 0 to {U64_MAX}")
    check.equal(error(account(user_data_128=2**128)), f"events[0].user_data_128: out of range, must be 0 to {U128_MAX}")
    check.equal(error(account(user_data_128=str(10**60))), f"events[0].user_data_128: out of range, must be 0 to {U128_MAX}")
    check.equal(error(account(ledger=-1)), "events[0].ledger: out of range, must be 0 to 4294967295")
    for wrong in [1.5, "", "1.0", "0x1", "+1", " 1", "1e3", None, True, [1], {}]:
        check.equal(error(account(ledger=wrong)), "events[0].ledger: must be a whole number or a string of digits")
    check.equal(error('{"op":"create_accounts","events":[{"id":1e2}]}'),
                "events[0].id: must be a whole number or a string of digits")
    check.equal(error({"op": "create_transfers", "events": [{"id": 1}, {"id": 2, "amount": "x"}]}),
                "events[1].amount: must be a whole number or a string of digits")
    check.equal(error('{"op":"create_accounts","events":[{"id":1,"id":2}]}'), "events[0].id: given twice")
    check.equal(error({"op": "create_accounts", "events": [7]}), "events[0]: must be an object")
    check.equal(error({"op": "lookup_accounts", "ids": [1, "y"]}), "ids[1]: must be a whole number or a string of digits")


@check.test
def a_bad_request_is_named():
    check.equal(error({"events": []}), "op: missing")
    check.equal(error({"op": 5}), "op: must be a string")
    assert error({"op": "create_account", "events": []}).startswith("op: unknown operation 'create_account'")
    check.equal(error({"op": "create_accounts"}), "events: missing")
    check.equal(error({"op": "create_accounts", "events": {}}), "events: must be a list")
    check.equal(error({"op": "create_accounts", "ids": []}), "ids: unknown field of create_accounts")
    check.equal(error({"op": "lookup_accounts", "events": []}), "events: unknown field of lookup_accounts")
    check.equal(error({"op": "lookup_accounts", "ids": 1}), "ids: must be a list")
    check.equal(error({"op": "lookup_accounts", "ids": [], "idz": []}), "idz: unknown field")
    check.equal(error({"op": "advance"}), "ns: missing")
    check.equal(error({"op": "lookup_accounts", "ids": [], "now": "noon"}), "now: must be a whole number or a string of digits")
    assert error({"op": "lookup_accounts", "ids": [], "now": 2**63}).startswith("now: out of range")
    assert error({"op": "advance", "ns": 2**64}).startswith("ns: out of range")
    check.equal(error({"op": "create_accounts", "events": [], "balances": 1}), "balances: must be true or false")
    check.equal(error({"op": "put_balances", "id": 99}), "id: there is no such account")
    check.equal(error({"op": "put_balances", "id": 1}, options=()), "op: put_balances needs --test")


@check.test
def a_malformed_line_is_answered_with_its_column():
    for line, column in [("", 1), ("{", 2), ("[1,2", 5), ("[1 2]", 4), ('{"op"}', 6), ('{"op":}', 7), ("{op:1}", 2), ("nul", 1),
                         ("[01]", 3), ("[1.]", 4), ("[-]", 3), ("[1e]", 4), ('["a]', 2), ('["\\q"]', 4), ('["\t"]', 3),
                         ('["\\u12g4"]', 7), ('["\\ud800"]', 3), ("[1]]", 4), ("[1,]", 4), ('{"a":1,}', 8), ("[" * 17, 17),
                         ("'x'", 1), ("\u00e9", 1)]:
        match = re.match(r"column (\d+): ", error(line))
        assert match, (line, error(line))
        check.equal(int(match[1]), column, f"column of the mistake in {line!r}")
    check.equal(error("[]"), "column 1: expected an object")
    check.equal(error("7"), "column 1: expected an object")


@check.test
def bytes_that_are_no_text_are_answered_too():
    for line in [b'["\xff"]', b'["\xc0\x80"]', b'["\xed\xa0\x80"]', b'["\xf5\x80\x80\x80"]', b'["\xe2\x82"]', b"\x00", b'["\x00"]']:
        ended = subprocess.run(shell.command(), input=line + b"\n", capture_output=True, timeout=60, check=True)
        assert "column" in json.loads(ended.stdout)["error"], line


@check.test
def names_in_an_error_stay_json():
    check.equal(error('{"\\"\\n\\u20ac\\ud83d\\ude00":1}'), '"\n\u20ac\U0001f600: unknown field')
    assert error(json.dumps({"\u20ac" * 100: 1}, ensure_ascii=False)).endswith("\u20ac: unknown field")
    check.equal(answers('{"o\\u0070":"lookup_accounts","ids":[]}'), [{"accounts": []}])
    check.equal(answers('\t{ "op" : "lookup_accounts" , "ids" : [ ] } \r'), [{"accounts": []}])


@check.test
def a_request_holds_8190_events():
    events = [{"id": i, "ledger": 1, "code": 1} for i in range(1, 8192)]
    lines = answers({"op": "create_accounts", "events": events}, {"op": "create_accounts", "events": events[:8190]},
                    {"op": "lookup_accounts", "ids": list(range(8191))}, {"op": "lookup_accounts", "ids": list(range(8190))})
    check.equal(lines[0], {"error": "events: 8191 of them, a request may hold 8190"})
    check.equal({result["status"] for result in lines[1]["results"]}, {"created"})
    check.equal(lines[1]["results"][-1]["timestamp"], "8190")
    check.equal(lines[2], {"error": "ids: 8191 of them, a request may hold 8190"})
    check.equal([found["id"] for found in lines[3]["accounts"]], [str(i) for i in range(1, 8190)])


@check.test
def the_longest_chain_takes_effect_whole():
    chain = [{"id": i, "debit_account_id": 1, "credit_account_id": 2, "amount": 1, "ledger": 1, "code": 1,
              "flags": ["linked"] if i < 8190 else [], "user_data_128": i, "user_data_64": i, "user_data_32": i}
             for i in range(1, 8191)]
    with shell.Shell("--test") as engine:
        engine.create_accounts([{"id": i, "ledger": 1, "code": 1} for i in (1, 2)])
        check.equal({status for status, _ in engine.create_transfers(chain)}, {"created"})
        check.equal(engine.lookup_accounts([1])[0]["debits_posted"], 8190)
        found, _ = engine.lookup_transfers(range(1, 8191))
        check.equal([transfer["user_data_128"] for transfer in found], list(range(1, 8191)))
        statuses = {status for status, _ in engine.create_transfers([{**event, "code": 2} for event in chain])}
        check.equal(statuses, {"linked_event_failed", "exists_with_different_code"})


@check.test
def many_differing_retries_are_answered_from_the_log():
    with shell.Shell("--test") as engine:
        engine.create_accounts([{"id": i, "ledger": 1, "code": 1} for i in (1, 2)])
        events = [{"id": i, "debit_account_id": 1, "credit_account_id": 2, "amount": 1, "ledger": 1, "code": 1}
                  for i in range(1, 8191)]
        engine.create_transfers(events)
        again = engine.create_transfers([{**event, "amount": 1 + i % 2} for i, event in enumerate(events)])
        check.equal([status for status, _ in again], ["exists", "exists_with_different_amount"] * 4095)


@check.test
def too_long_a_line_is_refused_and_the_next_is_answered():
    first, second = answers(" " * (33 << 20), account())
    check.equal(first, {"error": "the line is longer than 32 MiB"})
    check.equal(second["results"][0]["status"], "created")


@check.test
def the_clock_stands_still_and_never_goes_back():
    with shell.Shell("--test") as engine:
        check.equal(engine.create_accounts([{"id": 1, "ledger": 1, "code": 1}]), [("created", 1)])
        check.equal(engine.create_accounts([{"id": 2, "ledger": 1, "code": 1}]), [("created", 2)])
        check.equal(engine.create_accounts([{"id": 3, "ledger": 1, "code": 1}], now=1000), [("created", 1000)])
        check.equal(engine.create_accounts([{"id": 4, "ledger": 1, "code": 1}], now=5), [("created", 1001)])
        check.equal(engine.advance(0), 1001)
        check.equal(engine.advance(9), 1010)
        check.equal(engine.create_accounts([{"id": 5, "ledger": 1, "code": 1}]), [("created", 1010)])
        # A line that is refused moves nothing.
        try:
            engine.ask({"op": "create_accounts", "now": "999999", "events": [{"no": 1}]})
            raise AssertionError("accepted")
        except shell.ShellError:
            pass
        check.equal(engine.advance(0), 1010)


@check.test
def the_clock_ends_before_timestamps_do():
    with shell.Shell("--test", "--id-time", "off") as engine:
        engine.create_accounts([{"id": 1, "ledger": 1, "code": 1}], now=2**63 - 1 - 2**40)
        try:
            engine.advance(2**40)
            raise AssertionError("accepted")
        except shell.ShellError as refused:
            assert str(refused).startswith("ns: out of range"), refused


@check.test
def results_carry_balances_on_request():
    with shell.Shell("--test") as engine:
        engine.create_accounts([{"id": 1, "ledger": 1, "code": 1, "flags": ["debits_must_not_exceed_credits"]},
                                {"id": 2, "ledger": 1, "code": 1}])

        def balances(*events):
            answer = engine.ask({"op": "create_transfers", "events": list(events), "balances": True})
            return [(result["status"], [int(result["balances"][name]) for name in oracle.BALANCES])
                    for result in answer["results"]]
        plain = {"ledger": 1, "code": 1}
        check.equal(balances({"id": 1, "debit_account_id": 2, "credit_account_id": 1, "amount": 9, **plain},
                             {"id": 2, "debit_account_id": 1, "credit_account_id": 2, "amount": 4, **plain}),
                    [("created", [0, 9, 0, 0]), ("created", [0, 4, 0, 9])])
        check.equal(balances({"id": 3, "debit_account_id": 1, "credit_account_id": 2, "amount": 6, **plain}),
                    [("exceeds_credits", [0, 4, 0, 9])])
        check.equal(balances({"id": 4, "debit_account_id": 1, "credit_account_id": 2, "amount": 5, "flags": ["pending"],
                              **plain}), [("created", [5, 4, 0, 9])])
        check.equal(balances({"id": 5, "pending_id": 4, "amount": 2, "flags": ["post_pending_transfer"]}),
                    [("created", [0, 6, 0, 9])])
        # Members of a chain show what is there after the chain.
        check.equal(balances({"id": 6, "debit_account_id": 1, "credit_account_id": 2, "amount": 1, "flags": ["linked"], **plain},
                             {"id": 7, "debit_account_id": 1, "credit_account_id": 2, "amount": 1, **plain}),
                    [("created", [0, 8, 0, 9]), ("created", [0, 8, 0, 9])])
        answer = engine.ask({"op": "create_transfers", "events": [], "balances": False})
        check.equal(answer, {"results": []})


@check.test
def put_balances_sets_all_four():
    with shell.Shell("--test") as engine:
        engine.create_accounts([{"id": 1, "ledger": 1, "code": 1}])
        engine.put_balances(1, {"debits_pending": 1, "debits_posted": U128_MAX, "credits_pending": 3, "credits_posted": 4})
        found, = engine.lookup_accounts([1])
        check.equal([found[name] for name in oracle.BALANCES], [1, U128_MAX, 3, 4])
        engine.put_balances(1, {"credits_posted": 5})
        found, = engine.lookup_accounts([1])
        check.equal([found[name] for name in oracle.BALANCES], [0, 0, 0, 5])


def refusal(*options):
    """Exit status 2 and one line on standard error, nothing on standard output."""
    ended = subprocess.run([*shell.command(), *options], input=b"", capture_output=True, timeout=60)
    check.equal((ended.returncode, ended.stdout), (2, b""), f"exit status and output of {options}")
    text = ended.stderr.decode()
    check.equal(text.count("\n"), 1, f"lines in {text!r}")
    return text


@check.test
def bad_flags_end_with_one_line():
    for options, named in [(["--partitions"], "--partitions"), (["--partitions", "0"], "1 to 1024"),
                           (["--partitions", "1025"], "1 to 1024"), (["--partitions", "8x"], "8x"), (["--nonsense"], "--nonsense"),
                           (["--id-time", "maybe"], "on or off"), (["extra"], "extra"), (["--memory", "lots"], "lots"),
                           (["--memory", "-1"], "-1"), (["--memory", "9000000G"], "9000000G"), (["-z"], "-z"),
                           (["--test", "--wal", "x"], "--test excludes --wal")]:
        text = refusal(*options)
        assert named in text, (options, text)
    assert "tally shell --help" in refusal("--nonsense")


@check.test
def help_names_every_flag_and_operation():
    ended = subprocess.run([*shell.command(), "--help"], capture_output=True, timeout=60, check=True)
    text = ended.stdout.decode()
    for word in ["--partitions", "--id-time", "--wal", "--memory", "--test", "create_accounts", "create_transfers",
                 "lookup_accounts", "lookup_transfers", "advance", "put_balances"]:
        assert word in text, word
    assert max(map(len, text.splitlines())) <= 100, text


@check.test
def it_starts_fast_and_ends_with_its_input():
    begin = time.monotonic()
    with shell.Shell() as engine:
        engine.lookup_accounts([])
        took = time.monotonic() - begin
        check.equal(engine.close(), 0, "exit status")
    print(f"     first answer after {took * 1000:.0f} ms")
    assert took < START_S_MAX, took


@check.test
def partitions_do_not_show():
    lines = [{"op": "create_accounts", "events": [{"id": i, "ledger": 1, "code": 1} for i in range(1, 50)]},
             {"op": "create_transfers", "events": [{"id": i, "debit_account_id": i % 49 + 1, "credit_account_id": i % 48 + 2,
                                                    "amount": i, "ledger": 1, "code": 1} for i in range(1, 500)]},
             {"op": "lookup_accounts", "ids": list(range(60))}, {"op": "lookup_transfers", "ids": list(range(600))}]
    wanted = answers(*lines, options=["--partitions", "1"])
    for count in ["2", "7", "256", "1024"]:
        check.equal(answers(*lines, options=["--partitions", count]), wanted, f"answer with {count} partitions")


@check.test
def a_log_on_disk_is_there_the_next_time():
    with tempfile.TemporaryDirectory(prefix="tally-shell-") as directory:
        with shell.Shell("--wal", directory, "--partitions", "7") as engine:
            engine.create_accounts([{"id": i, "ledger": 1, "code": 1} for i in (1, 2)])
            engine.create_transfers([{"id": 1, "debit_account_id": 1, "credit_account_id": 2, "amount": 5, "ledger": 1,
                                      "code": 1}], now=5 * 10**9)
            before = engine.lookup_accounts([1, 2]), engine.lookup_transfers([1])
            check.equal(engine.close(), 0, "exit status")
        with shell.Shell("--wal", directory) as engine:
            check.equal((engine.lookup_accounts([1, 2]), engine.lookup_transfers([1])), before, "what was there before")
            (status, timestamp), = engine.create_transfers([{"id": 2, "debit_account_id": 1, "credit_account_id": 2,
                                                             "amount": 5, "ledger": 1, "code": 1}])
            check.equal(status, "created")
            assert timestamp > 5 * 10**9, timestamp
            assert "another" in refusal("--wal", directory) or str(engine.process.pid) in refusal("--wal", directory)
        assert "--partitions 7" in refusal("--wal", directory, "--partitions", "8")
        assert "--id-time on" in refusal("--wal", directory, "--id-time", "off")


@check.test
def a_log_that_does_not_fit_into_memory_is_refused():
    with tempfile.TemporaryDirectory(prefix="tally-shell-") as directory:
        with shell.Shell("--wal", directory, "--partitions", "1") as engine:
            for first in range(1, 80_000, 8000):
                engine.create_accounts([{"id": i, "ledger": 1, "code": 1} for i in range(first, first + 8000)])
            check.equal(engine.close(), 0, "exit status")
        check.equal(refusal("--wal", directory, "--memory", "4M"),
                    "tally shell: what the log holds does not fit into 4 MiB; give --memory\n")
        with shell.Shell("--wal", directory) as engine:
            check.equal(len(engine.lookup_accounts(range(79_000, 80_001))), 1001, "accounts found")


@check.test
def a_directory_that_is_not_ours_is_refused():
    with tempfile.TemporaryDirectory(prefix="tally-shell-") as directory:
        place = pathlib.Path(directory)
        (place / "notes.txt").write_text("mine")
        refusal("--wal", directory)
        check.equal([entry.name for entry in place.iterdir()], ["notes.txt"], "what is in the directory")
        refusal("--wal", str(place / "notes.txt"))
        refusal("--wal", str(place / "no" / "such"))


if __name__ == "__main__":
    check.main(close_shells)

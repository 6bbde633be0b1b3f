"""What a person sees: a panel on a terminal, plain lines elsewhere, results on stdout and the rest on stderr."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from rich.console import Console as RichConsole
from rich.text import Text

from rlx.console import Progress, print_out, sparkline, table, warn

FACTS = {"reward": "0.412", "accuracy": "57.0% [51.2%, 62.6%] sampled [bold]"}


def on_a_terminal(width=60, **more):
    """A progress view on a terminal of our own, and what was written to it."""
    written = io.StringIO()
    rich = RichConsole(file=written, force_terminal=True, width=width, highlight=False, **more)
    return Progress("rlx dgpo [s0]", total=10, _rich=rich), written


def plain(text):
    """Without the terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_the_panel_shows_where_the_run_stands_and_leaves_its_last_state_behind():
    progress, written = on_a_terminal()
    progress.show(0, FACTS)
    time.sleep(0.02)
    progress.show(4, FACTS, [0.0, 0.5, 1.0])
    progress.note("checkpoint [ok]")
    progress.stop()
    last = plain(written.getvalue())[-700:]
    assert "checkpoint [ok]" in plain(written.getvalue())
    for part in (
        "rlx dgpo [s0]",
        "step 4/10",
        "steps/s",
        "left",
        "0.412",
        "57.0% [51.2%, 62.6%] sampled [bold]",
        "▁▅█",
    ):
        assert part in last, part
    assert "\x1b[?25h" in written.getvalue(), "the cursor must come back"


def test_the_panel_fits_a_narrow_terminal():
    progress, written = on_a_terminal(width=28)
    progress.show(3, FACTS, [0.1] * 500)
    progress.stop()
    lines = plain(written.getvalue()).splitlines()
    assert max(map(len, lines)) == 28
    assert "step 3/10" in " ".join(lines)


def test_no_colour_where_colour_is_not_wanted(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    progress, written = on_a_terminal(color_system="standard")
    progress.show(3, FACTS, [0.5])
    progress.warn("something")
    progress.stop()
    assert re.search(r"\x1b\[[0-9;]*3[0-9][;m]", written.getvalue()) is None


def test_a_total_that_is_not_known_yet_is_no_division_by_zero():
    progress, written = on_a_terminal()
    progress.total = 0
    progress.show(0, {})
    progress.show(1, {})
    progress.stop()
    assert "step 1/0" in plain(written.getvalue())


def test_off_a_terminal_there_are_plain_lines_at_intervals_and_always_the_first_and_the_last(capfd):
    progress = Progress("rlx", total=3000)
    for step in range(3001):
        progress.show(step, FACTS)
    progress.warn("the disk is nearly full [90 %]")
    progress.stop()
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0].startswith("step 0/3000: reward 0.412, accuracy 57.0% [51.2%, 62.6%] sampled [bold] (starting)")
    assert lines[-2].startswith("step 3000/3000: ") and "steps/s, all steps done" in lines[-2]
    assert lines[-1] == "warning: the disk is nearly full [90 %]"
    assert len(lines) <= 6
    assert "\x1b" not in err


@pytest.mark.parametrize(("steps_left", "shown"), [(2, "20s"), (10, "1m 40s"), (499, "1h 23m")])
def test_the_time_left_follows_from_the_pace_since_this_process_began(steps_left, shown, monkeypatch, capfd):
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    progress = Progress("rlx", total=51 + steps_left)
    progress.show(50, {})
    progress.show(51, {})
    assert f"0.10 steps/s, {shown} left" in capfd.readouterr().err.splitlines()[-1]


def test_a_result_in_a_pipe_is_wide_has_no_colour_and_is_never_broken(monkeypatch, capfd):
    monkeypatch.delenv("COLUMNS", raising=False)
    path = "model    /a/very/" + "long/" * 60 + "path [with] brackets"
    print_out(path)
    print_out(table("gate", ["name", "value"], [["sg[r]", "1"], ["x" * 90, "22"]]))
    warn("one [thing]")
    out, err = capfd.readouterr()
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == path
    assert lines[1:] == ["gate", f"{'name':90}  value", f"{'sg[r]':90}      1", f"{'x' * 90}     22"]
    assert err == "warning: one [thing]\n"


def test_a_table_in_a_pipe_is_as_wide_as_columns_says(monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "40")
    print_out(table("", ["a", "b"], [["word " * 20, "c"]], words=True))
    assert max(len(line) for line in capfd.readouterr().out.splitlines()) == 40


@pytest.mark.parametrize(("words", "line"), [(False, "x       1"), (True, "x  1")])
def test_columns_of_words_are_read_from_the_left_and_of_figures_from_the_right(words, line, capfd):
    print_out(table("", ["a", "longer"], [["x", "1"]], words=words))
    assert capfd.readouterr().out.splitlines()[-1].rstrip() == line


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [
        ([0, 0.5, 1], 10, "▁▅█"),
        ([0, 0, 1, 1], 2, "▁█"),
        ([-3, 9], 5, "▁█"),
        ([0.5, float("nan"), float("inf")], 5, "▅"),
        ([], 5, ""),
    ],
)
def test_a_sparkline_is_the_course_of_a_figure(values, width, bars):
    assert sparkline(values, width) == bars


def test_a_real_terminal_gets_the_panel_and_a_pipe_on_stdout_only_the_result():
    program = (
        "from rlx.console import Progress, print_out\n"
        "p = Progress('rlx', 2)\n"
        "for i in range(3): p.show(i, {'reward': '0.5'}, [0.5])\n"
        "p.stop(); print_out('done')\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60"}
    environment.pop("NO_COLOR", None)
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # Linux says EIO where the other end is closed
        while chunk := os.read(ours, 65536):
            seen += chunk
    os.close(ours)
    assert child.communicate()[0] == b"done\n"
    assert "╭─ rlx" in plain(seen.decode()) and "step 2/2" in plain(seen.decode())


def test_a_text_object_is_printed_as_it_stands(capfd):
    print_out(Text("[red]"))
    assert capfd.readouterr().out.strip() == "[red]"


def test_a_terminal_says_what_is_loading_and_a_pipe_does_not():
    program = "from rlx.console import loading; loading('torch')"
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert piped.stderr == "" and piped.stdout == ""
    main, secondary = os.openpty()
    child = subprocess.Popen([sys.executable, "-c", program], stderr=secondary, stdout=subprocess.DEVNULL)
    child.wait()
    os.close(secondary)
    assert b"loading torch ..." in os.read(main, 1000)
    os.close(main)

"""Files and folders that are written whole or not at all, whoever else writes there and however a run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from cmsim.errors import InputError
from cmsim.reading import sweep, whole_folder, write_text, writing, written

#: of a process that is gone, on this host
GONE = 2**22 + 1


def left(folder, name="out", *, host=None, pid=GONE, which="new"):
    """What a run that was killed leaves."""
    found = folder / f".{name}.cmsim-{host or writing._host()}-{pid}-1.{which}"
    found.mkdir(parents=True)
    (found / "half").write_text("x")
    return found


def hidden(folder):
    return sorted(one.name for one in folder.iterdir() if one.name.startswith("."))


def test_the_next_run_sweeps_what_a_killed_one_left(tmp_path):
    for name in ("out", "other"):
        left(tmp_path, name)
    (tmp_path / f".file.cmsim-{writing._host()}-{GONE}-1.new").write_text("half")
    with whole_folder(tmp_path / "out") as new:
        (new / "a").write_text("whole")
    assert hidden(tmp_path) == [] and (tmp_path / "out" / "a").read_text() == "whole"
    left(tmp_path)
    write_text(tmp_path / "file", "text")
    assert hidden(tmp_path) == []


def test_what_others_are_writing_or_own_stays(tmp_path):
    """A process that is there; another host on a shared disk; what is no name of ours."""
    stays = [
        left(tmp_path, pid=os.getpid()),
        left(tmp_path, pid=os.getppid()),
        left(tmp_path, host="0123abcd"),
        left(tmp_path, name="a", which="bak"),
    ]
    (tmp_path / ".cache").mkdir()
    sweep(tmp_path)
    assert hidden(tmp_path) == sorted([*(one.name for one in stays), ".cache"])


def test_what_a_killed_run_was_about_to_replace_is_put_back(tmp_path):
    left(tmp_path, which="old")
    left(tmp_path, which="new")
    sweep(tmp_path)
    assert hidden(tmp_path) == [] and (tmp_path / "out" / "half").exists()
    left(tmp_path, which="old")
    sweep(tmp_path)
    assert hidden(tmp_path) == [] and (tmp_path / "out" / "half").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from cmsim.reading import whole_folder, written
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
with {how}(Path(sys.argv[1])) as new:
    ({part}).write_text("half")
    os.kill(os.getpid(), signal.{signal})
"""


@pytest.mark.parametrize(("how", "part"), [("whole_folder", "new / 'a'"), ("written", "new")])
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_run_that_is_ended_while_it_writes(tmp_path, how, part, name):
    """What was there stays as it was; of an interrupted one nothing is left, of a killed one until the next."""
    target = tmp_path / "out"
    code = KILLED.format(how=how, part=part, signal=name)
    if how == "written":
        target.write_text("before")
    else:
        target.mkdir()
        (target / "a").write_text("before")
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False, capture_output=True)
    assert done.returncode in (-signal.SIGINT, -signal.SIGKILL, 1), done.stderr
    assert (target if how == "written" else target / "a").read_text() == "before"
    assert len(hidden(tmp_path)) == (name == "SIGKILL")
    sweep(tmp_path)
    assert hidden(tmp_path) == []


def test_an_interrupt_between_the_two_renames_puts_back_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.mkdir()
    (target / "a").write_text("before")
    rename = type(target).rename

    def interrupted(self, to):
        if self.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(type(target), "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_folder(target) as new:
        (new / "a").write_text("after")
    assert (target / "a").read_text() == "before" and hidden(tmp_path) == []


def test_several_at_once_on_one_folder(tmp_path):
    """Whoever is last stands there, whole, and nobody is told off."""
    target, count, rounds = tmp_path / "out", 4, 25
    start, wrong = threading.Barrier(count), []

    def write(number):
        start.wait()
        for _ in range(rounds):
            try:
                with whole_folder(target) as new:
                    for name in "ab":
                        (new / name).write_text(str(number))
            except InputError as error:
                wrong.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong and hidden(tmp_path) == []
    assert (target / "a").read_text() == (target / "b").read_text()


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "after"
    with written(type(tmp_path)(os.devnull)) as place:
        assert place == type(tmp_path)(os.devnull)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / "out", tmp_path / ("n" * 300)):
        with pytest.raises(InputError, match="cannot be written"):
            write_text(place, "x")
        with pytest.raises(InputError, match="cannot be written"), whole_folder(place):
            pass

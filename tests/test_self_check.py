"""``python -m rmsprop``."""

import json

import array_api_strict
import numpy as np
import pytest

from rmsprop import __main__ as self_check


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(self_check, "_dtypes", lambda xp: ["float32"])
    monkeypatch.setattr(self_check, "ELEMENTS", 10_000)
    monkeypatch.setattr(self_check, "libraries", lambda: [np, array_api_strict])


def test_a_sound_installation_passes_and_is_described(capsys):
    assert self_check.main([]) == 0
    text = capsys.readouterr().out
    assert text.count("14 kernels, 0 wrong") == 2
    assert "GB/s" in text


def test_progress_is_shown_beside_the_report(capsys):
    assert self_check.main(["--json"]) == 0
    told = capsys.readouterr()
    assert (
        told.err
        == "numpy: 14 kernels are compiled and checked\narray_api_strict: 14 kernels are compiled and checked\n"
    )
    assert "compiled" not in told.out


def test_a_terminal_sees_each_kernel_counted(monkeypatch, capsys):
    monkeypatch.setattr(self_check.sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(self_check, "libraries", lambda: [array_api_strict])
    assert self_check.main([]) == 0
    lines = capsys.readouterr().err.split("\r")[1:]
    assert lines == [f"array_api_strict: {i} of 14 kernels checked" + "\n" * (i == 14) for i in range(15)]


def test_the_report_can_be_read_by_programs(capsys):
    assert self_check.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["backends"]["numpy"] == "rmsprop_numba:backend"
    assert report["libraries"]["numpy"]["wrong"] == []


def test_a_wrong_result_is_told_and_makes_it_fail(monkeypatch, capsys):
    real = self_check.hyper_of
    monkeypatch.setattr(self_check, "hyper_of", lambda opt: real(opt)._replace(epsilon=0.1))
    assert self_check.main([]) == 1
    assert "variable is off by" in capsys.readouterr().out


def test_a_kernel_that_fails_is_told_and_the_others_are_checked(monkeypatch, capsys):
    def broken(*arguments):
        raise OSError("no compiler")

    monkeypatch.setattr(self_check, "listed", broken)
    assert self_check.main([]) == 1
    assert "14 kernels, 4 wrong" in (told := capsys.readouterr().out)
    assert "broken float32 {'momentum': 0.0, 'centered': False}: OSError: no compiler" in told

"""A user's mistake is one line; a defect shows its traceback and how to report it."""

from __future__ import annotations

import pytest

from crossview.errors import UserError
from crossview.platform.cli import main as cli


def outcome(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def fails() -> None:
        raise error

    monkeypatch.setitem(cli.PARSED, "info", fails)
    monkeypatch.setitem(cli.COMMANDS, "info", fails)
    with pytest.raises(SystemExit) as end:
        cli.main(["info"])
    return int(str(end.value.code)), capsys.readouterr().err


def test_a_mistake_of_the_user_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = outcome(UserError("v.csv, line 2: wrong"), monkeypatch, capsys)
    assert (status, said) == (2, "error: v.csv, line 2: wrong\n")
    status, said = outcome(FileNotFoundError(2, "No such file or directory", "v.csv"), monkeypatch, capsys)
    assert status == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "v.csv" in said


@pytest.mark.parametrize("error", [ValueError("could not convert string to float: 'x'"), KeyError("x"), TypeError("x")])
def test_a_defect_shows_where_it_is_and_how_to_report_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = outcome(error, monkeypatch, capsys)
    assert status == 1
    assert "Traceback (most recent call last)" in said
    assert "test_errors.py" in said
    assert "report it" in said

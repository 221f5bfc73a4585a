from __future__ import annotations

import pytest

from crossview.platform import progress
from crossview.platform.progress import Progress


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_off_a_terminal_every_state_is_printed_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", -1.0)
    with Progress("reading", 2, "videos") as line:
        line.advance()
        line.advance(note="[b] a note that is far longer than what fits on a line of eighty columns, and is one line")
    first, last = lines(capsys)
    assert first.startswith("reading: 1/2 videos, ")
    assert last.startswith("reading: 2/2 videos, ")
    assert last.endswith("  [b] a note that is far longer than what fits on a line of eighty columns, and is one line")


def test_the_end_is_printed_where_no_line_was_due(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("reading", 3, "videos", done=1) as line:
        line.update(3)
    assert [text.split(",")[0] for text in lines(capsys)] == ["reading: 3/3 videos"]


def test_an_error_before_the_first_unit_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="refused"), Progress("reading", 3, "videos"):
        raise ValueError("refused")
    assert not lines(capsys)


def test_a_line_that_goes_on_where_nothing_is_done_yet_tells_no_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", -1.0)
    with Progress("training", 9, "steps", done=4) as line:
        line.update(4, "waiting")
    assert lines(capsys) == ["training: 4/9 steps, 0.0 steps/s  waiting"]

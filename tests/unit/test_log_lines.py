"""Lines of logs: their times in any zone, the lines of one rank, the last so many."""

from __future__ import annotations

import pytest

from ring_operator.cli.remote.log_lines import Selection, Stamped, last, second_of, selected, stamped


@pytest.mark.parametrize(
    "line, time, text",
    [
        ("2026-01-01T00:00:05.123456789Z hello", "2026-01-01T00:00:05.123456789", "hello"),
        ("2026-01-01T02:00:05.5+02:00 a b", "2026-01-01T00:00:05.500000000", "a b"),
        ("2026-01-01T00:00:05Z ", "2026-01-01T00:00:05.000000000", ""),
        ("2026-13-01T00:00:05Z x", "", "x"),
        ("no time at all", "", "no time at all"),
        ("", "", ""),
    ],
)
def test_a_line_has_a_time_that_sorts(line: str, time: str, text: str) -> None:
    assert stamped(line) == Stamped(time, text)


def test_a_time_is_asked_for_by_its_second() -> None:
    assert second_of("2026-01-01T00:00:05.500000000") == "2026-01-01T00:00:05Z"


def test_lines_of_one_rank_lose_their_prefix_and_no_namesakes_come_along() -> None:
    lines = [Stamped("", text) for text in ("[agent] up", "[rank 1] a", "[rank 11] b", "x [rank 1] c", "[rank 1] ")]
    assert [line.text for line in selected(lines, Selection(rank=1))] == ["a", ""]
    assert list(selected(lines, Selection())) == lines


@pytest.mark.parametrize("count, texts", [(None, ["0", "1", "2"]), (0, []), (2, ["1", "2"]), (9, ["0", "1", "2"])])
def test_the_last_lines(count: int | None, texts: list[str]) -> None:
    assert [line.text for line in last((Stamped("", str(i)) for i in range(3)), count)] == texts


def test_only_whole_logs_are_cut_by_the_api_server() -> None:
    assert Selection(tail=5).server_tail == {"tailLines": 5}
    assert Selection(tail=5, rank=1).server_tail == {}

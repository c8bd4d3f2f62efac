"""Nothing is lost: a job that is killed at any moment ends with one answer for each request, the right one."""

from __future__ import annotations

from pathlib import Path

from killing import kill_over_and_over, kill_three_over_and_over


def test_a_job_killed_over_and_over_answers_everything_once(tmp_path: Path) -> None:
    outcome = kill_over_and_over(tmp_path, rows=1500, kills=10, within=(0.0, 0.6), seed=7)
    assert (outcome.kills, outcome.answered, outcome.wrong) == (10, 1500, 0)
    assert outcome.unreported == []
    assert outcome.miscounted == []
    assert 0 < outcome.sent_twice <= outcome.in_flight_at_kills
    assert 0 < outcome.most_in_flight <= 48


def test_three_jobs_on_one_key_killed_at_random_answer_everything_once(tmp_path: Path) -> None:
    outcome = kill_three_over_and_over(tmp_path, rows=300, kills=4, seed=11)
    assert (outcome.kills, outcome.answered, outcome.wrong) == (4, 900, 0)
    assert outcome.unreported == []  # nor did they ask for more than one may, together
    assert 0 <= outcome.served_twice <= outcome.sent_twice <= outcome.in_flight_at_kills <= 4 * 16

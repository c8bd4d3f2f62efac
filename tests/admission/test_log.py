"""What a log says of lanes: one line for what is notable, seldom, and harmless to a terminal."""

from __future__ import annotations

import logging

import pytest

from ratelimit.admission.events import Changed, Event, Paused, ServiceBack, ServiceDown, Stopped
from ratelimit.admission.log import Log
from ratelimit.errors import NotAnswered, QuotaExhausted
from ratelimit.limits.drift import Change


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ratelimit")


def changed(kind: str, before: float, after: float, *, at: float = 0, limit: str = "RPM") -> Changed:
    return Changed("m", at, Change(kind, limit, before, after))  # type: ignore[arg-type]  # a kind that is a variable


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (changed("retuned", 500, 60), "WARNING", "m: RPM is 60 by what the service says, not 500"),
        (changed("retuned", 500, 5000), "INFO", "m: RPM is 5,000 by what the service says, not 500"),
        (changed("added", 0, 10_000, limit="RPD"), "INFO", "m: the service also has a limit of 10,000 RPD"),
        (changed("cooled", 0, 1.25), "INFO", "m: refused by RPM: nothing is sent for 1.25 s"),
        (changed("cooled", 0, 3600.4), "INFO", "m: refused by RPM: nothing is sent for 3,600 s"),
        (
            changed("burst", 500, 0.2),
            "INFO",
            "m: the service counts RPM in windows: requests leave evenly from now on",
        ),
        (
            changed("share", 1, 0.6),
            "INFO",
            "m: somebody else is on the key: 60% of RPM are left to this program",
        ),
        (changed("share", 0.6, 0.9), "INFO", "m: 90% of RPM are this program's again"),
        (changed("reserve", 8, 30), "INFO", "m: 30 of RPM are kept back from now on, it was 8"),
        (changed("drift", 0, 12), "DEBUG", "m: the service has counted 12 more of RPM than was thought"),
        (changed("drift", 0, -12), "DEBUG", "m: the service has counted 12 less of RPM than was thought"),
        (Paused("m", 0, "RPD", 7200), "WARNING", "m: waits 120 min for RPD"),
        (
            ServiceDown("m", 0, NotAnswered("no connection to h: \x1b[2J", sent=False)),
            "WARNING",
            (
                "m: the service seems to be down: single requests ask now and then whether it is back; no connection "
                "to h: \\x1b[2J; it was not sent. If this persists, look at the network, the base URL and the time-outs"
            ),
        ),
        (ServiceBack("m", 0), "WARNING", "m: the service answers again"),
        (
            Stopped("m", 0, QuotaExhausted("insufficient_quota", "no\x1b[2J more")),
            "INFO",
            (
                "m: nothing more is sent: the account's quota is used up (insufficient_quota): no\\x1b[2J more "
                "Add credits or raise the spending limit, then run again"
            ),
        ),
    ],
)
def test_each_notable_event_is_a_line(event: Event, level: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    Log()(event)
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [(level, text)]


def test_a_kind_of_line_comes_once_in_ten_seconds_and_then_says_how_many_there_were(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Log()
    for at in (0, 0.5, 9.9, 10, 10.1, 20.2):
        log(changed("cooled", 0, 1, at=at))
        log(changed("cooled", 0, 1, at=at, limit="TPM"))
    said = [line.getMessage() for line in caplog.records if "RPM" in line.getMessage()]
    line = "m: refused by RPM: nothing is sent for 1 s"
    assert said == [line, f"{line} (2 more like it)", f"{line} (1 more like it)"]
    assert len(caplog.records) == 2 * len(said)


def test_small_steps_of_share_and_reserve_are_told_when_they_have_become_a_large_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Log()
    for step in range(12):
        log(changed("share", 1 - step * 0.03, 0.97 - step * 0.03, at=step * 20))
        log(changed("reserve", 100 + step * 5, 105 + step * 5, at=step * 20))
    shares = [line.getMessage().split()[-8] for line in caplog.records if "left" in line.getMessage()]
    assert shares == ["88%", "76%", "64%"]
    assert [line.getMessage() for line in caplog.records if "kept" in line.getMessage()] == [
        "m: 150 of RPM are kept back from now on, it was 100"
    ]


def test_names_from_elsewhere_do_nothing_to_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    Log()(Changed("m\x1b]0;x\x07", 0, Change("added", "\x1b[2J", 0, 5)))
    assert caplog.messages == ["m\\x1b]0;x\\x07: the service also has a limit of 5 \\x1b[2J"]


def test_what_nobody_wants_to_read_is_not_counted_either(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    caplog.set_level(logging.WARNING, "ratelimit")
    log(changed("cooled", 0, 1))
    caplog.set_level(logging.INFO, "ratelimit")
    log(changed("cooled", 0, 1, at=1))
    assert len(caplog.records) == 1

"""Errors cross to other processes whole: a pool waits for ever for one that does not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

from ratelimit.errors import NeverFits, NotAnswered, RateLimitError
from ratelimit.wire.client import Result


def kinds(of: type[RateLimitError] = RateLimitError) -> Iterator[type[RateLimitError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


@pytest.mark.parametrize("kind", sorted(set(kinds()), key=str))
def test_every_kind_of_error_can_be_pickled(kind: type[RateLimitError]) -> None:
    error = kind.__new__(kind, "what it says")
    error.__dict__.update(status=429, seconds=1.5)
    for found in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(found) is kind
        assert (str(found), found.__dict__) == ("what it says", {"status": 429, "seconds": 1.5})


def test_a_result_with_an_error_comes_out_of_a_pool_as_it_went_in() -> None:
    for error in (NeverFits("TPM", 700, 500), NotAnswered("no answer", sent=True)):
        found = pickle.loads(pickle.dumps(Result(3, None, error=error)))
        assert str(found.error) == str(error)
        assert found.error.__dict__ == error.__dict__
        with pytest.raises(type(error)):
            found.unwrap()

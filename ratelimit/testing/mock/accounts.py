"""Who a request comes from, and the counters it is counted on: one set for each organization, project and family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ratelimit.testing.mock.catalogue import Family, Limits
from ratelimit.testing.mock.counting import Counter, Enforcement, Meter, meter
from ratelimit.testing.mock.refusals import NO_KEY, Refused, bad_key

_MOST = 10_000  # clients choose the names of organizations and projects when no keys are given


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a key belongs to."""

    organization: str = "org-mock"
    project: str = "proj_mock"


_NOBODY = Account()


class Accounts:
    """Finds the account of a request by its headers.

    With keys given only those are let in; without, any key is, as the organization and project the request names.
    """

    def __init__(self, keys: Mapping[str, Account] | None = None) -> None:
        self._keys = dict(keys) if keys is not None else None
        self._revoked: set[str] = set()
        self._seen: dict[tuple[str, str, str], Account] = {}

    def of(self, headers: Mapping[str, str]) -> Account:
        """The account, or Refused with a 401."""
        shown = (
            headers.get("Authorization", ""),
            headers.get("OpenAI-Organization", _NOBODY.organization),
            headers.get("OpenAI-Project", _NOBODY.project),
        )
        account = self._seen.get(shown)
        if account is None:
            account = self._look_up(*shown)
            if len(self._seen) < _MOST:
                self._seen[shown] = account
        return account

    def revoke(self, key: str) -> None:
        """Lets this key in no more."""
        self._revoked.add(key)
        self._seen.clear()

    def _look_up(self, authorization: str, organization: str, project: str) -> Account:
        scheme, _, key = authorization.partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise Refused(NO_KEY)
        if key in self._revoked:
            raise Refused(bad_key(key))
        if self._keys is None:
            return Account(organization, project)
        if key not in self._keys:
            raise Refused(bad_key(key))
        return self._keys[key]


class Counters:
    """Makes and keeps the counters; meters of an organization are shared by its projects."""

    def __init__(
        self,
        enforce: Enforcement,
        organization_limits: Mapping[str, Limits] | None = None,
        project_limits: Mapping[str, Limits] | None = None,
    ) -> None:
        self._enforce: Enforcement = enforce
        self._organization_limits = dict(organization_limits or {})
        self._project_limits = dict(project_limits or {})
        self._retuned = Limits()
        self._organizations: dict[tuple[str, str], list[Meter]] = {}
        self._counters: dict[tuple[str, str, str], tuple[Counter, Family]] = {}

    def of(self, account: Account, family: Family) -> Counter:
        """The counter of an account's requests to a family."""
        name = (account.organization, account.project, family.name)
        if name not in self._counters:
            if len(self._counters) >= _MOST:
                self._counters.clear()
                self._organizations.clear()
            self._counters[name] = self._new(account, family), family
        return self._counters[name][0]

    def limits(self, organization: str, family: Family) -> Limits:
        """The limits an organization has for a family now."""
        return self._retuned.over(self._organization_limits.get(organization, Limits()).over(family.limits))

    def retune(self, limits: Limits) -> None:
        """Puts these limits over all others in mid-run, in place of any before; what is used stays used."""
        self._retuned = limits
        for (organization, _, _), (counter, family) in self._counters.items():
            counter.retune(self.limits(organization, family).caps())

    def _new(self, account: Account, family: Family) -> Counter:
        shared = (account.organization, family.name)
        if shared not in self._organizations:
            caps = self.limits(account.organization, family).caps()
            self._organizations[shared] = [meter(each, self._enforce) for each in caps]
        own = self._project_limits.get(account.project, Limits()).caps()
        return Counter(self._organizations[shared], [meter(each, self._enforce) for each in own])

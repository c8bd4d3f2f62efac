"""Settings: which place counts, what each complaint says, and that nobody sees the key."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from ratelimit.admission.gate import Settling
from ratelimit.errors import BadSettings
from ratelimit.limits.charge import Formula
from ratelimit.limits.tiers import TIERS
from ratelimit.settings import AZURE_KEY, NAMES, PREFIX, VENDOR, Secret, Settings, load_settings
from ratelimit.settings import declared as module

DOCS = Path(__file__).parent.parent / "docs" / "settings.md"
KEY = "sk-proj-abcDEF_123-xyz"


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and none of our variables."""
    for name in os.environ:
        if name.startswith((PREFIX, "OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(**flags: object) -> str:
    with pytest.raises(BadSettings) as caught:
        load_settings(**flags)
    return str(caught.value)


def test_defaults() -> None:
    assert load_settings() == Settings(
        tier="tier-1",
        base_url="https://api.openai.com/v1",
        slack=1.0,
        pace=10.0,
        concurrency=1000,
        connect_timeout=10.0,
        first_byte_timeout=600.0,
        between_bytes_timeout=60.0,
        reply_timeout=900.0,
        max_body_bytes=64 * 1024 * 1024,
        retry_attempts=6,
        longest_wait=60.0,
        retry_share=0.2,
        charges="headers",
        charge_formula="auto",
        log_level="warning",
    )
    assert [load_settings().origin(name) for name in NAMES] == ["the default"] * len(NAMES)


def test_choices_are_those_of_the_code_that_takes_them() -> None:
    assert get_args(module.Tier) == TIERS
    assert get_args(module.Charges) == get_args(Settling)
    assert get_args(module.ChargeFormula) == ("auto", *get_args(Formula))


PLACES: dict[str, tuple[Callable[[pytest.MonkeyPatch, str], dict[str, object]], str]] = {
    "flag": (lambda patch, tier: {"tier": tier}, "--tier"),
    "environment": (lambda patch, tier: _set(patch, "RATELIMIT_TIER", tier), "RATELIMIT_TIER in the environment"),
    "dotenv": (lambda patch, tier: _wrote(".env", f"RATELIMIT_TIER={tier}\n"), "RATELIMIT_TIER in .env"),
    "own": (
        lambda patch, tier: _wrote("ratelimit.toml", f'[settings]\ntier = "{tier}"\n'),
        "tier in [settings] of ratelimit.toml",
    ),
    "pyproject": (
        lambda patch, tier: _wrote("pyproject.toml", f'[tool.ratelimit]\ntier = "{tier}"\n'),
        "tier in [tool.ratelimit] of pyproject.toml",
    ),
}


def _set(patch: pytest.MonkeyPatch, name: str, value: str) -> dict[str, object]:
    patch.setenv(name, value)
    return {}


def _wrote(name: str, text: str) -> dict[str, object]:
    Path(name).write_text(text, "utf-8")
    return {}


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(PLACES, 2)))
def test_the_earlier_place_counts(first: str, second: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {**PLACES[second][0](monkeypatch, "tier-5"), **PLACES[first][0](monkeypatch, "tier-2")}
    settings = load_settings(**flags)
    assert (settings.tier, settings.origin("tier")) == ("tier-2", PLACES[first][1])


@pytest.mark.parametrize("place", PLACES)
def test_any_place_counts_before_the_default(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(**PLACES[place][0](monkeypatch, "tier-5"))
    assert (settings.tier, settings.origin("tier")) == ("tier-5", PLACES[place][1])


def test_places_are_merged_setting_by_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATELIMIT_RPM", "7")
    _wrote("pyproject.toml", "[tool.ratelimit]\nrpm = 1\ntpm = 9\n[tool.other]\nx = 1\n")
    settings = load_settings(slack=2, pace=None)
    assert (settings.rpm, settings.tpm, settings.slack, settings.pace) == (7, 9, 2.0, 10.0)


SAMPLES: dict[str, tuple[str, object]] = {
    "tier": ("Tier 3", "tier-3"),
    "base_url": ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
    "api_key": (KEY, Secret(KEY)),
    "organization": ("org-1", "org-1"),
    "project": ("proj_1", "proj_1"),
    "tiers_file": ("mine.toml", Path("mine.toml")),
    "charges": ("usage", "usage"),
    "charge_formula": ("chat_2024", "chat_2024"),
    "azure_api_version": ("2024-10-21", "2024-10-21"),
    "log_level": ("DEBUG", "debug"),
    "batch_files": ("KEEP", "keep"),
    "otel": ("On", True),
    "shared": ("redis://localhost/1", "redis://localhost/1"),
    "when_shared_is_down": ("STOP", "stop"),
    "slack": ("0", 0.0),
    "retry_share": ("1", 1.0),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _wrote("mine.toml", "")
    text, value = SAMPLES.get(name, ("12", 12))
    if name == "azure_api_version":
        monkeypatch.setenv("RATELIMIT_BASE_URL", "https://me.openai.azure.com/openai")
    monkeypatch.setenv(f"RATELIMIT_{name.upper()}", text)
    settings = load_settings()
    assert getattr(settings, name) == value
    assert settings.origin(name) == f"RATELIMIT_{name.upper()} in the environment"


@pytest.mark.parametrize(("variable", "name"), VENDOR.items())
def test_the_vendors_variables_count_after_ours(variable: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = ("https://theirs/v1", "https://ours/v1") if name == "base_url" else ("theirs", "ours")
    monkeypatch.setenv(variable, theirs)
    settings = load_settings()
    assert _text(getattr(settings, name)) == theirs
    assert settings.origin(name) == f"{variable} in the environment"
    monkeypatch.setenv(f"RATELIMIT_{name.upper()}", ours)
    assert _text(getattr(load_settings(), name)) == ours


def _text(value: object) -> object:
    return value.reveal() if isinstance(value, Secret) else value


AZURE_URL = "https://me.openai.azure.com/openai"


@pytest.mark.parametrize("place", ["flag", "environment", ".env", "ratelimit.toml"])
def test_azure_takes_its_own_key_and_no_other(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "openai")
    monkeypatch.setenv(AZURE_KEY, "azure")
    monkeypatch.setenv("RATELIMIT_BASE_URL", AZURE_URL)
    assert _text(load_settings().api_key) == "openai"
    flags: dict[str, object] = {}
    if place == "flag":
        flags["azure_api_version"] = "2024-10-21"
    elif place == "environment":
        monkeypatch.setenv("RATELIMIT_AZURE_API_VERSION", "2024-10-21")
    elif place == ".env":
        _wrote(".env", "RATELIMIT_AZURE_API_VERSION=2024-10-21")
    else:
        _wrote("ratelimit.toml", '[settings]\nazure_api_version = "2024-10-21"')
    assert _text(load_settings(**flags).api_key) == "azure"
    monkeypatch.delenv(AZURE_KEY)
    assert load_settings(**flags).api_key is None


def test_blank_variables_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATELIMIT_TIER", "  ")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    _wrote(".env", "RATELIMIT_TIER=tier-4\nRATELIMIT_RPM\nSOMEBODY=else\nOPENAI_API_KEY='  sk-1 '\n")
    settings = load_settings()
    assert (settings.tier, settings.rpm, settings.origin("api_key")) == ("tier-4", None, "OPENAI_API_KEY in .env")
    assert _text(settings.api_key) == "sk-1"


@pytest.mark.parametrize(
    ("text", "expected", "origin"),
    [
        ("[settings]\nrpm = 1\n", None, "the default"),
        ("[models.m.tiers.free]\nrpm = 1\n", Path("ratelimit.toml"), "ratelimit.toml"),
        ("[providers.p]\nx = 1\n[settings]\nrpm = 1\n", Path("ratelimit.toml"), "ratelimit.toml"),
        (
            '[models.m]\n[settings]\ntiers_file = "other.toml"\n',
            Path("other.toml"),
            "tiers_file in [settings] of ratelimit.toml",
        ),
    ],
)
def test_a_file_with_tables_for_tiers_is_the_tiers_file(text: str, expected: Path | None, origin: str) -> None:
    _wrote("ratelimit.toml", text)
    _wrote("other.toml", "")
    settings = load_settings()
    assert (settings.tiers_file, settings.origin("tiers_file")) == (expected, origin)


SECONDS = "write a number of seconds above 0"
COUNT = "write a whole number, 1 or more"


@pytest.mark.parametrize(
    ("variable", "value", "shown", "remedy"),
    [
        ("TIER", "gold", "'gold'", "write one of free, tier-1, tier-2, tier-3, tier-4, tier-5"),
        ("CHARGES", "all", "'all'", "write one of headers, usage, estimate"),
        (
            "CHARGE_FORMULA",
            "new",
            "'new'",
            "write one of auto, chat_2025, chat_2024, documented, exact_plus_cap, exact",
        ),
        ("LOG_LEVEL", "loud", "'loud'", "write one of debug, info, warning, error"),
        ("SLACK", "-1", "-1.0", "write a number of seconds, 0 or more"),
        ("SLACK", "nan", "nan", "write a number of seconds, 0 or more"),
        ("PACE", "0.5", "0.5", "write a number, 1 or more"),
        ("PACE", "inf", "inf", "write a number, 1 or more"),
        ("CONNECT_TIMEOUT", "0", "0.0", SECONDS),
        ("FIRST_BYTE_TIMEOUT", "soon", "'soon'", SECONDS),
        ("BETWEEN_BYTES_TIMEOUT", "-3", "-3.0", SECONDS),
        ("REPLY_TIMEOUT", "0", "0.0", SECONDS),
        ("LONGEST_WAIT", "0", "0.0", SECONDS),
        ("RETRY_SHARE", "1.5", "1.5", "write a number from 0 to 1"),
        ("RETRY_SHARE", "-0.1", "-0.1", "write a number from 0 to 1"),
        ("CONCURRENCY", "0", "0", COUNT),
        ("RETRY_ATTEMPTS", "0", "0", COUNT),
        ("MAX_BODY_BYTES", "64MiB", "'64MiB'", COUNT),
        ("RPM", "2.5", "'2.5'", COUNT),
        ("TPM", "0", "0", COUNT),
        ("RPD", "-1", "-1", COUNT),
        ("ORGANIZATION", "my org", "'my org'", "write an id such as org-abc123"),
        ("PROJECT", "a\nb", "'a\\nb'", "write an id such as proj_abc123"),
        ("AZURE_API_VERSION", "20 24", "'20 24'", "write a version such as 2024-10-21"),
        ("TIERS_FILE", "gone.toml", "'gone.toml'", "write the path of a TOML file that exists"),
        *(
            ("BASE_URL", url, repr(url), "write an http or https URL such as https://api.openai.com/v1")
            for url in (
                "api.openai.com/v1",
                "ftp://x/v1",
                "https://",
                "https://x:0/v1",
                "https://x:port/v1",
                "https://[x/v1",
                "https://x/v1?a=1",
                "https://x/v1#a",
                "https://x/v 1",
            )
        ),
    ],
)
def test_values_that_cannot_be(
    variable: str, value: str, shown: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"RATELIMIT_{variable}", value)
    assert complaint() == f"RATELIMIT_{variable} in the environment cannot be {shown}: {remedy}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rpm = "5"', "rpm in [settings] of ratelimit.toml cannot be '5': write a whole number, 1 or more"),
        ("rpm = 5.5", "rpm in [settings] of ratelimit.toml cannot be 5.5: write a whole number, 1 or more"),
        ("slack = true", "slack in [settings] of ratelimit.toml cannot be True: write a number of seconds, 0 or more"),
        ("project = 5", "project in [settings] of ratelimit.toml cannot be 5: write an id such as proj_abc123"),
        (
            "api_key = 5",
            (
                "api_key in [settings] of ratelimit.toml cannot be what it is (not shown): "
                "write the key as the vendor gave it: letters, digits and signs, no spaces"
            ),
        ),
        ("reply_timout = 5", "reply_timout in [settings] of ratelimit.toml is no setting: did you mean reply_timeout?"),
        ("zzz = 5", "zzz in [settings] of ratelimit.toml is no setting: docs/settings.md lists them all"),
        ('"a\\u001bb" = 5', "a\\x1bb in [settings] of ratelimit.toml is no setting: docs/settings.md lists them all"),
    ],
)
def test_what_a_toml_table_cannot_say(text: str, message: str) -> None:
    _wrote("ratelimit.toml", f"[settings]\n{text}\n")
    assert complaint() == message


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("ratelimit.toml", b"a = ", "ratelimit.toml cannot be read (Invalid value (at end of document)): {}"),
        ("ratelimit.toml", b"a = '\xff'", "ratelimit.toml cannot be read (byte 5 is not UTF-8): {}"),
        ("ratelimit.toml", b"settings = 5", "ratelimit.toml cannot be read (settings is no table): {}"),
        ("pyproject.toml", b"[tool]\nratelimit = 5", "pyproject.toml cannot be read (ratelimit is no table): {}"),
        ("pyproject.toml", b"[[tool]]", "pyproject.toml cannot be read (tool is no table): {}"),
        (".env", b"A=\xff", ".env cannot be read (byte 2 is not UTF-8): {}"),
    ],
)
def test_files_that_cannot_be_read(file: str, content: bytes, message: str) -> None:
    Path(file).write_bytes(content)
    assert complaint() == message.format("correct it, or remove it")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "RATELIMIT_TIER tier-2\n",
            ".env cannot be read (line 1 is not RATELIMIT_TIER=value): correct it, or remove it",
        ),
        (
            "\n\nX=1\n export  OPENAI_API_KEY sk-1\n",
            ".env cannot be read (line 4 is not OPENAI_API_KEY=value): correct it, or remove it",
        ),
        (
            "RATELIMIT_API_KEY='sk-1\n",
            ".env cannot be read (line 1 is not RATELIMIT_API_KEY=value): correct it, or remove it",
        ),
    ],
)
def test_a_line_that_sets_nothing(text: str, message: str) -> None:
    _wrote(".env", text)
    assert complaint() == message


def test_a_line_of_somebody_else_may_be_anything() -> None:
    _wrote(".env", "other thing\n= 5\nRATELIMIT_TPM = 5\nexport RATELIMIT_RPD=6\n# RATELIMIT_TIER tier-2\n")
    settings = load_settings()
    assert (settings.tpm, settings.rpd, settings.tier) == (5, 6, "tier-1")


def test_what_the_system_says_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    _wrote("pyproject.toml", "")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert complaint() == "pyproject.toml cannot be read (Permission denied): correct it, or remove it"


def test_a_tiers_file_in_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _wrote(str(tmp_path / "mine.toml"), "")
    assert load_settings(tiers_file="~/mine.toml").tiers_file == tmp_path / "mine.toml"


@pytest.mark.parametrize("name", ["tier", "setings"])
def test_settings_outside_their_table(name: str) -> None:
    _wrote("ratelimit.toml", f"{name} = {{ a = 1 }}\n")
    assert complaint() == f"{name} in ratelimit.toml is in no table: write settings under [settings]"


def test_names_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaint(teir="free") == "--teir is no setting: did you mean --tier?"
    assert (
        complaint(tier="gold", charges_formula="x") == "--charges-formula is no setting: did you mean --charge-formula?"
    )
    assert complaint(tier="gold", rpm=5) == (
        "--tier cannot be 'gold': write one of free, tier-1, tier-2, tier-3, tier-4, tier-5"
    )
    with pytest.raises(BadSettings, match=r"^teir is no setting: did you mean tier\?$"):
        load_settings().origin("teir")
    _wrote(".env", "RATELIMIT_RPMS=5\n")
    assert complaint() == "RATELIMIT_RPMS in .env is no setting: did you mean RATELIMIT_RPM?"
    monkeypatch.setenv("RATELIMIT_Q", "5")
    assert complaint() == "RATELIMIT_Q in the environment is no setting: docs/settings.md lists them all"


def test_the_first_wrong_setting_is_named_with_the_place_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATELIMIT_RPM", "none")
    _wrote(".env", "RATELIMIT_SLACK=x\nRATELIMIT_RPM=5\n")
    assert complaint() == "RATELIMIT_SLACK in .env cannot be 'x': write a number of seconds, 0 or more"
    assert complaint(slack=1) == ("RATELIMIT_RPM in the environment cannot be 'none': write a whole number, 1 or more")


def test_azure_wants_an_address() -> None:
    assert complaint(azure_api_version="2024-10-21") == (
        "--azure-api-version cannot go with https://api.openai.com/v1, which is base_url by the default: "
        "set RATELIMIT_BASE_URL to https://NAME.openai.azure.com/openai, or unset it"
    )


def test_long_values_are_cut() -> None:
    assert complaint(tier="x" * 1000) == (
        f"--tier cannot be '{'x' * 99}...: write one of free, tier-1, tier-2, tier-3, tier-4, tier-5"
    )


class TestSecret:
    def test_shows_nothing(self) -> None:
        settings = load_settings(api_key=KEY)
        secret = settings.api_key
        assert secret is not None
        assert secret.reveal() == KEY
        shown = [repr(secret), str(secret), f"{secret}", f"{secret:>5}", f"{secret!r}", f"{secret}", repr(settings)]
        shown += [str(dataclasses.asdict(settings)), "%s %r" % (secret, secret), str([secret])]  # noqa: UP031 - as a log does
        assert shown[:5] == ["Secret('***')", "***", "***", "  ***", "Secret('***')"]
        assert not [text for text in shown if KEY in text]

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_is_not_pickled(self, protocol: int) -> None:
        message = "^a secret is not pickled; load the settings again in the process that needs them$"
        with pytest.raises(TypeError, match=message):
            pickle.dumps(Secret(KEY), protocol)
        with pytest.raises(TypeError, match=message):
            pickle.dumps(load_settings(api_key=KEY), protocol)
        with pytest.raises(TypeError):
            json.dumps(Secret(KEY))

    def test_is_a_value(self) -> None:
        secret = Secret(KEY)
        assert copy.copy(secret) is copy.deepcopy(secret) is secret
        assert {secret, Secret(KEY), Secret("other")} == {Secret(KEY), Secret("other")}
        assert secret != KEY

    @pytest.mark.parametrize(
        "text",
        [
            "api_key = '{key}'\nrpm = 0",
            "api_key = '{key} x'",
            "apikey = '{key}'",
            "api_key = '{key}'\nazure_api_version = 'x'",
            "api_key = '{key}'\ntier = 1\nbroken",
        ],
    )
    @pytest.mark.parametrize("place", ["flag", "environment", ".env", "ratelimit.toml"])
    def test_is_in_no_traceback(self, text: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [row.partition(" = ") for row in text.format(key=KEY).splitlines()]
        given: dict[str, Any] = {name: value.strip("'") for name, _, value in rows}
        if place == "flag":
            error = _raised(**given)
        else:
            if place == "environment":
                for name, value in given.items():
                    monkeypatch.setenv(f"{PREFIX}{name.upper()}", value or "x")
            elif place == ".env":
                _wrote(".env", "".join(f"{PREFIX}{name.upper()}='{value or 'x'}'\n" for name, value in given.items()))
            else:
                _wrote("ratelimit.toml", "[settings]\n" + text.format(key=KEY))
            error = _raised()
        assert error.__context__ is None
        assert KEY not in str(error)
        trace = error.__traceback__
        assert trace is not None
        ours = traceback.TracebackException(BadSettings, error, trace.tb_next, capture_locals=True)
        assert "load_settings" in (shown := "".join(ours.format()))
        assert not re.search(KEY, shown)

    @pytest.mark.parametrize("line", ["OPENAI_API_KEY {}", "OPENAI_API_KEY='{}", "OPENAI_API_KEY={}\nRATELIMIT_RPM 5"])
    def test_is_in_no_traceback_of_a_line_that_cannot_be_parsed(self, line: str) -> None:
        _wrote(".env", line.format(KEY) + "\n")
        error = _raised()
        assert (error.__context__, KEY in str(error)) == (None, False)
        assert error.__traceback__ is not None
        ours = traceback.TracebackException(BadSettings, error, error.__traceback__.tb_next, capture_locals=True)
        assert not [line for line in ours.format() if KEY in line]

    @pytest.mark.parametrize("value", [[KEY], {"is": KEY}, 5, ""])
    def test_is_in_no_traceback_if_it_is_no_text(self, value: object) -> None:
        error = _raised(api_key=value)
        assert str(error) == (
            "--api-key cannot be what it is (not shown): "
            "write the key as the vendor gave it: letters, digits and signs, no spaces"
        )
        assert error.__traceback__ is not None
        ours = traceback.TracebackException(BadSettings, error, error.__traceback__.tb_next, capture_locals=True)
        assert not [line for line in ours.format() if KEY in line]

    def test_a_password_in_the_address_is_not_shown(self) -> None:
        assert complaint(base_url=f"https://me:{KEY}@host/v1") == (
            "--base-url cannot be what it is (not shown): write an http or https URL such as https://api.openai.com/v1"
        )


def _raised(**flags: object) -> BadSettings:
    try:
        load_settings(**flags)
    except BadSettings as error:
        return error
    raise AssertionError("nothing was raised")


def test_settings_are_plain_and_frozen() -> None:
    settings = load_settings(api_key=KEY)
    for name in (*NAMES, "origins"):
        assert type(getattr(settings, name)).__module__ in {"builtins", "ratelimit.secret"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.tier = "free"  # type: ignore[misc]  # that is the point


def test_importing_settings_imports_no_pydantic() -> None:
    code = "import sys, ratelimit.settings; print([m for m in sys.modules if m.startswith('pydantic')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_documentation_has_every_setting_and_no_other() -> None:
    text = DOCS.read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", text, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(NAMES)
    extra = {AZURE_KEY: "api_key", **VENDOR}
    for name, variables, default in rows:
        also = {variable for variable, meant in extra.items() if meant == name}
        assert set(re.findall(r"`(\w+)`", variables)) == {f"{PREFIX}{name.upper()}", *also}
        value = getattr(load_settings(), name)
        shown = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        shown = shown.lower() if isinstance(value, bool) else shown
        assert name == "tiers_file" or default.strip("`") == shown
    known = {f"{PREFIX}{name.upper()}" for name in NAMES} | set(extra)
    assert set(re.findall(rf"\b(?:{PREFIX}|OPENAI_|AZURE_)\w+", text)) <= known | {PREFIX}


def test_what_windows_puts_before_a_file_is_no_part_of_it() -> None:
    for name, text in ((".env", "OPENAI_API_KEY=sk-1\n"), ("ratelimit.toml", '[settings]\ntier = "tier-4"\n')):
        Path(name).write_text(text, encoding="utf-8-sig")
    settings = load_settings()
    assert (settings.api_key and settings.api_key.reveal(), settings.tier) == ("sk-1", "tier-4")

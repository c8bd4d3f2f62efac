"""Each kind of bad file of limits, and what is said about it behind the file's name."""

from __future__ import annotations

T1 = "[models.gpt-4o-mini.tiers.tier-1]\n"
AT = "[models.gpt-4o-mini.tiers.tier-1]"
WHOLE = 'write one without quotes, such as 500, or "none" where there is no such limit'
USD = 'write a number of at least 0 without quotes, such as 0.15, or "none" where it is not known'
URL = 'write one with http:// or https:// and no key, such as "https://api.groq.com/openai/v1"'
LINE = "write it in quotes, without control characters"
NEW = "[models.new]\nlimits.rpm = 1\n"
MODEL_KEYS = (
    "The keys are snapshots, aliases, context_window, max_output, endpoints, reasoning, prices, "
    "limits, tiers, sources, "
    "notes, provider, long_context_of, long_context_over"
)


def no_whole(shown: str) -> str:
    return f", {AT} rpm: {shown} is no whole number from 1 to 999,999,999,999; {WHOLE}"


BAD = {
    "a string for a number": (T1 + 'rpm = "600"', no_whole('"600"')),
    "a truth value for a number": (T1 + "rpm = true", no_whole("true")),
    "a fraction for a whole number": (T1 + "rpm = 1.5", no_whole("1.5")),
    "not a number": (T1 + "rpm = nan", no_whole("nan")),
    "infinity": (T1 + "rpm = -inf", no_whole("-inf")),
    "negative": (T1 + "rpm = -5", no_whole("-5")),
    "zero": (T1 + "rpm = 0", no_whole("0")),
    "too large": (T1 + "rpm = 1_000_000_000_000", no_whole("1000000000000")),
    "far too large": (T1 + "rpm = 0x" + "f" * 9_000, no_whole("a number of more than 60 digits")),
    "a list for a number": (T1 + "rpm = [1]", no_whole("a list")),
    "a table for a number": (T1 + "rpm = {}", no_whole("a table")),
    "a date for a number": (T1 + "rpm = 2026-11-21", no_whole("2026-11-21")),
    "control characters": (T1 + 'rpm = "\\u001b[2J\\u202e\\n"', no_whole('"\\x1b[2J\\u202e\\n"')),
    "a long string": (T1 + f'rpm = "{"9" * 90}"', no_whole(f'"{"9" * 60}..."')),
    "an unknown key with a near one": (
        T1 + "rmp = 5",
        f", {AT}: rmp is not a key of this table; did you mean rpm? The keys are rpm, rpd, tpm, batch_queue",
    ),
    "an unknown key": (
        T1 + '"\\u001b" = 5',
        f', {AT}: "\\x1b" is not a key of this table; take it out; The keys are rpm, rpd, tpm, batch_queue',
    ),
    "an unknown tier": (
        "[models.gpt-4o-mini.tiers.tier-6]\nrpm = 5",
        (
            ", [models.gpt-4o-mini.tiers]: tier-6 is not a key of this table; did you mean tier-5? The keys are free, "
            "tier-1, tier-2, tier-3, tier-4, tier-5"
        ),
    ),
    "an unknown key of a model": (
        '[models."gpt-5.1"]\ncontext = 5',
        f', [models."gpt-5.1"]: context is not a key of this table; did you mean context_window? {MODEL_KEYS}',
    ),
    "an unknown table": (
        "[model.x]\nlimits.rpm = 5",
        ": model is not a key of such a file; did you mean models? The keys are models, providers, sources, settings",
    ),
    "an unknown price": (
        "[models.gpt-4o-mini.prices]\ncached = 1",
        (
            ", [models.gpt-4o-mini.prices]: cached is not a key of this table; did you mean cached_input? The keys are "
            "input, cached_input, output, batch_discount, fine_tuned_input, fine_tuned_output, training"
        ),
    ),
    "an unknown group of sources": (
        "[models.gpt-4o-mini.sources]\nlimit = 'x'",
        (
            ", [models.gpt-4o-mini.sources]: limit is not a key of this table; "
            "did you mean limits? The keys are limits, "
            "sizes, prices"
        ),
    ),
    "an unknown key of a source": (
        "[sources.x]\ntext = 'x'\nurl = 'y'",
        ", [sources.x]: url is not a key of this table; take it out; The keys are text, as_of, grade",
    ),
    "an unknown key of a provider": (
        "[providers.x]\nbase_url = 'http://x'\nkey = 'y'",
        ", [providers.x]: key is not a key of this table; take it out; The keys are base_url",
    ),
    "a tier that is no table": (
        "[models.gpt-4o-mini.tiers]\nfree = 'unsupported'",
        (
            ', [models.gpt-4o-mini.tiers] free: "unsupported" is neither a table nor "not supported"; write '
            '{ rpm = 500, tpm = 200_000 }, or "not supported" where the tier cannot use the model'
        ),
    ),
    "a model that is no table": (
        "[models]\ngpt-4o-mini = 5",
        ", [models] gpt-4o-mini: 5 is not a table; write [models.gpt-4o-mini] on a line of its own, and its keys below",
    ),
    "models that are no table": (
        "models = true",
        ", models: true is not a table; write [models] on a line of its own, and its keys below",
    ),
    "a model that says nothing": (
        "[models.gpt-4o-mini]",
        (
            ", [models.gpt-4o-mini]: it says nothing; "
            "write limits under [models.gpt-4o-mini.tiers.tier-1], such as rpm = 500"
        ),
    ),
    "a new model without limits": (
        "[models.new]\nmax_output = 5",
        (
            ", [models.new]: it is a new model without limits; "
            "write some under [models.new.tiers.tier-1], such as rpm = 500"
        ),
    ),
    "a tier that says nothing": (
        T1,
        f', {AT}: it says nothing; write rpm, rpd, tpm or batch_queue, as a number or "none"',
    ),
    "limits that say nothing": (
        "[models.new.limits]",
        ', [models.new.limits]: it says nothing; write rpm, rpd, tpm or batch_queue, as a number or "none"',
    ),
    "a name that is none": (
        '[models."a b"]\nlimits.rpm = 5',
        ', [models."a b"]: this is not the name of a model; write the name as requests use it, in quotes',
    ),
    "a name of control characters": (
        '[models."\\u001b"]\nlimits.rpm = 5',
        ', [models."\\x1b"]: this is not the name of a model; write the name as requests use it, in quotes',
    ),
    "an empty name": (
        '[models.""]\nlimits.rpm = 5',
        ', [models.""]: this is not the name of a model; write the name as requests use it, in quotes',
    ),
    "a snapshot claimed twice": (
        "[models.a]\nlimits.rpm = 1\nsnapshots = ['s']\n[models.b]\nlimits.rpm = 1\nsnapshots = ['s']",
        ", [models.b] snapshots: s is a name of a already; leave it with one of the two",
    ),
    "a snapshot of a shipped model": (
        NEW + "snapshots = ['gpt-4o-mini-2024-07-18']",
        (
            ", [models.new] snapshots: gpt-4o-mini-2024-07-18 is a name of gpt-4o-mini already; "
            "leave it with one of the two"
        ),
    ),
    "an alias that is a model": (
        NEW + "aliases = ['gpt-4o']",
        ", [models.new] aliases: gpt-4o is a name of gpt-4o already; leave it with one of the two",
    ),
    "a model that is a snapshot": (
        "[models.gpt-4o-mini-2024-07-18.tiers.tier-1]\nrpm = 600",
        (
            ", [models.gpt-4o-mini-2024-07-18]: gpt-4o-mini-2024-07-18 is a name of gpt-4o-mini already; "
            "change the limits "
            "of both under [models.gpt-4o-mini]: all its names share them"
        ),
    ),
    "an alias that is the name itself": (
        NEW + "aliases = ['new']",
        ", [models.new] aliases: new is a name of new already; leave it out",
    ),
    "a snapshot that is an alias too": (
        NEW + "aliases = ['n']\nsnapshots = ['n']",
        ", [models.new] snapshots: n is a name of new already; leave it out",
    ),
    "a snapshot named twice": (
        NEW + "snapshots = ['n', 'n']",
        ', [models.new] snapshots: "n" stands there twice; write the names of models as requests use them, each once',
    ),
    "a snapshot with a space": (
        NEW + "snapshots = ['n m']",
        ', [models.new] snapshots: "n m" has a space in it; write the names of models as requests use them, each once',
    ),
    "a snapshot that is no list": (
        NEW + "snapshots = 'n'",
        ', [models.new] snapshots: "n" is not a list; write a list of texts in quotes, such as ["one", "two"]',
    ),
    "a snapshot that is no text": (
        NEW + "snapshots = [1]",
        f", [models.new] snapshots: 1 is not text of one line; {LINE}",
    ),
    "a note of two lines": (
        NEW + 'notes = ["a\\nb"]',
        f', [models.new] notes: "a\\nb" is not text of one line; {LINE}',
    ),
    "an empty endpoint": (NEW + 'endpoints = [" "]', f', [models.new] endpoints: " " is not text of one line; {LINE}'),
    "reasoning that is no truth value": (
        NEW + "reasoning = 'yes'",
        ', [models.new] reasoning: "yes" is neither true nor false; write true or false, without quotes',
    ),
    "a context window that is no number": (
        NEW + "context_window = '128k'",
        f', [models.new] context_window: "128k" is no whole number from 1 to 999,999,999,999; {WHOLE}',
    ),
    "a price in words": (
        NEW + "prices = { input = '$1', output = 1 }",
        f', [models.new.prices] input: "$1" is no price in USD per million tokens; {USD}',
    ),
    "a negative price": (
        NEW + "prices = { input = 1, output = -0.5 }",
        f", [models.new.prices] output: -0.5 is no price in USD per million tokens; {USD}",
    ),
    "a price that is no number": (
        NEW + "prices = { input = nan, output = 1 }",
        f", [models.new.prices] input: nan is no price in USD per million tokens; {USD}",
    ),
    "a price that is a truth value": (
        NEW + "prices = { input = true, output = 1 }",
        f", [models.new.prices] input: true is no price in USD per million tokens; {USD}",
    ),
    "a discount in percent": (
        NEW + "prices = { input = 1, output = 1, batch_discount = 50 }",
        (
            ", [models.new.prices] batch_discount: 50 is no part of a price; "
            "write a number from 0 to 1 without quotes, such "
            'as 0.5 for half the price, or "none"'
        ),
    ),
    "half a price": (
        NEW + "prices = { input = 1 }",
        ", [models.new.prices]: output is missing; write output in USD per million tokens, 0 where it costs nothing",
    ),
    "a price taken away": (
        "[models.gpt-4o-mini.prices]\ninput = 'none'",
        (
            ", [models.gpt-4o-mini.prices]: input is missing; "
            "write input in USD per million tokens, 0 where it costs nothing"
        ),
    ),
    "an unknown source": (
        NEW + "sources.limits = 'blog'",
        (
            ", [models.new.sources] limits: there is no source blog; write its text under [sources.blog], or one of "
            "model-page, models-overview, pricing, forum-1028595, astra"
        ),
    ),
    "a source without text": ("[sources.x]", ', [sources.x]: text is missing; write text = "..." under it'),
    "a source of another day": (
        "[sources.x]\ntext = 'x'\nas_of = '2026'",
        ', [sources.x] as_of: "2026" is not a day; write it without quotes, such as 2026-11-21',
    ),
    "a source of a moment": (
        "[sources.x]\ntext = 'x'\nas_of = 2026-11-21T10:00:00",
        ", [sources.x] as_of: 2026-11-21 10:00:00 is not a day; write it without quotes, such as 2026-11-21",
    ),
    "a source of another grade": (
        "[sources.x]\ntext = 'x'\ngrade = 'sure'",
        ', [sources.x] grade: "sure" is not a grade; write "documented", "observed", "inferred" or "yours"',
    ),
    "an unknown provider": (
        NEW + "provider = 'groq'",
        ", [models.new] provider: there is no provider groq; write its base_url under [providers.groq]",
    ),
    "an unknown provider beside another": (
        NEW + "provider = 'grok'\n[providers.groq]\nbase_url = 'http://x'",
        ", [models.new] provider: there is no provider grok; write its base_url under [providers.grok], or one of groq",
    ),
    "a provider without address": (
        "[providers.groq]",
        ', [providers.groq]: base_url is missing; write base_url = "..." under it',
    ),
    "an address without scheme": (
        "[providers.x]\nbase_url = 'api.groq.com'",
        f", [providers.x] base_url: this is not a base URL; {URL}",
    ),
    "an address with a key": (
        "[providers.x]\nbase_url = 'https://sk-secret@api.groq.com'",
        f", [providers.x] base_url: this is not a base URL; {URL}",
    ),
    "an address with a query": (
        "[providers.x]\nbase_url = 'https://api.groq.com?key=sk-secret'",
        f", [providers.x] base_url: this is not a base URL; {URL}",
    ),
    "an address with a wrong port": (
        "[providers.x]\nbase_url = 'https://api.groq.com:99999'",
        f", [providers.x] base_url: this is not a base URL; {URL}",
    ),
    "an address that is a number": (
        "[providers.x]\nbase_url = 5",
        f", [providers.x] base_url: this is not a base URL; {URL}",
    ),
    "a long part of nothing": (
        NEW + "long_context_of = 'gpt-9'\nlong_context_over = 5",
        (
            ", [models.new] long_context_of: there is no model gpt-9 that could have a long-context part; "
            "name one of the table"
        ),
    ),
    "a long part of a long part": (
        NEW + "long_context_of = 'gpt-4.1-long-context'\nlong_context_over = 5",
        (
            ', [models.new] long_context_of: there is no model "gpt-4.1-long-context" that could have a '
            "long-context part; "
            "name one of the table"
        ),
    ),
    "a long part without a length": (
        NEW + "long_context_of = 'gpt-4o'",
        ", [models.new]: long_context_over is missing; write it in input tokens, such as 128_000",
    ),
    "a length without a long part": (
        NEW + "long_context_over = 5",
        ", [models.new]: long_context_over has no long_context_of; write the model that shorter requests count against",
    ),
    "a second long part": (
        NEW + "long_context_of = 'gpt-4.1'\nlong_context_over = 5",
        (
            ', [models.new] long_context_of: "gpt-4.1" has "gpt-4.1-long-context" for its long requests already; '
            "change that one"
        ),
    ),
    "not TOML": (
        "rpm = = 5",
        ": this is not TOML (Invalid value (at line 1, column 7)); mend that place",
    ),
    "a key given twice": (
        T1 + "rpm = 5\nrpm = 6",
        ": this is not TOML (Cannot overwrite a value (at line 3, column 8)); mend that place",
    ),
    "nested too deeply": (
        "x = " + "[" * 5_000,
        ": its values are nested too deeply; write no more than tables in tables",
    ),
}

"""Results as the tables and plots of the documents. Nothing here measures, and nothing here has a figure of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench import plots
from bench.record import Record, Row, meets, shown

Results = Mapping[str, Record]


def markdown(heads: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    """Return a table; what is not text is shown as figures are."""
    heads = list(heads)
    rows = [[shown(cell) for cell in line] for line in lines]
    rule = "|".join("---" if place == 0 else "--:" for place in range(len(heads)))
    return "\n".join([f"| {' | '.join(heads)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])


def percent(part: float) -> str:
    """Return a part of a whole; what is a little below a whole is not rounded up to it."""
    return f"{int(part * 10_000) / 100:.2f} %"


def origin(record: Record) -> str:
    """Return a line that says where the figures come from."""
    host, load = record.machine, record.machine.get("load_average")
    where = ", ".join(str(host[key]) for key in ("processor", "system") if host.get(key))
    cores = f", {host['cores']} cores" if host.get("cores") else ""
    busy = f", load average {load[0]:g}" if load else ""
    made = ", ".join(f"{name} {number}" for name, number in record.versions.items() if "(" not in name)
    verdict = "All targets met." if record.passed else "**A target was missed.**"
    return f"`{record.command}` on {where}{cores}{busy}; {made}. {verdict}"


def caps_virtual(record: Record) -> str:
    """Return a line for each simulation, and how many cells it stands for."""
    played: dict[tuple[str, str], list[Row]] = {}
    for row in record.rows:
        played.setdefault((row["bound"], row["played_as"]), []).append(row)
    heads = ("Bound by", "played as", "cells", "used of the cap", "429s", "wait p50, s", "p99, s", "verdict")
    lines = [
        (
            bound,
            name,
            len(rows),
            percent(rows[0]["utilisation"]),
            rows[0]["refused"],
            rows[0]["wait_p50"],
            rows[0]["wait_p99"],
            "**missed**" if record.fails(rows[0]) else "met",
        )
        for (bound, name), rows in sorted(played.items())
    ]
    return "\n\n".join([markdown(heads, lines), origin(record)])


def caps_other(results: Results) -> str:
    """Return how the other ways of counting and charging went, one line each."""
    heads = ("Service", "cells", "lowest use of the cap", "429s in the first half", "in the second", "verdict")
    lines = []
    for name, record in sorted(results.items()):
        rows = record.rows
        if name.startswith("caps-virtual-") and rows:
            late = sum(row["refused_late"] for row in rows)
            early = sum(row["refused"] for row in rows) - late
            lowest = percent(min(row["utilisation"] for row in rows))
            verdict = "met" if record.passed else "**missed**"
            lines.append((name.removeprefix("caps-virtual-"), len(rows), lowest, early, late, verdict))
    return markdown(heads, lines) if lines else "No such run is kept."


def caps_real(record: Record) -> str:
    """Return a line for each cell."""
    heads = (
        "Cell",
        "cap a minute",
        "achieved",
        "used of the cap",
        "of all there was",
        "429s",
        "CPU per request, µs",
        "load",
        "verdict",
    )
    lines = [
        (
            row["cell"],
            row["cap"],
            row["achieved"],
            percent(row["utilisation"]),
            percent(row["of_bound"]),
            row["refused"],
            row["cpu_us"],
            row["load_after"],
            "**missed**" if record.fails(row) else "met",
        )
        for row in record.rows
    ]
    return "\n\n".join([markdown(heads, lines), origin(record)])


def peers(record: Record) -> str:
    """Return a table for each scenario, ours first and the others by what they used of the limit."""
    heads = (
        "Client",
        "bound ÷ wall",
        "429s per 1,000",
        "lost",
        "unfinished",
        "sent twice",
        "CPU s per 1,000",
        "peak RSS, MB",
    )
    parts = ["![Fluid bound over wall time, by scenario](plots/peers.svg)"]
    for name in dict.fromkeys(row["scenario"] for row in record.rows):
        rows = [row for row in record.rows if row["scenario"] == name]
        rows.sort(key=lambda row: (row["peer"] != "ratelimit", -row["bound_to_wall"]))
        lines = [
            (
                f"**{row['peer']}**" if row["peer"] == "ratelimit" else row["peer"],
                f"{row['bound_to_wall']:.3f}",
                row["refused_per_1000"],
                row["lost"],
                row["unfinished"],
                row["sent_twice"],
                f"{row['cpu_ms_per_1000'] / 1000:.2f}" if row["lost"] + row["unfinished"] < row["requests"] else None,
                row["rss_mb"],
            )
            for row in rows
        ]
        head = f"**{name}**: {rows[0]['what']}; {rows[0]['requests']:,} requests, at best {rows[0]['bound']:g} s."
        parts += [" ".join([head, *standing(record, rows)]), markdown(heads, lines)]
    made = ", ".join(f"{name} {number}" for name, number in record.versions.items() if "(" in name)
    parts += [f"Versions: {made}.", *(f"{note}." for note in record.notes), origin(record)]
    return "\n\n".join(parts)


_STANDING = {
    "behind": "Not first here.",
    "more_refused": "Not the fewest 429s here.",
    "not_once": "Not each once here.",
}


def standing(record: Record, rows: Iterable[Row]) -> list[str]:
    """Return which targets we miss among some rows."""
    mine = [row for row in rows if record.fails(row)]
    return [
        f"**{text}**"
        for name, text in _STANDING.items()
        if not all(meets(row, name, record.targets[name]) for row in mine)
    ]


COLUMNS: Mapping[str, Mapping[str, str]] = {
    "core": {
        "what": "Each call",
        "us": "µs",
        "times": "times an acquire",
        "lowest": "in the best round",
        "highest": "in the worst",
    },
    "admission": {
        "what": "By",
        "per_second": "admissions a second",
        "to_semaphore": "times the semaphore's",
        "late_p50_ms": "wakes late by, p50 ms",
        "late_p99_ms": "p99 ms",
        "sleep_p50_ms": "a bare sleep, p50 ms",
        "sleep_p99_ms": "p99 ms",
    },
    "wire": {
        "what": "Client",
        "per_second": "requests a second",
        "lowest": "slowest round",
        "highest": "fastest round",
        "cpu_us": "CPU per request, µs",
        "to_bare": "times the bare loop's rate",
        "to_sdk": "times the SDK's rate",
        "cpu_us_more": "CPU above the bare loop, µs",
    },
    "dropin": {
        "what": "Client",
        "per_second": "requests a second",
        "cpu_us": "CPU per request, µs",
        "more_cpu": "more CPU, part",
        "less_throughput": "less throughput, part",
    },
    "jobs": {
        "what": "Job",
        "rows": "rows",
        "seconds": "took, s",
        "peak_mb": "peak RSS, MB",
        "growth": "memory, end to start",
        "resume_s": "resumed after, s",
        "cpu_us": "CPU per row, µs",
        "cpu_us_bare": "of a bare loop, µs",
        "to_bare": "bare ÷ ours",
        "least_s": "least by the limits, s",
        "fluid": "least ÷ took",
        "refused": "429s",
    },
    "batch": {
        "what": "Job",
        "rows": "rows",
        "batches": "batches",
        "by_batch": "answered by batch",
        "took_h": "took, virtual hours",
        "late_s": "after the deadline, s",
        "most": "most",
        "fill": "filled",
        "least": "least",
        "too_much": "refused for their tokens",
        "not_once": "not once",
        "executed_twice": "executed twice",
        "crashes": "crashes",
        "cpu_us": "CPU per row, µs",
        "growth": "the most rows to the fewest",
        "rss_mb": "peak RSS, MB",
    },
    "mock_ceiling": {
        "what": "Server",
        "per_second": "requests a second",
        "cpu_us": "CPU per request, µs",
        "per_core_second": "a second of a core",
        "to_application": "to one route",
        "to_handler": "to no router",
    },
    "shared": {
        "store": "Kept in",
        "what": "programs",
        "bound": "bound by",
        "utilisation": "used of the cap",
        "of_a_day": "of a day's",
        "meanwhile": "from fault to recovery",
        "hungry": "by the hungry one",
        "heavy": "by the heavy one",
        "refused_per_1000": "429s per 1,000",
        "refused_amid_faults_per_1000": "with faults",
        "cpu_us": "CPU per admission, µs",
        "cpu_us_more": "more than alone, µs",
        "to_alone": "times alone",
        "wait_p99_ms": "waited without need, p99 ms",
        "saved_s": "saved up at the start, s",
        "took_s": "took, s",
    },
    "ray": {
        "store": "Kept in",
        "rows": "rows",
        "rpm": "RPM",
        "workers": "workers",
        "killed": "killed",
        "utilisation": "used of the cap",
        "steady_s": "over, s",
        "refused_per_1000": "429s per 1,000",
        "without_one_result": "rows without just one result",
        "errors": "errors",
        "sent_twice": "sent twice",
        "took_s": "took, s",
    },
    "soak": {
        "tier": "Tier",
        "seconds": "seconds",
        "sent": "sent",
        "lost": "lost",
        "faults": "faults",
        "refused": "429s",
        "memory_mb": "RSS, MB",
        "memory_growth": "memory, 4th quarter to 2nd",
        "tasks_growth": "tasks, 4th to 2nd",
        "tasks_left": "tasks left",
        "cpu_us": "CPU per request, µs",
    },
    "kills": {
        "what": "Killed",
        "kills": "times",
        "jobs": "jobs run",
        "rows": "rows",
        "lost_or_wrong": "lost or wrong",
        "in_flight_at_kills": "in flight at the kills",
        "answered_twice": "answered twice",
        "beyond_in_flight": "beyond in flight",
        "unreported": "unreported",
        "seconds": "seconds",
    },
}
"""What stands in the table of a bench, and under which heading; a column that no row fills is left out."""


def plain(record: Record) -> str:
    """Return the rows of a run as they are, and how it stands by its targets."""
    columns = {name: head for name, head in COLUMNS[record.bench].items() if any(name in row for row in record.rows)}
    lines = [[row.get(name) for name in columns] for row in record.rows]
    return "\n\n".join([markdown(columns.values(), lines), *judged(record), origin(record)])


def judged(record: Record) -> list[str]:
    """Return each target with what came nearest to missing it, and what else the run has to say."""
    lines = [f"- {text}: {'met' if met else '**missed**'}" for text, met in record.verdicts]
    return ["\n".join(lines), *(f"{note[:1].upper()}{note[1:]}." for note in record.notes)]


def scale(record: Record) -> str:
    """Return how cost grows, a table for each thing that does."""
    parts = []
    for what in dict.fromkeys(row["what"] for row in record.rows):
        parts.append(f"![Cost by {what}](plots/scale-{what}.svg)")
        rows = [row for row in record.rows if row["what"] == what]
        names = [name for name in rows[0] if name not in {"what", "growth"}]
        parts.append(
            markdown([name.replace("_", " ") for name in names], [[row[name] for name in names] for row in rows])
        )
    return "\n\n".join([*parts, *judged(record), origin(record)])


TABLES: Mapping[str, Callable[[Record], str]] = {
    "caps-virtual": caps_virtual,
    "caps-real": caps_real,
    "peers": peers,
    "core": plain,
    "admission": plain,
    "wire": plain,
    "dropin": plain,
    "jobs": plain,
    "batch": plain,
    "mock_ceiling": plain,
    "scale": scale,
    "shared": plain,
    "ray": plain,
    "soak": plain,
    "kills": plain,
}


def readme(results: Results) -> str:
    """Return the few lines for those who have just come."""
    lines: list[tuple[str, str]] = []
    if record := results.get("caps-virtual"):
        lowest = min(row["utilisation"] for row in record.rows)
        refused = sum(row["refused"] for row in record.rows)
        what = f"every model on every tier, by each of its limits ({len(record.rows)} cells, virtual time)"
        lines.append((what, f"at least {percent(lowest)} of the cap used, {refused} 429s"))
    if record := results.get("caps-real"):
        for row in record.rows:
            what = f"{row['cell']} ({row['cap']:,} a minute), real time over sockets"
            used = f"{percent(row['utilisation'])} late in the run, {percent(row['of_bound'])} overall"
            lines.append((what, f"{used}, {row['refused']} 429s"))
    if record := results.get("peers"):
        lines += compared(record)
    if record := results.get("core"):
        ratio = next(row["ratio"] for row in record.rows if "ratio" in row)
        what = "reserving and settling over three limits at once"
        lines.append((what, f"{shown(ratio)} times one acquire of a bare aiolimiter"))
    return markdown(("Measured", ""), lines)


def compared(record: Record) -> Iterable[tuple[str, str]]:
    """Yield how we stand in each scenario beside the best of the others that lost nothing."""
    for name in dict.fromkeys(row["scenario"] for row in record.rows):
        rows = [row for row in record.rows if row["scenario"] == name]
        mine = next((row for row in rows if row["peer"] == "ratelimit"), None)
        others = [row for row in rows if row is not mine and not row["lost"] and not row["unfinished"]]
        if mine and others:
            best = max(others, key=lambda row: row["bound_to_wall"])
            what = f"same job, same server: {mine['what']}"
            ours = f"{mine['bound_to_wall']:.2f} of the ideal speed, {shown(mine['refused_per_1000'])} 429s per 1,000"
            theirs = f"{best['peer']} {best['bound_to_wall']:.2f}, {shown(best['refused_per_1000'])}"
            yield what, f"{ours} (best other: {theirs})"


def figures(results: Results) -> dict[str, str]:
    """Return the plots, by the names of their files."""
    found = {}
    counted = {
        way: min(row["utilisation"] for row in record.rows)
        for way in ("bucket", "fixed", "sliding", "quantised")
        if (record := results.get("caps-virtual" if way == "bucket" else f"caps-virtual-{way}")) and record.rows
    }
    if counted:
        found["counting.svg"] = plots.bars("How servers count", {"lowest use of a limit": counted})
    if record := results.get("peers"):
        groups: dict[str, dict[str, float]] = {}
        for row in record.rows:
            groups.setdefault(row["what"], {})[row["peer"]] = row["bound_to_wall"]
        found["peers.svg"] = plots.bars("Fluid bound ÷ wall time: 1 is the ideal", groups)
    if record := results.get("scale"):
        for what in dict.fromkeys(row["what"] for row in record.rows):
            rows = [row for row in record.rows if row["what"] == what]
            names = [key for key in rows[0] if key not in {"what", "growth", what}]
            series = {
                key.replace("_", " "): [(row[what], row[key]) for row in rows if row[key] is not None] for key in names
            }
            found[f"scale-{what}.svg"] = plots.lines(f"Cost by {what}, relative to the fewest", what, series)
    return found

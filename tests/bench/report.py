"""What was measured, as a table, as JSON and as docs/benchmarks.md."""

import json
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One ratio beside its goal. A void one was measured with a client that took too much of the machine."""

    name: str
    ratio: float
    goal: float
    at_least: bool = True
    void: bool = False
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        met = self.ratio >= self.goal if self.at_least else self.ratio <= self.goal
        return met and not self.void

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.goal:g}"

    @property
    def verdict(self) -> str:
        return "void: the client took over 40 % of the CPU" if self.void else "holds" if self.holds else "does not hold"


def as_json(results: list[Result]) -> str:
    rows: list[dict[str, Any]] = [
        {
            "name": result.name,
            "ratio": round(result.ratio, 3),
            "goal": result.goal,
            "holds": result.holds,
            "comparison": "at least" if result.at_least else "at most",
            "figures": result.figures,
        }
        for result in results
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def as_text(results: list[Result]) -> str:
    lines = []
    for result in results:
        lines.append(f"{result.name}: {result.ratio:.2f} (goal {result.wanted}): {result.verdict}")
        lines += [f"    {name}: {value}" for name, value in result.figures.items()]
    return "\n".join(lines)


def as_document(results: list[Result], command: str) -> str:
    """docs/benchmarks.md: the figures of one machine, and how they are made anywhere else."""
    rows = [
        f"| {result.name} | {result.ratio:.2f} | {result.wanted} | {result.verdict} | "
        f"{'; '.join(f'{name}: {value}' for name, value in result.figures.items())} |"
        for result in results
    ]
    return "\n".join([INTRODUCTION.format(machine=machine(), command=command, day=datetime.now(UTC).date()), *rows, ""])


def machine() -> str:
    """Processor, cores, memory and versions; no name of the machine."""
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    cores = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024**2
    versions = f"Python {platform.python_version()}, {postgres_version()}"
    return f"{cores} cores of {model}, {memory} GiB, {versions}"


def postgres_version() -> str:
    done = subprocess.run(["psql", "--version"], capture_output=True, text=True, check=True)
    return "PostgreSQL " + done.stdout.split()[2]


INTRODUCTION = """# Benchmarks

Ratios, not times: ours beside a peer or a limit, interleaved in one run on one machine, so that a slower machine gives
slower figures and the same ratios. Each is the median of its rounds.

```
{command}
```

Measured on {day}: {machine}.

- **Acknowledged**: signed deliveries of 3 KB by wrk over 16 connections, on granian with two workers and on PostgreSQL
  with every commit on disk. The peer is a view of the same server that inserts the body into a table of its own; it
  is answered where deliveries are, before the middleware of pages. What drains the inbox is left out of both, as on a
  site with Redis, where workers do it.
- **Beside dj-stripe**: the same signed deliveries, both under granian with the same options on the same PostgreSQL;
  dj-stripe verifies them, logs the request, and stores its Event; none of its handlers is called, which would ask
  Stripe for what the event is about.
- **Drained**: paid checkouts of one hot month, by `inbox.drain`: entries, totals, donors and receipts included. As many
  workers drain as serve deliveries, one a core.
- **meter.json**: the peer is a view of the same server that answers with as many constant bytes.
- **export ledger**: from the first read to the last byte, in a process that is up, as a site is; the peer is
  `psql \\copy` of the same columns, unordered and unformatted.
- **rebuild**: all months and days of a year with three tiers, from one pass over the ledger; the states of single gifts
  are left out. The peer is PostgreSQL's own parallel `count(*)` of the same rows.

A round is void where the client takes over 40 % of the machine's CPU.

| what | ratio | goal | | figures |
| --- | --- | --- | --- | --- |"""

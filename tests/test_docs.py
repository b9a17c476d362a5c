"""What operators and others build on is documented: settings, commands, columns, fields, addresses, links."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest

from donations.processors.stripe.events import READERS
from donations.selectors.finance import FILES
from tests.environment import settings_read
from tests.faults.__main__ import NAMES as FAULTS

ROOT = Path(__file__).resolve().parent.parent
OPERATING = (ROOT / "docs/operating.md").read_text()
DOCUMENTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))

NOT_DELIVERED = {
    # What these tell comes with `invoice.paid`, or one of those that say what became of the invoice instead.
    "invoice.created",
    "invoice.finalized",
    "invoice.payment_succeeded",
    # A payout that is on its way: its end is told.
    "payout.created",
    "payout.updated",
    # Our own: it is asked for.
    "sweep.balance_transaction",
}
"""Types that are read where they come, and need not."""


def commands() -> list[Path]:
    folder = ROOT / "donations/management/commands"
    return sorted(path for path in folder.glob("*.py") if path.stem != "__init__")


def constant(path: str, name: str) -> list[str]:
    """A list of texts that a module assigns to a name, read without importing it."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
    raise AssertionError(f"{path} has no {name}")


@pytest.mark.parametrize("name", settings_read())
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name}`" in OPERATING
    assert re.search(rf"^{name}=", (ROOT / ".env.example").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", commands(), ids=lambda path: path.stem)
def test_every_command_and_option_is_documented(path: Path) -> None:
    rows = re.findall(rf"^\| `manage\.py {path.stem}\b.*", OPERATING, re.MULTILINE)
    assert rows
    told = set(re.findall(r"--[a-z-]+", " ".join(rows)))
    for option in re.findall(r'add_argument\(\s*"(--[a-z-]+)"', path.read_text()):
        assert option in told, option


def anchors(document: Path) -> set[str]:
    """Where links into a document may lead, as GitHub names its headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", path.read_text()):
        if "://" not in target:
            document = path.parent / target if target else path
            assert document.exists(), target
            assert not anchor or anchor in anchors(document), f"{target}#{anchor}"


def test_the_endpoint_is_to_be_told_all_events_that_are_read() -> None:
    """A name that begins with a point goes on where the one before it ended."""
    step = (ROOT / "README.md").read_text().split("with the events")[1].split("Set the endpoint's signing secret")[0]
    named: list[str] = []
    for name in re.findall(r"`([a-z_.]+)`", step):
        named.append(named[-1].rpartition(".")[0] + name if name.startswith(".") else name)
    assert len(set(named)) == len(named)
    assert set(named) == READERS.keys() - NOT_DELIVERED


def test_the_import_layers_are_those_of_the_architecture() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = pyproject["tool"]["importlinter"]["contracts"][0]["layers"]
    architecture = (ROOT / "docs/architecture.md").read_text()
    for room in re.findall(r"[a-z]+", " ".join(layers)):
        assert f"`{room}`" in architecture, room


def test_every_address_is_documented() -> None:
    source = (ROOT / "donations/urls.py").read_text()
    text = (ROOT / "docs/architecture.md").read_text()
    for route in re.findall(r'path\(\s*"([^"]+)"', source):
        assert re.sub(r"<\w+:(\w+)>", r"<\1>", route) in text, route


def test_every_column_of_finances_files_is_documented() -> None:
    text = (ROOT / "docs/exports.md").read_text()
    ledger = (
        "entry_id,effective_at,local_date,campaign,campaign_month,kind,processor,reference,gift,tier,currency,amount,"
    )
    ledger += "goal_amount,settlement_currency,settlement_amount,livemode"
    gifts = (
        "gift,campaign,campaign_month,confirmed_at,status,tier,frequency,currency,amount,fee_cover,charged,refunded,"
    )
    gifts += "disputed,counted,source,livemode"
    for column in f"{ledger},{gifts}".split(","):
        assert f"| `{column}` |" in text, column


def test_finance_reads_of_each_column_what_the_documentation_says() -> None:
    text = (ROOT / "docs/exports.md").read_text()
    for file in FILES.values():
        section = text.split(f"## {file.name}: ")[1].split("\n## ")[0].replace("`", "")
        assert re.findall(r"^\| (\w+) \| (.+) \|$", section, re.MULTILINE)[1:] == [
            (column.name, column.meaning) for column in file.columns
        ]


def test_every_field_of_the_meter_is_documented() -> None:
    sample = json.loads((ROOT / "docs/meter.json").read_text())
    text = (ROOT / "docs/embedding.md").read_text()
    for field in sample:
        assert f"| `{field}` |" in text, field


def test_every_metric_is_documented() -> None:
    source = (ROOT / "donations/metrics.py").read_text()
    names = re.findall(r'"(supportsite_[a-z_]+)"', source)
    assert len(names) > 10
    for name in names:
        assert f"| `{name}` |" in OPERATING, name


def test_every_trouble_is_documented() -> None:
    source = "donations/selectors/health.py"
    named = set(re.findall(r'\bkind="([a-z_]+)"', (ROOT / source).read_text()))
    kinds = {kind.replace("_", " ") for kind in (*named, *constant(source, "SILENT"))}
    table = set(re.findall(r"^\| ([a-z ]+) \|", OPERATING, re.MULTILINE))
    assert len(kinds) >= 10
    assert not kinds - table


def test_every_invariant_is_documented() -> None:
    text = (ROOT / "docs/reliability.md").read_text()
    rooms = [path.read_text() for path in (ROOT / "donations/invariants").glob("[a-z]*.py")]
    source = re.sub(r"^from .* import \([^)]*\)$", "", "\n".join(rooms), flags=re.MULTILINE)
    named = re.findall(r'^    ([a-z_]+),$|invariant="([a-z_]+)"', source, re.MULTILINE)
    assert len(named) > 15
    for name in {one or other for one, other in named}:
        assert f"| `{name}` |" in text, name


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_documented(name: str) -> None:
    assert f"| `./dev faults {name}` |" in (ROOT / "docs/reliability.md").read_text()

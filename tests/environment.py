"""Which settings a site reads from its environment: so that no test has them from the shell that started it."""

import re
from pathlib import Path

SETTINGS = Path(__file__).resolve().parent.parent / "supportsite/settings.py"
CALLERS = ("DATABASE_URL", "REDIS_URL")
"""Those that whoever starts the tests may set."""


def settings_read() -> list[str]:
    """The name of each setting. Each is also read as NAME_FILE, a file that holds it."""
    return sorted(set(re.findall(r'\b(?:text|texts|flag|whole)\("([A-Z_]+)"', SETTINGS.read_text())))

"""Writes docs/reference/settings.md from the settings model: `python -m api.settings_reference`."""

from __future__ import annotations

from pathlib import Path

from api.settings import Settings

TARGET = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"
HEAD = """# Settings

Read by entry points only, in this order (the last wins): defaults, `quaestor.toml` in the working directory, the
running stack's `endpoints.json` in the data directory, environment variables, `--data`. Generated from the model.

| setting (`quaestor.toml`) | variable | default | what it is |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(
        f"| `{name}` | `QUAESTOR_{name.upper()}` | `{_shown(field.default)}` | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )


def _shown(default: object) -> str:
    if default is None:
        return "unset"
    return ",".join(default) if isinstance(default, tuple) else str(default)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")

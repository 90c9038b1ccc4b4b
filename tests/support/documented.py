"""The settings as the documentation must have them."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices

from orchestrator.settings import PREFIX, Settings


def table() -> list[tuple[str, str, str]]:
    """Variable, default and meaning of every setting."""
    rows = []
    for name, field in Settings.model_fields.items():
        alias: Any = field.validation_alias
        variable = alias.choices[0] if isinstance(alias, AliasChoices) else alias or PREFIX + name.upper()
        default = (
            ""
            if field.default is None
            else f"{field.default:g}"
            if isinstance(field.default, float | int)
            else field.default
        )
        rows.append((str(variable), str(default), field.description or ""))
    return rows


def defaults() -> dict[str, str]:
    """Variable and default of every setting."""
    return {variable: default for variable, default, _ in table()}

"""Pages that stand alone: one HTML text from a template, with the one style of all pages.

No scripts, nothing loaded from elsewhere, light or dark as the reader prefers. Everything is escaped but our own pictures.
The same input gives the same page, byte for byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mightnt.audits.drawing import STYLES
from mightnt.audits.figures import Panel
from mightnt.audits.summary import percent, short
from mightnt.files import plain


def page(template: Path, **values: Any) -> str:
    """The page that ``template`` makes of ``values``; functions among the filters: ``short``, ``percent``, ``pretty``.

    A value that the template uses and that is not given is an error. The style is ``page.css.jinja`` beside this file.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"short": short, "percent": percent, "pretty": pretty}
    environment.filters |= filters
    colors = {base: style.color for base, style in STYLES.items()}
    return environment.get_template(template.name).render(colors=colors, **values) + "\n"


def drawn(panel: Panel) -> dict[str, Any]:
    """A panel for a template; its SVG is our own and goes in as it is."""
    return {"title": panel.title, "svg": Markup(panel.svg), "note": panel.note}


def pretty(value: Any) -> str:
    """A value of a record as text: objects as indented JSON."""
    if isinstance(value, dict | list):
        return json.dumps(plain(value), indent=1, ensure_ascii=False, sort_keys=True)
    return "not recorded" if value is None else str(value)

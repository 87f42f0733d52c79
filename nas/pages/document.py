"""Put a page together from a template, style sheets, scripts and data::

    text = render_document(
        Path(__file__).parent,
        "page.html.j2",
        styles=["page.css"],
        scripts=["page.js"],
        data={"points": [...]},
        charts=True,
        title="Networks for …",
    )

A template extends `base.html.j2` and fills its block `body`. A script reads the data as `pageData()`. `base.css` has
the colours of light and dark, and `charts.js` draws charts in them by plotly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

_FOLDER = Path(__file__).parent


def render_document(
    folder: Path,
    template: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    charts: bool = False,
    **names: Any,
) -> str:
    """Return a page as one HTML text, from the files of a folder.

    Every value that the template writes is escaped. `data` becomes JSON, in which numbers that are not finite are null.
    `charts` puts the script of plotly into the page, which has 4.8 MB.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    parts = [_FOLDER / "page.js"]
    if charts:
        parts.append(_FOLDER / "charts.js")
    parts += [folder / script for script in scripts]
    page = environment.get_template(template).render(
        page_styles=[_read(path) for path in (_FOLDER / "base.css", *(folder / style for style in styles))],
        page_scripts=[*([_plotly()] if charts else []), *map(_read, parts)],
        page_data=_as_json(data or {}),
        **names,
    )
    return page.lstrip()  # of the lines between macros


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _plotly() -> str:
    """Return the script of plotly, which its Python package brings."""
    from plotly.offline import get_plotlyjs

    return re.sub(r"</(?=script)", r"<\\/", get_plotlyjs())


def _as_json(data: Mapping[str, Any]) -> str:
    """Return data as JSON that a script element can hold: no `<` in it, so that nothing ends the element."""
    return json.dumps(_finite(data), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float():
            return value if value - value == 0 else None
        case _:
            return value

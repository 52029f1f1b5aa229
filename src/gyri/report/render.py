"""Turn a template and what it shows into one self-contained HTML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_SHEETS = ("style.css", "mosaic.css")


def write_page(out: Path, template: str, **context: Any) -> Path:
    """Render a template of this folder into a file.

    Parameters
    ----------
    out : the file, which is either the old one or the new one, never half; a folder gets a file
        of the template's name inside.
    template : for example ``"report.html"``; it extends ``base.html``.
    context : every name that the template uses.

    Returns
    -------
    Path
        The file. It loads nothing from outside: pictures and styles are inside, scripts there
        are none, and a content security policy forbids both.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = "".join((_HERE / sheet).read_text(encoding="utf-8") for sheet in _SHEETS)
    text = environment.get_template(template).render(style=style, **context)
    path = out / template if out.is_dir() else out
    _write_atomically(path, text)
    return path


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)

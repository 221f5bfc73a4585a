"""Static pages: one self-contained file with its pictures embedded."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2

from crossview import storage


def write(target: Path, template: str, **values: Any) -> Path:
    """Write the page of a template atomically; returns its file."""
    storage.write_text(target, render(template, **values))
    return target


def render(template: str, **values: Any) -> str:
    """The page of a template, which is named by its path in `platform/`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def picture(file: Path) -> str:
    """A PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"

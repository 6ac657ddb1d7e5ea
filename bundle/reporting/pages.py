"""Self-contained HTML pages from the templates in ``html/``: they fetch nothing and run only their own script."""

import base64
import hashlib
import io
import os
from pathlib import Path

from bundle.files import written_whole
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("html")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
"""Every value is escaped unless a template marks it as safe; a missing value is an error."""


def write_page(path: str | os.PathLike, template: str, **values: object) -> None:
    """Write a template piece by piece: a generator among the values is read as the page is written.

    Memory does not grow with the length of the page. The file appears once it is complete.

    Args:
        path: page to write.
        template: name of a file in ``html/``; it extends ``base.html``.
        values: values of the template; ``title`` and ``facts`` (a mapping) are for ``base.html``.

    Raises:
        jinja2.UndefinedError: if the template needs a value that is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_page(f"{folder}/page.html", "base.html", title="A & B", facts={"weights": "<model.pt>"})
        ...     page = Path(folder, "page.html").read_text(encoding="utf-8")
        >>> "<h1>A &amp; B</h1>" in page, "<dd>&lt;model.pt&gt;</dd>" in page
        (True, True)
    """
    with written_whole(path) as beside, beside.open("w", encoding="utf-8") as page:
        page.writelines(TEMPLATES.get_template(template).generate(values))


def content_security_policy(script: str, pictures: bool) -> Markup:
    """Return the policy of a page: its own styles, this script if there is one, and pictures inside the page.

    Example:
        >>> print(content_security_policy("", pictures=False))
        default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'
        >>> print(*content_security_policy("alert()", pictures=True).split("; ")[1:4:2])
        img-src data: script-src 'sha256-S8S/VNmXuUuoIR6OhqBqwIiIkuCxXq31hCCHAHnicV8='
    """
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{sha256}'; " if script else ""
    embedded = "img-src data:; " if pictures else ""
    return Markup(
        f"default-src 'none'; {embedded}style-src 'unsafe-inline'; {allowed}base-uri 'none'; form-action 'none'"
    )


def data_uri(picture: Image.Image, kind: str, **options: object) -> str:
    """Encode a picture as a data URI, for pages that fetch nothing.

    Example:
        >>> data_uri(Image.new("L", (1, 1)), "PNG")[:26]
        'data:image/png;base64,iVBO'
    """
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


TEMPLATES.filters["content_security_policy"] = content_security_policy

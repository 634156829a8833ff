"""What every page is within: its head, its style and script, and the policy that forbids it any network.

The content policy allows exactly the page's own style sheet and script, by their hashes, and images in `data:` form.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from .markup import Markup, element


def whole(title: str, body: Markup) -> str:
    """The page with this `body` element, as text."""
    return "<!doctype html>\n" + element("html", _head(title), body, lang="en") + "\n"


def document(title: str, main: Markup) -> str:
    """A page of one `main` element."""
    return whole(title, element("body", main))


def resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _head(title: str) -> Markup:
    style = resource("page.css")
    script = resource("page.js")
    rules = ("default-src 'none'", "img-src data:", f"style-src '{_digest(style)}'", f"script-src '{_digest(script)}'")
    policy = "; ".join((*rules, "base-uri 'none'", "form-action 'none'"))
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

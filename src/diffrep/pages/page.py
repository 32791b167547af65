"""A page: one HTML file with its style and its script inside; it loads nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Section:
    """A section of a page. lead: one or two sentences about it; command: the one that measures missing numbers."""

    title: str
    lead: str = ""
    body: str = ""
    command: str = ""

    @property
    def anchor(self) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Page:
    """The top of a page, and its sections."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    sentences: Sequence[tuple[str, str]] = ()  # a word in the margin, and the sentence
    mood: str = ""  # "good", "bad" or nothing: the colour of the first sentence
    definitions: Sequence[tuple[str, str]] = field(default=())

    def html(self) -> str:
        return _environment().get_template("page.html").render(page=self)


@cache
def _environment():
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:  # pragma: no cover
        from diffrep.errors import UserError

        raise UserError("a page needs jinja2: pip install jinja2.") from error
    return Environment(
        loader=PackageLoader("diffrep.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def joined(*pieces: object) -> Markup:
    """Pieces of HTML side by side."""
    return Markup("").join(piece if hasattr(piece, "__html__") else escape(piece) for piece in pieces)


def code(*lines: str) -> Markup:
    """Commands for a shell, to be copied."""
    return Markup('<pre tabindex="0"><code>{}</code></pre>').format("\n".join(lines))


def figure(content: object, caption: str = "", style: str = "") -> Markup:
    """A picture with its caption."""
    below = Markup("<figcaption>{}</figcaption>").format(caption) if caption else Markup("")
    return Markup('<figure class="{}">{}{}</figure>').format(style, content, below)


def rows(named: Sequence[tuple[str, object]]) -> Markup:
    """Strips under each other, each with its name."""
    return Markup("").join(
        Markup('<div class="named"><div class="name-of-row">{}</div><div class="strip">{}</div></div>').format(
            name, strip
        )
        for name, strip in named
    )


def definitions(pairs: Sequence[tuple[str, object]]) -> Markup:
    """Names and values as a list of definitions."""
    inside = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(name, value) for name, value in pairs)
    return Markup("<dl>{}</dl>").format(inside)


def table(head: Sequence[str], lines: Sequence[Sequence[object]], caption: str, numeric: Sequence[bool] = ()) -> Markup:
    """A table that scrolls where the page is narrow; the first cell of each line is its name."""
    right = [*numeric, *[False] * (len(head) - len(numeric))]

    def cell(value: object, i: int) -> Markup:
        style = Markup(' class="n"') if right[i] else Markup("")
        kind = Markup('th scope="row"') if i == 0 else Markup("td")
        return Markup("<{}{}>{}</{}>").format(kind, style, value, Markup("th" if i == 0 else "td"))

    top = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="n"') if right[i] else Markup(""), name)
        for i, name in enumerate(head)
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(cell(value, i) for i, value in enumerate(line))) for line in lines
    )
    return Markup(
        '<div class="wide" tabindex="0" role="region" aria-label="{0}"><table><caption>{0}</caption><thead><tr>{1}</tr>'
        "</thead><tbody>{2}</tbody></table></div>"
    ).format(caption, top, body)


def details(summary: str, content: object) -> Markup:
    """Content that is folded until it is opened."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, content)

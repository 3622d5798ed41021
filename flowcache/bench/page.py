"""The summary and the curve as one HTML page, which loads nothing from anywhere."""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from flowcache.bench.sections import Section


def page(sections: Sequence[Section], curve: str) -> str:
    """curve: an SVG, which is ours; all else is escaped."""
    environment = Environment(loader=PackageLoader("flowcache.bench"), autoescape=True)
    return environment.get_template("bench.html").render(sections=sections, curve=Markup(curve))

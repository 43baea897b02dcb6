"""Templates of what is written for people: the page of a run, the card of a model."""

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape


def template(name: str) -> Template:
    """Return a template beside this module; in HTML values are escaped, and unknown ones fail."""
    templates = Environment(
        loader=PackageLoader("cellular.reporting", "."),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(name)

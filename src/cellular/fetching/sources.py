"""The catalogue of files that can be fetched: sources.yaml, validated.

Fetching rests on well-kept libraries: requests with urllib3's Retry for HTTP (waiting, Retry-After,
redirects, certificates, proxies), zipfile for archives, DVC's configuration for addresses,
pypi-simple for the package index. fsspec, which comes with DVC, reads remote files too. It is not
used because it ignores Retry-After, does not check that all parts of a file are of one version
(If-Range, ETag), and loses what it has received when it is killed.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from cellular.base.errors import InputError
from cellular.base.params import Section, validate

CATALOGUE = Path(__file__).with_name("sources.yaml")
SHA256 = r"^[0-9a-f]{64}$"


class SourceFile(Section):
    """A file to download, either from the package index (`package`, `file`) or from a `url`."""

    what: str
    licence: str
    citation: str
    package: str = ""
    file: str = ""
    url: str = ""
    size: int | None = Field(None, gt=0)
    sha256: str | None = Field(None, pattern=SHA256)
    publishing: str = ""
    """what to mind before a model that was made from the file is published"""

    @model_validator(mode="after")
    def _findable(self) -> "SourceFile":
        if bool(self.url) == bool(self.package) or bool(self.package) != bool(self.file):
            raise ValueError("expected either url, or package and file")
        return self


class DatasetSource(Section):
    """A data set, and how it becomes data/raw; sources.yaml explains each `how`."""

    what: str
    how: Literal["members", "channels", "folders", "boxes", "local"]
    file: str = ""
    images: str = ""
    members: dict[str, str] = Field(default_factory=dict)
    hashes: dict[str, Annotated[str, Field(pattern=SHA256)]] = Field(default_factory=dict)
    """sha256 of single files, by their paths below the address of `file`"""
    pixel_size: float | None = Field(None, gt=0)
    """µm, edge of a pixel, if the publisher states it"""


class WeightsSource(Section):
    """Weights: a file or a member of it, how its tensors are named, and a diameter in pixels."""

    file: str
    member: str | None = None
    sha256: str | None = Field(None, pattern=SHA256)
    layout: str = Field("cpnet", pattern="^(cpnet|scellseg)$")
    diameter: float = Field(gt=0)


class Catalogue(Section):
    """The whole of sources.yaml."""

    files: dict[str, SourceFile]
    datasets: dict[str, DatasetSource]
    weights: dict[str, WeightsSource]

    @model_validator(mode="after")
    def _complete(self) -> "Catalogue":
        used = [(name, item.file) for name, item in self.weights.items()]
        used += [(name, item.file) for name, item in self.datasets.items()]
        used += [(name, item.images) for name, item in self.datasets.items()]
        for name, file in used:
            if file and file not in self.files:
                raise ValueError(f"{name}: file {file!r} is not under files")
        return self

    def dataset(self, name: str) -> DatasetSource:
        """Return a data set by name, or raise `InputError`."""
        if name not in self.datasets:
            known = ", ".join(sorted(self.datasets))
            raise InputError(f"dataset {name!r} is not in the catalogue; known: {known}")
        return self.datasets[name]


@cache
def catalogue() -> Catalogue:
    """Return the catalogue, the file beside this module."""
    return validate(
        Catalogue, yaml.safe_load(CATALOGUE.read_text(encoding="utf-8")), str(CATALOGUE)
    )


def sources_of(dataset: str, model_type: str) -> list[dict[str, str]]:
    """Return where a data set and weights come from.

    Returns
    -------
    list of dict
        For each file: name, what, url, licence, citation and publishing; all but the first two are
        empty for the user's own files.
    """
    known = catalogue()
    data, weights = known.datasets.get(dataset), known.weights.get(model_type)
    found = []
    for name, what, files in (
        (f"data set {dataset}", data and data.what, [data.file, data.images] if data else []),
        (f"weights {model_type}", None, [weights.file] if weights else []),
    ):
        sources = [known.files[file] for file in files if file]
        for source in sources:
            found.append(
                {
                    "name": name,
                    "what": what or source.what,
                    "url": source.url or f"Python package index: {source.file}",
                    "licence": source.licence,
                    "citation": source.citation,
                    "publishing": source.publishing,
                }
            )
        if not sources:
            empty = dict.fromkeys(("url", "licence", "citation", "publishing"), "")
            found.append({"name": name, "what": what or "your own, or random", **empty})
    return found

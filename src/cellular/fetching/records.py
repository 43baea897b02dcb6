"""Records: hashes of files whose publishers state none, kept from the first fetch on."""

import hashlib
import re
from pathlib import Path

import requests
import yaml
from filelock import FileLock
from pydantic import Field

from cellular.base.errors import InputError
from cellular.base.files import whole
from cellular.base.params import Section, validate
from cellular.fetching.remotes import repository

RECORDED = "data/recorded.yaml"  # in the repository
ZENODO = re.compile(r"^(https?://[^/]+)/records/(\d+)/files$")
CHUNK = 1 << 20


class Record(Section):
    """What a file was when it was first fetched."""

    size: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Records(Section):
    """The whole of data/recorded.yaml."""

    files: dict[str, Record]


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's hash as hexadecimal digits."""
    made = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            made.update(chunk)
    return made.hexdigest()


def place() -> Path:
    """Return the file of the records: the repository's, also in DVC's temporary copies of it."""
    return repository() / RECORDED


def _read() -> tuple[str, dict[str, Record]]:
    text = place().read_text(encoding="utf-8") if place().exists() else ""
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    found = yaml.safe_load(text) or {}
    return comment, validate(Records, {"files": found}, str(place())).files


def recorded(url: str) -> Record | None:
    """Return the record of a catalogue address, or None."""
    return _read()[1].get(url)


def record(url: str, path: Path) -> Record:
    """Keep what the file of a catalogue address is; returns the record."""
    made = Record(size=path.stat().st_size, sha256=digest(path))
    place().parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place().with_name(f".{place().name}.lock")):
        comment, known = _read()
        known[url] = made
        content = {name: known[name].model_dump() for name in sorted(known)}
        with whole(place()) as staging:
            staging.write_text(comment + yaml.safe_dump(content), encoding="utf-8")
    return made


def zenodo_record(http: requests.Session, address: str, timeout: tuple) -> tuple[int, str] | None:
    """Return size and md5 that Zenodo's record states of the file at `address`.

    None if the address is not of a Zenodo record, or a mirror that has no record to ask. Source:
    https://developers.zenodo.org, `files[].checksum`.

    Raises
    ------
    InputError
        If the record does not list the file.
    """
    root, _, name = address.rpartition("/")
    found = ZENODO.match(root)
    if found is None:
        return None
    asked = f"{found[1]}/api/records/{found[2]}"
    answer = http.get(asked, timeout=timeout)
    if answer.status_code == 404:
        return None
    try:
        answer.raise_for_status()
        files = {file["key"]: file for file in answer.json()["files"]}
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{asked}: no record of files ({error}); try again later") from None
    if name not in files:
        raise InputError(
            f"{asked}: no file {name} in the record; it has {', '.join(sorted(files))}"
        )
    kind, _, checksum = files[name]["checksum"].partition(":")
    return int(files[name]["size"]), checksum if kind == "md5" else ""

"""Records: the size and hash that a file had when it was first fetched.

They are kept for files whose publishers state no hash, so that later fetches can be verified.
"""

import re
from pathlib import Path

import requests
import yaml
from filelock import FileLock
from pydantic import Field

from cellular.base.errors import InputError
from cellular.base.files import digest, whole
from cellular.base.params import Section, read_params, validate
from cellular.fetching.remotes import repository

RECORDED = "data/recorded.yaml"  # in the repository
ZENODO = re.compile(r"^(https?://[^/]+)/records/(\d+)/files$")


class Record(Section):
    """A file's size in bytes and its hash, when it was first fetched."""

    size: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Records(Section):
    """The whole of data/recorded.yaml."""

    files: dict[str, Record]


def place() -> Path:
    """Return the path of the records, in the repository itself rather than in a copy of DVC's."""
    return repository() / RECORDED


def _read() -> tuple[str, dict[str, Record]]:
    if not place().exists():
        return "", {}
    known = validate(Records, {"files": read_params(place())}, str(place())).files
    lines = place().read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith("#")), known


def recorded(url: str) -> Record | None:
    """Return the record of a catalogue address, or None."""
    return _read()[1].get(url)


def record(url: str, path: Path) -> Record:
    """Record the size and hash of the file that a catalogue address led to, and return them."""
    new = Record(size=path.stat().st_size, sha256=digest(path))
    place().parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place().with_name(f".{place().name}.lock")):
        comment, known = _read()
        known[url] = new
        content = {name: known[name].model_dump() for name in sorted(known)}
        with whole(place()) as staging:
            staging.write_text(comment + yaml.safe_dump(content), encoding="utf-8")
    return new


def zenodo_record(http: requests.Session, address: str, timeout: tuple) -> tuple[int, str] | None:
    """Return the size in bytes and the MD5 that Zenodo's record states for the file at `address`.

    None if the address is not one of Zenodo's, or leads to a mirror without records. Source:
    https://developers.zenodo.org, `files[].checksum`.

    Raises
    ------
    InputError
        If the record cannot be read, or does not list the file.
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
        files = {
            file["key"]: (int(file["size"]), *file["checksum"].partition(":")[::2])
            for file in answer.json()["files"]
        }
    except (requests.RequestException, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{asked}: no list of files ({error}); try again later") from None
    if name not in files:
        raise InputError(
            f"{asked}: the record has no file {name}; it has {', '.join(sorted(files))}"
        )
    size, kind, checksum = files[name]
    return size, checksum if kind == "md5" else ""

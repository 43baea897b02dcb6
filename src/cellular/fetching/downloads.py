"""Downloads that go on where they stopped, and are whole and right before they get their name.

requests with urllib3's Retry does the HTTP: waiting with jitter, honouring Retry-After, redirects,
certificates, proxies. What is ours is the part that libraries leave out: a partial file that
outlives a kill and is continued only if the server still has the same bytes (Range, If-Range).
"""

import json
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import requests
from filelock import FileLock
from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, PyPISimple
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from cellular.base.errors import InputError
from cellular.base.files import cache_dir, whole
from cellular.fetching.records import digest, place, record, recorded, zenodo_record
from cellular.fetching.remotes import PREFIX, is_local, resolve
from cellular.fetching.sources import SourceFile

log = logging.getLogger(__name__)
T = TypeVar("T")

USER_AGENT = "cellular-experiments/0.1"
CHUNK = 1 << 20  # 1 MiB: large enough for the disk, small enough for a smooth bar
TIMEOUT = (10, 60)  # seconds to connect, seconds between two reads
ATTEMPTS = 5  # continued downloads after a connection broke in mid-body
WAIT = 0.5  # seconds before the second try; doubled for each further one, with jitter
RETRIES = 5  # of a request that was refused or could not connect


def session() -> requests.Session:
    """Return a session with our User-Agent, which waits and tries again where that can help."""
    retry = Retry(
        total=RETRIES,
        backoff_factor=WAIT,
        backoff_jitter=WAIT,
        status_forcelist=(429, 500, 502, 503, 504),
        respect_retry_after_header=True,
        raise_on_status=False,
    )
    made = requests.Session()
    made.headers["User-Agent"] = USER_AGENT
    for scheme in ("https://", "http://"):
        made.mount(scheme, HTTPAdapter(max_retries=retry))
    return made


def fetch(name: str, source: SourceFile) -> Path:
    """Return a local copy of a file of the catalogue, downloaded if it is not there yet.

    A file whose SHA-256 the catalogue does not state must be the one that was recorded when it was
    first fetched (`cellular.fetching.records`); and what Zenodo's record says of it must hold.

    Raises
    ------
    InputError
        If it cannot be had, or is not the file that the catalogue describes.
    """
    described = described_by_record(source)
    target = cache_dir() / (source.file or f"{_folder(source.url)}-{source.url.rsplit('/', 1)[1]}")
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists() and described.sha256 and not _difference(target, described):
            return target
        log.info("fetching %s: %s", name, source.what)
        address = "" if source.package else resolve(source.url)
        if address and is_local(address):
            _copy(Path(address), target, described)
        else:
            with session() as http, reaching(address or "the package index"):
                url = address or _package_url(http, source)
                stated = zenodo_record(http, url, TIMEOUT)
                download(http, url, target, described, stated)
        if described.sha256 is None:
            record(source.url, target)
            log.info("its hash is recorded in %s; commit that file", place())
    return target


def described_by_record(source: SourceFile) -> SourceFile:
    """Return `source` with the size and hash that were recorded, where the catalogue has none."""
    known = recorded(source.url) if source.url and source.sha256 is None else None
    if known is None:
        return source
    return source.model_copy(update=known.model_dump())


def _folder(url: str) -> str:
    """Return a short name for where a file is from: two sources may have files of one name."""
    return url.removeprefix(PREFIX).split("/", 1)[0] if url.startswith(PREFIX) else "file"


def _copy(origin: Path, target: Path, source: SourceFile) -> None:
    if not origin.is_file():
        raise InputError(f"{origin}: no such file in the folder that stands for {source.url}")
    check_space(target.parent, origin.stat().st_size)
    with whole(target) as staging:
        shutil.copyfile(origin, staging)
        fault = _difference(staging, source)
        if fault:
            raise InputError(f"{origin}: {fault}; nothing of it is used")


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turn what is left of network errors, after all tries, into an `InputError`."""
    try:
        yield
    except (requests.RequestException, HTTPError) as error:
        raise InputError(
            f"{address}: cannot be reached ({type(error).__name__}); check the connection, or "
            "name a mirror (dvc remote modify --local ...; PIP_INDEX_URL for packages)"
        ) from None


def _package_url(http: requests.Session, source: SourceFile) -> str:
    """Return where the package index has a file. Its metadata is not asked for, no code is run."""
    index = os.environ.get("PIP_INDEX_URL") or PYPI_SIMPLE_ENDPOINT
    try:
        page = PyPISimple(index, session=http).get_project_page(source.package, timeout=TIMEOUT)
    except NoSuchProjectError:
        raise InputError(f"the package index has no project {source.package}") from None
    for package in page.packages:
        if package.filename == source.file:
            return package.url
    raise InputError(f"the package index has no file {source.file} of {source.package} any more")


def download(
    http: requests.Session,
    url: str,
    target: Path,
    source: SourceFile,
    stated: tuple[int, str] | None = None,
) -> None:
    """Download `url` to `target`; the bytes are checked before the file gets this name.

    What was received before a kill or a broken connection is kept in `<target>.part` and continued.
    `stated` are the size and the md5 that the publisher states.
    """
    part = target.with_name(f"{target.name}.part")
    retrying(lambda: _receive(http, url, part, source), url)
    fault = _difference(part, source)
    if not fault and stated:
        size, md5 = stated
        found = part.stat().st_size
        if found != size:
            fault = f"{found:,} bytes, Zenodo's record says {size:,}"
        elif md5 and digest(part, "md5") != md5:
            fault = f"md5 {digest(part, 'md5')}, Zenodo's record says {md5}"
    if fault:
        part.unlink()
        _state(part).unlink(missing_ok=True)
        raise InputError(f"{url}: {fault}; nothing of it is used. Try again, or check the source")
    part.replace(target)
    _state(part).unlink(missing_ok=True)


def retrying(receive: Callable[[], T], url: str) -> T:
    """Call `receive` again while the connection breaks in mid-body, `ATTEMPTS` times at most."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return receive()
        except (requests.RequestException, HTTPError) as error:
            reason = type(error).__name__
            if attempt == ATTEMPTS:
                raise InputError(
                    f"{url}: the connection broke {ATTEMPTS} times ({reason}); what was received "
                    "is kept, run again to go on"
                ) from None
            log.info("the connection broke (%s); going on", reason)
            time.sleep(random.uniform(0, WAIT * 2**attempt))
    raise AssertionError("unreachable")


def _state(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _receive(http: requests.Session, url: str, part: Path, source: SourceFile) -> None:
    state = _state(part)
    headers = {
        "Accept-Encoding": "identity"
    }  # the file's own bytes, so that offsets mean something
    offset = part.stat().st_size if part.exists() else 0
    known = json.loads(state.read_text()) if state.exists() else {}
    if offset and known.get("url") == url and known.get("validator"):
        headers |= {"Range": f"bytes={offset}-", "If-Range": known["validator"]}
    else:
        offset = 0
    with http.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing is missing, or the file has become shorter
            state.unlink()
            if part.stat().st_size != source.size:
                part.unlink()
                raise requests.ConnectionError("the file has changed")
            return
        check_response(response, url)
        if response.status_code != 206:
            if offset:
                log.info(
                    "the server does not continue downloads, or the file changed: from the start"
                )
            offset = 0
        length = int(response.headers.get("Content-Length", 0))
        check_space(part.parent, length)
        etag = response.headers.get("ETag", "")
        validator = (
            etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        )
        state.write_text(json.dumps({"url": url, "validator": validator}))
        received = 0
        bar = tqdm(
            total=offset + length or None,
            initial=offset,
            desc=part.stem,
            unit="B",
            unit_scale=True,
            leave=False,
        )
        with part.open("ab" if offset else "wb") as file, bar:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
        if length and received < length:
            raise requests.ConnectionError("body too short")


def check_response(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in (401, 403):
        remedy = "the server refuses; a block of this address usually ends after some minutes"
    elif status in (404, 410):
        remedy = (
            "the file is not there any more; look for a new address in the catalogue's citation"
        )
    elif status in (200, 206):
        if "text/html" not in response.headers.get("Content-Type", ""):
            return
        remedy = "a web page came in place of the file; open the address in a browser to read it"
    else:
        remedy = "try again later"
    raise InputError(f"{url}: the server answered {status} {response.reason}; {remedy}")


def check_space(folder: Path, needed: int) -> None:
    """Raise `InputError` if a folder's disk has not `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {needed:,} bytes to write, {free:,} free; make room, or choose another "
            "folder (of downloads: CELLULAR_CACHE)"
        )


def _difference(path: Path, source: SourceFile) -> str | None:
    """Return what differs between a file and its description, or None."""
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        return f"{size:,} bytes, expected {source.size:,}"
    if source.sha256 is not None and (found := digest(path)) != source.sha256:
        return f"sha256 {found}, expected {source.sha256}"
    return None

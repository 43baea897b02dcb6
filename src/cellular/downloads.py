"""Downloads that go on where they stopped, and are whole and right before they get their name.

requests with urllib3's Retry does the HTTP: waiting with jitter, honouring Retry-After, redirects,
certificates, proxies. What is ours is the part that libraries leave out: a partial file that
outlives a kill and is continued only if the server still has the same bytes (Range, If-Range).
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import requests
from filelock import FileLock
from platformdirs import user_cache_path
from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, PyPISimple
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from cellular.errors import InputError
from cellular.sources import SourceFile

log = logging.getLogger(__name__)

USER_AGENT = "cellular-experiments/0.1"
CHUNK = 1 << 20  # 1 MiB: large enough for the disk, small enough for a smooth bar
TIMEOUT = (10, 60)  # seconds to connect, seconds between two reads
ATTEMPTS = 5  # continued downloads after a connection broke in mid-body
RETRIES = 5  # of a request that was refused or could not connect


def cache_dir() -> Path:
    """Return the folder of downloads, one for all clones: CELLULAR_CACHE, or the system's."""
    named = os.environ.get("CELLULAR_CACHE")
    folder = Path(named) if named else user_cache_path("cellular-experiments", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def session() -> requests.Session:
    """Return a session with our User-Agent, which waits and tries again where that can help."""
    retry = Retry(
        total=RETRIES,
        backoff_factor=0.5,
        backoff_jitter=0.5,
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

    Raises
    ------
    InputError
        If it cannot be had, or is not the file that the catalogue describes.
    """
    target = cache_dir() / (source.file or Path(urlsplit(source.url).path).name)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists() and not _difference(target, source):
            return target
        target.unlink(missing_ok=True)
        log.info("fetching %s: %s", name, source.what)
        with session() as http:
            url = source.url or _package_url(http, source)
            download(http, url, target, source)
    return target


def _package_url(http: requests.Session, source: SourceFile) -> str:
    """Return where the package index has a file. Its metadata is not asked for, no code is run."""
    index = os.environ.get("PIP_INDEX_URL") or PYPI_SIMPLE_ENDPOINT
    try:
        page = PyPISimple(index, session=http).get_project_page(source.package, timeout=TIMEOUT)
    except NoSuchProjectError:
        raise InputError(f"the package index has no project {source.package}") from None
    except (requests.RequestException, HTTPError) as error:
        raise InputError(
            f"the package index cannot be reached ({type(error).__name__}); check the connection, "
            "or name a mirror with PIP_INDEX_URL"
        ) from None
    for package in page.packages:
        if package.filename == source.file:
            return package.url
    raise InputError(f"the package index has no file {source.file} of {source.package} any more")


def download(http: requests.Session, url: str, target: Path, source: SourceFile) -> None:
    """Download `url` to `target`; the bytes are checked before the file gets this name.

    What was received before a kill or a broken connection is kept in `<target>.part` and continued.
    """
    part = target.with_name(f"{target.name}.part")
    for attempt in range(ATTEMPTS):
        try:
            _receive(http, url, part, source)
            break
        except (
            requests.ConnectionError,
            requests.Timeout,
            HTTPError,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            reason = type(error).__name__
            if attempt == ATTEMPTS - 1:
                raise InputError(
                    f"{url}: the connection broke {ATTEMPTS} times ({reason}); what was received "
                    "is kept, run again to go on"
                ) from None
            log.info("the connection broke (%s); going on", reason)
    fault = _difference(part, source)
    if fault:
        part.unlink()
        part.with_suffix(".part.json").unlink(missing_ok=True)
        raise InputError(f"{url}: {fault}; nothing of it is used. Try again, or check the source")
    part.replace(target)
    part.with_suffix(".part.json").unlink(missing_ok=True)


def _receive(http: requests.Session, url: str, part: Path, source: SourceFile) -> None:
    state = part.with_suffix(".part.json")
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
        _check_response(response, url)
        if response.status_code != 206:
            if offset:
                log.info(
                    "the server does not continue downloads, or the file changed: from the start"
                )
            offset = 0
        length = int(response.headers.get("Content-Length", 0))
        _check_space(part, length)
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


def _check_response(response: requests.Response, url: str) -> None:
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


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise InputError(
            f"{part.parent}: {needed:,} bytes to download, {free:,} free; make room, "
            "or name another folder with CELLULAR_CACHE"
        )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _difference(path: Path, source: SourceFile) -> str | None:
    """Return what differs between a file and its description, or None."""
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        return f"{size:,} bytes, expected {source.size:,}"
    if source.sha256 is not None and (found := sha256(path)) != source.sha256:
        return f"sha256 {found}, expected {source.sha256}"
    return None

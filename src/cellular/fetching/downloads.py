"""Downloads that resume where they stopped, and get their name once they are complete and verified.

requests with urllib3's Retry does the HTTP: waiting with jitter, honouring Retry-After, redirects,
certificates, proxies. This module adds what those libraries leave out: a partial file survives a
kill, and is continued only if the server still has the same bytes (Range, If-Range).
"""

import logging
import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, PyPISimple
from requests.adapters import HTTPAdapter
from requests.utils import (
    get_environ_proxies,
    prepend_scheme_if_needed,
    select_proxy,
    urldefragauth,
)
from tqdm import tqdm
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import Retry

from cellular.base.errors import InputError
from cellular.base.files import cache_dir, digest, room, whole
from cellular.fetching.rates import ZENODO, Paced
from cellular.fetching.records import place, record, recorded, zenodo_record
from cellular.fetching.remotes import is_local, remote_of, resolve
from cellular.fetching.sources import SourceFile, catalogue

log = logging.getLogger(__name__)
T = TypeVar("T")

USER_AGENT = "cellular-experiments/0.1"
CHUNK = 1 << 20  # 1 MiB: large enough for the disk, small enough for a smooth bar
TIMEOUT = (10, 60)  # seconds to connect, seconds between two reads
ATTEMPTS = 5  # at a file, when the connection breaks while it is received
WAIT = 0.5  # seconds before the second attempt; doubled for each further one, with jitter
RETRIES = 5  # of a request that is refused or finds no connection
REFUSED = "the server refuses access; if it has blocked this computer, wait some minutes"
GONE = "the file is no longer there; the citation in the catalogue may lead to its new address"
REMEDIES = {401: REFUSED, 403: REFUSED, 404: GONE, 410: GONE}


def session() -> requests.Session:
    """Return a session with our User-Agent, which waits and retries where that can help.

    It asks Zenodo no more often than Zenodo allows.
    """
    retry = Retry(
        total=RETRIES,
        backoff_factor=WAIT,
        backoff_jitter=WAIT,
        status_forcelist=(429, 500, 502, 503, 504),
        respect_retry_after_header=True,
        raise_on_status=False,
    )
    http = requests.Session()
    http.headers["User-Agent"] = USER_AGENT
    for scheme in ("https://", "http://"):
        http.mount(scheme, HTTPAdapter(max_retries=retry))
    http.mount("https://zenodo.org/", Paced(ZENODO, retry))
    return http


def fetch(name: str, source: SourceFile, opens: Callable[[Path], object]) -> Path:
    """Return a local copy of a file of the catalogue, downloaded if it is not there yet.

    Where the catalogue states no SHA-256, the file must have the one that was recorded when it was
    first fetched (`cellular.fetching.records`). If Zenodo states its size and MD5, it must have
    those too.

    Parameters
    ----------
    opens : reads the file as what it should be, and raises `InputError` if it is anything else,
        such as the page of a proxy; only then is a hash recorded

    Raises
    ------
    InputError
        If the file cannot be fetched, or is not the one that the catalogue describes.
    """
    # The remote is part of the name, because two remotes may have files of one name.
    remote = remote_of(source.url) or "file"
    target = cache_dir() / (source.file or f"{remote}-{source.url.rsplit('/', 1)[1]}")
    with one_at_a_time(target), room(target.parent, "name another folder in CELLULAR_CACHE"):
        known = recorded(source.url) if source.url and source.sha256 is None else None
        described = source.model_copy(update=known.model_dump()) if known else source
        size, sha256 = described.size, described.sha256
        if target.is_file() and sha256 and not _difference(target, size, sha256):
            return target
        log.info("fetching %s: %s", name, source.what)
        if known:
            log.info("it must have the hash that is recorded in %s", place())
        url = resolve(source.url)
        if url and is_local(url):
            _copy(Path(url), target, described)
        else:
            with session() as http:
                if source.package:
                    index = os.environ.get("PIP_INDEX_URL") or PYPI_SIMPLE_ENDPOINT
                    with reaching(index, name, source):
                        url = _package_url(http, index, source)
                with reaching(url, name, source):
                    download(http, url, target, described, zenodo_record(http, url, TIMEOUT))
        if sha256 is None:
            try:
                opens(target)
            except InputError as error:
                target.unlink()
                raise InputError(f"{url}: not the file that is expected; {error}") from None
            record(source.url, target)
            log.info("the hash of %s is recorded in %s; commit that file", name, place())
    return target


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process fetches `path`, a file or a folder of files, and hold it."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process fetches %s; waiting for it", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _copy(origin: Path, target: Path, source: SourceFile) -> None:
    if not origin.is_file():
        raise InputError(f"{origin}: no such file in the folder that stands in for {source.url}")
    check_space(target.parent, origin.stat().st_size)
    with whole(target) as staging:
        shutil.copyfile(origin, staging)
        fault = _difference(staging, source.size, source.sha256)
        if fault:
            raise InputError(f"{origin}: {fault}; the file is not used")


@contextmanager
def reaching(address: str, name: str, source: SourceFile) -> Iterator[None]:
    """Turn network errors while a file of the catalogue is fetched into one `InputError`.

    A host that is not found ends the fetch before its first request: trying again cannot help.
    """
    remedy = "check the connection, or fetch from elsewhere: " + (
        "name another package index in PIP_INDEX_URL"
        if source.package
        else "name a mirror or a local folder with dvc remote modify --local "
        f"{remote_of(source.url) or '<remote>'} url <address or folder>"
    )
    if name in {weights.file for weights in catalogue().weights.values()}:
        remedy += (
            "; or start from other weights (train.model_type in params.yaml, "
            "--weights of run_experiments.sh)"
        )
    # Behind a proxy it is the proxy that resolves the host's name, and its own must be known here.
    proxy = select_proxy(address, get_environ_proxies(address))
    host = urlsplit(prepend_scheme_if_needed(proxy, "http") if proxy else address).hostname
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        raise InputError(
            f"the host {host} was not found, so {name} is not fetched; {remedy}"
        ) from None
    try:
        yield
    except (requests.RequestException, HTTPError) as error:
        raise InputError(
            f"{urldefragauth(address)}: cannot be reached ({type(error).__name__}); {remedy}"
        ) from None


def _package_url(http: requests.Session, index: str, source: SourceFile) -> str:
    """Return the address of a package's file. Its metadata is not read, and no code is run."""
    try:
        page = PyPISimple(index, session=http).get_project_page(source.package, timeout=TIMEOUT)
    except NoSuchProjectError:
        page = None
    for package in page.packages if page else []:
        if package.filename == source.file:
            return package.url
    raise InputError(
        f"the package index has no file {source.file} of the package {source.package}; name "
        "another index in PIP_INDEX_URL"
    )


def download(
    http: requests.Session,
    url: str,
    target: Path,
    source: SourceFile,
    stated: tuple[int, str] | None = None,
) -> None:
    """Download `url` to `target`; the bytes are checked before the file gets this name.

    Bytes received before a kill or a broken connection are kept in `<target>.part`, and the next
    download continues from there. `stated` are the size and the MD5 that the publisher states.

    Raises
    ------
    InputError
        If the file cannot be received, or is not the one that `source` describes.
    """
    part = target.with_name(f"{target.name}.part")

    def kept() -> bool:
        return part.exists() and part.stat().st_size > 0

    retrying(lambda: _receive(http, url, part, source), url, kept)
    fault = _difference(part, source.size, source.sha256)
    if not fault and stated:
        fault = _difference(part, *stated, "md5", "Zenodo's record says")
    if fault:
        part.unlink()
        _state(part).unlink(missing_ok=True)
        raise InputError(f"{url}: {fault}; the file is not used. Run again, or check the source")
    part.replace(target)
    _state(part).unlink(missing_ok=True)


def retrying(receive: Callable[[], T], url: str, kept: Callable[[], bool] = lambda: False) -> T:
    """Call `receive` until the connection holds, at most `ATTEMPTS` times.

    `kept` tells whether something has been received and is kept for the next run.

    Raises
    ------
    InputError
        If the connection breaks in every attempt.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return receive()
        except (requests.RequestException, HTTPError) as error:
            if any(isinstance(cause, MaxRetryError) for cause in error.args) and not kept():
                raise  # there never was a connection, after all the session's own retries
            reason = type(error).__name__
            if attempt == ATTEMPTS:
                remedy = "what was received is kept, run again to continue"
                raise InputError(
                    f"{url}: the connection broke {ATTEMPTS} times ({reason}); "
                    f"{remedy if kept() else 'run again later'}"
                ) from None
            log.info("the connection broke (%s); trying again", reason)
            time.sleep(random.uniform(0, WAIT * 2**attempt))
    raise AssertionError("unreachable")


def _state(part: Path) -> Path:
    """Return the file with the address that `part` comes from, and a second line: its version."""
    return part.with_name(f"{part.name}.from")


def _receive(http: requests.Session, url: str, part: Path, source: SourceFile) -> None:
    """Receive a file from the end of `part` on, if the server still has the same file."""
    state = _state(part)
    headers = {"Accept-Encoding": "identity"}  # offsets count the file's own bytes
    offset = part.stat().st_size if part.exists() else 0
    known = state.read_text("utf-8", "replace") if state.exists() else ""
    before, _, version = known.partition("\n")
    if offset and before == url and version and version.isascii():
        headers |= {"Range": f"bytes={offset}-", "If-Range": version}
    else:
        offset = 0
    with http.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing is missing, or the server's file is shorter now
            state.unlink()
            if part.stat().st_size != source.size:
                part.unlink()
                raise requests.ConnectionError("the file has changed")
            return
        check_response(response, url)
        if response.status_code != 206:
            if offset:
                log.info("starting again: the server cannot resume downloads, or the file changed")
            offset = 0
        length = int(response.headers.get("Content-Length", 0))
        check_space(part.parent, length)
        validator = response.headers.get("ETag")
        if not validator or validator.startswith("W/"):  # weak: the bytes may differ
            validator = response.headers.get("Last-Modified")
        state.write_text(f"{url}\n{validator or ''}", "utf-8")
        received = 0
        total = offset + length or None
        bar = tqdm(
            desc=part.stem, total=total, initial=offset, unit="B", unit_scale=True, leave=False
        )
        with part.open("ab" if offset else "wb") as file, bar:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
        if length and received < length:
            raise requests.ConnectionError("body too short")


def check_response(response: requests.Response, url: str) -> None:
    """Raise `InputError`, with what to do, unless the server sends the file."""
    status = response.status_code
    remedy = REMEDIES.get(status, "try again later")
    if status in (200, 206):
        if "text/html" not in response.headers.get("Content-Type", ""):
            return
        remedy = "it sent a web page in place of the file; read it in a browser"
    raise InputError(f"{url}: the server answered {status} {response.reason}; {remedy}")


def check_space(folder: Path, needed: int) -> None:
    """Raise `InputError` if fewer than `needed` bytes are free on a folder's disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {needed:,} bytes to write, {free:,} free; make room, or choose another "
            "folder (for downloads with CELLULAR_CACHE)"
        )


def _difference(
    path: Path, size: int | None, checksum: str | None, kind: str = "sha256", said: str = "expected"
) -> str | None:
    """Return how a file differs from the size and the checksum that are known, or None."""
    found = path.stat().st_size
    if size is not None and size != found:
        return f"{found:,} bytes, {said} {size:,}"
    if checksum and (actual := digest(path, kind)) != checksum:
        return f"{kind} {actual}, {said} {checksum}"
    return None

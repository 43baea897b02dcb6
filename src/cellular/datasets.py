"""Data sets of the catalogue, verified, in the layout that the stages expect."""

import logging
from pathlib import Path

from cellular.archives import extract_matching
from cellular.downloads import fetch
from cellular.files import check_new, whole
from cellular.sources import catalogue

log = logging.getLogger(__name__)


def fetch_dataset(name: str, output_dir: Path, *, force: bool = False) -> dict[str, int]:
    """Put a data set of the catalogue into `<output_dir>/images`, `masks` and `channels`.

    Returns
    -------
    dict
        The number of files in each folder.

    Raises
    ------
    InputError
        If the name is unknown, or its file cannot be had or is not what the catalogue describes.
    """
    output_dir = Path(output_dir)
    source = catalogue().dataset(name)
    check_new(output_dir, force)
    archive = fetch(source.file, catalogue().files[source.file])
    log.info("citation: %s", catalogue().files[source.file].citation)
    with whole(output_dir) as staging:
        return {
            folder: len(extract_matching(archive, pattern, staging / folder))
            for folder, pattern in source.members.items()
        }

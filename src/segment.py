r"""Segment images: label maps, outlines for ImageJ and QuPath, and tables of cells.

Example:
    python src/segment.py my_images --model models/finetuned --output segmented
    python src/segment.py remote://zenodo/images.zip --fields 'Timepoint_001_*_C03_*'
"""

import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pandas as pd

from cellular.base import cli
from cellular.base.errors import PartlyDone
from cellular.base.files import check_apart, digest
from cellular.base.provenance import versions
from cellular.fetching.members import remote_fields, share_requests
from cellular.fetching.remotes import PREFIX
from cellular.imaging.microscopy import Source
from cellular.models.folders import open_model
from cellular.models.params import ModelParams
from cellular.network import weights
from cellular.segmenting.batches import Job, load, segment_batch
from cellular.segmenting.cluster import on_cluster
from cellular.segmenting.runs import Rows, Work, merge, segment_images
from cellular.segmenting.sources import find
from cellular.segmenting.warnings import KINDS

SHOWN = 5  # faults that the end of a run names


def main(argv: Sequence[str] | None = None) -> str:
    """Segment the images and return a line of result."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.merge:
        if args.images or args.shard != (1, 1):
            parser.error("--merge joins what is in --output; it takes no images and no --shard")
        return _result(merge(args.output), args.output)
    if not args.images:
        parser.error("give images: a folder, files, a zip, or remote://<remote>/<zip>")
    sources = _sources(args, parser)
    model = open_model(args.model, given=vars(args))
    params = cli.parameters(ModelParams, args, model.defaults)
    job = Job(
        model.weights.resolve(),
        model.record.weights.sha256 if model.record else digest(model.weights),
        params.settings(),
        model.record.seen if model.record else None,
        args.output.resolve(),
        args.pixel_size,
        args.device,
    )
    about = {
        "model": str(args.model),
        "command": shlex.join(["src/segment.py", *(sys.argv[1:] if argv is None else argv)]),
        "versions": versions(),
    }
    with _workers(args, job) as work:
        options = {"shard": args.shard, "work": work, "force": args.force}
        return _result(segment_images(sources, job, about, **options), args.output)


def _sources(args: cli.argparse.Namespace, parser: cli.Parser) -> list[Source]:
    remote = [name for name in args.images if name.startswith(PREFIX)]
    # Whole paths: workers elsewhere have other working folders.
    local = [Path(name).absolute() for name in args.images if not name.startswith(PREFIX)]
    if args.fields and not remote:
        parser.error(f"--fields chooses among the images of {PREFIX}..., and none is given")
    check_apart([args.output], local)
    sources: list[Source] = []
    for address in remote:
        sources += remote_fields(address, args.fields or ["*"], rendering=args.rendering)
    if local:
        sources += find(local, axes=args.axes, channel_names=args.channel_names)
    return sources


def _workers(args: cli.argparse.Namespace, job: Job) -> AbstractContextManager[Work]:
    """Give what does the work; a model that cannot be used is told before anything is written."""
    if args.scheduler:
        weights.load(job.weights)
        return on_cluster(args.scheduler, size=args.batch_images, plan=share_requests)
    load(job)
    return nullcontext(_in_this_process)


def _in_this_process(sources: Sequence[Source], job: Job) -> Rows:
    return segment_batch(share_requests(sources), job)


def _result(table: pd.DataFrame, output: Path) -> str:
    """Return a line on what was done; raise `PartlyDone` if images could not be read."""
    faults = table.loc[table["error"].notna(), "error"]
    line = f"{output}: {table['cells'].sum():,} cells in {len(table) - len(faults):,} images"
    for kind in KINDS:
        odd = int(table["warnings"].fillna("").str.contains(kind).sum())
        line += f", {odd:,} {kind}" if odd else ""
    if len(faults):
        more = [f"and {len(faults) - SHOWN:,} more"] if len(faults) > SHOWN else []
        shown = "\n  ".join([*faults[:SHOWN], *more])
        raise PartlyDone(f"{line}; {len(faults):,} could not be segmented:\n  {shown}")
    return line


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise cli.argparse.ArgumentTypeError(f"expected i/n with i from 1 to n, found {text!r}")
    return int(number), int(count)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise cli.argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        __doc__,
        epilog="A run that was stopped or killed goes on when the same command is given again.\n"
        "Exit code 1: some images could not be read; images.csv says which, and why.",
    )
    text = "folder (nested, too), image files, zip archives, or remote://<remote>/<zip>"
    parser.add_argument("images", nargs="*", metavar="IMAGES", help=text)
    parser.model(default="models/finetuned")
    parser.path("--output", help="folder for all results", default="segmented")
    text = "letters of a TIFF's axes where it does not name them, such as CYX"
    parser.add_argument("--axes", help=text)
    text = "names of the channels, in place of those in the files"
    names = "--channel_names", "--channel-names"
    parser.add_argument(*names, nargs="+", default=[], metavar="NAME", help=text)
    text = "edge of a pixel in µm, in place of what the files say"
    parser.add_argument("--pixel_size", type=_positive, metavar="NUMBER", help=text)
    text = "fields of a remote zip, by name or pattern (default: all)"
    parser.add_argument("--fields", nargs="+", metavar="PATTERN", help=text)
    text = "how the three channels of a remote field are shown: merged, as the authors do, or raw"
    choices = ["merged", "raw"]
    parser.add_argument("--rendering", choices=choices, default="merged", help=text)
    text = "only every n-th image, from the i-th on: --shard 1/4 to 4/4 on four machines"
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="i/n", help=text)
    text = "join the results of all shards in the tables of --output"
    parser.add_argument("--merge", action="store_true", help=text)
    text = "spread the images over Dask's workers: local, or the address of a scheduler, tcp://..."
    parser.add_argument("--scheduler", metavar="ADDRESS", help=text)
    text = "images in a task of a worker (default: 8)"
    parser.add_argument("--batch_images", type=_count, default=8, metavar="N", help=text)
    parser.parameters(ModelParams)
    parser.device()
    parser.add_argument(
        "--force", action="store_true", help="replace results of another model or other settings"
    )
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise cli.argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


if __name__ == "__main__":
    cli.run(main)

"""The command line: flags made from parameters, log and progress, one-line errors."""

import argparse
import errno
import logging
import os
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from cellular.base.errors import InputError
from cellular.base.params import Section, load_params, validate

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

log = logging.getLogger("cellular")


WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Flag(argparse.Action):
    """A switch in every spelling: `--flag`, `--flag false`, `--no-flag`."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        negative = [f"--no-{option[2:]}" for option in option_strings if option.startswith("--")]
        super().__init__([*option_strings, *negative], dest, nargs="?", metavar="BOOL", **kwargs)

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        word = "true" if values is None else str(values).lower()
        if word not in WORDS:
            parser.error(f"argument {option_string}: expected true or false, found {values!r}")
        negated = option_string is not None and option_string.startswith("--no-")
        setattr(namespace, self.dest, WORDS[word] != negated)


def add_parameters(parser: argparse.ArgumentParser, model: type[Section], **short: str) -> None:
    """Add a flag for each field of `model`; `short` gives some of them a letter."""
    group = parser.add_argument_group("parameters")
    for name, field in model.model_fields.items():
        names = ([f"-{short[name]}"] if name in short else []) + [f"--{name}"]
        default = field.default
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        shown = str(shown).lower() if isinstance(default, bool) or default is None else shown
        text = f"{field.description} (default: {shown})".replace("%", "%%")
        options: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
        if field.annotation is bool:
            options["action"] = Flag
        elif typing.get_origin(field.annotation) is list:
            options |= {"nargs": "+", "metavar": name.rstrip("s").upper()}
        else:
            options["metavar"] = _metavar(field.annotation)
        group.add_argument(*names, **options)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the flag of the seed that decides the resamples of intervals."""

    def seed(text: str) -> int:
        if not text.isdecimal():
            raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, found {text!r}")
        return int(text)

    parser.add_argument(
        "--seed", type=seed, default=0, help="decides the resamples of intervals (default: 0)"
    )


def add_models(parser: argparse.ArgumentParser, splits: Sequence[str]) -> None:
    """Add the flags that say which results of two models to read, and of which splits."""
    parser.add_argument(
        "--metrics_dir",
        type=Path,
        default=Path("metrics"),
        help="holds a folder for each model, as src/eval.py wrote it (default: metrics)",
    )
    parser.add_argument(
        "--models",
        nargs=2,
        default=["pretrained", "finetuned"],
        metavar="MODEL",
        help="the two folders in it (default: pretrained finetuned)",
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        default=list(splits),
        metavar="SPLIT",
        help=f"(default: {' '.join(splits)})",
    )


def _metavar(annotation: Any) -> str:
    kinds = [annotation]
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        kinds = list(typing.get_args(annotation))
    kinds = [typing.get_args(kind)[0] if hasattr(kind, "__metadata__") else kind for kind in kinds]
    if float in kinds:
        return "NUMBER"
    return "N" if int in kinds else "TEXT"


def parameters(model: type[Section], args: argparse.Namespace) -> Any:
    """Return the flags of `args` that belong to `model`, validated."""
    given = {name: value for name, value in vars(args).items() if name in model.model_fields}
    return validate(model, given, "command line")


def setup_logging(level: int = logging.INFO) -> None:
    """Send the package's log to standard error, one line a message, time first."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    log.setLevel(level)


def run(main: Callable[[Sequence[str] | None], str], argv: Sequence[str] | None = None) -> None:
    """Run a stage script's `main`, print its line of result, and leave with its exit code.

    Bad input ends with one message and code 2, an interrupt with 130; neither shows a traceback.
    When DVC runs the stage, params.yaml is validated as a whole first: the stage is handed only
    its own part and would not see a name that is misspelt elsewhere.
    """
    setup_logging()
    try:
        if "DVC_STAGE" in os.environ and Path("params.yaml").exists():
            load_params(Path("params.yaml"))
        with logging_redirect_tqdm():
            print(main(argv))
    except InputError as error:
        sys.exit(_told(str(error)))
    except KeyboardInterrupt:
        _told("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # of a download: other outputs are told by their name
            sys.exit(_told("no space left on the disk of the downloads; see CELLULAR_CACHE"))
        if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError):
            sys.exit(_told(f"{error.filename}: {error.strerror}; choose another path"))
        raise


def _told(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return EXIT_BAD_INPUT

"""The command line: flags made from parameters, the log, and errors of one line."""

import argparse
import logging
import os
import re
import signal
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from cellular.base.errors import InputError, PartlyDone
from cellular.base.files import FULL
from cellular.base.params import UNIT_HELP, Section, SectionT, Unit, read_params, validate

EXIT_PARTLY_DONE = 1
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


class Parser(argparse.ArgumentParser):
    """The flags of a script: paths, the parameters of a stage, and what several scripts have."""

    def __init__(self, doc: str | None, **options: Any) -> None:
        # Raw: an example in the docstring stays as it is.
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(description=doc, formatter_class=layout, **options)
        # What argparse takes for a value although it begins with a dash: by itself numbers only,
        # but a range such as -5..10 is one, too. No flag of ours begins with a digit.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def path(self, *names: str, help: str, default: str | None = None, **options: Any) -> None:
        """Add a flag or an argument that takes a path."""
        if default is not None:
            options["default"] = Path(default)
            help = f"{help} (default: {default})"
        self.add_argument(*names, type=Path, help=help, **options)

    def parameters(self, *models: type[Section], **short: str) -> None:
        """Add a flag for each field of the models, and `--params`; `short` gives some a letter."""
        group = self.add_argument_group("parameters")
        text = "read the parameters from this file, such as params.yaml; flags override it"
        group.add_argument("--params", type=Path, metavar="FILE", help=text)
        for name, field in [item for model in models for item in model.model_fields.items()]:
            names = ([f"-{short[name]}"] if name in short else []) + [f"--{name}"]
            default = field.default
            shown = (
                " ".join(map(str, default)) or "none" if isinstance(default, list) else str(default)
            )
            shown = shown.lower() if isinstance(default, bool) or default is None else shown
            text = f"{field.description} (default: {shown})".replace("%", "%%")
            options: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
            if field.annotation is bool:
                options["action"] = Flag
            elif typing.get_origin(field.annotation) is list:
                options |= {"nargs": "+", "metavar": name.rstrip("s").upper()}
            else:
                options["metavar"] = _metavar(field.annotation)
            group.add_argument(*names, **options)

    def models(self, splits: str) -> None:
        """Add the flags that say which results of two models to read, and of which splits."""
        text = "folder that holds a folder of scores, written by src/eval.py, for each model"
        self.path("--metrics_dir", help=text, default="metrics")
        names = "pretrained finetuned"
        text = f"the two models, or folders of theirs in metrics_dir (default: {names})"
        self.add_argument("--models", nargs=2, default=names.split(), metavar="MODEL", help=text)
        text = f"splits to read (default: {splits})"
        self.add_argument("--splits", nargs="+", default=splits.split(), metavar="SPLIT", help=text)

    def seed(self, what: str) -> None:
        """Add `--seed`; `what` says what the seed decides."""

        def seed(text: str) -> int:
            if not text.isdecimal():
                raise argparse.ArgumentTypeError(
                    f"expected a whole number from 0 on, found {text!r}"
                )
            if len(text) > 10 or int(text) >= 2**31:
                raise argparse.ArgumentTypeError(f"expected a number below 2**31, found {text!r}")
            return int(text)

        self.add_argument("--seed", type=seed, default=0, help=f"decides {what} (default: 0)")

    def unit(self) -> None:
        """Add `--unit`, for a script that takes no other parameter of the scores."""
        text = f"{UNIT_HELP} (default: site)"
        self.add_argument("--unit", choices=typing.get_args(Unit), default="site", help=text)

    def device(self) -> None:
        """Add `--device`, the name that `cellular.base.devices.choose` takes."""
        text = "auto (a GPU if there is one), cpu, cuda, cuda:<n> or mps (default: auto)"
        self.add_argument("--device", default="auto", help=text)

    def model(self, name: str = "--model", **options: Any) -> None:
        """Add the flag for a model that is used, which `cellular.models.folders` opens."""
        text = "folder of a model, whose settings are the defaults of the flags below, or weights"
        self.path(name, help=text, **options)

    def force(self) -> None:
        """Add `--force`."""
        self.add_argument("--force", action="store_true", help="replace an output that exists")


def _metavar(annotation: Any) -> str:
    """Return the kind of value that a flag takes, from a type that may be optional or bounded."""
    if typing.get_origin(annotation) is typing.Literal:
        return f"{{{','.join(typing.get_args(annotation))}}}"
    kinds = [annotation]
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        kinds = list(typing.get_args(annotation))
    kinds = [typing.get_args(kind)[0] if hasattr(kind, "__metadata__") else kind for kind in kinds]
    if float in kinds:
        return "NUMBER"
    return "N" if int in kinds else "TEXT"


def parameters(
    model: type[SectionT], args: argparse.Namespace, defaults: Mapping[str, Any] | None = None
) -> SectionT:
    """Return the parameters of `model`: from the file of `--params`, then from the flags.

    `defaults` hold where neither says anything. The rest of the file is not checked:
    src/check_params.py checks the whole file at once.
    """
    values: Any = read_params(args.params) if args.params else {}
    if args.params and model.section:
        values = values.get(model.section)
        if not isinstance(values, dict):
            raise InputError(f"{args.params}: expected a section {model.section} with names in it")
    values = dict(defaults or {}) | values | vars(args)
    known = {name: value for name, value in values.items() if name in model.model_fields}
    return validate(model, known, str(args.params or "command line"))


def setup_logging(level: int = logging.INFO) -> None:
    """Send the package's log to standard error, one line a message, time first."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    log.setLevel(level)


def run(main: Callable[[Sequence[str] | None], str], argv: Sequence[str] | None = None) -> None:
    """Run the `main` of a script, print its line of result, and leave with its exit code.

    Bad input ends with one message and code 2, an interrupt with 130. Code 1 says that a part of
    the input was bad, and that the rest was done. None shows a traceback.
    """
    setup_logging()
    if callable(signal.getsignal(signal.SIGINT)):  # until now see `cellular.base`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with logging_redirect_tqdm():
            print(main(argv), flush=True)
    except InputError as error:
        sys.exit(_fail(str(error)))
    except PartlyDone as error:
        _fail(str(error))
        sys.exit(EXIT_PARTLY_DONE)
    except KeyboardInterrupt:
        _fail("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has closed it, as `head` does. Without this, Python would report
        # the same again at exit, when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        if error.errno in FULL:  # outputs have messages of their own, see `files.whole`
            reason += (
                "; make room for temporary files and for downloads, or name other folders for "
                "them in TMPDIR and CELLULAR_CACHE"
            )
        elif error.filename:
            reason = f"{error.filename}: {reason}; choose another path"
        sys.exit(_fail(reason))


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return EXIT_BAD_INPUT

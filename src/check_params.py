"""Check every parameter in params.yaml, before any stage runs or removes an output.

Example:
    python src/check_params.py params.yaml
"""

from collections.abc import Sequence

from cellular.base import cli
from cellular.base.files import check_apart, whole
from parameters import load_params


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = cli.Parser(__doc__)
    parser.path("params", help="the file to check")
    parser.path("--output", help="file to write once all parameters are valid")
    args = parser.parse_args(argv)
    if args.output is not None:
        check_apart([args.output], [args.params])
    load_params(args.params)
    message = "every parameter has a valid value"
    if args.output is not None:
        with whole(args.output) as staging:
            staging.write_text(f"{message}\n", encoding="utf-8")
    return f"{args.params}: {message}"


if __name__ == "__main__":
    cli.run(main)

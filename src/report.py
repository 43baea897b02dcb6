"""Write the results of a run, both models side by side, as one page of HTML.

Example:
    python src/report.py --metrics_dir metrics --output metrics/report.html
"""

from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.base.files import check_apart
from cellular.fetching.sources import sources_of
from cellular.reporting.report import write_report
from cellular.reporting.revision import revision_of
from cellular.reporting.scored import scored_as
from parameters import load_params


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = cli.Parser(__doc__)
    parser.models(splits="test valid train")
    text = "the parameters of the run, which the page lists"
    parser.path("--params", help=text, default="params.yaml")
    parser.path("--output", help="the page to write", default="metrics/report.html")
    text = "file for a copy of the picture of the first split's typical field"
    parser.path("--example", help=text)
    parser.force()
    args = parser.parse_args(argv)
    check_apart(filter(None, (args.output, args.example)), [args.params])
    params = load_params(args.params)
    models = [scored_as(model, args.metrics_dir, args.splits) for model in args.models]
    page = write_report(
        args.metrics_dir,
        (models[0], models[1]),
        args.splits,
        params.model_dump(),
        sources_of(params.dataset, params.train.model_type),
        revision_of(Path(__file__).parents[1]),
        args.output,
        example=args.example,
        seed=params.eval.seed,
        unit=params.eval.unit,
        force=args.force,
    )
    return f"{page}: {page.stat().st_size / 1e6:.1f} MB, opens in any browser"


if __name__ == "__main__":
    cli.run(main)

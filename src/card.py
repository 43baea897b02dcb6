r"""Write the settings and the card of a model beside its weights, from its scores.

Example:
    python src/card.py --weights experiments/mine/models/mine --model mine \
        --metrics_dir experiments/mine/scores --training experiments/mine/train.json \
        --images prepared/all/train
"""

from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.fetching.sources import catalogue, sources_of
from cellular.reporting.card import write_card
from cellular.reporting.revision import revision_of
from parameters import load_params


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = cli.Parser(__doc__)
    text = "weights file; its folder becomes that of the model"
    parser.path("--weights", required=True, help=text)
    parser.add_argument("--model", required=True, help="folder of its scores in metrics_dir")
    text = "folder that holds the folder of its scores"
    parser.path("--metrics_dir", help=text, default="metrics")
    text = "train.json of its training (default: the one in metrics_dir)"
    parser.path("--training", help=text)
    text = "splits whose scores the card shows (default: test)"
    parser.add_argument("--splits", nargs="+", default=["test"], metavar="SPLIT", help=text)
    text = "prepared folder of the training images; the settings record what they are like"
    parser.path("--images", required=True, help=text)
    text = "the parameters of the run, which name the data and the starting weights"
    parser.path("--params", help=text, default="params.yaml")
    parser.force()
    args = parser.parse_args(argv)
    params = load_params(args.params)
    source = catalogue().datasets.get(params.dataset)
    record = write_card(
        args.weights,
        args.metrics_dir,
        args.model,
        args.splits,
        args.images,
        params.model_dump(),
        sources_of(params.dataset, params.train.model_type),
        revision_of(Path(__file__).parents[1]),
        training_file=args.training,
        pixel_size=params.data.pixel_size or (source.pixel_size if source else None),
        force=args.force,
    )
    return f"{args.weights.parent}: a model for cells of {record.diameter:.4g} pixels"


if __name__ == "__main__":
    cli.run(main)

r"""Train Cellpose on prepared folders, from pretrained or random weights.

Example:
    python src/train.py --train_dir prepared/all/train --valid_dir prepared/all/valid \
        --experiment_name mine --model_type scellseg
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from cellular.base import cli, devices
from cellular.base.params import CELL_DIAMETER_HELP
from cellular.imaging.fields import load_pairs
from cellular.imaging.trainingset import check_source
from cellular.network import weights
from cellular.training.finetuning import Outputs, fine_tune
from cellular.training.params import SavingParams, TrainParams


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = _parser()
    args = parser.parse_args(argv)
    outputs = _outputs(parser, args)
    params = cli.parameters(TrainParams, args)
    prepared = {"train": args.train_dir, "valid": args.valid_dir}
    if params.all_fields:
        if args.test_dir is None:
            parser.error("--all_fields true trains on the test fields too; give --test_dir")
        prepared["test"] = args.test_dir
    inputs = [*prepared.values(), args.flows_dir, args.weights, args.params]
    inputs.append(Path(params.model_type))  # or it is a name in the catalogue
    outputs.check([path for path in inputs if path and path.exists()], args.force)
    device = devices.choose(args.device)
    with _training_sets(parser, args, prepared, device) as sets:
        summary = fine_tune(
            _starting_weights(args.weights, params.model_type, args.seed),
            sets,
            outputs,
            params,
            valid_dir=args.valid_dir,
            save_every=cli.parameters(SavingParams, args).save_every,
            seed=args.seed,
            device=device,
            force=args.force,
        )
    return (
        f"{outputs.model}: weights of epoch {summary['kept_epoch']}; stopped after epoch "
        f"{summary['epochs']} ({summary['stopped']}); lowest validation loss "
        f"{summary['best_valid_loss']:.4f} in epoch {summary['best_epoch']}"
    )


def _parser() -> cli.Parser:
    parser = cli.Parser(
        __doc__,
        epilog="The weights open in Cellpose's GUI and in CellposeModel(pretrained_model=...).\n"
        "A run that was stopped or killed resumes where its state was last saved, when the same\n"
        "command is given again. Several GPUs or machines:\n"
        "    fabric run --strategy ddp --devices N src/train.py -- --train_dir ...",
    )
    parser.path("--train_dir", required=True, help="prepared folder to train on")
    parser.path("--valid_dir", required=True, help="prepared folder to validate on")
    text = "prepared folder of test fields; they are trained on with --all_fields true only"
    parser.path("--test_dir", help=text)
    parser.path("--weights", help="weights file to start from, in place of --model_type")
    text = "names the outputs; not needed with --output_model and --metrics_dir"
    parser.add_argument("--experiment_name", help=text)
    parser.path("--experiments_dir", help="folder of all experiments", default="experiments")
    text = "weights to write (default: <experiments_dir>/<name>/models/<name>)"
    parser.path("--output_model", help=text)
    text = "file for the weights of the last step (default: <output_model>_last)"
    parser.path("--last_model", help=text)
    text = "folder for train.csv and train.json (default: <experiments_dir>/<name>)"
    parser.path("--metrics_dir", help=text)
    parser.path(
        "--flows_dir",
        help="flows that prepare_data.py --flows_dir wrote for the same folders (default: they are "
        "computed for this run)",
    )
    for name, text, default in (
        ("cell_diameter", CELL_DIAMETER_HELP, "none"),
        ("flow_format", "number format of the flows, int8 or float32", "int8"),
    ):
        text = f"{text}. Only without --flows_dir (default: {default})"
        parser.add_argument(f"--{name}", metavar="VALUE", default=argparse.SUPPRESS, help=text)
    parser.parameters(TrainParams, SavingParams)
    parser.seed("the crops and random weights")
    parser.device()
    parser.force()
    return parser


def _outputs(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Outputs:
    name = args.experiment_name
    if name is None and (args.output_model is None or args.metrics_dir is None):
        parser.error("give --experiment_name, or both --output_model and --metrics_dir")
    if name is not None and (name in ("", "..") or Path(name).name != name):
        parser.error(f"--experiment_name {name!r}: expected a plain name, without slashes")
    home = args.experiments_dir / (name or "")
    model = args.output_model or home / "models" / name
    if not model.name:
        parser.error("--output_model is empty; expected a file")
    last_model = args.last_model or model.with_name(f"{model.name}_last")
    return Outputs(model, last_model, args.metrics_dir or home)


@contextmanager
def _training_sets(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    prepared: dict[str, Path],
    device: torch.device,
) -> Iterator[dict[str, Path]]:
    """Give the folder of flows of each prepared folder; compute the flows if there are none."""
    if args.flows_dir is not None:
        if given := {"cell_diameter", "flow_format"} & vars(args).keys():
            parser.error(f"--flows_dir holds finished flows; leave out --{min(given)}")
        for name, source in prepared.items():
            check_source(args.flows_dir / name, load_pairs(source))
        yield {name: args.flows_dir / name for name in prepared}
        return
    from cellular.preparing.flows import write_sets  # takes seconds to import
    from cellular.preparing.params import PrepareParams

    prepare = cli.parameters(PrepareParams, args)
    with tempfile.TemporaryDirectory() as folder:
        write_sets(
            prepared,
            Path(folder),
            flow_format=prepare.flow_format,
            cell_diameter=prepare.cell_diameter,
            device=device,
        )
        yield {name: Path(folder) / name for name in prepared}


def _starting_weights(file: Path | None, model_type: str, seed: int) -> weights.State:
    if file is not None:
        return weights.load(file)
    # Imported here: the pipeline hands over a file, and a new entry in the catalogue of downloads
    # must not count as a change of the code that a saved state belongs to.
    from cellular.fetching.pretrained import pretrained_state

    return pretrained_state(model_type, seed)


if __name__ == "__main__":
    cli.run(main)

"""Train Cellpose on prepared folders, from pretrained or random weights."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli, devices
from cellular.base.params import (
    CELL_DIAMETER_HELP,
    GAMMA_HELP,
    PrepareParams,
    TrainParams,
    validate,
)
from cellular.network import weights
from cellular.training.finetuning import fine_tune


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="The defaults are the paper's recipe. The weights open in Cellpose's GUI and in "
        "CellposeModel(pretrained_model=...). A run that was stopped or killed goes on where its "
        "state was last saved, when the same command is given again. Several GPUs or machines: "
        "fabric run --strategy ddp --devices N src/train.py ... or torchrun.",
    )
    parser.add_argument("--train_dir", type=Path, required=True, help="prepared folder to train on")
    parser.add_argument(
        "--valid_dir", type=Path, required=True, help="prepared folder to validate on"
    )
    parser.add_argument(
        "--experiment_name", help="names the weights; not needed with --output_model"
    )
    parser.add_argument(
        "--experiments_dir", type=Path, default=Path("experiments"), help="(default: ./experiments)"
    )
    parser.add_argument(
        "--output_model",
        type=Path,
        help="weights to write (default: <experiments_dir>/<name>/models/<name>)",
    )
    parser.add_argument(
        "--last_model",
        type=Path,
        help="weights of the last step (default: <output_model>_last)",
    )
    parser.add_argument(
        "--flows_dir",
        type=Path,
        help="flows that prepare_data.py --flows_dir wrote, of this class: <flows_dir>/train, "
        "/valid (default: they are computed for this run)",
    )
    parser.add_argument(
        "--cell_diameter",
        type=float,
        help=f"{CELL_DIAMETER_HELP}; of flows that this run computes (default: none)",
    )
    parser.add_argument(
        "--gamma",
        type=float,
        help=f"{GAMMA_HELP}; of flows that this run computes (default: 1)",
    )
    parser.add_argument(
        "--metrics_dir",
        type=Path,
        help="gets train.csv and train.json (default: <experiments_dir>/<name>)",
    )
    cli.add_parameters(parser, TrainParams)
    parser.add_argument(
        "--seed", type=int, default=0, help="of crops and random weights (default: 0)"
    )
    parser.add_argument("--device", default="auto", help=f"{devices.HELP} (default: auto)")
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    args = parser.parse_args(argv)
    name = args.experiment_name
    if name is None and (args.output_model is None or args.metrics_dir is None):
        parser.error("give --experiment_name, or both --output_model and --metrics_dir")
    if args.flows_dir is not None and (args.cell_diameter or args.gamma):
        parser.error(
            "--cell_diameter and --gamma are of flows that are computed; "
            "those in --flows_dir are as they are"
        )
    given = {"cell_diameter": args.cell_diameter, "gamma": args.gamma}
    given = {name: value for name, value in given.items() if value is not None}
    computed = validate(PrepareParams, given, "command line")
    home = args.experiments_dir / (name or "")
    output = args.output_model or home / "models" / name
    params = cli.parameters(TrainParams, args)
    summary = fine_tune(
        starting_weights(params.model_type, args.seed),
        args.train_dir,
        args.valid_dir,
        output,
        args.metrics_dir or home,
        params,
        flows_dir=args.flows_dir,
        cell_diameter=computed.cell_diameter,
        gamma=computed.gamma,
        last_model=args.last_model,
        seed=args.seed,
        device=devices.choose(args.device),
        force=args.force,
    )
    return (
        f"{output}: epoch {summary['kept_epoch']} of {summary['epochs']}, "
        f"{summary['stopped']}; best validation loss {summary['best_valid_loss']:.4f} in epoch "
        f"{summary['best_epoch']}"
    )


def starting_weights(model_type: str, seed: int) -> weights.State:
    """Return the weights that training starts from."""
    if Path(model_type).is_file():
        return weights.load(Path(model_type))
    # Imported only when it is used: the pipeline hands over a file, so that a new entry in the
    # catalogue does not make DVC train anew.
    from cellular.fetching.pretrained import pretrained_state

    return pretrained_state(model_type, seed)


if __name__ == "__main__":
    cli.run(main)

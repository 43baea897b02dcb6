"""Train Cellpose on prepared folders, from pretrained or random weights."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular import cli, devices, weights
from cellular.params import TrainParams
from cellular.training import train_folders


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="The defaults are the paper's recipe. The weights open in Cellpose's GUI and in "
        "CellposeModel(pretrained_model=...).",
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
    home = args.experiments_dir / (name or "")
    output = args.output_model or home / "models" / name
    params = cli.parameters(TrainParams, args)
    summary = train_folders(
        starting_weights(params.model_type, args.seed),
        args.train_dir,
        args.valid_dir,
        output,
        args.metrics_dir or home,
        params,
        seed=args.seed,
        device=devices.choose(args.device),
        force=args.force,
    )
    return (
        f"{output}: {summary['epochs']} epochs, training loss {summary['train_loss']:.4f}, "
        f"validation loss {summary['valid_loss']:.4f}"
    )


def starting_weights(model_type: str, seed: int) -> weights.State:
    """Return the weights that training starts from."""
    if Path(model_type).is_file():
        return weights.load(Path(model_type))
    # Imported only when it is used: the pipeline hands over a file, so that a new entry in the
    # catalogue does not make DVC train anew.
    from cellular.pretrained import pretrained_state

    return pretrained_state(model_type, seed)


if __name__ == "__main__":
    cli.run(main)

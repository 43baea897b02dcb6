"""Search for better parameters: trials that learn from each other, each a DVC experiment.

What varies, and by what a trial is judged, is in search.yaml. Give the same command again after a
kill, or on another machine that sees the same folder: finished trials are kept, and a trial whose
worker was killed is taken up again.

Example:
    python src/search.py --study mine --trials 20 --workers 2
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from cellular.base import cli
from cellular.base.errors import InputError
from cellular.base.params import flat, read_params, validate
from cellular.experiments.clones import git
from cellular.experiments.profiles import add_workers, overridden, positive
from cellular.experiments.runner import Stopped, identified, legal
from cellular.fetching.remotes import ROOT
from parameters import Params

try:
    from optuna.trial import TrialState

    from cellular.experiments.findings import write_findings
    from cellular.experiments.search import Place, judged, work
    from cellular.experiments.space import Search
    from cellular.experiments.studies import DONE, FAILURES, Study
except ModuleNotFoundError:  # an optional extra
    print("error: src/search.py needs Optuna; install it with `make extras`", file=sys.stderr)
    sys.exit(cli.EXIT_BAD_INPUT)


def main(argv: Sequence[str] | None = None) -> str:
    """Run what is missing of the search, and return what it found."""
    args = _parser().parse_args(argv)
    folder = (ROOT / "experiments" / args.study).resolve()
    settings = validate(Search, read_params(args.settings), str(args.settings))
    place = Place(ROOT, settings, folder)
    trials = args.trials or settings.trials
    if args.worker is not None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        number, parent = args.worker
        try:
            work(place, trials, number, args.workers, parent)
        except Stopped:
            return f"worker {number} ended, since the process that started it is gone"
        return f"worker {number} has no more to do"
    place.check(Params, args.settings)

    def recipe() -> str:
        return identified(ROOT, args.study, place.base, Params, args.settings)

    study = _opened(place)
    command = [sys.executable, __file__, "--study", args.study, "--settings", str(args.settings)]
    command += ["--trials", str(trials), "--workers", str(args.workers)]
    while True:
        if len(study.trials(*DONE)) < trials:
            study.check_recipe(recipe())
        _run_workers(study, trials, args.workers, command)
        if count := study.elsewhere():
            return (
                f"{count} trials are under way elsewhere; the results are written there, or by "
                "the same command here once they are finished"
            )
        if len(study.trials(*DONE)) >= trials:
            break  # otherwise a trial elsewhere was killed or has failed: it is done here
    with study.judging:
        # The recipe as it is now: files may have changed while the trials ran.
        return write_findings(study, judged(place, study, recipe(), args.workers))


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    text = "name of the search, and of its folder in experiments/ (default: search)"
    parser.add_argument("--study", type=_name, default="search", metavar="NAME", help=text)
    parser.path("--settings", default="search.yaml", help="what varies, and how trials are judged")
    text = "number of trials, those of earlier calls included (default: that of search.yaml)"
    parser.add_argument("--trials", type=positive, metavar="N", help=text)
    add_workers(parser, "trials")
    # Number, and id of the process that starts it.
    parser.add_argument("--worker", nargs=2, type=int, help=cli.argparse.SUPPRESS)
    return parser


def _name(text: str) -> str:
    # Experiments of a study mine-0007 or mine-default would be taken for those of the study mine.
    if not text or text != legal(text) or re.search(r"-(\d{4}|default)$", text):
        raise cli.argparse.ArgumentTypeError(
            "expected letters, digits, - and _, and no -0007 or -default at the end, since "
            f"experiments are called so; found {text!r}"
        )
    return text


def _opened(place: Place) -> Study:
    """Open the study, or make it with the default recipe as its first trial."""
    name = place.folder.name
    study = place.study()
    if not study.trials():
        made = (f"refs/exps/*/*/{name}-{kind}*" for kind in ("[0-9]" * 4, "default"))
        if left := git(ROOT, "for-each-ref", "--format=%(refname)", *made):
            raise InputError(
                f"{name}: there are experiments of an earlier search of this name, such as "
                f"{left.split()[0].rpartition('/')[2]}; give another with --study, or remove "
                "them with `dvc exp remove`"
            )
        params = overridden(ROOT / "params.yaml", place.base, place.folder)
        if drawn := place.settings.default(dict(flat(params))):
            study.add(drawn)
    return study


def _run_workers(study: Study, trials: int, workers: int, command: Sequence[str]) -> None:
    """Keep workers running until there are enough trials; end them if this process is to end."""
    running: dict[int, subprocess.Popen] = {}
    kills: list[int] = []  # the number of finished trials at each kill
    logs = study.folder / "logs"
    logs.mkdir(exist_ok=True)
    begun: dict[int, int] = {}  # where each worker's part of its log begins

    def start(number: int) -> None:
        with (logs / f"worker-{number}.log").open("a") as log:
            begun[number] = log.tell()
            each = [*command, "--worker", str(number), str(os.getpid())]
            # In a session of its own, so that Ctrl-C reaches it once, from here.
            running[number] = subprocess.Popen(each, stdout=log, stderr=log, start_new_session=True)

    def done() -> int:
        return len(study.trials(*DONE))

    try:
        with tqdm(total=trials, initial=done(), desc="search", unit="trial") as bar:
            if bar.n < trials:
                for number in range(workers):
                    start(number)
            while running:
                time.sleep(0.5)
                bar.n = done()
                if study.trials(TrialState.COMPLETE):
                    bar.set_postfix(best=f"{study.best().values[0]:.4f}", refresh=False)
                bar.refresh()  # its clock goes on while no trial ends
                for number, process in list(running.items()):
                    code = process.poll()
                    if code is None:
                        continue
                    del running[number]
                    if code < 0:
                        kills.append(done())
                        if kills.count(kills[-1]) > FAILURES * workers:
                            raise InputError(
                                f"worker {number} was killed by signal {-code}, and others before "
                                "it, while no trial was finished; is there enough memory? "
                                f"{logs / f'worker-{number}.log'} has its output"
                            )
                        tqdm.write(f"worker {number} was killed; another takes its trial up")
                        start(number)
                    elif code:
                        raise InputError(_last_error(logs / f"worker-{number}.log", begun[number]))
    except BaseException as error:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        if isinstance(error, KeyboardInterrupt):
            print(
                f"{done()} of {trials} trials are finished; give the same command again to go on",
                file=sys.stderr,
            )
        raise


def _last_error(log: Path, start: int) -> str:
    lines = log.read_bytes()[start:].decode("utf-8").splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    text = "\n".join(lines[errors[-1] :] if errors else lines[-5:])
    return text.removeprefix("error: ")


if __name__ == "__main__":
    cli.run(main)

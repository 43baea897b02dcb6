"""Clusters: batches of images on the workers of Dask, on this machine or on many."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from cellular.base.errors import InputError
from cellular.base.queues import cores
from cellular.imaging.microscopy import Source
from cellular.segmenting.batches import Job, finished, segment_batch
from cellular.segmenting.runs import Rows, Work

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

Plan = Callable[[Sequence[Source]], Sequence[Source]]
LOCAL = "local"
CONNECT = 10  # seconds until a scheduler is given up
GPU = {"GPU": 1}  # what a task takes of a worker that was started with --resources GPU=1
HERE = "127.0.0.1"  # a worker runs whatever it is sent, so none listens to other machines


@contextmanager
def on_cluster(scheduler: str, *, size: int, plan: Plan) -> Iterator[Work]:
    """Give what does the work of `segment_batch` on a Dask cluster, in tasks of `size` images.

    The workers need this package and the folders of images, model and output. If a worker dies,
    Dask gives its task to another one, which begins with the image that was not finished.

    Parameters
    ----------
    scheduler : address such as tcp://host:8786, or `local`: one worker for each GPU, or without one
        for each core
    plan : prepares the images of a task to be read together

    Raises
    ------
    InputError
        If Dask is not installed, the scheduler does not answer, or a task has killed its workers.
    """
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")  # read once, when it is imported
    try:
        import distributed  # noqa: F401, an optional extra
    except ImportError:
        raise InputError("--scheduler needs Dask; install it with `make extras`") from None
    with _local() if scheduler == LOCAL else _connected(scheduler) as client:
        yield partial(_spread, client=client, size=size, plan=plan)


def _spread(
    sources: Sequence[Source], job: Job, *, client: "Client", size: int, plan: Plan
) -> Rows:
    from distributed import KilledWorker, as_completed

    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    gpus = any("GPU" in worker["resources"] for worker in workers)
    options = {"pure": False, "resources": GPU if gpus else None}
    tasks = [
        client.submit(_task, plan(sources[at : at + size]), job, **options)
        for at in range(0, len(sources), size)
    ]
    try:
        for task in as_completed(tasks):
            yield from task.result()
    except KilledWorker as error:
        raise InputError(
            f"one task has ended several workers, most often because memory is short: give each "
            f"worker more, or lower --batch_images ({error})"
        ) from None
    except (ImportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "deserialization" not in str(error):
            raise
        raise InputError(
            "the scheduler or its workers cannot import this package, or have other versions of "
            "what it needs; start them in the same environment, with its folder src in PYTHONPATH "
            f"({' '.join(str(error.__cause__ or error).split())})"
        ) from None


def _task(sources: Sequence[Source], job: Job) -> list[dict[str, Any]]:
    """Segment a batch; what a worker that died has finished of it is not done again."""
    rows = {source.name: finished(source, job) for source in sources}
    missing = [source for source in sources if rows[source.name] is None]
    return [row for row in rows.values() if row is not None] + list(segment_batch(missing, job))


@contextmanager
def _connected(scheduler: str) -> Iterator["Client"]:
    """Give a client of the cluster with this scheduler, when it has a worker."""
    from distributed import Client

    try:
        client = Client(scheduler, timeout=CONNECT)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{scheduler}: no scheduler of Dask answers there ({reason}); start one with "
            "`dask scheduler`, or give --scheduler local"
        ) from None
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            log.warning("%s: no worker yet; waiting for the first one", scheduler)
            client.wait_for_workers(1)
        yield client


@contextmanager
def _local() -> Iterator["Client"]:
    """Give a client of a cluster on this machine, which ends with the block."""
    from distributed import Client, Nanny, Scheduler, SpecCluster

    gpus = torch.cuda.device_count()
    each = [{"CUDA_VISIBLE_DEVICES": str(number)} for number in range(gpus)]
    each = each or [{"OMP_NUM_THREADS": "1"}] * cores()
    common = {"host": HERE, "nthreads": 1, "resources": GPU if gpus else None}
    workers = {
        number: {"cls": Nanny, "options": common | {"env": variables}}
        for number, variables in enumerate(each)
    }
    front = {"cls": Scheduler, "options": {"host": HERE, "dashboard_address": f"{HERE}:0"}}
    with SpecCluster(workers, front) as cluster, Client(cluster) as client:
        client.wait_for_workers(len(workers), timeout=60)
        yield client

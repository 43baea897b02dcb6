"""Clusters: batches of images on the workers of Dask, on this machine or on many."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from cellular.base.errors import InputError
from cellular.base.queues import cores
from cellular.imaging.microscopy import Source
from cellular.segmenting.batches import Job, finished, segment_batch

if TYPE_CHECKING:
    from distributed import Client

Plan = Callable[[Sequence[Source]], Sequence[Source]]
LOCAL = "local"
CONNECT = 20  # seconds until a scheduler is given up
GPU = {"GPU": 1}  # what a task takes of a worker that was started with --resources GPU=1


def spread(
    sources: Sequence[Source], job: Job, *, scheduler: str, size: int, plan: Plan
) -> Iterator[dict[str, Any]]:
    """Do what `segment_batch` does, in tasks of `size` images, on the workers of a Dask cluster.

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
    try:
        from distributed import KilledWorker, as_completed  # an optional extra
    except ImportError:
        raise InputError("--scheduler needs Dask; install it with `make extras`") from None
    with _connected(scheduler) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        on_gpus = any("GPU" in worker.get("resources", {}) for worker in workers)
        tasks = [
            client.submit(
                _task,
                plan(sources[at : at + size]),
                job,
                pure=False,
                resources=GPU if on_gpus else None,
            )
            for at in range(0, len(sources), size)
        ]
        for task in as_completed(tasks):
            try:
                yield from task.result()
            except KilledWorker as error:
                raise InputError(
                    f"{scheduler}: the same task has ended several workers ({error}); most often "
                    "memory is short: give each worker more, or lower --batch_images"
                ) from None


def _task(sources: Sequence[Source], job: Job) -> list[dict[str, Any]]:
    """Segment a batch; what a worker that died has finished of it is not done again."""
    rows = {source.name: finished(source, job) for source in sources}
    missing = [source for source in sources if rows[source.name] is None]
    return [row for row in rows.values() if row is not None] + list(segment_batch(missing, job))


@contextmanager
def _connected(scheduler: str) -> Iterator["Client"]:
    """Give a client of a cluster, which is started for the block if it is to be local."""
    from distributed import Client, Nanny, Scheduler, SpecCluster

    if scheduler != LOCAL:
        try:
            with Client(scheduler, timeout=CONNECT) as client:
                yield client
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{scheduler}: no scheduler of Dask answers there ({reason}); start one with "
                "`dask scheduler`, or give --scheduler local"
            ) from None
        return
    gpus = torch.cuda.device_count()
    each = [{"CUDA_VISIBLE_DEVICES": str(number)} for number in range(gpus)]
    each = each or [{"OMP_NUM_THREADS": "1"}] * cores()
    workers = {
        number: {
            "cls": Nanny,
            "options": {"nthreads": 1, "env": variables, "resources": GPU if gpus else None},
        }
        for number, variables in enumerate(each)
    }
    front = {"cls": Scheduler, "options": {"dashboard": False, "protocol": "tcp://"}}
    with SpecCluster(workers, front) as cluster, Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        yield client

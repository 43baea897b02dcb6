"""Device and precision of a training run, and its number of processes."""

import pytest
import torch
from helpers.batchnorm import SyncedBatchNorm, synchronised

from cellular.base.devices import choose_precision
from cellular.base.errors import InputError
from cellular.network.weights import new_network
from cellular.training.accelerators import launch

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_precision_that_the_device_lacks_is_refused():
    assert choose_precision(CPU) in ("32", "bf16")
    assert choose_precision(CPU, "32") == "32"
    assert choose_precision(GPU, "tf32") == "tf32"
    for precision in ("tf32", "fp16"):
        with pytest.raises(InputError, match=f"precision {precision} needs a GPU"):
            choose_precision(CPU, precision)
    with pytest.raises(InputError, match="needs an NVIDIA GPU"):
        choose_precision(torch.device("mps"), "tf32")


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_run_is_one_process_on_the_device_unless_launched_otherwise(precision):
    fabric = launch(CPU, precision)
    assert (fabric.world_size, fabric.device, fabric.is_global_zero) == (1, CPU, True)
    with fabric.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"32": torch.float32, "bf16": torch.bfloat16}[precision]


@pytest.mark.parametrize("device", [CPU, torch.device("mps")])
def test_several_processes_need_nvidia_gpus(monkeypatch, device):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match=f"4 processes on {device.type}: .*start one process"):
        launch(device, "32")


@pytest.fixture
def group_of_one(tmp_path):
    """A group of one process: a sum over its processes is the process's own."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_the_helpers_batch_normalisation_is_pytorchs_in_one_process(group_of_one):
    torch.manual_seed(0)
    theirs = torch.nn.BatchNorm2d(3, eps=1e-5, momentum=0.05)
    ours = SyncedBatchNorm(3, eps=1e-5, momentum=0.05)
    x = torch.randn(4, 3, 5, 6) * 3 + 1
    results = []
    for norm in (theirs, ours):
        given = x.clone().requires_grad_()
        norm.train()
        y = norm(given)
        (y**3).sum().backward()
        results.append((y, given.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()))
        norm.eval()
        results[-1] += (norm(x),)
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-4)


def test_the_helper_replaces_every_normalisation_of_the_network_and_keeps_its_numbers():
    net = new_network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    synchronised(net)
    assert sum(isinstance(module, SyncedBatchNorm) for module in net.modules()) == norms > 20
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

"""Device, precision, and batch normalisation over processes."""

import pytest
import torch

from cellular.base.devices import choose_precision
from cellular.base.errors import InputError
from cellular.network.weights import new_network
from cellular.training.accelerators import launch
from cellular.training.batchnorm import SyncedBatchNorm, synchronised

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_precision_is_what_the_device_has():
    assert choose_precision(CPU) in ("32", "bf16")
    assert choose_precision(CPU, "32") == "32"
    assert choose_precision(GPU, "tf32") == "tf32"
    for precision in ("tf32", "fp16"):
        with pytest.raises(InputError, match=f"precision {precision} needs a GPU"):
            choose_precision(CPU, precision)
    with pytest.raises(InputError, match="needs an NVIDIA GPU"):
        choose_precision(torch.device("mps"), "tf32")


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_launched_alone_it_is_one_process_on_the_device(precision):
    fabric = launch(CPU, precision)
    assert (fabric.world_size, fabric.device, fabric.is_global_zero) == (1, CPU, True)
    with fabric.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == {"32": torch.float32, "bf16": torch.bfloat16}[precision]


@pytest.fixture
def alone(tmp_path):
    """A group of one process, in which the sum over processes is the process's own."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_synchronised_batch_normalisation_of_one_process_is_pytorchs(alone):
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


def test_every_normalisation_of_the_network_is_exchanged_and_keeps_its_numbers():
    net = new_network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    synchronised(net)
    assert sum(isinstance(module, SyncedBatchNorm) for module in net.modules()) == norms > 20
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

"""Batch normalisation over several processes on CPUs, which PyTorch has for GPUs only.

Without it, each of two processes would normalise by its own 8 crops, and the two together would not
do the same as one process with 16.
"""

import torch
from torch import nn


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of all their gradients."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


all_sum = _Sum.apply


class SyncedBatchNorm(nn.BatchNorm2d):
    """`BatchNorm2d` whose mean and variance in training are those of all processes' samples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (n, C, H, W)."""
        if not self.training:
            return super().forward(x)
        axes = (0, 2, 3)
        # Two sums, not one of squares: the variance would lose digits to cancellation.
        counts = all_sum(x.new_full((1,), x.numel() / x.shape[1]))
        mean = all_sum(x.sum(axes)) / counts
        centred = x - mean[:, None, None]
        variance = all_sum(centred.square().sum(axes)) / counts
        with torch.no_grad():
            self.num_batches_tracked += 1
            unbiased = variance * counts / (counts - 1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


def synchronised(module: nn.Module) -> nn.Module:
    """Return the module with every `BatchNorm2d` in it replaced, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            synced = SyncedBatchNorm(child.num_features, child.eps, child.momentum)
            synced.load_state_dict(child.state_dict())
            setattr(module, name, synced.to(child.weight.device))
        else:
            synchronised(child)
    return module

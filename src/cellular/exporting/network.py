"""Cellpose's network as programs of bioimage.io call it: pixels in, flows and probability out.

Packages hold a copy of this file. It needs PyTorch and Cellpose 3, nothing else of this project.
"""

from collections.abc import Mapping
from typing import Any

import torch
from cellpose.core import run_net
from cellpose.resnet_torch import CPnet
from torch.nn.functional import pad


class Flows(torch.nn.Module):
    """Cellpose's network (CPnet) with Cellpose's tiles of 224 pixels, since it knows no others.

    Parameters
    ----------
    augment : average over mirrored tiles, which takes twice as long
    """

    def __init__(self, augment: bool = False) -> None:
        super().__init__()
        self.augment = augment
        self.network = CPnet([2, 32, 64, 128, 256], 3, sz=3, mkldnn=False, max_pool=True)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """Take the weights under the names that Cellpose gives them."""
        return self.network.load_state_dict(state_dict, *args, **options)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Return flow in y, flow in x and cell probability, (n, 3, h, w) float32.

        Parameters
        ----------
        data : (n, 1, h, w) float32, the channel of cells, or (n, 2, h, w), with that of nuclei; 1st
            and 99th percentile of each channel are 0 and 1
        """
        both = pad(data, (0, 0, 0, 0, 0, self.network.nchan - data.shape[1]))
        images = both.permute(0, 2, 3, 1).cpu().numpy()
        flows, _ = run_net(self.network, images, augment=self.augment)
        return torch.from_numpy(flows).permute(0, 3, 1, 2).to(data.device)

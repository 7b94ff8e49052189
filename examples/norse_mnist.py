"""A convolutional network of norse's LIF box neurons, lifted over time, before and after `tmkt_kernels.accelerate`.

python examples/norse_mnist.py [--T 16] [--data FOLDER]
"""

import torch
from norse.torch import LIFBoxCell, LIFBoxParameters, Lift
from race import batches, load_images, parse, race
from torch import Tensor, nn

import tmkt_kernels


class Net(nn.Module):
    """conv-pool-LIF twice, then a linear layer with LIF neurons."""

    def __init__(self) -> None:
        super().__init__()
        p = LIFBoxParameters(tau_mem_inv=torch.tensor(500.0), v_th=torch.tensor(0.25))
        self.conv1, self.lif1 = Lift(nn.Sequential(nn.Conv2d(1, 16, 5), nn.MaxPool2d(2))), Lift(LIFBoxCell(p))
        self.conv2, self.lif2 = Lift(nn.Sequential(nn.Conv2d(16, 32, 5), nn.MaxPool2d(2))), Lift(LIFBoxCell(p))
        self.fc, self.lif3 = nn.Linear(32 * 16, 10), Lift(LIFBoxCell(p))

    def forward(self, x_seq: Tensor) -> Tensor:
        spikes, _ = self.lif1(self.conv1(x_seq))
        spikes, _ = self.lif2(self.conv2(spikes))
        spikes, _ = self.lif3(self.fc(spikes.flatten(2)))
        return spikes


def main() -> dict[str, float]:
    args = parse(__doc__ or "", T=8)

    def rate(net: nn.Module, images: Tensor) -> Tensor:
        mean: Tensor = net(images.expand(args.T, *images.shape)).mean(0)
        return mean

    data = batches(*load_images(args.data), args)
    # The one line is tmkt_kernels.accelerate(net).
    return race(Net, tmkt_kernels.accelerate, rate, data, args)


if __name__ == "__main__":
    main()

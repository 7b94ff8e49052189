"""SpikingJelly's Spikformer on 28x28 images, before and after `tmkt_kernels.accelerate`.

python examples/spikingjelly_spikformer.py [--dim 64] [--depths 2] [--data FOLDER]
"""

from race import batches, load_images, parse, race
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.model.spikformer import Spikformer
from torch import Tensor, nn

import tmkt_kernels


def main() -> dict[str, float]:
    args = parse(__doc__ or "", dim=64, depths=2)

    def make() -> nn.Module:
        sizes = {"img_size_h": 28, "img_size_w": 28, "patch_size": 4, "in_channels": 1, "num_classes": 10}
        return Spikformer(T=args.T, embed_dims=args.dim, num_heads=4, depths=args.depths, **sizes)

    def logits(net: nn.Module, images: Tensor) -> Tensor:
        functional.reset_net(net)
        mean: Tensor = net(images).mean(0)
        return mean

    data = batches(*load_images(args.data), args)
    # The one line is tmkt_kernels.accelerate(net).
    return race(make, tmkt_kernels.accelerate, logits, data, args)


if __name__ == "__main__":
    main()

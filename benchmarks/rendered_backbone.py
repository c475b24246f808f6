"""A network that knows what is seen in a rendered set: trained from scratch on its single frames.

    reelbank manifest synth-gtea61 other --seed 7 --clips 320
    python benchmarks/rendered_backbone.py other resnet34-rendered.pth
    reelbank manifest synth-hmdb51 other --seed 7
    python benchmarks/rendered_backbone.py other googlenet-rendered.pth --backbone googlenet

No weights are at hand on every machine, and from random ones Ego-RNN or a frame net learn little in an hour. Train this
on another set than the one that heads are trained and tested on: another --seed draws other users, tables and clips. It
names the action, opposites as one, or the outline, whatever the direction: what is there, and nothing of the order of
frames. The file has the layout of torchvision's: `featurize --model resnet34 --weights FILE`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from reelbank import manifests
from reelbank.extract.weights import torchvision_shim
from reelbank.heads.examples.batches import MEAN, STD
from reelbank.heads.judging.opposites import pairs
from reelbank.manifests.rendered.drifting import DIRECTIONS

EVERY = 6  # frames beside each other are nearly the same
RESIZE = 256 / 224
PHASES = ((112, 64, 2e-3, 4), (224, 32, 3e-4, 1))
"""(px, batch, rate, epochs): mostly on small pictures, which cost a quarter, then at the size of extraction."""
BACKBONES = ("googlenet", "resnet34")
OUTPUTS = 1000


def read(root: Path) -> tuple[Tensor, Tensor]:
    """Frames (N, 3, H, W) uint8 and what they show (N,)."""
    made = manifests.read(root / "manifest.csv")
    labels = sorted({clip.label for clip in made.clips})
    merged = {other: one for one, other in pairs(labels)}
    merged |= {label: label.partition("_")[0] for label in labels if label.rpartition("_")[2] in DIRECTIONS}
    names = sorted({merged.get(label, label) for label in labels})
    frames, shown = [], []
    for clip in made.clips:
        action = names.index(merged.get(clip.label, clip.label))
        for picture in pictures(root / clip.video):
            frames.append(picture)
            shown.append(action)
    print(f"{len(frames)} frames of {len(made.clips)} clips: {', '.join(names)}", flush=True)
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), torch.tensor(shown)


def pictures(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Every sixth frame of a folder of pictures or of a video, (H, W, 3)."""
    if path.is_dir():
        for file in sorted(path.glob("*.png"))[::EVERY]:
            yield np.asarray(Image.open(file).convert("RGB"))
        return
    with av.open(str(path)) as container:
        for place, frame in enumerate(container.decode(video=0)):
            if not place % EVERY:
                yield frame.to_ndarray(format="rgb24")


def drawn(frames: Tensor, side: int) -> Tensor:
    """Crops (B, 3, side, side) at one random place, half of them mirrored, each in a light of its own."""
    values = frames.float() / 255
    short = round(side * RESIZE)
    height, width = values.shape[-2:]
    values = F.interpolate(values, size=(short, round(short * width / height)), mode="bilinear", antialias=True)
    values = values * (1 + 0.125 * torch.randn(len(values), 3, 1, 1))
    top, left = (int(torch.randint(size - side + 1, ())) for size in values.shape[-2:])
    values = values[..., top : top + side, left : left + side]
    if torch.rand(()) < 0.5:
        values = values.flip(-1)
    return ((values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).contiguous(
        memory_format=torch.channels_last
    )


def created(backbone: str) -> torch.nn.Module:
    """The network with its 1000 outputs, of which the first are used."""
    torchvision_shim.ensure()
    from torchvision import models

    if backbone == "resnet34":
        return models.resnet34(weights=None)
    net = models.GoogLeNet(aux_logits=False, transform_input=True, init_weights=False, num_classes=OUTPUTS)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    return net


def train(backbone: str, frames: Tensor, shown: Tensor) -> torch.nn.Module:
    """The trained network."""
    net = created(backbone).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    for side, batch, rate, epochs in PHASES:
        steps, step = epochs * (len(frames) // batch), 0
        for epoch in range(epochs):
            started, losses, right = time.monotonic(), [], []
            for rows in torch.randperm(len(frames)).split(batch):
                if len(rows) < batch:
                    continue
                for group in optimizer.param_groups:
                    group["lr"] = rate * min(1, (step + 1) / 30) * (1 - step / steps) + 1e-5
                scores = net(drawn(frames[rows], side))
                loss = F.cross_entropy(scores, shown[rows], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                losses.append(loss.item())
                right.append((scores.argmax(1) == shown[rows]).float().mean().item())
            print(
                f"{side} px, epoch {epoch + 1}: loss {np.mean(losses):.3f}, {np.mean(right):.1%} right, "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )
    return net.to(memory_format=torch.contiguous_format)


def main() -> None:
    """Reads the set, trains, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="folder of `reelbank manifest synth-gtea61` or synth-hmdb51")
    parser.add_argument("out", type=Path, help="the file of weights")
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet34")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.save(train(arguments.backbone, *read(arguments.set)).state_dict(), arguments.out)


if __name__ == "__main__":
    main()

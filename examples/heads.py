"""Train one backbone for segmentation and for detection, for a few steps on shapes drawn here.

    python examples/heads.py                      # MobileNetV3-Small; a minute on one core
    python examples/heads.py reports/20ms/small.json

It prints the losses, which fall. The heads of nas.models.heads are torchvision's.
"""

from __future__ import annotations

import random
import sys

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.transforms.v2.functional import pil_to_tensor

from nas.arch.loading import load_spec
from nas.arch.spec import ArchSpec
from nas.models.heads import detection_model, segmentation_model

SIZE = 160  # pixels of the drawings
CLASSES = ("background", "rectangle", "ellipse")
STEPS, BATCH = 8, 4


def draw(rng: random.Random) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw one to three shapes: return image (3, h, w), mask (h, w), boxes (n, 4), labels (n,)."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(rng.randrange(60) for _ in range(3)))
    mask = Image.new("L", (SIZE, SIZE), 0)
    boxes, labels = [], []
    for _ in range(rng.randint(1, 3)):
        width, height = rng.randint(30, 80), rng.randint(30, 80)
        left, top = rng.randint(0, SIZE - width - 1), rng.randint(0, SIZE - height - 1)
        box, label = (left, top, left + width, top + height), rng.randint(1, 2)
        for canvas, fill in ((image, tuple(rng.randint(120, 255) for _ in range(3))), (mask, label)):
            pen = ImageDraw.Draw(canvas)
            (pen.rectangle if label == 1 else pen.ellipse)(box, fill=fill)
        boxes.append(box)
        labels.append(label)
    pixels = pil_to_tensor(image).float() / 255
    return pixels, pil_to_tensor(mask)[0].long(), torch.tensor(boxes).float(), torch.tensor(labels)


def train_segmentation(spec: ArchSpec, rng: random.Random) -> list[float]:
    """Train LR-ASPP, and return the mean cross-entropy of a pixel (nats) at each step."""
    model = segmentation_model(spec, len(CLASSES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(STEPS):
        images, masks, _, _ = zip(*(draw(rng) for _ in range(BATCH)), strict=True)
        loss = cross_entropy(model(torch.stack(images))["out"], torch.stack(masks))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_detection(spec: ArchSpec, rng: random.Random) -> list[float]:
    """Train SSDLite, and return the sum of its two losses (classes and boxes) at each step."""
    model = detection_model(spec, len(CLASSES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(STEPS):
        images, _, boxes, labels = zip(*(draw(rng) for _ in range(BATCH)), strict=True)
        targets = [{"boxes": b, "labels": k} for b, k in zip(boxes, labels, strict=True)]
        loss = sum(model(list(images), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    spec = load_spec(sys.argv[1] if len(sys.argv) > 1 else "mobilenet_v3_small")
    torch.manual_seed(0)
    for name, train in (("segmentation", train_segmentation), ("detection", train_detection)):
        losses = train(spec, random.Random(0))
        print(f"{name:13}", *(f"{loss:.3f}" for loss in losses))


if __name__ == "__main__":
    main()

"""docTR 1.1: its data set, transforms and CRNN in the loop and with the defaults of its
references/recognition/train.py, which the wheel lacks.

Options: batch_size, augment, and compact: [channels of the convolutions, LSTM units], or null for
its own crnn_mobilenet_v3_small.
"""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from doctr import transforms as T
from doctr.datasets import RecognitionDataset
from doctr.models.recognition import CRNN, crnn_mobilenet_v3_small
from meter import Enough, Meter, Request, Result
from torch import nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision.transforms.v2 import (
    Compose,
    Normalize,
    RandomGrayscale,
    RandomPerspective,
    RandomPhotometricDistort,
)

SIZE = (32, 128)
LEARNING_RATE, LAST_SHARE = 1e-3, 1 / 25e4
NORMALIZE = Normalize(mean=(0.694, 0.695, 0.693), std=(0.299, 0.296, 0.301))
AUGMENTATIONS = [
    T.RandomApply(T.ColorInversion(), 0.1),
    T.ImageTorchvisionTransform(RandomGrayscale(p=0.1)),
    T.ImageTorchvisionTransform(RandomPhotometricDistort(p=0.1)),
    T.RandomApply(T.RandomShadow(), p=0.4),
    T.RandomApply(T.GaussianNoise(mean=0, std=0.1), 0.1),
    T.RandomApply(T.GaussianBlur(sigma=(0.5, 1.5)), 0.3),
    T.ImageTorchvisionTransform(RandomPerspective(distortion_scale=0.2, p=0.3)),
]


def measure(request: Request) -> Result:
    """Train to the limit of CPU seconds, the cosine of the learning rate ending there, and read."""
    torch.manual_seed(request.seed)
    train, validation = (_data(request, split) for split in ("train", "validation"))
    model = _model(
        request.options["compact"],
        "".join(sorted({character for _, text in train.data for character in text})),
    )
    meter = Meter(request.cpu_seconds)
    with contextlib.suppress(Enough):
        _fit(model, train, request.options["batch_size"], meter)
    return meter.result(_read(model.eval(), validation, request))


def _data(request: Request, split: str) -> RecognitionDataset:
    augmentations = AUGMENTATIONS if request.options["augment"] and split == "train" else []
    transforms = Compose([T.Resize(SIZE, preserve_aspect_ratio=True), *augmentations])
    folder = Path(request.data, split)
    return RecognitionDataset(str(folder), str(folder / "labels.json"), img_transforms=transforms)


def _model(compact: Any, vocab: str) -> CRNN:
    if compact is None:
        return crnn_mobilenet_v3_small(pretrained=False, pretrained_backbone=False, vocab=vocab)
    channels, units = compact
    model = CRNN(_compact(channels), vocab=vocab, rnn_units=units)
    model.decoder = nn.LSTM(
        channels[-1], units, batch_first=True, bidirectional=True
    )  # one layer, as ours
    return model


def _compact(channels: Sequence[int]) -> nn.Sequential:
    """The convolutions of our compact network, in RGB, with torch's own batch normalisation.

    Height 32 → 1.
    """
    c1, c2, c3, c4, c5 = channels
    shapes = [
        (3, c1, (2, 2)),
        (c1, c2, (2, 2)),
        (c2, c3, (1, 1)),
        (c3, c4, (2, 1)),
        (c4, c4, (1, 1)),
    ]
    layers: list[nn.Module] = []
    for before, after, stride in shapes:
        layers += [
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *layers, nn.Conv2d(c4, c5, (SIZE[0] // 8, 1), bias=False), nn.BatchNorm2d(c5), nn.ReLU()
    )


def _fit(model: CRNN, data: RecognitionDataset, batch_size: int, meter: Meter) -> None:
    """Epoch after epoch, until the meter says that it is enough."""
    loader = DataLoader(
        data,
        min(batch_size, len(data)),
        drop_last=True,
        num_workers=0,
        sampler=RandomSampler(data),
        collate_fn=data.collate_fn,
    )
    meter.watch(model.train())
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, betas=(0.95, 0.999), eps=1e-6)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda _: LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * meter.share)) / 2,
    )
    while True:
        for images, targets in loader:
            optimizer.zero_grad()
            model(NORMALIZE(images), targets)["loss"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5)
            optimizer.step()
            scheduler.step()


@torch.inference_mode()
def _read(model: CRNN, data: RecognitionDataset, request: Request) -> list[str]:
    chosen = torch.utils.data.Subset(data, range(len(data))[: request.judged])
    loader = DataLoader(chosen, request.options["batch_size"], collate_fn=data.collate_fn)
    return [text for images, _ in loader for text, _ in model(NORMALIZE(images))["preds"]]

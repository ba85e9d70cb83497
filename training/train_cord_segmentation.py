"""Train the network that finds the spinal cord, from simulated sections alone.

Run ``python training/train_cord_segmentation.py OUT`` (see the README beside this file).  Needs
the extra ``learn`` (torch, onnx); the package itself never imports either.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cordqa.cord.network import normalise_locally
from cordqa.simulate.cord.slices import BROAD, FAINT, FINE, GRID_MM, Mix, Section, sections

VERSION = "2"
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Stage:
    """One leg of the training: its sections, its learning rate (cosine to zero), where it stops."""

    mix: Mix
    seed: int
    rate: float
    iterations: int  # length of the schedule
    stop: int  # iterations that are run of it
    dice_until: float  # part of the leg with a Dice term; it biases areas, so it goes first


@dataclass(frozen=True)
class Settings:
    """Everything that determines the weights."""

    stages: tuple[Stage, ...] = (
        Stage(mix=BROAD, seed=20240117, rate=3e-3, iterations=9000, stop=7000, dice_until=0.4),
        Stage(mix=FINE, seed=20240118, rate=1.5e-3, iterations=2500, stop=2500, dice_until=0.0),
        Stage(mix=FAINT, seed=20240119, rate=1.5e-3, iterations=7000, stop=3000, dice_until=0.0),
        Stage(mix=FAINT, seed=20240120, rate=8e-4, iterations=1500, stop=1500, dice_until=0.0),
    )
    batch: int = 16
    size: int = 72
    contrasts: int = 4
    workers: int = 1
    widths: tuple[int, ...] = (16, 32, 64, 96)
    decay: float = 1e-4
    averaging: float = 0.998
    sac_weight: float = 0.3
    validation_sections: int = 400


class Double(nn.Sequential):
    """Two convolutions with batch normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        parts: list[nn.Module] = []
        for width in (inputs, outputs):
            parts += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*parts)


class Network(nn.Module):
    """U-Net: image in, logits out: by default of cord and dural sac."""

    def __init__(self, widths: tuple[int, ...], outputs: int = 2) -> None:
        super().__init__()
        ins = (1, *widths[:-1])
        self.down = nn.ModuleList(Double(i, o) for i, o in zip(ins, widths, strict=True))
        back = widths[::-1]
        self.thin = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in pairwise(back))
        self.up = nn.ModuleList(Double(2 * o, o) for o in back[1:])
        self.out = nn.Conv2d(widths[0], outputs, 1)
        nn.init.constant_(self.out.bias, -2.0)

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, 1, nx, ny) to logits (batch, outputs, nx, ny); sides must be multiples of 8."""
        kept = []
        for level, block in enumerate(self.down):
            image = block(functional.max_pool2d(image, 2) if level else image)
            kept.append(image)
        for thin, block, side in zip(self.thin, self.up, kept[-2::-1], strict=True):
            image = functional.interpolate(thin(image), scale_factor=2.0, mode="nearest")
            image = block(torch.cat([image, side], dim=1))
        return self.out(image)


class Export(nn.Module):
    """The trained network with probabilities as output."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities of cord and sac."""
        return torch.sigmoid(self.network(image))


def _work(seed: int, mix: Mix, settings: Settings, queue: Any) -> None:
    """Fill a queue with blocks of sections (one process per worker)."""
    source = sections(seed, size=settings.size, contrasts=settings.contrasts, mix=mix)
    while True:
        block = [next(source) for _ in range(64)]
        queue.put(stack(block))


def stack(block: list[Section]) -> np.ndarray:
    """Stack sections to (n, 4, size, size): normalised image, cord, sac, weight."""
    out = np.zeros((len(block), 4, *block[0].image.shape), dtype=np.float16)
    for channels, section in zip(out, block, strict=True):
        channels[0][section.window] = normalise_locally(section.image[section.window], GRID_MM)
        channels[1:] = section.cord, section.sac, section.weight
    return out


def batches(stage: Stage, settings: Settings) -> Iterator[Tensor]:
    """Yield shuffled batches; the order depends on the settings alone."""
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(maxsize=4) for _ in range(settings.workers)]
    for number, queue in enumerate(queues):
        arguments = (stage.seed + 1 + number, stage.mix, settings, queue)
        context.Process(target=_work, args=arguments, daemon=True).start()
    shuffle = random.Random(stage.seed)
    pool: list[np.ndarray] = []
    turn = 0
    while True:
        while len(pool) < 512:
            pool.extend(queues[turn % len(queues)].get())
            turn += 1
        picked = [pool.pop(shuffle.randrange(len(pool))) for _ in range(settings.batch)]
        yield torch.from_numpy(np.stack(picked).astype(np.float32))


def loss_of(logits: Tensor, batch: Tensor, settings: Settings, *, with_dice: bool) -> Tensor:
    """Cross-entropy with soft labels, with a Dice term if wanted."""
    truth, weight = batch[:, 1:3], batch[:, 3:4]
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none") * weight
    total = entropy[:, 0].mean() + settings.sac_weight * entropy[:, 1].mean()
    if with_dice:
        guess = torch.sigmoid(logits[:, 0]) * weight[:, 0]
        aim = truth[:, 0] * weight[:, 0]
        overlap = 2.0 * (guess * aim).sum() / (guess.sum() + aim.sum() + 1.0)
        total = total + 0.1 * (1.0 - overlap)
    return total


def train(settings: Settings, out: Path, *, start: int = 0) -> Network:
    """Train stage after stage and return the averaged network.

    With ``start`` above zero the earlier stages are taken from ``checkpoint.pt`` in ``out``.
    """
    averaged = Network(settings.widths)
    torch.manual_seed(settings.stages[0].seed)
    averaged.load_state_dict(Network(settings.widths).state_dict())
    if start:
        averaged.load_state_dict(torch.load(out / "checkpoint.pt"))
    for number, stage in enumerate(settings.stages[start:], start):
        run_stage(averaged, stage, settings, out, fresh=number == 0)
    return averaged


def run_stage(averaged: Network, stage: Stage, settings: Settings, out: Path, *, fresh: bool) -> None:
    """Train through one stage, starting from the averaged weights, which follow."""
    network = Network(settings.widths).to(memory_format=torch.channels_last)
    network.load_state_dict(averaged.state_dict())
    optimiser = torch.optim.AdamW(network.parameters(), lr=stage.rate, weight_decay=settings.decay)
    checks = validation_batch(settings)
    begin, running = time.monotonic(), 0.0
    for step, batch in zip(range(stage.stop), batches(stage, settings), strict=False):
        progress = step / stage.iterations
        for group in optimiser.param_groups:
            group["lr"] = stage.rate * min(1.0, step / 200) * 0.5 * (1.0 + math.cos(math.pi * progress))
        image = batch[:, :1].contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(image)
        loss = loss_of(logits.float(), batch, settings, with_dice=progress < stage.dice_until)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        warm = (1.0 + step) / (10.0 + step) if fresh else 1.0
        average(averaged, network, min(settings.averaging, warm))
        running += float(loss.detach())
        if (step + 1) % 250 == 0:
            report = {"step": step + 1, "loss": round(running / 250, 5), "s": round(time.monotonic() - begin)}
            if (step + 1) % 500 == 0:
                report |= validate(averaged, checks)
                torch.save(averaged.state_dict(), out / "checkpoint.pt")
                export(averaged, out / "cord_segmentation.onnx", settings)
            print(json.dumps(report), flush=True)  # noqa: T201
            running = 0.0


@torch.no_grad()
def average(averaged: Network, network: Network, keep: float) -> None:
    """Move the averaged weights a little towards the current ones."""
    for slow, fast in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if slow.dtype.is_floating_point:
            slow.lerp_(fast, 1.0 - keep)
        else:
            slow.copy_(fast)


def validation_batch(settings: Settings) -> Tensor:
    """Make sections that no training worker makes."""
    source = sections(settings.stages[0].seed + 100_000, size=settings.size, contrasts=1)
    block = [next(source) for _ in range(settings.validation_sections)]
    return torch.from_numpy(stack(block).astype(np.float32))


@torch.no_grad()
def validate(network: Network, checks: Tensor) -> dict[str, float]:
    """Return Dice at one half, area ratios per threshold, and false area where there is no cord."""
    network.eval()
    guess = torch.cat([torch.sigmoid(network(part[:, :1]))[:, 0] for part in checks.split(50)])
    network.train()
    guess, truth = guess * checks[:, 3], checks[:, 1] * checks[:, 3]
    area = truth.sum(dim=(1, 2))
    shown = area > 40.0
    binary = (guess > 0.5).float()
    dice = 2 * (binary * (truth > 0.5)).sum((1, 2)) / (binary.sum((1, 2)) + (truth > 0.5).sum((1, 2)))
    report = {"dice": dice[shown].mean(), "dice_median": dice[shown].median()}
    for threshold in (0.4, 0.5, 0.6, 0.7):
        ratio = (guess[shown] > threshold).sum((1, 2)) / area[shown]
        report[f"area_{threshold}"] = ratio.median()
    report["soft_area"] = (guess[shown].sum((1, 2)) / area[shown]).median()
    report["false_mm2"] = binary[area == 0].sum((1, 2)).mean() * GRID_MM**2
    return {name: round(float(value), 4) for name, value in report.items()}


@torch.no_grad()
def calibrate(network: Network, checks: Tensor) -> float:
    """Return the threshold at which the median area ratio on simulated sections is one."""
    network.eval()
    guess = torch.cat([torch.sigmoid(network(part[:, :1]))[:, 0] for part in checks.split(50)]) * checks[:, 3]
    area = (checks[:, 1] * checks[:, 3]).sum(dim=(1, 2))
    shown = area > 40.0
    thresholds = np.linspace(0.30, 0.70, 41)
    ratios = [float(((guess[shown] > t).sum((1, 2)) / area[shown]).median()) for t in thresholds]
    # Ratios fall with the threshold; interpolation wants them rising.
    return round(float(np.interp(1.0, ratios[::-1], thresholds[::-1])), 3)


def export(network: Network, path: Path, settings: Settings) -> None:
    """Write the network as ONNX with free batch and image size."""
    copy = Network(settings.widths)
    copy.load_state_dict(network.state_dict())
    example = torch.zeros(1, 1, settings.size, settings.size)
    torch.onnx.export(
        Export(copy).eval(),
        (example,),
        str(path),
        input_names=["image"],
        output_names=["probability"],
        dynamic_axes={"image": {0: "n", 2: "x", 3: "y"}, "probability": {0: "n", 2: "x", 3: "y"}},
        opset_version=17,
        dynamo=False,
    )


def code_hash() -> str:
    """Return the hash of every file that determines the weights."""
    folder = ROOT / "cordqa" / "simulate" / "cord"
    generator = [folder / f"{name}.py" for name in ("anatomy", "appearance", "shapes", "slices")]
    files = [Path(__file__).resolve(), ROOT / "cordqa" / "cord" / "network.py", *generator]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Train, export and describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=int, default=0, help="stage to begin with; needs OUT/checkpoint.pt")
    options = parser.parse_args()
    settings = Settings()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    code = code_hash()  # of the code that runs, not of what it may become meanwhile
    network = train(settings, options.out, start=options.start)
    weights = options.out / "cord_segmentation.onnx"
    export(network, weights, settings)
    checks = validation_batch(settings)
    about = {
        "version": VERSION,
        "threshold": calibrate(network, checks),
        "threshold_from": "median area ratio of one on simulated validation sections",
        "grid_mm": GRID_MM,
        "settings": asdict(settings),
        "code_sha256": code,
        "onnx_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "validation": validate(network, checks),
        "trained_on": "simulated sections only",
    }
    weights.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Train the network that finds grey matter within the cord, from simulated sections alone.

Run ``python training/train_grey_matter_segmentation.py OUT`` (see the README beside this file).
Needs the extra ``learn`` (torch, onnx); the package itself never imports either.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from train_cord_segmentation import ROOT, Export, Network, average

from cordqa.cord.grey_network import shown_to_network
from cordqa.simulate.cord.grey_sections import GREY_GRID_MM, GREY_SIZE, GreySection, grey_sections

VERSION = "1"


@dataclass(frozen=True)
class Settings:
    """Everything that determines the weights."""

    seed: int = 20240203
    iterations: int = 6000
    batch: int = 16
    rate: float = 3e-3
    widths: tuple[int, ...] = (12, 24, 40, 56)
    decay: float = 1e-4
    averaging: float = 0.998
    contrasts: int = 3
    validation_sections: int = 400


def stack(block: list[GreySection]) -> np.ndarray:
    """Stack sections to (n, 2, size, size): what the network is shown, and grey matter."""
    pairs = [(shown_to_network(section.image, section.mask), section.grey) for section in block]
    return np.array(pairs, dtype=np.float16)


def _work(seed: int, settings: Settings, queue: Any) -> None:
    """Fill a queue with blocks of sections."""
    source = grey_sections(seed, contrasts=settings.contrasts)
    while True:
        block = stack([next(source) for _ in range(96)])
        # Mirrored left to right, a section is another one: it costs nothing to draw.
        queue.put(np.concatenate([block, block[:, :, ::-1]]))


def batches(settings: Settings) -> Iterator[Tensor]:
    """Yield shuffled batches; the order depends on the settings alone."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(maxsize=4)
    context.Process(target=_work, args=(settings.seed + 1, settings, queue), daemon=True).start()
    shuffle = random.Random(settings.seed)
    pool: list[np.ndarray] = []
    while True:
        while len(pool) < 1024:
            pool.extend(queue.get())
        picked = [pool.pop(shuffle.randrange(len(pool))) for _ in range(settings.batch)]
        yield torch.from_numpy(np.stack(picked).astype(np.float32))


def train(settings: Settings, out: Path) -> Network:
    """Train with cross-entropy against the soft label; return the averaged network."""
    torch.manual_seed(settings.seed)
    network, averaged = Network(settings.widths, 1), Network(settings.widths, 1)
    averaged.load_state_dict(network.state_dict())
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.decay)
    checks = validation_sections(settings)
    begin, running = time.monotonic(), 0.0
    for step, batch in zip(range(settings.iterations), batches(settings), strict=False):
        falling = 0.5 * (1.0 + math.cos(math.pi * step / settings.iterations))
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * min(1.0, step / 200) * falling
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(batch[:, :1].contiguous(memory_format=torch.channels_last))
        loss = functional.binary_cross_entropy_with_logits(logits.float(), batch[:, 1:])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average(averaged, network, min(settings.averaging, (1.0 + step) / (10.0 + step)))
        running += float(loss.detach())
        if (step + 1) % 500 == 0:
            report = {"step": step + 1, "loss": round(running / 500, 5), "s": round(time.monotonic() - begin)}
            print(json.dumps(report | validate(averaged, checks)), flush=True)  # noqa: T201
            export(averaged, out / "grey_matter_segmentation.onnx", settings)
            running = 0.0
    return averaged


def validation_sections(settings: Settings) -> list[GreySection]:
    """Make sections that the training worker does not make."""
    source = grey_sections(settings.seed + 100_000, contrasts=1)
    return [next(source) for _ in range(settings.validation_sections)]


@torch.no_grad()
def validate(network: Network, checks: list[GreySection]) -> dict[str, float]:
    """Return Dice and the ratio of areas, where contrast is clear and where it is not."""
    network.eval()
    data = torch.from_numpy(stack(checks).astype(np.float32))
    guess = torch.cat([torch.sigmoid(network(part[:, :1]))[:, 0] for part in data.split(50)])
    network.train()
    truth = data[:, 1]
    clear = torch.tensor([section.contrast_to_noise > 2.5 for section in checks])
    binary, aim = (guess > 0.5).float(), (truth > 0.5).float()
    dice = 2 * (binary * aim).sum((1, 2)) / (binary.sum((1, 2)) + aim.sum((1, 2)))
    ratio = guess.sum((1, 2)) / truth.sum((1, 2))
    report = {
        "dice_clear": dice[clear].mean(),
        "dice_faint": dice[~clear].mean(),
        "area_clear": ratio[clear].median(),
        "area_faint": ratio[~clear].median(),
    }
    return {name: round(float(value), 4) for name, value in report.items()}


def export(network: Network, path: Path, settings: Settings) -> None:
    """Write the network as ONNX with a free batch."""
    copy = Network(settings.widths, 1)
    copy.load_state_dict(network.state_dict())
    torch.onnx.export(
        Export(copy).eval(),
        (torch.zeros(1, 1, GREY_SIZE, GREY_SIZE),),
        str(path),
        input_names=["image"],
        output_names=["probability"],
        dynamic_axes={"image": {0: "n"}, "probability": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )


def code_hash() -> str:
    """Return the hash of every file that determines the weights."""
    folder = ROOT / "cordqa" / "simulate" / "cord"
    files = [Path(__file__).resolve(), folder / "grey_sections.py", folder / "shapes.py"]
    files.append(ROOT / "cordqa" / "cord" / "grey_network.py")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Train, export and describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    settings = Settings()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    code = code_hash()
    network = train(settings, options.out)
    weights = options.out / "grey_matter_segmentation.onnx"
    export(network, weights, settings)
    about = {
        "version": VERSION,
        "grid_mm": GREY_GRID_MM,
        "size": GREY_SIZE,
        "settings": asdict(settings),
        "code_sha256": code,
        "onnx_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "validation": validate(network, validation_sections(settings)),
        "trained_on": "simulated sections only",
    }
    weights.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Make what ships in `data`: the samples, and each trained network as ONNX.

    python -m optc.models.train samples
    python -m optc.models.train digits_resnet

Needs the extra `train` (PyTorch; scikit-learn for the samples). One thread and fixed seeds, so that the same machine
with the same PyTorch makes the same bytes. A network takes one to three minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ..ir.onnx.writer import save
from . import digits
from .builder import FloatArray, he, stored

EPOCHS = {
    "digits_dscnn": 60,
    "digits_resnet": 40,
    "digits_transformer": 150,
    "digits_mobilenet_v3": 80,
    "digits_efficientnet": 60,
}
BATCH = 64
RATE = 3e-3
SEED = 0


def main(arguments: list[str]) -> int:
    names = ["samples", *digits.NETWORKS]
    if len(arguments) != 1 or arguments[0] not in names:
        print(f"usage: python -m optc.models.train {{{','.join(names)}}}", file=sys.stderr)
        return 2
    name = arguments[0]
    data = Path(__file__).parent / "data"
    if name == "samples":
        save_samples(data / "digits.npz")
    else:
        save(digits.NETWORKS[name](stored(train(name))), data / f"{name}.onnx")
    return 0


def save_samples(path: Path) -> None:
    """Write the split images, uint8 (n, 8, 8) from 0 to 16, and labels, uint8 (n,)."""
    from sklearn.datasets import load_digits

    source = load_digits()
    order = np.random.default_rng(SEED).permutation(len(source.target))
    starts = np.cumsum(list(digits.SPLITS.values()))
    assert starts[-1] == len(order)
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = {}
    for split, rows in zip(digits.SPLITS, np.split(order, starts[:-1]), strict=True):
        arrays[f"{split}_images"] = source.images[rows].astype(np.uint8)
        arrays[f"{split}_labels"] = source.target[rows].astype(np.uint8)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def train(name: str) -> dict[str, FloatArray]:
    """Train a network on its training split and return its parameters by name; prints how it does on `calib`.

    AdamW with a one-cycle rate, labels smoothed by 0.05, images randomly turned (0.2 rad), scaled (10 %) and shifted
    (6 %).
    """
    import torch
    import torch.nn.functional as functional

    from .torch_graph import TorchGraph

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    random = torch.Generator().manual_seed(SEED)
    network = TorchGraph(digits.NETWORKS[name](he(SEED)))
    images, labels = torch.tensor(digits.images("train")), torch.tensor(digits.labels("train"))
    held_images, held_labels = torch.tensor(digits.images("calib")), torch.tensor(digits.labels("calib"))
    epochs, batches = EPOCHS[name], len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * batches)
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(images), generator=random)[: batches * BATCH].split(BATCH):
            turn, scale, right, down = (torch.rand(BATCH, 4, generator=random) * 2 - 1).T
            turn, scale, right, down = 0.2 * turn, 1 + 0.1 * scale, 0.12 * right, 0.12 * down
            cosine, sine = scale * turn.cos(), scale * turn.sin()
            affine = torch.stack([cosine, -sine, right, sine, cosine, down], 1).reshape(-1, 2, 3)
            grid = functional.affine_grid(affine, list(images[rows].shape), align_corners=False)
            batch = functional.grid_sample(images[rows], grid, align_corners=False)
            loss = functional.cross_entropy(network(batch, training=True), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 0:
            with torch.no_grad():
                right_answers = (network(held_images).argmax(1) == held_labels).float().mean().item()
            print(f"{name}: epoch {epoch}, loss {loss.item():.3f}, accuracy {right_answers:.4f}", flush=True)
    return {key: tensor.numpy() for key, tensor in network.arrays().items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

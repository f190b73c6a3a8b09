"""Lightning in the shape of its MNIST example: a module, a data loader, Trainer.fit; a callback that saves and stops it when USR1 has come.

torchrun --nproc-per-node 2 mnist.py --steps 60 --output-dir out [--devices 2] [--nodes 1] [--resume]
"""

import argparse
import signal
import time
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

SAMPLES, BATCH = 256, 8


class Digits(lightning.LightningModule):
    def __init__(self, pause: float) -> None:
        super().__init__()
        self.pause = pause
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))

    def training_step(self, batch, _):
        images, labels = batch
        loss = functional.cross_entropy(self.layers(images), labels)
        time.sleep(self.pause)
        self.print(f"step {self.global_step + 1}/{self.trainer.max_steps} loss {loss.item():.6f}", flush=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class StopsInTime(Callback):
    """Lightning's own handler of TERM sends a message from within, and hangs where the ranks are not at the same spot."""

    def __init__(self, place: Path) -> None:
        self.place, self.stops = place, []
        signal.signal(signal.SIGUSR1, lambda *_: self.stops.append(True))

    def on_train_batch_end(self, trainer, *_):
        if trainer.strategy.reduce_boolean_decision(bool(self.stops), all=False):
            trainer.save_checkpoint(self.place / "stopped.ckpt")
            trainer.should_stop = True


def drawn() -> TensorDataset:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(SAMPLES) % 10
    images = torch.randn(SAMPLES, 1, 8, 8, generator=draw)
    images[torch.arange(SAMPLES), 0, labels % 8, labels // 2] += 4
    return TensorDataset(images, labels)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a step takes longer")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()

    lightning.seed_everything(0)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=options.devices,
        num_nodes=options.nodes,
        strategy="ddp",
        max_steps=options.steps,
        default_root_dir=options.output_dir,
        callbacks=[
            StopsInTime(options.output_dir),
            ModelCheckpoint(options.output_dir, save_last=True, every_n_train_steps=20, save_top_k=0),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(drawn(), batch_size=BATCH, shuffle=True, drop_last=True)
    found = sorted(options.output_dir.glob("*.ckpt"), key=lambda path: path.stat().st_mtime) if options.resume else []
    # A checkpoint that this script has written itself, whole: loops and callbacks beside the weights.
    trainer.fit(Digits(options.pause), loader, ckpt_path=found[-1] if found else None, weights_only=False)


if __name__ == "__main__":
    main()

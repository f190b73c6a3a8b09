"""Accelerate in the shape of its nlp_example: a small BERT says whether the second sentence repeats the first.

accelerate launch nlp_example.py --steps 60 --output-dir out [--resume]
"""

import argparse
import math
import shutil
import signal
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

SAMPLES, LENGTH, WORDS, BATCH = 256, 8, 50, 8


def pairs() -> TensorDataset:
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randint(3, WORDS, (2, SAMPLES, LENGTH), generator=draw)
    labels = torch.arange(SAMPLES) % 2
    second = torch.where(labels[:, None] == 1, first, second)
    separator = torch.full((SAMPLES, 1), 2)
    return TensorDataset(torch.cat([torch.ones_like(separator), first, separator, second, separator], 1), labels)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a step takes longer")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    stops = []
    signal.signal(signal.SIGTERM, lambda *_: stops.append(True))

    accelerator = Accelerator()
    set_seed(42)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=32
    )
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, options.steps)
    loader = DataLoader(pairs(), batch_size=BATCH, shuffle=True, drop_last=True)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)

    step = 0
    saved = options.output_dir / "state"
    if options.resume and (saved / "step").exists():
        accelerator.load_state(str(saved))
        step = int((saved / "step").read_text())
    model.train()
    for epoch in range(step // len(loader), math.ceil(options.steps / len(loader))):
        loader.set_epoch(epoch)
        for tokens, labels in accelerator.skip_first_batches(loader, step - epoch * len(loader)):
            loss = model(input_ids=tokens, labels=labels).loss
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            time.sleep(options.pause)
            accelerator.print(f"step {step}/{options.steps} loss {loss.item():.6f}", flush=True)
            is_over = accelerator.reduce(torch.tensor(float(len(stops)), device=accelerator.device)).item() > 0
            if is_over or step == options.steps:
                save(accelerator, saved, step)
                accelerator.end_training()
                return


def save(accelerator: Accelerator, place: Path, step: int) -> None:
    """Beside the one before, whose place it takes when it is whole."""
    spare = place.with_name("state.new")
    accelerator.save_state(str(spare))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (spare / "step").write_text(str(step))
        shutil.rmtree(place, ignore_errors=True)
        spare.rename(place)
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()

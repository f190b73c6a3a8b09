"""Hugging Face's Trainer on a small GPT-2 of random weights: a callback saves and stops it when SIGTERM has come.

torchrun --nproc-per-node 2 text_trainer.py --steps 60 --output-dir out [--resume]
"""

import argparse
import signal
import time
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

SAMPLES, LENGTH, WORDS, BATCH = 256, 16, 50, 8


class Counting(Dataset):
    """Texts that count up from somewhere."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = (torch.arange(LENGTH) + index) % WORDS
        return {"input_ids": tokens, "labels": tokens}


class StopsInTime(TrainerCallback):
    def __init__(self, pause: float) -> None:
        self.pause, self.stops = pause, []
        signal.signal(signal.SIGTERM, lambda *_: self.stops.append(True))

    def on_step_end(self, args, state, control, **_):
        time.sleep(self.pause)
        is_over = torch.tensor([float(len(self.stops))])
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(is_over)
        if is_over.item():
            control.should_save = control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **_):
        if state.is_world_process_zero and "loss" in logs:
            print(f"step {state.global_step}/{state.max_steps} loss {float(logs['loss']):.6f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a step takes longer")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    )
    arguments = TrainingArguments(
        output_dir=str(options.output_dir),
        max_steps=options.steps,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-3,
        logging_steps=1,
        save_steps=20,
        save_total_limit=2,
        report_to=[],
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Counting(), callbacks=[StopsInTime(options.pause)])
    found = get_last_checkpoint(str(options.output_dir)) if options.resume and options.output_dir.is_dir() else None
    trainer.train(resume_from_checkpoint=found)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

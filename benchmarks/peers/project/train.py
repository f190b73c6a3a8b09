"""As torchrun's users write it (TorchX): python train.py OUT, once per process, with the environment torchrun sets."""

import sys
from pathlib import Path

import torch.distributed as dist
import work

if __name__ == "__main__":
    dist.init_process_group("gloo")
    work.train(Path(sys.argv[1]))

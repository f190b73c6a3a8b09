"""As users of Hydra's submitit launcher write it: one task per process, which learns from submitit where it is."""

from pathlib import Path

import hydra
import submitit
import torch.distributed as dist
import work
from omegaconf import DictConfig


@hydra.main(version_base=None, config_path=None)
def main(config: DictConfig) -> None:
    submitit.helpers.TorchDistributedEnvironment().export()
    dist.init_process_group("gloo")
    work.train(Path("out") / f"member-{config.member}")


if __name__ == "__main__":
    main()

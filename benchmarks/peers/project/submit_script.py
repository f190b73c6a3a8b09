"""As submitit's users write it for a script that expects torchrun's environment: python submit_script.py MINUTES SCRIPT WORD…"""

import runpy
import sys

import submitit


class Script:
    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __call__(self) -> None:
        submitit.helpers.TorchDistributedEnvironment().export()
        sys.argv = self.words
        runpy.run_path(self.words[0], run_name="__main__")

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(self)


if __name__ == "__main__":
    executor = submitit.AutoExecutor(folder="logs")
    executor.update_parameters(nodes=2, tasks_per_node=2, cpus_per_task=1, timeout_min=int(sys.argv[1]), slurm_partition="batch")
    print(executor.submit(Script(sys.argv[2:])).job_id)

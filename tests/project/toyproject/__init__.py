"""A user's own package beside the launcher: one data set, one model, one yaml each.

TOY_SABOTAGE takes a guard of the launcher out, so that the tests can show that they would notice; or, as slow_save, makes every
checkpoint take 40 s.
"""

import os

if os.environ.get("TOY_SABOTAGE") == "generators":
    from launcher.train import state

    state._restore_generators = lambda *args: None

if os.environ.get("TOY_SABOTAGE") == "slow_save":
    import time

    from launcher.train import checkpoint

    _commit = checkpoint.CheckpointStore._commit

    def _slow_commit(*args) -> None:
        time.sleep(40)
        _commit(*args)

    checkpoint.CheckpointStore._commit = _slow_commit

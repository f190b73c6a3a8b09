"""A user's own package beside the launcher: one data set, one model, one yaml each.

TOY_SABOTAGE takes a guard of the launcher out, so that the tests can show that they would notice.
"""

import os

if os.environ.get("TOY_SABOTAGE") == "generators":
    from launcher.train import state

    state._restore_generators = lambda *args: None

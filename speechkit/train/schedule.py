"""Learning-rate schedules: functions of the update number alone, so that there is no state to lose."""

from __future__ import annotations

SCHEDULES = {
    "tri_stage": "speechkit.train.schedules.tri_stage",
    "warmup_linear": "speechkit.train.schedules.warmup_linear",
    "noam": "speechkit.train.schedules.noam",
    "constant": "speechkit.train.schedules.constant",
}
"""Kind name -> module with `Config` and `build(config, updates) -> factor`, where `factor(update)` scales
the learning rate of update 0, 1, ... of `updates`."""

"""Predict a training run before it is paid for: memory, speed, duration and cost.

Read in this order: `devices` (what the hardware can do), `footprint` (bytes), `speed` (seconds and
dollars), `plan` (all of it with its assumptions), `measure` (bytes as they are), `published` and `check`
(how near the predictions come to figures that others have measured).
"""

from llm_from_scratch.training.planning.devices import DEVICES, Device, device_named, with_price
from llm_from_scratch.training.planning.footprint import Footprint, predict_footprint
from llm_from_scratch.training.planning.plan import Plan, make_plan, report
from llm_from_scratch.training.planning.speed import predict_speed, tokens_per_second

__all__ = [
    "DEVICES",
    "Device",
    "Footprint",
    "Plan",
    "device_named",
    "make_plan",
    "predict_footprint",
    "predict_speed",
    "report",
    "tokens_per_second",
    "with_price",
]

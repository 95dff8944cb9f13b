"""A plan of a run: its predicted memory, speed, duration and cost, with every assumption."""

from dataclasses import dataclass

from llm_from_scratch.data.loader import share_of
from llm_from_scratch.models.counts import parameter_counts
from llm_from_scratch.models.decoder_config import DecoderConfig
from llm_from_scratch.training.config import TrainerConfig
from llm_from_scratch.training.planning.devices import Device
from llm_from_scratch.training.planning.footprint import Footprint, predict_footprint
from llm_from_scratch.training.planning.speed import MFU, Speed, predict_speed

USABLE = 0.90  # assumed share of a device's memory; the rest: CUDA's context, work space, fragmentation


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was asked, and what is predicted."""

    name: str
    config: DecoderConfig
    training: TrainerConfig
    device: Device
    devices: int
    strategy: str
    recompute: bool
    mfu: float  # of the model's operations, so lower where blocks are computed twice
    footprint: Footprint
    speed: Speed

    @property
    def fits(self) -> bool:
        """Whether the predicted peak is at most the usable part of a device's memory."""
        return self.footprint.total <= USABLE * self.device.memory

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimizer step, over all processes."""
        return self.training.batch_size * self.training.accumulate * self.config.context_length


def make_plan(
    name: str,
    config: DecoderConfig,
    training: TrainerConfig,
    device: Device,
    *,
    devices: int = 1,
    strategy: str = "single",
    recompute: bool = False,
    mfu: float | None = None,
) -> Plan:
    """Predict a run. ``mfu`` defaults to 40 %, and to three quarters of that with recomputation.

    Raises: ValueError if the micro-batch does not divide among the processes, and as `predict_footprint`.
    """
    if mfu is None:
        mfu = MFU * 0.75 if recompute else MFU  # one more forward pass: 3 of 4 parts are the model's
    sequences = training.batch_size
    if strategy in ("ddp", "fsdp"):
        rows = share_of(sequences, 0, devices)
        sequences = rows.stop - rows.start
    steps_tokens = training.batch_size * training.accumulate * config.context_length
    return Plan(
        name=name,
        config=config,
        training=training,
        device=device,
        devices=devices,
        strategy=strategy,
        recompute=recompute,
        mfu=mfu,
        footprint=predict_footprint(
            config,
            batch_size=sequences,
            strategy=strategy,
            processes=devices,
            product_bytes=2 if device.precision == "bfloat16" else 4,
            recompute=recompute,
            accumulate=training.accumulate,
            optimizer=training.optimizer,
        ),
        speed=predict_speed(
            config, device, mfu=mfu, devices=devices, total_tokens=steps_tokens * training.steps
        ),
    )


def report(plan: Plan) -> str:
    """Return the plan as text. Every figure under "Predicted" is a prediction, not a measurement."""
    device, speed, memory = plan.device, plan.speed, plan.footprint
    steps, n = plan.training.steps, plan.devices
    parameters = sum(parameter_counts(plan.config).values())
    lines = [
        f"{plan.name} on {n} x {device.label}, strategy {plan.strategy}"
        f"{', activations recomputed' if plan.recompute else ''}",
        f"  {parameters:,} parameters; {steps:,} steps of {plan.tokens_per_step:,} tokens, "
        f"{steps * plan.tokens_per_step:.4g} tokens in all",
        "",
        "Predicted memory at the peak, in each process (GB = 10^9 bytes; nothing was run)",
    ]
    for part, size in memory.parts.items():
        lines.append(f"  {part.replace('_', ' '):20}{size / 1e9:6.2f} GB")
    note = "" if memory.accumulates else ", in which gradients come as activations go"
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    usable = f"{device.memory * USABLE / 1e9:.1f} GB usable"
    each = f"({speed.tokens_per_second / n:,.0f} a device)"
    cost = "no price known: give --price" if speed.cost is None else f"${speed.cost:,.0f}"
    lines += [
        f"  {'peak of a step':20}{memory.in_step / 1e9:6.2f} GB{note}",
        f"  {'at the start':20}{memory.at_start / 1e9:6.2f} GB, the model before it is divided; "
        "as much of the host's memory for each process",
        f"  {'peak':20}{memory.total / 1e9:6.2f} GB of {usable}: {verdict}",
        "",
        "Predicted speed, duration and cost",
        f"  operations a token  {speed.flops_per_token:.3e}",
        f"  operations in all   {speed.total_flops:.3e}",
        f"  tokens a second     {speed.tokens_per_second:,.0f}  {each}",
        f"  duration            {in_words(speed.seconds)}",
        f"  device hours        {n * speed.seconds / 3600:,.1f}",
        f"  cost                {cost}",
        "",
        "Assumed",
        *assumptions(plan),
    ]
    return "\n".join(lines)


def assumptions(plan: Plan) -> list[str]:
    """Return what the predictions rest on, one line each."""
    device = plan.device
    price = "none" if device.price is None else f"${device.price:.2f}"
    lost = " (three quarters of 40 %: one forward pass of four is repeated)" if plan.recompute else ""
    return [
        f"  MFU                 {plan.mfu:.0%} of the peak{lost}; change it with --mfu",
        f"  peak                {device.peak_flops:.4g} operations a second, {device.precision}",
        f"  memory, bandwidth   {device.memory / 1e9:.0f} GB, {device.bandwidth / 1e12:.3g} TB/s",
        f"  source              {device.source}",
        f"  price               {price} for a device and hour; {device.price_source}",
        f"  usable memory       {USABLE:.0%}: the rest is for the driver, work space and fragmentation",
        f"  numbers             float32 parameters, gradients and averages; products in {device.precision}",
        "  not counted         evaluations, checkpoints, restarts, waiting for data, idle hours",
    ]


def in_words(seconds: float) -> str:
    """Say a duration in the unit that suits it.

    >>> in_words(90), in_words(7200), in_words(400_000)
    ('1.5 minutes', '2.0 hours', '4.6 days')
    """
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= (2 if unit == "days" else 1) * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} seconds"

"""The picture of a run: training and validation loss over the optimizer steps."""

from pathlib import Path

from llm_from_scratch.files import write_atomically


def save_loss_curve(records: list[dict[str, object]], path: Path) -> None:
    """Draw the log's records as an SVG. Without any loss in them nothing is written.

    The thin line is each step's own batch, which scatters; the points are the validation windows.
    """
    from matplotlib.figure import Figure  # late: half a second, and training needs no pictures

    from llm_from_scratch.widgets.figure import COLORS, figure_style, show_figure

    train = [(r["step"], r["loss"]) for r in records if "loss" in r]
    validation = [(r["step"], r["val_loss"]) for r in records if "val_loss" in r]
    if not train and not validation:
        return
    with figure_style():
        figure = Figure()
        axes = figure.subplots()
        if train:
            axes.plot(*zip(*train, strict=True), color=COLORS["sky"], linewidth=0.8, label="training batch")
        if validation:
            axes.plot(*zip(*validation, strict=True), "o-", color=COLORS["vermillion"], label="validation")
        axes.set(xlabel="optimizer step", ylabel="loss (nats a token)", title="Loss during training")
        axes.legend()
        last = validation[-1] if validation else train[-1]
        shown = show_figure(
            figure, alt=f"Loss against optimizer step; at step {last[0]} it is {last[1]:.3f}."
        )
    write_atomically(path, shown.svg)

"""Reading the records of the recipes of text classification: the runs of a method, and their spread."""

from collections.abc import Sequence


def select(
    record: dict[str, object], method: str, *, data: str = "film_sentiment", labels: int | None = None
) -> list[dict]:
    """The runs of a method on a collection, one a seed; ``labels``: by default those of the comparison.

    Raises: ValueError if there is none.
    """
    of = {"film_sentiment": "film", "sms_spam": "spam"}[data]
    of = "decoder" if method.startswith("decoder") else of
    labels = record["config"][of]["labels"] if labels is None else labels
    found = [
        run for run in record["runs"] if (run["data"], run["method"], run["labels"]) == (data, method, labels)
    ]
    if not found:
        raise ValueError(f"the record has no run of {method!r} on {data} with {labels} labels")
    return found


def spread(values: Sequence[float], *, percent: bool = True) -> str:
    """Mean, and in brackets the smallest and the largest.

    >>> spread([0.81, 0.82, 0.86])
    '83.0 (81.0 to 86.0)'
    """
    low, high, mean = min(values), max(values), sum(values) / len(values)
    form = (lambda v: f"{100 * v:.1f}") if percent else (lambda v: f"{v:.3f}")
    return f"{form(mean)} ({form(low)} to {form(high)})"

"""Controls that answer from the kernel: a text box, a button and a view that is computed again.

The widgets' pages hold what they were given. To look at another text the model has to run, so these
controls, made of ipywidgets 7.7 or later, call it and show a fresh view below themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_from_scratch.widgets import html


def attention_controls(model: Any, tokenizer: Any, text: str | None, view_class: type, **options: Any) -> Any:
    """Build the controls of `AttentionExplorer.live`."""
    _check_tokenizer(tokenizer)
    if not (hasattr(model, "attention_maps") or callable(model)):
        raise ValueError(
            f"model is a {type(model).__name__}; AttentionExplorer.live needs model.attention_maps(ids) or "
            "model(ids, return_attention=True)"
        )

    def compute(text: str) -> Any:
        ids = _encode(tokenizer, text)
        maps = _attention(model, ids)
        weights, scores = maps if isinstance(maps, tuple) else (maps, None)
        return view_class(tokenizer.tokens_as_text(ids), weights, scores, **options)

    return _controls(compute, "The cat sat on the mat." if text is None else text, "Text", "Show attention")


def sampling_controls(
    model: Any, tokenizer: Any, prompt: str | None, view_class: type, **options: Any
) -> Any:
    """Build the controls of `SamplingPlayground.live`."""
    _check_tokenizer(tokenizer)
    if not callable(model):
        raise ValueError(
            f"model is a {type(model).__name__}; SamplingPlayground.live needs model(ids) -> logits [1, T, V]"
        )

    def compute(prompt: str) -> Any:
        logits = html.to_array("logits", _call(model, _encode(tokenizer, prompt)))
        if logits.ndim != 3 or logits.shape[0] != 1:
            raise ValueError(f"model(ids) must return logits [1, T, V], got the shape {list(logits.shape)}")
        last = logits[0, -1]
        return view_class(tokenizer.tokens_as_text(list(range(len(last)))), last, prompt=prompt, **options)

    return _controls(compute, "The cat sat on the" if prompt is None else prompt, "Prompt", "Show next token")


def blank_controls(model: Any, tokenizer: Any, text: str | None, view_class: type, **options: Any) -> Any:
    """Build the controls of `FillBlank.live`."""
    _check_tokenizer(tokenizer)
    if not callable(getattr(model, "blank_probabilities", None)):
        raise ValueError(
            f"model is a {type(model).__name__}; FillBlank.live needs "
            "model.blank_probabilities(ids) -> [T, V]"
        )
    vocabulary = tokenizer.tokens_as_text(list(range(tokenizer.vocab_size)))

    def compute(text: str) -> Any:
        ids = _encode(tokenizer, text)
        tokens = [vocabulary[i] for i in ids]
        return view_class([tokens], [model.blank_probabilities(ids)], vocabulary, **options)

    start = "We must protect the rights of the people." if text is None else text
    return _controls(compute, start, "Text", "Fill each blank")


def _controls(compute: Callable[[str], Any], text: str, label: str, action: str) -> Any:
    """Lay out the box; ``.run``, ``.text``, ``.status``, ``.output`` and ``.view`` hang on it for callers."""
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        if error.name != "ipywidgets":
            raise
        raise ModuleNotFoundError(
            "live controls need ipywidgets: pip install 'llm-from-scratch[book]' or pip install ipywidgets, "
            "then restart the kernel. Without it, build the view yourself: it needs no kernel",
            name="ipywidgets",
        ) from None
    from IPython.display import display

    box = ipywidgets.Textarea(value=text, description=label, rows=2, layout={"width": "100%"})
    button = ipywidgets.Button(description=action, button_style="primary", layout={"width": "max-content"})
    status = ipywidgets.HTML()
    output = ipywidgets.Output()
    controls = ipywidgets.VBox([box, ipywidgets.HBox([button, status]), output])
    controls.text, controls.run, controls.status, controls.output, controls.view = (
        box,
        button,
        status,
        output,
        None,
    )

    def recompute(_: Any = None) -> None:
        button.disabled = True
        status.value = "computing …"
        try:
            view = compute(box.value)
        except Exception as error:  # a callback's traceback would go to a log that nobody reads
            status.value = (
                f"<strong>{html.escaped(type(error).__name__)}</strong>: {html.escaped(str(error))}"
            )
        else:
            status.value = ""
            controls.view = view
            output.clear_output(wait=True)
            with output:
                display(view)
        finally:
            button.disabled = False

    button.on_click(recompute)
    recompute()
    return controls


def _check_tokenizer(tokenizer: Any) -> None:
    missing = [name for name in ("encode", "tokens_as_text") if not callable(getattr(tokenizer, name, None))]
    if missing:
        raise ValueError(
            f"tokenizer is a {type(tokenizer).__name__} without {' and '.join(missing)}; it needs "
            "encode(text) -> ids and tokens_as_text(ids) -> one string a token"
        )


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids = list(tokenizer.encode(text))
    if not ids:
        raise ValueError("the text is empty: type at least one token")
    return ids


def _attention(model: Any, ids: list[int]) -> Any:
    if hasattr(model, "attention_maps"):
        return model.attention_maps(ids)
    _, weights = _call(model, ids, return_attention=True)
    return list(weights)


def _call(model: Any, ids: list[int], **options: Any) -> Any:
    """Call ``model`` on one sequence, without gradients and with dropout off; leave its mode as it was."""
    import torch

    modules = list(model.modules()) if hasattr(model, "modules") else []
    modes = [module.training for module in modules]
    device = next((p.device for p in model.parameters()), None) if modules else None
    if modules:
        model.eval()
    try:
        with torch.no_grad():
            return model(torch.as_tensor(ids, device=device)[None], **options)
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode

"""The model that a fine-tuning begins with, and what belongs to it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from llm_from_scratch.finetuning.instructions import PLAIN_TEMPLATE
from llm_from_scratch.finetuning.quantised_base import quantise_base
from llm_from_scratch.interop import Loaded, load_minilm
from llm_from_scratch.interop.empty import build_empty
from llm_from_scratch.models.decoder import Decoder, DecoderConfig
from llm_from_scratch.models.encoder import Encoder, EncoderConfig
from llm_from_scratch.recipes.finetuning.recipe import CLASSIFY, INSTRUCT, MINILM, PREFER, FinetuneRecipe
from llm_from_scratch.tokenizers import Tokenizer

KINDS = {"encoder": (Encoder, EncoderConfig), "decoder": (Decoder, DecoderConfig)}


@dataclass(frozen=True, kw_only=True)
class Base:
    """A model with its tokenizer, and how its texts begin."""

    loaded: Loaded
    start_ids: list[int] = field(default_factory=list)  # what comes before every text
    source: str = ""  # where it was found

    @property
    def kind(self) -> str:
        """Encoder or decoder."""
        return "encoder" if isinstance(self.loaded.model, Encoder) else "decoder"

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns its texts into ids."""
        return self.loaded.tokenizer

    @property
    def pad_id(self) -> int:
        """A token that no text ends with, to fill batches with. Raises: ValueError if there is none."""
        special = self.tokenizer.special_ids if hasattr(self.tokenizer, "special_ids") else {}
        roles = self.loaded.special_tokens
        names = (roles.get("pad_token"), "[PAD]", "<pad>", roles.get("eos_token"), "<|endoftext|>", "</s>")
        found = next((special[name] for name in names if name in special), None)
        if found is None:
            raise ValueError(
                f"the tokenizer of {self.source} has no special token to fill batches with: use a base whose "
                "texts end with a token of their own"
            )
        return found

    def to_dict(self) -> dict[str, object]:
        """What a run's folder remembers of it; the tokenizer is a file of its own."""
        return {
            "kind": self.kind,
            "source": self.source,
            "start_ids": list(self.start_ids),
            "special_tokens": dict(self.loaded.special_tokens),
            "chat_template": self.loaded.chat_template,
        }


def open_base(recipe: FinetuneRecipe) -> Base:
    """Open the base that a recipe names, its weights rounded if the recipe says so.

    Raises: FileNotFoundError and ValueError as `recipes.opening.open_any`; ValueError for a model that
    cannot be fine-tuned here, or not for the recipe's task.
    """
    return _checked(recipe, *_open(recipe.base))


def empty_base(stored: dict, model: dict, tokenizer: Tokenizer) -> Base:
    """Build the base that `Base.to_dict` described, with weights that have yet to be filled.

    ``model`` is the model's configuration as a dict.
    Raises: ValueError if the description is damaged.
    """
    try:
        build, config = KINDS[stored["kind"]]
        config = config.from_dict(model)
        about = {name: stored[name] for name in ("chat_template", "special_tokens")}
        start_ids, source = list(stored["start_ids"]), str(stored["source"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"the section base of the run's config.json is damaged: {error!r}") from None
    loaded = Loaded(model=build_empty(lambda: build(config)), tokenizer=tokenizer, config=config, **about)
    return Base(loaded=loaded, start_ids=start_ids, source=source)


def _open(source: str) -> tuple[Loaded, list[int], str]:
    from llm_from_scratch.recipes.opening import open_any  # late: it opens fine-tuned runs too

    path = Path(source)
    if source == MINILM and not path.exists():
        return load_minilm(), [], MINILM
    try:
        loaded, start_ids = open_any(source)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--base: {error}. Published models: {MINILM}, smollm2") from None
    return loaded, start_ids, str(path.resolve()) if path.exists() else source


def _checked(recipe: FinetuneRecipe, loaded: Loaded, start_ids: list[int], source: str) -> Base:
    model = loaded.model
    if not isinstance(model, (Encoder, Decoder)):
        raise ValueError(
            f"{recipe.base} is a {type(model).__name__}; fine-tuned here are encoders and decoders"
        )
    if isinstance(model, Encoder) and recipe.task != CLASSIFY:
        raise ValueError(
            f"{recipe.base} is an encoder, which writes no text: recipe {recipe.name} needs a decoder, "
            "such as smollm2 or a run's folder"
        )
    if loaded.tokenizer is None:
        raise ValueError(f"{recipe.base} came without a tokenizer, which fine-tuning on texts needs")
    if recipe.context_length > model.config.context_length:
        raise ValueError(
            f"context_length {recipe.context_length} is more than the {model.config.context_length} tokens "
            f"that {recipe.base} reads"
        )
    if recipe.task in (INSTRUCT, PREFER) and loaded.chat_template is None:
        if "eos_token" not in loaded.special_tokens:
            raise ValueError(
                f"{recipe.base} has no token that ends a text, so it could not learn where an answer ends: "
                "use smollm2, or a run whose tokenizer is byte_pair"
            )
        loaded = replace(loaded, chat_template=PLAIN_TEMPLATE)
    if recipe.base_bits is not None:
        quantise_base(model, bits=recipe.base_bits)
    return Base(loaded=loaded, start_ids=start_ids, source=source)

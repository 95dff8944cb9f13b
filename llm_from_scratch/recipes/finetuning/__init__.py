"""Fine-tuning recipes: a published or own model, adapted to data by `llm-scratch finetune`."""

from llm_from_scratch.recipes.finetuning.recipe import FinetuneRecipe
from llm_from_scratch.recipes.finetuning.recipes import FINETUNING, chosen, get_finetuning

__all__ = ["FINETUNING", "FinetuneRecipe", "chosen", "get_finetuning"]

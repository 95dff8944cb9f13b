"""What a fine-tuning has changed: losses before and after, and the share of right decisions.

Legend: B examples of a batch, N of them decided rightly.
"""

import torch
from torch import Tensor, nn

from llm_from_scratch.data.loader import Batch
from llm_from_scratch.finetuning.instructions import greedy_matches
from llm_from_scratch.nn.modes import evaluation_mode
from llm_from_scratch.recipes.finetuning.lesson import Lesson
from llm_from_scratch.recipes.finetuning.recipe import CLASSIFY, INSTRUCT, FinetuneRecipe
from llm_from_scratch.training.validation import mean_loss


def measured(
    recipe: FinetuneRecipe, module: nn.Module, lesson: Lesson, records: list[dict]
) -> dict[str, float | int]:
    """Return the losses that a record names, and the share of right decisions, after training.

    Losses are nats for each target: a token, a label, a pair. Those before training and of the best step
    are of the batches that each evaluation measured. ``validation_whole`` is of all validation batches, under
    ``module``: the best checkpoint, as the trainer calls it.
    """
    evaluated = [record for record in records if "val_loss" in record]
    best = min(evaluated, key=lambda record: record["val_loss"])
    device = next(module.parameters()).device
    found: dict[str, float | int] = {
        "validation_before_training": round(evaluated[0]["val_loss"], 4),
        "validation_best": round(best["val_loss"], 4),
        "best_step": best["step"],
        "validation_whole": round(mean_loss(module, lesson.validation, device=device), 4),
    }
    if recipe.task == CLASSIFY:
        found["test"] = round(mean_loss(module, lesson.test, device=device), 4)
        found["test_accuracy"] = share_right(module, lesson.test)
    elif recipe.task == INSTRUCT:
        found["answers_exactly_right"] = share_right(module, lesson.validation, decide=greedy_matches)
    elif recipe.task == "prefer":
        found["pairs_told_apart"] = share_right(module, lesson.validation)
    return found


def largest_is_target(scores_BK: Tensor, targets_B: Tensor) -> Tensor:
    """Say of each row whether its largest number is that of the target; where all are equal, it is not.

    >>> scores_BK = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])
    >>> largest_is_target(scores_BK, torch.tensor([1, 0, 0])).tolist()
    [True, False, False]
    """
    own_B1 = scores_BK.gather(1, targets_B[:, None])
    return (own_B1 >= scores_BK).all(dim=1) & (own_B1 > scores_BK).any(dim=1)


@torch.no_grad()
def share_right(module: nn.Module, batches: list[Batch], *, decide=largest_is_target) -> float:
    """Return the share of examples for which ``decide(output, targets)`` says that the output is right."""
    device = next(module.parameters()).device
    right = total = 0
    with evaluation_mode(module):
        for inputs, targets in batches:
            right_B = decide(module(inputs.to(device)), targets.to(device))
            right, total = right + int(right_B.sum()), total + len(right_B)
    return round(right / total, 4)

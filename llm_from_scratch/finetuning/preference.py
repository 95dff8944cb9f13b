"""Direct preference optimisation: learn from pairs of answers which of the two is preferred.

Bradley and Terry's model says with which probability an answer of reward r_w is preferred to one of
reward r_l: sigmoid(r_w - r_l). Direct preference optimisation (DPO) reads the reward off the model
itself, as how far it has moved from a reference: ``r = beta (log pi(y|x) - log pi_ref(y|x))``. So a
language model beside its reference is a classifier of pairs, and the loss is the classifier's.

Legend: B pairs of a batch, N sequences, T tokens, V vocabulary entries. Of a pair's axes of size 2 the
first is the answer, the second what is kept of it: its ids and its targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llm_from_scratch.finetuning.example_batches import Conversation, ExampleBatches, pad_conversations
from llm_from_scratch.finetuning.instructions import NO_TARGET

Score = Callable[[Tensor, Tensor], Tensor]  # (ids_NT, targets_NT) to one log-probability a sequence


class Preference(NamedTuple):
    """What `dpo_loss` gives: the loss, and the two implicit rewards of each pair."""

    loss: Float[Tensor, ""]  # nats a pair
    chosen_B: Float[Tensor, "B"]  # reward of the preferred answer
    rejected_B: Float[Tensor, "B"]

    @property
    def margin_B(self) -> Float[Tensor, "B"]:
        """By how much the preferred answer's reward is the higher one."""
        return self.chosen_B - self.rejected_B

    @property
    def accuracy(self) -> float:
        """The share of pairs whose preferred answer has the higher reward; a tie counts as wrong."""
        return float((self.margin_B > 0).float().mean())


def sequence_log_probability(
    logits_NTV: Float[Tensor, "N T V"], targets_NT: Int[Tensor, "N T"]
) -> Float[Tensor, "N"]:
    """Sum the log-probabilities of each row's targets, those of -100 left out: nats a sequence.

    Formula: ``log pi(y|x) = sum over the tokens t of the answer of log softmax(logits[t])[target[t]]``.

    >>> sequence_log_probability(torch.zeros(1, 3, 4), torch.tensor([[-100, 2, 1]])).round(decimals=4)
    tensor([-2.7726])
    """
    nats_NT = F.cross_entropy(
        logits_NTV.transpose(1, 2), targets_NT, ignore_index=NO_TARGET, reduction="none"
    )
    return -nats_NT.sum(dim=1)


def dpo_loss(
    policy_chosen_B: Float[Tensor, "B"],
    policy_rejected_B: Float[Tensor, "B"],
    reference_chosen_B: Float[Tensor, "B"],
    reference_rejected_B: Float[Tensor, "B"],
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Preference:
    """Return the loss of direct preference optimisation, and the implicit rewards.

    Formula: ``r = beta (log pi - log pi_ref)`` for each answer, ``margin = r_chosen - r_rejected``, loss
    = mean of ``-(1 - e) log sigmoid(margin) - e log sigmoid(-margin)``, where e is ``label_smoothing``:
    the share of pairs whose label is assumed to be wrong. The derivative with respect to the margin is
    ``sigmoid(margin) - (1 - e)``: a pair that is told apart already moves the model little.

    Arguments: log-probabilities of whole answers, nats. ``beta`` is what a nat of distance from the
    reference is worth: the larger, the nearer to the reference the best model of this loss stays.
    Raises: ValueError for a beta that is not above 0, or a label_smoothing outside [0, 0.5).
    Source: Rafailov et al. 2023, equation 7; label smoothing: Mitchell 2023 (conservative DPO).

    >>> four = [torch.tensor([nats]) for nats in (-2.0, -5.0, -3.0, -4.0)]
    >>> found = dpo_loss(*four, beta=0.5)
    >>> found.margin_B.item(), round(found.loss.item(), 4)  # 0.5 (1 + 1), log(1 + exp(-1))
    (1.0, 0.3133)
    """
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be above 0 and finite, got {beta}")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be at least 0 and below 0.5, got {label_smoothing}")
    chosen_B = beta * (policy_chosen_B - reference_chosen_B)
    rejected_B = beta * (policy_rejected_B - reference_rejected_B)
    margin_B = chosen_B - rejected_B
    right_B, wrong_B = F.logsigmoid(margin_B), F.logsigmoid(-margin_B)
    loss = -((1 - label_smoothing) * right_B + label_smoothing * wrong_B).mean()
    return Preference(loss, chosen_B, rejected_B)


class PreferenceModel(nn.Module):
    """A language model as a classifier of pairs: which of two answers is the preferred one.

    Called as ``model(pairs_B22T, preferred_B)``; returns ``(rewards_B2, loss)``, without ``preferred_B``
    the rewards alone. The loss is the cross-entropy of ``softmax(rewards)``, which for two answers is
    -log sigmoid of the margin: that of `dpo_loss`. So the trainer trains it like any classifier.

    Arguments: ``policy`` is the model that is trained; ``score`` gives the log-probability of each
    sequence's targets under it, by default of ``policy(ids_NT)``, a decoder's logits. ``reference`` gives
    the same under the reference, and is called without gradients: `frozen_reference` of a copy, or the
    same model with its adapters off (`without_adapters`). It is no part of this module, so neither
    trained nor saved.
    Raises: as `dpo_loss`.

    >>> table = nn.Embedding(5, 5)
    >>> pairs_B22T = torch.tensor([[[[1, 2], [-100, 3]], [[1, 2], [-100, 4]]]])
    >>> model = PreferenceModel(table, frozen_reference(table), beta=0.1)
    >>> rewards_B2, loss = model(pairs_B22T, torch.tensor([0]))
    >>> rewards_B2.tolist(), round(loss.item(), 4)  # nothing learned yet: log 2
    ([[0.0, 0.0]], 0.6931)
    """

    def __init__(
        self,
        policy: nn.Module,
        reference: Score,
        *,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        score: Score | None = None,
    ):
        super().__init__()
        self.policy, self.beta, self.label_smoothing = policy, beta, label_smoothing
        self._outside = (reference, score or score_with(policy))  # in a tuple: no submodules

    def log_probabilities(self, pairs_B22T: Int[Tensor, "B 2 2 T"]) -> Float[Tensor, "2 B 2"]:
        """Of both answers of each pair: under the policy, under the reference; nats."""
        ids_NT, targets_NT = pairs_B22T.flatten(0, 1).unbind(dim=1)
        reference, score = self._outside
        with torch.no_grad():
            reference_N = reference(ids_NT, targets_NT)
        return torch.stack([score(ids_NT, targets_NT), reference_N]).unflatten(1, (-1, 2))

    def forward(
        self, pairs_B22T: Int[Tensor, "B 2 2 T"], preferred_B: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B 2"] | tuple[Float[Tensor, "B 2"], Float[Tensor, ""]]:
        """Score both answers of each pair."""
        policy_B2, reference_B2 = self.log_probabilities(pairs_B22T)
        if preferred_B is None:
            return self.beta * (policy_B2 - reference_B2)
        chosen_B1 = preferred_B[:, None]
        four = (
            nats_B2.gather(1, index_B1)[:, 0]
            for nats_B2 in (policy_B2, reference_B2)
            for index_B1 in (chosen_B1, 1 - chosen_B1)
        )
        found = dpo_loss(*four, beta=self.beta, label_smoothing=self.label_smoothing)
        return self.beta * (policy_B2 - reference_B2), found.loss


def score_with(model: nn.Module) -> Score:
    """Return the function that gives each sequence's log-probability under ``model(ids_NT)``."""
    return lambda ids_NT, targets_NT: sequence_log_probability(model(ids_NT), targets_NT)


def frozen_reference(model: nn.Module) -> Score:
    """Return the scores of a copy of ``model`` as it is now, without dropout and not trained."""
    import copy

    return score_with(copy.deepcopy(model).eval().requires_grad_(False))


def without_adapters(model: nn.Module) -> Score:
    """Return the scores of ``model`` with its adapters off: the base as reference, without a copy."""
    from llm_from_scratch.finetuning.lora import adapters_off
    from llm_from_scratch.nn.modes import evaluation_mode

    def score(ids_NT: Tensor, targets_NT: Tensor) -> Tensor:
        with adapters_off(model), evaluation_mode(model):
            return sequence_log_probability(model(ids_NT), targets_NT)

    return score


class RememberedScores:
    """A reference whose log-probabilities are computed once, before the training begins.

    Called with ids and targets it looks each row up, however it is padded; so the model that is trained
    can be its own reference, as it was. ``score`` is asked for batches of ``pairs`` at once.
    Raises: ValueError at a call, for a row that was not among the pairs.

    >>> table = nn.Embedding(5, 5)
    >>> pairs = [[torch.tensor(x) for x in ([1, 2], [-100, 3], [1], [4])]]
    >>> reference = RememberedScores(score_with(table), pairs)
    >>> nn.init.zeros_(table.weight)[0].tolist(), len(reference.nats)
    ([0.0, 0.0, 0.0, 0.0, 0.0], 2)
    """

    def __init__(self, score: Score, pairs: Sequence[tuple[Tensor, ...]], *, batch_size: int = 16):
        self.nats: dict[bytes, float] = {}
        rows = [row for ids, targets, other, others in pairs for row in ((ids, targets), (other, others))]
        for i in range(0, len(rows), batch_size):
            ids_NT, targets_NT = pad_conversations(rows[i : i + batch_size], pad_id=0)
            with torch.no_grad():
                nats_N = score(ids_NT, targets_NT).tolist()
            for ids_T, targets_T, nats in zip(ids_NT, targets_NT, nats_N, strict=True):
                self.nats[_key(ids_T, targets_T)] = nats

    def __call__(self, ids_NT: Int[Tensor, "N T"], targets_NT: Int[Tensor, "N T"]) -> Float[Tensor, "N"]:
        """Look each row up."""
        keys = [_key(ids_T, targets_T) for ids_T, targets_T in zip(ids_NT, targets_NT, strict=True)]
        if not all(key in self.nats for key in keys):
            raise ValueError(
                "the reference was not asked about this pair before the training; add it to pairs"
            )
        return torch.tensor([self.nats[key] for key in keys])


def _key(ids_T: Tensor, targets_T: Tensor) -> bytes:
    """A row up to its last target: the padding after it is no part of it."""
    end = int((targets_T != NO_TARGET).nonzero().max()) + 1
    return ids_T[:end].numpy().tobytes() + targets_T[:end].numpy().tobytes()


class PreferenceBatches(ExampleBatches[tuple[Tensor, ...]]):
    """Endless batches of pairs: ``(pairs_B22T, preferred_B)``.

    An example is four tensors: ids and targets of the preferred answer's conversation, then those of the
    other, each from `encode_conversation`. The preferred answer comes first or second by turns.
    """

    def collate(self, examples: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
        """Pad and stack."""
        return stack_pairs(examples, pad_id=self.pad_id)


def stack_pairs(
    examples: Sequence[tuple[Tensor, ...]], *, pad_id: int
) -> tuple[Int[Tensor, "B 2 2 T"], Int[Tensor, "B"]]:
    """Make one batch of pairs; of every second pair the preferred answer stands second.

    >>> one = [torch.tensor(x) for x in ([1, 2], [-100, 3], [1], [4])]
    >>> pairs_B22T, preferred_B = stack_pairs([one, one], pad_id=0)
    >>> pairs_B22T[1].tolist(), preferred_B.tolist()
    ([[[1, 0], [4, -100]], [[1, 2], [-100, 3]]], [0, 1])
    """
    conversations: list[Conversation] = []
    for number, (ids_T, targets_T, other_T, other_targets_T) in enumerate(examples):
        both = [(ids_T, targets_T), (other_T, other_targets_T)]
        conversations += both if number % 2 == 0 else both[::-1]
    ids_NT, targets_NT = pad_conversations(conversations, pad_id=pad_id)
    pairs_B22T = torch.stack([ids_NT, targets_NT], dim=1).unflatten(0, (-1, 2))
    return pairs_B22T, torch.arange(len(examples)) % 2

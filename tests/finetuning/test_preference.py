"""DPO: against trl's own trainer on a tiny model, and what its definition promises."""

import copy
import math

import pytest
import torch
from torch import nn

from llm_from_scratch.finetuning.example_batches import ExampleBatches
from llm_from_scratch.finetuning.preference import (
    PreferenceBatches,
    PreferenceModel,
    RememberedScores,
    dpo_loss,
    frozen_reference,
    score_with,
    sequence_log_probability,
    stack_pairs,
)

# trl asks transformers in a way that transformers means to drop.
THEIRS = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")


def random_pairs(count=3, *, vocab=11, seed=0):
    """Examples for `stack_pairs`: questions and two answers of different lengths."""
    generator = torch.Generator().manual_seed(seed)

    def conversation(question):
        answer = torch.randint(
            1, vocab, (int(torch.randint(1, 5, (1,), generator=generator)),), generator=generator
        )
        ids = torch.cat([question, answer])
        targets = ids[1:].clone()
        targets[: len(question) - 1] = -100
        return ids[:-1], targets

    examples = []
    for _ in range(count):
        question = torch.randint(1, vocab, (3,), generator=generator)
        examples.append((*conversation(question), *conversation(question)))
    return examples


class Tiny(nn.Module):
    """A bigram table: ids to logits."""

    def __init__(self, vocab=11, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(vocab, vocab, generator=generator))

    def forward(self, ids_BT):
        return self.table[ids_BT]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """trl's DPOTrainer around a random tiny Llama and another one as its reference."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    vocab = {f"w{i}": i for i in range(9)} | {"<pad>": 9, "<eos>": 10}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token="w0")),
        pad_token="<pad>",
        eos_token="<eos>",
    )
    config = LlamaConfig(
        vocab_size=11, hidden_size=12, intermediate_size=20, num_hidden_layers=1, num_attention_heads=3,
        num_key_value_heads=3, pad_token_id=9, eos_token_id=10, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model, reference = LlamaForCausalLM(config), LlamaForCausalLM(config)
    for part in (model, reference):
        for parameter in part.parameters():
            nn.init.normal_(parameter, std=0.5)
    rows = [{"prompt": "w1", "chosen": " w2", "rejected": " w3"}] * 4
    arguments = DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")), beta=0.3, report_to=[], use_cpu=True, bf16=False,
        per_device_train_batch_size=3, activation_checkpointing=False,
    )  # fmt: skip
    return DPOTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def as_trl(examples):
    """Its batch: all chosen texts, then all rejected ones, with the mask of the completions."""
    rows = [(i, t) for i, t, _, _ in examples] + [(i, t) for _, _, i, t in examples]
    texts = [torch.cat([i, t[-1:]]) for i, t in rows]
    masks = [torch.cat([torch.tensor([False]), t != -100]) for _, t in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(texts, batch_first=True, padding_value=9)
    attention = pad([torch.ones_like(x) for x in texts], batch_first=True)
    return {
        "input_ids": ids,
        "attention_mask": attention,
        "completion_mask": pad([m.long() for m in masks], batch_first=True),
    }


class Logits(nn.Module):
    """A model of transformers that returns its logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids_NT):
        return self.model(input_ids=ids_NT).logits


@THEIRS
def test_loss_rewards_and_gradient_are_those_of_trl(trainer):
    examples = random_pairs(5, vocab=9)
    model = trainer.model
    trainer.loss_types, trainer.label_smoothing = ["sigmoid"], 0.0
    trainer._metrics["train"].clear()
    model.train()
    model.zero_grad()
    theirs = trainer.compute_loss(model, as_trl(examples))
    theirs.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    model.zero_grad()
    ours = PreferenceModel(Logits(model), frozen_reference(Logits(trainer.ref_model)), beta=0.3)
    pairs_B22T, preferred_B = stack_pairs(examples, pad_id=9)
    rewards_B2, loss = ours(pairs_B22T, preferred_B)
    loss.backward()
    torch.testing.assert_close(loss, theirs, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)
    chosen_B, rejected_B = (
        rewards_B2.gather(1, index[:, None])[:, 0].detach() for index in (preferred_B, 1 - preferred_B)
    )
    found = {
        "rewards/chosen": chosen_B.mean(),
        "rewards/rejected": rejected_B.mean(),
        "rewards/margins": (chosen_B - rejected_B).mean(),
        "rewards/accuracies": (chosen_B > rejected_B).float().mean(),
    }
    assert 0 < metrics["rewards/accuracies"] < 1  # so that the sign of the margin shows
    for name, value in found.items():
        assert metrics[name] == pytest.approx(float(value), abs=1e-5), name


@THEIRS
def test_label_smoothing_is_that_of_trl(trainer):
    """trl's "aot" sorts margins over the batch; for a batch of one pair that is conservative DPO."""
    trainer.loss_types, trainer.label_smoothing = ["aot"], 0.2
    ours = PreferenceModel(
        Logits(trainer.model), frozen_reference(Logits(trainer.ref_model)), beta=0.3, label_smoothing=0.2
    )
    for seed in range(3):
        examples = random_pairs(1, vocab=9, seed=seed)
        _, loss = ours(*stack_pairs(examples, pad_id=9))
        torch.testing.assert_close(
            trainer.compute_loss(trainer.model, as_trl(examples)), loss, rtol=1e-5, atol=1e-5
        )


def test_the_log_probability_is_the_product_of_the_probabilities():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([[-100, 3, 1], [2, -100, -100]])
    probability = logits.softmax(-1)
    expected = torch.stack([probability[0, 1, 3] * probability[0, 2, 1], probability[1, 0, 2]]).log()
    torch.testing.assert_close(sequence_log_probability(logits, targets), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_are_those_of_the_definition(smoothing):
    four = [torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    four = [x.requires_grad_() for x in four]
    assert torch.autograd.gradcheck(lambda *x: dpo_loss(*x, beta=0.7, label_smoothing=smoothing).loss, four)
    found = dpo_loss(*four, beta=0.7, label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(found.loss, four[0])
    expected = 0.7 * (found.margin_B.sigmoid() - (1 - smoothing)) / 3
    torch.testing.assert_close(gradient, expected)


def test_the_loss_falls_with_the_margin_and_with_smoothing_only_up_to_a_point():
    def loss(margin, smoothing):
        zero = torch.zeros(1)
        return dpo_loss(
            torch.tensor([margin]), zero, zero, zero, beta=1.0, label_smoothing=smoothing
        ).loss.item()

    assert loss(0.0, 0.0) == pytest.approx(math.log(2))
    assert loss(-2.0, 0.0) > loss(0.0, 0.0) > loss(2.0, 0.0) > loss(50.0, 0.0)
    best = math.log(0.9 / 0.1)  # where the model believes the pair with 0.9
    assert loss(best, 0.1) < min(loss(best - 0.5, 0.1), loss(best + 0.5, 0.1))
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="beta"):
            dpo_loss(*[torch.zeros(1)] * 4, beta=bad)
    with pytest.raises(ValueError, match="label_smoothing"):
        dpo_loss(*[torch.zeros(1)] * 4, label_smoothing=0.5)


def test_training_moves_the_policy_alone_and_prefers_the_preferred():
    policy = Tiny()
    before = copy.deepcopy(policy.state_dict())
    reference = Tiny()
    score = frozen_reference(reference)
    model = PreferenceModel(policy, score, beta=0.5)
    assert [name for name, _ in model.named_parameters()] == ["policy.table"]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batches = PreferenceBatches(random_pairs(4), batch_size=4, pad_id=0, seed=0)
    losses = []
    for _ in range(60):
        pairs_B22T, preferred_B = next(batches)
        _, loss = model(pairs_B22T, preferred_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2))  # the policy is the reference still
    assert losses[-1] < 0.1
    assert all(p.grad is None for p in reference.parameters())
    rewards_B2 = model(pairs_B22T)
    assert torch.equal(rewards_B2.argmax(1), preferred_B)
    ids, targets = pairs_B22T[:, 0].unbind(1)
    fresh = Tiny()
    fresh.load_state_dict(before)
    torch.testing.assert_close(score(ids, targets), sequence_log_probability(fresh(ids), targets))


def test_no_gradient_reaches_a_reference_that_is_the_policy_itself():
    """With the policy as its own reference both rewards are 0; their gradient is the policy's alone."""
    policy = Tiny()
    model = PreferenceModel(policy, lambda i, t: sequence_log_probability(policy(i), t), beta=1.0)
    _, loss = model(*stack_pairs(random_pairs(2), pad_id=0))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert policy.table.grad.abs().max() > 0.01


def test_the_adapters_that_are_off_give_the_base_model_as_reference():
    from llm_from_scratch.finetuning.lora import LoraConfig, add_lora, lora_parameters
    from llm_from_scratch.finetuning.preference import without_adapters
    from llm_from_scratch.models.decoder import Decoder, DecoderConfig

    torch.manual_seed(0)
    model = Decoder(
        DecoderConfig.llama(vocab_size=11, context_length=16, d_model=12, num_layers=2, num_heads=3)
    )
    base = frozen_reference(model)
    add_lora(model, LoraConfig(rank=2, alpha=4.0))
    with torch.no_grad():
        for parameter in lora_parameters(model):
            parameter.normal_()
    ids, targets = stack_pairs(random_pairs(2), pad_id=0)[0].flatten(0, 1).unbind(1)
    torch.testing.assert_close(without_adapters(model)(ids, targets), base(ids, targets))
    assert not torch.allclose(sequence_log_probability(model(ids), targets), base(ids, targets))


def test_pairs_and_batches_keep_what_belongs_together():
    examples = random_pairs(3)
    pairs_B22T, preferred_B = stack_pairs(examples, pad_id=0)
    assert preferred_B.tolist() == [0, 1, 0]
    for pair_22T, preferred, (ids, targets, other, other_targets) in zip(
        pairs_B22T, preferred_B, examples, strict=True
    ):
        for member, (i, t) in ((preferred, (ids, targets)), (1 - preferred, (other, other_targets))):
            assert torch.equal(pair_22T[member, 0, : len(i)], i)
            assert torch.equal(pair_22T[member, 1, : len(t)], t)
            assert (pair_22T[member, 1, len(t) :] == -100).all()
    batches = PreferenceBatches(examples, batch_size=2, pad_id=0, seed=1)
    assert isinstance(batches, ExampleBatches)
    next(batches)
    again = PreferenceBatches(examples, batch_size=2, pad_id=0, seed=1)
    again.load_state_dict(batches.state_dict())
    assert torch.equal(next(batches)[0], next(again)[0])


def test_remembered_scores_are_those_of_the_reference_however_a_pair_is_padded():
    policy, examples = Tiny(), random_pairs(5)
    reference, remembered = (
        frozen_reference(policy),
        RememberedScores(score_with(policy), examples, batch_size=3),
    )
    with torch.no_grad():
        policy.table.normal_()  # it learns; the reference stays as it was
    batches = PreferenceBatches(examples, batch_size=2, pad_id=0, seed=0)
    for _ in range(5):
        ids, targets = next(batches)[0].flatten(0, 1).unbind(1)
        torch.testing.assert_close(remembered(ids, targets), reference(ids, targets))
    with pytest.raises(ValueError, match="not asked about this pair"):
        remembered(ids + 1, targets)

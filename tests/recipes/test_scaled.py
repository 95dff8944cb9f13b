"""Recipes with one dial, their plans, and the refusal of a machine that is too small."""

import json
import subprocess

import pytest
import torch

from llm_from_scratch.recipes import fitting, flat_fields, get, with_changes
from llm_from_scratch.recipes.fitting import check_fits
from llm_from_scratch.recipes.planning import plan_recipe, plan_script
from llm_from_scratch.recipes.recipe import num_parameters
from llm_from_scratch.training.strategy import Strategy

SCALED = ("gpt2_124m", "gpt2_124m_8gpu", "llama_1b_fsdp", "llama_8b_multinode")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2_124m", 124_337_664),  # GPT-2's 124,439,808 less 102,144 biases
        ("llama_1b_fsdp", 1_235_814_400),  # its model card: 1.23 billion
        ("llama_8b_multinode", 8_030_261_248),  # Llama 3 8B
    ],
)
def test_sizes_are_the_published_ones(name, parameters):
    assert num_parameters(get(name)) == parameters


@pytest.mark.parametrize("name", SCALED)
def test_the_dial_sets_shape_steps_and_rate(name):
    recipe = get(name)
    larger = with_changes(recipe, {"depth": recipe.depth + 4})
    assert num_parameters(larger) > num_parameters(recipe)
    assert larger.training.steps > recipe.training.steps
    assert larger.training.learning_rate < recipe.training.learning_rate
    tokens = recipe.training.batch_size * recipe.training.accumulate * recipe.context_length
    config = recipe.model_config(recipe.vocab_size)
    looked_up = config.context_length * config.d_model if config.positions == "learned" else 0
    looked_up += 0 if config.tie_embeddings else config.vocab_size * config.d_model
    wanted = recipe.tokens_per_parameter * (num_parameters(recipe) - looked_up)
    assert 0 <= recipe.training.steps * tokens - wanted < tokens


def test_what_is_set_by_name_is_kept():
    recipe = with_changes(get("gpt2_124m"), {"depth": "6", "steps": "50", "batch_size": "4"})
    assert (recipe.training.steps, recipe.training.batch_size, recipe.training.accumulate) == (50, 4, 32)
    stored = json.loads(json.dumps(flat_fields(recipe)))
    assert with_changes(get("gpt2_124m"), stored) == recipe  # as a resumed run does
    deep = with_changes(get("llama_1b_fsdp"), {"depth": 20})
    assert with_changes(get("llama_1b_fsdp"), json.loads(json.dumps(flat_fields(deep)))) == deep


@pytest.mark.parametrize(
    ("name", "depth"), [("gpt2_124m", 0), ("llama_1b_fsdp", 7), ("llama_8b_multinode", 6)]
)
def test_depths_without_a_shape_are_refused(name, depth):
    with pytest.raises(ValueError, match=f"got {depth}"):
        with_changes(get(name), {"depth": depth})


@pytest.mark.parametrize("name", SCALED)
def test_each_is_planned_for_its_own_machine_and_fits(name):
    recipe = get(name)
    plan = plan_recipe(recipe, "h100")
    assert (plan.devices, plan.strategy, plan.recompute) == (recipe.gpus, recipe.strategy, recipe.recompute)
    assert plan.fits


def test_the_plans_options_replace_the_recipes():
    plan = plan_recipe(
        get("llama_8b_multinode"), "a100", gpus=16, strategy="tensor", recompute=False, mfu=0.2
    )
    assert (plan.devices, plan.strategy, plan.recompute, plan.mfu) == (16, "tensor", False, 0.2)
    assert plan_recipe(get("llama_1b_fsdp"), "h100", gpus=1).strategy == "single"
    with pytest.raises(ValueError, match="gpus must be 1 or more"):
        plan_recipe(get("laptop"), "cpu", gpus=0)


def test_the_script_is_shell_and_runs_the_plan(tmp_path):
    recipe = with_changes(get("llama_8b_multinode"), {"steps": 1000})
    script = plan_script(recipe, plan_recipe(recipe, "h100"), per_node=8)
    path = tmp_path / "run.slurm"
    path.write_text(script)
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert "#SBATCH --nodes=8\n" in script
    assert "train llama_8b_multinode --steps=1000 --strategy fsdp --recompute" in script
    assert "--resume" in script
    with pytest.raises(ValueError, match="64 GPUs do not fill machines of 7"):
        plan_script(recipe, plan_recipe(recipe, "h100"), per_node=7)
    with pytest.raises(ValueError, match="no script for a run that would not begin"):
        plan_script(recipe, plan_recipe(recipe, "l4"))


def test_a_machine_that_is_too_small_is_refused_with_the_prediction(monkeypatch):
    recipe = with_changes(get("gpt2_124m"), {"device": "cpu"})
    monkeypatch.setattr(fitting, "machine_memory", lambda device: 2 * 10**9)
    with pytest.raises(
        ValueError, match=r"needs a predicted \d+\.\d GB in each process \(parameters 0\.5,.* has 2\.0"
    ):
        check_fits(recipe, Strategy())
    monkeypatch.setattr(fitting, "machine_memory", lambda device: 10**12)
    footprint = check_fits(recipe, Strategy())
    assert footprint.parameters == 4 * 124_337_664
    less = check_fits(recipe, Strategy(), recompute=True)
    assert less.activations < footprint.activations / 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    with pytest.raises(ValueError, match="shared by 1000 processes"):
        check_fits(recipe, Strategy())


def test_choices_without_a_formula_are_not_refused():
    assert check_fits(with_changes(get("laptop"), {"dropout": 0.1, "device": "cpu"}), Strategy()) is None
    assert (
        fitting.machine_memory(torch.device("cpu")) is None or fitting.machine_memory(torch.device("cpu")) > 0
    )

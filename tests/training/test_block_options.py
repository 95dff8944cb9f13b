"""Recomputed and compiled blocks compute the same, and a compiler that fails costs a warning only."""

import pytest
import torch

from llm_from_scratch.training.block_options import compile_blocks, recompute_activations
from tests.training.conftest import T, V, tiny_model


def gradients(model, seed=1):
    ids = torch.randint(0, V, (3, T), generator=torch.Generator().manual_seed(2))
    torch.manual_seed(seed)  # of dropout
    model(ids, ids.roll(-1, dims=1))[1].backward()
    return [p.grad for p in model.parameters()]


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(gradients(model), gradients(other), strict=True))


def test_recomputed_gradients_are_equal_with_dropout_too():
    assert same(recompute_activations(tiny_model(dropout=0.3)), tiny_model(dropout=0.3))
    assert not same(tiny_model(dropout=0.3), tiny_model(dropout=0.0))


def test_names_stay():
    changed = compile_blocks(recompute_activations(tiny_model()), compiler=lambda f: f)
    assert changed.state_dict().keys() == tiny_model().state_dict().keys()


def test_blocks_are_compiled():
    calls = []

    def compiler(function):
        return lambda *inputs, **named: calls.append(1) or function(*inputs, **named)

    assert same(compile_blocks(tiny_model(), compiler=compiler), tiny_model())
    assert len(calls) == 2  # layers


def test_a_compiler_that_fails_costs_one_warning_a_block():
    class CompilerError(RuntimeError):
        __module__ = "torch._inductor.exc"

    def compiler(function):
        def compiled(*inputs, **named):
            raise CompilerError("no C++ compiler found")

        return compiled

    model = compile_blocks(tiny_model(), compiler=compiler)
    with pytest.warns(UserWarning, match=r"torch.compile failed \(no C\+\+ compiler found\)") as caught:
        assert same(model, tiny_model())
    assert len(caught) == 2
    gradients(model)  # and no other, which would be an error here


def test_a_mistake_of_the_caller_is_not_taken_for_the_compilers():
    model = compile_blocks(tiny_model(), compiler=lambda f: f)
    with pytest.raises(RuntimeError):
        model.blocks[0](torch.zeros(2, 3, 5))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the compiler
def test_torch_compile_computes_the_same():
    model, plain = compile_blocks(tiny_model(dropout=0.0)), tiny_model(dropout=0.0)
    for a, b in zip(gradients(model), gradients(plain), strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=1e-4)
    assert all(block.forward.compiled is not None for block in model.blocks)

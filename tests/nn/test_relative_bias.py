"""T5's buckets of distances and the learned bias over them, against `transformers`' own."""

import pytest
import torch

from llm_from_scratch.nn.relative_bias import RelativeBias, relative_position_bucket


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 16), (14, 53), (6, 1000), (4, 3)])
def test_buckets_equal_those_of_transformers(bidirectional, num_buckets, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-1500, 1501)
    expected = T5Attention._relative_position_bucket(distance, bidirectional, num_buckets, max_distance)
    buckets = {"num_buckets": num_buckets, "max_distance": max_distance, "bidirectional": bidirectional}
    ours = relative_position_bucket(distance, **buckets)
    torch.testing.assert_close(ours, expected)
    assert (ours.min(), ours.max()) == (0, num_buckets - 1)


def test_no_bucket_is_left_empty_and_further_never_means_an_earlier_bucket():
    before = relative_position_bucket(-torch.arange(500), bidirectional=False)
    assert sorted(set(before.tolist())) == list(range(32))
    assert (before.diff() >= 0).all()
    assert (before[128:] == 31).all()
    assert before[:16].tolist() == list(range(16))


def test_later_keys_of_causal_attention_share_bucket_zero():
    assert (relative_position_bucket(torch.arange(1, 50), bidirectional=False) == 0).all()


def test_bias_depends_on_the_distance_alone_and_each_head_has_its_own():
    torch.manual_seed(1)
    bias = RelativeBias(num_buckets=8, max_distance=16, num_heads=3, bidirectional=True)(5, 5)
    assert bias.shape == (3, 5, 5)
    for k in range(-4, 5):
        diagonal = bias.diagonal(k, dim1=1, dim2=2)
        assert (diagonal == diagonal[:, :1]).all()
    assert len(bias[:, 2, 0].unique()) == 3
    assert (bias[:, 1, 2] != bias[:, 2, 1]).all()


def test_last_queries_of_a_longer_sequence():
    bias = RelativeBias(num_heads=3, bidirectional=False)
    torch.testing.assert_close(bias(2, 7), bias(7)[:, -2:])


def test_gradient_counts_the_places_of_each_bucket():
    bias = RelativeBias(num_buckets=4, max_distance=8, num_heads=2, bidirectional=False)
    bias(5).sum().backward()
    buckets = relative_position_bucket(
        torch.arange(5) - torch.arange(5)[:, None], num_buckets=4, max_distance=8, bidirectional=False
    )
    expected = torch.stack([(buckets == b).sum() for b in range(4)]).float()
    torch.testing.assert_close(bias.table.weight.grad, expected[:, None].expand(4, 2))


@pytest.mark.parametrize(
    ("buckets", "bidirectional"), [((2, 128), True), ((1, 128), False), ((32, 8), True), ((32, 16), False)]
)
def test_buckets_that_cannot_be_are_refused(buckets, bidirectional):
    with pytest.raises(ValueError, match=rf"num_buckets={buckets[0]} and max_distance={buckets[1]}"):
        RelativeBias(
            num_buckets=buckets[0], max_distance=buckets[1], num_heads=3, bidirectional=bidirectional
        )

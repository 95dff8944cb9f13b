"""The table of the fast ways to generate holds, and a broken one is seen."""

from collections import Counter

from llm_from_scratch.inference import cached_pass, parity


def test_table(capsys):
    assert parity.main() == 0
    assert "FAILED" not in capsys.readouterr().out


def test_a_cache_that_rotates_by_the_wrong_position_is_seen(monkeypatch):
    embed = cached_pass.Decoder.embed
    monkeypatch.setattr(
        cached_pass.Decoder, "embed", lambda self, ids, start=0, **rest: embed(self, ids, start=0, **rest)
    )
    rows = list(parity.cached())
    assert not any(row.passed for row in rows if row.what.startswith("cache"))


def test_chi_square_against_tables():
    for k, limit in ((1, 3.841), (2, 5.991), (10, 18.307)):  # where p is 0.05
        shift = (limit * 1000 / (k + 1)) ** 0.5 / 2**0.5
        counts = Counter(dict.fromkeys(range(k + 1), 1000.0))
        counts[0], counts[1] = 1000 + shift * (k + 1) ** 0.5, 1000 - shift * (k + 1) ** 0.5
        assert abs(parity.chi_square_p(counts, dict.fromkeys(range(k + 1), 1 / (k + 1))) - 0.05) < 0.01

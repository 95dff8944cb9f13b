"""Grade exercise notebooks on this machine, without a network. The command is ``llm-scratch grade``.

Importing this package needs numpy and nothing else, so that a notebook can call ``check_rng``.
"""

from .rng import check_rng

__all__ = ["check_rng"]

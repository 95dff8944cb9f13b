"""Run the grader as ``python -m llm_from_scratch.grading``."""

import typer

from .command import grade

if __name__ == "__main__":
    typer.run(grade)

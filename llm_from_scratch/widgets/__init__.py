"""What a chapter shows besides text: pictures, the package's own source, and views to touch."""

from llm_from_scratch.widgets.attention import AttentionExplorer
from llm_from_scratch.widgets.batching import BatchingTimeline
from llm_from_scratch.widgets.beam_tree import BeamTree
from llm_from_scratch.widgets.figure import COLORS, figure_style, show_figure
from llm_from_scratch.widgets.fill_blank import FillBlank
from llm_from_scratch.widgets.forgetting import AdaptationPath, ForgettingExplorer
from llm_from_scratch.widgets.graph import GraphStepper
from llm_from_scratch.widgets.positions import PositionExplorer
from llm_from_scratch.widgets.projection import ProjectionExplorer
from llm_from_scratch.widgets.sampling import SamplingPlayground
from llm_from_scratch.widgets.scrubber import Scrubber
from llm_from_scratch.widgets.source import show_source
from llm_from_scratch.widgets.tokenizer import TokenizerExplorer

__all__ = [
    "COLORS",
    "AdaptationPath",
    "AttentionExplorer",
    "BatchingTimeline",
    "BeamTree",
    "FillBlank",
    "ForgettingExplorer",
    "GraphStepper",
    "PositionExplorer",
    "ProjectionExplorer",
    "SamplingPlayground",
    "Scrubber",
    "TokenizerExplorer",
    "figure_style",
    "show_figure",
    "show_source",
]

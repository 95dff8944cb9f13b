"""A server in the shapes of the OpenAI API, and a chat in the terminal."""

from llm_from_scratch.serving.conversation import Conversation
from llm_from_scratch.serving.limits import Limits
from llm_from_scratch.serving.served_model import ServedModel
from llm_from_scratch.serving.server import Service, is_loopback, open_socket
from llm_from_scratch.serving.terminal import Terminal

__all__ = ["Conversation", "Limits", "ServedModel", "Service", "Terminal", "is_loopback", "open_socket"]

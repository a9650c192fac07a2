"""Prompts in the cells of tables: text, or a conversation of one message."""

from __future__ import annotations

from collections.abc import Mapping


def prompt_text(cell: object) -> str | None:
    """The text of a prompt; ``None`` if the cell holds none.

    TRL's conversational form is read where it holds one message, of the user, whose content is text or one part of
    text: ``[{"role": "user", "content": "a fox"}]``. https://huggingface.co/docs/trl/dataset_formats
    """
    if isinstance(cell, str):
        return cell
    message = _only(cell)
    if not isinstance(message, Mapping) or message.get("role") != "user":
        return None
    content = message.get("content")
    if isinstance(content, str):
        return content
    part = _only(content)
    text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
    return text if isinstance(text, str) else None


def _only(cell: object) -> object:
    return cell[0] if isinstance(cell, list | tuple) and len(cell) == 1 else None

"""ShareGPT: conversations as text, a list of objects or one object a line; each reply of the assistant is a request.

The prompt of a request is all that was said before in its conversation. Where turns tell their tokens (``tokens``,
``num_tokens`` or ``token_count``) these are taken; else a token is taken for four bytes of UTF-8, the rule of thumb
for English text (OpenAI, "What are tokens and how to count them?": a token is about four characters); the length by a
tokenizer differs by model.

Source: huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered, README (the form of the file).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cmsim.errors import InputError, Problem
from cmsim.reading.bytes_in import LIMIT_B, bad, head, read_bytes
from cmsim.reading.json_blocks import blocks
from cmsim.requests.requests import Requests, requests_of

NAME = "sharegpt"
TALKS = "conversations"
BYTES_A_TOKEN = 4
_WHO, _WHAT, _TOKENS = ("from", "role"), ("value", "content"), ("tokens", "num_tokens", "token_count")
_ASSISTANT = ("gpt", "assistant", "chatgpt", "bing", "bard", "model")
_OPENS = (b"[", b"{")
_BLANK = b"\xef\xbb\xbf \t\r\n"


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    return start.lstrip(_BLANK)[:1] in _OPENS and b'"conversations"' in start


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Requests:
    """Raises InputError naming file and conversation."""
    prompt, reply, session = array("q"), array("q"), array("q")
    talks = turns = silent = told = 0
    for talk, said in _talks(path, limit_B):
        before = 0
        for who, tokens, counted in said:
            turns, told = turns + 1, told + counted
            if who in _ASSISTANT:
                if before and tokens:
                    prompt.append(before)
                    reply.append(tokens)
                    session.append(talk)
                else:
                    silent += 1
            before += tokens
        talks = talk + 1
    if not prompt:
        raise bad(path, f"none of its {talks} conversations has a reply of the assistant after a prompt")
    notes = ["a request is a reply of the assistant, its prompt all that was said before in the conversation"]
    if told < turns:
        notes.append(f"lengths are not in the file: a token is taken for {BYTES_A_TOKEN} bytes of text (UTF-8)")
    if silent:
        notes.append(f"{silent} replies that are empty or answer nothing are left out")
    columns = [np.array(one, np.int64) for one in (prompt, reply, session)]
    return requests_of(
        NAME,
        path,
        arrival_s=None,
        input_tokens=columns[0],
        output_tokens=columns[1],
        session=columns[2],
        facts={
            "conversations": talks,
            "turns": turns,
            "turns_with_tokens": told,
            "requests": len(prompt),
            "input_tokens": int(columns[0].sum()),
            "output_tokens": int(columns[1].sum()),
        },
        notes=notes,
    )


def _talks(path: Path, limit_B: int) -> Iterator[tuple[int, list[tuple[str, int, bool]]]]:
    """Number of each conversation; who says how many tokens in each of its turns, and whether the file says it."""
    for number, one in enumerate(_objects(path, limit_B)):
        said = one.get(TALKS) if isinstance(one, dict) else None
        if not isinstance(said, list):
            raise bad(path, f"conversation {number}: got {one!r:.60}; allowed: an object with a list of {TALKS}")
        try:
            turns = [_turn(turn) for turn in said]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise bad(path, f"conversation {number}: a turn that cannot be read ({error!s:.80})") from None
        yield number, turns


def _turn(turn: Any) -> tuple[str, int, bool]:
    who = turn[_WHO[0]] if _WHO[0] in turn else turn[_WHO[1]]
    for key in _TOKENS:
        if key in turn:
            tokens = turn[key]
            if type(tokens) is not int or not 0 <= tokens < 10**9:
                raise ValueError(f"'{key}': got {tokens!r:.40}; allowed: a whole number from 0 to 999999999")
            return str(who).lower(), tokens, True
    text = next((turn[key] for key in _WHAT if key in turn), None)
    if not isinstance(text, str):
        raise ValueError(f"got {text!r:.40}; allowed: text as '{_WHAT[0]}'")
    return str(who).lower(), -(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN), False


def _objects(path: Path, limit_B: int) -> Iterator[Any]:
    if head(path).lstrip(_BLANK)[:1] == b"[":
        for block in blocks(path, key=None, limit_B=limit_B):
            yield from block
        return
    for line, text in enumerate(read_bytes(path, limit_B=limit_B).splitlines(), 1):
        if text.strip():
            try:
                yield orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise InputError(Problem(f"is no JSON, or cut short ({error})", str(path), line)) from None

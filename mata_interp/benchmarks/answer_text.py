"""The answer in a generated text: without reasoning, out of tags, boxes, JSON and lead-ins. No options yet.

Every step reads the text once, so that a model that loops on a tag costs no more than any other.
"""

from __future__ import annotations

import json
import re
import unicodedata

__all__ = ["after_lead_ins", "boxed", "final_answer", "json_values", "normalized"]

# ---------------------------------------------------------------------------------------- reasoning and tags
_REASONING = "think|thinking|thought|thoughts|reason|reasoning|analysis|reflection|scratchpad|cot"
_THOUGHT = re.compile(
    rf"<(?P<xml>/?)(?:seed:)?(?:{_REASONING})\s*>"
    r"|\[(?P<bracket>/?)THINK\]"  # Magistral
    r"|◁(?P<triangle>/?)think▷"  # Kimi
    r"|<\|(?P<side>begin|end)_of_thought\|>"
    r"|(?P<open><\|channel>thought)|(?P<close><channel\|>)",  # Gemma 4
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]{0,40}<\|message\|>")  # the harmony format
_ANSWER = re.compile(
    r"<(?P<xml>/?)(?:final[_ -]?answer|answer|ans|final|solution|response|conclusion|output)\s*>"
    r"|\[(?P<bracket>/?)ANSWER\]"
    r"|<\|(?P<side>begin|end)_of_solution\|>",
    re.IGNORECASE,
)
_END = re.compile(r"<\|(?:im_end|endoftext|eot_id|end|return|eos)\|>|</?s>|<eos>|<end_of_turn>|<pad>")


def final_answer(text: str) -> str:
    """The answer in a generated text, without reasoning; empty if the text ends within the reasoning.

    Reasoning stands between tags such as ``<think>``, ``<thinking>``, ``<reasoning>`` or ``[THINK]`` and
    their closing forms, or is everything before a closing tag whose beginning is part of the chat template.
    The answer is what stands in the last ``<answer>`` tag (or ``<final_answer>``, ``<solution>``, ...) that
    is not empty; an unclosed one extends to the end of the text. Without such a tag it is the whole rest.

    Examples:
        >>> final_answer("<think>A bell? No.</think> <answer>a dog</answer>")
        'a dog'
        >>> final_answer("<thinking>It could be")
        ''
    """
    channels = list(_CHANNEL.finditer(text))
    if channels:
        text = text[channels[-1].end() :] if channels[-1][1].lower() == "final" else ""
    rest = _END.sub("\n", _without_reasoning(text))
    return (_tagged(rest) or rest).strip()


def _closes(tag: re.Match[str]) -> bool:
    parts = tag.groupdict()
    slash = any(parts.get(name) == "/" for name in ("xml", "bracket", "triangle"))
    return slash or (parts["side"] or "").lower() == "end" or bool(parts.get("close"))


def _without_reasoning(text: str) -> str:
    parts: list[str] = []
    start, inside = 0, False
    for tag in _THOUGHT.finditer(text):
        if _closes(tag):
            if not inside:  # opened by the chat template
                parts.clear()
            start, inside = tag.end(), False
        elif not inside:
            parts.append(text[start : tag.start()])
            inside = True
    if not inside:
        parts.append(text[start:])
    return "\n".join(parts)


def _tagged(text: str) -> str:
    """Content of the last answer tag that has any."""
    content, start, inside = "", 0, False
    for tag in _ANSWER.finditer(text):
        if not _closes(tag):
            start, inside = tag.end(), True
        elif inside or not content:
            content = text[start : tag.start()].strip() or content
            start, inside = tag.end(), False
    return (text[start:].strip() if inside else "") or content


# ------------------------------------------------------------------------------------------------- one form
_SMALL_DIGITS = {ord(mark): f"^{digit}" for digit, mark in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_SMALL_DIGITS |= {ord(mark): f"_{digit}" for digit, mark in enumerate("₀₁₂₃₄₅₆₇₈₉")}
_ALIKE = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u2014\u2015"), " - "),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u02bc\u2032"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f«»「」『』《》〈〉"), '"'),
    **dict.fromkeys(map(ord, "【〔"), "["),
    **dict.fromkeys(map(ord, "】〕"), "]"),
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"), None),  # characters without width
}
_LATEX = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|emph)\s*\{([^{}]*)\}")
_BREAK = re.compile(r"<(?:br|/?p|/?div|/?li)\s*/?>", re.IGNORECASE)
_STRUCK = re.compile(r"~~[^~\n]*~~|<(s|del|strike)>[^<]*</\1>", re.IGNORECASE)
_MARKUP = re.compile(r"\*+|`+|__+|</?(?:b|i|em|strong|u|span|code|mark)>|\\[()\[\],!; ]", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def normalized(text: str) -> str:
    """The text in one form of Unicode, without markup: full-width letters, dashes, quotes, LaTeX, Markdown.

    Case and line breaks stay. Text that is struck out goes.
    """
    text = unicodedata.normalize("NFKC", text.translate(_SMALL_DIGITS)).translate(_ALIKE)
    text = _MARKUP.sub("", _STRUCK.sub(" ", _BREAK.sub("\n", text)))
    for _ in range(3):  # nested commands
        text = _LATEX.sub(r"\1", text)
    return _THOUSANDS.sub("", text)


# ------------------------------------------------------------------------------------- boxes, JSON, lead-ins
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_KEYS = (
    r"(?:final|correct|selected|best)?[_ ]?(?:answer|choice|option)|ans|selected|selection|prediction|label"
    r"|letter|response|result|output|答案|选项"
)
_PAIR = re.compile(
    rf"""["'](?:{_KEYS})["']\s*:\s*(?:"((?:[^"\\\n]|\\.)*)|'((?:[^'\\\n]|\\.)*)|\[?\s*["']?([^,{{}}\]\n"']*))""",
    re.IGNORECASE,
)


def boxed(text: str) -> list[str]:
    r"""Content of the last LaTeX box, ``\boxed{...}``; empty if there is none."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return []
    start, depth = boxes[-1].end(), 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            return [text[start:end].strip(" $")]
    return [text[start:].strip(" $")]


def json_values(text: str) -> list[str]:
    """Values of the keys that an answer in JSON uses (``answer``, ``choice``, ...), complete JSON or not."""
    if "{" not in text:
        return []
    values = (next((part for part in pair.groups() if part is not None), "") for pair in _PAIR.finditer(text))
    return [value for value in map(_unescaped, values) if value]


def _unescaped(value: str) -> str:
    try:
        return str(json.loads(f'"{value}"')).strip()
    except ValueError:
        return value.strip()


_LEAD_IN = re.compile(
    r"\b(?:answer|option|choice|response|solution|guess|pick|selection|prediction)"
    r"(?:\s+(?:choice|option|letter|here|to\s+(?:the|this|your)\s+question))?\s*"
    r"(?:(?:is|was|are|(?:would|should|must|will|could|may|might)\s+be|appears\s+to\s+be|seems\s+to\s+be)\b\s*:?"
    r"|[:=]|-+>|=>)"
    r"|\b(?:respuesta|r[ée]ponse|antwort|resposta|risposta|ответ)\b(?:\s+\w+)?\s*(?:(?:es|est|ist|é|è)\b\s*:?|:)"
    r"|(?:答案|正解|答え|正确选项|정답)(?:应该|应当|应|大概|可能)?\s*(?:是|为|選|选|は|은|는|:)\s*:?",
    re.IGNORECASE,
)


def after_lead_ins(text: str) -> list[str]:
    """What follows each "The answer is", "Final answer:", "答案是", ..., the last of them first."""
    lead_ins = list(_LEAD_IN.finditer(text))
    starts = [match.start() for match in lead_ins]
    ends = [*starts[1:], len(text)][: len(lead_ins)]
    return [text[match.end() : end].strip() for match, end in zip(lead_ins, ends, strict=True)][::-1]

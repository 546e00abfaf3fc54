"""The parts of a model's folder for other programs, so that they read the model as truing does.

Three things are otherwise lost on the way: the token that the model was taught to end with, where the tokenizer and the
generation settings of its base name another; what truing's prompts hold beside the template's text (BOS, the header of
a response); and what transformers 5 writes in a form that version 4 does not read.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from truing.data import clock
from truing.data.rendering.render import TEXT_END, Renderer
from truing.data.rendering.template import ChatTemplate
from truing.disk import write_exact
from truing.errors import DataError, UserError
from truing.records import Message, Messages

PROBES: tuple[tuple[Messages, Messages], ...] = (
    ((Message("user", "A"),), (Message("assistant", "B"),)),
    ((Message("user", "A"), Message("assistant", "B"), Message("user", "C")), (Message("assistant", "D"),)),
    ((Message("system", "S"), Message("user", "A")), (Message("assistant", "B"),)),
)
"""Conversations that a template must write in the same way before and after it is changed."""


def settled(tokenizer: Any) -> Any:
    """A tokenizer that writes for everybody what truing writes with the one given: see the parts below.

    A change that would make truing itself write anything else is not made, so with templates that are out of the
    ordinary the tokenizer stays as it is.
    """
    with clock.fixed(clock.moment_of(tokenizer)):  # the two are compared at one moment
        for settle in (with_bos, with_header, with_end):
            try:
                other = settle(tokenizer)
                if other is not tokenizer and written(other) == written(tokenizer):
                    tokenizer = other
            except (DataError, UserError):
                return tokenizer
    return tokenizer


def written(tokenizer: Any) -> list[object]:
    """truing's rendering of the probes: ids of prompts and responses, or why there are none."""
    renderer, out = Renderer(tokenizer), list[object]()
    for prompt, response in PROBES:
        try:
            out += [renderer.prompt_ids(prompt), renderer.encode(prompt, response)]
        except DataError as error:
            out.append(error.problem)
    return out


def with_bos(tokenizer: Any) -> Any:
    """BOS written by the template, where truing puts it before the template's text because the tokenizer would.

    `apply_chat_template` adds no token of its own, so without this a model would be served without the BOS that it was
    trained with. Programs that add BOS to a rendered text take one away or are told on the card.
    """
    prompt = PROBES[0][0]
    if Renderer(tokenizer).prompt_ids(prompt)[:1] == [tokenizer.bos_token_id] != plain(tokenizer, prompt)[:1]:
        return extended(tokenizer, before="{{ bos_token }}")
    return tokenizer


def with_header(tokenizer: Any) -> Any:
    """A generation prompt written by the template, where it knows none and truing puts a response's header there."""
    prompt = PROBES[0][0]
    ours, theirs = Renderer(tokenizer).prompt_ids(prompt), plain(tokenizer, prompt)
    if len(ours) > len(theirs) and ours[: len(theirs)] == theirs:
        header = json.dumps(tokenizer.decode(ours[len(theirs) :], skip_special_tokens=False))
        return extended(tokenizer, behind="{% if add_generation_prompt %}{{ " + header + " }}{% endif %}")
    return tokenizer


def with_end(tokenizer: Any) -> Any:
    """The taught end as the tokenizer's EOS, which is what many programs stop at; unless the template itself asks what
    EOS is. Plain texts keep the token that they ended with."""
    end = Renderer(tokenizer).end_id
    if end == tokenizer.eos_token_id or "eos_token" in template_of(tokenizer):
        return tokenizer
    other = copy.deepcopy(tokenizer)
    if other.eos_token is not None:
        other.init_kwargs.setdefault(TEXT_END, other.eos_token)
    other.eos_token = other.convert_ids_to_tokens(end)
    return other


def plain(tokenizer: Any, prompt: Messages) -> list[int]:
    """The ids of a prompt as plain transformers writes them, at the moment that truing's own are written."""
    text = ChatTemplate(tokenizer, verbatim=True).text(prompt, generation=True)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def template_of(tokenizer: Any) -> str:
    """The chat template in use: the one named `default` where there are several."""
    template = tokenizer.chat_template
    return str(template["default"] if isinstance(template, dict) else template)


def extended(tokenizer: Any, before: str = "", behind: str = "") -> Any:
    """A copy with text before and behind the chat template in use."""
    other, several = copy.deepcopy(tokenizer), tokenizer.chat_template
    template = before + template_of(tokenizer) + behind
    other.chat_template = {**several, "default": template} if isinstance(several, dict) else template
    return other


def ends(tokenizer: Any, listed: Any) -> list[int]:
    """Every token that ends a response: the taught one first, then the tokenizer's and those `listed` already.

    `listed` is a generation config's `eos_token_id`: a number, a list of them, or None.
    """
    try:
        taught = [Renderer(tokenizer).end_id]
    except (DataError, UserError):
        taught = []
    more = listed if isinstance(listed, list) else [listed]
    return list(dict.fromkeys(i for i in (*taught, tokenizer.eos_token_id, *more) if i is not None))


def write_beside(model: Any, tokenizer: Any, folder: Path, *, speaks: bool = True) -> None:
    """Write what goes with the weights in a folder, whole ones or an adapter's: the tokenizer, the config in both
    forms, and for a model that `speaks` all its ends. A reward model's tokenizer stays as it was taught with it."""
    path = folder / "config.json"
    if speaks:
        settings = copy.deepcopy(model.generation_config)
        listed = ends(tokenizer, settings.eos_token_id)
        tokenizer = settled(tokenizer)
        settings.eos_token_id = listed if len(listed) > 1 else next(iter(listed), None)
        settings.pad_token_id = tokenizer.pad_token_id if settings.pad_token_id is None else settings.pad_token_id
        write_exact(folder / "generation_config.json", settings.to_json_string())
    write_tokenizer(tokenizer, folder)
    if not path.exists():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"eos_token_id": tokenizer.eos_token_id} if speaks else {}
    write_exact(path, json.dumps(both_forms(config, type(model.config)), indent=2, ensure_ascii=False) + "\n")


ADDS_BOS = ("LlamaTokenizer", "GemmaTokenizer", "CodeLlamaTokenizer", "CohereTokenizer")
"""Tokenizers that version 4 makes add BOS or not as their config says, whatever tokenizer.json does."""


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer as versions 4 and 5 of transformers read it, its template also where older programs look, and
    the SentencePiece model that it was made from, which llama.cpp's converter reads."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    added = tokenizer.added_tokens_decoder.items()
    settings["added_tokens_decoder"] = {str(i): token.__getstate__() for i, token in added}
    if isinstance(tokenizer.chat_template, str):
        settings["chat_template"] = tokenizer.chat_template
    for key in ("is_local", "local_files_only"):  # of how it was read here, and nothing that it is
        settings.pop(key, None)
    if settings.get("tokenizer_class") in ADDS_BOS:
        settings.setdefault("add_bos_token", tokenizer("A").input_ids[:1] == [tokenizer.bos_token_id])
    pieces = Path(getattr(tokenizer, "vocab_file", None) or "")
    if pieces.name == "tokenizer.model" and pieces.is_file() and pieces.parent.resolve() != folder.resolve():
        shutil.copyfile(pieces, folder / pieces.name)
    write_exact(path, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def both_forms(config: dict[str, Any], kind: Any) -> dict[str, Any]:
    """A config of version 5 of transformers with what version 4 reads under other names, as far as version 5 then reads
    it as before. `kind` is its class."""
    before = kind.from_dict(copy.deepcopy(config)).to_dict()
    for key, value in older_form(config):
        more = config | {key: value}
        try:
            after = kind.from_dict(copy.deepcopy(more)).to_dict()  # some kinds keep the older name beside the newer
        except Exception:  # a config's class may check what it is given in any way
            continue
        if key not in config and all(name in after and after[name] == before[name] for name in before):
            config = more
    return config


OLDER_NAMES: Mapping[str, Mapping[str, str]] = {
    "gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
    "gemma3_text": {"local_theta": "rope_local_base_freq"},
    "modernbert": {"rope_theta": "global_rope_theta", "local_theta": "local_rope_theta"},
}
"""Names that a kind of model had of its own in version 4 for parts of its position encoding."""


def older_form(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The names of version 4 for what version 5 writes into a config.

    >>> list(older_form({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0}}))
    [('rope_theta', 500000.0), ('rope_scaling', {'rope_type': 'linear', 'factor': 2.0})]
    """
    rope = config.get("rope_parameters") or {}
    main = rope.get("full_attention", rope)
    parts = {key: main[key] for key in ("rope_theta", "partial_rotary_factor") if key in main}
    names = OLDER_NAMES.get(str(config.get("model_type")), {})
    if "local_theta" in names and "rope_theta" in rope.get("sliding_attention", {}):
        parts["local_theta"] = rope["sliding_attention"]["rope_theta"]
    yield from ((names.get(part, part), value) for part, value in parts.items())
    if main.get("rope_type", "default") != "default":
        yield "rope_scaling", {key: value for key, value in main.items() if key not in parts}
    if "dtype" in config:
        yield "torch_dtype", config["dtype"]

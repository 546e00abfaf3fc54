"""Instructions for a model's card: load and use it with transformers so that it gives the same outputs as here."""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["language", "reward"]
"""The kind of a model: one that generates responses, or one that scores them."""
PIPELINE: dict[Kind, str] = {"language": "text-generation", "reward": "text-classification"}
"""The name of a model's task on the Hub."""
TESTED = "transformers 4.57.6 and 5.23.0"
"""The versions that exported folders were read with: the same logits and scores, and generation that ends."""

ANSWER = """\
```python
from transformers import {imports}

folder = "PATH_OR_NAME"
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
{more}prompt = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "..."}}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
response = model.generate(**prompt, max_new_tokens=256)[0, prompt["input_ids"].shape[1]:]
print(tokenizer.decode(response, skip_special_tokens=True))
```"""

SCORE = """\
```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "PATH_OR_NAME"
model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
{more}conversation = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "..."}}, {{"role": "assistant", "content": "..."}}],
    return_tensors="pt",
    return_dict=True,
)
score = model.eval()(**conversation).logits
```"""

ENDS = "model.generation_config = GenerationConfig.from_pretrained(folder)  # the tokens that end a response\n"
PADDING = "model.config.pad_token_id = tokenizer.pad_token_id  # for batches\n"


def usage(kind: Kind, adapter: bool = False) -> list[str]:
    """The lines of a card that say how to load a model of this kind, whole or an adapter (which needs peft).

    >>> print(usage("language")[-1])
    Read with transformers 4.57.6 and 5.23.0; older versions were not tried.
    """
    lines = [_code(kind, adapter), ""]
    if kind == "language":
        lines.append(
            "The tokens that end a response are those of `generation_config.json` (`eos_token_id`), the taught one "
            "first, which is the tokenizer's EOS too wherever its template allows that."
        )
    else:
        lines.append(
            "The score is read at the last token of what the chat template makes of the whole conversation, without a "
            "generation prompt. A text that the template has written already has its special tokens: give it with "
            '`add_special_tokens=False`, in a pipeline also with `function_to_apply="none"`. Pad batches on the '
            "right."
        )
    return [*lines, "", f"Read with {TESTED}; older versions were not tried."]


def _code(kind: Kind, adapter: bool) -> str:
    if kind == "reward":
        return SCORE.format(more=PADDING if adapter else "")
    imports = "AutoModelForCausalLM, AutoTokenizer" + (", GenerationConfig" if adapter else "")
    return ANSWER.format(imports=imports, more=ENDS if adapter else "")

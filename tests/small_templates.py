"""Chat templates with the structure of those that reasoning models bring, each written for these tests."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

R1 = (  # opens the thought; takes it out of every assistant turn
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ '<|user|>' + m['content'] }}"
    "{% else %}{% set c = m['content'] %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}"
    "{{ '<|bot|>' + c + '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|bot|><think>\n' }}{% endif %}"
)
QWQ = (  # the same in ChatML, and the blanks before the answer too
    "{% for m in messages %}{% if m.role != 'assistant' %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
_QWEN3 = (  # reads a key or the text; writes a thought, perhaps an empty one, before the last answer alone
    "{% for m in messages %}{% if m.role != 'assistant' %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% else %}{% set c = m.content %}{% set th = '' %}"
    "{% if m.reasoning_content is string %}{% set th = m.reasoning_content %}"
    "{% elif '</think>' in c %}{% set th = c.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.last %}{{ '<think>\n' + th.strip('\n') + '\n</think>\n\n' + c.lstrip('\n') }}{% else %}{{ c }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
)
HYBRID = _QWEN3 + (
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
THINKING = _QWEN3 + "{{ '<think>\n' }}{% endif %}"
CLOSED = _QWEN3 + "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
CHANNELS = (  # a key; channels of control tokens; another end token for the last turn
    "{% for m in messages %}{% if m.role != 'assistant' %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}"
    "{% elif loop.last and not add_generation_prompt %}{% if m.thinking is string %}"
    "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}"
    "{% else %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
MAGISTRAL = (  # a part of the content; marks that are control tokens
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ '[SYS]' + m.content + '[/SYS]' }}"
    "{% elif m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}{% elif m.content is string %}{{ m.content + '</s>' }}"
    "{% else %}{% for part in m.content %}{% if part.type == 'thinking' %}{{ '[THINK]' + part.thinking + '[/THINK]' }}"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{{ '</s>' }}{% endif %}{% endfor %}"
)
DEEPSEEK = (  # an answer without a thought has the mark that closes one before it
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content }}"
    "{% else %}{{ '<|bot|></think>' + m.content.split('</think>')[-1] + '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|bot|><think>' }}{% endif %}"
)
REASONING = R1.replace("think>", "reasoning>")
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|bot|>", "<unk>"]
MORE = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "[THINK]", "[/THINK]", "[INST]", "[/INST]"]
TEMPLATES = {
    "r1": R1,
    "qwq": QWQ,
    "hybrid": HYBRID,
    "thinking": THINKING,
    "channels": CHANNELS,
    "magistral": MAGISTRAL,
    "deepseek": DEEPSEEK,
    "reasoning": REASONING,
}


DATED = (  # the date in a system message, as Llama 3.1 and 3.2 write it
    "{{ bos_token }}{% if strftime_now is defined %}{% set today = strftime_now('%d %b %Y') %}"
    "{% else %}{% set today = '26 Jul 2024' %}{% endif %}"
    "{{ '<|im_start|>system\nCutting Knowledge Date: December 2023\nToday Date: ' + today + '<|im_end|>\n' }}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer(template: str, marks_are_control: bool = False) -> Any:
    """A small byte-level tokenizer with this template; <think> is a token of its own, as models have it."""
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = ["assistant\n\nwe add them up, so four\n\n two and two? user system: hello, the answer is here"] * 5
    base.train_from_iterator(text, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    base.add_special_tokens([*SPECIAL, *MORE])
    base.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")])
    made = PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    made.add_special_tokens({"additional_special_tokens": [*SPECIAL[2:], *MORE]})
    if marks_are_control:
        made.add_tokens(
            [AddedToken(t, special=True, normalized=False) for t in ("<think>", "</think>")], special_tokens=True
        )
    made.chat_template = template
    return made


def model(folder: Path, template: str, seed: int = 0, context: int = 512, **config: Any) -> Path:
    """Write a small random Llama with this template."""
    import torch

    own = tokenizer(template)
    ids = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    size = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=64)
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", vocab_size=len(own), max_position_embeddings=context, **size, **ids, **config)
    )
    made.save_pretrained(folder)
    own.save_pretrained(folder)
    return folder

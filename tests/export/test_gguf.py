"""GGUF files: what transformers' own reader and llama.cpp make of them is what the model makes here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
import torch
import xllamacpp
from gguf import GGUFReader
from tokenizers import Regex, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from template_forms import DIGITS, TEMPLATES, TEXTS, base
from truing.cli import app
from truing.commands import model_commands
from truing.data.rendering.render import Renderer
from truing.errors import UserError
from truing.policy import adapters, heads, llama_cpp
from truing.policy.fresh import make
from truing.policy.load import load
from truing.policy.plain import own_attention
from truing.records import Message
from truing.settings import Lora

QWEN = Regex(llama_cpp.LETTERS + r"\p{N}" + llama_cpp.REST)
CUTS = {
    "chatml": (),
    "llama3": (DIGITS,),
    "mistral": (),
    "mute": (DIGITS,),
    "thinking": (pre_tokenizers.Split(QWEN, "isolated"),),
}
KINDS = {"chatml": "llama", "llama3": "llama", "mistral": "mistral", "mute": "llama", "thinking": "qwen2"}
SAID = ["who grants the refund?", "12 days, or 345?\n\nYes:  maybe  ü …", "don't!  It's  so"]


def raw_bytes(folder: Path) -> None:
    """Let the last part of a tokenizer's cuts take the pieces as they are, as it is in Qwen's."""
    path = folder / "tokenizer.json"
    made = json.loads(path.read_text())
    made["pre_tokenizer"]["pretokenizers"][-1]["use_regex"] = False
    path.write_text(json.dumps(made))


def pieces(place: Path) -> Path:
    """A base model with a SentencePiece tokenizer, as Llama 2, Mistral and Gemma have."""
    (place / "text").write_text("\n".join(TEXTS * 3))
    folder = base("mistral", place / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    sentencepiece.SentencePieceTrainer.train(
        input=str(place / "text"),
        model_prefix=str(place / "pieces"),
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>"],
        minloglevel=2,
    )
    shutil.copy(place / "pieces.model", folder / "tokenizer.model")
    said = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    said |= {"tokenizer_class": "LlamaTokenizer", "chat_template": TEMPLATES["gemma"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module", params=[*CUTS, "pieces"])
def written(request, tmp_path_factory):
    """A policy, as a stage would leave it, and its GGUF file with whole weights."""
    place, form = tmp_path_factory.mktemp(request.param), request.param
    if form == "pieces":
        folder = pieces(place)
    else:
        folder = base(form, place / "base", *CUTS[form], kind=KINDS[form])
        raw_bytes(folder) if form == "thinking" else None
    policy = load(str(folder))
    made = policy.tokenizer
    with torch.no_grad():  # llama.cpp's server does not tell tokens that end within a letter
        for i in range(len(made)):
            policy.model.lm_head.weight[i] *= "\ufffd" not in made.decode([i])
        policy.model.lm_head.weight[len(made) :] *= 0
    heads.save(policy, place / "model")
    model_commands.export(str(place / "model"), None, place / "model.gguf", "f32")
    return policy, place / "model.gguf", AutoTokenizer.from_pretrained(place / "model")


def asked(words: str) -> tuple[Message, ...]:
    return (Message("user", words),)


def test_transformers_reads_the_same_logits(written) -> None:
    policy, path, _ = written
    plain = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).eval()
    ids = torch.tensor([Renderer(policy.tokenizer).prompt_ids(asked(SAID[1]))])
    here = AutoModelForCausalLM.from_pretrained(path.parent / "model").eval()
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, here(ids).logits, atol=1e-5)


def test_its_template_and_its_ends_are_in_it(written) -> None:
    policy, path, made = written
    fields = GGUFReader(path).fields
    said = {key: fields[key].contents() for key in fields if key.startswith("tokenizer.")}
    assert said["tokenizer.chat_template"] == made.chat_template
    ends = {said["tokenizer.ggml.eos_token_id"], said.get("tokenizer.ggml.eot_token_id")}
    assert Renderer(policy.tokenizer).end_id in ends and said["tokenizer.ggml.eos_token_id"] == made.eos_token_id
    assert said["tokenizer.ggml.add_bos_token"] == (made("A").input_ids[0] == made.bos_token_id)


def test_llama_cpp_answers_as_here(written) -> None:
    """The same tokens of a conversation, and of each the same next token with the same log-probability."""
    policy, path, _made = written
    server = serve(path)
    here = AutoModelForCausalLM.from_pretrained(path.parent / "model").eval()
    for words in SAID:
        ids = Renderer(policy.tokenizer).prompt_ids(asked(words))
        told = server.handle_chat_completions(
            {
                "messages": [{"role": "user", "content": words}],
                "max_tokens": 8,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": 1,
            }
        )
        assert told["usage"]["prompt_tokens"] == len(ids), told
        new = here.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=8, output_logits=True)[0, len(ids) :]
        rows = told["choices"][0]["logprobs"]["content"]
        assert [row["id"] for row in rows] == new.tolist()[: len(rows)] and rows
        with torch.no_grad():
            logp = here(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        assert rows[0]["logprob"] == pytest.approx(logp.max().item(), abs=2e-3)


def serve(path: Path) -> xllamacpp.Server:
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.cpuparams.n_threads, settings.warmup = str(path), 512, 1, False
    settings.verbosity = -1
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # it keeps half of the bits, else
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(settings)


def test_half_of_the_space(tmp_path) -> None:
    policy = load(str(base("chatml", tmp_path / "base")))
    ids = torch.tensor([Renderer(policy.tokenizer).prompt_ids(asked(SAID[0]))])
    for dtype, most in (("f16", 0.02), ("bf16", 0.2), ("q8_0", 0.4)):
        llama_cpp.write(policy, tmp_path / f"{dtype}.gguf", dtype)
        plain = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=f"{dtype}.gguf").eval()
        with torch.no_grad(), own_attention(policy):
            off = (plain(ids).logits - policy.model(ids).logits).abs().max().item()
        assert 0 < off < most, dtype


def test_an_adapter_is_merged(tmp_path) -> None:
    policy = load(str(base("chatml", tmp_path / "base")))
    adapters.put_on(policy, Lora(lora_rank=2), seed=1)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            weight += 0.05 if "lora_B" in name else 0
    heads.save(policy, tmp_path / "adapter")
    ids = torch.tensor([Renderer(policy.tokenizer).prompt_ids(asked(SAID[0]))])
    model_commands.export(str(tmp_path / "adapter"), None, tmp_path / "m.gguf", "f32")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf").eval()
    with torch.no_grad(), own_attention(policy):
        assert torch.allclose(plain(ids).logits, policy.model(ids).logits, atol=1e-5)


def test_a_template_that_asks_what_eos_is_keeps_it_and_both_ends_are_named(tmp_path) -> None:
    policy = load(str(base("phi3", tmp_path / "base")))
    llama_cpp.write(policy, tmp_path / "m.gguf", "f32")
    fields, made = GGUFReader(tmp_path / "m.gguf").fields, policy.tokenizer
    ends = [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot")]
    assert made.convert_ids_to_tokens(ends) == ["<|endoftext|>", "<|end|>"]


@pytest.mark.parametrize(
    ("cuts", "told"),
    [
        ((pre_tokenizers.Digits(individual_digits=False),), "BPE, texts cut by Digits + ByteLevel"),
        ((pre_tokenizers.Whitespace(),), "BPE, texts cut by Whitespace + ByteLevel"),
        ((pre_tokenizers.Split(Regex("a+"), "removed"),), r"BPE, texts cut by Split \+ ByteLevel"),
    ],
)
def test_a_tokenizer_without_such_a_form_is_said_so(tmp_path, cuts, told) -> None:
    """No file whose client would make other tokens of a text, and nothing is left behind."""
    policy = load(str(base("chatml", tmp_path / "base", *cuts)))
    with pytest.raises(UserError, match=f"its tokenizer .{told}.*has no form in llama.cpp".replace(" + ", r" \+ ")):
        llama_cpp.write(policy, tmp_path / "out" / "m.gguf")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_world_s_tokenizer_and_a_normaliser_have_none(tmp_path) -> None:
    make({"hidden": 32, "layers": 1, "vocab": 400}, TEXTS, tmp_path / "new")
    with pytest.raises(UserError, match="cut by Digits"):
        llama_cpp.write(load(str(tmp_path / "new")), tmp_path / "m.gguf")
    folder = base("chatml", tmp_path / "base")
    made = json.loads((folder / "tokenizer.json").read_text()) | {"normalizer": {"type": "Lowercase"}}
    (folder / "tokenizer.json").write_text(json.dumps(made))
    with pytest.raises(UserError, match=r"has no form in llama\.cpp"):
        llama_cpp.write(load(str(folder)), tmp_path / "m.gguf")


def test_single_digits_have_one(tmp_path) -> None:
    make({"hidden": 32, "layers": 1, "vocab": 400, "digits": "single"}, TEXTS, tmp_path / "new")
    llama_cpp.write(load(str(tmp_path / "new")), tmp_path / "m.gguf")
    assert GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.pre"].contents() == "smollm"


def test_what_has_no_gguf_is_refused(tmp_path) -> None:
    folder = base("chatml", tmp_path / "base")
    heads.save(heads.fresh_reward(str(folder), seed=1), tmp_path / "rm")
    with pytest.raises(UserError, match=r"is a reward model, and llama\.cpp gives no scores of one"):
        model_commands.export(str(tmp_path / "rm"), None, tmp_path / "m.gguf")
    heads.save(load(str(base("gemma", tmp_path / "gemma", kind="gemma2", head_dim=16))), tmp_path / "model")
    with pytest.raises(UserError, match=r"llama\.cpp.s converter refuses it: .*tokenizer.model"):
        model_commands.export(str(tmp_path / "model"), None, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_the_command(tmp_path) -> None:
    from typer.testing import CliRunner

    folder = str(base("chatml", tmp_path / "base"))
    to = [str(tmp_path / name) for name in ("new", "m.gguf")]
    said = CliRunner().invoke(app, ["export", folder, "--out", to[0], "--gguf", to[1]])
    assert said.exit_code == 0 and said.stdout.split() == [to[1], to[0]]
    for more, told in (
        (["--out", to[0]], "there is something already"),
        ([], "name what to write"),
        (["--gguf", to[1], "--dtype", "f15", "--overwrite"], "Did you mean 'f16'"),
    ):
        said = CliRunner().invoke(app, ["export", folder, *more])
        assert isinstance(said.exception, UserError) and told in str(said.exception)

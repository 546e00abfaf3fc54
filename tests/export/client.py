"""What another program makes of exported folders; run by another version of transformers than the tests' own.

Reads a list of [folder, kind, conversations] as JSON from standard input and prints, for each, token ids and scores, or
ids, logits and a greedy answer.
"""

import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer


def score(model, tokenizer, conversation):
    ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True)["input_ids"]
    return {"ids": ids[0].tolist(), "scores": model(input_ids=ids).logits[0].tolist()}


def answer(model, tokenizer, conversation):
    ids = tokenizer.apply_chat_template(
        conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    new = model.generate(input_ids=ids, do_sample=False, max_new_tokens=8)[0, ids.shape[1] :]
    return {"ids": ids[0].tolist(), "scores": model(input_ids=ids).logits[0, -1].tolist(), "answer": new.tolist()}


def read(folder, kind, conversations):
    auto = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    model = auto.from_pretrained(folder, attn_implementation="eager").eval()  # others may leave out a soft-cap
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ask = score if kind == "reward" else answer
    with torch.no_grad():
        rows = [ask(model, tokenizer, conversation) for conversation in conversations]
    ends = None if kind == "reward" else model.generation_config.eos_token_id
    return {"rows": rows, "eos": tokenizer.eos_token, "ends": ends}


if __name__ == "__main__":
    found = [read(*work) for work in json.load(sys.stdin)]
    print(json.dumps({"version": transformers.__version__, "found": found}))

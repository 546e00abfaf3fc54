"""The engine protocol is enough for a server: an engine over HTTP, written with it alone, samples from an
OpenAI-compatible server on this machine, and trainer and sampler agree on what it sampled."""

import dataclasses
import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from truing.errors import RunFailed
from truing.policy import heads
from truing.policy.load import load
from truing.records import Engine, Rollout, Sampling, Score
from truing.rewards.scoring import scores
from truing.rollout.engine import InProcess, generate, sampler_agrees

PROMPTS = [(25, 30, 41), tuple(range(20, 45)), (77,)]


class Handler(BaseHTTPRequestHandler):
    """`/v1/completions` with log-probabilities and token ids, and a route by which new weights are read."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            self.tell(200, self.completions(asked) if self.path == "/v1/completions" else self.weights(asked))
        except OSError as error:
            self.tell(500, {"error": str(error)})

    def completions(self, asked) -> dict:
        sampling = Sampling(
            asked["max_tokens"],
            asked["temperature"],
            asked["seed"],
            asked["top_p"],
            asked["top_k"],
            tuple(asked["stop"]),
            tuple(asked["stop_token_ids"]),
        )
        rollouts = self.server.engine.generate([asked["prompt"]], asked["n"], sampling)
        choices = [self.choice(i, r) for i, r in enumerate(rollouts)]
        return {"model": f"policy@{self.server.engine.version}", "choices": choices}

    def choice(self, index: int, r: Rollout) -> dict:
        names = [f"token_id:{i}" for i in r.response_ids]
        said = {"eos": r.response_ids[-1], "string": "a stop string", "length": None}[r.stop]
        return {
            "index": index,
            "text": self.server.engine.policy.tokenizer.decode(r.response_ids),
            "logprobs": {"tokens": names, "token_logprobs": list(r.logp_T)},
            "finish_reason": "length" if r.stop == "length" else "stop",
            "stop_reason": said,
        }

    def weights(self, asked) -> dict:
        if not Path(asked["folder"], "config.json").exists():
            raise FileNotFoundError(f"there is no model in {asked['folder']}")
        self.server.engine.sync(load(asked["folder"]), asked["version"])
        return {"version": asked["version"]}

    def tell(self, status: int, body: dict) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_) -> None:
        pass


@dataclasses.dataclass
class Remote:
    """An engine behind an address. Weights travel as a folder of safetensors that both sides can read."""

    address: str
    folder: Path
    version: int = 0

    def generate(self, prompts, n: int, sampling: Sampling) -> list[Rollout]:
        return [r for p, prompt in enumerate(prompts) for r in self.answers(p, tuple(prompt), n, sampling)]

    def answers(self, p: int, prompt: tuple[int, ...], n: int, sampling: Sampling) -> list[Rollout]:
        asked = {
            "prompt": prompt,
            "n": n,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed * 1000 + p,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "stop": sampling.stop_strings,
            "stop_token_ids": sampling.stop_tokens,
            "logprobs": 0,
            "return_tokens_as_token_ids": True,
        }
        told = self.ask("/v1/completions", asked)
        if told["model"] != f"policy@{self.version}":
            raise RunFailed(f"{self.address} answers with {told['model']}, and version {self.version} was asked for")
        if len(told["choices"]) != n:
            raise RunFailed(f"{self.address} gave {len(told['choices'])} answers of {n}")
        return [self.rollout(p, prompt, choice) for choice in told["choices"]]

    def rollout(self, p: int, prompt: tuple[int, ...], choice) -> Rollout:
        ids = tuple(int(name.removeprefix("token_id:")) for name in choice["logprobs"]["tokens"])
        ended = "eos" if isinstance(choice["stop_reason"], int) else "string"
        stop = "length" if choice["finish_reason"] == "length" else ended
        return Rollout(prompt, ids, tuple(choice["logprobs"]["token_logprobs"]), stop, self.version, p)

    def sync(self, policy, version: int) -> None:
        heads.save(policy, self.folder / str(version))
        told = self.ask("/weights", {"folder": str(self.folder / str(version)), "version": version})
        if told.get("version") != version:
            raise RunFailed(f"{self.address} did not take version {version}: {told}")
        self.version = version

    def ask(self, route: str, body) -> dict:
        request = urllib.request.Request(self.address + route, json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            return json.load(error)


@pytest.fixture()
def server(policy):
    """A server in a thread, with an engine of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.engine = InProcess(policy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture()
def remote(server, tmp_path) -> Remote:
    return Remote(f"http://127.0.0.1:{server.server_port}", tmp_path)


def step(engine: Engine, policy, version: int, sampling: Sampling) -> tuple[list[Rollout], list[float]]:
    """What an online method does with an engine, whichever it is: give it the weights, sample, score."""
    engine.sync(policy, version)
    rollouts = engine.generate(PROMPTS, 4, sampling)
    asked, texts = [()] * len(rollouts), [policy.tokenizer.decode(r.response_ids) for r in rollouts]
    return rollouts, scores(lambda prompts, responses: [Score(len(text)) for text in responses], asked, texts)


def moved(folder):
    """Other weights of the same model."""
    policy = load(str(folder))
    torch.manual_seed(3)
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.add_(torch.randn(policy.model.config.vocab_size, 64))
    return policy


def test_one_step_of_either_engine(remote, folder) -> None:
    policy, sampling = moved(folder), Sampling(12, seed=3, stop_strings=("th",), stop_tokens=tuple(range(20, 50)))
    for engine in (remote, InProcess(load(str(folder)))):
        rollouts, values = step(engine, policy, 7, sampling)
        assert [r.group for r in rollouts] == [p for p in range(3) for _ in range(4)]
        assert {r.policy_version for r in rollouts} == {7} and len({r.response_ids for r in rollouts}) > 9
        assert len({r.stop for r in rollouts}) > 1 and len(set(values)) > 3
        assert sampler_agrees(policy, rollouts).largest < 1e-4


def test_tokens_and_log_probabilities_travel_whole(remote, server) -> None:
    sampling = Sampling(9, temperature=1.3, seed=2, top_p=0.8, top_k=40)
    found = remote.generate(PROMPTS[1:2], 5, sampling)
    assert found == generate(server.engine.policy, PROMPTS[1:2], dataclasses.replace(sampling, seed=2000), 5)


def test_a_server_with_other_weights_is_refused(remote, server, folder) -> None:
    """It was started anew, or another run gave it weights: nothing is learned from its answers."""
    remote.sync(moved(folder), 4)
    server.engine = InProcess(load(str(folder)))
    with pytest.raises(RunFailed, match="answers with policy@0, and version 4 was asked for"):
        remote.generate(PROMPTS, 2, Sampling(3))


def test_weights_that_do_not_arrive_stop_the_run(remote, server, folder, monkeypatch) -> None:
    monkeypatch.setattr(heads, "save", lambda policy, folder: None)
    with pytest.raises(RunFailed, match=r"did not take version 2: .*there is no model in"):
        remote.sync(moved(folder), 2)
    assert remote.version == 0 and {r.policy_version for r in remote.generate(PROMPTS, 1, Sampling(3))} == {0}

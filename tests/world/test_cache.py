"""What is kept between runs: made once with hashes, made again when it is no longer that, whoever else asks."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from truing import caches, seals
from truing.errors import UserError
from truing.policy import fresh, gguf
from truing.run import base_models
from truing.run.console import Show
from truing.world import tiny

FILES = {"config.json": "{}", "model.safetensors": "weights", "sub/vocab.txt": "a b c"}


def make(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


class Maker:
    """Makes a folder, counts how often, and keeps the lines it prints."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.times, self.lines = folder, 0, list[str]()

    def __call__(self) -> Path:
        def counted(part: Path) -> None:
            self.times += 1
            make(part)

        return caches.cached(self.folder, counted, self.lines.append)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    """One whose folder is made."""
    maker = Maker(tmp_path / "cache" / "desk-1234")
    maker()
    return maker


def flip(path: Path) -> None:
    raw, times = bytearray(path.read_bytes()), path.stat()
    raw[-1] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


DAMAGE = {
    "a bit": lambda f: flip(f / "model.safetensors"),
    "cut": lambda f: (f / "model.safetensors").write_text("weight"),
    "no config": lambda f: (f / "config.json").unlink(),
    "a bit of the vocabulary": lambda f: flip(f / "sub" / "vocab.txt"),
    "a file more": lambda f: (f / "adapter_config.json").write_text("{}"),
    "no hashes": lambda f: (f / caches.RECORD).unlink(),
    "half its hashes": lambda f: (f / caches.RECORD).write_text('{"name": "desk-1234", "out'),
    "edited hashes": lambda f: (f / caches.RECORD).write_text(
        (f / caches.RECORD).read_text().replace('"config.json"', '"other.json"')
    ),
    "empty": lambda f: [shutil.rmtree(f), f.mkdir()],
    "a file in its place": lambda f: [shutil.rmtree(f), f.write_text("")],
}


def test_it_is_made_once(maker: Maker) -> None:
    assert maker() == maker.folder and (maker.times, maker.lines) == (1, [])
    assert {p.name for p in maker.folder.parent.iterdir() if not p.name.endswith(".lock")} == {"desk-1234"}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_mends_itself_and_is_said(maker: Maker, name: str) -> None:
    DAMAGE[name](maker.folder)
    maker()
    assert maker.times == 2 and len(maker.lines) == 1 and "it is made again" in maker.lines[0]
    assert all((maker.folder / file).read_text() == text for file, text in FILES.items())
    assert maker() and maker.times == 2
    assert {p.name for p in maker.folder.parent.iterdir() if not p.name.endswith(".lock")} == {"desk-1234"}, "no litter"


def test_another_models_folder_is_not_believed_with_its_own_hashes(maker: Maker) -> None:
    other = Maker(maker.folder.with_name("desk-5678"))
    other()
    shutil.rmtree(maker.folder)
    shutil.copytree(other.folder, maker.folder)
    maker()
    assert maker.times == 2 and "is another's, 'desk-5678'" in maker.lines[0]


def test_what_cannot_be_moved_is_to_be_deleted(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(maker.folder / "model.safetensors")

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match=r"desk-1234: is damaged, and cannot be moved .*: delete this folder"):
        maker()


def test_a_maker_that_fails_leaves_what_was_there(maker: Maker) -> None:
    def fail(part: Path) -> None:
        make(part)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        caches.made(maker.folder, fail)
    with pytest.raises(RuntimeError):
        caches.cached(maker.folder.with_name("new"), fail, maker.lines.append)
    assert [p.name for p in maker.folder.parent.iterdir() if not p.name.startswith(".")] == ["desk-1234"]
    assert maker() and maker.times == 1


def ask(folder: Path, gate: object) -> None:
    gate.wait()  # type: ignore[attr-defined]
    caches.cached(folder, make, lambda _: None)
    assert not caches.trouble(folder)


@pytest.mark.parametrize("there", [False, True])
def test_several_who_ask_at_once_all_get_a_whole_one(maker: Maker, there: bool) -> None:
    """Where there is none yet, and where all of them see the damaged one."""
    if there:
        flip(maker.folder / "model.safetensors")
    else:
        shutil.rmtree(maker.folder)
    spawn = multiprocessing.get_context("fork")
    gate = spawn.Barrier(4)
    asking = [spawn.Process(target=ask, args=(maker.folder, gate)) for _ in range(4)]
    for process in asking:
        process.start()
    for process in asking:
        process.join(60)
    assert [process.exitcode for process in asking] == [0] * 4
    assert [p.name for p in maker.folder.parent.iterdir() if not p.name.endswith(".lock")] == ["desk-1234"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the world's models, their pretraining cut down to what it makes."""
    monkeypatch.setenv("TRUING_CACHE", str(tmp_path / "cache"))

    def quick(size: str, folder: Path, show: Show) -> None:
        seed = list(tiny.SIZES).index(size)
        fresh.make(tiny.SIZES[size] | {"vocab": 300}, ["a refund within thirty days"] * 20, folder, seed=seed)

    monkeypatch.setattr(base_models, "pretrain", quick)
    return caches.cache_folder()


def test_the_worlds_model_is_mended(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bit flipped, another size's weights, no config: line 25 of what was found by trying."""
    show = Show()
    folder = Path(base_models.named("world:desk/tiny", show))
    before = (folder / "model.safetensors").read_bytes()
    other = Path(base_models.named("world:desk/small", show))
    capsys.readouterr()
    for spoil in (
        lambda: flip(folder / "model.safetensors"),
        lambda: shutil.copyfile(other / "model.safetensors", folder / "model.safetensors"),
        lambda: (folder / "config.json").unlink(),
    ):
        spoil()
        assert Path(base_models.named("world:desk/tiny", show)) == folder
        assert "it is made again" in capsys.readouterr().out
        assert (folder / "model.safetensors").read_bytes() == before
    base_models.named("world:desk/tiny", show)
    assert capsys.readouterr().out == ""


def test_a_dequantised_model_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, lines = tmp_path / "m.gguf", list[str]()
    file.write_bytes(b"GGUF and more")
    monkeypatch.setattr(gguf, "convert", lambda _, folder: make(folder))
    folder = gguf.dequantised(file, tmp_path / "cache", say=lines.append)
    flip(folder / "model.safetensors")
    assert gguf.dequantised(file, tmp_path / "cache", say=lines.append) == folder and len(lines) == 1
    assert not caches.trouble(folder) and seals.fits(json.loads((folder / caches.RECORD).read_text()))


@pytest.mark.parametrize(
    ("own", "xdg", "wanted"),
    [
        ("", "", "home/.cache/truing"),
        ("", "{}/xdg", "xdg/truing"),
        ("", "relative", "home/.cache/truing"),
        ("{}/own", "{}/xdg", "own"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, xdg: str, wanted: str
) -> None:
    """TRUING_CACHE, then XDG_CACHE_HOME where it is absolute, then the user's own folder."""
    for name, text in (("TRUING_CACHE", own), ("XDG_CACHE_HOME", xdg), ("HOME", "{}/home")):
        monkeypatch.setenv(name, text.format(tmp_path))
    assert caches.cache_folder() == tmp_path / wanted
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert caches.cache_folder() == tmp_path / ("own" if own else "home/.cache/truing")


def test_torch_leaves_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    """The folder of its compiler's cache, which it makes when its optimisers are first used; and where no cache can be
    made, or torch was told where, nothing is said to it."""
    code = "import sys; sys.argv = ['truing', 'list']; from truing import cli\ntry: cli.main()\nexcept SystemExit: pass\nimport torch._dynamo"
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "TRUING_CACHE": str(tmp_path / "cache")}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, timeout=120)
    assert list((tmp_path / "temporary").iterdir()) == [] and (tmp_path / "cache" / "torch").is_dir()


def test_torch_is_told_nothing_where_its_cache_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    caches.keep_torch_here()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"

"""The warm-up: it knows when a kernel changed, and every module it names can be warmed."""

import fcntl
from importlib import import_module

import pytest

from telemetry import warm


def test_warm_knows_when_a_kernel_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "_stamp", lambda: tmp_path / "stamp")
    assert not warm.is_warm()
    (tmp_path / "stamp").write_text(warm._sources()[0])
    assert warm.is_warm()
    (tmp_path / "stamp").write_text("of another time")
    assert not warm.is_warm()


def test_each_module_that_is_warmed_has_a_warm():
    assert all(callable(import_module(name).warm) for name in warm.KERNEL_MODULES)


def test_a_long_compilation_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "_stamp", lambda: tmp_path / "stamp")
    monkeypatch.setattr(warm, "KERNEL_MODULES", ("telemetry._kernels.window",))
    monkeypatch.setattr(warm, "SIGN_OF_LIFE_S", 0.05)
    said = []
    warm.compile_all(said.append)
    assert said[0].startswith("  still at telemetry._kernels.window (")
    assert said[-1].startswith("  1 of 1 after ")


def test_who_comes_while_another_compiles_waits_and_compiles_nothing(tmp_path, monkeypatch):
    stamp = tmp_path / "stamp"
    monkeypatch.setattr(warm, "_stamp", lambda: stamp)
    monkeypatch.setattr(warm, "_compile", lambda *_: pytest.fail("compiled twice"))
    other = stamp.with_suffix(".lock").open("w")
    fcntl.flock(other, fcntl.LOCK_EX)
    said = []

    def say(line):
        said.append(line)
        if "another process" in line:  # it ends, and has done the work
            stamp.write_text(warm._sources()[0])
            other.close()

    warm.ensure(say)
    assert said[0].startswith("compiling the kernels")
    assert len(said) == 2


def test_a_compilation_that_is_stopped_ends_soon_and_the_next_goes_on_from_there(tmp_path, monkeypatch):
    stamp = tmp_path / "stamp"
    stamp.write_text("of another time")
    monkeypatch.setattr(warm, "_stamp", lambda: stamp)
    monkeypatch.setattr(warm, "KERNEL_MODULES", ("telemetry._kernels.window",))
    dropped = []
    monkeypatch.setattr(warm, "_drop", lambda source: dropped.append(source) or 1)
    asked = iter([False, False, True])
    with pytest.raises(warm.Interrupted):
        warm.ensure(lambda _: None, lambda: next(asked))
    assert dropped
    assert not warm.is_warm()
    dropped.clear()
    warm.compile_all(lambda _: None)
    assert not dropped
    assert warm.is_warm()


def test_who_waits_for_another_that_compiles_can_be_stopped(tmp_path, monkeypatch):
    stamp = tmp_path / "stamp"
    monkeypatch.setattr(warm, "_stamp", lambda: stamp)
    with stamp.with_suffix(".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(warm.Interrupted):
            warm.ensure(lambda _: None, lambda: True)

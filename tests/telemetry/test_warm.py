"""The warm-up: it knows when a kernel changed, and every module it names can be warmed."""

from importlib import import_module

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

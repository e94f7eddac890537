"""How a model was loaded is in the manifest; another dtype, attention or template is another run."""

from __future__ import annotations

import pytest

from mata_interp.errors import RunError, RunWarning
from mata_interp.experiments import identity, run
from mata_interp.interventions import Mata
from mata_interp.lalm import LALM
from tests.reporting.small import write_model
from tests.support.sounds import make_items

CONDITIONS = {"baseline": None, "mata": Mata(1.0, [1])}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}:{% for c in m.content %}{% if c.type == 'audio' %}"
    "<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("clips"), clips=2)[:2]


@pytest.fixture(scope="module")
def begun(folder, items, tmp_path_factory):
    """A run on the CPU in float32 with the processor's own template."""
    out = tmp_path_factory.mktemp("runs") / "first"
    return run(LALM.from_pretrained(folder, device="cpu"), items, CONDITIONS, out, progress=False)


def test_the_manifest_says_how_the_model_was_loaded(begun, folder, items):
    manifest = begun.manifest
    assert manifest["loading"] == {"device": "cpu"}
    assert manifest["environment"]["device"] == "cpu"
    assert (manifest["model"]["dtype"], manifest["model"]["attention"]) == ("float32", "sdpa")
    assert "quantisation" not in manifest["model"]
    assert len(manifest["chat_template"]) == 64
    lalm = LALM.from_pretrained(folder, device="cpu", dtype="bf16", attn_implementation="eager")
    for model, loading in (
        (lalm, {"device": "cpu", "dtype": "bf16", "attn_implementation": "eager"}),
        (LALM(lalm.model, lalm.processor), None),
    ):
        assert run(model, items, {"baseline": None}, progress=False).manifest["loading"] == loading


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bf16"}, r"model\.dtype is 'float32', here it is 'bfloat16'"),
        ({"attn_implementation": "eager"}, r"model\.attention is 'sdpa', here it is 'eager'"),
        (
            {"attn_implementation": {"audio_config": "eager"}},
            r"model\.encoder_attention.* here it is .*'audio_config': 'eager'",
        ),
        ({"chat_template": TEMPLATE}, "chat_template is '[0-9a-f]{64}', here it is '[0-9a-f]{64}'"),
    ],
)
def test_a_model_loaded_otherwise_is_another_run(begun, folder, items, options, message):
    lalm = LALM.from_pretrained(folder, device="cpu", **options)
    with pytest.raises(RunError, match=message):
        run(lalm, items, CONDITIONS, begun.path, progress=False)


def test_quantised_weights_are_another_run(begun, folder, items):
    lalm = LALM.from_pretrained(folder, device="cpu")
    lalm.model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    with pytest.raises(RunError, match=r"model\.quantisation is None, here it is 'bitsandbytes 8-bit'"):
        run(lalm, items, CONDITIONS, begun.path, progress=False)


def test_another_device_is_the_same_run_and_said(begun, folder, items, monkeypatch):
    monkeypatch.setattr("mata_interp.experiments.manifest.devices_of", lambda model: ["cuda:0", "cuda:1"])
    lalm = LALM.from_pretrained(folder, device="cpu")
    with pytest.warns(RunWarning, match="device cpu -> cuda:0 and cuda:1"):
        again = run(lalm, items, CONDITIONS, begun.path, progress=False)
    assert again.manifest == begun.manifest


def test_the_name_of_the_file_of_the_items_is_no_part_of_the_identity(begun):
    """Finished parts stay valid when the benchmark is renamed or its items are reordered."""
    now = begun.manifest
    renamed = {**now, "data": {**now["data"], "name": "renamed", "file_sha256": "0" * 64}}
    assert identity.run_digest(renamed) == identity.run_digest(now)
    changed = {**now, "data": {**now["data"], "digests": {"other": "item"}}}
    assert identity.run_digest(changed) != identity.run_digest(now)

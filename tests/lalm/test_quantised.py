"""Quantised and subclassed weights: read, edited, generated, scored, swept and told apart.

The reference is the same quantised model on eager attention, one prompt at a time without a cache.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing._internal.two_tensor import TwoTensor
from transformers import BitsAndBytesConfig, Qwen2AudioForConditionalGeneration

import mata_interp as mi
from mata_interp import Mata
from mata_interp.checking import bounds, context
from mata_interp.errors import ModelError
from mata_interp.lalm import LALM
from mata_interp.lalm.bridge.clone import clone_sharing_weights
from mata_interp.lalm.discovery.output_head import output_head, token_directions
from mata_interp.lalm.discovery.quantised import compute_dtype, describe_quantised, quantised_layers
from mata_interp.lalm.fingerprint import weights_sha256
from mata_interp.sweeps import SweepWarning
from tests import reference
from tests.tiny import tiny_qwen2_audio

MATA = Mata(1.5, [1, 2], "add")

# The ways to quantise ---------------------------------------------------------------------------------------


def by_bitsandbytes(bits: int) -> Callable[[Any, Any], Any]:
    def quantise(model: Any, folder: Any) -> Any:
        model.save_pretrained(folder)
        four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
        config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, **(four if bits == 4 else {}))
        name = model.config._attn_implementation
        return Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, quantization_config=config, dtype=torch.float32, attn_implementation=name
        ).eval()

    return quantise


def by_torchao(name: str, **settings: Any) -> Callable[[Any, Any], Any]:
    def quantise(model: Any, folder: Any) -> Any:
        from torchao import quantization

        quantization.quantize_(model, getattr(quantization, name)(**settings))
        return model

    return quantise


def by_torch(model: Any, folder: Any) -> Any:
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


class StoredInFp8(nn.Linear):
    """A linear layer whose weights are stored in 8 bits of floating point."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.to(input.dtype), self.bias)


def in_fp8(model: Any, folder: Any) -> Any:
    for module in list(model.modules()):
        if type(module) is nn.Linear:
            module.__class__ = StoredInFp8
            module.weight = nn.Parameter(module.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    return model


KINDS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "bitsandbytes int8": ("bitsandbytes", by_bitsandbytes(8)),
    "bitsandbytes 4 bits": ("bitsandbytes", by_bitsandbytes(4)),
    "torchao int8": ("torchao", by_torchao("Int8WeightOnlyConfig")),
    "torchao int4": ("torchao", by_torchao("IntxWeightOnlyConfig", weight_dtype=torch.int4)),
    "torch dynamic int8": ("torch", by_torch),
    "fp8": ("torch", in_fp8),
}
EXACT = {name: 3e-4 for name in KINDS} | {"bitsandbytes int8": 0.3}
# of logits up to 15; states that are quantised flip by a step of 8 bits
ALONE = (
    "torch dynamic int8"  # it quantises the states of all tokens together: a batch changes what a row gives
)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """``quantised(kind, attention)``: the tiny model, made once."""
    made: dict[Any, LALM] = {}

    def make(kind: str, attention: str | None = None, again: int = 0) -> LALM:
        package, quantise = KINDS[kind]
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package}, of the quantised extra, is not installed")
        key = kind, attention, again
        if key not in made:
            model, processor = tiny_qwen2_audio(seed=0, layers=3, head_dim=16, attention=attention)
            made[key] = LALM(quantise(model, tmp_path_factory.mktemp("model")), processor, name=kind)
        return made[key]

    return make


# two packages, each with the way that differs most from plain weights, in every run of the tests
OFTEN = ("bitsandbytes int8", "torchao int8", ALONE)


@pytest.fixture(params=[pytest.param(k, marks=[] if k in OFTEN else pytest.mark.acceptance) for k in KINDS])
def kind(request) -> str:
    return request.param


@pytest.fixture(params=KINDS)
def every_kind(request) -> str:
    return request.param


def test_a_clone_made_before_the_first_forward_leaves_the_model_as_it_is(quantised, kind, items):
    lalm, other = quantised(kind, again=1), quantised(kind)
    clone = clone_sharing_weights(lalm.model)
    prompt = lalm.prompt(items)
    with torch.no_grad():
        first = clone(**prompt.inputs).logits[:, -1]
    assert torch.equal(first, lalm.logits(prompt))
    assert torch.equal(first, other.logits(prompt))
    copied = copy.deepcopy(lalm)
    assert torch.equal(copied.logits(prompt, MATA), lalm.logits(prompt, MATA))


# Every call -------------------------------------------------------------------------------------------------


def test_reads_and_edits_equal_eager_attention(quantised, every_kind, items):
    kind = every_kind
    lalm, eager = quantised(kind), quantised(kind, "eager").model
    assert lalm.dtype == torch.float32
    for some in [[items[0]], [items[1]]] if kind == ALONE else [items]:
        prompt = lalm.prompt(some)
        plain, edited = lalm.logits(prompt), lalm.logits(prompt, MATA)
        assert torch.equal(lalm.logits(prompt, Mata(0.0, [1, 2])), plain)
        assert (edited - plain).abs().amax(1).min() > 0.5
        masses = mi.trace(lalm, prompt, progress=False)["mass"]
        for row in range(prompt.size):
            alone = reference.single(prompt.inputs, row)
            keys = prompt.groups["audio"][row][prompt.inputs["attention_mask"][row].bool()]
            edit = reference.Edit(MATA.alpha, MATA.layers, MATA.rule, keys)
            for result, edits in ((plain, ()), (edited, [edit])):
                expected = reference.forward(eager, alone, edits)[-1]
                torch.testing.assert_close(result[row], expected, atol=EXACT[kind], rtol=0)
            for layer, weights in enumerate(reference.last_row(eager, alone)):
                result = torch.tensor(masses.sel(layer=layer, group="audio")[row].values)
                bound = 1e-2 if EXACT[kind] > 1e-3 else 1e-4
                torch.testing.assert_close(result, weights[0][:, keys].sum(-1), atol=bound, rtol=0)


def test_answers_scores_and_sweeps(quantised, kind, items):
    lalm = quantised(kind)
    some = items[:1] if kind == ALONE else items
    prompt = lalm.prompt(some)
    # whose rounding depends on the other rows is swept in a loop, and that is said
    with pytest.warns(SweepWarning, match="loop") if kind == ALONE else nullcontext():
        swept = mi.sweep(lalm, prompt, {"none": None, "mata": MATA}, progress=False)
    assert swept.attrs["looped"] == (len(some) if kind == ALONE else 0)
    looped = torch.stack([lalm.logits(prompt, edit) for edit in (None, MATA)], 1)
    torch.testing.assert_close(torch.tensor(swept.values), looped, atol=EXACT[kind], rtol=0)
    output = lalm.generate(prompt, MATA, max_new_tokens=3)
    assert torch.equal(output[:, 0], looped[:, 1].argmax(-1))
    scores = lalm.score(prompt, None, MATA)
    first = [lalm.option_tokens(item, item.choices)[0][0] for item in some]
    expected = looped[:, 1].double().log_softmax(-1)[range(len(some)), first]
    long = scores.tokens[:, 0] > 1
    assert (scores.logprob[:, 0] <= expected.numpy() + EXACT[kind]).all()
    np.testing.assert_allclose(scores.logprob[~long, 0], expected[~long], atol=EXACT[kind])
    records = mi.run(lalm, some, {"baseline": None, "mata": MATA}, progress=False).records
    assert len(records) == 2 * len(some)


NO_GRADIENT = {"attribution", "saliency_text", "saliency_last"}


def test_every_criterion_measures_or_says_why_not(quantised, kind, items):
    lalm = quantised(kind)
    answered = [
        mi.Item(audio=i.audio, question=i.question, choices=i.choices, answer=i.choices[0]) for i in items
    ]
    outcome = mi.fusion_layers(lalm, answered[:1], progress=False)
    measured = set(outcome.profiles["criterion"].values)
    without_clip = {name for name in outcome.refused if name.startswith("restoration")}
    assert np.isfinite(outcome.profiles.values).all()
    refused = set(outcome.refused) - without_clip
    if kind == ALONE:
        assert refused == {*NO_GRADIENT, "value_norm"}
        for name in NO_GRADIENT:
            assert "backward" in outcome.refused[name]
    else:
        assert refused == set()
    assert {"knockout_last", "lens_audio", "lens_text", "lens_last"} <= measured


CHECKED = [
    pytest.param(kind, marks=[] if kind == "torchao int8" else pytest.mark.acceptance)
    for kind in KINDS
    if kind != ALONE
]


@pytest.mark.parametrize("which", CHECKED)
def test_the_check_passes_and_names_what_is_quantised(quantised, which, items):
    report = mi.check(quantised(which), items[:2] if which == "torchao int8" else None)
    assert report.ok, str(report)
    for part in ("the decoder", "audio_tower"):
        assert part in report.about["quantised"]


def test_masses_are_not_compared_where_rounding_hides_a_fault(quantised, items, monkeypatch):
    """Beyond the fixed bound that of masses is measured; above `MAX_MASS` agreement would show nothing."""
    lalm, name = quantised("torchao int8"), "trace equals eager attention"
    monkeypatch.setitem(bounds.ROWS, torch.float32, 1e-9)
    result = mi.check(lalm, items[:2])[name]
    assert result.verdict == "pass"
    assert result.bound > 1e-9
    monkeypatch.setattr(context, "MAX_MASS", result.bound / 2)
    result = mi.check(lalm, items[:2])[name]
    assert (result.verdict, result.bound) == ("not applicable", None)


@pytest.mark.acceptance
def test_the_check_tells_that_a_batch_changes_answers(quantised):
    """Torch dynamic int8 takes one scale for all tokens of a call: answers depend on their batch."""
    report = mi.check(quantised(ALONE))
    assert report["attention rows equal eager attention"].verdict == "pass"
    assert report["alpha 0 leaves logits unchanged"].verdict == "pass"
    assert report["batch equals single prompts"].verdict == "not comparable"
    assert not report.ok


def test_a_model_with_plain_weights_has_no_quantised_layers(tiny_lalm):
    assert quantised_layers(tiny_lalm.model) == {}
    assert describe_quantised(tiny_lalm.model, tiny_lalm.structure.decoder) == ""


def test_a_quantised_encoder_alone_is_named():
    model, processor = tiny_qwen2_audio(seed=0)
    in_fp8(model.model.audio_tower, None)
    lalm = LALM(model, processor)
    output = describe_quantised(lalm.model, lalm.structure.decoder)
    count = sum(isinstance(m, nn.Linear) for m in model.model.audio_tower.modules())
    assert f"{count} of audio_tower" in output
    assert "decoder" not in output


# The output head --------------------------------------------------------------------------------------------


def heads() -> dict[str, Callable[[], Any]]:
    def plain() -> nn.Linear:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Linear(64, 128, bias=False).requires_grad_(False)

    def of_torchao(name: str, **settings: Any) -> Callable[[], Any]:
        return lambda: by_torchao(name, **settings)(nn.Sequential(plain()), None)[0]

    def of_bitsandbytes(bits: int) -> Any:
        import bitsandbytes as bnb

        layer = bnb.nn.Linear8bitLt if bits == 8 else bnb.nn.Linear4bit
        more = {"has_fp16_weights": False} if bits == 8 else {"compute_dtype": torch.float32}
        head = layer(64, 128, bias=False, **more)
        head.load_state_dict(plain().state_dict())
        return head.to("cpu").requires_grad_(False)

    return {
        "plain": plain,
        "bitsandbytes int8": lambda: of_bitsandbytes(8),
        "bitsandbytes 4 bits": lambda: of_bitsandbytes(4),
        "torchao int8": of_torchao("Int8WeightOnlyConfig"),
        "torchao int4": of_torchao("IntxWeightOnlyConfig", weight_dtype=torch.int4),
        "torch dynamic int8": lambda: by_torch(nn.Sequential(plain()), None)[0],
        "fp8": lambda: in_fp8(nn.Sequential(plain()), None)[0],
    }


@pytest.mark.parametrize("which", heads())
def test_the_rows_of_a_head_are_what_it_computes(which):
    package = which.split()[0]
    if package in ("bitsandbytes", "torchao"):
        pytest.importorskip(package, reason=f"{package}, of the quantised extra")
    head = heads()[which]()
    states = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        rows, logits = token_directions(head, [7, 100], states), head(states)[..., [7, 100]]
    assert rows.shape == (2, 64)
    assert rows.dtype == torch.float32
    size = float(logits.abs().max())
    bound = 1e-6 if which in ("plain", "fp8") else 0.03  # states are quantised, too, in some
    torch.testing.assert_close(states @ rows.T, logits, atol=bound * max(size, 1), rtol=0)


def test_a_head_without_weights_is_refused():
    class Table(nn.Module):
        def forward(self, states: Tensor) -> Tensor:
            return torch.zeros(*states.shape[:-1], 8)

    with pytest.raises(ModelError, match="output head"):
        token_directions(Table(), [3], torch.zeros(1, 3, 4))


# Fingerprints -----------------------------------------------------------------------------------------------


def test_weights_are_told_apart(quantised, every_kind):
    kind = every_kind
    lalm = quantised(kind)
    before = weights_sha256(lalm.model)
    assert weights_sha256(lalm.model) == before
    assert weights_sha256(quantised(kind, again=1).model) == before
    lalm.logits(lalm.prompt(mi.load_benchmark("listening")[0]))
    assert weights_sha256(lalm.model) == before, "a forward changes no weights"
    model, _ = tiny_qwen2_audio(seed=1, layers=3, head_dim=16)
    if kind not in ("bitsandbytes int8", "bitsandbytes 4 bits"):
        assert weights_sha256(KINDS[kind][1](model, None)) != before


def test_a_change_inside_packed_weights_is_seen(quantised):
    lalm = quantised("torchao int8", again=2)
    before = weights_sha256(lalm.model)
    head = output_head(lalm.model)
    inner = head.weight.qdata
    inner.data[3, 5] += 1
    assert weights_sha256(lalm.model) != before


def with_weight(weight: Tensor) -> nn.Module:
    module = nn.Linear(4, 4, bias=False)
    module.weight = nn.Parameter(weight, requires_grad=False)
    return module


def test_classes_of_tensors_are_read_by_their_parts():
    one, other = torch.zeros(4, 4), torch.ones(4, 4)
    hashes = {
        weights_sha256(with_weight(weight))
        for weight in (one, other, TwoTensor(one, other), TwoTensor(other, one), TwoTensor(one, one.clone()))
    }
    assert len(hashes) == 5


def test_distributed_weights_are_read():
    distributed = pytest.importorskip("torch.distributed")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        hashes = [
            weights_sha256(with_weight(distribute_tensor(torch.full((4, 4), value), mesh, [Replicate()])))
            for value in (0.0, 0.0, 1.0)
        ]
        assert hashes[0] == hashes[1] != hashes[2]
    finally:
        distributed.destroy_process_group()


class Opaque(Tensor):
    """A tensor without storage that says nothing about its parts."""

    @staticmethod
    def __new__(cls) -> Tensor:
        return torch.Tensor._make_wrapper_subclass(cls, (4, 4))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return args[0]
        raise NotImplementedError(f"no {func}")


def test_weights_that_cannot_be_read_are_named():
    module = nn.Linear(4, 4, bias=False)
    module.weight = nn.Parameter(Opaque(), requires_grad=False)
    with pytest.raises(ModelError, match=r"'weight' are a Opaque"):
        weights_sha256(module)


# Dtypes -----------------------------------------------------------------------------------------------------


def test_the_dtype_of_a_model_is_not_that_of_narrow_weights(tiny_lalm):
    model, _ = tiny_qwen2_audio(seed=0)
    model.to(torch.bfloat16)
    first = next(iter(model.parameters()))
    first.data = first.data.to(torch.float8_e4m3fn)
    assert model.dtype == torch.float8_e4m3fn
    assert compute_dtype(model) == torch.bfloat16
    for weight in model.parameters():
        weight.data = weight.data.to(torch.float8_e5m2)
    model.config.dtype = torch.float16
    assert compute_dtype(model) == torch.float16
    model.config.dtype = torch.float8_e5m2
    assert compute_dtype(model) == torch.float32

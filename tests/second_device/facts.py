"""What the pretend accelerator does, as functions that assert it. They run in a process that installed it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from tests.second_device import accelerator

__all__ = ["FACTS"]


def raises(kind: type[Exception], text: str, function: Callable[[], object]) -> None:
    with pytest.raises(kind, match=text):
        function()


def torch_knows_the_device() -> None:
    assert torch.accelerator.is_available()
    assert torch.accelerator.current_accelerator().type == "accel"
    assert torch.accelerator.device_count() == 2
    assert torch.ones(2, device="accel").device == torch.device("accel:0")
    assert torch.ones(2).to("accel:1").device == torch.device("accel:1")


def devices_do_not_mix() -> None:
    on_cpu, first, second = (torch.ones(2, device=device) for device in ("cpu", "accel:0", "accel:1"))
    matrix = torch.ones(2, 2, device="accel:1")
    for operate in (
        lambda: first + on_cpu,
        lambda: first + second,
        lambda: first @ matrix,
        lambda: torch.cat([first, second]),
        lambda: torch.where(on_cpu > 0, first, first),
        lambda: first.index_select(0, torch.tensor([0])),
        lambda: first.masked_fill(second > 0, 0.0),
        lambda: on_cpu[torch.tensor([0], device="accel:0")],
        lambda: first.gather(0, torch.tensor([0], device="accel:1")),
    ):
        raises(RuntimeError, "", operate)
    # what a GPU allows: numbers, tensors of one number, and indices on the CPU
    assert (first * 2 + torch.tensor(1.0)).tolist() == [3.0, 3.0]
    assert first[torch.tensor([1, 0])].device == first.device
    raises(TypeError, "", lambda: first.numpy())


def there_is_no_float64() -> None:
    raises(TypeError, "float64", lambda: torch.ones(2, device="accel:0").double())
    raises(TypeError, "float64", lambda: torch.ones(2, dtype=torch.float64).to("accel:0"))
    raises(TypeError, "float64", lambda: torch.ones(2, device="accel:0").sum(dtype=torch.float64))
    with accelerator.allow_float64():
        assert torch.ones(2, device="accel:0").double().sum().item() == 2.0


def views_share_memory() -> None:
    whole = torch.zeros(4, 3, device="accel:0")
    whole[1:3].transpose(0, 1).reshape(-1).add_(7)  # a copy
    whole[2, 1:] += 1
    whole.view(12)[0] = 5
    part = whole.unflatten(0, (2, 2)).select(0, 1)
    part.mul_(2)
    assert whole.tolist() == [[5, 0, 0], [0, 0, 0], [0, 2, 2], [0, 0, 0]]
    out = torch.empty(0, device="accel:0")
    torch.add(whole, 1, out=out)
    assert out.shape == (4, 3)
    assert out[0, 0].item() == 6


def gradients_flow_between_devices() -> None:
    weight = torch.ones(3, device="accel:0", requires_grad=True)
    loss = ((weight * 2).to("accel:1") ** 2).sum()
    loss.backward()
    assert weight.grad.device == weight.device
    assert weight.grad.tolist() == [8.0] * 3


def inference_mode_is_torchs_own() -> None:
    with torch.inference_mode():
        x = torch.zeros(2, device="accel:0")
        x += 1
        x[0] = 3
        assert x.is_inference()
    assert x.tolist() == [3, 1]
    raises(RuntimeError, "nference", lambda: x.requires_grad_().mul_(2))
    weight = torch.ones(2, 3, device="accel:0", requires_grad=True)
    with torch.inference_mode():
        part = weight.view(3, 2)[1:]
        assert not part.is_inference()
        assert (part.mT @ part).is_inference()


def modules_can_be_copied_and_moved() -> None:
    layer = torch.nn.Linear(3, 2).to("accel:0")
    other = copy.deepcopy(layer).to("accel:1")
    outputs = [module(torch.ones(1, 3, device=module.weight.device)).cpu() for module in (layer, other)]
    assert torch.equal(*outputs)
    state = {name: value.cpu() for name, value in layer.state_dict().items()}
    other.load_state_dict(state)
    assert other.weight.device == torch.device("accel:1")


def work_is_counted() -> None:
    x = torch.ones(4, 4, device="accel:0")
    with accelerator.counting() as counts:
        y = (x.T + x).softmax(-1)
    assert (counts.kernels, counts.synchronisations, counts.copies_to_device) == (2, 0, 0)
    assert counts.by_name == {"aten::add": 1, "aten::_softmax": 1}
    with accelerator.counting() as counts:
        y = y + torch.ones(4, 4).to("accel:0")
        y.cpu()
        assert y.max().item() > 0
        y[y > 0]
        y.nonzero()
        y[0, 0] = 1
        y.to("accel:1")
    assert counts.copies_to_device == 1
    assert counts.copies_to_host == 1
    assert counts.copies_between == 1
    assert counts.synchronisations == 4  # cpu, item, a mask, nonzero


def memory_runs_out() -> None:
    before = accelerator.allocated()
    x = torch.ones(1000, device="accel:0")
    assert accelerator.allocated() == before + 4000
    accelerator.reset_peak_memory()
    with accelerator.limit_memory(accelerator.allocated() + 10_000):
        x + x
        raises(torch.OutOfMemoryError, "out of memory", lambda: torch.ones(3000, device="accel:0"))
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            x.repeat(4)
    assert accelerator.peak_memory() == before + 8000
    del x
    assert accelerator.allocated() == before


def sums_may_be_taken_in_any_order() -> None:
    x = torch.linspace(0, 1, 64, device="accel:0").view(8, 8)
    assert torch.equal(x @ x, x @ x)
    with accelerator.sum_in_any_order():
        products = [(x @ x).cpu() for _ in range(4)]
    assert not all(torch.equal(product, products[0]) for product in products)
    assert all(torch.allclose(product, products[0]) for product in products)


FACTS: dict[str, Callable[[], None]] = {
    fact.__name__.replace("_", " "): fact
    for fact in (
        torch_knows_the_device,
        devices_do_not_mix,
        there_is_no_float64,
        views_share_memory,
        gradients_flow_between_devices,
        inference_mode_is_torchs_own,
        modules_can_be_copied_and_moved,
        work_is_counted,
        memory_runs_out,
        sums_may_be_taken_in_any_order,
    )
}

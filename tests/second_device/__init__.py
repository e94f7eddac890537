"""Tests on devices, without one: a pretend accelerator, and every public path of the package on it.

`accelerator` makes PyTorch's spare backend into a device of type ``accel`` with two devices, ``accel:0`` and
``accel:1``, whose memory and arithmetic are the CPU's::

    from tests.second_device import accelerator

    accelerator.install()  # compiles accelerator.cpp at its first use, with any C++ compiler
    lalm.model.to("accel:0")
    with accelerator.counting() as counts:
        lalm.logits(prompt)
    counts.kernels, counts.copies_to_device, counts.synchronisations

It is to be had in processes of their own only: once it is installed, ``torch.accelerator.is_available()`` is
true. `accelerator.compiler` says whether there is a compiler; tests are skipped where there is none.

What it does like a GPU: an operator on tensors of two devices, or of a device and the CPU, is an error; so is
``numpy()``. What it does like MPS: there is no float64. What it counts: see `accelerator.Counts`.
`accelerator.limit_memory` makes it run out of memory. Autograd, inference mode, views and in-place operations
are torch's own, and so are the numbers, up to rounding: scaled dot-product attention is composed of
matrix products and a softmax, where a GPU has one kernel.
"""

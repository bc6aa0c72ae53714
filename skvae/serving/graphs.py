"""Encoder and decoder as ONNX graphs, built from an architecture and its weights.

Images are channels-last, (n, H, W, C), as in Keras. The convolutions in between are
channels-first, as ONNX defines them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from skvae.architecture import Z_LOG_VAR_BOUNDS, Architecture, same_padding

# Supported by all versions of ONNX Runtime that skvae supports.
_OPSET = 17
_IR_VERSION = 8

_FLOAT = TensorProto.FLOAT

# Held while a session is created, and during a fork. Otherwise a fork could inherit a
# locked lock of ONNX Runtime, and never create a session.
_making_session = threading.Lock()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_making_session.acquire,
        after_in_parent=_making_session.release,
        after_in_child=_making_session.release,
    )

# Constants of at least this many bytes are passed to a session outside of the model.
_LARGE_CONSTANT = 2**16


class Graph:
    """Builder of an ONNX graph.

    Parameters
    ----------
    name, doc : str
        Name and description of the graph.
    input_name : str
    input_shape : tuple of int
        Shape of one row of the input.
    """

    def __init__(
        self, name: str, doc: str, input_name: str, input_shape: tuple[int, ...]
    ) -> None:
        self._name = name
        self._doc = doc
        self._input = _value(input_name, input_shape)
        self._outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, array: Any) -> str:
        """Add a constant and return its name."""
        self._constants[name] = np.ascontiguousarray(array)
        return name

    def add(self, operation: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with an output of the given name, and return the name."""
        self._nodes.append(
            helper.make_node(operation, inputs, [name], name=name, **attributes)
        )
        return name

    def add_output(self, name: str, shape: tuple[int, ...]) -> None:
        """Add an output with rows of the given shape."""
        self._outputs.append(_value(name, shape))

    def to_model(self) -> onnx.ModelProto:
        """Build a model that contains its constants.

        Raises
        ------
        ValueError
            If the model exceeds the size limit of ONNX.
        """
        n_bytes = sum(array.nbytes for array in self._constants.values())
        if n_bytes > onnx.checker.MAXIMUM_PROTOBUF:
            msg = (
                f"The {self._name} has {n_bytes:,} bytes of weights, but an ONNX model "
                f"has at most {onnx.checker.MAXIMUM_PROTOBUF:,}. Use fewer filters."
            )
            raise ValueError(msg)
        return self._model(
            [
                numpy_helper.from_array(array, name)
                for name, array in self._constants.items()
            ]
        )

    def to_session(self) -> Session:
        """Create an ONNX Runtime session.

        A session computes in the calling thread, and batches run in parallel in several
        threads. Results therefore do not depend on the number of threads, and a fork
        loses no threads of the session. With constant weights, ONNX Runtime's results
        for a row do not depend on the other rows either, which the tests check.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # Batches are small: an arena is no faster, and never frees memory.
        options.enable_cpu_mem_arena = False
        # A serialized model is limited to 2 GB.
        large = {
            name: array
            for name, array in self._constants.items()
            if array.nbytes >= _LARGE_CONSTANT
        }
        values = [
            onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in large.values()
        ]
        options.add_external_initializers(list(large), values)
        model = self._model(
            [
                _handed_over(name, array)
                if name in large
                else numpy_helper.from_array(array, name)
                for name, array in self._constants.items()
            ]
        )
        with _making_session:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        return Session(session, values)

    def _model(self, initializers: list[Any]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [self._input],
            self._outputs,
            initializers,
            doc_string=self._doc,
        )
        return helper.make_model(
            graph,
            producer_name="skvae",
            doc_string=self._doc,
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET)],
        )


class Session:
    """ONNX Runtime session with one input, callable from any thread."""

    def __init__(
        self, session: onnxruntime.InferenceSession, constants: list[Any]
    ) -> None:
        self._session = session
        self._input_name = session.get_inputs()[0].name
        self._constants = constants  # kept alive for the session

    def __call__(self, rows: np.ndarray) -> list[np.ndarray]:
        """Run the graph on rows of shape (n, ...), float32."""
        return self._session.run(None, {self._input_name: rows})


def encoder_graph(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    value_range: tuple[float, float] | None = None,
) -> Graph:
    """Build the encoder: images (n, H, W, C) to z_mean and z_log_var (n, latent_dim).

    Parameters
    ----------
    architecture : Architecture
    weights : mapping of str to ndarray
        Weights by Keras path.
    value_range : (float, float), default=None
        Value range of the images. None is for images in the network's units.

    Returns
    -------
    Graph
    """
    graph = Graph(
        "encoder",
        "Encoder of a variational autoencoder: images (n, height, width, channels) of "
        f"{_described(value_range)} to the means and log-variances of the posterior of "
        "their latents.",
        "images",
        architecture.image_shape,
    )
    layers = _Layers(graph, architecture, weights)
    x = "images"
    if value_range:
        x = layers.scale(x, *value_range)
    x = graph.add("Transpose", "channels_first", x, perm=[0, 3, 1, 2])
    for i, size in enumerate(architecture.stage_sizes[:-1]):
        x = layers.relu(layers.convolution(f"encoder_conv_{i}", x, size))
    x = graph.add("Flatten", "encoder_flatten", x)  # (n, filters * height * width)
    rows = _channels_first_places(architecture)
    x = layers.relu(layers.dense("encoder_intermediate_layer", x, inputs=rows))
    graph.add("Identity", "z_mean", layers.dense("encoder_z_mean", x))
    layers.clip_z_log_var(layers.dense("encoder_z_log_var", x))
    for output in ("z_mean", "z_log_var"):
        graph.add_output(output, (architecture.latent_dim,))
    return graph


def decoder_graph(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    value_range: tuple[float, float] | None = None,
    *,
    is_activated: bool = True,
) -> Graph:
    """Build the decoder: latents (n, latent_dim) to pixel means (n, H, W, C).

    Parameters
    ----------
    architecture : Architecture
    weights : mapping of str to ndarray
        Weights by Keras path.
    value_range : (float, float), default=None
        Value range of the images. None is for images in the network's units.
    is_activated : bool, default=True
        If False, the output is the input of the last activation.

    Returns
    -------
    Graph
    """
    graph = Graph(
        "decoder",
        "Decoder of a variational autoencoder: latents to pixel means of images "
        f"(n, height, width, channels) of {_described(value_range)}.",
        "z",
        (architecture.latent_dim,),
    )
    layers = _Layers(graph, architecture, weights)
    *sizes, smallest = architecture.stage_sizes
    columns = _channels_first_places(architecture)
    x = layers.relu(layers.dense("decoder_intermediate", "z", outputs=columns))
    shape = np.array([-1, architecture.stage_filters[-1], *smallest])
    x = graph.add("Reshape", "decoder_reshape", x, graph.constant("shape", shape))
    before = smallest
    for i, size in enumerate(sizes[::-1]):
        x = layers.transposed_convolution(f"decoder_conv_{i}", x, before, size, 2)
        x = layers.relu(x)
        before = size
    x = layers.transposed_convolution("decoder_output", x, before, before, 1)
    if is_activated and architecture.last_activation == "sigmoid":
        x = graph.add("Sigmoid", "means", x)
    if value_range:
        x = layers.unscale(x, *value_range)
    graph.add("Transpose", "images", x, perm=[0, 2, 3, 1])
    graph.add_output("images", architecture.image_shape)
    return graph


class _Layers:
    """Adds layers with their weights to a graph."""

    def __init__(
        self,
        graph: Graph,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray],
    ) -> None:
        self._graph = graph
        self._architecture = architecture
        self._weights = weights
        self._shapes = architecture.weight_shapes

    def dense(
        self,
        name: str,
        x: str,
        *,
        inputs: Any = slice(None),
        outputs: Any = slice(None),
    ) -> str:
        """Dense layer with permuted inputs or outputs."""
        kernel, bias = self._weights_of(name)
        return self._add("Gemm", name, x, kernel[inputs][:, outputs], bias[outputs])

    def convolution(self, name: str, x: str, size: tuple[int, int]) -> str:
        """Convolution with stride 2 and "same" padding, for images of a size."""
        kernel, bias = self._weights_of(name)  # (height, width, inputs, outputs)
        return self._add(
            "Conv",
            name,
            x,
            kernel.transpose(3, 2, 0, 1),
            bias,
            strides=[2, 2],
            pads=self._pads(size, 2),
        )

    def transposed_convolution(
        self,
        name: str,
        x: str,
        before: tuple[int, int],
        size: tuple[int, int],
        stride: int,
    ) -> str:
        """Transposed convolution with "same" padding, from one size to another."""
        kernel, bias = self._weights_of(name)  # (height, width, outputs, inputs)
        pads = self._pads(size, stride)
        # Pixels at the end of each axis that the kernel does not reach.
        missing = [
            size[axis]
            - (stride * (before[axis] - 1) + self._architecture.kernel_size)
            + pads[axis]
            + pads[axis + 2]
            for axis in range(2)
        ]
        return self._add(
            "ConvTranspose",
            name,
            x,
            kernel.transpose(3, 2, 0, 1),
            bias,
            strides=[stride, stride],
            pads=pads,
            output_padding=missing,
        )

    def relu(self, x: str) -> str:
        return self._graph.add("Relu", f"{x}/relu", x)

    def scale(self, x: str, low: float, high: float) -> str:
        """Scale images from the units of a value range to the network's."""
        x = self._graph.add("Sub", "above_low", x, self._number("low", low))
        x = self._graph.add("Div", "scaled", x, self._number("span", high - low))
        if self._architecture.likelihood == "bernoulli":
            bounds = self._number("zero", 0.0), self._number("one", 1.0)
            x = self._graph.add("Clip", "clipped", x, *bounds)
        return x

    def unscale(self, x: str, low: float, high: float) -> str:
        """Scale images from the network's units to those of a value range."""
        x = self._graph.add("Mul", "spread", x, self._number("span", high - low))
        return self._graph.add("Add", "in_units", x, self._number("low", low))

    def clip_z_log_var(self, x: str) -> str:
        """Clip log-variances to their bounds."""
        low, high = Z_LOG_VAR_BOUNDS
        bounds = self._number("z_log_var_min", low), self._number("z_log_var_max", high)
        return self._graph.add("Clip", "z_log_var", x, *bounds)

    def _number(self, name: str, value: float) -> str:
        return self._graph.constant(name, np.float32(value))

    def _pads(self, size: tuple[int, int], stride: int) -> list[int]:
        """Padding in the order of ONNX: before both axes, then after both."""
        pads = [
            same_padding(length, stride, self._architecture.kernel_size)
            for length in size
        ]
        return [before for before, _ in pads] + [after for _, after in pads]

    def _weights_of(self, layer: str) -> tuple[np.ndarray, np.ndarray]:
        return self._weight(f"{layer}/kernel"), self._weight(f"{layer}/bias")

    def _weight(self, path: str) -> np.ndarray:
        weight, expected = self._weights.get(path), self._shapes[path]
        got = None if weight is None else np.shape(weight)
        if got != expected:
            msg = f"weights_[{path!r}] must be an array of shape {expected}, got {got}."
            raise ValueError(msg)
        return np.asarray(weight, np.float32)

    def _add(
        self,
        operation: str,
        name: str,
        x: str,
        kernel: np.ndarray,
        bias: np.ndarray,
        **attributes: Any,
    ) -> str:
        constants = (
            self._graph.constant(f"{name}/kernel", kernel),
            self._graph.constant(f"{name}/bias", bias),
        )
        return self._graph.add(operation, name, x, *constants, **attributes)


def _channels_first_places(architecture: Architecture) -> np.ndarray:
    """Indices that permute the last stage from channels-last to channels-first."""
    shape = (*architecture.stage_sizes[-1], architecture.stage_filters[-1])
    places = np.arange(np.prod(shape)).reshape(shape)  # (height, width, filters)
    return places.transpose(2, 0, 1).ravel()


def _described(value_range: tuple[float, float] | None) -> str:
    low, high = value_range or (0.0, 1.0)
    return f"values from {low} to {high}"


def _value(name: str, shape: tuple[int, ...]) -> Any:
    return helper.make_tensor_value_info(name, _FLOAT, ["n", *shape])


def _handed_over(name: str, array: np.ndarray) -> TensorProto:
    """Constant whose values are passed to the session outside of the model."""
    tensor = TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
        data_location=TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key="location", value=name)
    return tensor

"""Write networks and their parts as TFLite flatbuffers, without TensorFlow. It needs the package ai-edge-litert.

Maps lie with the channels last. A ReLU is part of the operation in front of it, and a hard sigmoid is
ReLU6(x + 3) / 6, as Keras writes it. In int8 a hard swish is computed in float32 (`FLOAT_OPERATORS`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from nas.arch.cost import NUM_CLASSES
from nas.arch.operations import INPUT, OUTPUT, SIGNATURE, Graph, Kernel, Operation, Weights, graph_of
from nas.arch.parts import NetworkPart, Part
from nas.arch.spec import ArchSpec

FILE_VERSION, FILE_IDENTIFIER = 3, b"TFL3"
ALIGNMENT = 16  # bytes: of the schema's buffers, which Python's writer of flatbuffers does not keep
MAPS = (1, 2)  # the axes of a map
_FUSED = {
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
# What stays float32 in int8: XNNPACK has no hard swish in int8, and LiteRT's own is slower than the conversions
# (`benchmarks/runtimes.py`).
FLOAT_OPERATORS = ("HARD_SWISH",)
_TYPES = {np.dtype(name): getattr(schema.TensorType, name.upper()) for name in ("float32", "int8", "int32")}
# The version of an operator with quantised tensors; without them it is 1.
_INT8_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "MEAN": 2,
    "ADD": 2,
    "MUL": 2,
    "PAD": 2,
    "LOGISTIC": 2,
    "DEQUANTIZE": 2,
}


class Scale(NamedTuple):
    """The scale and zero point of an int8 tensor."""

    scale: float
    zero: int


# Scales of outputs. They are fixed, as in `nas.arch.onnx_int8`: no time depends on them. The output of a ReLU begins
# at zero, and LiteRT takes no other scale for a sigmoid.
_SIGNED = Scale(1 / 16, 0)
_SCALES = {
    "relu": Scale(1 / 16, -128),
    "relu6": Scale(6 / 255, -128),
    "hard_sigmoid": Scale(1 / 255, -128),
    "sigmoid": Scale(1 / 256, -128),
}


def network_model(
    spec: ArchSpec,
    num_classes: int = NUM_CLASSES,
    weights: Weights | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Return the file of a whole network: float32 (1, resolution, resolution, 3) to (1, num_classes).

    `weights` are those of `nas.arch.cost.network_layers`, in their order, with batch norm folded in. They are random by
    default. `metadata` are texts that the file holds by their names.
    """
    return _Writer(graph_of(NetworkPart(spec, num_classes), weights), int8=False).file(metadata or {})


def part_file(part: Part, precision: str = "float32") -> bytes:
    """Return the file of a part in its context, with random weights. `precision` is float32 or int8.

    In int8 the scales are not calibrated, so that the outputs are rough. Input and output are float32 in both, as
    those of the ONNX graphs are.
    """
    return _Writer(graph_of(part), int8=precision == "int8").file({})


def constants_in(file: bytes) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the place of each constant in a file (bytes from its beginning) and its values, in no particular order.

    The file is one that this module wrote: each buffer belongs to one tensor.
    """
    kinds = {kind: dtype for dtype, kind in _TYPES.items()}
    start = np.frombuffer(file, np.uint8).__array_interface__["data"][0]
    model = schema.Model.GetRootAsModel(file, 0)
    graph = model.Subgraphs(0)
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
        buffer = model.Buffers(tensor.Buffer())
        if buffer.DataLength():
            data = buffer.DataAsNumpy()  # a view of the file
            values = data.view(kinds[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
            yield data.__array_interface__["data"][0] - start, values


def metadata_of(model: bytes) -> dict[str, str]:
    """Return the texts of a file's metadata by their names. What is no text in UTF-8 is left out."""
    found, contents = {}, schema.Model.GetRootAsModel(model, 0)
    for number in range(contents.MetadataLength()):
        entry = contents.Metadata(number)
        try:
            data = contents.Buffers(entry.Buffer()).DataAsNumpy()
            found[entry.Name().decode()] = bytes(data).decode()
        except (UnicodeDecodeError, TypeError):  # another tool's bytes, or none
            continue
    return found


def float_operators(model: bytes) -> list[str]:
    """Return the names of the operators in a file that compute in float32, each once, in order."""
    contents = schema.ModelT.InitFromPackedBuf(model, 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    found: dict[str, None] = {}
    for graph in contents.subgraphs:
        for operator in graph.operators:
            name = names[contents.operatorCodes[operator.opcodeIndex].builtinCode]
            kinds = {graph.tensors[number].type for number in operator.outputs}
            if schema.TensorType.FLOAT32 in kinds and name != "DEQUANTIZE":
                found[name] = None
    return list(found)


class _Buffer(schema.BufferT):
    """A buffer whose bytes are aligned."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802, the name of the generated class
        if not self.data:  # an empty vector would be data of the wrong size to ai-edge-quantizer
            return int(schema.BufferT().Pack(builder))
        builder.StartVector(1, len(self.data), ALIGNMENT)
        builder.head = builder.Head() - len(self.data)
        builder.Bytes[builder.Head() : builder.Head() + len(self.data)] = self.data
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


class _Writer:
    """Turn operations into the tensors and operators of a flatbuffer."""

    def __init__(self, graph: Graph, int8: bool) -> None:
        self._int8 = int8
        self._buffers = [_Buffer(b"")]  # the first one is that of all tensors without data
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[str, int] = {}
        self._constants: dict[str, int] = {}
        self._graph = graph
        self._scales: dict[int, Scale] = {}
        shape = (1, graph.in_size, graph.in_size, graph.in_channels)
        self._input = self._float(shape, INPUT)
        numbers = [self._quantised(self._input) if int8 else self._input]
        operations, number = graph.operations, 0
        while number < len(operations):
            operation, following = operations[number], operations[number + 1 : number + 2]
            # No other operation reads the tensor in front of a ReLU.
            fused = following[0].kind if following and following[0].kind in _FUSED else None
            output = self._add(operation, [numbers[i] for i in operation.inputs], fused)
            numbers += [output] * (2 if fused else 1)
            number += 2 if fused else 1
        last = numbers[-1]
        self._output = self._dequantised(last) if int8 else last
        self._tensors[self._output].name = OUTPUT

    def file(self, metadata: Mapping[str, str]) -> bytes:
        codes = [
            schema.OperatorCodeT(
                deprecatedBuiltinCode=getattr(schema.BuiltinOperator, code),  # all below 127
                builtinCode=getattr(schema.BuiltinOperator, code),
                version=_INT8_VERSIONS.get(code, 1) if self._int8 else 1,
            )
            for code in self._codes
        ]
        subgraph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=[self._input],
            outputs=[self._output],
            operators=self._operators,
            name=self._graph.name,
        )
        signature = schema.SignatureDefT(
            inputs=[schema.TensorMapT(name=INPUT, tensorIndex=self._input)],
            outputs=[schema.TensorMapT(name=OUTPUT, tensorIndex=self._output)],
            signatureKey=SIGNATURE,
        )
        model = schema.ModelT(
            version=FILE_VERSION,
            operatorCodes=codes,
            subgraphs=[subgraph],
            description=self._graph.name,
            buffers=self._buffers,
            metadata=[],
            signatureDefs=[signature],
        )
        for name, text in metadata.items():
            self._buffers.append(_Buffer(text.encode()))
            model.metadata.append(schema.MetadataT(name=name, buffer=len(self._buffers) - 1))
        return _packed(model)

    # Operations ---------------------------------------------------------------------------------------

    def _add(self, operation: Operation, inputs: list[int], fused: str | None) -> int:
        """Add the operators of an operation with the ReLU behind it, and return the tensor of its output."""
        flat = operation.kind in ("linear", "flatten") or len(self._tensors[inputs[0]].shape) == 2
        size = operation.size
        shape = (1, operation.channels) if flat else (1, size, size, operation.channels)
        if operation.kind == "flatten":  # which a linear operator does itself
            return inputs[0]
        if operation.kind == "hard_sigmoid":
            return self._hard_sigmoid(inputs[0], shape)
        if operation.kind == "hswish":
            return self._hard_swish(inputs[0], shape)
        output = self._activation(shape, fused or operation.kind)
        activation = _FUSED[fused] if fused else schema.ActivationFunctionType.NONE
        if operation.kernel is not None:
            self._with_weights(operation.kind, operation.kernel, inputs[0], output, activation)
        elif operation.kind == "pool":
            axes = self._constant("axes", np.array(MAPS, np.int32))
            self._operator("MEAN", [*inputs, axes], output, schema.ReducerOptionsT(keepDims=True))
        elif operation.kind == "scale":
            self._operator("MUL", inputs, output, schema.MulOptionsT(fusedActivationFunction=activation))
        elif operation.kind == "add":
            self._operator("ADD", inputs, output, schema.AddOptionsT(fusedActivationFunction=activation))
        else:
            assert operation.kind == "sigmoid"
            self._operator("LOGISTIC", inputs, output)
        return output

    def _hard_swish(self, x: int, shape: tuple[int, ...]) -> int:
        around = self._int8 and "HARD_SWISH" in FLOAT_OPERATORS
        x = self._dequantised(x) if around else x
        output = self._tensor(shape, None) if around else self._activation(shape, "hswish")
        self._operator("HARD_SWISH", [x], output, schema.HardSwishOptionsT())
        return self._quantised(output) if around else output

    def _hard_sigmoid(self, x: int, shape: tuple[int, ...]) -> int:
        raised, output = self._activation(shape, "relu6"), self._activation(shape, "hard_sigmoid")
        three, sixth = self._number(3), self._number(1 / 6)
        relu6 = schema.ActivationFunctionType.RELU6
        self._operator("ADD", [x, three], raised, schema.AddOptionsT(fusedActivationFunction=relu6))
        self._operator("MUL", [raised, sixth], output, schema.MulOptionsT())
        return output

    def _with_weights(self, kind: str, kernel: Kernel, x: int, output: int, activation: int) -> None:
        layer, stride, weight, bias = kernel
        if kind == "linear":
            inputs = [x, *self._weights(weight.reshape(len(bias), -1), bias, 0, x)]
            options = schema.FullyConnectedOptionsT(fusedActivationFunction=activation)
            self._operator("FULLY_CONNECTED", inputs, output, options)
            return
        padding = schema.Padding.SAME
        if not _same_padding_is_even(kernel):
            x, padding = self._padded(x, layer.kernel // 2), schema.Padding.VALID
        kept = {"padding": padding, "strideW": stride, "strideH": stride, "fusedActivationFunction": activation}
        if layer.groups == 1:
            inputs = [x, *self._weights(weight.transpose(0, 2, 3, 1), bias, 0, x)]
            self._operator("CONV_2D", inputs, output, schema.Conv2DOptionsT(**kept))
        else:
            assert layer.groups == layer.in_channels == layer.out_channels
            inputs = [x, *self._weights(weight.transpose(1, 2, 3, 0), bias, 3, x)]
            options = schema.DepthwiseConv2DOptionsT(depthMultiplier=1, **kept)
            self._operator("DEPTHWISE_CONV_2D", inputs, output, options)

    def _padded(self, x: int, pad: int) -> int:
        """Add zeros around a map, which the runtime fuses into the convolution behind it."""
        one, height, width, channels = self._tensors[x].shape
        output = self._tensor((one, height + 2 * pad, width + 2 * pad, channels), self._scales.get(x))
        around = self._constant(f"around {pad}", np.array([(0, 0), (pad, pad), (pad, pad), (0, 0)], np.int32))
        self._operator("PAD", [x, around], output, schema.PadOptionsT())
        return output

    def _operator(self, code: str, inputs: Sequence[int], output: int, options: Any = None) -> None:
        number = self._codes.setdefault(code, len(self._codes))
        operator = schema.OperatorT(opcodeIndex=number, inputs=list(inputs), outputs=[output])
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self._operators.append(operator)

    # Tensors ------------------------------------------------------------------------------------------

    def _activation(self, shape: tuple[int, ...], kind: str) -> int:
        return self._tensor(shape, _SCALES.get(kind, _SIGNED) if self._int8 else None)

    def _tensor(self, shape: tuple[int, ...], scale: Scale | None) -> int:
        """Return a new tensor without data: int8 with a scale, else float32."""
        if scale is None:
            return self._float(shape, f"tensor{len(self._tensors)}")
        number = self._new(shape, schema.TensorType.INT8, f"tensor{len(self._tensors)}", 0)
        self._tensors[number].quantization = _quantisation([scale.scale], [scale.zero])
        self._scales[number] = scale
        return number

    def _quantised(self, x: int) -> int:
        output = self._tensor(self._tensors[x].shape, _SIGNED)
        self._operator("QUANTIZE", [x], output, schema.QuantizeOptionsT())
        return output

    def _dequantised(self, x: int) -> int:
        output = self._tensor(self._tensors[x].shape, None)
        self._operator("DEQUANTIZE", [x], output, schema.DequantizeOptionsT())
        return output

    def _float(self, shape: Sequence[int], name: str) -> int:
        return self._new(shape, schema.TensorType.FLOAT32, name, 0)

    def _weights(self, weight: np.ndarray, bias: np.ndarray, axis: int, x: int) -> tuple[int, int]:
        """Return tensors of weights, whose channels lie along `axis`, and of a bias, for an operation on `x`."""
        if not self._int8:
            return self._data(weight), self._data(bias)
        others = tuple(other for other in range(weight.ndim) if other != axis)
        scales = np.abs(weight).max(axis=others, keepdims=True) / np.float32(127)
        numbers = (
            self._data(np.rint(weight / scales).astype(np.int8)),
            self._data(np.rint(bias / (scales.ravel() * self._scales[x].scale)).astype(np.int32)),
        )
        for number, steps, along in zip(numbers, (1.0, self._scales[x].scale), (axis, 0), strict=True):
            values = (scales.ravel() * steps).tolist()
            self._tensors[number].quantization = _quantisation(values, [0] * len(values), along)
        return numbers

    def _number(self, value: float) -> int:
        """Return the tensor of one number."""
        if not self._int8:
            return self._constant(f"{value}", np.array([value], np.float32))
        number = self._constant(f"{value}", np.array([127], np.int8))
        self._tensors[number].quantization = _quantisation([value / 255], [-128])
        return number

    def _constant(self, name: str, values: np.ndarray) -> int:
        """Return the tensor of values that several operations share."""
        if name not in self._constants:
            self._constants[name] = self._data(values)
        return self._constants[name]

    def _data(self, values: np.ndarray) -> int:
        self._buffers.append(_Buffer(np.ascontiguousarray(values).tobytes()))
        return self._new(values.shape, _TYPES[values.dtype], f"constant{len(self._tensors)}", len(self._buffers) - 1)

    def _new(self, shape: Sequence[int], kind: int, name: str, buffer: int) -> int:
        self._tensors.append(schema.TensorT(shape=list(shape), type=kind, buffer=buffer, name=name))
        return len(self._tensors) - 1


def _same_padding_is_even(kernel: Kernel) -> bool:
    """Return whether the padding SAME of TensorFlow adds as much at both ends as the layer does."""
    layer, stride = kernel.layer, kernel.stride
    total = max(0, (layer.out_size - 1) * stride + layer.kernel - layer.in_size)
    return total == 2 * (layer.kernel // 2)


def _quantisation(scales: list[float], zeros: list[int], axis: int = 0) -> Any:
    return schema.QuantizationParametersT(scale=scales, zeroPoint=zeros, quantizedDimension=axis)


def _packed(model: Any) -> bytes:
    size = sum(len(buffer.data) for buffer in model.buffers)
    builder = flatbuffers.Builder(size + (1 << 16))
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())

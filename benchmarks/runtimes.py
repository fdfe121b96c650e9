"""ONNX Runtime and OpenVINO, where they are installed and have the operation: forward, float32, contiguous."""

from __future__ import annotations

from .layers import Layer
from .operations import Operation

OPSET = 17


class Unavailable(Exception):
    """Why a rival takes no part in a row."""


def onnx_model(operation: Operation, layer: Layer) -> bytes:
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise Unavailable("the onnx package is not installed") from error
    attributes = {}
    name = f"Global{operation.exported}Pool"
    if layer.windowing == "sliding":
        name = f"{operation.exported}Pool"
        spread = {"kernel_shape": "kernel_size", "strides": "stride"}
        attributes = {key: [layer.arguments[value]] * layer.rank for key, value in spread.items()}
        attributes["pads"] = [layer.arguments["padding"]] * (2 * layer.rank)
        attributes["ceil_mode"] = int(layer.arguments["ceil_mode"])
        if operation.exported == "Average":
            attributes["count_include_pad"] = 1
    node = helper.make_node(name, ["x"], ["y"], **attributes)
    described = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", layer.shape), ("y", None))]
    graph = helper.make_graph([node], "pool", described[:1], described[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return model.SerializeToString()


def onnxruntime(model: bytes, threads: int):
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise Unavailable("not installed") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda array: session.run(None, {"x": array})[0]


def openvino(model: bytes, threads: int):
    try:
        import openvino as ov
    except ImportError as error:
        raise Unavailable("not installed") from error
    # Where the processor has bfloat16 OpenVINO would compute float32 in it.
    properties = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    core = ov.Core()
    request = core.compile_model(core.read_model(model), "CPU", properties).create_infer_request()
    # Shared memory on both sides: it is spared the copies, and its output buffer is reused.
    return lambda array: request.infer({"x": array}, share_inputs=True, share_outputs=True)["y"]


RUNTIMES = {"onnxruntime": onnxruntime, "openvino": openvino}


def build(runtime: str, operation: Operation, layer: Layer, threads: int):
    if operation.exported is None or layer.windowing not in ("sliding", "global"):
        raise Unavailable("no such operation")
    return RUNTIMES[runtime](onnx_model(operation, layer), threads)

"""A CUDA device that is not there: its tensors lie on the CPU, say "cuda:99" in Python, and are as strict as real ones.

What would stop a first run on a GPU then stops a test here: tensors of two devices in one operation, an operation that
CUDA may not have for a dtype, and, under :meth:`PretendCuda.no_waiting`, all for which the host waits until the device
is through with what it was given. Values are computed, so that a whole training goes through it.

What it cannot show: kernels of our own, which look at memory, give way to plain operations; autocast is the CPU's.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("cuda", 99)
"""No machine has it: what is kept for a device is not taken for a real one's."""
CPU = torch.device("cpu")

aten = torch.ops.aten

READS = frozenset(
    {
        aten._local_scalar_dense, aten.equal, aten.is_nonzero,
        # Only the values say how large the result is.
        aten.nonzero, aten.masked_select, aten.unique_dim, aten.unique_consecutive, aten._unique, aten._unique2,
        aten.bincount, aten.histc,
    }
)  # fmt: skip
"""Operations for which the host must know values of the device."""

INDEXING = frozenset({aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index_put})
"""Operations that take an index from the host too, and copy it to the device."""

WITHOUT_UINT16 = frozenset({*INDEXING, aten.index_select, aten.gather, aten.take, aten.sort, aten.flip, aten.roll})
"""Operations that some releases of PyTorch, or some sizes of the index, have no CUDA kernel of uint16 for."""

MADE_FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)


class PretendTensor(Tensor):
    """A tensor of the device that is not there; ``held`` are its values, on the CPU."""

    held: Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendTensor":
        made: PretendTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=CPU,
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"PretendTensor({tuple(self.shape)}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied = PretendTensor(self.held.detach().clone())
            is_parameter = isinstance(self, nn.Parameter)
            memo[id(self)] = nn.Parameter(copied) if is_parameter else copied
            memo[id(self)].requires_grad_(self.requires_grad)
        copy: Tensor = memo[id(self)]
        return copy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert PretendCuda.entered is not None, "a tensor of the pretended device has outlived it"
        return PretendCuda.entered.compute(func, args, kwargs or {})


class PretendCuda:
    """While it is entered, ``device="cuda"`` works, and what is made there is a :class:`PretendTensor`.

    Attributes:
        operations: that the device was given.
        waits: how often the host has waited for it.
        strict: whether waiting is an error now.
        goes_back: whether a backward pass is under way on the device.
    """

    entered: "PretendCuda | None" = None

    def __init__(self) -> None:
        self.strict = False
        self.operations = self.waits = 0
        self.goes_back = False

    @contextmanager
    def no_waiting(self) -> Iterator[None]:
        """Fail with an AssertionError where the host would wait for the device."""
        before, self.strict = self.strict, True
        try:
            yield
        finally:
            self.strict = before

    def __enter__(self) -> Self:
        assert PretendCuda.entered is None
        PretendCuda.entered = self
        self._around = ExitStack()
        for name, value in _instead(self).items():
            self._around.enter_context(mock.patch(f"torch.{name}", value))
        # A module's parameter is replaced where it moves: the tensor that it was cannot become one of another class.
        self._around.callback(
            torch.__future__.set_overwrite_module_params_on_conversion,
            torch.__future__.get_overwrite_module_params_on_conversion(),
        )
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        self._around.enter_context(_Calls(self))
        self._around.enter_context(_Operations(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self._around.close()
        PretendCuda.entered = None

    # Calls in Python: what a tensor says of its device, where a new one is made, and copies between the two

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Call a function of torch's."""
        first = args[0] if args else None
        if isinstance(first, PretendTensor) and func in _SAID:
            return _SAID[func]
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._move(func, args, kwargs)
        if func is Tensor.pin_memory:
            return _pinned(first.clone())
        if isinstance(first, PretendTensor) and func in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
            self.wait(f"{func.__name__}() of {tuple(first.shape)}")
            if func is Tensor.tolist:
                return first.held.tolist()
            raise TypeError("can't convert cuda device type tensor to numpy. Use Tensor.cpu() to copy it first.")
        if kwargs.get("pin_memory"):
            return _pinned(func(*args, **{**kwargs, "pin_memory": False}))
        device = kwargs.get("device")
        if device is None or func is torch._C._nn._parse_to:  # which reads arguments of a module's to()
            return func(*args, **kwargs)
        args, kwargs = _values(args), _values(kwargs)
        requires_grad = kwargs.pop("requires_grad", False)
        made = func(*args, **{**kwargs, "device": CPU if _is_mine(device) else device})
        if not _is_mine(device):
            return made.requires_grad_(requires_grad)
        if func in MADE_FROM_NUMBERS:
            self.wait(f"{func.__name__}(..., device={str(device)!r})")
        self.operations += 1
        made = made if isinstance(made, PretendTensor) else PretendTensor(made)
        return made.requires_grad_(requires_grad)

    def _move(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """``to``, ``cpu`` and ``cuda``, in all their forms."""
        tensor, *others = args
        device = kwargs.pop("device", None)
        flags = [other for other in others if isinstance(other, bool)]  # non_blocking, copy
        for other in others:
            if isinstance(other, Tensor):
                device, kwargs["dtype"] = other.device, other.dtype
            elif isinstance(other, torch.dtype):
                kwargs["dtype"] = other
            elif other is not None and not isinstance(other, bool):
                device = other
        non_blocking = kwargs.pop("non_blocking", flags[0] if flags else False)
        if func is not Tensor.to:
            device = CPU if func is Tensor.cpu else DEVICE
        elif len(flags) > 1:
            kwargs["copy"] = flags[1]
        mine = isinstance(tensor, PretendTensor)
        if device is None or _is_mine(device) == mine:
            return Tensor.to(tensor, **kwargs) if kwargs else tensor
        if not non_blocking:
            self.wait(f"a copy of {tuple(tensor.shape)} {'from' if mine else 'to'} the device, without non_blocking,")
        return _Across.apply(tensor, kwargs)

    # Operations

    def compute(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Check an operation, and run it on the values."""
        tensors = _tensors_of((args, tuple(kwargs.values())), [])
        mine = [tensor for tensor in tensors if isinstance(tensor, PretendTensor)]
        if not mine:
            found = func(*args, **kwargs)
            # A gradient that is nothing: autograd makes it where it takes the tensor to be.
            return PretendTensor(found) if self.goes_back and func.overloadpacket is aten.zeros else found
        self.operations += 1
        plain_args, plain_kwargs = _values(args), _values(kwargs)
        if func.overloadpacket is aten.copy_:
            self._check_copy(func, args, kwargs)
        else:
            self._check(func, args, kwargs, [tensor for tensor in tensors if not isinstance(tensor, PretendTensor)])
        found = func(*plain_args, **plain_kwargs)
        known = {id(tensor): tensor for tensor in tensors}
        known.update({id(tensor.held): tensor for tensor in mine})
        if torch.Tag.inplace_view in func.tags:  # squeeze_: of the tensor that says its shape, too
            with no_dispatch():
                func(*args, **kwargs)
        return _wrap(found, known)

    def wait(self, what: str) -> None:
        """Take note that the host waits for the device."""
        self.waits += 1
        assert not self.strict, f"{what} waits for the device"

    def _check_copy(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        target, source = args[:2]
        from_device, to_device = isinstance(source, PretendTensor), isinstance(target, PretendTensor)
        non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        # A copy into memory that is not pinned waits, whatever it was told.
        if from_device != to_device and not (non_blocking and (to_device or hasattr(target, "pinned"))):
            self.wait(f"{func} of {tuple(source.shape)} {'from' if from_device else 'to'} the device")

    def _check(self, func: Any, args: Any, kwargs: Mapping[str, Any], others: list[Tensor]) -> None:
        packet = func.overloadpacket
        for other in others:
            # A number on the host goes into the operation as a number does.
            copied = packet in INDEXING and not self.strict
            assert other.ndim == 0 or copied, f"{func} takes {tuple(other.shape)} on the host beside the device's"
        no_kernel = packet in WITHOUT_UINT16 and args[0].dtype == torch.uint16
        assert not no_kernel, f"{func} may have no CUDA kernel for {args[0].dtype}"
        masked = (
            packet in INDEXING
            and not _fills(args)
            and any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
        )
        unsized = func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
        # It looks whether these are probabilities, unless it draws several with replacement.
        looked_at = packet is aten.multinomial and (args[1] == 1 or not (len(args) > 2 and args[2]))
        if packet in READS or masked or unsized or looked_at:
            self.wait(str(func))


class _Calls(TorchFunctionMode):
    def __init__(self, device: PretendCuda) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._device.call(func, args, dict(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, device: PretendCuda) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._device.compute(func, args, kwargs or {})


class _Across(torch.autograd.Function):
    """A copy to the device or from it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, options: dict[str, Any]) -> Tensor:
        ctx.from_device, ctx.dtype = isinstance(tensor, PretendTensor), tensor.dtype
        values = tensor.held if isinstance(tensor, PretendTensor) else tensor
        copied = values.detach().to(**{**options, "copy": True})
        return copied if ctx.from_device else PretendTensor(copied)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # type: ignore[override]
        return gradients[0].to(DEVICE if ctx.from_device else CPU, ctx.dtype), None


_SAID: dict[Any, Any] = {
    Tensor.device.__get__: DEVICE,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: True,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: False,  # type: ignore[attr-defined]
    Tensor.get_device: DEVICE.index,
}


def _fills(args: Any) -> bool:
    """Whether ``values[mask] = number`` is meant, which PyTorch fills in without looking for the places."""
    return len(args) > 2 and args[2].ndim == 0 and not isinstance(args[2], PretendTensor) and not any(args[3:])


def _is_mine(device: Any) -> bool:
    return isinstance(device, int) or torch.device(device).type == "cuda"


def _tensors_of(given: Any, found: list[Tensor]) -> list[Tensor]:
    """All tensors in arguments."""
    for value in given:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            _tensors_of(value, found)
    return found


def _values(given: Any) -> Any:
    """The same arguments with the values of the device's tensors."""
    if isinstance(given, PretendTensor):
        return given.held
    if type(given) in (list, tuple):
        return type(given)([_values(value) for value in given])
    return {name: _values(value) for name, value in given.items()} if type(given) is dict else given


def _wrap(found: Any, known: dict[int, Tensor]) -> Any:
    """What an operation gave, as tensors of the device; those that it was given are themselves."""
    if not isinstance(found, Tensor):
        return type(found)([_wrap(value, known) for value in found]) if type(found) in (list, tuple) else found
    return known[id(found)] if id(found) in known else PretendTensor(found)


def _pinned(tensor: Tensor) -> Tensor:
    tensor.pinned = True  # type: ignore[attr-defined]
    return tensor


# What stands in for torch.cuda, and for what looks at the device from C++


class _Event:
    """An event that has always happened."""

    def __init__(self, **_: Any) -> None:
        pass

    def record(self, *_: Any) -> None:
        pass

    def query(self) -> bool:
        return True


def _synchronize(device: Any = None) -> None:
    if PretendCuda.entered is not None:
        PretendCuda.entered.wait("torch.cuda.synchronize")


def _instead(device: PretendCuda) -> dict[str, Callable[..., Any]]:
    autocast, group = torch.autocast, torch._C._group_tensors_by_device_and_dtype
    run_backward = torch.autograd._engine_run_backward

    class Autocast(autocast):  # type: ignore[misc,valid-type]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    def group_tensors(lists: list[list[Tensor | None]], with_indices: bool = False) -> Any:
        mine = any(isinstance(tensor, PretendTensor) for tensor in lists[0])
        return {(DEVICE if mine else at, dtype): found for (at, dtype), found in group(lists, with_indices).items()}

    def backward(roots: Any, *args: Any, **kwargs: Any) -> Any:
        before, device.goes_back = device.goes_back, any(isinstance(root, PretendTensor) for root in roots)
        try:
            with _Calls(device):  # again: it is left while a function of torch's runs, and this one runs Python code
                return run_backward(roots, *args, **kwargs)
        finally:
            device.goes_back = before

    return {
        "autograd._engine_run_backward": backward,
        "autocast": Autocast,
        "amp.autocast": Autocast,
        "_C._group_tensors_by_device_and_dtype": group_tensors,
        "cuda.Event": _Event,
        "cuda.synchronize": _synchronize,
        "cuda.device": lambda device: nullcontext(),
        "cuda.device_of": lambda tensor: nullcontext(),
        "cuda.manual_seed": lambda seed: None,  # the numbers come from the CPU's generator, which has its own seed
        "cuda.get_rng_state": lambda device=None: torch.empty(0, dtype=torch.uint8),
        "cuda.set_rng_state": lambda state, device=None: None,
        "cuda.is_current_stream_capturing": lambda: False,
        "cuda.memory_reserved": lambda device=None: 0,
        "cuda.memory_allocated": lambda device=None: 0,
        "cuda.max_memory_allocated": lambda device=None: 0,
        "cuda.reset_peak_memory_stats": lambda device=None: None,
        "cuda.mem_get_info": lambda device=None: (2**40, 2**40),
    }

"""What SGLang expects of CUDA at import and set-up time, for a machine without CUDA. Test support only.

`install` hooks two imports and touches nothing else:

* `torch`: once it is loaded, ``torch.cuda.Event`` and ``Stream`` come from ``torch.cpu``,
  ``torch.cuda.cudart().cudaHostRegister`` does nothing, and ``pin_memory`` is dropped (host memory that no
  device reads needs no pinning).
* `torchvision._meta_registrations`: just before it loads, the schemas of ``torchvision::nms`` and ``qnms``
  are declared, unless torchvision's own extension has done so. The wheel's extension is linked against CUDA
  and does not load beside a CPU build of torch, and the module registers fakes for the two unconditionally.

The package `sgl_kernel` next to this module is the other stand-in. Both refuse to load, with an ImportError
that says why, where the real kernels are installed or CUDA is there: a test that would then run on a
stand-in would prove nothing about the real part.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNEL_DISTRIBUTIONS = ("sglang-kernel", "sgl-kernel")

TORCHVISION_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

PINNING_FACTORIES = [
    "arange",
    "empty",
    "empty_like",
    "empty_strided",
    "full",
    "full_like",
    "ones",
    "ones_like",
    "rand",
    "randint",
    "randn",
    "tensor",
    "zeros",
    "zeros_like",
]


def refuse_beside_real_kernels() -> None:
    """Raise ImportError if the real kernels are installed, or if torch is loaded and sees a CUDA device."""
    for name in KERNEL_DISTRIBUTIONS:
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        raise ImportError(
            f"the stand-in for sgl_kernel refuses to load: {name} {found.version} is installed; "
            "take tests/support/standins off PYTHONPATH to test the real kernels"
        )
    for entry in sys.path:
        if Path(entry or ".").resolve() == HERE:
            continue
        spec = importlib.machinery.PathFinder.find_spec("sgl_kernel", [entry])
        if spec is not None:
            raise ImportError(
                f"the stand-in for sgl_kernel refuses to load: a real one is at {spec.origin or entry}; "
                "take tests/support/standins off PYTHONPATH to test it"
            )
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        raise ImportError(
            "the stand-ins for CUDA parts refuse to load: CUDA is available here; take tests/support/standins "
            "off PYTHONPATH, or hide the devices with CUDA_VISIBLE_DEVICES=''"
        )


def install() -> None:
    """Hook the two imports (idempotent). A module that is loaded already is treated at once."""
    refuse_beside_real_kernels()
    if any(isinstance(finder, _Hooks) for finder in sys.meta_path):
        return
    if "torchvision" in sys.modules:
        raise ImportError("cuda_standins.install() must come before torchvision is imported")
    sys.meta_path.insert(0, _Hooks())
    if "torch" in sys.modules:
        _after_torch()


def _after_torch() -> None:
    refuse_beside_real_kernels()
    import torch

    class Event(torch.cpu.Event):
        """``torch.cpu.Event`` that takes the arguments of ``torch.cuda.Event``."""

        def __init__(self, *_args: object, **_options: object) -> None:
            super().__init__()

    class Stream(torch.cpu.Stream):
        """``torch.cpu.Stream`` that takes the arguments of ``torch.cuda.Stream`` and can be waited for."""

        def __init__(self, *_args: object, **_options: object) -> None:
            super().__init__()

        def synchronize(self) -> None:
            """Nothing runs behind the caller's back on a CPU."""

    class Cudart:
        """The only call that SGLang makes while it sets up host memory."""

        @staticmethod
        def cudaHostRegister(_pointer: int, _size: int, _flags: int) -> int:
            return 0

    torch.cuda.Event = Event
    torch.cuda.Stream = Stream
    torch.cuda.cudart = Cudart
    torch.Tensor.pin_memory = lambda self, *_args: self
    for name in PINNING_FACTORIES:
        setattr(torch, name, _without_pinning(getattr(torch, name)))


def _without_pinning(factory):
    @functools.wraps(factory)
    def create(*args, pin_memory=False, **options):
        return factory(*args, **options)

    return create


_declared: list[object] = []  # a torch.library.Library withdraws its operators when it is collected


def _before_torchvision_meta() -> None:
    import torch

    for name, schema in TORCHVISION_SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(schema)
            _declared.append(library)


class _Around(importlib.abc.Loader):
    """The real loader, with a call of ours before or after it has run the module."""

    def __init__(self, loader, before=None, after=None) -> None:
        self.loader, self.before, self.after = loader, before, after

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module) -> None:
        if self.before is not None:
            self.before()
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        if self.after is not None:
            self.after()


class _Hooks(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torch":
            calls = {"after": _after_torch}
        elif fullname == "torchvision._meta_registrations":
            calls = {"before": _before_torchvision_meta}
        else:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Around(spec.loader, **calls)
        return spec

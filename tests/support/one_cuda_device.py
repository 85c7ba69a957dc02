"""Twenty lines of C++ that tell torch of one CUDA device, on a machine that has none.

    load()          # before torch is imported
    import torch    # indexes, and goes backward through, tensors that say they are on cuda:0

Nothing can be computed on that device; `tests.support.pretended_gpu` computes in its place.
"""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

ONE_DEVICE = r"""
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace at {
struct CUDAHooks : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};
REGISTER_CUDA_HOOKS(CUDAHooks)
}
namespace c10 { namespace impl {
struct OneDevice : NoOpDeviceGuardImpl<DeviceType::CUDA> {
  Device exchangeDevice(Device) const override { return Device(DeviceType::CUDA, 0); }
  Device getDevice() const override { return Device(DeviceType::CUDA, 0); }
  Stream getStream(Device) const noexcept override {
    return Stream(Stream::DEFAULT, Device(DeviceType::CUDA, 0));
  }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
}}
C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::OneDevice)
"""


def load() -> str:
    """Compile it, once for each build of torch, and load it; "" or why that cannot be done."""
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return "no torch"
    torch = Path(next(iter(spec.submodule_search_locations)))
    version = (torch / "version.py").read_text()
    name = hashlib.sha256((ONE_DEVICE + version).encode()).hexdigest()[:16]
    built = Path(tempfile.gettempdir()) / f"tapdistill-one-cuda-device-{name}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "one.cpp"), Path(folder, "one.so")
            source.write_text(ONE_DEVICE)
            places = (torch / "include", torch / "include" / "torch" / "csrc" / "api" / "include")
            include = [*map(str, places), sysconfig.get_paths()["include"]]
            command = [
                "g++",
                "-O0",
                "-std=c++20",
                "-shared",
                "-fPIC",
                str(source),
                "-o",
                str(target),
            ]
            command += [f"-I{place}" for place in include]
            command += [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu"]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except FileNotFoundError:
                return "no g++"
            except subprocess.CalledProcessError as error:
                return f"g++: {error.stderr.decode(errors='replace')[:200]}"
            target.replace(built)
    for library in (torch / "lib" / "libc10.so", torch / "lib" / "libtorch_cpu.so", built):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return ""

"""Which errors are said to be of too little memory."""

import pytest

from skipsr.errors import describe, lacks_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("unable to mmap 9 bytes from file <a>: Cannot allocate memory (12)"),
    ],
)
def test_too_little_memory(error: Exception):
    assert lacks_memory(error)
    assert (describe(error) or "").startswith("out of memory; give a smaller `window`")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("view size is not compatible: unsupported memory format option Contiguous"),
        ValueError("out of memory"),
    ],
)
def test_faults_of_the_program(error: Exception):
    assert not lacks_memory(error)
    assert describe(error) is None

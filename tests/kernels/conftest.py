"""With a GPU the kernels run there; without one under Triton's interpreter, which must be chosen before import.

The interpreter multiplies the bit patterns of bf16 in `tl.dot`; here it is given the numbers instead.
"""

import os
import sys
from collections.abc import Iterator

import pytest
import torch

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            "triton was imported before tests/kernels could choose its interpreter: run this folder alone"
        )
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True, scope="session")
def _numbers_in_bf16() -> Iterator[None]:
    torch.set_num_threads(1)
    if ON_GPU:
        yield
        return
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, interpreter_builder

    plain = InterpreterBuilder.create_dot

    def create_dot(self, a, b, d, *options):
        raised = [self.create_fp_ext(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b)]
        return plain(self, *raised, d, *options)

    patch = pytest.MonkeyPatch()
    patch.setattr(type(interpreter_builder), "create_dot", create_dot)
    yield
    patch.undo()

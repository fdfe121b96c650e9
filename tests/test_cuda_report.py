"""That the report of what compiled CUDA kernels take notices what an architecture has not."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent / "benchmarks" / "registers.py"
specification = importlib.util.spec_from_file_location("registers", PATH)
registers = sys.modules["registers"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(registers)

MODEST = registers.Kernel("modest", registers=32, threads=256, parameters=3000, instructions=100)
FAULTY = {
    "threads of a block": {"threads": 1056},
    "whole warps": {"threads": 250},
    "static shared memory": {"shared": 49160},
    "bytes of parameters": {"parameters": 4104},
    "bytes of stack": {"stack": 1040},
    "spilled registers": {"spilled": 8},
    "blocks on a multiprocessor": {"registers": 81, "blocks": 3},
}


@pytest.mark.parametrize("architecture", registers.LIMITS)
def test_limits(architecture):
    assert not MODEST.faults(architecture)
    for what, change in FAULTY.items():
        (fault, *_) = replace(MODEST, **change).faults(architecture)
        assert what in fault, fault
    assert replace(MODEST, registers=128, threads=512).faults(architecture) == []
    assert "blocks on a multiprocessor" in replace(MODEST, registers=136, threads=512).faults(architecture)[0]


def test_bytes_in_flight():
    """Three blocks of 256 threads, 32 bytes each, fill an A100 and not an H100."""
    tight = replace(MODEST, name="RowsForward<Max, Half, Windows<2, 2, 0> >", registers=80)
    assert tight.in_flight("9.0") == 3 * 256 * 32 and not tight.faults("8.0")
    assert "24576 bytes in flight, at least 32768" in tight.faults("9.0")[0]


def test_budget():
    hot = replace(MODEST, name="RowsForward<Max, float, Windows<2, 2, 0> >")
    rare = [
        replace(MODEST, name=name) for name in ("ExactBackward<AverageGradient, float>", "ThreadForward<Max, double>")
    ]
    assert not registers.over_budget([hot, *rare], {hot.name: 100}, True)
    assert "100 instructions, at most 99" in registers.over_budget([hot], {hot.name: 99}, True)[0]
    assert "no budget" in registers.over_budget([hot], {}, True)[0]
    assert "is no kernel" in registers.over_budget([hot], {hot.name: 100, "gone": 1}, True)[0]
    assert not registers.over_budget([hot], {hot.name: 100, "of another source": 1}, False)


def test_declarations():
    """As nvcc writes them: a struct of 24 bytes, a pointer and a number."""
    ptx = """
.visible .entry kernel(
	.param .align 8 .b8 kernel_param_0[24],
	.param .u32 kernel_param_1,
	.param .u64 kernel_param_2
)
.maxntid 512, 1, 1
.minnctapersm 2
{
"""
    assert registers.declarations(ptx) == {"kernel": (512, 2, 40)}


def test_machine_code():
    """Two loads and a store, behind them a function that the kernel calls."""
    sass = """
	.target	sm_90

//--------------------- .text.kernel --------------------------
	.section	.text.kernel,"ax",@progbits
        .type           kernel,@function
kernel:
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/                   LDG.E.U16 R4, desc[UR4][R2.64] ;
        /*0030*/                   LDS R4, [R2] ;
        /*0040*/                   ST.E.64 desc[UR4][R2.64], R4 ;
        /*0050*/                   EXIT ;
.L_x_1:
        /*0060*/                   BRA `(.L_x_1);
        /*0070*/                   NOP;
        .type           $kernel$rare,@function
        .size           $kernel$rare,(.L_x_2 - $kernel$rare)
$kernel$rare:
        /*0080*/                   STG.E [R2.64], R4 ;
"""
    assert registers.counted(sass) == {"kernel": (7, "L1x128 L1x16 S1x64")}

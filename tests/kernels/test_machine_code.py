"""The audit's reading of machine code, and what it concludes, by hand."""

from __future__ import annotations

import pytest
from benchmarks.kernel_bound import bounds, others_per_product, products, resident_warps
from benchmarks.kernel_build import Build, Compiled
from benchmarks.machine_code import KINDS, Mix, inner_loop, kind_of, loops, matrix_counts

from ring_worker.attention.kernels.tile_table import Shape, Tile

SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], RZ, !UPT ;
        /*0020*/                   MUFU.EX2 R4, R5 ;
        /*0030*/               @P1 FFMA R4, R5, R6, R7 ;
.L_x_1:
        /*0040*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR4], R3 ;
        /*0050*/              @!P1 BRA `(.L_x_1) ;
        /*0060*/                   LDGSTS.E.BYPASS.128 [R3], desc[UR4][R4.64] ;
        /*0070*/               @P0 BRA `(.L_x_0) ;
.L_x_2:
        /*0080*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], RZ, !UPT ;
        /*0090*/                   BRA `(.L_x_2) ;
"""
GCN = """
.LBB0_1:
	v_mfma_f32_32x32x8_bf16 v[0:15], v[16:17], v[18:19], v[0:15]
	v_exp_f32_e32 v1, v2
	v_pk_mul_f32 v[2:3], v[4:5], v[6:7]
	ds_read2_b64 v[4:7], v8 offset1:4
	s_waitcnt lgkmcnt(0)
	v_perm_b32 v1, v2, v3, s4
	s_cbranch_scc1 .LBB0_1
	s_endpgm
"""
BUILD = Build("forward", "sm_90", Shape(128, 128), "bf16", Tile(128, 64, 8, 2))


def test_the_inner_loop_is_the_one_with_the_most_matrix_work():
    mix = inner_loop(SASS)
    assert mix.matrix == {"HGMMA.64x128x16.F32.BF16": 1}
    assert mix.kinds == {"matrix": 1, "mufu": 1, "fp": 1, "integer": 2, "memory": 1, "barrier": 1}
    assert mix.others == 6
    assert len(loops(SASS)) == 2
    assert matrix_counts(SASS) == {"HGMMA": 2}


def test_it_reads_gcn_as_well():
    assert dict(inner_loop(GCN).kinds) == dict.fromkeys(KINDS, 1) | {"integer": 2}


def test_code_without_such_a_loop_is_refused():
    with pytest.raises(ValueError, match="no loop with matrix instructions"):
        inner_loop("/*0000*/ EXIT ;")


@pytest.mark.parametrize(
    "opcode, gcn, kind",
    [
        ("HMMA.16816.F32.BF16", False, "matrix"),
        ("UTCHMMA", False, "matrix"),
        ("FMNMX", False, "fp"),
        ("FADD2", False, "fp"),
        ("FLO.U32", False, "integer"),
        ("FENCE.VIEW.ASYNC", False, "barrier"),
        ("F2FP.BF16.F32.PACK_AB", False, "fp"),
        ("LDTM.x32", False, "memory"),
        ("ISETP.NE.AND", False, "integer"),
        ("v_max3_f32", True, "fp"),
        ("v_cndmask_b32_e64", True, "integer"),
        ("v_lshl_add_u64", True, "integer"),
    ],
)
def test_kinds(opcode: str, gcn: bool, kind: str) -> None:
    assert kind_of(opcode, gcn) == kind


def test_products_count_useful_dims_and_executed_ones():
    odd = Build("dkdv", "sm_90", Shape(72, 64), "bf16", Tile(32, 64, 4, 2))
    assert products(odd) == 2 * 32 * 64 * (2 * 72 + 2 * 64)
    assert products(odd, pad=True) == 2 * 32 * 64 * (2 * 80 + 2 * 64)


@pytest.mark.parametrize(
    "registers, shared, columns, target, warps",
    [
        (128, 16 * 1024, 0, "sm_90", 16),  # 64 Ki registers / (128 x 32 a warp) = 16 warps
        (64, 100 * 1024, 0, "sm_90", 16),  # two programs' shared memory, of 8 warps each
        (32, 1024, 256, "sm_100", 16),  # 512 columns of tensor memory
        (255, 200 * 1024, 0, "sm_90", 8),
    ],
)
def test_resident_warps(registers: int, shared: int, columns: int, target: str, warps: int) -> None:
    build = Build("forward", target, Shape(128, 128), "bf16", Tile(128, 64, 8, 2))
    assert resident_warps(build, Compiled("", shared, columns, registers, 0, 0)) == warps


def test_the_bound_by_hand():
    """4.19 MFLOP / 4096 = 1024 cycles of matrix work; 512 exponentials x 8 warps x 32 / 16 lanes = 8192 of the rest."""
    mix = Mix(dict.fromkeys(KINDS, 0) | {"matrix": 12, "mufu": 512}, {})
    assert bounds(BUILD, mix) == pytest.approx((1024 / 8192, 1024 / 9216))
    assert others_per_product(BUILD, mix) == pytest.approx(512 * 8 * 32 * 1000 / 4194304)

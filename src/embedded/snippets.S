/*
 * The code under test, a snippet an instruction form. The instruction under test comes first, so that
 * a fault must show the snippet's own address; the end is INT VECTOR_END. Registers carry operands.
 */
#include "lib/selectors.h"

        .text
.macro  snippet name, text:vararg
        .balign 16
        .globl  s_\name
s_\name:
        \text
        int     $VECTOR_END
.endm

        snippet sgdt,    sgdtl (%eax)
        snippet sgdt16,  .byte 0x66, 0x0F, 0x01, 0x00
        snippet sidt,    sidtl (%eax)
        snippet sidt16,  .byte 0x66, 0x0F, 0x01, 0x08
        snippet sldt,    sldtl %ecx
        snippet sldt16,  sldtw %cx
        snippet sldt_m,  sldtw (%eax)
        snippet str,     strl %ecx
        snippet str16,   strw %cx
        snippet str_m,   strw (%eax)
        snippet smsw,    smswl %ecx
        snippet smsw16,  smsww %cx
        snippet smsw_m,  smsww (%eax)
        snippet pushf,   pushfl
        snippet pushf16, pushfw
        snippet popf,    popfl
        snippet popf16,  popfw

        snippet lar,     larl %eax, %ecx
        snippet lar16,   larw %ax, %cx
        snippet lar_m,   larl (%edx), %ecx
        snippet lsl,     lsll %eax, %ecx
        snippet lsl16,   lslw %ax, %cx
        snippet lsl_m,   lsll (%edx), %ecx
        snippet verr,    verr %ax
        snippet verr_m,  verr (%edx)
        snippet verw,    verw %ax
        snippet verw_m,  verw (%edx)

/* Each segment register, in the manual's order. */
.macro  push_snippet sreg
        snippet push_\sreg,   pushl %\sreg
        snippet push16_\sreg, pushw %\sreg
        snippet get_\sreg,    movl %\sreg, %ecx
        snippet get16_\sreg,  movw %\sreg, %cx
        snippet store_\sreg,  movw %\sreg, (%edx)
.endm
.macro  pop_snippet sreg
        snippet pop_\sreg,    popl %\sreg
        snippet pop16_\sreg,  popw %\sreg
        snippet set_\sreg,    movl %eax, %\sreg
        snippet load_\sreg,   movw (%edx), %\sreg
.endm
        .irp    sreg, es, cs, ss, ds, fs, gs
        push_snippet \sreg
        .endr
        .irp    sreg, es, ss, ds, fs, gs
        pop_snippet \sreg
        .endr
        /* MOV to CS and the two reserved numbers of the sreg field. */
        snippet set_cs,    .byte 0x8E, 0xC8
        snippet set_sreg6, .byte 0x8E, 0xF0
        snippet get_sreg7, .byte 0x8C, 0xF8
        /* What the hidden part holds: the dword at offset 0 of FS after POP and after MOV. */
        .globl  s_pop_fs_use, s_mov_fs_use
s_pop_fs_use:
        popl    %fs
        jmp     1f
s_mov_fs_use:
        movl    %eax, %fs
1:      movl    %fs:0, %ecx
        int     $VECTOR_END

        /* Far transfers take a far pointer at (%eax), or carry one that C patches. */
        snippet ljmp,      ljmpl *(%eax)
        snippet ljmp16,    ljmpw *(%eax)
        snippet lcall,     lcalll *(%eax)
        snippet lcall16,   lcallw *(%eax)
        snippet lret,      lretl
        snippet lret_imm,  lretl $12
        snippet lret16,    lretw
        snippet iret,      iretl
        snippet iret16,    iretw
        .globl  landing
landing: int    $VECTOR_END
        nop
        nop

        snippet int40,     int $0x40
        snippet int41,     int $0x41
        snippet int42,     int $0x42
        snippet int43,     int $0x43
        snippet int44,     int $0x44
        snippet int45,     int $0x45
        snippet int46,     int $0x46
        snippet int13,     int $13
        snippet int3,      int3
        snippet int3_long, .byte 0xCD, 3
        snippet into,      into

/* Their direct forms stand in data, where C writes the pointer: EA and 9A, 32- and 16-bit. */
        .data
        .balign 16
        .globl  s_ljmp_direct, s_lcall_direct
s_ljmp_direct:
        ljmpl   $0, $0
        int     $VECTOR_END
        .balign 16
s_lcall_direct:
        lcalll  $0, $0
        int     $VECTOR_END

        .section .rodata
        .balign 16
        .globl  snippets_from, snippets_to
snippets_from:
        .irp    sreg, es, cs, ss, ds, fs, gs
        .long   s_push_\sreg, s_push16_\sreg, s_get_\sreg, s_get16_\sreg, s_store_\sreg
        .endr
snippets_to:
        .irp    sreg, es, cs, ss, ds, fs, gs
        .ifc    \sreg, cs
        .long   0, 0, 0, 0
        .else
        .long   s_pop_\sreg, s_pop16_\sreg, s_set_\sreg, s_load_\sreg
        .endif
        .endr

        .section .note.GNU-stack, "", @progbits

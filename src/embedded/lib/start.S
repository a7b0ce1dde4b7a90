/*
 * Multiboot header, entry, trap stubs, and the two halves of cpu_run (cpu.h): the way out into a
 * given CPU state, and the way back when it traps.
 *
 * Every trap moves the whole state into cpu_area by way of the stack that the CPU pushed it on, which
 * may be any stack (based, 16-bit), and only then turns to a stack of its own for C.
 */
#include "selectors.h"

        .section .multiboot, "ax"
        .balign 4
        .long   0x1BADB002
        .long   0
        .long   -0x1BADB002

        .text
        .globl  start
start:
        cli
        cld
        movl    $main_stack_top, %esp
        movl    %ebx, boot_info
        pushl   $0
        popfl
        call    cpu_init
        call    guest_main
        pushl   %eax
        call    guest_exit

/* Offsets into struct cpu_state; EDI to DS are pushed by trap_common, VECTOR by the stub. */
#define EDI     0
#define GS      32
#define FS      36
#define ES      40
#define DS      44
#define EIP     56
#define CS      60
#define EFLAGS  64
#define ESP     68
#define SS      72
#define CR2     76

        /* Vectors with an error code: 8, 10-14, 17, 21, 29, 30. */
        .set    vector, 0
        .balign 16
        .globl  cpu_stubs
cpu_stubs:
        .rept   256
        .balign 16
        .if     !((vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30))
        pushl   $0
        .endif
        pushl   $vector
        jmp     trap_common
        .set    vector, vector + 1
        .endr

        .balign 16
trap_common:
        pushl   %ds
        pushl   %es
        pushl   %fs
        pushl   %gs
        pushal
        movw    $SEL_KDATA, %ax
        movw    %ax, %ds
        .set    offset, 0
        .rept   17
        popl    cpu_area + offset
        .set    offset, offset + 4
        .endr
        testb   $3, cpu_area + CS
        jz      1f
        popl    cpu_area + ESP
        popl    cpu_area + SS
        jmp     2f
1:      movl    %esp, cpu_area + ESP
        movl    %ss, %eax
        movl    %eax, cpu_area + SS
2:      movw    $SEL_KDATA, %ax
        movw    %ax, %es
        movw    %ax, %ss
        movl    $trap_stack_top, %esp
        movl    %cr2, %eax
        movl    %eax, cpu_area + CR2
        cld
        call    cpu_trap
        testl   %eax, %eax
        jnz     cpu_leave

        /* The end of a cpu_run. */
        movw    $SEL_KDATA, %ax
        movw    %ax, %fs
        movw    %ax, %gs
        movl    run_esp, %esp
        popfl
        popl    %ebp
        popl    %ebx
        popl    %esi
        popl    %edi
        ret

/* void cpu_enter(void): into cpu_area; comes back when cpu_trap says so. */
        .globl  cpu_enter
cpu_enter:
        pushl   %edi
        pushl   %esi
        pushl   %ebx
        pushl   %ebp
        pushfl
        cli
        movl    %esp, run_esp

cpu_leave:
        movl    $trap_stack_top, %esp
        testb   $3, cpu_area + CS
        jz      1f
        pushl   cpu_area + SS
        pushl   cpu_area + ESP
        jmp     2f
1:      movl    cpu_area + SS, %eax
        movw    %ax, %ss
        movl    cpu_area + ESP, %esp
2:      pushl   cpu_area + EFLAGS
        pushl   cpu_area + CS
        pushl   cpu_area + EIP
        .set    offset, DS
        .rept   12
        pushl   cpu_area + offset
        .set    offset, offset - 4
        .endr
        popal
        popl    %gs
        popl    %fs
        popl    %es
        popl    %ds
        iretl

        .bss
        .balign 16
        .globl  cpu_area, boot_info
cpu_area:       .skip   80
boot_info:      .skip   4
run_esp:        .skip   4
        .balign 4096
        .skip   16384
main_stack_top:
        .skip   8192
trap_stack_top:

        .section .note.GNU-stack, "", @progbits

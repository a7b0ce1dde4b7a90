/*
 * The border between C and translated code. On the translated side: guest registers in the host's
 * (dbt/emit.h), rsp in the return ring, r13 window base, r14 jump cache, r15 struct dbt. On the C side:
 * guest registers in the vCPU, rsp on the C stack, DF = 0. The FPU is the guest's on both.
 *
 * A C function called from here returns the host address to go on at, or 0 to return to the translated
 * code that called the stub. Everything between stubs_begin and stubs_end counts as translated
 * code for the signal handler: a kick that arrives there also replaces r14, so nothing there may keep
 * a register of C's in it.
 */
#include "dbt/layout.h"

.macro SAVE_REGS
        mov     %rax, OFF_REGS+0(%r15)
        mov     %rcx, OFF_REGS+8(%r15)
        mov     %rdx, OFF_REGS+16(%r15)
        mov     %rbx, OFF_REGS+24(%r15)
        mov     %r12, OFF_REGS+32(%r15)
        mov     %rbp, OFF_REGS+40(%r15)
        mov     %rsi, OFF_REGS+48(%r15)
        mov     %rdi, OFF_REGS+56(%r15)
.endm

/* All but rax, which often is needed longer. */
.macro LOAD_REGS
        mov     OFF_REGS+8(%r15), %rcx
        mov     OFF_REGS+16(%r15), %rdx
        mov     OFF_REGS+24(%r15), %rbx
        mov     OFF_REGS+32(%r15), %r12
        mov     OFF_REGS+40(%r15), %rbp
        mov     OFF_REGS+48(%r15), %rsi
        mov     OFF_REGS+56(%r15), %rdi
.endm

/* A function that C calls keeps C's registers, and the stack aligned for calls of C. */
.macro ENTER_C_CALL
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        sub     $8, %rsp
.endm

.macro LEAVE_C_CALL
        add     $8, %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
.endm

        .text
        .globl stubs_begin
stubs_begin:

.macro SAVE_GUEST
        SAVE_REGS
        mov     %rsp, OFF_RING_SP(%r15)
        mov     OFF_C_SP(%r15), %rsp
        pushfq
        pop     OFF_HOST_FLAGS(%r15)
        cld
.endm

/* Flags first: nothing behind it changes them. rax keeps its place until last. */
.macro LOAD_GUEST
        push    OFF_HOST_FLAGS(%r15)
        popfq
        LOAD_REGS
        mov     OFF_BASE(%r15), %r13
        mov     OFF_R14(%r15), %r14
        mov     OFF_RING_SP(%r15), %rsp
.endm

/* call: r8 = struct callout. Returns behind the call, or goes elsewhere. */
        .globl stub_callout
stub_callout:
        SAVE_GUEST
        mov     %r15, %rdi
        mov     %r8, %rsi
        call    run_callout
        jmp     back

/* jmp: r11 = struct exit_link. */
        .globl stub_chain
stub_chain:
        SAVE_GUEST
        mov     %r15, %rdi
        mov     %r11, %rsi
        call    run_chain
        jmp     back

/* jmp: r8 = EIP wanted. */
        .globl stub_miss
stub_miss:
        mov     %r8d, %r8d
        mov     %r8, OFF_RIP(%r15)
        SAVE_GUEST
        mov     %r15, %rdi
        call    run_miss
        jmp     back

/* The signal handler sends a faulting frame here, already on the C stack; state is in dbt.frame. */
        .globl stub_fault
stub_fault:
        mov     %r15, %rdi
        call    run_fault
        jmp     back

back:
        test    %rax, %rax
        jz      resume
        mov     %rax, %r11
        LOAD_GUEST
        mov     OFF_REGS+0(%r15), %rax
        mov     OFF_RIP(%r15), %r8d
        jmp     *%r11
resume:
        LOAD_GUEST
        mov     OFF_REGS+0(%r15), %rax
        ret

/* Goes on at the host instruction that faulted, all registers as they were. */
        .globl stub_retry
stub_retry:
        mov     OFF_C_SP(%r15), %rsp
        push    OFF_FRAME_FL(%r15)
        popfq
        mov     OFF_FRAME+0(%r15), %rax
        mov     OFF_FRAME+8(%r15), %rcx
        mov     OFF_FRAME+16(%r15), %rdx
        mov     OFF_FRAME+24(%r15), %rbx
        mov     OFF_RING_SP(%r15), %rsp
        mov     OFF_FRAME+40(%r15), %rbp
        mov     OFF_FRAME+48(%r15), %rsi
        mov     OFF_FRAME+56(%r15), %rdi
        mov     OFF_FRAME+64(%r15), %r8
        mov     OFF_FRAME+72(%r15), %r9
        mov     OFF_FRAME+80(%r15), %r10
        mov     OFF_FRAME+88(%r15), %r11
        mov     OFF_FRAME+96(%r15), %r12
        mov     OFF_BASE(%r15), %r13
        mov     OFF_R14(%r15), %r14
        jmp     *OFF_FRAME_RIP(%r15)

/* jmp or call: r8 = EIP wanted. Through the jump cache, without touching flags. */
        .globl stub_indirect_bmi2
stub_indirect_bmi2:
        mov     $(32 - JUMP_CACHE_BITS), %r11d
        shlx    %r11d, %r8d, %r9d
        shrx    %r11d, %r9d, %r9d
        jmp     *(%r14,%r9,8)

        .globl stub_indirect_plain
stub_indirect_plain:
        mov     %rax, %r10
        lahf
        seto    %al
        mov     %r8d, %r9d
        and     $(JUMP_CACHE_ENTRIES - 1), %r9d
        add     $127, %al
        sahf
        mov     %r10, %rax
        jmp     *(%r14,%r9,8)

        .globl stubs_end
stubs_end:

/* C -> translated code: void stub_enter(struct dbt *) returns when C sends control to stub_leave. */
        .globl stub_enter
stub_enter:
        ENTER_C_CALL
        mov     %rdi, %r15
        mov     %rsp, OFF_C_SP(%r15)
        call    run_dispatch
        jmp     back

        .globl stub_leave
stub_leave:
        cld
        mov     OFF_C_SP(%r15), %rsp
        LEAVE_C_CALL

/*
 * int stub_run_single(struct dbt *, code): runs `code`, one instruction and RET, with the guest's
 * registers, on the C stack. Returns 0, or the trap number + 1 when the instruction faulted (the
 * handler sends it to stub_single_fault with that number in eax; nothing is then saved).
 */
        .globl stub_run_single
stub_run_single:
        ENTER_C_CALL
        mov     %rdi, %r15
        mov     %rsi, %r11
        mov     %rsp, OFF_SINGLE_SP(%r15)
        push    OFF_HOST_FLAGS(%r15)
        popfq
        mov     OFF_REGS+0(%r15), %rax
        LOAD_REGS
        call    *%r11
        SAVE_REGS
        pushfq
        pop     OFF_HOST_FLAGS(%r15)
        xor     %eax, %eax
        .globl stub_single_fault
stub_single_fault:
        cld
        mov     OFF_SINGLE_SP(%r15), %rsp
        LEAVE_C_CALL

        .section .note.GNU-stack,"",@progbits

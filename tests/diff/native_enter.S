/*
 * The way into 32-bit code and out of it: see native.h. Offsets are those of struct native_frame
 * (native.c checks them).
 */
#define HOST_RSP 0
#define HOST_FSBASE 8
#define FPU 16
#define XSAVE_MASK 24
#define GPR 32
#define EIP 64
#define EFLAGS 68
#define SEL 72
#define OUT_SEL 84
#define WRFSBASE_WORKS 96
#define TICKS 100

    .text

/* void native_enter(struct native_frame *f) */
    .globl native_enter
    .type native_enter, @function
native_enter:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, HOST_RSP(%rdi)
    mov FPU(%rdi), %rcx
    mov XSAVE_MASK(%rdi), %eax
    xor %edx, %edx
    test %eax, %eax
    jz 1f
    xrstor (%rcx)
    jmp 2f
1:  fxrstor (%rcx)
2:  mov %rdi, %r8
    movzwl SEL+4(%r8), %eax
    push %rax
    mov GPR+16(%r8), %eax
    push %rax
    mov EFLAGS(%r8), %eax
    push %rax
    movzwl SEL+2(%r8), %eax
    push %rax
    mov EIP(%r8), %eax
    push %rax
    mov GPR+4(%r8), %ecx
    mov GPR+8(%r8), %edx
    mov GPR+12(%r8), %ebx
    mov GPR+20(%r8), %ebp
    mov GPR+24(%r8), %esi
    mov GPR+28(%r8), %edi
    mov SEL+6(%r8), %ds
    mov SEL+0(%r8), %es
    mov SEL+10(%r8), %gs
    mov SEL+8(%r8), %fs
    mov GPR+0(%r8), %eax
    iretq
    .size native_enter, . - native_enter

/* Where the handler sends the thread; rsp is HOST_RSP again. */
    .globl native_leave
    .type native_leave, @function
native_leave:
    fninit
    push $0x1F80
    ldmxcsr (%rsp)
    pop %rax
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .size native_leave, . - native_leave

/* The signal handler: (rdi, rsi, rdx) = (signal, siginfo, ucontext). */
    .globl native_signal
    .type native_signal, @function
native_signal:
    pushfq
    andq $~0x44400, (%rsp)
    popfq
    mov native_frame(%rip), %r8
    test %r8, %r8
    jz native_trap
    cmp $26, %edi               /* SIGVTALRM */
    jne 2f
    incl TICKS(%r8)
    cmpl $3, TICKS(%r8)
    jae 2f
    ret
2:  mov %es, OUT_SEL+0(%r8)
    mov %ds, OUT_SEL+6(%r8)
    mov %fs, OUT_SEL+8(%r8)
    mov %gs, OUT_SEL+10(%r8)
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    cmpl $0, WRFSBASE_WORKS(%r8)
    jz 1f
    mov HOST_FSBASE(%r8), %rax
    wrfsbase %rax
    jmp native_trap
1:  push %rdi
    push %rsi
    push %rdx
    mov $158, %eax              /* arch_prctl */
    mov $0x1002, %edi           /* ARCH_SET_FS */
    mov HOST_FSBASE(%r8), %rsi
    syscall
    pop %rdx
    pop %rsi
    pop %rdi
    jmp native_trap
    .size native_signal, . - native_signal

    .section .note.GNU-stack, "", @progbits

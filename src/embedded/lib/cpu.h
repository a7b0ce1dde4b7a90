/*
 * What a small kernel of ours needs of the CPU: descriptor tables, traps, ports, and cpu_run.
 *
 * cpu_run is how everything is tested: it loads a whole CPU state (any ring, any segments, any
 * flags), runs there until something traps, and gives back the whole state as it was at the trap.
 * Code under test ends with INT VECTOR_END, or with the exception that it is about. Traps that have
 * a handler (cpu_handle) do not end the run.
 */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "selectors.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

enum vector {
    VEC_DE = 0,
    VEC_DB = 1,
    VEC_BP = 3,
    VEC_OF = 4,
    VEC_BR = 5,
    VEC_UD = 6,
    VEC_NM = 7,
    VEC_DF = 8,
    VEC_TS = 10,
    VEC_NP = 11,
    VEC_SS = 12,
    VEC_GP = 13,
    VEC_PF = 14,
    VEC_MF = 16,
    VEC_AC = 17,
    VEC_XM = 19,
    VEC_END = VECTOR_END,
};

enum eflags {
    FLAG_CF = 1 << 0,
    FLAG_ONE = 1 << 1,
    FLAG_PF = 1 << 2,
    FLAG_AF = 1 << 4,
    FLAG_ZF = 1 << 6,
    FLAG_SF = 1 << 7,
    FLAG_TF = 1 << 8,
    FLAG_IF = 1 << 9,
    FLAG_DF = 1 << 10,
    FLAG_OF = 1 << 11,
    FLAG_IOPL = 3 << 12,
    FLAG_NT = 1 << 14,
    FLAG_RF = 1 << 16,
    FLAG_VM = 1 << 17,
    FLAG_AC = 1 << 18,
    FLAG_VIF = 1 << 19,
    FLAG_VIP = 1 << 20,
    FLAG_ID = 1 << 21,
    FLAGS_ARITH = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF,
};
#define FLAGS_IOPL(n) ((uint32_t)(n) << 12)

enum cr_bits {
    CR0_PE = 1 << 0,
    CR0_MP = 1 << 1,
    CR0_EM = 1 << 2,
    CR0_TS = 1 << 3,
    CR0_NE = 1 << 5,
    CR0_WP = 1 << 16,
    CR0_AM = 1 << 18,
    CR4_PSE = 1 << 4,
    CR4_PAE = 1 << 5,
    CR4_PGE = 1 << 7,
    CR4_OSFXSR = 1 << 9,
    CR4_OSXMMEXCPT = 1 << 10,
};
#define CR0_PG 0x80000000u

/* In the order of PUSHA from below, then what start.S and the CPU push. */
struct cpu_state {
    uint32_t edi, esi, ebp, unused_esp, ebx, edx, ecx, eax;
    uint32_t gs, fs, es, ds;
    uint32_t vector, error;
    uint32_t eip, cs, eflags, esp, ss;
    uint32_t cr2;
};

/* Descriptor access bytes: P, DPL 0, S, type. OR in DESC_DPL. */
enum descriptor_access {
    DESC_DATA_RO = 0x90,
    DESC_DATA = 0x92,
    DESC_DATA_DOWN = 0x96,
    DESC_CODE_XO = 0x98,
    DESC_CODE = 0x9A,
    DESC_CONFORMING = 0x9E,
    DESC_TSS16 = 0x81,
    DESC_LDT = 0x82,
    DESC_CALL16 = 0x84,
    DESC_TASK_GATE = 0x85,
    DESC_INT16 = 0x86,
    DESC_TRAP16 = 0x87,
    DESC_TSS = 0x89,
    DESC_CALL = 0x8C,
    DESC_INT = 0x8E,
    DESC_TRAP = 0x8F,
    DESC_ACCESSED = 0x01,
    DESC_PRESENT = 0x80,
};
#define DESC_DPL(n) ((uint32_t)(n) << 5)
enum descriptor_flags { DESC_G = 8, DESC_DB = 4 };

struct descriptor {
    uint32_t low, high;
};

struct tss {
    uint32_t link;
    struct {
        uint32_t esp, ss;
    } stack[3];
    uint32_t cr3, eip, eflags, gpr[8], sreg[6], ldt;
    uint16_t trap, io_map;
    uint8_t io[8192 + 1];
};

struct __attribute__((packed)) table_register {
    uint16_t limit;
    uint32_t base;
};

enum { GDT_ENTRIES = 128, LDT_ENTRIES = 32, IDT_ENTRIES = 256, STACK_BYTES = 8192 };

extern struct descriptor cpu_gdt[GDT_ENTRIES], cpu_ldt[LDT_ENTRIES], cpu_idt[IDT_ENTRIES];
extern struct tss cpu_tss;
/* cpu_stack[r]: what cpu_start uses at ring r. cpu_inner_stack[r]: what the TSS names for ring r.
 */
extern uint8_t cpu_stack[4][STACK_BYTES], cpu_inner_stack[3][STACK_BYTES];
extern uint32_t boot_info;
extern const uint8_t cpu_stubs[];

/* Loads GDT, LDT, TSS and IDT; masks both PICs. Called by start.S before guest_main. */
void cpu_init(void);

struct descriptor cpu_segment(uint32_t base, uint32_t limit, unsigned access, unsigned flags);
struct descriptor cpu_gate(uint16_t selector, uint32_t offset, unsigned access, unsigned count);

/* Flat state of that ring with the stack of that ring, interrupts off, registers 0. */
void cpu_start(struct cpu_state *s, const void *eip, unsigned ring);
void cpu_run(struct cpu_state *s);

/* True: go on with the (changed) state. False: the run ends here. */
typedef bool cpu_handler(struct cpu_state *s);
void cpu_handle(unsigned vector, cpu_handler *handler);

/* The entry point: 0 is success. */
int guest_main(void);

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint32_t read_cr0(void)
{
    uint32_t value;
    __asm__ volatile("movl %%cr0, %0" : "=r"(value));
    return value;
}

static inline void write_cr0(uint32_t value)
{
    __asm__ volatile("movl %0, %%cr0" : : "r"(value) : "memory");
}

static inline uint32_t read_cr3(void)
{
    uint32_t value;
    __asm__ volatile("movl %%cr3, %0" : "=r"(value));
    return value;
}

static inline void write_cr3(uint32_t value)
{
    __asm__ volatile("movl %0, %%cr3" : : "r"(value) : "memory");
}

static inline uint32_t read_cr4(void)
{
    uint32_t value;
    __asm__ volatile("movl %%cr4, %0" : "=r"(value));
    return value;
}

static inline void write_cr4(uint32_t value)
{
    __asm__ volatile("movl %0, %%cr4" : : "r"(value) : "memory");
}

static inline void invlpg(const volatile void *address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

static inline uint64_t read_msr(uint32_t index)
{
    uint64_t value;
    __asm__ volatile("rdmsr" : "=A"(value) : "c"(index));
    return value;
}

static inline void write_msr(uint32_t index, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(index), "A"(value) : "memory");
}

static inline void cpuid(uint32_t leaf, uint32_t out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(0));
}

static inline uint64_t rdtsc(void)
{
    uint64_t value;
    __asm__ volatile("rdtsc" : "=A"(value));
    return value;
}

#endif

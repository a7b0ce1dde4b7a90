#include "paging.h"
#include "console.h"

enum { IDENTITY_TABLES = 4, TABLES = 48 };

uint32_t paging_directory[1024] __attribute__((aligned(4096)));
static uint32_t tables[TABLES][1024] __attribute__((aligned(4096)));
static unsigned tables_used;

extern char user_start[], user_end[];

uint32_t *paging_table(void)
{
    if (tables_used == TABLES) {
        print("out of page tables\n");
        guest_exit(1);
    }
    memset(tables[tables_used], 0, 4096);
    return tables[tables_used++];
}

uint32_t *paging_pte(uint32_t address)
{
    uint32_t *pde = &paging_directory[address >> 22];

    if (!(*pde & PAGE_P))
        *pde = (uint32_t)paging_table() | PAGE_URW;
    return (uint32_t *)(*pde & ~0xFFFu) + (address >> 12 & 1023);
}

void paging_map(uint32_t address, const volatile void *frame, unsigned bits)
{
    *paging_pte(address) = (uint32_t)(uintptr_t)frame | bits;
    invlpg((const volatile void *)address);
}

static void open_to_user(const void *from, size_t size)
{
    for (uint32_t p = (uint32_t)from & ~0xFFFu; p < (uint32_t)from + size; p += 4096)
        *paging_pte(p) |= PAGE_U;
}

void paging_init(void)
{
    for (uint32_t p = 0; p < IDENTITY_TABLES << 22; p += 4096)
        *paging_pte(p) = p | PAGE_RW;
    open_to_user(user_start, (size_t)(user_end - user_start));
    open_to_user(cpu_stack[3], STACK_BYTES);
    write_cr3((uint32_t)paging_directory);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}

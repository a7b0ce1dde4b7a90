#include "dbt/listing.h"

#include <capstone/capstone.h>

#include "base/log.h"
#include "cpu/fpu.h"

/* Prints up to `len` bytes of code, an instruction a line. */
static void disassemble(cs_mode mode, const char *indent, const uint8_t *bytes, size_t len,
                        uint64_t address)
{
    FILE *to = log_stream();
    csh handle;
    cs_insn *insn;

    if (cs_open(CS_ARCH_X86, mode, &handle) != CS_ERR_OK)
        return;
    cs_option(handle, CS_OPT_SKIPDATA, CS_OPT_ON);
    size_t count = cs_disasm(handle, bytes, len, address, 0, &insn);
    for (size_t i = 0; i < count; i++)
        fprintf(to, "%s%08llx  %-10s %s\n", indent, (unsigned long long)insn[i].address,
                insn[i].mnemonic, insn[i].op_str);
    if (count)
        cs_free(insn, count);
    cs_close(&handle);
}

/* Where the guest instruction at offset `guest` begins in the host code, as the fault sites tell;
   the host code of instructions without a site stands under the one before. */
static uint32_t host_begin(const struct block *b, uint32_t guest)
{
    for (unsigned i = 0; i < b->site_count; i++) {
        if (b->sites[i].guest >= guest)
            return b->sites[i].host;
    }
    return b->code_len;
}

static unsigned copy_guest(struct dbt *d, const struct block *b, uint8_t *bytes)
{
    uint32_t offset = b->gpa & PAGE_MASK;
    unsigned first = min_u32(b->len, PAGE_SIZE - offset);

    __builtin_memcpy(bytes, mmu_page_bytes(d->mmu, b->gpa >> PAGE_SHIFT) + offset, first);
    if (b->page2 != NO_PAGE)
        __builtin_memcpy(bytes + first, mmu_page_bytes(d->mmu, b->page2), b->len - first);
    return b->page2 != NO_PAGE ? b->len : first;
}

void listing_block(struct dbt *d, const struct block *b)
{
    uint8_t bytes[BLOCK_MAX_INSNS * INSN_MAX];
    unsigned len = copy_guest(d, b, bytes);
    unsigned mode = b->key & KEY_CODE32 ? 32 : 16;
    cs_mode guest_mode = mode == 32 ? CS_MODE_32 : CS_MODE_16;

    fpu_park(&d->cpu);
    fprintf(log_stream(),
            "block %08x: %u instructions, %u bytes, gpa %08x, key %05x; %u host bytes\n", b->eip,
            b->insns, b->len, b->gpa, b->key, b->code_len);
    if (!log_on(LOG_OUT_ASM)) {
        disassemble(guest_mode, "  ", bytes, len, b->eip);
        return;
    }
    uint32_t host = 0;
    for (uint32_t at = 0; at < len;) {
        struct insn in;
        decode(&in, bytes + at, len - at, mode);
        unsigned step = in.len ? in.len : 1;
        uint32_t end = at + step >= len ? b->code_len : host_begin(b, at + step);
        if (log_on(LOG_IN_ASM))
            disassemble(guest_mode, "  ", bytes + at, step, b->eip + at);
        disassemble(CS_MODE_64, "                ", b->code + host, end - host,
                    (uint64_t)b->code + host);
        host = end;
        at += step;
    }
}

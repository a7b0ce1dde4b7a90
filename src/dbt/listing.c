#include "dbt/listing.h"

#include <capstone/capstone.h>

#include "base/log.h"
#include "cpu/fpu.h"

#define HOST_INDENT "                "

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
    for (uint32_t at = 0, n = 0; at < len && b->starts; n++) {
        struct insn in;
        decode(&in, bytes + at, len - at, mode);
        unsigned step = in.len ? in.len : 1;
        uint32_t host = b->starts[n], end = n + 1 < b->insns ? b->starts[n + 1] : b->code_len;
        if (!n) /* the tag check */
            disassemble(CS_MODE_64, HOST_INDENT, b->code, b->starts[0], (uint64_t)b->code);
        if (log_on(LOG_IN_ASM))
            disassemble(guest_mode, "  ", bytes + at, step, b->eip + at);
        disassemble(CS_MODE_64, HOST_INDENT, b->code + host, end - host, (uint64_t)b->code + host);
        at += step;
    }
}

/* What the loaders put into memory and into the CPU. Files that they refuse: tests/cli. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "machine/loader.h"

enum { RAM_MIB = 64 };

struct bench {
    struct mmu *mmu;
    struct vcpu *vcpu;
    struct boot_target target;
    char path[3][32]; /* temporary files */
    unsigned path_count;
};

static int set_up(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct err err = {{0}};
    b->mmu = mmu_create(MIB(RAM_MIB), 0, &err);
    if (!b->mmu || posix_memalign((void **)&b->vcpu, 64, sizeof(*b->vcpu)))
        return -1;
    memset(b->vcpu, 0xA5, sizeof(*b->vcpu));
    b->target = (struct boot_target){
        .mmu = b->mmu,
        .vcpu = b->vcpu,
        .e820 = {{0, KIB(640), E820_RAM},
                 {0xE0000, 0x20000, E820_RESERVED},
                 {MIB(1), MIB(RAM_MIB - 1) - 0x10000, E820_RAM},
                 {MIB(RAM_MIB) - 0x10000, 0x10000, E820_ACPI}},
        .e820_count = 4,
        .rsdp = 0xF1230,
        .ram_top = MIB(RAM_MIB) - 0x10000,
    };
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *b = *state;
    for (unsigned i = 0; i < b->path_count; i++)
        unlink(b->path[i]);
    mmu_destroy(b->mmu);
    free(b->vcpu);
    free(b);
    return 0;
}

static const char *make_file(struct bench *b, const void *bytes, size_t size)
{
    char *path = b->path[b->path_count++];
    strcpy(path, "/tmp/novt-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
    return path;
}

static uint32_t load32(const struct bench *b, uint32_t gpa)
{
    uint32_t value;
    mmu_phys_read(b->mmu, gpa, &value, sizeof(value));
    return value;
}

static void assert_bytes(const struct bench *b, uint32_t gpa, const void *want, size_t size)
{
    assert_true(mmu_is_ram(b->mmu, gpa, size));
    assert_memory_equal(mmu_ram(b->mmu) + gpa, want, size);
}

static void put16(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof(value));
}

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof(value));
}

static void assert_flat(const struct bench *b)
{
    const struct vcpu *v = b->vcpu;
    assert_int_equal(v->cr0, CR0_PE | CR0_ET);
    assert_int_equal(v->cpl, 0);
    assert_int_equal(vcpu_eflags(v), 2);
    assert_true(v->mode_dirty);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        assert_int_equal(v->seg[i].sel, i == SEG_CS ? 0x10 : 0x18);
        assert_int_equal(v->seg[i].attr, i == SEG_CS ? 0xC09B : 0xC093);
        assert_int_equal(v->seg[i].base, 0);
        assert_int_equal(v->seg[i].limit, 0xFFFFFFFF);
    }
    /* The registers are what the table says. */
    assert_int_equal(v->gdtr.limit, 0x1F);
    assert_int_equal(load32(b, v->gdtr.base + 0x10), 0x0000FFFF);
    assert_int_equal(load32(b, v->gdtr.base + 0x14), 0x00CF9B00);
    assert_int_equal(load32(b, v->gdtr.base + 0x18), 0x0000FFFF);
    assert_int_equal(load32(b, v->gdtr.base + 0x1C), 0x00CF9300);
}

static struct loader *load(struct bench *b, const struct loader_request *request)
{
    struct err err = {{0}};
    struct loader *l = loader_create(request, &err);
    if (!l)
        fail_msg("%s", err.text);
    struct boot_image image = loader_image(l);
    if (image.load(image.opaque, &b->target, &err) < 0)
        fail_msg("%s", err.text);
    return l;
}

static void fill_bzimage(uint8_t image[0x1400])
{
    memset(image, 0, 0x1400);
    image[0x1F1] = 1;            /* setup_sects */
    put32(image + 0x1F4, 0x100); /* syssize: 4 KiB */
    put16(image + 0x1FE, 0xAA55);
    put16(image + 0x200, 0x66EB);
    memcpy(image + 0x202, "HdrS", 4);
    put16(image + 0x206, 0x20F);
    image[0x211] = 1;                  /* LOADED_HIGH */
    put32(image + 0x22C, MIB(32) - 1); /* initrd_addr_max */
    put32(image + 0x238, 255);         /* cmdline_size */
    put32(image + 0x258, MIB(4));      /* pref_address */
    put32(image + 0x260, MIB(2));      /* init_size */
    put32(image + 0x264, 0x12345678);
    put32(image + 0x268, 0x9ABCDEF0); /* behind the header */
    for (unsigned i = 0x400; i < 0x1400; i++)
        image[i] = (uint8_t)(i * 7);
}

static void a_bzimage_gets_its_zero_page_and_starts_at_1m(void **state)
{
    struct bench *b = *state;
    uint8_t image[0x1400];
    fill_bzimage(image);
    static const uint8_t initrd[5000] = "initial RAM disk";
    struct loader *l = load(b, &(struct loader_request){
                                   .kernel = make_file(b, image, sizeof(image)),
                                   .initrd = make_file(b, initrd, sizeof(initrd)),
                                   .append = "console=ttyS0",
                               });
    assert_flat(b);
    assert_int_equal(b->vcpu->rip, MIB(1));
    assert_int_equal(b->vcpu->regs[REG_BX] | b->vcpu->regs[REG_BP] | b->vcpu->regs[REG_DI], 0);
    uint32_t params = vcpu_reg32(b->vcpu, REG_SI);
    assert_bytes(b, MIB(1), image + 0x400, 0x1000);

    assert_int_equal(load32(b, params + 0x202), 0x53726448);
    assert_int_equal(load32(b, params + 0x210) & 0xFF, 0xFF);
    assert_int_equal(load32(b, params + 0x264), 0x12345678);
    assert_int_equal(load32(b, params + 0x268), 0);
    assert_bytes(b, load32(b, params + 0x228), "console=ttyS0", 14);
    assert_int_equal(load32(b, params + 0x70), 0xF1230);
    assert_int_equal(load32(b, params + 0x1E8) & 0xFF, 4);
    assert_int_equal(load32(b, params + 0x2D0 + 40), MIB(1));
    assert_int_equal(load32(b, params + 0x2D0 + 48), MIB(RAM_MIB - 1) - 0x10000);
    assert_int_equal(load32(b, params + 0x2D0 + 56), E820_RAM);

    uint32_t at = load32(b, params + 0x218);
    assert_int_equal(load32(b, params + 0x21C), sizeof(initrd));
    assert_int_equal(at, MIB(32) - 0x2000);
    assert_bytes(b, at, initrd, sizeof(initrd));
    loader_destroy(l);
}

static void loading_again_restores_what_the_guest_has_changed(void **state)
{
    struct bench *b = *state;
    uint8_t image[0x1400];
    fill_bzimage(image);
    struct loader *l =
        load(b, &(struct loader_request){.kernel = make_file(b, image, sizeof(image))});
    uint32_t params = vcpu_reg32(b->vcpu, REG_SI);
    mmu_phys_write(b->mmu, MIB(1), "changed", 7);
    mmu_phys_write(b->mmu, params + 0x1E8, "changed", 7);
    memset(b->vcpu, 0x5A, sizeof(*b->vcpu));
    struct boot_image boot = loader_image(l);
    struct err err = {{0}};
    assert_int_equal(boot.load(boot.opaque, &b->target, &err), 0);
    assert_flat(b);
    assert_bytes(b, MIB(1), image + 0x400, 0x1000);
    assert_int_equal(load32(b, params + 0x1E8) & 0xFF, 4);
    assert_int_equal(load32(b, params + 0x218), 0); /* no initrd */
    assert_int_equal(load32(b, load32(b, params + 0x228)) & 0xFF, 0);
    loader_destroy(l);
}

static void a_multiboot_image_gets_its_information(void **state)
{
    struct bench *b = *state;
    uint8_t image[0x200];
    for (unsigned i = 0; i < sizeof(image); i++)
        image[i] = (uint8_t)(i * 3);
    /* The header is 40h into the file, which is loaded from 10h on. */
    uint8_t *h = image + 0x40;
    put32(h, 0x1BADB002);
    put32(h + 4, 0x10003);
    put32(h + 8, -(0x1BADB002u + 0x10003));
    put32(h + 12, 0x200030); /* header_addr */
    put32(h + 16, 0x200000); /* load_addr */
    put32(h + 20, 0x200100); /* load_end_addr */
    put32(h + 24, 0x203000); /* bss_end_addr */
    put32(h + 28, 0x200080); /* entry_addr */
    mmu_phys_write(b->mmu, 0x2FFF, "dirt", 4);
    mmu_phys_write(b->mmu, 0x200100, "dirt", 4);

    const char *kernel = make_file(b, image, sizeof(image));
    const char *one = make_file(b, "module one", 10), *two = make_file(b, "two", 3);
    char modules[128];
    snprintf(modules, sizeof(modules), "%s first argument,%s", one, two);
    struct loader *l = load(b, &(struct loader_request){
                                   .kernel = kernel, .initrd = modules, .append = "to the kernel"});
    assert_flat(b);
    assert_int_equal(b->vcpu->rip, 0x200080);
    assert_int_equal(b->vcpu->regs[REG_AX], 0x2BADB002);
    assert_bytes(b, 0x200000, image + 0x10, 0x100);
    static const uint8_t zeros[0x2F00];
    assert_bytes(b, 0x200100, zeros, sizeof(zeros));

    uint32_t info = vcpu_reg32(b->vcpu, REG_BX);
    assert_int_equal(load32(b, info), 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
    assert_int_equal(load32(b, info + 4), 640);
    assert_int_equal(load32(b, info + 8), (RAM_MIB - 1) * 1024 - 64);
    char cmdline[64];
    int length = snprintf(cmdline, sizeof(cmdline), "%s to the kernel", kernel);
    assert_bytes(b, load32(b, info + 16), cmdline, (size_t)length + 1);

    assert_int_equal(load32(b, info + 20), 2);
    uint32_t table = load32(b, info + 24);
    assert_int_equal(load32(b, table), 0x203000);
    assert_int_equal(load32(b, table + 4), 0x20300A);
    assert_bytes(b, 0x203000, "module one", 10);
    snprintf(modules, sizeof(modules), "%s first argument", one);
    assert_bytes(b, load32(b, table + 8), modules, strlen(modules) + 1);
    assert_int_equal(load32(b, table + 16), 0x204000);
    assert_bytes(b, 0x204000, "two", 3);
    assert_bytes(b, load32(b, table + 24), two, strlen(two) + 1);

    assert_int_equal(load32(b, info + 44), 4 * 24);
    uint32_t map = load32(b, info + 48);
    assert_int_equal(load32(b, map), 20);
    assert_int_equal(load32(b, map + 2 * 24 + 4), MIB(1));
    assert_int_equal(load32(b, map + 2 * 24 + 20), E820_RAM);
    assert_bytes(b, load32(b, info + 64), "novt", 5);
    loader_destroy(l);
}

static void the_multiboot_information_avoids_the_kernel(void **state)
{
    struct bench *b = *state;
    uint8_t image[0x8000] = {0};
    put32(image, 0x1BADB002);
    put32(image + 4, 0x10000);
    put32(image + 8, -(0x1BADB002u + 0x10000));
    put32(image + 12, 0x8000);
    put32(image + 16, 0x8000);
    put32(image + 28, 0x8020);
    image[0x1000] = 0x77; /* at 9000h, where the information would be */
    struct loader *l =
        load(b, &(struct loader_request){.kernel = make_file(b, image, sizeof(image))});
    assert_bytes(b, 0x8000, image, sizeof(image));
    assert_true(vcpu_reg32(b->vcpu, REG_BX) >= MIB(1));
    assert_flat(b);
    loader_destroy(l);
}

static void fill_elf(uint8_t image[0x180])
{
    static const uint8_t ident[16] = {0x7F, 'E', 'L', 'F', 1, 1, 1};
    memset(image, 0x11, 0x180);
    memset(image, 0, 52 + 2 * 32);
    memcpy(image, ident, sizeof(ident));
    put16(image + 16, 2);          /* ET_EXEC */
    put16(image + 18, 3);          /* EM_386 */
    put32(image + 20, 1);          /* version */
    put32(image + 24, 0xC0000010); /* entry, linear */
    put32(image + 28, 52);         /* program headers */
    put16(image + 40, 52);
    put16(image + 42, 32);
    put16(image + 44, 2);
    static const uint32_t program[2][8] = {
        {1, 0x100, 0xC0000000, 0x300000, 0x40, 0x1000, 5, 0x1000},
        {1, 0x140, 0x7000, 0x7000, 0x40, 0x40, 6, 0x1000},
    };
    memcpy(image + 52, program, sizeof(program));
}

static void a_plain_elf_file_is_loaded_to_physical_addresses(void **state)
{
    struct bench *b = *state;
    uint8_t image[0x180];
    fill_elf(image);
    image[0x17F] = 0x99;
    struct err err = {{0}};
    struct loader *l = loader_create_memory(image, sizeof(image), "an image", &err);
    assert_non_null(l);
    struct boot_image boot = loader_image(l);
    mmu_phys_write(b->mmu, 0x300FFF, "x", 1);
    assert_int_equal(boot.load(boot.opaque, &b->target, &err), 0);
    assert_int_equal(b->vcpu->rip, 0x300010);
    assert_int_equal(b->vcpu->regs[REG_AX], 0);
    assert_bytes(b, 0x300000, image + 0x100, 0x40);
    static const uint8_t zeros[0xFC0];
    assert_bytes(b, 0x300040, zeros, sizeof(zeros));
    /* The segment at 7000h is whole: the GDT is elsewhere. */
    assert_bytes(b, 0x7000, image + 0x140, 0x40);
    assert_flat(b);
    loader_destroy(l);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_bzimage_gets_its_zero_page_and_starts_at_1m),
        TEST(loading_again_restores_what_the_guest_has_changed),
        TEST(a_multiboot_image_gets_its_information),
        TEST(the_multiboot_information_avoids_the_kernel),
        TEST(a_plain_elf_file_is_loaded_to_physical_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * ACPI: the fixed hardware through its ports, and the tables as an operating system finds them.
 */
#include "device_bench.h"

#include "devices/acpi_pm.h"
#include "machine/acpi.h"

enum { SCI, POWER_OFF, BASE = 0x600 };

struct pm {
    struct bench *b;
    struct acpi_pm chip;
};

static void start(struct pm *p)
{
    p->b = bench_create(0);
    assert_int_equal(acpi_pm_init(&p->chip, &p->b->bus, BASE, &p->b->clock, bench_wire(p->b, SCI),
                                  bench_wire(p->b, POWER_OFF), &p->b->err),
                     0);
}

static unsigned in16(struct pm *p, unsigned offset)
{
    return bus_read_port(&p->b->bus, (uint16_t)(BASE + offset), 2);
}

static void out16(struct pm *p, unsigned offset, unsigned value)
{
    bus_write_port(&p->b->bus, (uint16_t)(BASE + offset), 2, value);
}

static void the_smi_port_switches_acpi_mode(void **state)
{
    struct pm p;

    (void)state;
    start(&p);
    assert_int_equal(in16(&p, 4) & 1, 0);
    out(p.b, 0xB2, 0xF1);
    assert_int_equal(in16(&p, 4) & 1, 1);
    out16(&p, 4, 0); /* SCI_EN is the firmware's */
    assert_int_equal(in16(&p, 4) & 1, 1);
    out(p.b, 0xB2, 0xF0);
    assert_int_equal(in16(&p, 4) & 1, 0);
    free(p.b);
}

static void the_timer_runs_at_its_frequency_with_24_bits(void **state)
{
    struct pm p;

    (void)state;
    start(&p);
    pass(p.b, CLOCK_SECOND);
    assert_int_equal(bus_read_port(&p.b->bus, BASE + 8, 4), 3579545);
    pass(p.b, 4 * CLOCK_SECOND);
    assert_int_equal(bus_read_port(&p.b->bus, BASE + 8, 4), 5 * 3579545 - 0x1000000);
    free(p.b);
}

static void the_timer_status_is_set_when_its_top_bit_changes(void **state)
{
    struct pm p;

    (void)state;
    start(&p);
    out(p.b, 0xB2, 0xF1);
    out16(&p, 2, 1);
    assert_false(p.b->level[SCI]);
    pass(p.b, 2344 * 1000000ull); /* 2^23 ticks are 2.3435 s */
    assert_true(p.b->level[SCI]);
    assert_int_equal(in16(&p, 0) & 1, 1);
    out16(&p, 0, 1);
    assert_false(p.b->level[SCI]);
    assert_int_equal(in16(&p, 0) & 1, 0);
    out16(&p, 2, 0);
    assert_null(p.b->clock.first);
    pass(p.b, 3 * CLOCK_SECOND);
    assert_int_equal(in16(&p, 0) & 1, 1); /* the flag does not need its enable bit */
    assert_false(p.b->level[SCI]);
    free(p.b);
}

static void sleep_type_five_powers_off(void **state)
{
    struct pm p;

    (void)state;
    start(&p);
    out16(&p, 4, 5 << 10);
    assert_false(p.b->level[POWER_OFF]);
    out16(&p, 4, 1 << 10 | 0x2000);
    assert_false(p.b->level[POWER_OFF]);
    assert_int_equal(in16(&p, 4) & 0x2000, 0);
    out16(&p, 4, 5 << 10 | 0x2000);
    assert_true(p.b->level[POWER_OFF]);
    free(p.b);
}

static void registers_can_be_taken_by_bytes_and_doublewords(void **state)
{
    struct pm p;

    (void)state;
    start(&p);
    bus_write_port(&p.b->bus, BASE, 4, 0x01200000);
    assert_int_equal(in16(&p, 2), 0x0120);
    out(p.b, BASE + 3, 0x04);
    assert_int_equal(in16(&p, 2), 0x0420);
    assert_int_equal(in(p.b, BASE + 3), 0x04);
    assert_int_equal(bus_read_port(&p.b->bus, BASE, 4) >> 16, 0x0420);
    out(p.b, BASE + 5, 5 << 2 | 0x20);
    assert_true(p.b->level[POWER_OFF]);
    free(p.b);
}

/* ---- tables ---- */

static uint8_t area[ACPI_TABLES_SIZE];
static const struct acpi_config config = {0x600, 9, 0xCF9, 6};

static uint32_t get32(const uint8_t *p)
{
    uint32_t value;

    memcpy(&value, p, 4);
    return value;
}

static uint8_t sum(const uint8_t *p, uint32_t size)
{
    uint8_t s = 0;

    while (size--)
        s = (uint8_t)(s + *p++);
    return s;
}

/* A table at a guest-physical address, its signature, length and checksum checked. */
static const uint8_t *table(uint32_t gpa, const char *signature)
{
    const uint8_t *t;

    assert_in_range(gpa, ACPI_TABLES, ACPI_TABLES + ACPI_TABLES_SIZE - 36);
    t = area + (gpa - ACPI_TABLES);
    assert_memory_equal(t, signature, 4);
    assert_in_range(get32(t + 4), 36, ACPI_TABLES + ACPI_TABLES_SIZE - gpa);
    assert_int_equal(sum(t, get32(t + 4)), 0);
    return t;
}

static const uint8_t *fadt(void)
{
    acpi_build(area, &config);
    return table(get32(table(get32(area + 16), "RSDT") + 36), "FACP");
}

static void the_root_pointer_leads_to_every_table(void **state)
{
    const uint8_t *f = fadt();
    const uint8_t *facs = area + (get32(f + 36) - ACPI_TABLES);

    (void)state;
    assert_memory_equal(area, "RSD PTR ", 8);
    assert_int_equal(sum(area, 20), 0);
    assert_int_equal(get32(table(get32(area + 16), "RSDT") + 4), 40);
    assert_memory_equal(facs, "FACS", 4);
    assert_int_equal(get32(facs + 4), 64);
    assert_int_equal(get32(f + 36) % 64, 0);
    table(get32(f + 40), "DSDT");
}

static void the_fadt_describes_the_fixed_hardware(void **state)
{
    const uint8_t *f = fadt();

    (void)state;
    assert_int_equal(get32(f + 4), 244);
    assert_int_equal(f[8], 3);
    assert_int_equal(f[46] | f[47] << 8, 9);
    assert_int_equal(get32(f + 48), 0xB2);
    assert_int_equal(f[52], 0xF1);
    assert_int_equal(f[53], 0xF0);
    assert_int_equal(get32(f + 56), 0x600);
    assert_int_equal(get32(f + 64), 0x604);
    assert_int_equal(get32(f + 76), 0x608);
    assert_int_equal(f[88], 4);
    assert_int_equal(f[89], 2);
    assert_int_equal(f[91], 4);
    assert_int_equal(f[108], 0x32);
    assert_int_equal(f[109], 5);
    assert_int_equal(get32(f + 112) & 1 << 10, 1 << 10);
    assert_int_equal(get32(f + 116), 0x01000801);
    assert_int_equal(get32(f + 120), 0xCF9);
    assert_int_equal(f[128], 6);
}

/* A PkgLength (20.2.4): bytes that it takes and the length that it states. */
static uint32_t package_length(const uint8_t *p, unsigned *bytes)
{
    unsigned more = p[0] >> 6;
    uint32_t length = more ? p[0] & 0x0F : p[0] & 0x3F;

    for (unsigned i = 0; i < more; i++)
        length |= (uint32_t)p[1 + i] << (4 + 8 * i);
    *bytes = 1 + more;
    return length;
}

static void check_device(const uint8_t *p, uint32_t size, const char *name, uint32_t hid)
{
    unsigned bytes;
    const uint8_t *crs;

    assert_memory_equal(p, name, 4);
    assert_memory_equal(p + 4, "\x08_HID\x0C", 6);
    assert_int_equal(get32(p + 10), hid);
    assert_memory_equal(p + 14, "\x08_CRS\x11", 6);
    crs = p + 20;
    assert_int_equal(package_length(crs, &bytes), size - 20);
    assert_int_equal(crs[bytes], 0x0A);
    assert_int_equal(crs[bytes + 1], size - 20 - bytes - 2);
    assert_int_equal(p[size - 2], 0x79);
}

static void the_dsdt_is_well_formed_aml(void **state)
{
    const uint8_t *d = table(get32(fadt() + 40), "DSDT");
    const uint8_t *end = d + get32(d + 4), *p = d + 36;
    static const uint8_t s5[] = {0x08, '_', 'S', '5', '_', 0x12};
    unsigned bytes;
    uint32_t length;

    (void)state;
    assert_memory_equal(p, s5, sizeof(s5));
    p += sizeof(s5);
    length = package_length(p, &bytes);
    assert_memory_equal(p + bytes, "\x04\x0A\x05\x0A\x05\x00\x00", 7);
    assert_int_equal(length, bytes + 7);
    p += length;
    assert_int_equal(*p++, 0x10);
    assert_ptr_equal(p + package_length(p, &bytes), end);
    p += bytes;
    assert_memory_equal(p, "_SB_", 4);
    p += 4;
    assert_memory_equal(p, "\x5B\x82", 2);
    length = package_length(p + 2, &bytes);
    check_device(p + 2 + bytes, length - bytes, "MBRD", 0x020CD041); /* PNP0C02 */
    p += 2 + length;
    assert_memory_equal(p, "\x5B\x82", 2);
    length = package_length(p + 2, &bytes);
    check_device(p + 2 + bytes, length - bytes, "RTC_", 0x000BD041); /* PNP0B00 */
    assert_ptr_equal(p + 2 + length, end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smi_port_switches_acpi_mode),
        cmocka_unit_test(the_timer_runs_at_its_frequency_with_24_bits),
        cmocka_unit_test(the_timer_status_is_set_when_its_top_bit_changes),
        cmocka_unit_test(sleep_type_five_powers_off),
        cmocka_unit_test(registers_can_be_taken_by_bytes_and_doublewords),
        cmocka_unit_test(the_root_pointer_leads_to_every_table),
        cmocka_unit_test(the_fadt_describes_the_fixed_hardware),
        cmocka_unit_test(the_dsdt_is_well_formed_aml),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

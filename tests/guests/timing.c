/*
 * Clocks: the TSC goes forward and as fast as the PIT says, the PIT counts down at 1193182 Hz in
 * its modes and reads back, the RTC's second passes and interrupts, and a guest that waits in HLT
 * wakes on time. Limits are wide: the host may be busy.
 */
#include "check.h"

enum { PIC1 = 0x20, PIC2 = 0xA0, PIT = 0x40, RTC = 0x70, IRQ_BASE = 0x50, PIT_HZ = 1193182 };

static volatile uint32_t ticks, rtc_ticks;

static bool tick(struct cpu_state *s)
{
    (void)s;
    ticks++;
    outb(PIC1, 0x20);
    return true;
}

static uint8_t rtc_read(uint8_t index)
{
    outb(RTC, index);
    return inb(RTC + 1);
}

static void rtc_write(uint8_t index, uint8_t value)
{
    outb(RTC, index);
    outb(RTC + 1, value);
}

static bool rtc_tick(struct cpu_state *s)
{
    (void)s;
    rtc_ticks++;
    rtc_read(0x0C);
    outb(PIC2, 0x20);
    outb(PIC1, 0x20);
    return true;
}

static void pic_init(void)
{
    outb(PIC1, 0x11);
    outb(PIC2, 0x11);
    outb(PIC1 + 1, IRQ_BASE);
    outb(PIC2 + 1, IRQ_BASE + 8);
    outb(PIC1 + 1, 4);
    outb(PIC2 + 1, 2);
    outb(PIC1 + 1, 1);
    outb(PIC2 + 1, 1);
    outb(PIC1 + 1, 0xFF);
    outb(PIC2 + 1, 0xFF);
}

static void pit_start(unsigned channel, unsigned mode, unsigned count)
{
    outb(PIT + 3, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    outb((uint16_t)(PIT + channel), (uint8_t)count);
    outb((uint16_t)(PIT + channel), (uint8_t)(count >> 8));
}

static unsigned pit_latched(unsigned channel)
{
    outb(PIT + 3, (uint8_t)(channel << 6));
    unsigned low = inb((uint16_t)(PIT + channel));
    return low | (unsigned)inb((uint16_t)(PIT + channel)) << 8;
}

/* Waits by counter 0 of a free-running PIT for that many of its ticks, at most 65536 at a time. */
static void wait_pit(unsigned count)
{
    unsigned last = pit_latched(0);

    for (unsigned done = 0; done < count;) {
        unsigned now = pit_latched(0);
        done += (last - now) & 0xFFFF;
        last = now;
    }
}

static void check_tsc(void)
{
    uint64_t last = rdtsc();
    unsigned backwards = 0, same = 0;

    for (unsigned i = 0; i < 20000; i++) {
        uint64_t now = rdtsc();
        backwards += now < last;
        same += now == last;
        last = now;
    }
    check_equal(backwards, 0, "the TSC went backwards");
    check(same < 20000, "the TSC stands still");

    /* Its rate over two stretches of PIT time agrees within a factor of two. */
    uint32_t rate[2];
    pit_start(0, 2, 0);
    for (unsigned i = 0; i < 2; i++) {
        uint32_t from = (uint32_t)rdtsc();
        wait_pit(PIT_HZ / 50);
        rate[i] = (uint32_t)rdtsc() - from;
    }
    check(rate[0] / 2 < rate[1] && rate[1] / 2 < rate[0], "TSC in 20 ms: %u and %u", rate[0],
          rate[1]);
}

static void check_pit(void)
{
    /* Mode 2 counts down to 1 and starts again. */
    pit_start(0, 2, 10000);
    unsigned highest = 0, lowest = 0xFFFF;
    for (unsigned i = 0; i < 3000; i++) {
        unsigned now = pit_latched(0);
        highest = now > highest ? now : highest;
        lowest = now < lowest ? now : lowest;
    }
    check(highest <= 10000 && lowest >= 1, "mode 2 counts from %u to %u", highest, lowest);
    /* Read-back of status: null count gone, mode and access as written. */
    pit_start(0, 2, 20000);
    wait_pit(10);
    outb(PIT + 3, 0xE2);
    check_equal(inb(PIT) & 0x7F, 0x34, "read-back status");
    /* Read-back of status and count of channel 0 at once. */
    outb(PIT + 3, 0xC2);
    check_equal(inb(PIT) & 0x3F, 0x34, "read-back, both: status");
    unsigned count = inb(PIT);
    count |= (unsigned)inb(PIT) << 8;
    check(count <= 20000, "read-back, both: count %u", count);
    /* Channel 2 by port 61h: mode 0's output rises when the count is out. */
    uint8_t gate = inb(0x61);
    outb(0x61, (uint8_t)((gate & 0xFC) | 1));
    pit_start(2, 0, 12000);
    check(!(inb(0x61) & 0x20), "channel 2: output at the start");
    pit_start(0, 2, 0);
    wait_pit(13500);
    check(inb(0x61) & 0x20, "channel 2: output after its count");
    outb(0x61, gate);
}

/* 20 ticks of 5 ms, in a loop and in HLT, measured by the RTC's and the TSC's idea of time. */
static void check_ticks(void)
{
    cpu_handle(IRQ_BASE, tick);
    for (unsigned way = 0; way < 2; way++) {
        pit_start(0, 2, PIT_HZ / 200);
        ticks = 0;
        outb(PIC1 + 1, 0xFE);
        uint32_t from = (uint32_t)(rdtsc() >> 8);
        __asm__ volatile("sti");
        while (ticks < 20) {
            if (way)
                __asm__ volatile("hlt");
        }
        __asm__ volatile("cli");
        uint32_t passed = (uint32_t)(rdtsc() >> 8) - from;
        outb(PIC1 + 1, 0xFF);
        check(passed > 0, "%s: no time passed", way ? "hlt" : "loop");
        check(ticks >= 20 && ticks <= 22, "%s: %u ticks", way ? "hlt" : "loop", ticks);
    }
    cpu_handle(IRQ_BASE, NULL);
}

static unsigned seconds(void)
{
    unsigned first, second;

    do {
        while (rtc_read(0x0A) & 0x80)
            ;
        first = rtc_read(0);
        second = rtc_read(0);
    } while (first != second);
    return rtc_read(0x0B) & 4 ? first : (first >> 4) * 10 + (first & 15);
}

static void check_rtc(void)
{
    /* From one second to the next but one: some 1000 ms by the PIT. */
    unsigned from = seconds(), next;
    while ((next = seconds()) == from)
        ;
    check_equal(next, (from + 1) % 60, "the next second");
    pit_start(0, 2, 0);
    unsigned last = pit_latched(0), passed = 0;
    while (seconds() == next) {
        unsigned now = pit_latched(0);
        passed += (last - now) & 0xFFFF;
        last = now;
    }
    check(passed > PIT_HZ * 7 / 10 && passed < PIT_HZ * 13 / 10, "an RTC second is %u PIT ticks",
          passed);
    check(rtc_read(0x0D) & 0x80, "RTC: valid RAM");

    /* The periodic interrupt at 1024 Hz, for 64 of them. */
    cpu_handle(IRQ_BASE + 8, rtc_tick);
    uint8_t a = rtc_read(0x0A), b = rtc_read(0x0B);
    rtc_write(0x0A, (uint8_t)((a & 0xF0) | 6));
    rtc_write(0x0B, (uint8_t)(b | 0x40));
    rtc_read(0x0C);
    rtc_ticks = 0;
    outb(PIC1 + 1, 0xFB);
    outb(PIC2 + 1, 0xFE);
    __asm__ volatile("sti");
    while (rtc_ticks < 64)
        __asm__ volatile("hlt");
    __asm__ volatile("cli");
    outb(PIC1 + 1, 0xFF);
    outb(PIC2 + 1, 0xFF);
    rtc_write(0x0B, b);
    rtc_write(0x0A, a);
    rtc_read(0x0C);
    cpu_handle(IRQ_BASE + 8, NULL);
    check(rtc_ticks >= 64, "RTC: %u interrupts", rtc_ticks);
}

int guest_main(void)
{
    pic_init();
    for (unsigned round = 0; round < ROUNDS; round++) {
        check_tsc();
        check_pit();
        check_ticks();
    }
    check_rtc();
    return check_done("timing");
}

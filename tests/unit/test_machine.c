/*
 * The run loop, with small guests: every way in which a run ends, sleeping and waking, input,
 * reset, and two machines in one process.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "machine/loader_format.h"
#include "machine/machine.h"

/*
 * CMocka puts its own handlers for faults in place for each test, and the engine installs its own
 * once a process: so each body runs in a child, which has an engine of its own. A failed CHECK ends
 * the child.
 */
#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                             \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static void in_child(void (*body)(void))
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/*
 * The guests: flat 32-bit code, copied to CODE, interrupts off, a stack below. SETUP_PIC maps IRQ
 * 0-7 to vectors 20h-27h; the IDT, made by boot(), leads vector 20h + n to the guest's label 1 for
 * every n.
 */
#define GUEST(name, text)                                                                          \
    extern const uint8_t guest_##name[], guest_##name##_isr[], guest_##name##_end[];               \
    __asm__(".pushsection .rodata\n"                                                               \
            ".code32\n"                                                                            \
            "guest_" #name ":\n" text "\n"                                                         \
            "guest_" #name "_end:\n"                                                               \
            ".code64\n"                                                                            \
            ".popsection\n");                                                                      \
    static const struct guest name = {guest_##name, guest_##name##_isr, guest_##name##_end}

#define OUT(port, value) "mov $" #port ", %dx\n mov $" #value ", %al\n out %al, %dx\n"
#define SETUP_PIC(mask)  OUT(0x20, 0x11) OUT(0x21, 0x20) OUT(0x21, 4) OUT(0x21, 1) OUT(0x21, mask)
#define POWER_OFF        "mov $0x604, %dx\n mov $0x3400, %ax\n out %ax, %dx\n 9: jmp 9b\n"

struct guest {
    const uint8_t *start, *isr, *end;
};

enum { CODE = 0x10000, IDT = 0x20000, GDT = 0x30000, STACK = 0x80000, COUNTER = 0x40000 };

GUEST(debug_exit, OUT(0x501, 21) "guest_debug_exit_isr: jmp guest_debug_exit_isr");

GUEST(power_off, POWER_OFF "guest_power_off_isr:");

/* Counts its boots in memory, which a reset keeps; the third powers off. */
GUEST(reboot, "incl 0x40000\n cmpl $3, 0x40000\n je 2f\n" OUT(0xCF9, 6) "1: jmp 1b\n 2:" POWER_OFF
                                                                        "guest_reboot_isr:");

GUEST(triple_fault, "lidt 0x50000\n ud2\n guest_triple_fault_isr:");

/* Sleeps for 30 ticks of 100 Hz. */
GUEST(
    sleeper,
    SETUP_PIC(0xFE) OUT(0x43, 0x34) OUT(0x40, 0x9C) OUT(
        0x40,
        0x2E) "xor %ebx, %ebx\n"
              "1: sti\n hlt\n cli\n cmp $30, %ebx\n jb 1b\n" POWER_OFF
              "guest_sleeper_isr: inc %ebx\n push %eax\n mov $0x20, %al\n out %al, $0x20\n pop %eax\n iret");

/* Sends back what it receives, sleeping in between, until a 'q'. */
GUEST(echo,
      SETUP_PIC(0xEF) OUT(0x3FA, 7) OUT(0x3FC, 0x0B)
          OUT(0x3F9,
              1) "1: sti\n hlt\n cli\n"
                 "2: mov $0x3FD, %dx\n in %dx, %al\n test $1, %al\n jz 1b\n"
                 "mov $0x3F8, %dx\n in %dx, %al\n out %al, %dx\n cmp $'q', %al\n jne 2b\n" POWER_OFF
                 "guest_echo_isr: push %eax\n mov $0x20, %al\n out %al, $0x20\n pop %eax\n iret");

GUEST(spin, "guest_spin_isr: jmp guest_spin_isr");
GUEST(halt, "guest_halt_isr: cli\n hlt\n jmp guest_halt_isr");

/* Adds up a million numbers in memory and says whether the sum is right. */
GUEST(adder, "mov $1000000, %ecx\n movl $0, 0x40000\n"
             "1: add %ecx, 0x40000\n dec %ecx\n jnz 1b\n"
             "cmpl $1784293664, 0x40000\n sete %al\n mov $0x501, %dx\n out %al, %dx\n"
             "guest_adder_isr: jmp guest_adder_isr");

static int boot(void *opaque, const struct boot_target *t, struct err *err)
{
    const struct guest *g = opaque;
    uint8_t idt[256 * 8] = {0};
    uint32_t handler = CODE + (uint32_t)(g->isr - g->start);

    (void)err;
    for (unsigned n = 0x20; n < 0x30; n++) {
        uint32_t gate[2] = {0x00100000 | (handler & 0xFFFF), (handler & 0xFFFF0000) | 0x8E00};
        memcpy(idt + 8 * n, gate, 8);
    }
    mmu_load(t->mmu, CODE, g->start, (uint32_t)(g->end - g->start));
    mmu_load(t->mmu, IDT, idt, sizeof(idt));
    loader_flat_state(t, GDT, CODE, STACK);
    t->vcpu->idtr = (struct table_register){IDT, sizeof(idt) - 1};
    return 0;
}

static struct machine_config config_for(const struct guest *g)
{
    struct machine_config c;

    machine_config_init(&c);
    c.ram_size = MIB(4);
    c.debug_exit = true;
    c.image = (struct boot_image){boot, (void *)g};
    return c;
}

static struct machine *create(const struct machine_config *config)
{
    struct err err = {{0}};
    struct machine *m = machine_create(config, &err);

    if (!m)
        fprintf(stderr, "%s\n", err.text);
    CHECK(m);
    return m;
}

static int run_config(const struct machine_config *config)
{
    struct err err = {{0}};
    struct machine *m = create(config);
    int status = machine_run(m, &err);

    machine_destroy(m);
    return status;
}

static void the_debug_exit_ends_with_its_status(void)
{
    struct machine_config c = config_for(&debug_exit);
    CHECK(run_config(&c) == 43);
}

static void power_off_ends_with_zero(void)
{
    struct machine_config c = config_for(&power_off);
    CHECK(run_config(&c) == MACHINE_OK);
}

static void a_reset_boots_again_and_keeps_memory(void)
{
    struct machine_config c = config_for(&reboot);
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    struct err err = {{0}};
    struct machine *m = create(&c);
    CHECK(machine_run(m, &err) == MACHINE_OK);
    machine_print_stats(m, stream);
    fclose(stream);
    CHECK(strstr(text, "             2  resets\n"));
    free(text);
    machine_destroy(m);
}

static void no_reboot_ends_at_the_first_reset(void)
{
    struct machine_config c = config_for(&reboot);
    c.no_reboot = true;
    CHECK(run_config(&c) == MACHINE_OK);
}

/* Runs with stderr in a file, whose text is returned. */
static int run_quietly(const struct machine_config *config, char *text, size_t size)
{
    FILE *file = tmpfile();
    int saved = dup(2), status;
    size_t n;

    CHECK(file);
    fflush(stderr);
    dup2(fileno(file), 2);
    status = run_config(config);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    rewind(file);
    n = fread(text, 1, size - 1, file);
    text[n] = 0;
    fclose(file);
    return status;
}

static void a_triple_fault_shows_the_state_and_gives_three(void)
{
    struct machine_config c = config_for(&triple_fault);
    char text[4096];
    c.no_reboot = true;
    CHECK(run_quietly(&c, text, sizeof(text)) == MACHINE_TRIPLE_FAULT);
    CHECK(strstr(text, "EIP=00010007"));
    CHECK(strstr(text, "CR0="));
}

static int failing_boot(void *opaque, const struct boot_target *t, struct err *err)
{
    int *boots = opaque;

    if ((*boots)++)
        return err_set(err, EIO, "the image is gone");
    return boot((void *)&reboot, t, err);
}

static void an_image_that_cannot_be_loaded_again_is_an_error(void)
{
    struct machine_config c = config_for(&reboot);
    struct err err = {{0}};
    struct machine *m;
    int boots = 0;
    c.image = (struct boot_image){failing_boot, &boots};
    m = create(&c);
    CHECK(machine_run(m, &err) == MACHINE_FAILED);
    CHECK(strcmp(err.text, "the image is gone") == 0);
    machine_destroy(m);
    boots = 1;
    CHECK(!machine_create(&c, &err));
}

static uint64_t nanoseconds(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void a_sleeping_guest_wakes_by_its_timer_and_costs_little(void)
{
    struct machine_config c = config_for(&sleeper);
    uint64_t wall = nanoseconds(CLOCK_MONOTONIC), cpu = nanoseconds(CLOCK_THREAD_CPUTIME_ID);
    CHECK(run_config(&c) == MACHINE_OK);
    wall = nanoseconds(CLOCK_MONOTONIC) - wall;
    cpu = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
    CHECK(wall > 280000000);
    /* Polling would take all of it; making the machine is part of what is counted here. */
    CHECK(cpu < wall / 2);
}

struct sink {
    char text[256];
    unsigned count;
};

static void take(void *opaque, const uint8_t *bytes, size_t count)
{
    struct sink *s = opaque;

    for (size_t i = 0; i < count && s->count < sizeof(s->text) - 1; i++)
        s->text[s->count++] = (char)bytes[i];
}

static void *type_slowly(void *opaque)
{
    int fd = *(int *)opaque;

    for (const char *p = "hello, novt\nq"; *p; p++) {
        usleep(2000);
        if (write(fd, p, 1) != 1)
            break;
    }
    return NULL;
}

static void input_wakes_a_halted_guest(void)
{
    struct machine_config c = config_for(&echo);
    struct sink sink = {.count = 0};
    pthread_t typist;
    int fds[2];
    CHECK(pipe(fds) == 0);
    c.serial = (struct machine_sink){take, &sink};
    c.serial_input.fd = fds[0];
    CHECK(pthread_create(&typist, NULL, type_slowly, &fds[1]) == 0);
    CHECK(run_config(&c) == MACHINE_OK);
    pthread_join(typist, NULL);
    CHECK(strcmp(sink.text, "hello, novt\nq") == 0);
    close(fds[0]);
    close(fds[1]);
}

static void input_before_the_start_and_end_of_file_are_no_trouble(void)
{
    struct machine_config c = config_for(&echo);
    struct sink sink = {.count = 0};
    int fds[2];
    CHECK(pipe(fds) == 0);
    CHECK(write(fds[1], "early q", 7) == 7);
    close(fds[1]);
    c.serial = (struct machine_sink){take, &sink};
    c.serial_input.fd = fds[0];
    CHECK(run_config(&c) == MACHINE_OK);
    CHECK(strcmp(sink.text, "early q") == 0);
    close(fds[0]);
}

static void *quit_soon(void *opaque)
{
    usleep(20000);
    machine_quit(opaque);
    return NULL;
}

static void quit_ends_a_guest_that_spins_or_halts(void)
{
    const struct guest *const guests[] = {&spin, &halt};
    for (unsigned i = 0; i < ARRAY_LEN(guests); i++) {
        struct machine_config c = config_for(guests[i]);
        struct machine *m = create(&c);
        struct err err = {{0}};
        pthread_t thread;

        CHECK(pthread_create(&thread, NULL, quit_soon, m) == 0);
        CHECK(machine_run(m, &err) == MACHINE_OK);
        pthread_join(thread, NULL);
        machine_destroy(m);
    }
}

static void quit_before_the_run_is_not_lost(void)
{
    struct machine_config c = config_for(&spin);
    struct machine *m = create(&c);
    struct err err = {{0}};
    machine_quit(m);
    CHECK(machine_run(m, &err) == MACHINE_OK);
    machine_destroy(m);
}

static void *run_on_a_thread(void *opaque)
{
    const struct machine_config *c = opaque;
    intptr_t status = 1;

    for (unsigned i = 0; i < 5 && status == 1; i++) {
        struct err err = {{0}};
        struct machine *m = machine_create(c, &err);
        status = m ? machine_run(m, &err) : -1;
        machine_destroy(m);
        status = status == 3 ? 1 : status;
    }
    return (void *)status;
}

static void two_machines_run_in_one_process(void)
{
    struct machine_config c = config_for(&adder);
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, run_on_a_thread, &c) == 0);
    for (unsigned i = 0; i < 2; i++) {
        void *status;
        pthread_join(threads[i], &status);
        CHECK((intptr_t)status == 1);
    }
}

static void colliding_ports_are_refused(void)
{
    struct machine_config c = config_for(&spin);
    struct err err = {{0}};
    c.debug_exit_iobase = 0x3F8;
    CHECK(!machine_create(&c, &err));
    CHECK(strstr(err.text, "isa-debug-exit"));
}

#define TEST(name)                                                                                 \
    {                                                                                              \
#name, run_body, NULL, NULL, (void *)name                                                  \
    }

static void run_body(void **state)
{
    in_child((void (*)(void)) * state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_debug_exit_ends_with_its_status),
        TEST(power_off_ends_with_zero),
        TEST(a_reset_boots_again_and_keeps_memory),
        TEST(no_reboot_ends_at_the_first_reset),
        TEST(a_triple_fault_shows_the_state_and_gives_three),
        TEST(an_image_that_cannot_be_loaded_again_is_an_error),
        TEST(a_sleeping_guest_wakes_by_its_timer_and_costs_little),
        TEST(input_wakes_a_halted_guest),
        TEST(input_before_the_start_and_end_of_file_are_no_trouble),
        TEST(quit_ends_a_guest_that_spins_or_halts),
        TEST(quit_before_the_run_is_not_lost),
        TEST(two_machines_run_in_one_process),
        TEST(colliding_ports_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The machine's parts and its run loop.
 *
 * The loop runs the engine until it stops, and does what the reason asks for. A halted guest is
 * waited for with the kick blocked, so that a signal that arrives after the last look at the vCPU
 * stays pending and ends sigwaitinfo at once: no wake-up is lost, and none but the guest's own
 * timers and the host's input happens.
 *
 * Requests end up in two places: the guest's in the board (vCPU thread), machine_quit's in `quit`
 * (any thread). Both set vcpu.stop, after which the engine comes back; the loop clears stop first
 * and looks at the requests then, so that one that arrives meanwhile stops the engine again.
 */
#define _GNU_SOURCE
#include "machine/machine.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "machine/board.h"
#include "machine/host_clock.h"
#include "machine/io_thread.h"
#include "machine/print_state.h"

struct machine {
    struct machine_config config;
    struct cpu_model model;
    struct host_clock clock;
    struct io_thread input;
    struct board board;
    struct mmu *mmu;
    struct dbt *dbt;
    struct vcpu *vcpu; /* the engine's */

    pthread_t thread; /* that runs the machine, while `running` */
    atomic_bool running;
    atomic_bool quit;
    uint64_t shown; /* clock time at which a triple fault was last shown */
    uint64_t resets, sleeps;
};

enum { GO_ON = -1 };

void machine_config_init(struct machine_config *config)
{
    *config = (struct machine_config){.ram_size = MIB(128),
                                      .serial_input = {.fd = -1},
                                      .debug_exit_iobase = 0x501,
                                      .debug_exit_iosize = 2,
                                      .debugcon_iobase = 0xE9};
}

/* Makes the vCPU thread call board_poll soon. From any thread, or a signal handler. */
static void kick(void *opaque)
{
    struct machine *m = opaque;

    m->vcpu->kicked = true;
    if (atomic_load(&m->running))
        pthread_kill(m->thread, DBT_KICK_SIGNAL);
}

void machine_quit(struct machine *m)
{
    atomic_store(&m->quit, true);
    m->vcpu->stop = true;
    kick(m);
}

/* Everything as after power-on, but for RAM and the time of day, and the image loaded. */
static int reset(struct machine *m, struct err *err)
{
    struct boot_target target;

    vcpu_reset(m->vcpu);
    board_reset(&m->board, m->mmu);
    board_describe(&m->board, m->mmu, &target);
    if (!m->config.image.load)
        return err_set(err, EINVAL, "there is nothing to boot");
    return m->config.image.load(m->config.image.opaque, &target, err);
}

struct machine *machine_create(const struct machine_config *config, struct err *err)
{
    struct machine *m = calloc(1, sizeof(*m));

    if (!m) {
        err_set(err, ENOMEM, "no memory for the machine");
        return NULL;
    }
    m->config = *config;
    cpuid_init(&m->model);
    host_clock_init(&m->clock);
    io_thread_init(&m->input, &config->serial_input, kick, m);
    m->mmu = mmu_create(config->ram_size, config->vma_budget, err);
    if (!m->mmu)
        goto fail;
    m->dbt = dbt_create(m->mmu, &m->model, &config->engine, err);
    if (!m->dbt)
        goto fail;
    m->vcpu = dbt_vcpu(m->dbt);
    if (board_init(&m->board, config, &m->clock.clock, &m->input, m->vcpu, m->mmu, err) < 0)
        goto fail;
    if (reset(m, err) < 0)
        goto fail;
    return m;

fail:
    machine_destroy(m);
    return NULL;
}

void machine_destroy(struct machine *m)
{
    if (!m)
        return;
    if (m->dbt)
        dbt_destroy(m->dbt);
    if (m->mmu)
        mmu_destroy(m->mmu);
    free(m);
}

/* Whether a halted vCPU has a reason to go on. */
static bool awake(const struct machine *m)
{
    const struct vcpu *v = m->vcpu;

    return v->stop || (v->irq_line && (v->sys_flags & FLAG_IF)) ||
           (v->nmi_pending && !v->nmi_blocked);
}

/* Sleeps until the halted guest has something to do. */
static void sleep_until_kick(struct machine *m)
{
    sigset_t set, old;

    sigemptyset(&set);
    sigaddset(&set, DBT_KICK_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &set, &old);
    for (;;) {
        m->vcpu->kicked = false;
        board_poll(&m->board);
        if (awake(m))
            break;
        m->sleeps++;
        board_flush(&m->board);
        sigwaitinfo(&set, NULL);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static int restart(struct machine *m, struct err *err)
{
    m->resets++;
    return reset(m, err) < 0 ? MACHINE_FAILED : GO_ON;
}

/* What the requests ask for: an exit status, or GO_ON. */
static int serve_requests(struct machine *m, struct err *err)
{
    m->vcpu->stop = false;
    switch (board_take_request(&m->board)) {
    case BOARD_POWER_OFF:
        return MACHINE_OK;
    case BOARD_EXIT:
        return m->board.exit_status & 0xFF; /* all that a process can give */
    case BOARD_RESET:
        return m->config.no_reboot ? MACHINE_OK : restart(m, err);
    case BOARD_NONE:
        break;
    }
    return atomic_load(&m->quit) ? MACHINE_OK : GO_ON;
}

/* Shows the state; for a guest that faults again and again, once a second. */
static int shut_down(struct machine *m, struct err *err)
{
    uint64_t now = clock_now(&m->clock.clock);

    if (!m->shown || now - m->shown >= CLOCK_SECOND) {
        m->shown = now;
        fprintf(stderr, "novt: the guest met a triple fault; its state:\n");
        print_state(m->vcpu, stderr);
    }
    return m->config.no_reboot ? MACHINE_TRIPLE_FAULT : restart(m, err);
}

static int loop(struct machine *m, struct err *err)
{
    for (;;) {
        int status = GO_ON;

        switch (dbt_run(m->dbt)) {
        case DBT_HALTED:
            sleep_until_kick(m);
            break;
        case DBT_SHUTDOWN:
            board_flush(&m->board);
            status = shut_down(m, err);
            break;
        case DBT_STOPPED:
            break;
        case DBT_DIVERGED:
            return MACHINE_DIVERGED;
        }
        if (status == GO_ON && m->vcpu->stop)
            status = serve_requests(m, err);
        if (status != GO_ON)
            return status;
    }
}

/* The signals that the engine lives by; all others are blocked while a machine runs. */
static void block_signals(sigset_t *old)
{
    static const int ours[] = {DBT_KICK_SIGNAL, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    sigset_t set;

    sigfillset(&set);
    for (unsigned i = 0; i < ARRAY_LEN(ours); i++)
        sigdelset(&set, ours[i]);
    pthread_sigmask(SIG_SETMASK, &set, old);
}

int machine_run(struct machine *m, struct err *err)
{
    int status = MACHINE_FAILED;
    sigset_t old;

    block_signals(&old);
    if (host_clock_attach(&m->clock, err) < 0)
        goto out_signals;
    m->thread = pthread_self();
    atomic_store(&m->running, true);
    if (io_thread_start(&m->input, err) < 0)
        goto out_clock;
    /* What came before this thread could be kicked has not been seen. */
    m->vcpu->kicked = true;
    if (atomic_load(&m->quit))
        m->vcpu->stop = true;
    status = loop(m, err);
    board_flush(&m->board);
    io_thread_stop(&m->input);
out_clock:
    atomic_store(&m->running, false);
    host_clock_detach(&m->clock);
out_signals:
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return status;
}

void machine_print_state(struct machine *m, FILE *to)
{
    print_state(m->vcpu, to);
}

static void print_count(FILE *to, uint64_t count, const char *text)
{
    fprintf(to, "%14llu  %s\n", (unsigned long long)count, text);
}

void machine_print_stats(struct machine *m, FILE *to)
{
    const struct mmu_counters *c = mmu_counters(m->mmu);
    const struct board *b = &m->board;

    dbt_print_stats(m->dbt, to);
    print_count(to, c->hidden_faults, "host faults on pages that were not mapped yet");
    print_count(to, c->guest_faults, "page faults delivered to the guest");
    print_count(to, c->pages_mapped, "pages mapped into windows");
    print_count(to, c->runs_mapped, "mappings made for them");
    print_count(to, c->pages_dropped, "pages dropped from windows");
    print_count(to, c->windows_made, "windows made");
    print_count(to, c->windows_recycled, "windows emptied for another address space");
    print_count(to, c->tables_compared, "page tables compared at MOV CR3");
    print_count(to, c->code_write_faults, "writes to pages that hold translated code");
    print_count(to, c->invlpg_hits, "INVLPG of a mapped page");
    print_count(to, c->invlpg_misses, "INVLPG of a page that was not mapped");
    print_count(to, c->emulated, "accesses that could not be mapped");
    print_count(to, c->map_failures, "mappings that the host refused");
    print_count(to, b->bus.counters.port_accesses, "accesses to I/O ports");
    print_count(to, b->bus.counters.unassigned_ports, "of them, bytes nobody answered");
    print_count(to, b->bus.counters.mmio_accesses, "accesses to memory-mapped I/O");
    print_count(to, b->bus.counters.unassigned_memory, "of them, to addresses with nothing there");
    for (unsigned irq = 0; irq < 16; irq++) {
        if (b->pic.counts[irq])
            fprintf(to, "%14llu  interrupts on line %u\n", (unsigned long long)b->pic.counts[irq],
                    irq);
    }
    print_count(to, b->pic.spurious, "spurious interrupts");
    print_count(to, b->pit.ticks_late, "timer ticks that came late and were made up for");
    print_count(to, b->com1.sent, "bytes sent by the serial port");
    print_count(to, b->com1.received, "bytes received by it");
    print_count(to, m->sleeps, "times the halted guest was slept for");
    print_count(to, m->resets, "resets");
}

/*
 * novt: command line, terminal and signals around one machine.
 *
 * The machine runs on a thread of its own, where all signals but the engine's are blocked; this
 * thread waits for it and takes the signals that ask the process to end. The first one asks the
 * machine to stop, so that output is complete and the statistics are printed; then the process ends
 * by that signal, as its parent expects. A machine that does not stop within STOP_SECONDS, and a
 * second signal, end it at once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "base/log.h"
#include "frontend/options.h"
#include "frontend/output.h"
#include "frontend/terminal.h"
#include "machine/loader.h"
#include "machine/machine.h"

/* src/embedded, linked into the program. */
extern const uint8_t embedded_guest_start[], embedded_guest_end[];

enum {
    STOP_SECONDS = 2,
    EMBEDDED_EXIT_PORT = 0xF4, /* src/embedded writes 0 there when all held */
    EMBEDDED_ALL_HELD = 0 << 1 | 1,
};

struct app {
    struct options options;
    struct loader *loader;
    struct machine *machine;
    struct terminal terminal;
    struct output serial, debugcon;
    struct err err;
    int status;
    int done; /* eventfd: machine_run has returned */
};

/* The machine that the signal handler stops, and the signal that it saw. */
static struct machine *the_machine;
static volatile sig_atomic_t end_signal;

static const int end_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

static void on_end_signal(int signal_number)
{
    if (end_signal || !the_machine) {
        terminal_restore();
        signal(signal_number, SIG_DFL);
        raise(signal_number);
        return;
    }
    end_signal = signal_number;
    machine_quit(the_machine);
}

static void handle_signals(void)
{
    for (size_t i = 0; i < ARRAY_LEN(end_signals); i++) {
        struct sigaction old, action = {.sa_handler = on_end_signal};
        sigfillset(&action.sa_mask);
        /* nohup: what was ignored stays ignored. */
        if (sigaction(end_signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(end_signals[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
}

/* A process started with a closed stdin, stdout or stderr must not get a file of ours in its place.
 */
static void plug_standard_files(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) < 0)
            _exit(1);
    }
}

static void quit(void *opaque)
{
    struct app *app = opaque;
    machine_quit(app->machine);
}

static int open_image(struct app *app)
{
    const struct options *o = &app->options;
    if (o->kernel) {
        const struct loader_request request = {
            .kernel = o->kernel, .initrd = o->initrd, .append = o->append};
        app->loader = loader_create(&request, &app->err);
    } else {
        app->loader = loader_create_memory(embedded_guest_start,
                                           (size_t)(embedded_guest_end - embedded_guest_start),
                                           "embedded guest", &app->err);
    }
    return app->loader ? 0 : -EINVAL;
}

static void fill_config(struct app *app, struct machine_config *config)
{
    const struct options *o = &app->options;
    machine_config_init(config);
    config->ram_size = o->ram_size;
    config->image = loader_image(app->loader);
    config->serial = output_sink(&app->serial);
    if (o->serial.kind == OUTPUT_STDIO)
        config->serial_input = (struct machine_source){
            .fd = STDIN_FILENO, .filter = terminal_filter, .opaque = &app->terminal};
    config->debug_exit = o->debug_exit || !o->kernel;
    config->debug_exit_iobase = o->kernel ? o->debug_exit_iobase : EMBEDDED_EXIT_PORT;
    config->debug_exit_iosize = o->kernel ? o->debug_exit_iosize : 4;
    if (o->debugcon_given) {
        config->debugcon = true;
        config->debugcon_sink = output_sink(&app->debugcon);
    }
    config->no_reboot = o->no_reboot || !o->kernel;
    config->engine.verify = o->verify;
}

/* Everything that can fail; what writes files comes last. */
static int set_up(struct app *app)
{
    const struct options *o = &app->options;
    output_init(&app->serial);
    output_init(&app->debugcon);
    int ret = open_image(app);
    if (ret < 0)
        return ret;

    /* Before the engine exists: it passes on faults that are not the guest's. */
    if (o->serial.kind == OUTPUT_STDIO)
        terminal_init(&app->terminal, STDIN_FILENO, o->serial_given, quit, app);
    struct machine_config config;
    fill_config(app, &config);
    app->machine = machine_create(&config, &app->err);
    if (!app->machine)
        return -EINVAL;

    if (o->log_path && (ret = log_open(o->log_path, &app->err)) < 0)
        return ret;
    log_low = o->log_low;
    log_high = o->log_high;
    log_mask = o->log_mask;
    ret = output_open(&app->serial, "-serial", &o->serial, &app->err);
    if (ret == 0)
        ret = output_open(&app->debugcon, "-debugcon", &o->debugcon, &app->err);
    return ret;
}

static void *run_thread(void *opaque)
{
    struct app *app = opaque;
    app->status = machine_run(app->machine, &app->err);
    eventfd_write(app->done, 1);
    return NULL;
}

/*
 * Waits until the machine's thread says that it is done; gives up some time after a signal has
 * asked it to stop. Signals are unblocked only while this waits, so that none is missed in between.
 */
static bool wait_for_end(int done, const sigset_t *unblocked)
{
    struct pollfd p = {.fd = done, .events = POLLIN};
    const struct timespec limit = {.tv_sec = STOP_SECONDS};
    for (;;) {
        int ret = ppoll(&p, 1, end_signal ? &limit : NULL, unblocked);
        if (ret > 0)
            return true;
        if (ret == 0)
            return false;
    }
}

static int run(struct app *app)
{
    sigset_t blocked, old;
    sigemptyset(&blocked);
    for (size_t i = 0; i < ARRAY_LEN(end_signals); i++)
        sigaddset(&blocked, end_signals[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, &old);
    the_machine = app->machine;
    handle_signals();

    int ret = 0;
    pthread_t thread;
    app->done = eventfd(0, EFD_CLOEXEC);
    if (app->done < 0) {
        ret = err_set(&app->err, errno, "cannot make an eventfd: %s", strerror(errno));
        goto out;
    }
    terminal_enter(&app->terminal);
    int code = pthread_create(&thread, NULL, run_thread, app);
    if (code) {
        ret = err_set(&app->err, code, "cannot start a thread: %s", strerror(code));
        goto out;
    }
    bool ended = wait_for_end(app->done, &old);
    terminal_restore();
    if (!ended) {
        signal(end_signal, SIG_DFL);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        raise(end_signal);
    }
    pthread_join(thread, NULL);

out:
    terminal_restore();
    if (app->done >= 0)
        close(app->done);
    the_machine = NULL;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ret;
}

/* With the embedded guest, the status says whether all held. */
static int exit_status(const struct app *app)
{
    if (app->err.text[0])
        return EXIT_FAILURE;
    if (app->options.kernel)
        return app->status;
    return app->status == EMBEDDED_ALL_HELD ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void tear_down(struct app *app)
{
    if (app->machine)
        machine_destroy(app->machine);
    loader_destroy(app->loader);
    output_close(&app->serial);
    output_close(&app->debugcon);
}

static bool answer(const struct options *o)
{
    switch (o->action) {
    case ACTION_RUN:
        return false;
    case ACTION_HELP:
        options_help(stdout);
        break;
    case ACTION_VERSION:
        puts("novt " NOVT_VERSION);
        break;
    case ACTION_LOG_HELP:
        log_help(stdout);
        break;
    case ACTION_DEVICE_HELP:
        options_device_help(stdout);
        break;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct app app = {.status = EXIT_FAILURE};
    plug_standard_files();
    if (options_parse(&app.options, argc, argv, &app.err) == 0) {
        if (answer(&app.options))
            return EXIT_SUCCESS;
        if (set_up(&app) == 0)
            run(&app);
    }
    terminal_restore();
    if (app.machine && app.options.stats)
        machine_print_stats(app.machine, stderr);
    tear_down(&app);
    if (app.err.text[0])
        fprintf(stderr, "novt: %s\n", app.err.text);
    if (end_signal) {
        signal(end_signal, SIG_DFL);
        raise(end_signal);
    }
    return exit_status(&app);
}

/*
 * The differential test: cases made from the decode rows are run natively on the host CPU and by
 * the engine, and must end the same.
 *
 * Each case is run by the engine several times: its code is written (over what stood there: this
 * drops translations), then run cold and hot with memory as at first. Variants (guest.h) take
 * turns.
 *
 * The work is done in child processes that tell what they are at in shared memory, so that a crash
 * or a hang of the engine is one more failure, with its case. Failures are grouped by instruction
 * and kind of difference, and the first of each group is printed when it happens.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "compare.h"
#include "rows.h"
#include "testcase.h"

enum { JOBS_MAX = 16, FAILURES_MAX = 4096, RUNS = 3, HANG_SECONDS = 20, BLOCK = 4096 };

struct failure {
    uint64_t index;
    unsigned differences;
    uint16_t op;
};

struct progress {
    volatile uint64_t current, done, skipped, failed, unequal;
    volatile unsigned count;
    struct failure failure[FAILURES_MAX];
};

struct options {
    uint64_t seed, cases;
    int64_t only; /* one case, or -1 */
    const char *row;
    unsigned jobs;
    bool verbose, list, native_only, verify;
};

struct test {
    struct options options;
    struct cpu_model model;
    struct native native;
    struct memory memory;
    struct maker maker;
    struct progress *progress; /* one a job, shared */
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- one case ---- */

static void write_code(struct guest *g, const struct testcase *c, unsigned steps)
{
    uint8_t code[SLOT_SIZE];
    memset(code, g->variant == VARIANT_KERNEL ? 0xF4 : END_MARKER, sizeof code);
    for (unsigned i = 0; i < steps; i++) {
        uint32_t at = c->step[i].eip - c->slot;
        for (unsigned k = 0; k < c->step[i].in.len && at + k < c->slot_size; k++)
            code[at + k] = c->step[i].in.bytes[k];
    }
    guest_write(g, c->slot, code, c->slot_size);
}

/* The guest's memory holds the golden contents. */
static bool run_in_guest(struct guest *g, const struct testcase *c, struct outcome *out)
{
    for (unsigned i = 0; i < c->pokes; i++)
        guest_write(g, c->poke[i].gva, c->poke[i].bytes, c->poke[i].len);
    return guest_run(g, &c->start, out);
}

/* Runs ever more of a sequence and prints after which step registers differ first. */
static void narrow(struct guest *g, const struct testcase *c)
{
    static struct outcome want, out;
    for (unsigned steps = 1; steps < c->steps; steps++) {
        const struct step *last = &c->step[steps];
        write_code(g, c, steps);
        run_in_guest(g, c, &out);
        guest_restore(g, ~0u >> (32 - g->memory->page_count));
        want = (struct outcome){.state = last->before, .vector = VEC_BP};
        want.state.eip++;
        unsigned d = compare_outcome(c, g, &want, &out, c->step[steps - 1].undef, false);
        if (d) {
            printf("  differs after step %u (%s) already:\n", steps,
                   decode_op_name(c->step[steps - 1].in.op));
            compare_outcome(c, g, &want, &out, c->step[steps - 1].undef, true);
            return;
        }
    }
}

enum { SHOWN_MAX = 60 };

/* True for the first failure of its group, so that each is printed once. */
static bool is_new(const struct progress *p, unsigned differences, unsigned op)
{
    unsigned shown = 0;
    for (unsigned i = 0; i < p->count; i++) {
        if (p->failure[i].op == op && p->failure[i].differences == differences)
            return false;
        shown++;
    }
    return shown < SHOWN_MAX;
}

static bool mine(const struct test *t, uint64_t index, unsigned job)
{
    return t->options.only >= 0 || index / BLOCK % t->options.jobs == job;
}

static void fail(struct progress *p, uint64_t index, unsigned differences, unsigned op)
{
    p->failed++;
    if (p->count < FAILURES_MAX) {
        p->failure[p->count] = (struct failure){index, differences, (uint16_t)op};
        p->count++;
    }
}

static void print_run(const struct testcase *c, const struct guest *g, const struct outcome *out,
                      unsigned run, unsigned d)
{
    uint32_t dirty = 0;
    printf("  run %u differs: ", run);
    compare_print_names(d);
    printf("; natively vector %u error %x\n", c->native.vector, c->native.error);
    compare_outcome(c, g, &c->native, out, c->step[c->steps - 1].undef, true);
    compare_memory(c, g, &c->native, &dirty, true);
}

/* Counts a failure, and prints it if it is the first of its kind. */
static unsigned run_case(struct guest *g, const struct testcase *c, uint32_t dirty,
                         struct progress *p, bool print)
{
    static struct outcome out;
    unsigned d = 0, op = c->step[c->steps - 1].in.op;
    uint32_t undef = c->step[c->steps - 1].undef;
    bool show = false;
    if (g->variant != c->variant)
        guest_set_variant(g, c->variant);
    write_code(g, c, c->steps);
    for (unsigned run = 0; run < RUNS && !d; run++) {
        d = run_in_guest(g, c, &out) ? 0 : DIFF_STOP;
        d |= compare_outcome(c, g, &c->native, &out, undef, false);
        d |= compare_memory(c, g, &c->native, &dirty, false);
        show = d && (print || is_new(p, d, op));
        if (show && !print)
            testcase_print(c);
        if (show)
            print_run(c, g, &out, run, d);
        guest_restore(g, dirty);
    }
    if (show)
        narrow(g, c);
    if (d)
        fail(p, c->index, d, op);
    fflush(stdout);
    return d;
}

/* ---- workers ---- */

/* Runs the cases of `job` from `from` on. Returns the exit status. */
static int work(struct test *t, unsigned job, uint64_t from, uint64_t to, bool print)
{
    static struct testcase c;
    struct progress *p = &t->progress[job];
    struct guest g;
    struct dbt_options dbt = {.verify = t->options.verify};
    bool guest = !t->options.native_only;
    if (!native_start(&t->native))
        return 2;
    if (guest && !guest_init(&g, &t->model, &t->memory, &dbt))
        return 2;
    for (uint64_t i = from; i < to; i++) {
        if (!mine(t, i, job))
            continue;
        p->current = i;
        bool made = testcase_make(&t->maker, i, &c);
        uint32_t dirty = memory_dirty(&t->memory);
        p->unequal = t->maker.unequal;
        if (!made) {
            p->skipped++;
            memory_restore(&t->memory, dirty);
            continue;
        }
        if (print) {
            testcase_print(&c);
            fflush(stdout);
        }
        unsigned d = guest ? run_case(&g, &c, dirty, p, print) : 0;
        if (d & DIFF_STOP) { /* the engine may not be able to go on, after DBT_DIVERGED for one */
            guest_fini(&g);
            if (!guest_init(&g, &t->model, &t->memory, &dbt))
                return 2;
        } else if (guest && !d && print) {
            printf("  equal, vector %u\n", c.native.vector);
        }
        memory_restore(&t->memory, dirty);
        p->done++;
    }
    p->current = to;
    if (guest)
        guest_fini(&g);
    fflush(stdout);
    return 0;
}

static pid_t spawn(struct test *t, unsigned job, uint64_t from, uint64_t to, bool print)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(work(t, job, from, to, print));
    }
    return pid;
}

/* The op of a case that cannot be asked any more: made again, natively only. */
static unsigned op_of(struct test *t, uint64_t index)
{
    static struct testcase c;
    testcase_make(&t->maker, index, &c);
    memory_restore(&t->memory, memory_dirty(&t->memory));
    return c.steps ? c.step[c.steps - 1].in.op : 0;
}

static bool run_jobs(struct test *t)
{
    uint64_t from[JOBS_MAX] = {0}, seen[JOBS_MAX] = {0}, since[JOBS_MAX] = {0};
    pid_t pid[JOBS_MAX] = {0};
    unsigned running = 0, deaths = 0;
    for (unsigned j = 0; j < t->options.jobs; j++, running++)
        pid[j] = spawn(t, j, 0, t->options.cases, false);
    while (running) {
        struct timespec pause = {.tv_nsec = 20000000};
        nanosleep(&pause, NULL);
        for (unsigned j = 0; j < t->options.jobs; j++) {
            struct progress *p = &t->progress[j];
            int status;
            if (!pid[j])
                continue;
            if (p->current != seen[j] || !since[j]) {
                seen[j] = p->current;
                since[j] = now_ms();
            }
            bool hung = now_ms() - since[j] > HANG_SECONDS * 1000;
            if (hung)
                kill(pid[j], SIGKILL);
            if (waitpid(pid[j], &status, hung ? 0 : WNOHANG) != pid[j])
                continue;
            pid[j] = 0;
            running--;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                continue;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
                return false;
            fail(p, p->current, hung ? DIFF_HANG : DIFF_CRASH, op_of(t, p->current));
            from[j] = p->current + 1;
            since[j] = 0;
            if (++deaths > 300) {
                printf("too many crashes: stopped at case %" PRIu64 "\n", p->current);
                continue;
            }
            pid[j] = spawn(t, j, from[j], t->options.cases, false);
            running++;
        }
    }
    return true;
}

/* ---- the report ---- */

static int by_group(const void *a, const void *b)
{
    const struct failure *x = a, *y = b;
    if (x->op != y->op)
        return x->op < y->op ? -1 : 1;
    if (x->differences != y->differences)
        return x->differences < y->differences ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static void show(struct test *t, uint64_t index)
{
    int status;
    pid_t pid = spawn(t, 0, index, index + 1, true);
    for (unsigned i = 0; i < 100 * HANG_SECONDS; i++) {
        struct timespec pause = {.tv_nsec = 10000000};
        if (waitpid(pid, &status, WNOHANG) == pid) {
            if (WIFSIGNALED(status))
                printf("  ended by signal %d\n", WTERMSIG(status));
            return;
        }
        nanosleep(&pause, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    printf("  did not end\n");
}

static bool report(struct test *t)
{
    static struct failure all[JOBS_MAX * FAILURES_MAX];
    unsigned n = 0, groups = 0;
    uint64_t done = 0, skipped = 0, failed = 0, unequal = 0;
    for (unsigned j = 0; j < t->options.jobs; j++) {
        struct progress *p = &t->progress[j];
        done += p->done;
        skipped += p->skipped;
        failed += p->failed;
        unequal += p->unequal;
        memcpy(all + n, p->failure, p->count * sizeof all[0]);
        n += p->count;
    }
    qsort(all, n, sizeof all[0], by_group);
    int64_t only = t->options.only;
    for (unsigned i = 0, k; i < n; i = k) {
        for (k = i + 1;
             k < n && all[k].op == all[i].op && all[k].differences == all[i].differences;)
            k++;
        groups++;
        printf("%s: ", decode_op_name(all[i].op));
        compare_print_names(all[i].differences);
        printf(": %u, first %" PRIu64 "\n", k - i, all[i].index);
        if (all[i].differences & (DIFF_CRASH | DIFF_HANG)) {
            t->options.only = (int64_t)all[i].index;
            show(t, all[i].index);
            t->options.only = only;
        }
    }
    printf("%" PRIu64 " cases compared, %" PRIu64 " skipped, %" PRIu64 " failed in %u groups\n",
           done, skipped, failed, groups);
    if (unequal)
        printf("%" PRIu64 " differ between two native runs\n", unequal);
    return !failed && !unequal;
}

/* ---- set-up ---- */

static bool collect_rows(struct test *t)
{
    struct maker *m = &t->maker;
    m->rows = calloc(decode_row_count, sizeof *m->rows);
    m->first = calloc(decode_row_count, sizeof *m->first);
    if (!m->rows || !m->first)
        return false;
    for (unsigned i = 0; i < decode_row_count; i++) {
        const struct decode_row *row = &decode_rows[i];
        if (rows_use(row, &t->model) == ROW_SKIP)
            continue;
        m->rows[m->row_count++] = row;
        if (t->options.row && strcasecmp(t->options.row, decode_op_name(row->op)))
            continue;
        m->first[m->first_count++] = row;
    }
    if (!m->first_count)
        fprintf(stderr, "differential: no row of that name is compared (--list)\n");
    return m->first_count != 0;
}

static void list_rows(const struct test *t)
{
    for (unsigned i = 0; i < decode_row_count; i++) {
        const struct decode_row *row = &decode_rows[i];
        static const char *const uses[] = {"-", "user", "all"};
        static const char *const maps[] = {"", "0F ", "0F38 ", "0F3A "};
        printf("%-16s %s%s%02X", decode_op_name(row->op), row->vex ? "VEX " : "", maps[row->map],
               row->opcode);
        if (row->ext >= 0)
            printf(" /%d", row->ext);
        printf("  %s\n", uses[rows_use(row, &t->model)]);
    }
}

static bool parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){.seed = 1, .cases = 1000000, .only = -1};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    o->jobs = cpus < 1 ? 1 : cpus > JOBS_MAX ? JOBS_MAX : (unsigned)cpus;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(a, "--verbose"))
            o->verbose = true;
        else if (!strcmp(a, "--list"))
            o->list = true;
        else if (!strcmp(a, "--native"))
            o->native_only = true;
        else if (!strcmp(a, "--verify"))
            o->verify = true;
        else if (v && !strcmp(a, "--seed"))
            o->seed = strcmp(v, "random") ? strtoull(v, NULL, 0) : now_ms(), i++;
        else if (v && !strcmp(a, "--cases"))
            o->cases = strtoull(v, NULL, 0), i++;
        else if (v && !strcmp(a, "--case"))
            o->only = strtoll(v, NULL, 0), i++;
        else if (v && !strcmp(a, "--row"))
            o->row = v, i++;
        else if (v && !strcmp(a, "--jobs"))
            o->jobs = (unsigned)strtoul(v, NULL, 0), i++;
        else
            return false;
    }
    if (o->jobs < 1 || o->jobs > JOBS_MAX)
        o->jobs = 1;
    return true;
}

int main(int argc, char **argv)
{
    static struct test t;
    if (!parse(&t.options, argc, argv)) {
        fprintf(
            stderr,
            "usage: %s [--seed N|random] [--cases N] [--row MNEMONIC] [--case INDEX] [--jobs N]\n"
            "    [--verbose] [--list] [--verify]\n"
            "    [--native: the native side only, each instruction twice]\n",
            argv[0]);
        return 1;
    }
    cpuid_init(&t.model);
    if (t.options.list) {
        list_rows(&t);
        return 0;
    }
    t.maker = (struct maker){.native = &t.native,
                             .memory = &t.memory,
                             .model = &t.model,
                             .seed = t.options.seed,
                             .twice = t.options.native_only};
    if (!native_init(&t.native) || !memory_init(&t.memory, &t.native, t.options.seed) ||
        !collect_rows(&t))
        return 1;
    t.progress = mmap(NULL, sizeof(struct progress) * JOBS_MAX, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (t.progress == MAP_FAILED)
        return 1;
    printf("seed %" PRIu64 ", %u rows%s%s%s\n", t.options.seed, t.maker.first_count,
           t.native.has_low ? "" : ", no low memory",
           t.native.has_based ? "" : ", no based segment", t.native.has_avx ? "" : ", no AVX");
    if (t.options.only >= 0) {
        t.options.jobs = 1;
        return work(&t, 0, (uint64_t)t.options.only, (uint64_t)t.options.only + 1, true) ||
               t.progress[0].failed;
    }
    if (t.options.verbose) {
        t.options.jobs = 1;
        work(&t, 0, 0, t.options.cases, true);
    } else if (!run_jobs(&t)) {
        return 1;
    }
    bool good = report(&t);
    memory_fini(&t.memory);
    return good ? 0 : 1;
}

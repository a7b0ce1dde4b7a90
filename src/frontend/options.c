/*
 * One table of options: name, argument, help text and the function that takes the argument. The
 * help is printed from the same table.
 */
#include "frontend/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/log.h"

enum {
    RAM_MIN_MIB = 2,
    RAM_MAX_MIB = 3584,
    RAM_DEFAULT_MIB = 128,
    DEBUG_EXIT_IOBASE = 0x501, /* QEMU's defaults */
    DEBUG_EXIT_IOSIZE = 2,
};

struct option {
    const char *name;
    const char *argument; /* NULL: takes none */
    const char *help;     /* NULL: an alias, not listed */
    int (*take)(struct options *o, const char *value, struct err *err);
};

/* ---- values ---- */

/*
 * QEMU's sizes: a decimal number, perhaps with a fraction, or a hexadecimal one, and a suffix out
 * of B K M G T; without one it is MiB. Values far too large are cut to 2^63.
 */
static bool parse_size(const char *text, uint64_t *size)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    errno = 0;
    unsigned long long whole = strtoull(text, &end, hex ? 16 : 10);
    if (errno || (hex && end == text + 1))
        return false;
    uint64_t fraction = 0, scale = 1;
    if (!hex && *end == '.') {
        for (end++; *end >= '0' && *end <= '9'; end++) {
            if (scale < 1000000000) {
                fraction = fraction * 10 + (uint64_t)(*end - '0');
                scale *= 10;
            }
        }
    }
    static const char suffixes[] = "bkmgt";
    unsigned shift = 20;
    if (*end) {
        const char *at = strchr(suffixes, *end | 0x20);
        if (!at || end[1])
            return false;
        shift = 10 * (unsigned)(at - suffixes);
    }
    if (whole >> (63 - shift)) {
        *size = 1ull << 63;
        return true;
    }
    *size = (whole << shift) + (uint64_t)(((unsigned __int128)fraction << shift) / scale);
    return true;
}

/* A number with C's prefixes; *end is behind it. */
static bool parse_number(const char *text, char **end, uint64_t max, uint64_t *value)
{
    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *value = strtoull(text, end, 0);
    return errno == 0 && *end != text && *value <= max;
}

static int parse_chardev(struct option_chardev *c, const char *option, const char *value,
                         struct err *err)
{
    *c = (struct option_chardev){.kind = OUTPUT_NULL};
    if (!strcmp(value, "null") || !strcmp(value, "none"))
        return 0;
    if (!strcmp(value, "stdio") || !strcmp(value, "mon:stdio")) {
        c->kind = OUTPUT_STDIO;
        return 0;
    }
    if (!strncmp(value, "file:", 5) && value[5]) {
        c->kind = OUTPUT_FILE;
        c->path = value + 5;
        return 0;
    }
    return err_set(err, EINVAL, "%s: '%s' is none of stdio, file:PATH, null, none", option, value);
}

/* ---- options ---- */

static int take_kernel(struct options *o, const char *value, struct err *err)
{
    (void)err;
    o->kernel = value;
    return 0;
}

static int take_initrd(struct options *o, const char *value, struct err *err)
{
    (void)err;
    o->initrd = value;
    return 0;
}

static int take_append(struct options *o, const char *value, struct err *err)
{
    (void)err;
    o->append = value;
    return 0;
}

static int take_memory(struct options *o, const char *value, struct err *err)
{
    const char *number = strncmp(value, "size=", 5) ? value : value + 5;
    uint64_t size;
    if (!parse_size(number, &size))
        return err_set(err, EINVAL, "-m: '%s' is not a size (a number and K, M or G; MiB without)",
                       value);
    if (size < MIB(RAM_MIN_MIB) || size > MIB(RAM_MAX_MIB))
        return err_set(err, EINVAL, "-m: '%s' is not between %dM and %dM", value, RAM_MIN_MIB,
                       RAM_MAX_MIB);
    o->ram_size = (size + PAGE_MASK) & ~(uint64_t)PAGE_MASK;
    return 0;
}

static int take_nographic(struct options *o, const char *value, struct err *err)
{
    (void)o, (void)value, (void)err; /* there is no display that it would turn off */
    return 0;
}

static int take_serial(struct options *o, const char *value, struct err *err)
{
    if (o->serial_given)
        return err_set(err, EINVAL, "-serial: given twice, but the machine has one serial port");
    o->serial_given = strcmp(value, "mon:stdio") != 0;
    return parse_chardev(&o->serial, "-serial", value, err);
}

static int take_no_reboot(struct options *o, const char *value, struct err *err)
{
    (void)value, (void)err;
    o->no_reboot = true;
    return 0;
}

static int take_device_property(struct options *o, const char *text, size_t len, struct err *err)
{
    const char *equals = memchr(text, '=', len);
    size_t name_len = equals ? (size_t)(equals - text) : len;
    bool iobase = name_len == 6 && !strncmp(text, "iobase", 6);
    bool iosize = name_len == 6 && !strncmp(text, "iosize", 6);
    if (!iobase && !iosize)
        return err_set(err, EINVAL, "-device: isa-debug-exit has no property '%.*s'", (int)name_len,
                       text);
    char *end;
    uint64_t value;
    if (!equals || !parse_number(equals + 1, &end, 0xFFFF, &value) || end != text + len)
        return err_set(err, EINVAL, "-device: isa-debug-exit: '%.*s' needs a 16-bit number",
                       (int)len, text);
    if (iosize && value != 1 && value != 2 && value != 4)
        return err_set(err, EINVAL, "-device: isa-debug-exit: iosize is 1, 2 or 4, not %u",
                       (unsigned)value);
    *(iobase ? &o->debug_exit_iobase : &o->debug_exit_iosize) = (uint16_t)value;
    return 0;
}

static int take_device(struct options *o, const char *value, struct err *err)
{
    if (!strcmp(value, "help") || !strcmp(value, "?")) {
        o->action = ACTION_DEVICE_HELP;
        return 0;
    }
    size_t len = strcspn(value, ",");
    if (len != strlen("isa-debug-exit") || strncmp(value, "isa-debug-exit", len))
        return err_set(err, EINVAL, "-device: there is no device '%.*s' (see -device help)",
                       (int)len, value);
    if (o->debug_exit)
        return err_set(err, EINVAL, "-device: isa-debug-exit is given twice");
    o->debug_exit = true;
    for (value += len; *value; value += len) {
        value++;
        len = strcspn(value, ",");
        int ret = take_device_property(o, value, len, err);
        if (ret < 0)
            return ret;
    }
    return 0;
}

static int take_debugcon(struct options *o, const char *value, struct err *err)
{
    o->debugcon_given = true;
    return parse_chardev(&o->debugcon, "-debugcon", value, err);
}

static int take_log(struct options *o, const char *value, struct err *err)
{
    if (!strcmp(value, "help") || !strcmp(value, "?")) {
        o->action = ACTION_LOG_HELP;
        return 0;
    }
    return log_parse(value, &o->log_mask, err);
}

static int take_log_path(struct options *o, const char *value, struct err *err)
{
    (void)err;
    o->log_path = value;
    return 0;
}

/* QEMU's three forms: FIRST..LAST, START+SIZE, LAST-SIZE (from LAST-SIZE+1 to LAST). */
static int take_filter(struct options *o, const char *value, struct err *err)
{
    char *end;
    uint64_t first, second, low = 1, high = 0;
    if (parse_number(value, &end, UINT32_MAX, &first)) {
        char op = *end;
        const char *rest = end + (op == '.' ? 2 : 1);
        if (((op == '.' && end[1] == '.') || op == '+' || op == '-') &&
            parse_number(rest, &end, op == '.' ? UINT32_MAX : GIB(4), &second) && !*end) {
            if (op == '.') {
                low = first;
                high = second;
            } else if (second && op == '+') {
                low = first;
                high = first + second - 1;
            } else if (second && first + 1 >= second) {
                low = first + 1 - second;
                high = first;
            }
        }
    }
    if (low > high || high > UINT32_MAX)
        return err_set(err, EINVAL,
                       "-dfilter: '%s' is not a range (0x1000..0x1fff, 0x1000+0x200, 0x11ff-0x200)",
                       value);
    o->log_low = (uint32_t)low;
    o->log_high = (uint32_t)high;
    return 0;
}

static int take_stats(struct options *o, const char *value, struct err *err)
{
    (void)value, (void)err;
    o->stats = true;
    return 0;
}

static int take_engine(struct options *o, const char *value, struct err *err)
{
    (void)o;
    if (strcmp(value, "dbt"))
        return err_set(err, EINVAL, "--engine: there is no engine '%s' (there is: dbt)", value);
    return 0;
}

static int take_verify(struct options *o, const char *value, struct err *err)
{
    (void)value, (void)err;
    o->verify = true;
    return 0;
}

/* What harnesses pass to QEMU to leave out parts that this machine does not have anyway. */
static int take_none(struct options *o, const char *value, struct err *err)
{
    (void)o;
    if (strcmp(value, "none") && strcmp(value, "null"))
        return err_set(err, EINVAL,
                       "-display, -monitor, -parallel, -vga, -net, -nic: only 'none' is supported, "
                       "not '%s'",
                       value);
    return 0;
}

static int take_help(struct options *o, const char *value, struct err *err)
{
    (void)value, (void)err;
    o->action = ACTION_HELP;
    return 0;
}

static int take_version(struct options *o, const char *value, struct err *err)
{
    (void)value, (void)err;
    o->action = ACTION_VERSION;
    return 0;
}

static const struct option table[] = {
    {"kernel", "FILE", "Linux bzImage, multiboot image or 32-bit ELF file to boot", take_kernel},
    {"initrd", "FILE", "initial RAM disk; multiboot: modules, \"FILE ARGS,FILE ARGS\"",
     take_initrd},
    {"append", "STRING", "the kernel's command line", take_append},
    {"m", "SIZE", "RAM, with K, M or G; MiB without (default 128M; 2M to 3584M)", take_memory},
    {"nographic", NULL, "serial port on the terminal, Ctrl-A for commands (this is the default)",
     take_nographic},
    {"serial", "DEV", "serial port: stdio, mon:stdio, file:PATH, null, none", take_serial},
    {"no-reboot", NULL, "end instead of resetting (status 3 after a triple fault)", take_no_reboot},
    {"device", "DEV", "isa-debug-exit[,iobase=0x501][,iosize=2]; -device help", take_device},
    {"debugcon", "DEV", "debug console at port E9h: stdio, file:PATH, null", take_debugcon},
    {"d", "LIST", "log these, separated by commas; -d help lists them", take_log},
    {"D", "FILE", "write the log to FILE instead of stderr", take_log_path},
    {"dfilter", "RANGE", "log only these guest addresses: FIRST..LAST, START+SIZE, LAST-SIZE",
     take_filter},
    {"stats", NULL, "print counters on stderr at the end", take_stats},
    {"engine", "NAME", "how guest code is run: dbt", take_engine},
    {"verify", NULL, "run each block twice and stop at the first difference (status 4)",
     take_verify},
    {"display", "none", NULL, take_none},
    {"monitor", "none", NULL, take_none},
    {"parallel", "none", NULL, take_none},
    {"vga", "none", NULL, take_none},
    {"net", "none", NULL, take_none},
    {"nic", "none", NULL, take_none},
    {"h", NULL, NULL, take_help},
    {"help", NULL, "print this", take_help},
    {"version", NULL, "print the version", take_version},
};

static const struct option *find(const char *arg)
{
    const char *name = arg + (arg[1] == '-' ? 2 : 1);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (!strcmp(table[i].name, name))
            return &table[i];
    }
    return NULL;
}

static int check(const struct options *o, struct err *err)
{
    if (o->action != ACTION_RUN)
        return 0;
    if (!o->kernel && o->initrd)
        return err_set(err, EINVAL, "-initrd: only with -kernel");
    if (!o->kernel && o->append)
        return err_set(err, EINVAL, "-append: only with -kernel");
    if (!o->kernel && o->debug_exit)
        return err_set(err, EINVAL,
                       "-device: isa-debug-exit only with -kernel: the embedded guest has "
                       "its own");
    return 0;
}

int options_parse(struct options *o, int argc, char *const *argv, struct err *err)
{
    *o = (struct options){
        .ram_size = MIB(RAM_DEFAULT_MIB),
        .serial.kind = OUTPUT_STDIO,
        .debug_exit_iobase = DEBUG_EXIT_IOBASE,
        .debug_exit_iosize = DEBUG_EXIT_IOSIZE,
        .log_high = UINT32_MAX,
    };
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (arg[0] != '-' || !arg[1])
            return err_set(err, EINVAL, "'%s' is not an option (kernels are given with -kernel)",
                           arg);
        const struct option *option = find(arg);
        if (!option)
            return err_set(err, EINVAL, "%s: unknown option (see -help)", arg);
        const char *value = NULL;
        if (option->argument) {
            if (i + 1 == argc)
                return err_set(err, EINVAL, "%s: needs an argument, %s", arg, option->argument);
            value = argv[++i];
        }
        int ret = option->take(o, value, err);
        if (ret < 0)
            return ret;
        if (o->action != ACTION_RUN)
            return 0;
    }
    return check(o, err);
}

void options_help(FILE *to)
{
    fprintf(to,
            "usage: novt [options]\n"
            "Boots 32-bit x86 PC guests in one unprivileged process. Without -kernel it boots the\n"
            "embedded guest, which tries each sensitive instruction. One dash or two.\n\n");
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const struct option *option = &table[i];
        if (!option->help)
            continue;
        char left[32];
        snprintf(left, sizeof(left), "-%s %s", option->name,
                 option->argument ? option->argument : "");
        fprintf(to, "  %-18s %s\n", left, option->help);
    }
    fprintf(to,
            "\nOn the terminal: Ctrl-A x quits, Ctrl-A h helps, Ctrl-A Ctrl-A sends a Ctrl-A.\n");
}

void options_device_help(FILE *to)
{
    fprintf(to,
            "isa-debug-exit: a write of N to its ports ends novt with status (N << 1) | 1\n"
            "  iobase=<uint16>  first port (default %#x)\n"
            "  iosize=<1|2|4>   number of ports (default %d)\n",
            DEBUG_EXIT_IOBASE, DEBUG_EXIT_IOSIZE);
}

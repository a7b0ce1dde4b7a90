# What ./run and ./test share: packages and builds. To be sourced, with $dir set to the repository.
# Everything said goes to stderr; stdout is the guest's.

say()
{
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# Packages of the given kinds (packages.txt) that are not installed.
missing_packages()
{
    kinds=" $* "
    while read -r kind package; do
        case $kinds in
        *" $kind "*) ;;
        *) continue ;;
        esac
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=absent
        [ "$status" = installed ] || printf '%s ' "$package"
    done <"$dir/packages.txt"
}

as_root()
{
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        say "sudo $*"
        sudo "$@"
    else
        say "not root, and no sudo: cannot run '$*'"
        return 1
    fi
}

# Installs what is missing of the given kinds; fails if that cannot be done.
install_packages()
{
    command -v dpkg-query >/dev/null || return 1
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || return 1
    say "installing with apt-get: $missing"
    if [ -z "${apt_updated-}" ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2 </dev/null ||
            say "apt-get update failed; trying with the lists that are there"
        apt_updated=1
    fi
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y --no-install-recommends install $missing >&2 </dev/null
}

# need_packages KINDS...: as above, but goes on where another distribution may have the programs.
need_packages()
{
    install_packages "$@" && return
    if command -v dpkg-query >/dev/null; then
        say "these Debian packages are missing and could not be installed: $(missing_packages "$@")"
        exit 1
    fi
    say "not a Debian system: expecting what packages.txt lists to be installed"
}

# configure DIR CMAKE-ARGS...: only if that has not been done yet.
configure()
{
    build=$1
    shift
    [ -f "$build/build.ninja" ] && return
    say "configuring $build"
    mkdir -p "$build"
    cmake -G Ninja -S "$dir" -B "$build" "$@" >"$build/configure.log" 2>&1 || {
        cat "$build/configure.log" >&2
        say "cmake failed"
        exit 1
    }
}

# build DIR TARGETS...: shows its progress the first time, afterwards only errors.
build()
{
    build=$1
    shift
    quiet=--quiet
    [ -f "$build/.ninja_log" ] || quiet=
    # shellcheck disable=SC2086
    ninja -C "$build" $quiet "$@" >&2 || {
        say "the build failed"
        exit 1
    }
}

# SPDX-License-Identifier: Apache-2.0
# Sourced by tests/run and quickstart. packages_install ROOT: installs what ROOT/packages.txt names and is not there yet.
# No terminal, no questions; apt is left alone when nothing is missing. Returns 1 (after one line) when it cannot.

packages_missing() {
    local package
    for package in $(sed 's/#.*//' "$1/packages.txt"); do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | cut -c1-9)" = installed ] ||
            echo "$package"
    done
}

packages_install() {
    local missing log as_root=""
    if ! command -v dpkg-query >/dev/null 2>&1; then
        echo "packages: this is not Debian or a relative of it; install what packages.txt names by hand" >&2
        return 1
    fi
    missing=$(packages_missing "$1" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        as_root=sudo
        if ! command -v sudo >/dev/null 2>&1; then
            echo "packages: run me as root, for these are to be installed: $missing" >&2
            return 1
        fi
    fi
    echo "packages: installing $missing"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # shellcheck disable=SC2086
    if ! { $as_root apt-get update -qq &&
        $as_root apt-get install -y -qq --no-install-recommends $missing; } </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        echo "packages: apt-get could not install: $missing" >&2
        return 1
    fi
    rm -f "$log"
}
